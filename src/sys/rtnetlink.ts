/**
 * The wire format of netlink and rtnetlink (linux/netlink.h, rtnetlink.h, if_link.h, if_addr.h, fib_rules.h), in one place.
 *
 * A datagram holds messages, a message holds a fixed part and attributes, each aligned to 4 bytes; numbers are in the
 * host's order, little endian on all that is supported. Encoding, decoding and `printMessage` read the same tables.
 *
 *      0               4               8               12              16
 *     +---------------+-------+-------+---------------+---------------+-------------------------------
 *     | length        | type  | flags | sequence      | port id       | fixed part | attribute | …
 *     +---------------+-------+-------+---------------+---------------+-------------------------------
 *      0       2       4
 *     +-------+-------+--------------------
 *     | length| type  | value … padding      an attribute: its length counts its own header, not the padding
 *     +-------+-------+--------------------
 *
 *     fixed parts:
 *     ifinfomsg   family u8 | - u8 | type u16 | index i32 | flags u32 | change u32
 *     ifaddrmsg   family u8 | prefixLength u8 | flags u8 | scope u8 | index u32
 *     fibrulehdr  family u8 | destinationLength u8 | sourceLength u8 | tos u8 | table u8 | - u8 | - u8 | action u8 | flags u32
 *     ndmsg       family u8 | - u8 | - u16 | index i32 | state u16 | flags u8 | type u8
 *     rtnexthop   length u16 | flags u8 | hops u8 | index i32
 *     rtmsg       family u8 | destinationLength u8 | sourceLength u8 | tos u8 | table u8 | protocol u8 | scope u8 | type u8 | flags u32
 */

type FieldKind = 'u8' | 'u16' | 'u32' | 'i32';

const FIELD_BYTES: Readonly<Record<FieldKind, number>> = { u8: 1, u16: 2, u32: 4, i32: 4 };

interface Field<Name extends string> {
  readonly name: Name;
  readonly kind: FieldKind;
  readonly offset: number;
}

/** Where the fields of a fixed part stand. */
export interface Layout<Name extends string> {
  readonly bytes: number;
  readonly fields: readonly Field<Name>[];
}

/** Fields in order, without gaps: the structures here have none but those that are named. */
function layout<Name extends string>(fields: readonly (readonly [Name, FieldKind])[]): Layout<Name> {
  let offset = 0;
  const placed = fields.map(([name, kind]) => {
    const field = { name, kind, offset };
    offset += FIELD_BYTES[kind];
    return field;
  });
  return { bytes: offset, fields: placed };
}

export const HEADER = layout([
  ['length', 'u32'],
  ['type', 'u16'],
  ['flags', 'u16'],
  ['sequence', 'u32'],
  ['port', 'u32'],
]);

export const IFINFOMSG = layout([
  ['family', 'u8'],
  ['padding', 'u8'],
  ['type', 'u16'],
  ['index', 'i32'],
  ['flags', 'u32'],
  ['change', 'u32'],
]);

export const IFADDRMSG = layout([
  ['family', 'u8'],
  ['prefixLength', 'u8'],
  ['flags', 'u8'],
  ['scope', 'u8'],
  ['index', 'u32'],
]);

export const RTMSG = layout([
  ['family', 'u8'],
  ['destinationLength', 'u8'],
  ['sourceLength', 'u8'],
  ['tos', 'u8'],
  ['table', 'u8'],
  ['protocol', 'u8'],
  ['scope', 'u8'],
  ['type', 'u8'],
  ['flags', 'u32'],
]);

export const FIBRULEHDR = layout([
  ['family', 'u8'],
  ['destinationLength', 'u8'],
  ['sourceLength', 'u8'],
  ['tos', 'u8'],
  ['table', 'u8'],
  ['reserved1', 'u8'],
  ['reserved2', 'u8'],
  ['action', 'u8'],
  ['flags', 'u32'],
]);

export const NDMSG = layout([
  ['family', 'u8'],
  ['padding1', 'u8'],
  ['padding2', 'u16'],
  ['index', 'i32'],
  ['state', 'u16'],
  ['flags', 'u8'],
  ['type', 'u8'],
]);

