/**
 * struct virtio_net_hdr, which stands before every frame of a TUN device and of a packet socket with PACKET_VNET_HDR: what
 * is still to be done to the frame before it is on a wire. 10 bytes, little endian (virtio 1.2, 5.1.6; linux/virtio_net.h).
 *
 *      0      1      2          4          6            8            10
 *     +------+------+----------+----------+------------+-------------+
 *     |flags |gso   | hdr_len  | gso_size | csum_start | csum_offset |
 *     +------+------+----------+----------+------------+-------------+
 */

export const VNET_HEADER_BYTES = 10;

/** The one field table: offsets from the header's begin. u8: flags, gso_type; u16: the others. */
export const VNET = {
  flags: 0,
  gsoType: 1,
  /** Bytes of all headers of a super-frame; a hint. */
  hdrLen: 2,
  /** Payload bytes of each wire frame. */
  gsoSize: 4,
  /** From the frame's begin: where the checksum begins to sum. */
  csumStart: 6,
  /** From csum_start: where it is stored. */
  csumOffset: 8,
} as const;

/** flags: the checksum is not finished, see csum_start. */
export const VNET_F_NEEDS_CSUM = 1;
/** flags: the checksum was found good. */
export const VNET_F_DATA_VALID = 2;

/** gso_type: a frame as it is. */
export const VNET_GSO_NONE = 0;
/** gso_type: TCP over IPv4. */
export const VNET_GSO_TCPV4 = 1;
/** gso_type: UDP to be fragmented by IP. */
export const VNET_GSO_UDP = 3;
/** gso_type: TCP over IPv6. */
export const VNET_GSO_TCPV6 = 4;
/** gso_type: UDP datagrams of one flow. */
export const VNET_GSO_UDP_L4 = 5;
/** Bit of gso_type: TCP with CWR set. */
export const VNET_GSO_ECN = 0x80;

const GSO_NAMES: Readonly<Record<number, string>> = {
  [VNET_GSO_NONE]: 'none',
  [VNET_GSO_TCPV4]: 'tcpv4',
  [VNET_GSO_UDP]: 'udp',
  [VNET_GSO_TCPV6]: 'tcpv6',
  [VNET_GSO_UDP_L4]: 'udp_l4',
};

export interface VnetHeader {
  readonly flags: number;
  readonly gsoType: number;
  readonly hdrLen: number;
  readonly gsoSize: number;
  readonly csumStart: number;
  readonly csumOffset: number;
}

/** Writes all fields; those left out are 0, which says: a frame as it is, with its checksum finished. */
export function writeVnetHeader(out: Buffer, offset: number, header: Partial<VnetHeader> = {}): void {
  out[offset + VNET.flags] = header.flags ?? 0;
  out[offset + VNET.gsoType] = header.gsoType ?? 0;
  out.writeUInt16LE(header.hdrLen ?? 0, offset + VNET.hdrLen);
  out.writeUInt16LE(header.gsoSize ?? 0, offset + VNET.gsoSize);
  out.writeUInt16LE(header.csumStart ?? 0, offset + VNET.csumStart);
  out.writeUInt16LE(header.csumOffset ?? 0, offset + VNET.csumOffset);
}

/** The header at `offset` after `bytes` were cut from the frame's begin; negative: were put before it. */
export function cutVnetHeader(buf: Buffer, offset: number, bytes: number): void {
  if ((buf[offset + VNET.flags]! & VNET_F_NEEDS_CSUM) !== 0) shiftField(buf, offset + VNET.csumStart, bytes);
  if ((buf[offset + VNET.gsoType]! & ~VNET_GSO_ECN) !== VNET_GSO_NONE) shiftField(buf, offset + VNET.hdrLen, bytes);
}

function shiftField(buf: Buffer, at: number, bytes: number): void {
  const value = Math.max(0, (buf[at]! | (buf[at + 1]! << 8)) - bytes);
  buf[at] = value;
  buf[at + 1] = value >> 8;
}

/** One 16-bit field of the header at `offset`: `vnetField(buf, at, VNET.gsoSize)`. */
export function vnetField(buf: Buffer, offset: number, field: number): number {
  return buf[offset + field]! | (buf[offset + field + 1]! << 8);
}

/** The header as an object; not for the packet path. */
export function readVnetHeader(buf: Buffer, offset: number): VnetHeader {
  return {
    flags: buf[offset + VNET.flags]!,
    gsoType: buf[offset + VNET.gsoType]!,
    hdrLen: vnetField(buf, offset, VNET.hdrLen),
    gsoSize: vnetField(buf, offset, VNET.gsoSize),
    csumStart: vnetField(buf, offset, VNET.csumStart),
    csumOffset: vnetField(buf, offset, VNET.csumOffset),
  };
}

/** The header in one line: `gso tcpv4+ecn 1448, headers 66, checksum 34+16`. */
export function formatVnetHeader(buf: Buffer, offset: number): string {
  const header = readVnetHeader(buf, offset);
  const kind = header.gsoType & ~VNET_GSO_ECN;
  let text = `gso ${GSO_NAMES[kind] ?? kind}`;
  if ((header.gsoType & VNET_GSO_ECN) !== 0) text += '+ecn';
  if (kind !== VNET_GSO_NONE) text += ` ${header.gsoSize}, headers ${header.hdrLen}`;
  if ((header.flags & VNET_F_NEEDS_CSUM) !== 0) text += `, checksum ${header.csumStart}+${header.csumOffset}`;
  if ((header.flags & VNET_F_DATA_VALID) !== 0) text += ', data valid';
  return text;
}
