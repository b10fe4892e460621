/** The frame header: golden vectors both ways, every short length, and a slow twin that does use BigInt. */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import t from 'tap';
import { MAX_FRAME_BYTES } from '../../src/base/limits.js';
import * as f from '../../src/tunnel/frames.js';

interface Vector {
  name: string;
  put: 'dataUp' | 'dataDown' | 'credit' | 'confirm' | 'confirmError' | 'close';
  flags?: number;
  offload?: string;
  tunnel: number;
  seconds?: number;
  nanoseconds?: number;
  counter?: number;
  errno?: number;
  payload?: string;
  print: string;
  hex: string;
}

const vectors = JSON.parse(
  readFileSync(new URL('../../../test/vectors/tunnel-frames.json', import.meta.url), 'utf8'),
) as Vector[];

const JUNK = 0xa5;
const MARGIN = 64;

/** Writes the frame of a vector at MARGIN of a buffer full of junk. */
function write(vector: Vector): { buf: Buffer; next: number } {
  const payload = Buffer.from(vector.payload ?? '', 'hex');
  const buf = Buffer.alloc(payload.length + 4 * MARGIN, JUNK);
  const { flags = 0, tunnel, seconds = 0, nanoseconds = 0, counter = 0, errno = 0 } = vector;
  if (vector.put === 'dataUp' || vector.put === 'dataDown') {
    payload.copy(buf, MARGIN + f.FRAME_HEADER_BYTES);
    f.putNoOffload(buf, MARGIN);
    buf.write(vector.offload ?? '', MARGIN + f.OFFLOAD_OFFSET, 'hex');
  }
  const puts = {
    dataUp: () => f.putDataUp(buf, MARGIN, flags, tunnel, payload.length, seconds, nanoseconds),
    dataDown: () => f.putDataDown(buf, MARGIN, flags, tunnel, payload.length, counter),
    credit: () => f.putCredit(buf, MARGIN, tunnel, counter),
    confirm: () => f.putConfirm(buf, MARGIN, tunnel, counter),
    confirmError: () => f.putConfirmError(buf, MARGIN, tunnel, counter, errno),
    close: () => f.putClose(buf, MARGIN, tunnel, counter),
  };
  return { buf, next: puts[vector.put]() };
}

const direction = (vector: Vector): 'up' | 'down' =>
  ['dataUp', 'confirm', 'confirmError'].includes(vector.put) ? 'up' : 'down';

t.test('each golden frame is written as it stands, into a buffer full of junk, and nothing around it', (t) => {
  for (const vector of vectors) {
    const { buf, next } = write(vector);
    t.equal(buf.toString('hex', MARGIN, next), vector.hex, vector.name);
    t.equal(next - MARGIN, vector.hex.length / 2, 'the next offset is behind the padding');
    t.ok(
      buf.subarray(0, MARGIN).every((byte) => byte === JUNK),
      'before',
    );
    t.ok(
      buf.subarray(next).every((byte) => byte === JUNK),
      'behind',
    );
  }
  t.end();
});

t.test('each golden frame is read as it stands', (t) => {
  for (const vector of vectors) {
    const bytes = Buffer.from(vector.hex, 'hex');
    const buf = Buffer.concat([Buffer.alloc(MARGIN, JUNK), bytes, Buffer.alloc(MARGIN, JUNK)]);
    const end = MARGIN + bytes.length;
    t.equal(f.nextFrame(buf, MARGIN, end), end, vector.name);
    t.equal(f.getTunnel(buf, MARGIN), vector.tunnel);
    t.equal(f.getFlags(buf, MARGIN), vector.put === 'confirmError' ? f.CONFIRM_ERROR : (vector.flags ?? 0));
    if (vector.put === 'dataUp') {
      t.equal(f.getSeconds(buf, MARGIN), vector.seconds);
      t.equal(f.getNanoseconds(buf, MARGIN), vector.nanoseconds);
    } else {
      t.equal(f.getCounter(buf, MARGIN), vector.counter);
    }
    if (vector.put === 'confirmError') t.equal(f.getErrno(buf, MARGIN), vector.errno);
    else t.equal(f.getLength(buf, MARGIN), (vector.payload ?? '').length / 2);
    t.equal(f.printFrame(buf, MARGIN, direction(vector)), vector.print);
  }
  t.end();
});