/** struct rtnexthop, one of RTA_MULTIPATH; attributes follow it. */
export const RTNEXTHOP = layout([
  ['length', 'u16'],
  ['flags', 'u8'],
  ['hops', 'u8'],
  ['index', 'i32'],
]);

export const RTM = {
  NEWLINK: 16,
  DELLINK: 17,
  GETLINK: 18,
  SETLINK: 19,
  NEWADDR: 20,
  DELADDR: 21,
  GETADDR: 22,
  NEWROUTE: 24,
  DELROUTE: 25,
  GETROUTE: 26,
  NEWRULE: 32,
  DELRULE: 33,
  GETRULE: 34,
  NEWNEIGH: 28,
  DELNEIGH: 29,
  GETNEIGH: 30,
} as const;

export const NLMSG = { NOOP: 1, ERROR: 2, DONE: 3, OVERRUN: 4 } as const;

export const NLM_F = {
  REQUEST: 1,
  ACK: 4,
  DUMP_INTR: 0x10,
  CAPPED: 0x100,
  ACK_TLVS: 0x200,
  DUMP: 0x300,
  REPLACE: 0x100,
  EXCL: 0x200,
  CREATE: 0x400,
  APPEND: 0x800,
} as const;

export const IFLA = {
  ADDRESS: 1,
  IFNAME: 3,
  MTU: 4,
  MASTER: 10,
  TXQLEN: 13,
  OPERSTATE: 16,
  IFALIAS: 20,
  STATS64: 23,
} as const;
export const IFA = { ADDRESS: 1, LOCAL: 2, LABEL: 3, CACHEINFO: 6, FLAGS: 8, PROTO: 11 } as const;
export const RTA = {
  DST: 1,
  OIF: 4,
  GATEWAY: 5,
  PRIORITY: 6,
  PREFSRC: 7,
  MULTIPATH: 9,
  TABLE: 15,
  MARK: 16,
  VIA: 18,
} as const;
export const FRA = {
  DST: 1,
  SRC: 2,
  PRIORITY: 6,
  FWMARK: 10,
  TABLE: 15,
  FWMASK: 16,
  OIFNAME: 17,
  PROTOCOL: 21,
} as const;
export const NDA = { DST: 1, LLADDR: 2 } as const;

/** Groups of NETLINK_ROUTE, as bits of sockaddr_nl.groups. */
export const RTMGRP = {
  LINK: 1,
  NEIGH: 4,
  IPV4_IFADDR: 0x10,
  IPV4_ROUTE: 0x40,
  IPV6_IFADDR: 0x100,
  IPV6_ROUTE: 0x400,
} as const;

const ATTRIBUTE_HEADER_BYTES = 4;
/** The upper two bits say "nested" and "network order". */
const ATTRIBUTE_TYPE_MASK = 0x3fff;

const align = (bytes: number): number => (bytes + 3) & ~3;

/** A fixed part; fields that are not given are 0. */
export function encode<Name extends string>(of: Layout<Name>, values: Partial<Record<Name, number>>): Buffer {
  const bytes = Buffer.alloc(of.bytes);
  for (const { name, kind, offset } of of.fields) {
    const value = values[name] ?? 0;
    if (kind === 'u8') bytes.writeUInt8(value, offset);
    else if (kind === 'u16') bytes.writeUInt16LE(value, offset);
    else if (kind === 'u32') bytes.writeUInt32LE(value, offset);
    else bytes.writeInt32LE(value, offset);
  }
  return bytes;
}

/** The fixed part at `offset`, null where the buffer ends before it does. */
export function decode<Name extends string>(of: Layout<Name>, bytes: Buffer, offset = 0): Record<Name, number> | null {
  if (offset + of.bytes > bytes.length) return null;
  const values: Partial<Record<Name, number>> = {};
  for (const { name, kind, offset: at } of of.fields) {
    if (kind === 'u8') values[name] = bytes.readUInt8(offset + at);
    else if (kind === 'u16') values[name] = bytes.readUInt16LE(offset + at);
    else if (kind === 'u32') values[name] = bytes.readUInt32LE(offset + at);
    else values[name] = bytes.readInt32LE(offset + at);
  }
  return values as Record<Name, number>;
}

