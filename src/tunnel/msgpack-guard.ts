/**
 * A look at msgpack bytes before the decoder sees them. A peer that is not yet known may send anything: what passes here
 * holds one value of nil, booleans, numbers, texts, lists and maps with text keys, of bounded depth, whose every length
 * fits in the bytes that are there. So the decoder never allocates for a length that is a lie, never runs out of stack,
 * and never meets an extension type.
 */

/** Levels of lists and maps inside each other; the messages need 4. */
const MAX_DEPTH = 16;

/** Bytes that follow the first byte of a value of fixed size. */
const FIXED = new Map<number, number>([
  [0xc0, 0], // nil
  [0xc2, 0], // false
  [0xc3, 0], // true
  [0xca, 4], // float32
  [0xcb, 8], // float64
  [0xcc, 1], // u8 …
  [0xcd, 2],
  [0xce, 4],
  [0xcf, 8],
  [0xd0, 1], // i8 …
  [0xd1, 2],
  [0xd2, 4],
  [0xd3, 8],
]);

/** Whether the bytes are one plain value and nothing else. */
export function isPlainMsgpack(bytes: Buffer): boolean {
  return skip(bytes, 0, 0) === bytes.length;
}

/** The offset behind the value at `at`, -1 if it is none of the admitted. */
function skip(bytes: Buffer, at: number, depth: number): number {
  if (depth > MAX_DEPTH) return -1;
  const first = bytes[at];
  if (first === undefined) return -1;
  const next = at + 1;
  if (first < 0x80 || first >= 0xe0) return next;
  if (first < 0x90) return skipMany(bytes, next, first & 0x0f, depth, true);
  if (first < 0xa0) return skipMany(bytes, next, first & 0x0f, depth, false);
  const fixed = first < 0xc0 ? first & 0x1f : FIXED.get(first);
  if (fixed !== undefined) return within(bytes, next + fixed);
  const width = first === 0xd9 ? 1 : first === 0xda || first === 0xdc || first === 0xde ? 2 : 4;
  if (first < 0xd9 || next + width > bytes.length) return -1;
  const count = bytes.readUIntBE(next, width);
  if (first <= 0xdb) return within(bytes, next + width + count);
  return skipMany(bytes, next + width, count, depth, first >= 0xde);
}

function skipMany(bytes: Buffer, from: number, count: number, depth: number, map: boolean): number {
  if (count > bytes.length - from) return -1;
  let at = from;
  for (let i = 0; i < count && at !== -1; i += 1) {
    if (map) {
      if (!isText(bytes[at])) return -1;
      at = skip(bytes, at, depth + 1);
      if (at === -1) return -1;
    }
    at = skip(bytes, at, depth + 1);
  }
  return at;
}

function isText(first: number | undefined): boolean {
  if (first === undefined) return false;
  return (first >= 0xa0 && first < 0xc0) || (first >= 0xd9 && first <= 0xdb);
}

function within(bytes: Buffer, end: number): number {
  return end <= bytes.length ? end : -1;
}
