/**
 * Capture streams to frames, cut anywhere: what a program writes to a symbol.
 *
 *     push(data) ─► carry + data ─► measure: how long is the item here? ─► consume: header: keep its fields
 *                      ▲                │ more than there is                         record: sink.frame()
 *                      └────────────────┘                                            block without frame: skip
 *
 *     START ── pcap magic ──► PCAP ◄── section header / pcap magic at a boundary ──► PCAPNG
 *
 * The reader owns the carry, which holds the beginning of one item that was cut. A record that is whole in `data` goes to
 * the sink in place. pcapng blocks that bring no frame, and what follows a frame in its block, are skipped as they come, so
 * the carry never holds more than one frame with its headers or one interface block.
 */
import { FwdfsError } from '../base/errors.js';
import { MAX_FRAME_BYTES } from '../base/limits.js';
import * as pcap from './pcap.js';

export interface FrameSink {
  /**
   * Takes one frame; the bytes are the reader's and change after the call.
   *
   * @param seconds and nanoseconds: the record's time, 0 where it has none
   * @returns false: no more now. The reader stops before this frame and gives it again with the same bytes.
   */
  frame(buf: Buffer, offset: number, length: number, seconds: number, nanoseconds: number): boolean;
  /** A capture begins, the first one or another: times before and behind it have nothing to do with each other. */
  begin?(): void;
}

const START = 0;
const PCAP = 1;
const PCAPNG = 2;

/** What `measure` found. */
const ITEM_FILE_HEADER = 0;
const ITEM_SECTION = 1;
const ITEM_INTERFACE = 2;
const ITEM_RECORD = 3;
const ITEM_SKIP = 4;

/** Interfaces of one pcapng section; only a stream made to exhaust memory has more. */
const MAX_SECTION_INTERFACES = 4096;
const SECTION_BYTES = 28;
const OPTION_HEADER_BYTES = 4;
const MAGIC_BYTES = 4;
const MAX_NANOSECONDS = 999_999_999;
/** Bit 26 of a pcap's link type: its frames end with their frame check sequence. */
const FCS_PRESENT = 0x0400_0000;

export class CaptureReader {
  /** Why the reader stopped for good; every later push accepts 0 bytes. */
  error: FwdfsError | null = null;

  private readonly linkType: number;
  private readonly maxFrameBytes: number;
  private state = START;
  private littleEndian = true;
  /** Nanoseconds per unit of a pcap record's fraction. */
  private fractionNs = 1;
  /** if_tsresol of each interface of the section. */
  private resolutions: number[] = [];

  private carry: Buffer = Buffer.alloc(64);
  private carryLength = 0;
  /** Bytes of the block at hand that are still to come and are of no use. */
  private skipBytes = 0;

  /** The item that `measure` found. */
  private item = ITEM_SKIP;
  private frameStart = 0;
  private captured = 0;
  /** Bytes that follow the item in its block. */
  private trailing = 0;
  private seconds = 0;
  private nanoseconds = 0;

  /** @param linkType that the stream must have, a LINKTYPE_ value @param maxFrameBytes longer frames are an error */
  constructor(linkType: number, maxFrameBytes: number) {
    this.linkType = linkType;
    this.maxFrameBytes = maxFrameBytes;
  }

  /** Whether the stream could end here; false: the tail of an item is missing. */
  get atBoundary(): boolean {
    return this.carryLength === 0 && this.skipBytes === 0;
  }

  /**
   * Reads on from `offset` to `end`.
   *
   * @returns bytes accepted. Fewer than given: the sink refused (push the rest again), or `error` is set: report it now if
   *   this is 0, at the next call otherwise.
   */
  push(data: Buffer, offset: number, end: number, sink: FrameSink): number {
    if (this.error !== null) return 0;
    let at = offset;
    if (this.carryLength > 0) {
      at = this.pushToCarry(data, offset, end, sink);
      if (this.carryLength > 0) return at - offset;
    }
    for (;;) {
      const skipped = Math.min(this.skipBytes, end - at);
      this.skipBytes -= skipped;
      at += skipped;
      if (at >= end || this.error !== null) return at - offset;
      const bytes = this.measure(data, at, end - at);
      if (bytes < 0) return at - offset;
      if (bytes > end - at) {
        this.keep(data, at, end, 0);
        this.carryLength = end - at;
        return end - offset;
      }
      if (!this.consume(data, at, bytes, sink)) return at - offset;
      at += bytes;
    }
  }

