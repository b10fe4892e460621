/**
 * The wire format of /tunnel: one WebSocket message carries many frames, each a header of 32 bytes and a payload.
 *
 *       0       1       2       3       4       5       6       7
 *   0 +-------+-------+-------+-------+-------+-------+-------+-------+
 *     | kind  | flags |             virtio_net_hdr                    |
 *   8 +-------+-------+-------+-------+-------+-------+-------+-------+
 *     |   (10 bytes in all)           |           tunnel id           |
 *  16 +-------+-------+-------+-------+-------+-------+-------+-------+
 *     |        payload length         |       reserved, sent 0        |
 *  24 +-------+-------+-------+-------+-------+-------+-------+-------+
 *     |   stamp: receive time, sequence number or bytes granted       |
 *  32 +-------+-------+-------+-------+-------+-------+-------+-------+
 *     |   payload, then zeros up to the next multiple of 8            |
 *     +---------------------------------------------------------------+
 *
 * Everything is little endian. A frame starts at a multiple of 8 inside its message; where the message itself starts in
 * memory is the socket's affair, so nothing here uses typed arrays wider than a byte.
 *
 * | kind    | travels | tunnel id | stamp                                     | payload                           |
 * | data    | up      | up        | receive time, ns since the epoch          | the frame                         |
 * | data    | down    | down      | sequence number, 1 for a tunnel's first   | the frame                         |
 * | credit  | down    | up        | bytes of payload granted, cumulative      | none                              |
 * | confirm | up      | down      | every frame up to this one was dealt with | none, or an errno (CONFIRM_ERROR) |
 * | close   | down    | down      | sequence number of the last frame         | none                              |
 *
 * This is the packet path: no function makes an object, and every offset that is passed is that of a frame's start. A
 * u64 is never a BigInt: counters stay below 2^53, and times are handled as seconds and nanoseconds, exactly.
 */
import { MAX_FRAME_BYTES } from '../base/limits.js';

interface Field {
  readonly offset: number;
  readonly bytes: number;
  readonly what: string;
}

/** The only field table of the header. */
export const FRAME_FIELDS = {
  kind: { offset: 0, bytes: 1, what: '1 data, 2 credit, 3 confirm, 4 close' },
  flags: { offset: 1, bytes: 1, what: 'bits, per kind' },
  offload: { offset: 2, bytes: 10, what: 'virtio_net_hdr of the payload: unfinished checksums, segment size' },
  tunnel: { offset: 12, bytes: 4, what: 'up or down tunnel id' },
  length: { offset: 16, bytes: 4, what: 'bytes of payload, without the padding' },
  reserved: { offset: 20, bytes: 4, what: 'sent 0, ignored' },
  stamp: { offset: 24, bytes: 8, what: 'receive time in ns, sequence number, or cumulative bytes' },
} as const satisfies Record<string, Field>;

const KIND = FRAME_FIELDS.kind.offset;
const FLAGS = FRAME_FIELDS.flags.offset;
const TUNNEL = FRAME_FIELDS.tunnel.offset;
const LENGTH = FRAME_FIELDS.length.offset;
const RESERVED = FRAME_FIELDS.reserved.offset;
const STAMP_LOW = FRAME_FIELDS.stamp.offset;
const STAMP_HIGH = FRAME_FIELDS.stamp.offset + 4;

/** Bytes of the header; the payload follows it. */
export const FRAME_HEADER_BYTES = 32;
/** Where the virtio_net_hdr stands in the header, and how long it is. */
export const OFFLOAD_OFFSET = FRAME_FIELDS.offload.offset;
export const OFFLOAD_BYTES = FRAME_FIELDS.offload.bytes;

export const KIND_DATA = 1;
export const KIND_CREDIT = 2;
export const KIND_CONFIRM = 3;
export const KIND_CLOSE = 4;

/** Data, up: the frame left the interface (scopes out and both). */
export const DATA_OUTGOING = 1;
/** Confirm: the frame with exactly this sequence number was not put on the interface; the payload is the errno, u32. */
export const CONFIRM_ERROR = 1;
const ERRNO_BYTES = 4;

const TWO_32 = 2 ** 32;
/** High half of the first number that a double may not hold exactly. */
const UNSAFE_HIGH = 2 ** 21;
const NS_PER_SECOND = 1_000_000_000;

/** Bytes that a frame takes in a message: header, payload and padding. */
export function frameBytes(payloadLength: number): number {
  return (FRAME_HEADER_BYTES + payloadLength + 7) & ~7;
}

// Byte by byte: measured 2 to 10 times as fast as Buffer's own methods, which check their arguments at every call.

function put32(buf: Buffer, at: number, value: number): void {
  buf[at] = value;
  buf[at + 1] = value >>> 8;
  buf[at + 2] = value >>> 16;
  buf[at + 3] = value >>> 24;
}

function get32(buf: Buffer, at: number): number {
  const low = (buf[at] ?? 0) | ((buf[at + 1] ?? 0) << 8) | ((buf[at + 2] ?? 0) << 16);
  return (low | ((buf[at + 3] ?? 0) << 24)) >>> 0;
}