t.test('the field table covers the header without a gap or an overlap', (t) => {
  let at = 0;
  for (const field of Object.values(f.FRAME_FIELDS)) {
    t.equal(field.offset, at);
    at += field.bytes;
  }
  t.equal(at, f.FRAME_HEADER_BYTES);
  t.end();
});

t.test('a data header leaves payload and offload bytes alone', (t) => {
  const buf = Buffer.alloc(128, JUNK);
  f.putDataUp(buf, 0, 0, 1, 30, 1, 2);
  t.ok(buf.subarray(2, 12).every((byte) => byte === JUNK));
  t.ok(buf.subarray(32, 62).every((byte) => byte === JUNK));
  t.same([...buf.subarray(62, 65)], [0, 0, JUNK], 'the padding is zero');
  t.end();
});

t.test('a frame that does not fit its buffer is refused, not cut', (t) => {
  const buf = Buffer.alloc(64);
  t.throws(() => f.putDataUp(buf, 8, 0, 1, 32, 0, 0), RangeError);
  t.throws(() => f.putCredit(buf, 40, 1, 1), RangeError);
  t.equal(f.putDataUp(buf, 0, 0, 1, 32, 0, 0), 64);
  t.end();
});

t.test('every short length of every golden frame is malformed', (t) => {
  for (const vector of vectors) {
    const bytes = Buffer.from(vector.hex, 'hex');
    for (let end = 0; end < bytes.length; end += 1) {
      if (f.nextFrame(bytes, 0, end) !== -1) t.fail(`${vector.name} cut at ${end}`);
      if (f.nextFrame(bytes.subarray(0, end), 0, end) !== -1) t.fail(`${vector.name} shortened to ${end}`);
    }
  }
  t.end();
});

t.test('all frames in one message are walked to its very end', (t) => {
  const message = Buffer.from(vectors.map((vector) => vector.hex).join(''), 'hex');
  const seen: string[] = [];
  let off = 0;
  while (off < message.length) {
    t.equal(off % 8, 0, 'aligned');
    seen.push(f.printFrame(message, off, direction(vectors[seen.length] as Vector)));
    off = f.nextFrame(message, off, message.length);
  }
  t.equal(off, message.length);
  t.same(
    seen,
    vectors.map((vector) => vector.print),
  );
  t.end();
});

t.test('what a frame must not be is malformed', (t) => {
  const frame = (): Buffer => {
    const buf = Buffer.alloc(f.frameBytes(MAX_FRAME_BYTES) + 64);
    f.putConfirmError(buf, 0, 1, 2, 5);
    return buf;
  };
  const walk = (change: (buf: Buffer) => void): number => {
    const buf = frame();
    change(buf);
    return f.nextFrame(buf, 0, buf.length);
  };
  const { kind, length, stamp } = f.FRAME_FIELDS;
  t.equal(
    walk(() => undefined),
    40,
    'unchanged it is well-formed',
  );
  t.equal(
    walk((buf) => buf.writeUInt8(0, kind.offset)),
    -1,
    'kind 0',
  );
  t.equal(
    walk((buf) => buf.writeUInt8(5, kind.offset)),
    -1,
    'kind 5',
  );
  t.equal(
    walk((buf) => buf.writeUInt32LE(3, length.offset)),
    -1,
    'an errno of 3 bytes',
  );
  t.equal(
    walk((buf) => buf.writeUInt32LE(MAX_FRAME_BYTES, length.offset)),
    f.frameBytes(MAX_FRAME_BYTES),
    'as long as may be',
  );
  t.equal(
    walk((buf) => buf.writeUInt32LE(MAX_FRAME_BYTES + 1, length.offset)),
    -1,
    'one byte longer',
  );
  t.equal(
    walk((buf) => buf.writeUInt32LE(0xffff_fff0, length.offset)),
    -1,
    'a length that would wrap',
  );
  t.equal(
    walk((buf) => buf.writeUInt32LE(0x0020_0000, stamp.offset + 4)),
    -1,
    'a counter of 2^53',
  );
  t.equal(
    walk((buf) => buf.writeUInt32LE(0xffff_ffff, f.FRAME_FIELDS.reserved.offset)),
    40,
    'reserved is ignored',
  );
  t.end();
});

