/**
 * The sockets of a network namespace, one list a kind, each compared with what it held when it was read last.
 *
 *     kernel --read--> SocketList.look --> opened, closed
 *                          |  known: key -> bytes that tell a state, socket
 *                          +--> missing: was there, is not in this reading
 *
 * A long list is read in pieces, and a socket that closes between two of them can hide another. So what is missing counts as
 * closed only when a second reading does not have it either; DestroyedSockets tells of most before.
 */
import { existsSync } from 'node:fs';
import {
  cookieAt,
  decodeInetSocket,
  decodePacketSocket,
  INET_SOCKET,
  PACKET_SOCKET,
  SOCKET_STATE,
} from '../sys/sock-diag.js';
import type { SockDiag } from '../sys/sock-diag.js';
import type { ProcNetFile } from '../sys/proc-net.js';
import { procSockets } from '../sys/proc-net.js';
import {
  IPPROTO_ICMP,
  IPPROTO_ICMPV6,
  IPPROTO_SCTP,
  IPPROTO_TCP,
  IPPROTO_UDP,
  IPPROTO_UDPLITE,
} from '../packet/protocol-address.js';
import type { WatchedSocket } from './watched-socket.js';

/**
 * Is given what names a socket, the bytes whose first `length` tell its state, and how to decode it; valid during the call.
 */
export type EachSocket = (key: number, state: Buffer, length: number, decode: () => WatchedSocket | null) => void;

/** Where one kind of sockets is listed. */
export interface SocketSource {
  read(each: EachSocket): void;
}

export interface SocketChanges {
  readonly opened: WatchedSocket[];
  readonly closed: WatchedSocket[];
}

interface Known {
  state: Buffer;
  /** Null: one that is not told of. */
  socket: WatchedSocket | null;
  reading: number;
}

export class SocketList {
  private readonly source: SocketSource;
  private readonly known = new Map<number, Known>();
  private reading = 0;

  constructor(source: SocketSource) {
    this.source = source;
  }

  /** Sockets that are known, those that are not told of included. */
  get size(): number {
    return this.known.size;
  }

  /** Whether nothing was told of that is not closed yet. For lists that are short. */
  get isEmpty(): boolean {
    for (const { socket } of this.known.values()) if (socket !== null) return false;
    return true;
  }

  /**
   * Reads the list.
   *
   * @param isOwn whether a socket that is new is not to be told of, by its inode
   * @param changes where what changed is added; a socket that changed is in both
   * @returns whether something is missing that a second reading must confirm
   * @throws SystemError
   */
  look(isOwn: (inode: number) => boolean, changes: SocketChanges): boolean {
    this.reading += 1;
    this.source.read((key, state, length, decode) => {
      const known = this.known.get(key);
      if (known !== undefined) {
        known.reading = this.reading;
        if (known.state.compare(state, 0, length) === 0) return;
        if (known.socket === null) return;
        changes.closed.push(known.socket);
      }
      const decoded = decode();
      const socket = decoded === null || isOwn(decoded.inode) ? null : decoded;
      this.known.set(key, { state: Buffer.from(state.subarray(0, length)), socket, reading: this.reading });
      if (socket !== null) changes.opened.push(socket);
    });
    let isMissing = false;
    for (const [key, known] of this.known) {
      if (known.reading === this.reading) continue;
      if (known.reading === this.reading - 1) isMissing = true;
      else {
        this.known.delete(key);
        if (known.socket !== null) changes.closed.push(known.socket);
      }
    }
    return isMissing;
  }

  /** It is known to be gone. @returns the socket, or null where none was told of */
  forget(key: number): WatchedSocket | null {
    const known = this.known.get(key);
    this.known.delete(key);
    return known?.socket ?? null;
  }
}

const SCTP_IS_LOADED = '/proc/sys/net/sctp';