  /**
   * Completes the item in the carry and consumes it. Until the sink has taken it `carryLength` stays, so that a refused
   * push leaves no trace.
   *
   * @returns where `data` goes on; with a carry that is still there: how far it was kept
   */
  private pushToCarry(data: Buffer, offset: number, end: number, sink: FrameSink): number {
    let have = this.carryLength;
    let at = offset;
    for (;;) {
      const bytes = this.measure(this.carry, 0, have);
      if (bytes < 0) return offset;
      if (bytes <= have) {
        if (!this.consume(this.carry, 0, bytes, sink)) return offset;
        this.carryLength = 0;
        return at;
      }
      if (at === end) {
        this.carryLength = have;
        return end;
      }
      const take = Math.min(bytes - have, end - at);
      this.keep(data, at, at + take, have);
      have += take;
      at += take;
    }
  }

  /** Copies bytes to the carry at `place`, making it larger where it must be. */
  private keep(data: Buffer, from: number, to: number, place: number): void {
    const needed = place + to - from;
    if (needed > this.carry.length) {
      const larger = Buffer.allocUnsafe(Math.max(needed, 2 * this.carry.length));
      this.carry.copy(larger, 0, 0, place);
      this.carry = larger;
    }
    data.copy(this.carry, place, from, to);
  }

  /**
   * Looks at the item at `at`, of which `available` bytes are there.
   *
   * @returns bytes that `consume` needs, at least as far as can be told from what is there; -1: `error` was set
   */
  private measure(buf: Buffer, at: number, available: number): number {
    if (available < MAGIC_BYTES) return MAGIC_BYTES;
    if (this.state === PCAP) return this.measureRecord(buf, at, available);
    if (isPcapMagic(buf, at)) return this.found(ITEM_FILE_HEADER, pcap.PCAP_FILE_HEADER_BYTES);
    if (buf.readUInt32LE(at) === pcap.PCAPNG_SECTION) return this.found(ITEM_SECTION, SECTION_BYTES);
    if (this.state === START) return this.fail('the stream begins with neither a pcap nor a pcapng header');
    return this.measureBlock(buf, at, available);
  }

  private measureRecord(buf: Buffer, at: number, available: number): number {
    if (available < pcap.PCAP_RECORD_HEADER_BYTES) return pcap.PCAP_RECORD_HEADER_BYTES;
    // A record's time can look like a magic number; what follows cannot as well.
    if (isPcapMagic(buf, at) && isPcapVersion(buf, at))
      return this.found(ITEM_FILE_HEADER, pcap.PCAP_FILE_HEADER_BYTES);
    if (buf.readUInt32LE(at) === pcap.PCAPNG_SECTION && byteOrderAt(buf, at) !== null) {
      return this.found(ITEM_SECTION, SECTION_BYTES);
    }
    this.seconds = this.u32(buf, at + pcap.PCAP_RECORD.seconds);
    this.nanoseconds = Math.min(this.u32(buf, at + pcap.PCAP_RECORD.fraction) * this.fractionNs, MAX_NANOSECONDS);
    return this.foundFrame(
      pcap.PCAP_RECORD_HEADER_BYTES,
      this.u32(buf, at + pcap.PCAP_RECORD.captured),
      this.u32(buf, at + pcap.PCAP_RECORD.original),
      0,
    );
  }

  private measureBlock(buf: Buffer, at: number, available: number): number {
    if (available < 8) return 8;
    const type = this.u32(buf, at + pcap.PCAPNG_BLOCK.type);
    const total = this.u32(buf, at + pcap.PCAPNG_BLOCK.totalLength);
    if (total < pcap.PCAPNG_BLOCK.minBytes || total % 4 !== 0) return this.fail(`a pcapng block of ${total} bytes`);
    switch (type) {
      case pcap.PCAPNG_INTERFACE:
        if (total < pcap.PCAPNG_INTERFACE_FIELDS.options + 4 || total > MAX_FRAME_BYTES) {
          return this.fail(`a pcapng interface block of ${total} bytes`);
        }
        return this.found(ITEM_INTERFACE, total);
      case pcap.PCAPNG_PACKET:
      case pcap.PCAPNG_OLD_PACKET:
        if (available < pcap.PCAPNG_PACKET_FIELDS.data) return pcap.PCAPNG_PACKET_FIELDS.data;
        return this.measurePacket(buf, at, type, total);
      case pcap.PCAPNG_SIMPLE_PACKET: {
        const { original, data } = pcap.PCAPNG_SIMPLE_FIELDS;
        if (available < data) return data;
        if (this.resolutions.length === 0) return this.fail('a pcapng packet before its interface');
        this.seconds = 0;
        this.nanoseconds = 0;
        // The block has no captured length: it ends with the padded data.
        const bytes = this.u32(buf, at + original);
        return this.foundFrame(data, Math.min(bytes, Math.max(0, total - data - 4)), bytes, total);
      }
      default:
        this.trailing = total - 8;
        return this.found(ITEM_SKIP, 8);
    }
  }

