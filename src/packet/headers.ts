/**
 * A view on the headers of one frame: integers only, found in one pass.
 *
 *     Ethernet          |  dst 6  |  src 6  | type 2 |                                       14 bytes
 *     VLAN tag (802.1Q) | 8100 or 88a8 | tci 2 | type 2 |                                    4 bytes more each, up to 2
 *     IPv4 (RFC 791)    |4|ihl| tos |total 2| id 2 |fl+frag 2|ttl|proto|csum 2| src 4 | dst 4 | options
 *     IPv6 (RFC 8200)   |6|tc|flow 4| payload 2 |next|hop| src 16 | dst 16 | extension headers
 *     TCP UDP UDP-Lite SCTP | source port 2 | destination port 2 | …
 *
 * Whoever reads frames owns one FrameView and fills it again for each frame; it refers to bytes by offset and keeps no
 * buffer. Offsets are absolute in the buffer given to `parse`.
 */
import { hasPorts } from './protocol-address.js';
import type { ProtocolAddress } from './protocol-address.js';

/** With an Ethernet header, or IP packets as they are. */
export type LinkType = 'ethernet' | 'raw';

export const ETHERNET_HEADER_BYTES = 14;
export const VLAN_TAG_BYTES = 4;
export const MAX_VLAN_TAGS = 2;
export const ETHERTYPE_IPV4 = 0x0800;
export const ETHERTYPE_IPV6 = 0x86dd;
/** Tags that stand in the frame: 802.1Q and the outer one of 802.1ad. */
export const ETHERTYPE_VLAN = 0x8100;
export const ETHERTYPE_QINQ = 0x88a8;

export const IPV4_MIN_HEADER_BYTES = 20;
export const IPV6_HEADER_BYTES = 40;
/** IPv4, flags and fragment offset: DF is 0x4000. */
export const IPV4_MORE_FRAGMENTS = 0x2000;
export const IPV4_OFFSET_MASK = 0x1fff;

/** IPv6 extension headers that are walked (RFC 8200, 4). */
export const IPV6_HOP_BY_HOP = 0;
export const IPV6_ROUTING = 43;
export const IPV6_FRAGMENT = 44;
export const IPV6_DESTINATION = 60;

export class FrameView {
  /** Of the frame, after its VLAN tags; below 0x0600 the length of an 802.3 frame. */
  etherType = 0;
  /** Of the frame before its VLAN tags; the same as `etherType` where there is none. */
  outerEtherType = 0;
  vlanDepth = 0;
  /** Where the network layer begins. */
  l3Offset = 0;
  /** Where the IP packet ends by its own length: padding of the link follows. `offset + length` without IP. */
  l3End = 0;
  /** 4, 6, or 0: no IP, or IP whose lengths do not fit. */
  ipVersion = 0;
  /** IP protocol after the IPv6 extension headers, -1 without IP. */
  protocol = -1;
  /** Where the transport header begins; 0: there is none, as in later fragments. */
  l4Offset = 0;
  /** 0: whole, 1: first fragment, 2: later fragment. */
  fragment = 0;
  /** Identification, 16 or 32 bits; 0 in a whole packet. */
  fragmentId = 0;
  /** -1: the protocol has none, or they are not in this fragment. */
  sourcePort = -1;
  destinationPort = -1;
  /** Where the IP addresses stand; 0 without IP. */
  sourceOffset = 0;
  destinationOffset = 0;
  /** 4, 16, or 0 without IP. */
  addressLength = 0;

  /**
   * Reads the headers of the frame at `offset`.
   *
   * @returns false: too short for its link layer, or (raw) no IP packet. An Ethernet frame with malformed IP is a frame.
   */
  parse(buf: Buffer, offset: number, length: number, linkType: LinkType = 'ethernet'): boolean {
    const end = offset + length;
    this.vlanDepth = 0;
    this.l3Offset = offset;
    this.etherType = 0;
    this.outerEtherType = 0;
    this.clearIp(end);
    if (linkType === 'raw') {
      if (length < 1) return false;
      const version = buf[offset]! >> 4;
      this.etherType = version === 4 ? ETHERTYPE_IPV4 : version === 6 ? ETHERTYPE_IPV6 : 0;
    } else {
      if (length < ETHERNET_HEADER_BYTES) return false;
      let at = offset + ETHERNET_HEADER_BYTES;
      let type = (buf[at - 2]! << 8) | buf[at - 1]!;
      this.outerEtherType = type;
      while (
        (type === ETHERTYPE_VLAN || type === ETHERTYPE_QINQ) &&
        this.vlanDepth < MAX_VLAN_TAGS &&
        at + VLAN_TAG_BYTES <= end
      ) {
        this.vlanDepth += 1;
        at += VLAN_TAG_BYTES;
        type = (buf[at - 2]! << 8) | buf[at - 1]!;
      }
      this.etherType = type;
      this.l3Offset = at;
    }
    if (linkType === 'raw') this.outerEtherType = this.etherType;
    let whole = true;
    if (this.etherType === ETHERTYPE_IPV4) whole = this.parseIpv4(buf, this.l3Offset, end);
    else if (this.etherType === ETHERTYPE_IPV6) whole = this.parseIpv6(buf, this.l3Offset, end);
    else return linkType === 'ethernet';
    if (!whole) this.clearIp(end);
    return whole || linkType === 'ethernet';
  }

