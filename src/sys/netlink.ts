/**
 * A netlink socket: requests with their answers, and what comes unasked from the groups it joined.
 *
 *     request(type, body) --send--> kernel --ack: errno--------------------------> returns, or throws SystemError
 *     query(type, body)   --send--> kernel --message, …, DONE (dump) | ack-------> one call of `each` per message
 *     transaction(…)      --send--> kernel --ack: errno--------------------------> the same, of a subsystem that wants batches
 *     receive()           <-------- kernel, whenever something changes (sockets with groups, non-blocking)
 *
 * rtnetlink answers within the send itself, so requests are synchronous; the receive timeout is there for the day when
 * it does not. A socket either asks or listens: an event between an answer's parts would have to be kept. The socket
 * belongs to the network namespace of the thread that creates it, for its whole life.
 */
import { constants } from 'node:os';
import { SystemError } from '../base/errors.js';
import { must, O, sys } from './libc.js';
import type { NetlinkMessage } from './rtnetlink.js';
import { attributes, cString, encodeMessage, messages, NLM_F, NLMSG } from './rtnetlink.js';

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOL_SOCKET = 1;
const SO_RCVTIMEO = 20;
const SO_RCVBUFFORCE = 33;
const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const NLMSGERR_ATTR_MSG = 1;
const MSG_TRUNC = 0x20;
const MSG_DONTWAIT = 0x40;

export const NETLINK_ROUTE = 0;
export const NETLINK_NETFILTER = 12;

/** The kernel fills at most 32 KiB of a dump into one datagram. */
const RECEIVE_BYTES = 64 << 10;
/** Events that wait while the process is busy; more give ENOBUFS. */
const EVENT_BUFFER_BYTES = 1 << 20;
const ANSWER_TIMEOUT_SECONDS = 2;
/** How often a dump that was interrupted by a change is asked for again. */
const DUMP_ATTEMPTS = 8;
/** How long a dump in turns works until others get theirs. */
const DUMP_TURN_MS = 5;
/** nlmsgerr: error i32, then the header of the request. */
const ERROR_BYTES = 20;

const { EINTR, EMSGSIZE } = constants.errno;

export interface NetlinkOptions {
  /** Default NETLINK_ROUTE. */
  readonly protocol?: number;
  /** Groups to listen to, bits of RTMGRP; the socket is then for `receive` only. Default 0: a socket for requests. */
  readonly groups?: number;
}

/** What messages of netfilter begin with: struct nfgenmsg, with the subsystem in network order. */
export function nfgenmsg(family: number, subsystem: number): Buffer {
  return Buffer.from([family, 0, subsystem >> 8, subsystem & 0xff]);
}

/** The message that begins or ends a transaction. */
export interface Envelope {
  readonly type: number;
  readonly body: Buffer;
}

export class Netlink {
  /** Non-blocking when the socket listens to groups. */
  readonly fd: number;
  private readonly buffer = Buffer.allocUnsafeSlow(RECEIVE_BYTES);
  private sequence = 0;
  private closed = false;

  /** @throws SystemError */
  constructor(options: NetlinkOptions = {}) {
    const { protocol = NETLINK_ROUTE, groups = 0 } = options;
    const type = SOCK_RAW | O.CLOEXEC | (groups === 0 ? 0 : O.NONBLOCK);
    this.fd = must('socket(AF_NETLINK)', sys.socket(AF_NETLINK, type, protocol));
    try {
      if (groups === 0) {
        const timeout = Buffer.alloc(16);
        timeout.writeUInt32LE(ANSWER_TIMEOUT_SECONDS, 0);
        must('setsockopt(SO_RCVTIMEO)', sys.setsockopt(this.fd, SOL_SOCKET, SO_RCVTIMEO, timeout));
        // Older kernels don't know them, and are merely less clear about what was wrong.
        sys.setsockopt(this.fd, SOL_NETLINK, NETLINK_CAP_ACK, int(1));
        sys.setsockopt(this.fd, SOL_NETLINK, NETLINK_EXT_ACK, int(1));
      } else {
        // Needs CAP_NET_ADMIN in the first user namespace; without it the default is enough for most.
        sys.setsockopt(this.fd, SOL_SOCKET, SO_RCVBUFFORCE, int(EVENT_BUFFER_BYTES));
      }
      const address = Buffer.alloc(12);
      address.writeUInt16LE(AF_NETLINK, 0);
      address.writeUInt32LE(groups, 8);
      must('bind(AF_NETLINK)', sys.bind(this.fd, address));
    } catch (error) {
      sys.close(this.fd);
      throw error;
    }
  }

  /**
   * Asks for something to be done, and returns when it is.
   *
   * @param flags of NLM_F; REQUEST and ACK are added @param body fixed part and attributes
   * @throws SystemError with the errno of the kernel's answer, and its words where it gave any
   */
  request(type: number, flags: number, body: Buffer): void {
    this.ask(type, flags | NLM_F.ACK, body, () => undefined);
  }

