/**
 * The internet checksum (RFC 1071) and what a device does to a frame with an unfinished one.
 *
 * A sum is carried along as a plain number and folded once at the end, so several ranges can be added: all but the last must
 * have even lengths. Summing reads four bytes at a time through a view that is made once per ArrayBuffer; which end of a
 * word comes first does not matter to a one's complement sum until it is swapped at the end (RFC 1071, 2 (B)).
 */
import { endianness } from 'node:os';

const LITTLE_ENDIAN = endianness() === 'LE';
/** Below this many bytes finding the view costs more than it saves. */
const MIN_VIEW_BYTES = 32;

const VIEWS = new WeakMap<ArrayBufferLike, Int32Array>();
let lastBuffer: ArrayBufferLike = new ArrayBuffer(0);
let lastView: Int32Array = new Int32Array(lastBuffer);

/** The whole words of an ArrayBuffer. Packet buffers are few and live long, so this is mostly the first comparison. */
function viewOf(buffer: ArrayBufferLike): Int32Array {
  if (buffer === lastBuffer) return lastView;
  let view = VIEWS.get(buffer);
  if (view === undefined) {
    view = new Int32Array(buffer, 0, buffer.byteLength >> 2);
    VIEWS.set(buffer, view);
  }
  lastBuffer = buffer;
  lastView = view;
  return view;
}

/**
 * Adds `length` bytes, as 16-bit words in network order (an odd last byte is followed by zero), to `initial`.
 *
 * @returns a sum for `fold`; exact for packets, whatever their alignment
 */
export function sum(buf: Buffer, offset: number, length: number, initial: number): number {
  if (length < MIN_VIEW_BYTES || !LITTLE_ENDIAN) return sumBytes(buf, offset, length, initial);
  const view = viewOf(buf.buffer);
  const start = buf.byteOffset;
  const end = offset + length;
  let at = offset;
  let low = 0;
  let high = 0;
  // Up to the next word of the view, in its order: a byte at an odd address is a high one.
  const odd = (start + at) & 1;
  if (odd === 1) {
    high += buf[at]!;
    at += 1;
  }
  let carry = high << 8;
  high = 0;
  if (((start + at) & 2) !== 0) {
    carry += buf[at]! | (buf[at + 1]! << 8);
    at += 2;
  }
  const count = (end - at) >> 2;
  let word = (start + at) >> 2;
  const endOfFours = word + (count & ~3);
  const endOfWords = word + count;
  for (; word < endOfFours; word += 4) {
    const a = view[word]!;
    const b = view[word + 1]!;
    const c = view[word + 2]!;
    const d = view[word + 3]!;
    low += (a & 0xffff) + (b & 0xffff) + (c & 0xffff) + (d & 0xffff);
    high += (a >>> 16) + (b >>> 16) + (c >>> 16) + (d >>> 16);
  }
  for (; word < endOfWords; word += 1) {
    const a = view[word]!;
    low += a & 0xffff;
    high += a >>> 16;
  }
  at += count << 2;
  if (at + 2 <= end) {
    carry += buf[at]! | (buf[at + 1]! << 8);
    at += 2;
  }
  if (at < end) carry += buf[at]!;
  const native = fold(low + high + carry);
  // From an odd address the view's order is network order.
  return initial + (odd === 1 ? native : ((native & 0xff) << 8) | (native >> 8));
}

function sumBytes(buf: Buffer, offset: number, length: number, initial: number): number {
  let result = initial;
  const end = offset + (length & ~1);
  for (let at = offset; at < end; at += 2) result += (buf[at]! << 8) | buf[at + 1]!;
  if ((length & 1) === 1) result += buf[end]! << 8;
  return result;
}

/** The 16-bit one's complement of a sum, not yet inverted. Sums below 2^48. */
export function fold(value: number): number {
  let result = value;
  while (result > 0xffff) result = (result & 0xffff) + Math.floor(result / 0x10000);
  return result;
}

/** The checksum to store after `sum`: folded and inverted. */
export function invert(value: number): number {
  return ~fold(value) & 0xffff;
}

/**
 * The sum of the pseudo header (RFC 9293, 3.1; RFC 8200, 8.1): source and destination stand side by side in both versions.
 *
 * @param addressLength 4 or 16 @param length of the transport header and its payload
 */
export function pseudoHeaderSum(
  buf: Buffer,
  sourceOffset: number,
  addressLength: number,
  protocol: number,
  length: number,
): number {
  return sum(buf, sourceOffset, 2 * addressLength, protocol + length);
}

/** Where the checksum stands in its header: these tell UDP and SCTP from the rest. */
const UDP_CHECKSUM_OFFSET = 6;
const SCTP_CHECKSUM_OFFSET = 8;
const SCTP_CHECKSUM_BYTES = 4;

/**
 * Does to the frame what a device does for VIRTIO_NET_HDR_F_NEEDS_CSUM: sums from `csumStart` to the end, over the partial
 * sum that stands in the field already, and stores the result at `csumStart + csumOffset` (both from the frame's begin).
 * SCTP comes with the same flag and wants a CRC32c (RFC 9260, appendix A).
 *
 * @returns false: the field is outside the frame; nothing was changed
 */
export function finishChecksum(
  buf: Buffer,
  frameOffset: number,
  frameLength: number,
  csumStart: number,
  csumOffset: number,
): boolean {
  if (!checksumFits(frameLength, csumStart, csumOffset)) return false;
  const start = frameOffset + csumStart;
  const length = frameLength - csumStart;
  const field = start + csumOffset;
  if (csumOffset === SCTP_CHECKSUM_OFFSET) {
    buf.writeUInt32LE(0, field);
    buf.writeUInt32LE(crc32c(buf, start, length), field);
    return true;
  }
  const result = invert(sum(buf, start, length, 0));
  // RFC 768: zero would say that there is no checksum.
  storeWord(buf, field, result === 0 && csumOffset === UDP_CHECKSUM_OFFSET ? 0xffff : result);
  return true;
}

/** Whether the field that `finishChecksum` writes is within the frame. */
export function checksumFits(frameLength: number, csumStart: number, csumOffset: number): boolean {
  const fieldBytes = csumOffset === SCTP_CHECKSUM_OFFSET ? SCTP_CHECKSUM_BYTES : 2;
  return csumStart + csumOffset + fieldBytes <= frameLength;
}

/** Stores 16 bits in network order; the packet path's writeUInt16BE. */
export function storeWord(buf: Buffer, offset: number, value: number): void {
  buf[offset] = value >> 8;
  buf[offset + 1] = value;
}

/** The reflected polynomial of CRC32c (RFC 3720, 12.1). */
const CRC32C_POLYNOMIAL = 0x82f63b78;
const CRC32C_TABLE = Int32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) value = (value & 1) === 1 ? (value >>> 1) ^ CRC32C_POLYNOMIAL : value >>> 1;
  return value;
});

/** @returns the CRC32c as an unsigned 32-bit number; SCTP stores it little endian */
export function crc32c(buf: Buffer, offset: number, length: number): number {
  let crc = -1;
  const end = offset + length;
  for (let at = offset; at < end; at += 1) crc = CRC32C_TABLE[(crc ^ buf[at]!) & 0xff]! ^ (crc >>> 8);
  return ~crc >>> 0;
}
