/** src/packet/hex.ts: lines both ways, cut anywhere, refused anywhere, spoilt. */
import fc from 'fast-check';
import t from 'tap';
import { MAX_HEX_LINE_BYTES } from '../../src/base/limits.js';
import type { FrameSink } from '../../src/packet/capture-reader.js';
import { hexLineBytes, HexReader, writeHexLine } from '../../src/packet/hex.js';

const MAX = 100;

class Keeper implements FrameSink {
  lines: string[] = [];
  admit = Infinity;
  frame(buf: Buffer, offset: number, length: number, seconds: number, nanoseconds: number): boolean {
    if (seconds !== 0 || nanoseconds !== 0) throw new Error('a time from nowhere');
    if (this.admit === 0) return false;
    this.admit -= 1;
    this.lines.push(buf.toString('hex', offset, offset + length));
    return true;
  }
}

const TEXT = '0102aBcD\n\n  \t\n02:00:00 00\tff\r\n\r\n7f\n : 11 22 : \n';
const LINES = ['0102abcd', '02000000ff', '7f', '1122'];

t.test('a line goes into a buffer of junk at its place, and only there', async (t) => {
  const out = Buffer.alloc(12, 0x2a);
  const frame = Buffer.from([9, 0x00, 0x1f, 0xa0, 9]);
  t.equal(writeHexLine(out, 2, frame, 1, 3), 7);
  t.equal(out.toString(), '**001fa0\n***');
  t.equal(hexLineBytes(3), 7);
  t.equal(writeHexLine(out, 0, frame, 0, 0), 1);
  t.equal(out.toString(), '\n*001fa0\n***');
});

t.test('every byte is written as its two digits and read back', async (t) => {
  const all = Buffer.from(Array.from({ length: 256 }, (_, index) => index));
  const out = Buffer.alloc(513);
  t.equal(writeHexLine(out, 0, all, 0, 256), 513);
  t.equal(out.toString(), `${all.toString('hex')}\n`);
  for (const text of [out, Buffer.from(out.toString().toUpperCase())]) {
    const keeper = new Keeper();
    t.equal(new HexReader(256).push(text, 0, 513, keeper), 513);
    t.same(keeper.lines, [all.toString('hex')]);
  }
});

t.test('lines with separators, CR and nothing in them come whole, byte by byte and cut at any place', async (t) => {
  const text = Buffer.from(`xx${TEXT}xx`);
  for (let cut = 2; cut <= text.length - 2; cut += 1) {
    const reader = new HexReader(MAX);
    const keeper = new Keeper();
    t.equal(reader.push(text, 2, cut, keeper), cut - 2);
    t.equal(reader.push(text, cut, text.length - 2, keeper), text.length - 2 - cut);
    t.same(keeper.lines, LINES, `cut at ${cut}`);
    t.equal(reader.atBoundary, true);
  }
  const reader = new HexReader(MAX);
  const keeper = new Keeper();
  for (let at = 2; at < text.length - 2; at += 1) reader.push(text, at, at + 1, keeper);
  t.same(keeper.lines, LINES);
});

t.test('a refused line is given again, wherever the text was cut', async (t) => {
  const text = Buffer.from(TEXT);
  for (let cut = 0; cut <= text.length; cut += 1) {
    const reader = new HexReader(MAX);
    const keeper = new Keeper();
    let from = 0;
    let to = cut;
    for (let round = 0; round < 30 && from < text.length; round += 1) {
      keeper.admit = round % 2;
      from += reader.push(text, from, to, keeper);
      if (from >= cut) to = text.length;
    }
    t.same(keeper.lines, LINES, `cut at ${cut}`);
  }
});

t.test('the last line without LF is given by finish, which can be refused too', async (t) => {
  const reader = new HexReader(MAX);
  const keeper = new Keeper();
  const text = Buffer.from('01\n02 03\r');
  t.equal(reader.push(text, 0, text.length, keeper), text.length);
  t.equal(reader.atBoundary, false);
  keeper.admit = 0;
  t.equal(reader.finish(keeper), false);
  t.equal(reader.error, null);
  keeper.admit = 1;
  t.equal(reader.finish(keeper), true);
  t.same(keeper.lines, ['01', '0203']);
  t.equal(reader.atBoundary, true);
  t.equal(reader.finish(keeper), true, 'once');
  t.equal(keeper.lines.length, 2);
});

