/**
 * One reader of a symbol: turns frames that arrive through the up tunnel into what its file shows.
 *
 *     deliver(frame) -> wire frames (segmented, checksums finished; `:gso`: as it is) -> framing -> ReaderQueue -> read()
 *
 * S612, S613: a packet wakes its reader, who takes it. Each open file has its own, so a slow reader loses its own packets
 * only: a record that does not fit its queue is dropped whole and counted, and the framing stays intact.
 */
import { constants } from 'node:os';
import { C, type Counters } from '../base/counters.js';
import { writeHexLine } from '../packet/hex.js';
import {
  PCAP_FILE_HEADER_BYTES,
  PCAP_RECORD_HEADER_BYTES,
  writeFileHeader,
  writeRecordHeader,
} from '../packet/pcap.js';
import { Segmenter } from '../packet/segment.js';
import type { Framing } from '../packet/symbol-name.js';
import { VNET, VNET_F_NEEDS_CSUM } from '../packet/virtio.js';
import { MAX_FRAME_BYTES } from '../base/limits.js';
import type { ReaderQueue } from './reader-queue.js';

const { EAGAIN, EMSGSIZE } = constants.errno;

/** Where wire frames are made for the framings that encode them once more. Free again when `deliver` returns. */
const scratch = Buffer.allocUnsafeSlow(MAX_FRAME_BYTES);
const segmenter = new Segmenter();
/**
 * The kernel cuts a larger read(2) into several READs and asks for the next one if the one before was filled exactly: it
 * would then wait for a packet while the program could have what is there. libfuse 2 cuts at 128 KiB, at most a page less.
 */
const UNCUT_READ_BYTES = (128 << 10) - 4096;

const fileHeaders = new Map<number, Buffer>();

/** The header of a capture, one for all readers. */
function fileHeader(linkType: number): Buffer {
  let header = fileHeaders.get(linkType);
  if (header === undefined) {
    header = Buffer.alloc(PCAP_FILE_HEADER_BYTES);
    writeFileHeader(header, 0, linkType);
    fileHeaders.set(linkType, header);
  }
  return header;
}

export interface ReaderOptions {
  readonly framing: Framing;
  /** Super-frames and unfinished checksums as they are. */
  readonly gso: boolean;
  /** pcap link type of the interface. */
  readonly linkType: number;
  readonly queue: ReaderQueue;
  readonly counters: Counters;
  /** Called when there is something to read after there was nothing. */
  readonly wake: () => void;
}

export class PacketReader {
  private readonly framing: Framing;
  private readonly gso: boolean;
  private readonly ethernet: boolean;
  private readonly queue: ReaderQueue;
  private readonly counters: Counters;
  private readonly wake: () => void;
  /** The file header, until it was read. */
  private preamble: Buffer | null = null;
  private preambleRead = 0;
  private ended = false;
  /** What the first read(2) at the end gives; 0 after that. */
  private lastWord = 0;
  dropped = 0;

  constructor(options: ReaderOptions) {
    this.framing = options.framing;
    this.gso = options.gso;
    this.ethernet = options.linkType === 1;
    this.queue = options.queue;
    this.counters = options.counters;
    this.wake = options.wake;
    if (options.framing === 'pcap') this.preamble = fileHeader(options.linkType);
  }

  /** No packets will come any more. */
  get isEnded(): boolean {
    return this.ended;
  }

  get isEmpty(): boolean {
    return this.preamble === null && this.queue.isEmpty && !this.ended;
  }

  /** One frame of the up tunnel: `length` bytes at `offset`, its virtio_net_hdr at `vnet`, all in `buf`. */
  deliver(buf: Buffer, offset: number, length: number, vnet: number, seconds: number, nanoseconds: number): void {
    const wasEmpty = this.isEmpty;
    const flags = buf[vnet + VNET.flags] ?? 0;
    const gsoType = buf[vnet + VNET.gsoType] ?? 0;
    if (this.gso || (gsoType === 0 && (flags & VNET_F_NEEDS_CSUM) === 0)) {
      this.append(buf, offset, length, seconds, nanoseconds);
    } else {
      this.appendSegments(buf, offset, length, vnet, seconds, nanoseconds);
    }
    if (wasEmpty && !this.queue.isEmpty) this.wake();
  }