// --- encode ---

/**
 * The header of a received frame on its way up. The payload, at `off + FRAME_HEADER_BYTES`, and the ten bytes at
 * `off + OFFLOAD_OFFSET` are the caller's, before or after this call (a receive call puts them there): neither is touched.
 *
 * @param length bytes of payload
 * @param seconds, nanoseconds receive time since the epoch
 * @returns the offset of the next frame
 */
export function putDataUp(
  buf: Buffer,
  off: number,
  flags: number,
  tunnel: number,
  length: number,
  seconds: number,
  nanoseconds: number,
): number {
  putTime(buf, off, seconds, nanoseconds);
  return putHeader(buf, off, KIND_DATA, flags, tunnel, length);
}

/** The header of a frame on its way down; payload and offload bytes are the caller's, as with `putDataUp`. */
export function putDataDown(
  buf: Buffer,
  off: number,
  flags: number,
  tunnel: number,
  length: number,
  sequence: number,
): number {
  putCounter(buf, off, sequence);
  return putHeader(buf, off, KIND_DATA, flags, tunnel, length);
}

/** `granted`: all the bytes of payload that the forwarder may ever have sent on this up tunnel. */
export function putCredit(buf: Buffer, off: number, tunnel: number, granted: number): number {
  putNoOffload(buf, off);
  putCounter(buf, off, granted);
  return putHeader(buf, off, KIND_CREDIT, 0, tunnel, 0);
}

/** Every frame of this down tunnel up to `sequence` was dealt with. */
export function putConfirm(buf: Buffer, off: number, tunnel: number, sequence: number): number {
  putNoOffload(buf, off);
  putCounter(buf, off, sequence);
  return putHeader(buf, off, KIND_CONFIRM, 0, tunnel, 0);
}

/** As `putConfirm`, and the frame with exactly this number could not be put on the interface. @param errno positive */
export function putConfirmError(buf: Buffer, off: number, tunnel: number, sequence: number, errno: number): number {
  putNoOffload(buf, off);
  putCounter(buf, off, sequence);
  const next = putHeader(buf, off, KIND_CONFIRM, CONFIRM_ERROR, tunnel, ERRNO_BYTES);
  put32(buf, off + FRAME_HEADER_BYTES, errno);
  return next;
}

/** The down tunnel ends after the frame `sequence`, which is the last one sent (0: none was). */
export function putClose(buf: Buffer, off: number, tunnel: number, sequence: number): number {
  putNoOffload(buf, off);
  putCounter(buf, off, sequence);
  return putHeader(buf, off, KIND_CLOSE, 0, tunnel, 0);
}

/** An all-zero virtio_net_hdr: the payload is one finished wire frame. */
export function putNoOffload(buf: Buffer, off: number): void {
  buf[off + OFFLOAD_OFFSET] = 0;
  buf[off + OFFLOAD_OFFSET + 1] = 0;
  put32(buf, off + OFFLOAD_OFFSET + 2, 0);
  put32(buf, off + OFFLOAD_OFFSET + 6, 0);
}

function putHeader(buf: Buffer, off: number, kind: number, flags: number, tunnel: number, length: number): number {
  buf[off + KIND] = kind;
  buf[off + FLAGS] = flags;
  put32(buf, off + TUNNEL, tunnel);
  put32(buf, off + LENGTH, length);
  put32(buf, off + RESERVED, 0);
  const next = off + frameBytes(length);
  // Stores beyond the end of a Buffer are ignored without a word.
  if (next > buf.length) throw new RangeError(`a frame of ${length} bytes does not fit at ${off} of ${buf.length}`);
  for (let at = off + FRAME_HEADER_BYTES + length; at < next; at += 1) buf[at] = 0;
  return next;
}

/**
 * Writes a receive time. Exact for every u64: seconds times 10^9 is split at 2^16, so that each product stays below 2^53.
 *
 * @param seconds since the epoch, up to 18_446_744_073 @param nanoseconds below 10^9
 */
export function putTime(buf: Buffer, off: number, seconds: number, nanoseconds: number): void {
  const above = Math.floor(seconds / 0x10000);
  const high = above * NS_PER_SECOND;
  const highTop = Math.floor(high / 0x10000);
  const low = (high - highTop * 0x10000) * 0x10000 + (seconds - above * 0x10000) * NS_PER_SECOND + nanoseconds;
  const carry = Math.floor(low / TWO_32);
  put32(buf, off + STAMP_LOW, low - carry * TWO_32);
  put32(buf, off + STAMP_HIGH, highTop + carry);
}

/** Writes a sequence number or a sum of bytes. @param value a whole number below 2^53 */
export function putCounter(buf: Buffer, off: number, value: number): void {
  const high = Math.floor(value / TWO_32);
  put32(buf, off + STAMP_LOW, value - high * TWO_32);
  put32(buf, off + STAMP_HIGH, high);
}