t.test('a last line of separators is nothing, one of half a byte is an error', async (t) => {
  const blank = new HexReader(MAX);
  const keeper = new Keeper();
  blank.push(Buffer.from('  '), 0, 2, keeper);
  t.equal(blank.finish(keeper), true);
  t.equal(blank.atBoundary, true);
  const half = new HexReader(MAX);
  half.push(Buffer.from('abc'), 0, 3, keeper);
  t.equal(half.finish(keeper), false);
  t.match(half.error, { code: 'bad-hex', message: /column 4: half a byte/ });
  t.equal(half.finish(keeper), false);
  t.same(keeper.lines, []);
});

t.test('a bad line after good ones gives a short count and its column, and the error stays', async (t) => {
  const spoilt: [string, RegExp][] = [
    ['0g', /column 2: no hex digit/],
    ['0x01', /column 2: no hex digit/],
    ['01-02', /column 3: no hex digit/],
    ['01 2', /column 5: half a byte/],
    ['1 2', /column 2: half a byte/],
    ['1:02', /column 2: half a byte/],
    ['012\r', /column 5: half a byte/],
    ['01\r02', /column 4: no hex digit/],
    ['\r\r', /column 2: no hex digit/],
    ['\0', /column 1: no hex digit/],
    ['é', /column 1: no hex digit/],
  ];
  for (const [line, message] of spoilt) {
    const text = Buffer.from(`01\n02\n${line}\n03\n`);
    for (const size of [1, text.length]) {
      const reader = new HexReader(MAX);
      const keeper = new Keeper();
      let accepted = 0;
      while (reader.error === null && accepted < text.length) {
        accepted += reader.push(text, accepted, Math.min(text.length, accepted + size), keeper);
      }
      t.match(reader.error, { code: 'bad-hex', message }, JSON.stringify(line));
      t.same(keeper.lines, ['01', '02']);
      if (size > 1) t.equal(accepted, 6);
      t.equal(reader.push(text, 0, 3, keeper), 0);
      t.equal(reader.finish(keeper), false);
    }
  }
});

t.test('a frame may have the most bytes and not one more', async (t) => {
  const keeper = new Keeper();
  const fits = Buffer.from(`${'ab '.repeat(MAX)}\n`);
  t.equal(new HexReader(MAX).push(fits, 0, fits.length, keeper), fits.length);
  t.equal(keeper.lines[0]?.length, 2 * MAX);
  const reader = new HexReader(MAX);
  const longer = Buffer.from(`01\n${'ab'.repeat(MAX + 1)}\n`);
  t.equal(reader.push(longer, 0, longer.length, keeper), 3);
  t.match(reader.error, { code: 'frame-too-long', message: /100 bytes/ });
});

t.test('a line of separators without end is an error at the limit', async (t) => {
  const reader = new HexReader(MAX);
  const keeper = new Keeper();
  const spaces = Buffer.alloc(MAX_HEX_LINE_BYTES, 0x20);
  t.equal(reader.push(spaces, 0, spaces.length, keeper), spaces.length);
  t.equal(reader.push(spaces, 0, 1, keeper), 0);
  t.match(reader.error, { code: 'bad-hex', message: /more than 196992 characters/ });
});

t.test('any lines in any pieces with any refusals give their frames once, in order', async () => {
  const separator = fc.constantFrom('', '', ' ', ':', '\t', ' : ');
  const byte = fc.tuple(fc.nat(255), fc.boolean(), separator).map(([value, upper, gap]) => {
    const digits = value.toString(16).padStart(2, '0');
    return { digits, text: (upper ? digits.toUpperCase() : digits) + gap };
  });
  const line = fc.tuple(fc.array(byte, { maxLength: 12 }), fc.constantFrom('\n', '\r\n'));
  const sizes = fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 9 });
  fc.assert(
    fc.property(
      fc.array(line, { maxLength: 6 }),
      sizes,
      fc.array(fc.nat(2), { maxLength: 7 }),
      (lines, pieces, admits) => {
        const text = Buffer.from(lines.map(([bytes, end]) => bytes.map((one) => one.text).join('') + end).join(''));
        const expected = lines
          .map(([bytes]) => bytes.map((one) => one.digits).join(''))
          .filter((digits) => digits !== '');
        const reader = new HexReader(MAX);
        const keeper = new Keeper();
        let from = 0;
        for (let round = 0; from < text.length; round += 1) {
          if (round > 2000) return false;
          keeper.admit = admits[round % (admits.length + 1)] ?? 1;
          from += reader.push(text, from, Math.min(text.length, from + pieces[round % pieces.length]!), keeper);
        }
        return reader.atBoundary && JSON.stringify(keeper.lines) === JSON.stringify(expected);
      },
    ),
    { numRuns: 1000 },
  );
});
