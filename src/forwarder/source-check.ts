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
import { ETHERTYPE_ARP } from '../packet/protocol-address.js';

export interface OwnAddresses {
  /** MAC address, 6 bytes; empty on a link without. */
  readonly mac: Buffer;
  /** IPv4 and IPv6 addresses, 4 and 16 bytes. */
  readonly ip: readonly Buffer[];
}

const MAC_BYTES = 6;
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

/** @param offset where the frame starts; `view` holds its parsed headers */
export function isOwnSource(
  own: OwnAddresses,
  view: FrameView,
  frame: Buffer,
  offset: number,
  linkType: LinkType,
): boolean {
  if (linkType === 'ethernet' && !same(own.mac, frame, offset + MAC_BYTES)) return false;
  if (view.ipVersion !== 0) return isOwnIp(own, frame, view.sourceOffset, view.addressLength);
  if (view.etherType === ETHERTYPE_ARP) {
    const sender = view.l3Offset + 8;
    return same(own.mac, frame, sender) && isOwnIp(own, frame, sender + MAC_BYTES, 4);
  }
  return !UNREAD.has(view.etherType);
}