  private append(buf: Buffer, offset: number, length: number, seconds: number, nanoseconds: number): void {
    const queue = this.queue;
    if (!queue.reserve(this.recordBytes(length))) {
      this.drop();
      return;
    }
    if (this.framing === 'hex') {
      queue.commit(writeHexLine(queue.chunk, queue.offset, buf, offset, length));
      return;
    }
    let at = queue.offset;
    if (this.framing === 'pcap') {
      writeRecordHeader(queue.chunk, at, seconds, nanoseconds, length, length);
      at += PCAP_RECORD_HEADER_BYTES;
    }
    buf.copy(queue.chunk, at, offset, offset + length);
    queue.commit(at + length - queue.offset);
  }

  private appendSegments(
    buf: Buffer,
    offset: number,
    length: number,
    vnet: number,
    seconds: number,
    nanoseconds: number,
  ): void {
    if (segmenter.begin(buf, offset, length, vnet, this.ethernet ? 'ethernet' : 'raw') === 0) {
      this.counters.add(C.drop_bad_gso, 1);
      this.dropped += 1;
      return;
    }
    const queue = this.queue;
    for (;;) {
      const bytes = segmenter.nextBytes;
      if (bytes === 0) return;
      if (this.framing !== 'pcap') {
        segmenter.next(scratch, 0);
        this.append(scratch, 0, bytes, seconds, nanoseconds);
      } else if (queue.reserve(PCAP_RECORD_HEADER_BYTES + bytes)) {
        writeRecordHeader(queue.chunk, queue.offset, seconds, nanoseconds, bytes, bytes);
        segmenter.next(queue.chunk, queue.offset + PCAP_RECORD_HEADER_BYTES);
        queue.commit(PCAP_RECORD_HEADER_BYTES + bytes);
      } else {
        segmenter.next(scratch, 0);
        this.drop();
      }
    }
  }

  private recordBytes(length: number): number {
    if (this.framing === 'hex') return 2 * length + 1;
    return this.framing === 'pcap' ? PCAP_RECORD_HEADER_BYTES + length : length;
  }

  private drop(): void {
    this.dropped += 1;
    this.counters.add(C.drop_reader_slow, 1);
  }

  /** read(2): see OpenFile. */
  read(out: Buffer, offset: number, room: number): number {
    if (this.framing === 'raw') return this.readPacket(out, offset, room);
    const size = room < UNCUT_READ_BYTES ? room : room - 1;
    let done = 0;
    if (this.preamble !== null) {
      done = Math.min(size, this.preamble.length - this.preambleRead);
      this.preamble.copy(out, offset, this.preambleRead, this.preambleRead + done);
      this.preambleRead += done;
      if (this.preambleRead === this.preamble.length) this.preamble = null;
      // A record that does not fit behind the header waits for the next read.
      if (this.preamble !== null || this.queue.nextLength > size - done) return done;
    }
    done += this.queue.read(out, offset + done, size - done);
    return done > 0 ? done : this.atEnd();
  }

  private readPacket(out: Buffer, offset: number, size: number): number {
    const length = this.queue.nextLength;
    if (length === 0) return this.atEnd();
    if (length > size) return -EMSGSIZE;
    return this.queue.read(out, offset, length);
  }

  /** What read(2) gives when nothing waits. */
  private atEnd(): number {
    if (!this.ended) return -EAGAIN;
    const { lastWord } = this;
    this.lastWord = 0;
    return lastWord;
  }

  /** No packets will come any more: what waits can be read, then the errno if there is one, then the end of the file. */
  end(errno = 0): void {
    this.ended = true;
    this.lastWord = 0 - errno;
    this.wake();
  }

  release(): void {
    this.queue.clear();
  }
}
