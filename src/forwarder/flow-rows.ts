/**
 * Where the flows of one interface stand: each is a row of words, found by its key through chains of equal hash. A row's
 * number is the flow's handle. No object per flow, so that a million of them cost the collector nothing.
 *
 *     row (64 bytes) | local 4 | remote 4 | ports | kind | hash | next | state | expires | ack | way back |   16 words
 *     links          | through | before | after |                                  see flow-rules.ts, who owns them
 *     buckets        | first row of the chain |                                    as many as there is room for rows
 *
 * What a packet reads stands together: one miss of the cache instead of eight. Rows double when they are full, and all of
 * them begin anew when the table is empty again. What is free is a chain too.
 */
import { randomBytes } from 'node:crypto';
import { ADDRESS_WORDS, type FlowKey } from './flow-key.js';

/** No row. */
export const NONE = -1;

const FIRST_ROWS = 64;

const ROW_WORDS = 16;
const ROW_SHIFT = 4;
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

/** Rounds at the end of HalfSipHash-1-3. */
const FINAL_ROUNDS = 3;

const emptyBuckets = (length: number): Int32Array<ArrayBuffer> => new Int32Array(length).fill(NONE);

export class FlowRows {
  private rows = new Int32Array(FIRST_ROWS * ROW_WORDS);
  private buckets = emptyBuckets(FIRST_ROWS);
  /** Rows from here on were never used. */
  private top = 0;
  private free = NONE;
  private used = 0;
  /** So that nobody can choose ports and addresses that share a chain. */
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
    return row < this.top && this.rows[(row << ROW_SHIFT) + KIND] !== NONE;
  }

  /** @returns the row with this key, or NONE */
  find(key: FlowKey): number {
    const { rows, buckets } = this;
    const { words, ports, kind } = key;
    let row = buckets[this.hash(key) & (buckets.length - 1)]!;
    while (row !== NONE) {
      const at = row << ROW_SHIFT;
      if (rows[at + PORTS] === ports && rows[at + KIND] === kind) {
        let i = 0;
        while (i < words.length && rows[at + i] === words[i]) i++;
        if (i === words.length) return row;
      }
      row = rows[at + NEXT]!;
    }
    return NONE;
  }

  /** A row for a key that `find` does not find; all that the caller sets is 0. */
  add(key: FlowKey): number {
    if (this.used === this.buckets.length) this.grow();
    const { rows, buckets } = this;
    let row = this.free;
    if (row === NONE) row = this.top++;
    else this.free = rows[(row << ROW_SHIFT) + NEXT]!;
    const at = row << ROW_SHIFT;
    const hash = this.hash(key);
    const bucket = hash & (buckets.length - 1);
    rows.set(key.words, at);
    rows.fill(0, at + PORTS, at + ROW_WORDS);
    rows[at + PORTS] = key.ports;
    rows[at + KIND] = key.kind;
    rows[at + HASH] = hash;
    rows[at + NEXT] = buckets[bucket]!;
    buckets[bucket] = row;
    this.used += 1;
    return row;
  }

  remove(row: number): void {
    const { rows, buckets } = this;
    const at = row << ROW_SHIFT;
    const next = rows[at + NEXT]!;
    const bucket = rows[at + HASH]! & (buckets.length - 1);
    if (buckets[bucket] === row) buckets[bucket] = next;
    else {
      let before = buckets[bucket]! << ROW_SHIFT;
      while (rows[before + NEXT] !== row) before = rows[before + NEXT]! << ROW_SHIFT;
      rows[before + NEXT] = next;
    }
    rows[at + KIND] = NONE;
    rows[at + NEXT] = this.free;
    this.free = row;
    this.used -= 1;
  }

  /** Gives the memory of an empty table back. */
  shrink(): void {
    if (this.used > 0 || this.top <= FIRST_ROWS) return;
    this.rows = new Int32Array(FIRST_ROWS * ROW_WORDS);
    this.buckets = emptyBuckets(FIRST_ROWS);
    this.top = 0;
    this.free = NONE;
  }

  private grow(): void {
    const length = 2 * this.buckets.length;
    const rows = new Int32Array(length * ROW_WORDS);
    rows.set(this.rows);
    this.rows = rows;
    const buckets = emptyBuckets(length);
    this.buckets = buckets;
    // Every row is in use.
    for (let row = 0, at = 0; row < this.top; row++, at += ROW_WORDS) {
      const bucket = rows[at + HASH]! & (length - 1);
      rows[at + NEXT] = buckets[bucket]!;
      buckets[bucket] = row;
    }
  }

  /** HalfSipHash-1-3 over the addresses, the ports and the kind: a hash that only who knows its key can make collide. */
  private hash({ words, ports, kind, isIpv4 }: FlowKey): number {
    const step = isIpv4 ? ADDRESS_WORDS : 1;
    let v0 = this.secret0;
    let v1 = this.secret1;
    let v2 = 0x6c796765 ^ this.secret0;
    let v3 = 0x74656462 ^ this.secret1;
    for (let i = 0; i < words.length + step * (2 + FINAL_ROUNDS); i += step) {
      let word = 0;
      if (i < words.length) word = words[i]!;
      else if (i === words.length) word = ports;
      else if (i === words.length + step) word = kind;
      else if (i === words.length + 2 * step) v2 ^= 0xff;
      v3 ^= word;
      v0 = (v0 + v1) | 0;
      v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
      v0 = (v0 << 16) | (v0 >>> 16);
      v2 = (v2 + v3) | 0;
      v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
      v0 = (v0 + v3) | 0;
      v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
      v2 = (v2 + v1) | 0;
      v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
      v2 = (v2 << 16) | (v2 >>> 16);
      v0 ^= word;
    }
    return v1 ^ v3;
  }

  kind(row: number): number {
    return this.rows[(row << ROW_SHIFT) + KIND]!;
  }

  ports(row: number): number {
    return this.rows[(row << ROW_SHIFT) + PORTS]!;
  }

  /** @param bytes 4 or 16 */
  copyLocal(row: number, bytes: number): Buffer {
    return this.copyWords((row << ROW_SHIFT) + LOCAL, bytes);
  }

  copyRemote(row: number, bytes: number): Buffer {
    return this.copyWords((row << ROW_SHIFT) + REMOTE, bytes);
  }

  private copyWords(at: number, bytes: number): Buffer {
    const copy = Buffer.allocUnsafe(bytes);
    for (let i = 0; i < bytes; i += 4) copy.writeInt32BE(this.rows[at + (i >> 2)]!, i);
    return copy;
  }

  state(row: number): number {
    return this.rows[(row << ROW_SHIFT) + STATE]!;
  }

  setState(row: number, state: number): void {
    this.rows[(row << ROW_SHIFT) + STATE] = state;
  }

  /** On a clock that counts milliseconds in 32 bits and goes round: compare by difference. */
  expires(row: number): number {
    return this.rows[(row << ROW_SHIFT) + EXPIRES]!;
  }

  setExpires(row: number, expires: number): void {
    this.rows[(row << ROW_SHIFT) + EXPIRES] = expires;
  }

  ack(row: number): number {
    return this.rows[(row << ROW_SHIFT) + ACK]! >>> 0;
  }

  setAck(row: number, ack: number): void {
    this.rows[(row << ROW_SHIFT) + ACK] = ack;
  }

  wayBack(row: number): number {
    return this.rows[(row << ROW_SHIFT) + WAY_BACK]!;
  }

  setWayBack(row: number, wayBack: number): void {
    this.rows[(row << ROW_SHIFT) + WAY_BACK] = wayBack;
  }
}
