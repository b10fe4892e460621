/**
 * Where the flows of one interface stand: each is a row of words, found by its key through chains of equal hash. A row's
 * number is the flow's handle. No object per flow, so that a million of them cost the collector nothing.
 *
 *     row (64 bytes) | local 4 | remote 4 | ports | kind | hash | next | state | expires | ack | way back |   16 words
 *     buckets        | first row of the chain |                                     two for each row, as they come
 *
 * What a packet reads stands together: one miss of the cache instead of eight. With every row that is added two more buckets
 * take their part of another one's chain (linear hashing: Litwin, 1980), so no packet waits until a table is built anew.
 * Rows that are free are a chain too, and all begins anew when none is in use.
 */
import { randomBytes } from 'node:crypto';
import { PagedRows } from '../base/paged-rows.js';
import { flowKeyHash } from './flow-hash.js';
import { ADDRESS_WORDS, type FlowKey } from './flow-key.js';

/** No row. */
export const NONE = -1;

const ROW_WORDS = 16;
const LOCAL = 0;
const REMOTE = ADDRESS_WORDS;
const PORTS = 8;
/** What tells IPv4 from IPv6, and the protocol, see FlowKey; NONE: the row is free. */
const KIND = 9;
const HASH = 10;
const NEXT = 11;
const STATE = 12;
const EXPIRES = 13;
const ACK = 14;
const WAY_BACK = 15;

const FIRST_BUCKETS = 64;
/** So that few chains have a second row: each look at one may miss the cache. */
const BUCKETS_PER_ROW = 2;

export class FlowRows {
  private readonly rows = new PagedRows(ROW_WORDS);
  private buckets = new Int32Array(FIRST_BUCKETS).fill(NONE);
  private bucketCount = FIRST_BUCKETS;
  /** Rows from here on were never used. */
  private top = 0;
  private free = NONE;
  private used = 0;
  /** See flow-hash.ts. */
  private readonly secret0 = randomBytes(4).readInt32LE();
  private readonly secret1 = randomBytes(4).readInt32LE();

  /** How many rows are in use. */
  get size(): number {
    return this.used;
  }

  /** All rows in use are below. */
  get end(): number {
    return this.top;
  }

  isUsed(row: number): boolean {
    return row < this.top && this.rows.get(row, KIND) !== NONE;
  }

  /** @returns the row with this key, or NONE */
  find(key: FlowKey): number {
    const { rows } = this;
    const { words, ports, kind } = key;
    let row = this.buckets[this.bucketOf(this.hash(key))]!;
    while (row !== NONE) {
      const page = rows.page(row);
      const at = rows.at(row);
      if (page[at + PORTS] === ports && page[at + KIND] === kind) {
        let i = 0;
        while (i < words.length && page[at + i] === words[i]) i++;
        if (i === words.length) return row;
      }
      row = page[at + NEXT]!;
    }
    return NONE;
  }

  /** A row for a key that `find` does not find; what the caller sets is 0. */
  add(key: FlowKey): number {
    const { rows } = this;
    let row = this.free;
    if (row === NONE) {
      row = this.top++;
      rows.reserve(row);
    } else this.free = rows.get(row, NEXT);
    this.used += 1;
    while (this.bucketCount < BUCKETS_PER_ROW * this.used) this.split();
    const hash = this.hash(key);
    const bucket = this.bucketOf(hash);
    const page = rows.page(row);
    const at = rows.at(row);
    page.set(key.words, at);
    page.fill(0, at + PORTS, at + ROW_WORDS);
    page[at + PORTS] = key.ports;
    page[at + KIND] = key.kind;
    page[at + HASH] = hash;
    page[at + NEXT] = this.buckets[bucket]!;
    this.buckets[bucket] = row;
    return row;
  }

  remove(row: number): void {
    const { rows, buckets } = this;
    const next = rows.get(row, NEXT);
    const bucket = this.bucketOf(rows.get(row, HASH));
    let before = buckets[bucket]!;
    if (before === row) buckets[bucket] = next;
    else {
      while (rows.get(before, NEXT) !== row) before = rows.get(before, NEXT);
      rows.set(before, NEXT, next);
    }
    rows.set(row, KIND, NONE);
    rows.set(row, NEXT, this.free);
    this.free = row;
    this.used -= 1;
  }

  /** Gives the memory of an empty table back. */
  shrink(): void {
    if (this.used > 0 || this.bucketCount === FIRST_BUCKETS) return;
    this.rows.clear();
    this.buckets = new Int32Array(FIRST_BUCKETS).fill(NONE);
    this.bucketCount = FIRST_BUCKETS;
    this.top = 0;
    this.free = NONE;
  }

  /** `buckets` has room for a power of two; those that are not there yet have their rows in the lower half. */
  private bucketOf(hash: number): number {
    const bucket = hash & (this.buckets.length - 1);
    return bucket < this.bucketCount ? bucket : bucket - (this.buckets.length >> 1);
  }

  /** One bucket more, with its part of the chain of the one in the lower half. */
  private split(): void {
    if (this.bucketCount === this.buckets.length) {
      const buckets = new Int32Array(2 * this.buckets.length);
      buckets.set(this.buckets);
      this.buckets = buckets;
    }
    const { rows, buckets } = this;
    const upper = this.bucketCount++;
    const lower = upper - (buckets.length >> 1);
    let row = buckets[lower]!;
    buckets[lower] = NONE;
    buckets[upper] = NONE;
    while (row !== NONE) {
      const next = rows.get(row, NEXT);
      const bucket = this.bucketOf(rows.get(row, HASH));
      rows.set(row, NEXT, buckets[bucket]!);
      buckets[bucket] = row;
      row = next;
    }
  }

  private hash(key: FlowKey): number {
    return flowKeyHash(key, this.secret0, this.secret1);
  }

  kind(row: number): number {
    return this.rows.get(row, KIND);
  }

  ports(row: number): number {
    return this.rows.get(row, PORTS);
  }

  /** @param bytes 4 or 16 */
  copyLocal(row: number, bytes: number): Buffer {
    return this.copyWords(row, LOCAL, bytes);
  }

  copyRemote(row: number, bytes: number): Buffer {
    return this.copyWords(row, REMOTE, bytes);
  }

  private copyWords(row: number, first: number, bytes: number): Buffer {
    const copy = Buffer.allocUnsafe(bytes);
    for (let i = 0; i < bytes; i += 4) copy.writeInt32BE(this.rows.get(row, first + (i >> 2)), i);
    return copy;
  }

  state(row: number): number {
    return this.rows.get(row, STATE);
  }

  setState(row: number, state: number): void {
    this.rows.set(row, STATE, state);
  }

  /** On a clock that counts milliseconds in 32 bits and goes round: compare by difference. */
  expires(row: number): number {
    return this.rows.get(row, EXPIRES);
  }

  setExpires(row: number, expires: number): void {
    this.rows.set(row, EXPIRES, expires);
  }

  ack(row: number): number {
    return this.rows.get(row, ACK) >>> 0;
  }

  setAck(row: number, ack: number): void {
    this.rows.set(row, ACK, ack);
  }

  wayBack(row: number): number {
    return this.rows.get(row, WAY_BACK);
  }

  setWayBack(row: number, wayBack: number): void {
    this.rows.set(row, WAY_BACK, wayBack);
  }
}