// --- decode ---

/**
 * The walk: the offset of the frame after the one at `offset`, or -1 if that one is malformed: cut off by `end`, of an
 * unknown kind, longer than MAX_FRAME_BYTES, an error confirmation without its errno, or a counter of 2^53 and more.
 *
 * `for (let off = 0; off < end; off = nextFrame(message, off, end))` after a message was found well-formed.
 */
export function nextFrame(buf: Buffer, offset: number, end: number): number {
  if (offset + FRAME_HEADER_BYTES > end) return -1;
  const kind = buf[offset + KIND] ?? 0;
  if (kind < KIND_DATA || kind > KIND_CLOSE) return -1;
  const length = get32(buf, offset + LENGTH);
  if (length > MAX_FRAME_BYTES) return -1;
  const next = offset + frameBytes(length);
  if (next > end) return -1;
  if (kind !== KIND_DATA) {
    if (get32(buf, offset + STAMP_HIGH) >= UNSAFE_HIGH) return -1;
    if (kind === KIND_CONFIRM && ((buf[offset + FLAGS] ?? 0) & CONFIRM_ERROR) !== 0 && length < ERRNO_BYTES) return -1;
  }
  return next;
}

export function getKind(buf: Buffer, off: number): number {
  return buf[off + KIND] ?? 0;
}

export function getFlags(buf: Buffer, off: number): number {
  return buf[off + FLAGS] ?? 0;
}

export function getTunnel(buf: Buffer, off: number): number {
  return get32(buf, off + TUNNEL);
}

/** Bytes of payload; it starts at `off + FRAME_HEADER_BYTES`. */
export function getLength(buf: Buffer, off: number): number {
  return get32(buf, off + LENGTH);
}

/**
 * The sequence number or the sum of bytes. Of a data frame sent by a broken peer it may be 2^53 or more, then rounded;
 * the walk refuses that for the other kinds.
 */
export function getCounter(buf: Buffer, off: number): number {
  return get32(buf, off + STAMP_HIGH) * TWO_32 + get32(buf, off + STAMP_LOW);
}

// Receive times are divided digit by digit, base 2^16: each dividend stays below 2^46, so quotients round correctly.

/** Whole seconds of a receive time. */
export function getSeconds(buf: Buffer, off: number): number {
  const high = get32(buf, off + STAMP_HIGH);
  const low = get32(buf, off + STAMP_LOW);
  const top = Math.floor(high / NS_PER_SECOND);
  const upper = (high - top * NS_PER_SECOND) * 0x10000 + (low >>> 16);
  const middle = Math.floor(upper / NS_PER_SECOND);
  const lower = (upper - middle * NS_PER_SECOND) * 0x10000 + (low & 0xffff);
  return top * TWO_32 + middle * 0x10000 + Math.floor(lower / NS_PER_SECOND);
}

/** What a receive time has beyond its whole seconds, below 10^9. */
export function getNanoseconds(buf: Buffer, off: number): number {
  const high = get32(buf, off + STAMP_HIGH);
  const low = get32(buf, off + STAMP_LOW);
  const upper = (high % NS_PER_SECOND) * 0x10000 + (low >>> 16);
  const lower = (upper - Math.floor(upper / NS_PER_SECOND) * NS_PER_SECOND) * 0x10000 + (low & 0xffff);
  return lower - Math.floor(lower / NS_PER_SECOND) * NS_PER_SECOND;
}

/** The positive errno of a confirm frame with CONFIRM_ERROR. */
export function getErrno(buf: Buffer, off: number): number {
  return get32(buf, off + FRAME_HEADER_BYTES);
}

// --- print ---

const KIND_NAMES = ['kind 0', 'data', 'credit', 'confirm', 'close'] as const;

/** One line for a trace. @param direction tells what the stamp of a data frame is */
export function printFrame(buf: Buffer, off: number, direction: 'up' | 'down'): string {
  const kind = getKind(buf, off);
  const flags = getFlags(buf, off);
  const head = `${direction} ${KIND_NAMES[kind] ?? `kind ${kind}`} tunnel=${getTunnel(buf, off)}`;
  if (kind === KIND_CREDIT) return `${head} granted=${getCounter(buf, off)}`;
  if (kind === KIND_CONFIRM && (flags & CONFIRM_ERROR) !== 0) {
    return `${head} sequence=${getCounter(buf, off)} errno=${getErrno(buf, off)}`;
  }
  if (kind !== KIND_DATA) return `${head} sequence=${getCounter(buf, off)}`;
  const offload = buf.toString('hex', off + OFFLOAD_OFFSET, off + OFFLOAD_OFFSET + OFFLOAD_BYTES);
  const stamp =
    direction === 'up'
      ? `time=${getSeconds(buf, off)}.${String(getNanoseconds(buf, off)).padStart(9, '0')}`
      : `sequence=${getCounter(buf, off)}`;
  return `${head} flags=${flags} offload=${offload} length=${getLength(buf, off)} ${stamp}`;
}
