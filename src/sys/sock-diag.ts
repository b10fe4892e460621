/**
 * The sockets of a network namespace as the kernel lists them: NETLINK_SOCK_DIAG (linux/sock_diag.h, inet_diag.h,
 * packet_diag.h).
 *
 *     inet(family, protocol, states)  --dump-->  one inet_diag_msg per socket
 *     packet()                        --dump-->  one packet_diag_msg per packet socket, with its filter
 *     destroyed TCP, UDP sockets      <--groups  an inet_diag_msg when the last reference to one is gone
 *
 *      0        1        2        3        4                 6                 8
 *     +--------+--------+--------+--------+-----------------+-----------------+----------------------
 *     | family | state  | timer  | retrans| local port (BE) | remote port (BE)| local address 16 bytes
 *     +--------+--------+--------+--------+-----------------+-----------------+----------------------
 *      24                   40        44            52                            68        72
 *     +--------------------+---------+-------------+-----------------------------+---------+-----------
 *     | remote address 16  | ifindex | cookie u64  | expires, queues, uid        | inode   | attributes …
 *     +--------------------+---------+-------------+-----------------------------+---------+-----------
 *
 *     packet_diag_msg: family u8 | type u8 | ether type u16 | inode u32 | cookie u64 | attributes …
 *
 * A dump of thousands of sockets is looked at often and changes little, so decoding is left to who needs it: `each` gets the
 * bytes, valid during the call. A cookie names a socket and no other for as long as the kernel runs.
 */
import { constants } from 'node:os';
import { SystemError } from '../base/errors.js';
import { addressOf, must, putPointer, sys } from './libc.js';
import { Netlink } from './netlink.js';
import { attributes, NLM_F } from './rtnetlink.js';

const NETLINK_SOCK_DIAG = 4;
const SOCK_DIAG_BY_FAMILY = 20;
const AF_INET = 2;
const AF_INET6 = 10;
const AF_PACKET = 17;
const INET_REQUEST_BYTES = 56;
const PACKET_REQUEST_BYTES = 20;
const INET_DIAG_SKV6ONLY = 11;
const PACKET_DIAG_INFO = 0;
const PACKET_DIAG_FILTER = 7;
const PACKET_SHOW_INFO_AND_FILTER = 0x21;
const SOL_SOCKET = 1;
const SO_ATTACH_FILTER = 26;
const { ENOENT, EINVAL, EOPNOTSUPP } = constants.errno;

/** States of a socket, TCP_* of the kernel; protocols without connections use two of them. */
export const SOCKET_STATE = { ESTABLISHED: 1, CLOSE: 7, LISTEN: 10 } as const;

/** Where the parts stand that tell one socket, and one state of a socket, from another. */
export const INET_SOCKET = {
  bytes: 72,
  state: 1,
  timer: 2,
  identity: 4,
  cookie: 44,
  identityEnd: 52,
  inode: 68,
} as const;
export const PACKET_SOCKET = { bytes: 16, etherType: 2, inode: 4, cookie: 8 } as const;

export interface InetSocket {
  readonly family: 4 | 6;
  readonly state: number;
  /** The local port; of a raw socket its protocol. */
  readonly port: number;
  /** 4 or 16 bytes, a copy; null: any. An IPv4 address of an IPv6 socket has 4. */
  readonly address: Buffer | null;
  readonly hasPeer: boolean;
  readonly ifindex: number;
  readonly inode: number;
  readonly v6only: boolean;
}

export interface PacketSocketInfo {
  /** 0: it receives nothing; 3: everything. */
  readonly etherType: number;
  readonly ifindex: number;
  readonly inode: number;
  /** Classic BPF as hex, '' for none. */
  readonly filter: string;
}

const V4_MAPPED = Buffer.from('00000000000000000000ffff', 'hex');

/** A local address as sockets show it: null for any, IPv4 also where an IPv6 socket has it. */
export function localAddress(bytes: Buffer): Buffer | null {
  if (bytes.every((byte) => byte === 0)) return null;
  const isMapped = bytes.length === 16 && V4_MAPPED.equals(bytes.subarray(0, 12));
  const address = Buffer.from(isMapped ? bytes.subarray(12) : bytes);
  return address.every((byte) => byte === 0) ? null : address;
}

/** Null where the message is too short. */
export function decodeInetSocket(body: Buffer): InetSocket | null {
  if (body.length < INET_SOCKET.bytes) return null;
  const family = body[0] === AF_INET6 ? 6 : 4;
  return {
    family,
    state: body[INET_SOCKET.state]!,
    port: body.readUInt16BE(4),
    address: localAddress(body.subarray(8, family === 4 ? 12 : 24)),
    hasPeer: body.readUInt16BE(6) !== 0,
    ifindex: body.readUInt32LE(40),
    inode: body.readUInt32LE(INET_SOCKET.inode),
    v6only: attributes(body, INET_SOCKET.bytes).get(INET_DIAG_SKV6ONLY)?.[0] === 1,
  };
}