/** TCP and SCTP sockets that listen; UDP and UDP-Lite sockets that have a port. */
function inetSource(diag: SockDiag, name: string, protocol: number, kind: 'stream' | 'datagram'): SocketSource {
  const { LISTEN, CLOSE, ESTABLISHED } = SOCKET_STATE;
  const states = kind === 'stream' ? 1 << LISTEN : (1 << CLOSE) | (1 << ESTABLISHED);
  // Asked for a protocol that it can't list, the kernel looks for a module each time: once is enough.
  let isListed = true;
  const read = (each: EachSocket): void => {
    // And asked for SCTP it loads it, which nobody wants who does not use it.
    if (protocol === IPPROTO_SCTP && !existsSync(SCTP_IS_LOADED)) return;
    for (const family of [4, 6] as const) {
      isListed &&= diag.inet(family, protocol, states, (message) => {
        const key = cookieAt(message, INET_SOCKET.cookie);
        // Timer and retransmissions are no state of ours.
        message.fill(0, INET_SOCKET.timer, INET_SOCKET.identity);
        each(key, message, INET_SOCKET.identityEnd, () => {
          const socket = decodeInetSocket(message);
          if (socket === null) return null;
          const { hasPeer: connected, state, ...rest } = socket;
          const listening = state === SOCKET_STATE.LISTEN;
          return { id: `${name}:${key}`, kind, protocol, connected, listening, filter: '', ...rest };
        });
      });
    }
  };
  return { read };
}

const PLAIN = { v6only: false, address: null, port: 0, connected: false, listening: false, ifindex: 0, filter: '' };

function packetSource(diag: SockDiag): SocketSource {
  let isListed = true;
  const read = (each: EachSocket): void => {
    isListed &&= diag.packet((message) => {
      const key = cookieAt(message, PACKET_SOCKET.cookie);
      each(key, message, message.length, () => {
        const socket = decodePacketSocket(message);
        if (socket === null) return null;
        const { etherType: protocol, ifindex, inode, filter } = socket;
        return { ...PLAIN, id: `packet:${key}`, kind: 'packet', protocol, family: 0, ifindex, inode, filter };
      });
    });
  };
  return { read };
}

/** Raw and ping sockets, of which /proc/net has a file a family. */
function procSource(files: readonly ProcNetFile[], kind: 'raw' | 'ping'): SocketSource {
  const read = (each: EachSocket): void => {
    for (const file of files) {
      for (const socket of procSockets(file.read())) {
        const { family, inode, address, port, hasPeer: connected } = socket;
        const state = Buffer.from(JSON.stringify(socket));
        each(inode, state, state.length, () => {
          const own = { ...PLAIN, id: `${kind}:${inode}`, kind, family, address, connected, inode };
          if (kind === 'raw') return { ...own, protocol: port };
          return { ...own, protocol: family === 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6, port };
        });
      }
    }
  };
  return { read };
}

/** The kinds of sockets, each with a list of its own. */
export const LIST_NAMES = ['tcp', 'sctp', 'udp', 'udplite', 'raw', 'ping', 'packet'] as const;
export type ListName = (typeof LIST_NAMES)[number];

/** @param files of /proc/net: those that this kernel has, by name */
export function socketLists(
  diag: SockDiag,
  files: ReadonlyMap<string, ProcNetFile>,
): Readonly<Record<ListName, SocketList>> {
  const named = (...names: string[]): ProcNetFile[] => names.flatMap((name) => files.get(name) ?? []);
  return {
    tcp: new SocketList(inetSource(diag, 'tcp', IPPROTO_TCP, 'stream')),
    sctp: new SocketList(inetSource(diag, 'sctp', IPPROTO_SCTP, 'stream')),
    udp: new SocketList(inetSource(diag, 'udp', IPPROTO_UDP, 'datagram')),
    udplite: new SocketList(inetSource(diag, 'udplite', IPPROTO_UDPLITE, 'datagram')),
    raw: new SocketList(procSource(named('raw', 'raw6'), 'raw')),
    ping: new SocketList(procSource(named('icmp', 'icmp6'), 'ping')),
    packet: new SocketList(packetSource(diag)),
  };
}

/** Files of /proc/net that `socketLists` reads. */
export const PROC_FILES = ['raw', 'raw6', 'icmp', 'icmp6'] as const;