  private measurePacket(buf: Buffer, at: number, type: number, total: number): number {
    const fields = pcap.PCAPNG_PACKET_FIELDS;
    const place = at + fields.interface;
    const id = type === pcap.PCAPNG_PACKET ? this.u32(buf, place) : this.u16(buf, place);
    const resolution = this.resolutions[id];
    if (resolution === undefined) return this.fail(`a pcapng packet of interface ${id}, which has no block`);
    this.setTime(this.u32(buf, at + fields.timeHigh), this.u32(buf, at + fields.timeLow), resolution);
    return this.foundFrame(
      fields.data,
      this.u32(buf, at + fields.captured),
      this.u32(buf, at + fields.original),
      total,
    );
  }

  private found(item: number, bytes: number): number {
    this.item = item;
    return bytes;
  }

  /** @param total bytes of the pcapng block; 0: pcap */
  private foundFrame(start: number, captured: number, original: number, total: number): number {
    if (captured < original) return this.fail(`a frame was cut to ${captured} of its ${original} bytes`);
    if (captured > original) return this.fail(`a record of ${captured} bytes of a frame of ${original}`);
    if (captured > this.maxFrameBytes) {
      return this.fail(`a frame of ${captured} bytes, more than ${this.maxFrameBytes}`);
    }
    this.trailing = total - start - captured;
    if (total > 0 && this.trailing < 4)
      return this.fail(`a pcapng block of ${total} bytes with a frame of ${captured}`);
    if (total === 0) this.trailing = 0;
    this.frameStart = start;
    this.captured = captured;
    return this.found(ITEM_RECORD, start + captured);
  }

  /** @returns false: the sink refused, or `error` was set; nothing was changed */
  private consume(buf: Buffer, at: number, bytes: number, sink: FrameSink): boolean {
    switch (this.item) {
      case ITEM_RECORD:
        if (!sink.frame(buf, at + this.frameStart, this.captured, this.seconds, this.nanoseconds)) return false;
        this.skipBytes = this.trailing;
        return true;
      case ITEM_FILE_HEADER:
        sink.begin?.();
        return this.readFileHeader(buf, at);
      case ITEM_SECTION:
        sink.begin?.();
        return this.readSection(buf, at);
      case ITEM_INTERFACE:
        return this.readInterface(buf, at, bytes);
      default:
        this.skipBytes = this.trailing;
        return true;
    }
  }

  private readFileHeader(buf: Buffer, at: number): boolean {
    this.littleEndian = isMagic(buf.readUInt32LE(at));
    const magic = this.u32(buf, at);
    const linkType = this.u32(buf, at + pcap.PCAP_FILE.linkType);
    if (!isPcapVersion(buf, at)) {
      const major = this.u16(buf, at + pcap.PCAP_FILE.versionMajor);
      return this.refuse(`pcap version ${major}.${this.u16(buf, at + pcap.PCAP_FILE.versionMinor)}`);
    }
    if ((linkType & FCS_PRESENT) !== 0) return this.refuse('frames with their frame check sequence');
    if (!this.checkLinkType(linkType & 0xffff)) return false;
    this.state = PCAP;
    this.fractionNs = magic === pcap.PCAP_MAGIC_NANOSECONDS ? 1 : 1000;
    return true;
  }

  private readSection(buf: Buffer, at: number): boolean {
    const littleEndian = byteOrderAt(buf, at);
    if (littleEndian === null) return this.refuse('a pcapng section without byte-order magic');
    this.littleEndian = littleEndian;
    const total = this.u32(buf, at + pcap.PCAPNG_BLOCK.totalLength);
    const major = this.u16(buf, at + pcap.PCAPNG_SECTION_FIELDS.versionMajor);
    if (total < SECTION_BYTES || total % 4 !== 0) return this.refuse(`a pcapng section header of ${total} bytes`);
    if (major !== pcap.PCAPNG_VERSION_MAJOR) return this.refuse(`pcapng version ${major}`);
    this.state = PCAPNG;
    this.resolutions = [];
    this.skipBytes = total - SECTION_BYTES;
    return true;
  }

