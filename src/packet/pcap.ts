/**
 * The capture file formats: pcap (draft-ietf-opsawg-pcap) as readers get it and writers may give it, pcapng
 * (draft-ietf-opsawg-pcapng) as writers may give it. Fields and constants only; CaptureReader decodes streams of both.
 *
 * pcap file header, 24 bytes                            pcap record header, 16 bytes, then the captured bytes
 *
 *      0         4     6     8      12      16     20         0        4            8          12
 *     +---------+-----+-----+------+-------+------+------+    +--------+------------+----------+----------+
 *     |  magic  |major|minor| zone |sigfigs| snap | link |    |seconds |ns or us    | captured | original |
 *     +---------+-----+-----+------+-------+------+------+    +--------+------------+----------+----------+
 *
 * pcapng block, at least 12 bytes, a multiple of 4
 *
 *      0         4              8                                                length-4
 *     +---------+--------------+------------------------------------------------+--------------+
 *     |  type   | total length | body, padded to 4                              | total length |
 *     +---------+--------------+------------------------------------------------+--------------+
 *      section header     8 byte-order magic, 12 major, 14 minor, 16 section length 8, 24 options
 *      interface          8 link type 2, 12 snap length, 16 options
 *      enhanced packet    8 interface, 12 time high, 16 time low, 20 captured, 24 original, 28 data, options
 *      packet (obsolete)  8 interface 2, 10 drops 2, then as the enhanced packet
 *      simple packet      8 original, 12 data
 *
 * What we write is little endian with nanoseconds.
 */

export const PCAP_FILE_HEADER_BYTES = 24;
export const PCAP_RECORD_HEADER_BYTES = 16;

/** Link types as captures number them (LINKTYPE_ values, the tcpdump registry). */
export const LINKTYPE_ETHERNET = 1;
export const LINKTYPE_RAW = 101;

export const PCAP_MAGIC_NANOSECONDS = 0xa1b23c4d;
export const PCAP_MAGIC_MICROSECONDS = 0xa1b2c3d4;
export const PCAP_VERSION_MAJOR = 2;
export const PCAP_VERSION_MINOR = 4;
/** What tcpdump writes: no frame is cut by us. */
export const PCAP_SNAP_LENGTH = 262_144;

/** The file header's fields: offsets. u16: versionMajor, versionMinor; u32: the others. */
export const PCAP_FILE = {
  magic: 0,
  versionMajor: 4,
  versionMinor: 6,
  zone: 8,
  sigfigs: 12,
  snapLength: 16,
  /** Upper 4 bits: 16-bit words of frame check sequence that each frame ends with, if bit 26 is set. */
  linkType: 20,
} as const;

/** The record header's fields: offsets, u32 each. */
export const PCAP_RECORD = { seconds: 0, fraction: 4, captured: 8, original: 12 } as const;

/** pcapng block types. The section header's reads the same from both ends. */
export const PCAPNG_SECTION = 0x0a0d0d0a;
export const PCAPNG_INTERFACE = 1;
export const PCAPNG_OLD_PACKET = 2;
export const PCAPNG_SIMPLE_PACKET = 3;
export const PCAPNG_PACKET = 6;
export const PCAPNG_BYTE_ORDER = 0x1a2b3c4d;
export const PCAPNG_VERSION_MAJOR = 1;

/** pcapng blocks: offsets from the block's begin. `data` ends the fixed part; the total length is at its end once more. */
export const PCAPNG_BLOCK = { type: 0, totalLength: 4, minBytes: 12 } as const;
export const PCAPNG_SECTION_FIELDS = { byteOrder: 8, versionMajor: 12, options: 24 } as const;
export const PCAPNG_INTERFACE_FIELDS = { linkType: 8, options: 16 } as const;
export const PCAPNG_PACKET_FIELDS = {
  interface: 8,
  timeHigh: 12,
  timeLow: 16,
  captured: 20,
  original: 24,
  data: 28,
} as const;
export const PCAPNG_SIMPLE_FIELDS = { original: 8, data: 12 } as const;
/** Interface option: resolution of timestamps, one byte: 10^-n, or 2^-n with the upper bit. */
export const PCAPNG_OPTION_TSRESOL = 9;
export const PCAPNG_DEFAULT_TSRESOL = 6;

/** Writes PCAP_FILE_HEADER_BYTES. @param linkType a LINKTYPE_ value */
export function writeFileHeader(out: Buffer, offset: number, linkType: number): void {
  out.writeUInt32LE(PCAP_MAGIC_NANOSECONDS, offset + PCAP_FILE.magic);
  out.writeUInt16LE(PCAP_VERSION_MAJOR, offset + PCAP_FILE.versionMajor);
  out.writeUInt16LE(PCAP_VERSION_MINOR, offset + PCAP_FILE.versionMinor);
  out.writeUInt32LE(0, offset + PCAP_FILE.zone);
  out.writeUInt32LE(0, offset + PCAP_FILE.sigfigs);
  out.writeUInt32LE(PCAP_SNAP_LENGTH, offset + PCAP_FILE.snapLength);
  out.writeUInt32LE(linkType, offset + PCAP_FILE.linkType);
}

/**
 * Writes PCAP_RECORD_HEADER_BYTES; the captured bytes follow.
 *
 * @param seconds since 1970, 32 bits @param nanoseconds below 10^9
 * @param captured bytes that follow @param original bytes of the frame
 */
export function writeRecordHeader(
  out: Buffer,
  offset: number,
  seconds: number,
  nanoseconds: number,
  captured: number,
  original: number,
): void {
  out.writeUInt32LE(seconds, offset + PCAP_RECORD.seconds);
  out.writeUInt32LE(nanoseconds, offset + PCAP_RECORD.fraction);
  out.writeUInt32LE(captured, offset + PCAP_RECORD.captured);
  out.writeUInt32LE(original, offset + PCAP_RECORD.original);
}

/** Name of a link type for messages: `1 (Ethernet)`. */
export function formatLinkType(linkType: number): string {
  if (linkType === LINKTYPE_ETHERNET) return `${linkType} (Ethernet)`;
  return linkType === LINKTYPE_RAW ? `${linkType} (raw IP)` : String(linkType);
}

/** A little-endian record header in one line: `1700000000.000000001, 60 of 1514 bytes`. */
export function formatRecordHeader(buf: Buffer, offset: number): string {
  const seconds = buf.readUInt32LE(offset + PCAP_RECORD.seconds);
  const fraction = buf.readUInt32LE(offset + PCAP_RECORD.fraction);
  const captured = buf.readUInt32LE(offset + PCAP_RECORD.captured);
  const original = buf.readUInt32LE(offset + PCAP_RECORD.original);
  return `${seconds}.${String(fraction).padStart(9, '0')}, ${captured} of ${original} bytes`;
}