/** Null where the message is too short. */
export function decodePacketSocket(body: Buffer): PacketSocketInfo | null {
  if (body.length < PACKET_SOCKET.bytes) return null;
  const found = attributes(body, PACKET_SOCKET.bytes);
  const info = found.get(PACKET_DIAG_INFO);
  return {
    etherType: body.readUInt16LE(PACKET_SOCKET.etherType),
    ifindex: info !== undefined && info.length >= 4 ? info.readUInt32LE(0) : 0,
    inode: body.readUInt32LE(PACKET_SOCKET.inode),
    filter: found.get(PACKET_DIAG_FILTER)?.toString('hex') ?? '',
  };
}

/** A cookie as a number that keys a map; the kernel counts them up from 1. */
export function cookieAt(body: Buffer, offset: number): number {
  return body.readUInt32LE(offset) + body.readUInt32LE(offset + 4) * 0x1_0000_0000;
}

/** Asks for lists. Belongs to the network namespace of the thread that creates it. */
export class SockDiag {
  private readonly netlink = new Netlink({ protocol: NETLINK_SOCK_DIAG });

  /**
   * @param states bits `1 << SOCKET_STATE.…`
   * @returns false where this kernel can't list the protocol
   * @throws SystemError
   */
  inet(family: 4 | 6, protocol: number, states: number, each: (body: Buffer) => void): boolean {
    const request = Buffer.alloc(INET_REQUEST_BYTES);
    request[0] = family === 4 ? AF_INET : AF_INET6;
    request[1] = protocol;
    request.writeUInt32LE(states, 4);
    return this.dump(request, each);
  }

  /** @returns false where this kernel can't list packet sockets @throws SystemError */
  packet(each: (body: Buffer) => void): boolean {
    const request = Buffer.alloc(PACKET_REQUEST_BYTES);
    request[0] = AF_PACKET;
    request.writeUInt32LE(PACKET_SHOW_INFO_AND_FILTER, 8);
    return this.dump(request, each);
  }

  close(): void {
    this.netlink.close();
  }

  private dump(request: Buffer, each: (body: Buffer) => void): boolean {
    try {
      this.netlink.query(SOCK_DIAG_BY_FAMILY, NLM_F.DUMP, request, (message) => each(message.body));
      return true;
    } catch (error) {
      if (error instanceof SystemError && [ENOENT, EINVAL, EOPNOTSUPP].includes(error.errno)) return false;
      throw error;
    }
  }
}

/** Groups of NETLINK_SOCK_DIAG, as bits: sockets of both families that are gone. */
export const DESTROYED = { TCP: 0b101, UDP: 0b1010 } as const;

/**
 * For DESTROYED.TCP: only what had no peer, which is what listened. Connections come and go by the thousand.
 * ldh [22] (netlink header, then the remote port); jeq 0 ? accept : drop.
 */
const WITHOUT_PEER = Buffer.from(
  '2800000016000000' + '1500000100000000' + '06000000ffffffff' + '0600000000000000',
  'hex',
);

/** Tells of sockets that are gone, for a readiness Source: `fd` and `receive`. */
export class DestroyedSockets {
  readonly netlink: Netlink;

  /** @param groups one of DESTROYED @throws SystemError */
  constructor(groups: number) {
    this.netlink = new Netlink({ protocol: NETLINK_SOCK_DIAG, groups });
    if (groups !== DESTROYED.TCP) return;
    const fprog = Buffer.alloc(16);
    fprog.writeUInt16LE(WITHOUT_PEER.length / 8, 0);
    putPointer(fprog, 8, addressOf(WITHOUT_PEER));
    try {
      must('setsockopt(SO_ATTACH_FILTER)', sys.setsockopt(this.netlink.fd, SOL_SOCKET, SO_ATTACH_FILTER, fprog));
    } catch (error) {
      this.netlink.close();
      throw error;
    }
  }

  get fd(): number {
    return this.netlink.fd;
  }

  /** One datagram. @param each gets the cookie @returns its bytes or minus an errno, as Netlink.receive */
  receive(each: (cookie: number) => void): number {
    return this.netlink.receive(({ body }) => {
      if (body.length >= INET_SOCKET.bytes) each(cookieAt(body, INET_SOCKET.cookie));
    });
  }

  close(): void {
    this.netlink.close();
  }
}
