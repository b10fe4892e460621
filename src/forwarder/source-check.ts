/**
 * The right `write` without `inject`: frames leave only with the interface's own MAC address and IP
 * addresses as their source. ARP (RFC 826) carries a sender address of each kind, which must be ours too; the unspecified
 * address is allowed, since DHCP and duplicate address detection send from it. IP that cannot be read, or stands behind
 * more tags than are read, might have any source.
 */
import {
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  ETHERTYPE_QINQ,
  ETHERTYPE_VLAN,
  type FrameView,
  type LinkType,
} from '../packet/headers.js';
import { IPV6_ADDRESS_BYTES } from '../packet/ip-address.js';
import {
  ICMPV6_NEIGHBOR_ADVERTISEMENT,
  ICMPV6_NEIGHBOR_SOLICITATION,
  ICMPV6_REDIRECT,
  ICMPV6_ROUTER_ADVERTISEMENT,
  ICMPV6_ROUTER_SOLICITATION,
  ND,
  ND_BYTES,
} from '../packet/neighbour-discovery.js';
import { ETHERTYPE_ARP, IPPROTO_ICMPV6 } from '../packet/protocol-address.js';

export interface OwnAddresses {
  /** MAC address, 6 bytes; empty on a link without. */
  readonly mac: Buffer;
  /** IPv4 and IPv6 addresses, 4 and 16 bytes. */
  readonly ip: readonly Buffer[];
}

const MAC_BYTES = 6;
/** FrameView.fragment */
const LATER_FRAGMENT = 2;
/** Of a router solicitation: where its options begin. */
const RS_OPTION = 8;
/** Ether types of frames whose IP addresses would be in the view if they could be read. */
const UNREAD: ReadonlySet<number> = new Set([ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN, ETHERTYPE_QINQ]);

function same(own: Buffer, frame: Buffer, offset: number): boolean {
  for (let i = 0; i < own.length; i++) if (own[i] !== frame[offset + i]) return false;
  return true;
}

function unspecified(frame: Buffer, offset: number, length: number): boolean {
  for (let i = 0; i < length; i++) if (frame[offset + i] !== 0) return false;
  return true;
}

function isOwnIp(own: OwnAddresses, frame: Buffer, offset: number, length: number): boolean {
  if (unspecified(frame, offset, length)) return true;
  for (let i = 0; i < own.ip.length; i++) {
    const address = own.ip[i] as Buffer;
    if (address.length === length && same(address, frame, offset)) return true;
  }
  return false;
}

/**
 * Whether an ICMPv6 message tells of its own sender alone: not a router advertisement or a redirect, and what neighbour
 * discovery says of a link layer address says ours of one of our addresses (RFC 4861, 4). Of its options one is of use; more
 * than that could hide another, as fragments do.
 */
function speaksForItself(own: OwnAddresses, view: FrameView, frame: Buffer): boolean {
  const at = view.l4Offset;
  if (at === 0) return view.fragment === LATER_FRAGMENT;
  const type = frame[at] ?? 0;
  if (type === ICMPV6_ROUTER_ADVERTISEMENT || type === ICMPV6_REDIRECT) return false;
  if (type !== ICMPV6_ROUTER_SOLICITATION && (type < ICMPV6_NEIGHBOR_SOLICITATION || type > ICMPV6_REDIRECT))
    return true;
  const option = at + (type === ICMPV6_ROUTER_SOLICITATION ? RS_OPTION : ND.option);
  if (view.fragment !== 0 || option > view.l3End) return false;
  if (type === ICMPV6_NEIGHBOR_ADVERTISEMENT && !isOwnIp(own, frame, at + ND.target, IPV6_ADDRESS_BYTES)) return false;
  if (option === view.l3End) return true;
  return view.l3End === option + ND_BYTES - ND.option && same(own.mac, frame, option + 2);
}

/** @param offset where the frame starts; `view` holds its parsed headers */
export function isOwnSource(
  own: OwnAddresses,
  view: FrameView,
  frame: Buffer,
  offset: number,
  linkType: LinkType,
): boolean {
  if (linkType === 'ethernet' && !same(own.mac, frame, offset + MAC_BYTES)) return false;
  if (view.ipVersion !== 0) {
    if (!isOwnIp(own, frame, view.sourceOffset, view.addressLength)) return false;
    return view.protocol !== IPPROTO_ICMPV6 || speaksForItself(own, view, frame);
  }
  if (view.etherType === ETHERTYPE_ARP) {
    const sender = view.l3Offset + 8;
    return same(own.mac, frame, sender) && isOwnIp(own, frame, sender + MAC_BYTES, 4);
  }
  return !UNREAD.has(view.etherType);
}
