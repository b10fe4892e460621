/**
 * Neighbor solicitations and advertisements (RFC 4861, 4.3 and 4.4), ICMPv6 messages of one shape:
 *
 *      0      1      2          4          8                 24
 *     +------+------+----------+----------+-----------------+---------------------------------+
 *     | type | code | checksum | R S O ── | target address  | option: type, length in 8s, MAC |
 *     +------+------+----------+----------+-----------------+---------------------------------+
 *
 * Type 135 asks for the target, with the MAC of who asks as option 1; type 136 tells where it is, with its MAC as option 2.
 */
import { invert, pseudoHeaderSum, storeWord, sum } from './checksum.js';
import { ETHERNET_HEADER_BYTES, ETHERTYPE_IPV6, type FrameView, IPV6_HEADER_BYTES } from './headers.js';
import { addressText, IPV6_ADDRESS_BYTES } from './ip-address.js';
import { formatMac, MAC_BYTES, writeEthernetHeader } from './mac-address.js';
import { IPPROTO_ICMPV6 } from './protocol-address.js';

export const ICMPV6_ROUTER_SOLICITATION = 133;
export const ICMPV6_ROUTER_ADVERTISEMENT = 134;
export const ICMPV6_NEIGHBOR_SOLICITATION = 135;
export const ICMPV6_NEIGHBOR_ADVERTISEMENT = 136;
export const ICMPV6_REDIRECT = 137;

/** The one field table: offsets from the ICMPv6 header's begin. */
export const ND = { type: 0, code: 1, checksum: 2, flags: 4, target: 8, option: 24 } as const;

/** Of an option: type, length in units of 8 bytes, and the MAC. */
const OPTION = { type: 0, length: 1, mac: 2 } as const;
const OPTION_UNIT_BYTES = 8;
const SOURCE_LINK_ADDRESS = 1;
const TARGET_LINK_ADDRESS = 2;

export const ND_SOLICITED = 0x40;
export const ND_OVERRIDE = 0x20;

/** With the option that carries the MAC. */
export const ND_BYTES = ND.option + OPTION_UNIT_BYTES;
export const ND_FRAME_BYTES = ETHERNET_HEADER_BYTES + IPV6_HEADER_BYTES + ND_BYTES;

/** RFC 4861, 7.1: what was forwarded on the way is no neighbour's. */
const HOP_LIMIT = 255;
const IPV6_HOP_LIMIT_OFFSET = 7;

const ALL_NODES = Buffer.from('ff020000000000000000000000000001', 'hex');
const ALL_NODES_MAC = Buffer.from('333300000001', 'hex');

export interface NeighborMessage {
  readonly type: typeof ICMPV6_NEIGHBOR_SOLICITATION | typeof ICMPV6_NEIGHBOR_ADVERTISEMENT;
  /** ND_SOLICITED, ND_OVERRIDE; 0 in a solicitation. */
  readonly flags: number;
  readonly source: Buffer;
  readonly destination: Buffer;
  readonly target: Buffer;
  /** The MAC of who asks or of the target; null where the message has none. */
  readonly mac: Buffer | null;
}

/** Whether the frame is ICMPv6 of this type; the packet path's first look. */
export function isIcmpv6(buf: Buffer, view: FrameView, type: number): boolean {
  return (
    view.protocol === IPPROTO_ICMPV6 && view.l4Offset > 0 && view.l4Offset < view.l3End && buf[view.l4Offset] === type
  );
}