/** A number of 32 bits, the value of an attribute. */
export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value, 0);
  return bytes;
}

/** One attribute with its padding. */
export function attribute(type: number, value: Buffer): Buffer {
  const bytes = Buffer.alloc(align(ATTRIBUTE_HEADER_BYTES + value.length));
  bytes.writeUInt16LE(ATTRIBUTE_HEADER_BYTES + value.length, 0);
  bytes.writeUInt16LE(type, 2);
  value.copy(bytes, ATTRIBUTE_HEADER_BYTES);
  return bytes;
}

/** Attributes from `offset` to the end, views on `bytes`. One whose length is impossible ends the list. */
export function attributes(bytes: Buffer, offset: number): Map<number, Buffer> {
  const found = new Map<number, Buffer>();
  let at = offset;
  while (at + ATTRIBUTE_HEADER_BYTES <= bytes.length) {
    const length = bytes.readUInt16LE(at);
    if (length < ATTRIBUTE_HEADER_BYTES || at + length > bytes.length) break;
    found.set(
      bytes.readUInt16LE(at + 2) & ATTRIBUTE_TYPE_MASK,
      bytes.subarray(at + ATTRIBUTE_HEADER_BYTES, at + length),
    );
    at += align(length);
  }
  return found;
}

export interface NetlinkMessage {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  /** Fixed part and attributes: a view on the buffer that was received into, valid until the next receive. */
  readonly body: Buffer;
}

/** A whole message. */
export function encodeMessage(type: number, flags: number, sequence: number, body: Buffer): Buffer {
  return Buffer.concat([encode(HEADER, { length: HEADER.bytes + body.length, type, flags, sequence }), body]);
}

/** The messages of one datagram. One whose length is impossible ends the list. */
export function* messages(datagram: Buffer): Generator<NetlinkMessage> {
  // Read without `decode`: dumps have thousands.
  for (let at = 0; at + HEADER.bytes <= datagram.length;) {
    const length = datagram.readUInt32LE(at);
    if (length < HEADER.bytes || at + length > datagram.length) return;
    const body = datagram.subarray(at + HEADER.bytes, at + length);
    const [type, flags] = [datagram.readUInt16LE(at + 4), datagram.readUInt16LE(at + 6)];
    yield { type, flags, sequence: datagram.readUInt32LE(at + 8), body };
    at += align(length);
  }
}

/** A zero-terminated string. */
export function cString(value: Buffer): string {
  const end = value.indexOf(0);
  return value.toString('utf8', 0, end < 0 ? value.length : end);
}

/** By `type >> 2`: NEW, DEL, GET and SET of one kind of object are neighbours. */
const LAYOUT_OF_KIND: ReadonlyMap<number, Layout<string>> = new Map<number, Layout<string>>([
  [RTM.NEWLINK >> 2, IFINFOMSG],
  [RTM.NEWADDR >> 2, IFADDRMSG],
  [RTM.NEWROUTE >> 2, RTMSG],
  [RTM.NEWRULE >> 2, FIBRULEHDR],
  [RTM.NEWNEIGH >> 2, NDMSG],
]);

/** Statistics and nested attributes would fill the screen. */
const PRINTED_BYTES = 16;

/** One line for a log: `NEWLINK flags=0x0 family=0 … 3:6574683000`, attributes as type and the beginning in hex. */
export function printMessage(message: NetlinkMessage): string {
  const name = Object.entries(RTM).find(([, value]) => value === message.type)?.[0] ?? `type ${message.type}`;
  const of = LAYOUT_OF_KIND.get(message.type >> 2);
  const words = [`${name} flags=0x${message.flags.toString(16)}`];
  if (of !== undefined) {
    const fixed = decode(of, message.body) ?? {};
    for (const [field, value] of Object.entries(fixed)) words.push(`${field}=${value}`);
    for (const [type, value] of attributes(message.body, of.bytes)) {
      words.push(`${type}:${value.toString('hex', 0, PRINTED_BYTES)}${value.length > PRINTED_BYTES ? '…' : ''}`);
    }
  }
  return words.join(' ');
}