  /**
   * Asks for objects: one (`flags` 0, the kernel then also acknowledges) or all (`flags` NLM_F.DUMP).
   *
   * @param restart called before a dump begins again because a change interrupted it: forget what `each` was given
   * @returns false when the dump stayed inconsistent over DUMP_ATTEMPTS; `each` was given the last one
   * @throws SystemError
   */
  query(
    type: number,
    flags: number,
    body: Buffer,
    each: (message: NetlinkMessage) => void,
    restart: () => void = () => undefined,
  ): boolean {
    if ((flags & NLM_F.DUMP) !== NLM_F.DUMP) return this.ask(type, flags | NLM_F.ACK, body, each);
    for (let attempt = 1; ; attempt++) {
      if (this.ask(type, flags, body, each)) return true;
      if (attempt === DUMP_ATTEMPTS) return false;
      restart();
    }
  }

  /** A request between two other messages, which begin and end a transaction. @throws as request */
  transaction(begin: Envelope, type: number, flags: number, body: Buffer, end: Envelope): void {
    this.sequence += 1;
    const enclosed = encodeMessage(type, flags | NLM_F.REQUEST | NLM_F.ACK, this.sequence, body);
    const [first, last] = [begin, end].map((one) => encodeMessage(one.type, NLM_F.REQUEST, this.sequence, one.body));
    this.exchange(type, Buffer.concat([first!, enclosed, last!]), () => undefined);
  }

  /**
   * A dump that may be long: others get their turn every DUMP_TURN_MS, and until it is over nothing else may be asked on
   * this socket. What changes meanwhile may be in it or not.
   *
   * @throws SystemError
   */
  async dumpInTurns(type: number, body: Buffer, each: (message: NetlinkMessage) => void): Promise<void> {
    this.sequence += 1;
    const request = encodeMessage(type, NLM_F.REQUEST | NLM_F.DUMP, this.sequence, body);
    must('send(AF_NETLINK)', sys.send(this.fd, request, request.length, 0));
    let begun = performance.now();
    while (!this.takeAnswers(type, each).done) {
      if (performance.now() - begun < DUMP_TURN_MS) continue;
      await new Promise((resolve) => setImmediate(resolve));
      begun = performance.now();
    }
  }

  private ask(type: number, flags: number, body: Buffer, each: (message: NetlinkMessage) => void): boolean {
    this.sequence += 1;
    return this.exchange(type, encodeMessage(type, flags | NLM_F.REQUEST, this.sequence, body), each);
  }

  /** Sends, and takes answers until the acknowledgement or the end of the dump. @returns whether they are consistent */
  private exchange(type: number, datagram: Buffer, each: (message: NetlinkMessage) => void): boolean {
    must('send(AF_NETLINK)', sys.send(this.fd, datagram, datagram.length, 0));
    let consistent = true;
    for (;;) {
      const answers = this.takeAnswers(type, each);
      consistent &&= answers.consistent;
      if (answers.done) return consistent;
    }
  }

  /** One datagram of answers. */
  private takeAnswers(type: number, each: (message: NetlinkMessage) => void): { done: boolean; consistent: boolean } {
    const length = this.receiveDatagram(0);
    let consistent = true;
    if (length === -EINTR) return { done: false, consistent };
    must('recv(AF_NETLINK)', length);
    for (const answer of messages(this.buffer.subarray(0, length))) {
      // An answer that came after the timeout of the request before.
      if (answer.sequence !== this.sequence) continue;
      if ((answer.flags & NLM_F.DUMP_INTR) !== 0) consistent = false;
      if (answer.type === NLMSG.ERROR || answer.type === NLMSG.DONE) {
        throwIfFailed(type, answer);
        return { done: true, consistent };
      }
      each(answer);
    }
    return { done: false, consistent };
  }

  /**
   * Takes one datagram of the groups, without waiting.
   *
   * @returns its bytes, or minus an errno: EAGAIN when there is none, ENOBUFS when events were lost
   */
  receive(each: (message: NetlinkMessage) => void): number {
    const length = this.receiveDatagram(MSG_DONTWAIT);
    if (length > 0) for (const message of messages(this.buffer.subarray(0, length))) each(message);
    return length;
  }

  private receiveDatagram(flags: number): number {
    const length = sys.recv(this.fd, this.buffer, this.buffer.length, flags | MSG_TRUNC);
    return length > this.buffer.length ? -EMSGSIZE : length;
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    sys.close(this.fd);
  }
}

function int(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value, 0);
  return bytes;
}

/** Both ERROR and DONE begin with minus an errno, or 0. */
function throwIfFailed(type: number, answer: NetlinkMessage): void {
  const errno = answer.body.length >= 4 ? -answer.body.readInt32LE(0) : 0;
  if (errno <= 0) return;
  let words = '';
  if (answer.type === NLMSG.ERROR && (answer.flags & NLM_F.ACK_TLVS) !== 0) {
    // Without CAPPED the whole request stands between the error and the attributes.
    const request = answer.body.length >= 8 ? answer.body.readUInt32LE(4) : 0;
    const offset = (answer.flags & NLM_F.CAPPED) !== 0 ? ERROR_BYTES : 4 + request;
    const text = attributes(answer.body, offset).get(NLMSGERR_ATTR_MSG);
    if (text !== undefined) words = `(${cString(text)})`;
  }
  throw new SystemError(`netlink request ${type}`, errno, words);
}