/** The message in the frame that `view` was filled from, copied; null for anything else, and for what RFC 4861, 7.1 drops. */
export function readNeighbor(buf: Buffer, view: FrameView): NeighborMessage | null {
  const at = view.l4Offset;
  const isSolicitation = isIcmpv6(buf, view, ICMPV6_NEIGHBOR_SOLICITATION);
  if (!isSolicitation && !isIcmpv6(buf, view, ICMPV6_NEIGHBOR_ADVERTISEMENT)) return null;
  const target = at + ND.target;
  const isValid =
    at + ND.option <= view.l3End &&
    buf[view.l3Offset + IPV6_HOP_LIMIT_OFFSET] === HOP_LIMIT &&
    buf[at + ND.code] === 0 &&
    buf[target] !== 0xff;
  if (!isValid) return null;
  const wanted = isSolicitation ? SOURCE_LINK_ADDRESS : TARGET_LINK_ADDRESS;
  let mac: Buffer | null = null;
  for (let option = at + ND.option; option + OPTION_UNIT_BYTES <= view.l3End;) {
    const bytes = (buf[option + OPTION.length] ?? 0) * OPTION_UNIT_BYTES;
    if (bytes === 0) return null;
    if (buf[option] === wanted) mac = copy(buf, option + OPTION.mac, MAC_BYTES);
    option += bytes;
  }
  return {
    type: isSolicitation ? ICMPV6_NEIGHBOR_SOLICITATION : ICMPV6_NEIGHBOR_ADVERTISEMENT,
    flags: isSolicitation ? 0 : buf[at + ND.flags]! & (ND_SOLICITED | ND_OVERRIDE),
    source: copy(buf, view.sourceOffset, IPV6_ADDRESS_BYTES),
    destination: copy(buf, view.destinationOffset, IPV6_ADDRESS_BYTES),
    target: copy(buf, target, IPV6_ADDRESS_BYTES),
    mac,
  };
}

/**
 * Writes a whole frame at `offset`, checksum included: ND_FRAME_BYTES, without the option 8 less.
 *
 * @returns its length
 */
export function writeNeighbor(
  out: Buffer,
  offset: number,
  destinationMac: Buffer,
  sourceMac: Buffer,
  message: NeighborMessage,
): number {
  const l3 = writeEthernetHeader(out, offset, destinationMac, sourceMac, ETHERTYPE_IPV6);
  const length = message.mac === null ? ND.option : ND_BYTES;
  const at = l3 + IPV6_HEADER_BYTES;
  out.fill(0, l3, at + length);
  out[l3] = 0x60;
  out.writeUInt16BE(length, l3 + 4);
  out[l3 + 6] = IPPROTO_ICMPV6;
  out[l3 + IPV6_HOP_LIMIT_OFFSET] = HOP_LIMIT;
  message.source.copy(out, l3 + 8);
  message.destination.copy(out, l3 + 24);
  const isSolicitation = message.type === ICMPV6_NEIGHBOR_SOLICITATION;
  out[at + ND.type] = message.type;
  out[at + ND.flags] = message.flags;
  message.target.copy(out, at + ND.target);
  if (message.mac !== null) {
    out[at + ND.option + OPTION.type] = isSolicitation ? SOURCE_LINK_ADDRESS : TARGET_LINK_ADDRESS;
    out[at + ND.option + OPTION.length] = 1;
    message.mac.copy(out, at + ND.option + OPTION.mac);
  }
  const pseudo = pseudoHeaderSum(out, l3 + 8, IPV6_ADDRESS_BYTES, IPPROTO_ICMPV6, length);
  storeWord(out, at + ND.checksum, invert(sum(out, at, length, pseudo)));
  return at + length - offset;
}

/**
 * Writes the frame at `offset` that answers a solicitation: its target is at `mac`. Who has no address yet is answered at
 * all nodes (RFC 4861, 7.2.4). ND_FRAME_BYTES.
 */
export function writeAdvertisement(
  out: Buffer,
  offset: number,
  asker: Buffer,
  { source, target }: NeighborMessage,
  mac: Buffer,
): number {
  const isNobody = source.every((byte) => byte === 0);
  return writeNeighbor(out, offset, isNobody ? ALL_NODES_MAC : asker, mac, {
    type: ICMPV6_NEIGHBOR_ADVERTISEMENT,
    flags: ND_OVERRIDE | (isNobody ? 0 : ND_SOLICITED),
    source: target,
    destination: isNobody ? ALL_NODES : source,
    target,
    mac,
  });
}

/** One line for a log: `neighbor solicitation fe80::2 from fe80::1 02:00:00:00:00:01`. */
export function formatNeighbor({ type, source, target, mac }: NeighborMessage): string {
  const name = type === ICMPV6_NEIGHBOR_SOLICITATION ? 'solicitation' : 'advertisement';
  return `neighbor ${name} ${addressText(target)} from ${addressText(source)}${mac === null ? '' : ` ${formatMac(mac)}`}`;
}

function copy(buf: Buffer, offset: number, length: number): Buffer {
  return Buffer.from(buf.subarray(offset, offset + length));
}