t.test('random bytes never make the walk read or step outside', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 256 }), (bytes) => {
      const buf = Buffer.from(bytes);
      let off = 0;
      while (off !== -1 && off < buf.length) {
        const next = f.nextFrame(buf, off, buf.length);
        if (next !== -1 && (next <= off || next > buf.length || next % 8 !== 0)) return false;
        off = next;
      }
      return true;
    }),
    { numRuns: 2000 },
  );
  t.end();
});

// --- the slow twin ---

const u32 = fc.nat(0xffff_ffff);

t.test('a receive time is the same as with BigInt, both ways, for every u64', (t) => {
  const buf = Buffer.alloc(32);
  const at = f.FRAME_FIELDS.stamp.offset;
  fc.assert(
    fc.property(fc.nat(18_446_744_072), fc.nat(999_999_999), (seconds, nanoseconds) => {
      f.putTime(buf, 0, seconds, nanoseconds);
      return buf.readBigUInt64LE(at) === BigInt(seconds) * 1_000_000_000n + BigInt(nanoseconds);
    }),
    { numRuns: 5000 },
  );
  fc.assert(
    fc.property(fc.bigInt(0n, 2n ** 64n - 1n), (time) => {
      buf.writeBigUInt64LE(time, at);
      const seconds = f.getSeconds(buf, 0);
      const nanoseconds = f.getNanoseconds(buf, 0);
      f.putTime(buf, 0, seconds, nanoseconds);
      return (
        BigInt(seconds) === time / 1_000_000_000n &&
        BigInt(nanoseconds) === time % 1_000_000_000n &&
        buf.readBigUInt64LE(at) === time
      );
    }),
    {
      numRuns: 5000,
      examples: [[0n], [2n ** 64n - 1n], [999_999_999n], [1_000_000_000n], [2n ** 32n * 1_000_000_000n]],
    },
  );
  t.end();
});

t.test('a counter is the same as with BigInt, both ways, below 2^53', (t) => {
  const buf = Buffer.alloc(32);
  const at = f.FRAME_FIELDS.stamp.offset;
  fc.assert(
    fc.property(fc.maxSafeNat(), (value) => {
      f.putCounter(buf, 0, value);
      return buf.readBigUInt64LE(at) === BigInt(value) && f.getCounter(buf, 0) === value;
    }),
    { numRuns: 5000, examples: [[0], [2 ** 32 - 1], [2 ** 32], [Number.MAX_SAFE_INTEGER]] },
  );
  t.end();
});

t.test('a header is the same as one written with DataView and BigInt', (t) => {
  const twin = (flags: number, tunnel: number, payload: Uint8Array, stamp: bigint): Buffer => {
    const bytes = new Uint8Array(Math.ceil((32 + payload.length) / 8) * 8);
    const view = new DataView(bytes.buffer);
    view.setUint8(0, 1);
    view.setUint8(1, flags);
    view.setUint32(12, tunnel, true);
    view.setUint32(16, payload.length, true);
    view.setBigUint64(24, stamp, true);
    bytes.set(payload, 32);
    return Buffer.from(bytes);
  };
  fc.assert(
    fc.property(
      fc.nat(255),
      u32,
      fc.uint8Array({ maxLength: 100 }),
      fc.maxSafeNat(),
      fc.nat(8).map((n) => n * 8),
      (flags, tunnel, payload, sequence, off) => {
        const buf = Buffer.alloc(256, JUNK);
        buf.set(payload, off + f.FRAME_HEADER_BYTES);
        f.putNoOffload(buf, off);
        const next = f.putDataDown(buf, off, flags, tunnel, payload.length, sequence);
        return buf.subarray(off, next).equals(twin(flags, tunnel, payload, BigInt(sequence)));
      },
    ),
    { numRuns: 1000 },
  );
  t.end();
});

t.test('the bytes of a frame are a multiple of 8, with the least padding', (t) => {
  for (let length = 0; length <= 64; length += 1) {
    const bytes = f.frameBytes(length);
    t.ok(bytes % 8 === 0 && bytes >= 32 + length && bytes < 40 + length, String(length));
  }
  t.end();
});
