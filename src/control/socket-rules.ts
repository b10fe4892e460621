/**
 * What a socket means at the forwarder: the protocol addresses of the rules that it wants of a virtual IF, or of a virtual
 * IP address. Pure.
 *
 *     stream     listening                             tcp:PORT, tcp:ADDR:PORT
 *     datagram   bound                                 udp:PORT, udp:ADDR:PORT, udp:GROUP:PORT
 *     raw        any but IPPROTO_RAW                   ip:N, ip:N:ADDR
 *     packet     with an ether type                    *, arp, ether:0x88cc
 *     whatever else: none. Its packets open flows when they leave, and answers come by those.
 *
 * A rule has no family, so [::] and 0.0.0.0 want the same one, also where the socket is IPv6 only: an IPv4 packet to its
 * port then comes up and meets no socket, as it would on an interface of the host's own. Several sockets may want the same
 * rule: who asks counts them.
 */
import {
  ANY_PROTOCOL,
  ETHERTYPE_MIN,
  hasPorts,
  IPPROTO_ICMPV6,
  parseProtocolAddress,
} from '../packet/protocol-address.js';
import type { ProtocolAddress } from '../packet/protocol-address.js';
import { addressText } from '../packet/ip-address.js';
import type { WatchedSocket } from './watched-socket.js';

export interface VifView {
  /** Of the device, and of what is stacked on it. */
  readonly ifindexes: ReadonlySet<number>;
  /** Of the device, 4 or 16 bytes each. */
  readonly addresses: readonly Buffer[];
  readonly kind: 'tap' | 'tun';
}

const IPPROTO_RAW = 255;
const ETH_P_ALL = 3;
const ETH_P_802_3 = 1;
const ETH_P_802_2 = 4;
const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_IPV6 = 0x86dd;
const NONE: readonly ProtocolAddress[] = [];

/** The rules that a socket wants of a vif: none or one. */
export function rulesOf(socket: WatchedSocket, vif: VifView): readonly ProtocolAddress[] {
  if (socket.ifindex !== 0 && !vif.ifindexes.has(socket.ifindex)) return NONE;
  switch (socket.kind) {
    case 'stream':
      return socket.listening && socket.port !== 0 ? ofAddress(socket, vif, `:${socket.port}`) : NONE;
    case 'datagram':
      return socket.port === 0 ? NONE : ofAddress(socket, vif, `:${socket.port}`);
    case 'raw':
      // One for TCP or UDP sees what other sockets get; to have all of it cross would take the forwarder's own away.
      return socket.protocol === IPPROTO_RAW || hasPorts(socket.protocol) ? NONE : ofAddress(socket, vif, '');
    case 'packet':
      return ofEtherType(socket.protocol, vif);
    case 'ping':
      return NONE;
  }
}

/**
 * The rules that a socket wants of a virtual IP address: none, or one that names it. Of protocols with ports only, for
 * those are converted; and where the socket is bound to any address, only if that is one of its family.
 */
export function rulesOfVip(socket: WatchedSocket, vip: Buffer): readonly ProtocolAddress[] {
  const { address, family, port, protocol, v6only } = socket;
  if (socket.ifindex !== 0 || port === 0 || !hasPorts(protocol)) return NONE;
  if (socket.kind !== 'datagram' && (socket.kind !== 'stream' || !socket.listening)) return NONE;
  if (address === null ? !takesFamily(vip, family, v6only) : !vip.equals(address)) return NONE;
  const text = addressText(vip);
  return [parseProtocolAddress(`ip:${protocol}:${vip.length === 4 ? text : `[${text}]`}:${port}`)];
}

function takesFamily(vip: Buffer, family: number, v6only: boolean): boolean {
  return vip.length === 16 ? family === 6 : family === 4 || !v6only;
}

function ofAddress(socket: WatchedSocket, vif: VifView, port: string): readonly ProtocolAddress[] {
  const { address, protocol } = socket;
  if (!hasPorts(protocol) && port !== '') return NONE;
  if (address === null) return [parseProtocolAddress(`ip:${protocol}${port}`)];
  const isOurs = vif.addresses.some((one) => one.equals(address));
  // A stream can't listen at a group, and a socket bound to the limited broadcast address receives broadcasts only.
  if (!isOurs && (socket.kind === 'stream' || !(isMulticast(address) || isBroadcast(address)))) return NONE;
  // A raw ICMPv6 socket has an IPv6 address; the kernel lets no other be bound.
  if (protocol === IPPROTO_ICMPV6 && address.length === 4) return NONE;
  const text = addressText(address);
  return [parseProtocolAddress(`ip:${protocol}:${address.length === 4 ? text : `[${text}]`}${port}`)];
}

function isMulticast(address: Buffer): boolean {
  return address.length === 4 ? (address[0]! & 0xf0) === 0xe0 : address[0] === 0xff;
}

function isBroadcast(address: Buffer): boolean {
  return address.length === 4 && address.every((byte) => byte === 255);
}

function ofEtherType(etherType: number, vif: VifView): readonly ProtocolAddress[] {
  if (etherType === ETH_P_ALL) return [ANY_PROTOCOL];
  // 802.3 frames have a length where others have their type, so they can't be named; the kernel sorts out the rest.
  if (etherType === ETH_P_802_3 || etherType === ETH_P_802_2) return vif.kind === 'tap' ? [ANY_PROTOCOL] : NONE;
  // Other numbers below are the kernel's own kinds of frames.
  if (etherType < ETHERTYPE_MIN) return NONE;
  if (vif.kind === 'tun' && etherType !== ETHERTYPE_IPV4 && etherType !== ETHERTYPE_IPV6) return NONE;
  return [parseProtocolAddress(`ether:${etherType}`)];
}