  private readInterface(buf: Buffer, at: number, bytes: number): boolean {
    if (!this.checkLinkType(this.u16(buf, at + pcap.PCAPNG_INTERFACE_FIELDS.linkType))) return false;
    if (this.resolutions.length >= MAX_SECTION_INTERFACES)
      return this.refuse('a pcapng section of too many interfaces');
    let resolution = pcap.PCAPNG_DEFAULT_TSRESOL;
    const end = at + bytes - 4;
    let option = at + pcap.PCAPNG_INTERFACE_FIELDS.options;
    while (option + OPTION_HEADER_BYTES < end) {
      const code = this.u16(buf, option);
      const length = this.u16(buf, option + 2);
      if (code === pcap.PCAPNG_OPTION_TSRESOL && length === 1) resolution = buf[option + OPTION_HEADER_BYTES]!;
      option += OPTION_HEADER_BYTES + ((length + 3) & ~3);
    }
    this.resolutions.push(resolution);
    return true;
  }

  private checkLinkType(linkType: number): boolean {
    if (linkType === this.linkType) return true;
    const wanted = pcap.formatLinkType(this.linkType);
    return this.refuse(`the stream has link type ${pcap.formatLinkType(linkType)}, the interface ${wanted}`);
  }

  /**
   * Sets the time from a 64-bit count of 10^-n or 2^-n seconds. Exact for units of 7 ps and coarser by long division, as
   * every step stays below 2^53; finer ones are rounded.
   */
  private setTime(high: number, low: number, resolution: number): void {
    const units = (resolution & 0x80) !== 0 ? 2 ** (resolution & 0x7f) : 10 ** resolution;
    const first = high % units;
    const upper = first * 0x10000 + (low >>> 16);
    const lower = (upper % units) * 0x10000 + (low & 0xffff);
    const seconds =
      Math.floor(high / units) * 2 ** 32 + Math.floor(upper / units) * 0x10000 + Math.floor(lower / units);
    const rest = lower % units;
    this.seconds = seconds >>> 0;
    const exact = 1e9 % units === 0 ? rest * (1e9 / units) : Math.floor((rest / units) * 1e9);
    this.nanoseconds = Math.min(exact, MAX_NANOSECONDS);
  }

  private u32(buf: Buffer, at: number): number {
    return this.littleEndian ? buf.readUInt32LE(at) : buf.readUInt32BE(at);
  }

  private u16(buf: Buffer, at: number): number {
    return this.littleEndian ? buf.readUInt16LE(at) : buf.readUInt16BE(at);
  }

  /** `fail` for `consume`. */
  private refuse(what: string): false {
    this.fail(what);
    return false;
  }

  /** @returns -1, for `measure` */
  private fail(what: string): number {
    this.error = new FwdfsError('bad-capture', what);
    return -1;
  }
}

function isMagic(value: number): boolean {
  return value === pcap.PCAP_MAGIC_MICROSECONDS || value === pcap.PCAP_MAGIC_NANOSECONDS;
}

function isPcapMagic(buf: Buffer, at: number): boolean {
  return isMagic(buf.readUInt32LE(at)) || isMagic(buf.readUInt32BE(at));
}

/** Whether the version behind a pcap magic is 2.4 in the magic's byte order. */
function isPcapVersion(buf: Buffer, at: number): boolean {
  const little = isMagic(buf.readUInt32LE(at));
  const major = little ? buf.readUInt16LE(at + 4) : buf.readUInt16BE(at + 4);
  const minor = little ? buf.readUInt16LE(at + 6) : buf.readUInt16BE(at + 6);
  return major === pcap.PCAP_VERSION_MAJOR && minor === pcap.PCAP_VERSION_MINOR;
}

/** Whether a section header is little endian; null: it is no section header. */
function byteOrderAt(buf: Buffer, at: number): boolean | null {
  const place = at + pcap.PCAPNG_SECTION_FIELDS.byteOrder;
  if (buf.readUInt32LE(place) === pcap.PCAPNG_BYTE_ORDER) return true;
  return buf.readUInt32BE(place) === pcap.PCAPNG_BYTE_ORDER ? false : null;
}
