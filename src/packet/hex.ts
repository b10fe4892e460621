/**
 * Frames as lines of hex digits, for shells:
 *
 *     echo 02:00:00:00:00:02 02:00:00:00:00:01 88cc 0200 > /fwd/fwd1/eth0:hex
 *
 * One frame a line. Spaces, tabs and colons may stand between bytes, a CR before the LF; lines without digits mean nothing.
 * HexReader owns the bytes of the line at hand; what a push added to it is forgotten when the sink refuses the line.
 */
import { FwdfsError } from '../base/errors.js';
import type { ErrorCode } from '../base/errors.js';
import { MAX_HEX_LINE_BYTES } from '../base/limits.js';
import type { FrameSink } from './capture-reader.js';

const LF = 10;
const OTHER = -1;
const SEPARATOR = -2;
const END_OF_LINE = -3;
const RETURN = -4;

/** What each character is: a digit's value, or one of the above. */
const MEANING = new Int8Array(256).fill(OTHER);
for (const [index, digit] of '0123456789abcdef'.split('').entries()) {
  MEANING[digit.charCodeAt(0)] = index;
  MEANING[digit.toUpperCase().charCodeAt(0)] = index;
}
for (const separator of ' \t:') MEANING[separator.charCodeAt(0)] = SEPARATOR;
MEANING[LF] = END_OF_LINE;
MEANING[13] = RETURN;

const DIGITS = Buffer.from('0123456789abcdef');

/** No first digit of a byte is waiting for its second. */
const NO_DIGIT = -1;

export class HexReader {
  /** Why the reader stopped for good; every later push accepts 0 bytes. */
  error: FwdfsError | null = null;

  /** Bytes of the line at hand. */
  private readonly frame: Buffer;
  private frameBytes = 0;
  private digit = NO_DIGIT;
  /** Characters of the line at hand. */
  private column = 0;
  private afterReturn = false;

  /** @param maxFrameBytes longer frames are an error */
  constructor(maxFrameBytes: number) {
    this.frame = Buffer.allocUnsafe(maxFrameBytes);
  }

  /** Whether the stream could end here without `finish` having something to give. */
  get atBoundary(): boolean {
    return this.column === 0;
  }

  /**
   * Reads on from `offset` to `end`.
   *
   * @returns bytes accepted. Fewer than given: the sink refused (push the rest again), or `error` is set: report it now if
   *   this is 0, at the next call otherwise.
   */
  push(data: Buffer, offset: number, end: number, sink: FrameSink): number {
    if (this.error !== null) return 0;
    const { frame } = this;
    let { frameBytes, digit, column, afterReturn } = this;
    let line = offset;
    for (let at = offset; at < end; at += 1) {
      const meaning = MEANING[data[at]!]!;
      column += 1;
      if (meaning === END_OF_LINE) {
        if (digit !== NO_DIGIT) return this.fail('bad-hex', `column ${column}: half a byte`, line - offset);
        if (frameBytes > 0 && !sink.frame(frame, 0, frameBytes, 0, 0)) return line - offset;
        this.clearLine();
        frameBytes = 0;
        column = 0;
        afterReturn = false;
        line = at + 1;
        continue;
      }
      if (column > MAX_HEX_LINE_BYTES) {
        return this.fail('bad-hex', `a line of more than ${MAX_HEX_LINE_BYTES} characters`, line - offset);
      }
      if (meaning === OTHER || afterReturn || (meaning < 0 && digit !== NO_DIGIT && meaning !== RETURN)) {
        const what = meaning === OTHER || afterReturn ? 'no hex digit' : 'half a byte';
        return this.fail('bad-hex', `column ${column}: ${what}`, line - offset);
      }
      if (meaning === RETURN) {
        afterReturn = true;
      } else if (meaning >= 0) {
        if (digit === NO_DIGIT) {
          digit = meaning;
        } else {
          if (frameBytes === frame.length) {
            return this.fail('frame-too-long', `a line of more than ${frame.length} bytes`, line - offset);
          }
          frame[frameBytes] = (digit << 4) | meaning;
          frameBytes += 1;
          digit = NO_DIGIT;
        }
      }
    }
    this.frameBytes = frameBytes;
    this.digit = digit;
    this.column = column;
    this.afterReturn = afterReturn;
    return end - offset;
  }

  /**
   * Gives the last line if it has no LF.
   *
   * @returns false: the sink refused (call again), or `error` is set
   */
  finish(sink: FrameSink): boolean {
    if (this.error !== null) return false;
    if (this.digit !== NO_DIGIT) {
      this.fail('bad-hex', `column ${this.column + 1}: half a byte`, 0);
      return false;
    }
    if (this.frameBytes > 0 && !sink.frame(this.frame, 0, this.frameBytes, 0, 0)) return false;
    this.clearLine();
    return true;
  }

  private clearLine(): void {
    this.frameBytes = 0;
    this.digit = NO_DIGIT;
    this.column = 0;
    this.afterReturn = false;
  }

  /** @returns `accepted`, for `push` */
  private fail(code: ErrorCode, what: string, accepted: number): number {
    this.error = new FwdfsError(code, what);
    return accepted;
  }
}

/** Bytes of the line that `writeHexLine` writes. */
export function hexLineBytes(length: number): number {
  return 2 * length + 1;
}

/**
 * Writes the frame as lower-case digits and a LF.
 *
 * @returns bytes written, `hexLineBytes(length)`; `out` must have room for them
 */
export function writeHexLine(out: Buffer, outOffset: number, buf: Buffer, offset: number, length: number): number {
  let place = outOffset;
  for (let at = offset; at < offset + length; at += 1) {
    const byte = buf[at]!;
    out[place] = DIGITS[byte >> 4]!;
    out[place + 1] = DIGITS[byte & 15]!;
    place += 2;
  }
  out[place] = LF;
  return hexLineBytes(length);
}
