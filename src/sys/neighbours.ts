/**
 * The kernel's neighbours (ARP, neighbour discovery), asked and followed by rtnetlink.
 *
 *     find(ifindex, address)    GETNEIGH            the link layer address that it has now, or null
 *     use(ifindex, address)     NEWNEIGH, NTF_USE   it resolves the address, or makes sure of what it has
 *     onChange                  RTMGRP_NEIGH        what became of it
 */
import { constants } from 'node:os';
import { SystemError } from '../base/errors.js';
import { Netlink } from './netlink.js';
import { readiness, type Source } from './readiness.js';
import {
  attribute,
  attributes,
  decode,
  encode,
  NDA,
  NDMSG,
  type NetlinkMessage,
  NLM_F,
  RTM,
  RTMGRP,
} from './rtnetlink.js';

const AF_INET = 2;
const AF_INET6 = 10;
const NTF_USE = 1;
/** REACHABLE, STALE, DELAY, PROBE, NOARP, PERMANENT: the address may be sent to. */
const NUD_VALID = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80;
const NUD_FAILED = 0x20;
const IPV4_BYTES = 4;
/** Datagrams that one drain takes before timers and other descriptors get their turn. */
const DRAIN_DATAGRAMS = 64;
const { EAGAIN, EINTR, ENOENT } = constants.errno;

export interface Neighbour {
  readonly ifindex: number;
  /** 4 or 16 bytes. */
  readonly address: Buffer;
  /** null: it has none that may be used. */
  readonly link: Buffer | null;
  /** It was asked and did not answer. */
  readonly failed: boolean;
}

function neighbourOf({ type, body }: NetlinkMessage): Neighbour | null {
  const header = decode(NDMSG, body);
  if (header === null || (type !== RTM.NEWNEIGH && type !== RTM.DELNEIGH)) return null;
  const found = attributes(body, NDMSG.bytes);
  const address = found.get(NDA.DST);
  if (address === undefined || (header.family !== AF_INET && header.family !== AF_INET6)) return null;
  const link = found.get(NDA.LLADDR);
  const isValid = type === RTM.NEWNEIGH && (header.state & NUD_VALID) !== 0;
  return {
    ifindex: header.index,
    address: Buffer.from(address),
    link: isValid && link !== undefined ? Buffer.from(link) : null,
    failed: type === RTM.DELNEIGH || (header.state & NUD_FAILED) !== 0,
  };
}

function request(ifindex: number, address: Buffer, flags: number): Buffer {
  const family = address.length === IPV4_BYTES ? AF_INET : AF_INET6;
  return Buffer.concat([encode(NDMSG, { family, index: ifindex, flags }), attribute(NDA.DST, address)]);
}

export class Neighbours {
  /** A neighbour changed, or one did not answer. */
  onChange: (neighbour: Neighbour) => void = () => undefined;
  /** Events were lost: any neighbour may have changed. */
  onLost: () => void = () => undefined;
  private readonly requests = new Netlink();
  private readonly events: Netlink;
  private readonly source: Source;
  private closed = false;

  /** @throws SystemError */
  constructor() {
    try {
      this.events = new Netlink({ groups: RTMGRP.NEIGH });
      this.source = { fd: this.events.fd, drain: () => this.drain() };
      readiness.arm(this.source);
    } catch (error) {
      this.requests.close();
      throw error;
    }
  }

  /** @throws SystemError, but not because there is none */
  find(ifindex: number, address: Buffer): Buffer | null {
    let link: Buffer | null = null;
    try {
      this.requests.query(RTM.GETNEIGH, 0, request(ifindex, address, 0), (message) => {
        link = neighbourOf(message)?.link ?? null;
      });
    } catch (error) {
      if (!(error instanceof SystemError) || error.errno !== ENOENT) throw error;
    }
    return link;
  }

  /** @throws SystemError */
  use(ifindex: number, address: Buffer): void {
    this.requests.request(RTM.NEWNEIGH, NLM_F.CREATE, request(ifindex, address, NTF_USE));
  }

  private drain(): boolean {
    for (let count = 0; count < DRAIN_DATAGRAMS; count++) {
      if (this.closed) return false;
      const result = this.events.receive((message) => {
        const neighbour = neighbourOf(message);
        if (neighbour !== null) this.onChange(neighbour);
      });
      if (result === -EAGAIN) return false;
      if (result < 0 && result !== -EINTR) this.onLost();
    }
    return true;
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    readiness.disarm(this.source);
    this.events.close();
    this.requests.close();
  }
}
