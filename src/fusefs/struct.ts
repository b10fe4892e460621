/**
 * C structures laid out from their field lists, as <linux/fuse.h> writes them: a list names the fields in order, and the
 * offsets, the length, the codec and the print function come from it. All numbers are little-endian.
 */

const WIDTHS = { u16: 2, u32: 4, i32: 4, u64: 8 } as const;

export type Width = keyof typeof WIDTHS;

export interface Struct<Name extends string = string> {
  /** Offset of the structure in its message. */
  readonly start: number;
  /** Length of the structure. */
  readonly bytes: number;
  /** Offset of each field from the start of the message. */
  readonly at: Readonly<Record<Name, number>>;
  readonly fields: ReadonlyArray<readonly [name: Name, width: Width]>;
}

/**
 * Lays out fields one after another from `start`. Padding is written out as a field, so a field that would not be aligned
 * to its width is a mistake in the list and throws.
 */
export function struct<const T extends Readonly<Record<string, Width>>>(
  start: number,
  widths: T,
): Struct<Extract<keyof T, string>> {
  type Name = Extract<keyof T, string>;
  const fields = Object.entries(widths) as [Name, Width][];
  const at = {} as Record<Name, number>;
  let end = start;
  for (const [name, width] of fields) {
    if (end % WIDTHS[width] !== 0) throw new Error(`${name} at ${end} is not aligned`);
    at[name] = end;
    end += WIDTHS[width];
  }
  return { start, bytes: end - start, at, fields };
}

/**
 * A u64 of which at most 53 bits are looked at: nodeids, handles and uniques are counters that start near 0, and a number
 * that a hostile or broken peer made up must not turn into one that can't be written back.
 */
export function getU64(buffer: Buffer, at: number): number {
  return (buffer.readUInt32LE(at + 4) & 0x1f_ffff) * 0x1_0000_0000 + buffer.readUInt32LE(at);
}

/** Writes a number from 0 to 2^53 - 1. */
export function putU64(buffer: Buffer, at: number, value: number): void {
  const high = Math.floor(value / 0x1_0000_0000);
  buffer.writeUInt32LE(value - high * 0x1_0000_0000, at);
  buffer.writeUInt32LE(high, at + 4);
}

function getField(buffer: Buffer, at: number, width: Width): number {
  switch (width) {
    case 'u16':
      return buffer.readUInt16LE(at);
    case 'u32':
      return buffer.readUInt32LE(at);
    case 'i32':
      return buffer.readInt32LE(at);
    case 'u64':
      return getU64(buffer, at);
  }
}

function putField(buffer: Buffer, at: number, width: Width, value: number): void {
  switch (width) {
    case 'u16':
      buffer.writeUInt16LE(value, at);
      break;
    case 'u32':
      buffer.writeUInt32LE(value, at);
      break;
    case 'i32':
      buffer.writeInt32LE(value, at);
      break;
    case 'u64':
      putU64(buffer, at, value);
      break;
  }
}

/** Every field of a structure that lies within `buffer`. Not for the packet path: it makes an object. */
export function decode<Name extends string>(layout: Struct<Name>, buffer: Buffer): Record<Name, number> {
  const values = {} as Record<Name, number>;
  for (const [name, width] of layout.fields) values[name] = getField(buffer, layout.at[name], width);
  return values;
}

/** Writes a whole structure; fields that are not given become 0. Returns the offset behind it. */
export function encode<Name extends string>(
  layout: Struct<Name>,
  buffer: Buffer,
  values: { readonly [field in Name]?: number },
): number {
  for (const [name, width] of layout.fields) putField(buffer, layout.at[name], width, values[name] ?? 0);
  return layout.start + layout.bytes;
}

/**
 * ` name=value` for each field that is not 0 and no padding, as far as the message of `length` bytes reaches. Modes are
 * octal, flags and masks hexadecimal.
 */
export function print(layout: Struct, buffer: Buffer, length: number): string {
  let text = '';
  for (const [name, width] of layout.fields) {
    const at = layout.at[name];
    if (at === undefined || at + WIDTHS[width] > length || name.startsWith('pad')) continue;
    const value = getField(buffer, at, width);
    if (value === 0) continue;
    const shown = /mode$|umask/.test(name)
      ? `0${value.toString(8)}`
      : /flags|valid$|events|mask|owner|cmd/.test(name)
        ? `0x${value.toString(16)}`
        : String(value);
    text += ` ${name}=${shown}`;
  }
  return text;
}