  private clearIp(end: number): void {
    this.l3End = end;
    this.ipVersion = 0;
    this.protocol = -1;
    this.l4Offset = 0;
    this.fragment = 0;
    this.fragmentId = 0;
    this.sourcePort = -1;
    this.destinationPort = -1;
    this.sourceOffset = 0;
    this.destinationOffset = 0;
    this.addressLength = 0;
  }

  /** @returns whether the header and the lengths fit between `at` and `end` */
  private parseIpv4(buf: Buffer, at: number, end: number): boolean {
    if (at + IPV4_MIN_HEADER_BYTES > end) return false;
    const first = buf[at]!;
    const headerBytes = (first & 15) << 2;
    const l3End = at + ((buf[at + 2]! << 8) | buf[at + 3]!);
    if (first >> 4 !== 4 || headerBytes < IPV4_MIN_HEADER_BYTES || at + headerBytes > l3End || l3End > end)
      return false;
    this.ipVersion = 4;
    this.l3End = l3End;
    this.protocol = buf[at + 9]!;
    this.sourceOffset = at + 12;
    this.destinationOffset = at + 16;
    this.addressLength = 4;
    const fragment = (buf[at + 6]! << 8) | buf[at + 7]!;
    if ((fragment & (IPV4_MORE_FRAGMENTS | IPV4_OFFSET_MASK)) !== 0) {
      this.fragment = (fragment & IPV4_OFFSET_MASK) === 0 ? 1 : 2;
      this.fragmentId = (buf[at + 4]! << 8) | buf[at + 5]!;
    }
    if (this.fragment !== 2) this.parseTransport(buf, at + headerBytes);
    return true;
  }

  /** @returns whether the header, its extension headers and the lengths fit between `at` and `end` */
  private parseIpv6(buf: Buffer, at: number, end: number): boolean {
    if (at + IPV6_HEADER_BYTES > end || buf[at]! >> 4 !== 6) return false;
    const l3End = at + IPV6_HEADER_BYTES + ((buf[at + 4]! << 8) | buf[at + 5]!);
    if (l3End > end) return false;
    this.ipVersion = 6;
    this.l3End = l3End;
    this.sourceOffset = at + 8;
    this.destinationOffset = at + 24;
    this.addressLength = 16;
    let next = buf[at + 6]!;
    let next4 = at + IPV6_HEADER_BYTES;
    // Every extension header is at least 8 bytes, so the packet's length bounds the walk.
    while (next === IPV6_HOP_BY_HOP || next === IPV6_ROUTING || next === IPV6_FRAGMENT || next === IPV6_DESTINATION) {
      if (next4 + 8 > l3End) return false;
      const header = next;
      next = buf[next4]!;
      if (header !== IPV6_FRAGMENT) {
        next4 += (buf[next4 + 1]! + 1) << 3;
        continue;
      }
      const fragment = (buf[next4 + 2]! << 8) | buf[next4 + 3]!;
      // Offset 0 and no more to come is a whole packet (RFC 6946).
      if ((fragment & 0xfff9) !== 0) {
        this.fragment = fragment >> 3 === 0 ? 1 : 2;
        this.fragmentId = buf.readUInt32BE(next4 + 4);
      }
      next4 += 8;
      if (this.fragment === 2) break;
    }
    if (next4 > l3End) return false;
    this.protocol = next;
    if (this.fragment !== 2) this.parseTransport(buf, next4);
    return true;
  }

  private parseTransport(buf: Buffer, at: number): void {
    this.l4Offset = at;
    if (!hasPorts(this.protocol) || at + 4 > this.l3End) return;
    this.sourcePort = (buf[at]! << 8) | buf[at + 1]!;
    this.destinationPort = (buf[at + 2]! << 8) | buf[at + 3]!;
  }
}

/** The local end of a received frame is its destination, of a sent one its source. */
export const SIDE_DESTINATION = 0;
export const SIDE_SOURCE = 1;
export type Side = typeof SIDE_DESTINATION | typeof SIDE_SOURCE;

/**
 * Whether the frame that `view` was filled from has this protocol address at its local end. A later fragment has no port,
 * so it matches no address with one: who wants it follows its first fragment.
 */
export function matchesProtocol(address: ProtocolAddress, view: FrameView, buf: Buffer, side: Side): boolean {
  if (address.kind === 'any') return true;
  if (address.kind === 'ether') {
    // ether:0x8100 is every tagged frame, ether:0x88cc one with or without a tag.
    return view.etherType === address.etherType || view.outerEtherType === address.etherType;
  }
  const protocols = address.protocols;
  if (view.ipVersion === 0) return false;
  if (protocols[0] !== view.protocol && (protocols.length < 2 || protocols[1] !== view.protocol)) return false;
  if (address.portLow >= 0) {
    const port = side === SIDE_DESTINATION ? view.destinationPort : view.sourcePort;
    if (port < address.portLow || port > address.portHigh) return false;
  }
  const local = address.address;
  if (local === null) return true;
  if (local.length !== view.addressLength) return false;
  const at = side === SIDE_DESTINATION ? view.destinationOffset : view.sourceOffset;
  for (let index = 0; index < local.length; index += 1) {
    if (local[index] !== buf[at + index]) return false;
  }
  return true;
}
