/**
 * The bytes that wait for one reader: a queue of records (a pcap record, a line, a raw packet) in pooled chunks.
 *
 *     writer: reserve(n) -> bytes at chunk/offset -> commit(n)          reader: read() or readRecord()
 *
 *     chunks   [ record record rec…ord ....... ] [ record record ............ ]
 *                       ^ head                          ^ tail
 *     lengths  ring of the length of every record that is not fully read
 *
 * A record never crosses a chunk. An idle reader holds no chunk. The queue owns its chunks; `clear` gives them back.
 */
import type { ChunkPool } from '../base/chunks.js';

const EMPTY = Buffer.alloc(0);
/** Thousands of readers may be open and quiet: those that never got a packet share it. */
const NO_LENGTHS = new Uint32Array(0);
const LEAST_LENGTHS = 16;
/** A ring that grew larger than this is given up when the queue runs empty. */
const KEPT_LENGTHS = 1024;

export class ReaderQueue {
  private readonly pool: ChunkPool;
  private readonly limit: number;
  private readonly chunks: Buffer[] = [];
  private readonly ends: number[] = [];
  private head = 0;
  private tail = 0;
  private bytes = 0;
  private lengths = NO_LENGTHS;
  private lengthHead = 0;
  private lengthCount = 0;
  /** Bytes of the first record that were read already. */
  private begun = 0;
  /** Where the reserved bytes go. */
  chunk: Buffer;
  offset = 0;

  /** @param limit bytes that may wait */
  constructor(pool: ChunkPool, limit: number) {
    this.pool = pool;
    this.limit = limit;
    this.chunk = EMPTY;
  }

  get isEmpty(): boolean {
    return this.lengthCount === 0;
  }

  get waiting(): number {
    return this.bytes;
  }

  /** Makes room for one record of up to `length` bytes at `chunk`, `offset`. @returns false: no room, drop it */
  reserve(length: number): boolean {
    if (this.bytes + length > this.limit || length > this.pool.bytes) return false;
    if (this.chunks.length === 0 || this.tail + length > this.pool.bytes) {
      const chunk = this.pool.tryTake();
      if (chunk === null) return false;
      if (this.chunks.length > 0) this.ends[this.chunks.length - 1] = this.tail;
      this.chunks.push(chunk);
      this.ends.push(0);
      this.chunk = chunk;
      this.tail = 0;
    }
    this.offset = this.tail;
    return true;
  }

  /** The record of `length` bytes is complete. */
  commit(length: number): void {
    this.tail += length;
    this.bytes += length;
    if (this.lengthCount === this.lengths.length) this.growLengths();
    this.lengths[(this.lengthHead + this.lengthCount) & (this.lengths.length - 1)] = length;
    this.lengthCount += 1;
  }

  private growLengths(): void {
    const grown = new Uint32Array(Math.max(this.lengths.length * 2, LEAST_LENGTHS));
    for (let i = 0; i < this.lengthCount; i++) {
      grown[i] = this.lengths[(this.lengthHead + i) & (this.lengths.length - 1)] ?? 0;
    }
    this.lengths = grown;
    this.lengthHead = 0;
  }

  /** Whole records as far as they fit into `size`; only a first one that is longer is begun, and continued later. */
  read(out: Buffer, offset: number, size: number): number {
    let done = 0;
    while (this.lengthCount > 0 && done < size) {
      const left = (this.lengths[this.lengthHead] ?? 0) - this.begun;
      if (left > size - done) {
        if (done > 0) break;
        this.copyOut(out, offset, size);
        this.begun += size;
        return size;
      }
      // A run of records that fit and stand in one chunk is copied at once.
      let run = left;
      this.dropLength();
      const room = Math.min(size - done, this.headEnd() - this.head);
      while (this.lengthCount > 0) {
        const next = this.lengths[this.lengthHead] ?? 0;
        if (run + next > room) break;
        run += next;
        this.dropLength();
      }
      this.copyOut(out, offset + done, run);
      done += run;
    }
    return done;
  }

  /** Length of the record at the head, 0 if there is none. */
  get nextLength(): number {
    return this.lengthCount === 0 ? 0 : (this.lengths[this.lengthHead] ?? 0);
  }

  private dropLength(): void {
    this.lengthHead = (this.lengthHead + 1) & (this.lengths.length - 1);
    this.lengthCount -= 1;
    this.begun = 0;
  }

  private headEnd(): number {
    return this.chunks.length === 1 ? this.tail : (this.ends[0] ?? 0);
  }

  private copyOut(out: Buffer, offset: number, length: number): void {
    (this.chunks[0] as Buffer).copy(out, offset, this.head, this.head + length);
    this.head += length;
    this.bytes -= length;
    if (this.head < this.headEnd()) return;
    this.pool.give(this.chunks.shift() as Buffer);
    this.ends.shift();
    this.head = 0;
    if (this.chunks.length === 0) {
      this.tail = 0;
      this.chunk = EMPTY;
      if (this.lengths.length > KEPT_LENGTHS) this.lengths = NO_LENGTHS;
      this.lengthHead = 0;
    }
  }

  clear(): void {
    for (const chunk of this.chunks) this.pool.give(chunk);
    this.chunks.length = 0;
    this.ends.length = 0;
    this.chunk = EMPTY;
    this.head = 0;
    this.tail = 0;
    this.bytes = 0;
    this.lengthHead = 0;
    this.lengthCount = 0;
    this.begun = 0;
  }
}
