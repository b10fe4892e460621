/** src/packet/capture-reader.ts: streams of every kind, whole, byte by byte, cut anywhere, refused anywhere, spoilt. */
import fc from 'fast-check';
import t from 'tap';
import { CaptureReader } from '../../src/packet/capture-reader.js';
import type { FrameSink } from '../../src/packet/capture-reader.js';
import { writeFileHeader, writeRecordHeader } from '../../src/packet/pcap.js';
import {
  block,
  interfaceBlock,
  packetBlock,
  pcapHeader,
  pcapRecord,
  section,
  simpleBlock,
} from '../vectors/packet-captures.js';
import type { Frame } from '../vectors/packet-captures.js';

const MAX = 2000;

/** Keeps what it gets; `admit` says how many more frames it takes. */
class Keeper implements FrameSink {
  frames: Frame[] = [];
  buffers = new Set<Buffer>();
  admit = Infinity;
  frame(buf: Buffer, offset: number, length: number, seconds: number, nanoseconds: number): boolean {
    if (this.admit === 0) return false;
    this.admit -= 1;
    this.buffers.add(buf);
    this.frames.push({ data: Buffer.from(buf.subarray(offset, offset + length)), seconds, nanoseconds });
    return true;
  }
}

const at = (seconds: number, nanoseconds: number, ...data: number[]): Frame => ({
  data: Buffer.from(data),
  seconds,
  nanoseconds,
});
const A = at(1_700_000_000, 123_456_000, 1, 2, 3, 4, 5);
const B = at(1_700_000_001, 999_999_000, 6);
const C = at(0xffffffff, 0, ...Array.from({ length: 64 }, (_, index) => index));
const noTime = (frame: Frame): Frame => ({ ...frame, seconds: 0, nanoseconds: 0 });

const options = Buffer.from('0100030066666600' + '00000000', 'hex');
const STREAMS: [string, Buffer, Frame[]][] = [
  ['nothing', Buffer.alloc(0), []],
  ['a pcap without records', pcapHeader(), []],
  ...[false, true].flatMap((big) =>
    [false, true].map((nano): [string, Buffer, Frame[]] => {
      const shape = { big, nano };
      const records = [A, B, C].map((frame) => pcapRecord(frame, shape));
      return [`a pcap, big ${big}, nano ${nano}`, Buffer.concat([pcapHeader(shape), ...records]), [A, B, C]];
    }),
  ),
  ...[false, true].map((big): [string, Buffer, Frame[]] => [
    `a pcapng, big ${big}`,
    Buffer.concat([
      section(big, options),
      interfaceBlock(big),
      packetBlock(A, { big }),
      block(5, Buffer.alloc(33), big),
      interfaceBlock(big, 9),
      packetBlock(B, { big, interface: 1, resolution: 9, options }),
      block(0x80000bad, Buffer.alloc(0), big),
      packetBlock(C, { big, obsolete: true }),
      simpleBlock(A.data, big),
      simpleBlock(C.data, big),
    ]),
    [A, B, C, noTime(A), noTime(C)],
  ]),
  [
    'several files in a row',
    Buffer.concat([
      pcapHeader(),
      pcapRecord(A),
      pcapHeader({ big: true, nano: true }),
      pcapRecord(B, { big: true, nano: true }),
      pcapHeader(),
      section(true),
      interfaceBlock(true),
      packetBlock(C, { big: true }),
      section(false),
      interfaceBlock(false, 0x80 | 20),
      pcapHeader({ nano: true }),
      pcapRecord(B, { nano: true }),
    ]),
    [A, B, C, B],
  ],
];

t.test('a stream that comes whole gives its frames in place, without a copy', async (t) => {
  for (const [what, stream, frames] of STREAMS) {
    const reader = new CaptureReader(1, MAX);
    const keeper = new Keeper();
    const buf = Buffer.concat([Buffer.alloc(5, 0xa1), stream, Buffer.alloc(5, 0xb2)]);
    t.equal(reader.push(buf, 5, 5 + stream.length, keeper), stream.length, what);
    t.same(keeper.frames, frames, what);
    t.equal(reader.atBoundary, true, what);
    t.equal(reader.error, null, what);
    t.same([...keeper.buffers], frames.length > 0 ? [buf] : [], what);
  }
});

t.test('a stream that comes byte by byte gives the same frames', async (t) => {
  for (const [what, stream, frames] of STREAMS) {
    const reader = new CaptureReader(1, MAX);
    const keeper = new Keeper();
    let accepted = 0;
    for (let place = 0; place < stream.length; place += 1) accepted += reader.push(stream, place, place + 1, keeper);
    t.equal(accepted, stream.length, what);
    t.same(keeper.frames, frames, what);
    t.equal(reader.atBoundary, true, what);
  }
});

t.test('a stream cut at any place gives the same frames, and the cut shows as a pending tail', async (t) => {
  for (const [what, stream, frames] of STREAMS) {
    let whole = 0;
    let boundaries = 0;
    for (let cut = 0; cut <= stream.length; cut += 1) {
      const reader = new CaptureReader(1, MAX);
      const keeper = new Keeper();
      let accepted = reader.push(Buffer.from(stream.subarray(0, cut)), 0, cut, keeper);
      if (reader.atBoundary) boundaries += 1;
      const rest = Buffer.from(stream.subarray(cut));
      accepted += reader.push(rest, 0, rest.length, keeper);
      if (accepted === stream.length && reader.atBoundary && JSON.stringify(keeper.frames) === JSON.stringify(frames))
        whole += 1;
    }
    t.equal(whole, stream.length + 1, what);
    t.ok(boundaries >= frames.length && boundaries <= stream.length / 12 + 1, `${what}: ${boundaries} boundaries`);
  }
});

t.test('a refused frame is given again, wherever the stream was cut', async (t) => {
  for (const [what, stream, frames] of STREAMS) {
    for (let cut = 0; cut <= stream.length; cut += 1) {
      const reader = new CaptureReader(1, MAX);
      const keeper = new Keeper();
      let from = 0;
      let to = cut;
      for (let rounds = 0; rounds < 50 && from < stream.length; rounds += 1) {
        // Refuse first, then admit one frame at a time.
        keeper.admit = rounds % 2;
        const accepted = reader.push(stream, from, to, keeper);
        from += accepted;
        if (from >= cut) to = stream.length;
      }
      if (from !== stream.length || JSON.stringify(keeper.frames) !== JSON.stringify(frames)) {
        t.same(keeper.frames, frames, `${what}, cut at ${cut}, accepted ${from} of ${stream.length}`);
      }
    }
    t.ok(true, what);
  }
});

t.test('a refused frame whose beginning is inside leaves the reader as it was', async (t) => {
  const record = pcapRecord(C);
  const stream = Buffer.concat([pcapHeader(), record]);
  const reader = new CaptureReader(1, MAX);
  const keeper = new Keeper();
  t.equal(reader.push(stream, 0, 44, keeper), 44);
  keeper.admit = 0;
  t.equal(reader.push(stream, 44, stream.length, keeper), 0);
  t.equal(reader.push(stream, 44, stream.length, keeper), 0);
  t.equal(reader.error, null);
  t.equal(reader.atBoundary, false);
  t.equal(reader.push(stream, 44, 50, keeper), 6, 'what does not complete the frame is accepted');
  keeper.admit = 1;
  t.equal(reader.push(stream, 50, stream.length, keeper), stream.length - 50);
  t.same(keeper.frames, [C]);
});

t.test('a sink that throws leaves the reader as it was', async (t) => {
  const stream = Buffer.concat([pcapHeader(), pcapRecord(A)]);
  const reader = new CaptureReader(1, MAX);
  const keeper = new Keeper();
  reader.push(stream, 0, 30, keeper);
  const thrower: FrameSink = {
    frame() {
      throw new Error('mine');
    },
  };
  t.throws(() => reader.push(stream, 30, stream.length, thrower), { message: 'mine' });
  reader.push(stream, 30, stream.length, keeper);
  t.same(keeper.frames, [A]);
});

const head = pcapHeader();
const ng = Buffer.concat([section(), interfaceBlock()]);
const bigger = { ...A, data: Buffer.alloc(MAX + 1) };
const change = (bytes: Buffer, place: number, ...values: number[]): Buffer => {
  const copy = Buffer.from(bytes);
  copy.set(values, place);
  return copy;
};
/** What is good, what is bad after it, and the message. */
const SPOILT: [string, Buffer[], Buffer, RegExp][] = [
  ['text', [], Buffer.from('hello'), /neither a pcap nor a pcapng/],
  ['a record without a header', [], pcapRecord(A), /neither/],
  ['the modified pcap of old', [], Buffer.from('34cdb2a1', 'hex'), /neither/],
  ['raw IP for Ethernet', [], pcapHeader({ linkType: 101 }), /link type 101 \(raw IP\), the interface 1 \(Ethernet\)/],
  ['another link type later', [head, pcapRecord(A)], pcapHeader({ linkType: 113, big: true }), /link type 113/],
  ['another link type in pcapng', [section()], interfaceBlock(false, 9, 276), /link type 276/],
  ['frame check sequences', [], pcapHeader({ linkType: 0x1400_0001 }), /frame check/],
  ['pcap 2.3', [], change(head, 6, 3), /pcap version 2\.3/],
  ['a snapped record', [head, pcapRecord(A)], pcapRecord(B, {}, 2), /cut to 1 of its 2/],
  ['a record too long', [head, pcapRecord(A)], pcapRecord(bigger), /2001 bytes, more than 2000/],
  ['a giant record', [head], change(pcapRecord(A), 8, 255, 255, 255, 255, 255, 255, 255, 255), /4294967295 bytes/],
  ['a snapped packet block', [ng], packetBlock(A, { original: 6 }), /cut to 5 of its 6/],
  ['a packet block too long', [ng, packetBlock(A)], packetBlock(bigger), /2001 bytes/],
  ['a packet of no interface', [ng], packetBlock(A, { interface: 1 }), /interface 1, which/],
  ['a simple packet of no interface', [section()], simpleBlock(A.data), /before its interface/],
  ['a snapped simple packet', [ng], simpleBlock(A.data, false, 9), /cut to 8 of its 9/],
  [
    'a captured length beyond the block',
    [ng],
    change(packetBlock(A), 20, 40, 0, 0, 0, 40),
    /of 40 bytes with a frame of 40/,
  ],
  ['a block of 8 bytes', [ng], change(block(7, Buffer.alloc(4)), 4, 8), /block of 8 bytes/],
  ['a block of 13 bytes', [ng], change(block(7, Buffer.alloc(4)), 4, 13), /block of 13 bytes/],
  ['an interface block without fields', [ng], block(1, Buffer.alloc(4)), /interface block of 16/],
  ['an interface block of a megabyte', [ng], change(interfaceBlock(), 4, 0, 0, 16), /interface block of 1048576/],
  ['a section without byte order', [], change(section(), 8, 0), /byte-order/],
  ['a section of 24 bytes', [], change(section(), 4, 24), /section header of 24/],
  ['pcapng 2', [], change(section(), 12, 2), /pcapng version 2/],
  ['a new section of another version', [ng, packetBlock(A)], change(section(true), 13, 3), /pcapng version 3/],
];

t.test('a bad item after good ones gives a short count, and the error stays', async (t) => {
  for (const [what, good, bad, message] of SPOILT) {
    const before = Buffer.concat(good);
    const stream = Buffer.concat([before, bad, Buffer.alloc(60)]);
    const reader = new CaptureReader(1, MAX);
    const keeper = new Keeper();
    t.equal(reader.push(stream, 0, stream.length, keeper), before.length, what);
    t.match(reader.error, { code: 'bad-capture', message }, what);
    const error = reader.error;
    t.equal(reader.push(head, 0, head.length, keeper), 0);
    t.equal(reader.error, error, what);
    t.ok(keeper.frames.length <= 1, what);
  }
});

t.test('a bad item is found byte by byte as well', async (t) => {
  for (const [what, good, bad, message] of SPOILT) {
    const before = Buffer.concat(good);
    const stream = Buffer.concat([before, bad, Buffer.alloc(60)]);
    const reader = new CaptureReader(1, MAX);
    let accepted = 0;
    while (reader.error === null && accepted < stream.length) {
      accepted += reader.push(stream, accepted, accepted + 1, new Keeper());
    }
    t.match(reader.error, { code: 'bad-capture', message }, what);
    t.ok(accepted >= before.length && accepted < before.length + 60, what);
  }
});

t.test('a time that looks like a magic number is a time', async (t) => {
  const times = [0xa1b2c3d4, 0xa1b23c4d, 0xd4c3b2a1, 0x4d3cb2a1, 0x0a0d0d0a];
  const frames = times.map((seconds) => at(seconds, 5000, 1, 2, 3));
  const stream = Buffer.concat([head, ...frames.map((frame) => pcapRecord(frame))]);
  const reader = new CaptureReader(1, MAX);
  const keeper = new Keeper();
  t.equal(reader.push(stream, 0, stream.length, keeper), stream.length);
  t.same(keeper.frames, frames);
});

t.test('what we write is read, with frames of no bytes and of the most', async (t) => {
  const frames = [0, 1, MAX].map((length) => ({ data: Buffer.alloc(length, 7), seconds: 3, nanoseconds: 999_999_999 }));
  const stream = Buffer.alloc(24 + 3 * 16 + 1 + MAX);
  writeFileHeader(stream, 0, 101);
  let place = 24;
  for (const frame of frames) {
    writeRecordHeader(stream, place, 3, 999_999_999, frame.data.length, frame.data.length);
    place += 16 + frame.data.copy(stream, place + 16);
  }
  const reader = new CaptureReader(101, MAX);
  const keeper = new Keeper();
  t.equal(reader.push(stream, 0, stream.length, keeper), stream.length);
  t.same(keeper.frames, frames);
});

t.test('a fraction of more than a second is less than one', async (t) => {
  const record = change(pcapRecord(A), 4, 255, 255, 255, 255);
  const reader = new CaptureReader(1, MAX);
  const keeper = new Keeper();
  reader.push(Buffer.concat([head, record]), 0, head.length + record.length, keeper);
  t.equal(keeper.frames[0]?.nanoseconds, 999_999_999);
});

t.test('a section has a limited number of interfaces', async (t) => {
  const stream = Buffer.concat([section(), ...Array.from({ length: 4097 }, () => interfaceBlock())]);
  const reader = new CaptureReader(1, MAX);
  t.equal(reader.push(stream, 0, stream.length, new Keeper()), stream.length - interfaceBlock().length);
  t.match(reader.error, { code: 'bad-capture', message: /interfaces/ });
});

t.test('every resolution of time gives what exact arithmetic gives', async () => {
  const resolution = fc.oneof(
    fc.nat(11),
    fc.nat(36).map((n) => 0x80 | n),
  );
  fc.assert(
    fc.property(fc.nat(0xffffffff), fc.nat(999_999_999), resolution, fc.boolean(), (seconds, nanoseconds, n, big) => {
      const perSecond = (n & 0x80) !== 0 ? 2n ** BigInt(n & 0x7f) : 10n ** BigInt(n);
      const fraction = (BigInt(nanoseconds) * perSecond) / 1_000_000_000n;
      fc.pre(BigInt(seconds) * perSecond + fraction < 2n ** 64n);
      const stream = Buffer.concat([
        section(big),
        interfaceBlock(big, n),
        packetBlock({ data: Buffer.from([1]), seconds, nanoseconds }, { big, resolution: n }),
      ]);
      const keeper = new Keeper();
      new CaptureReader(1, MAX).push(stream, 0, stream.length, keeper);
      const expected = Number((fraction * 1_000_000_000n) / perSecond);
      const got = keeper.frames[0]!;
      return got.seconds === seconds && Math.abs(got.nanoseconds - expected) <= ((n & 0x80) === 0 && n <= 9 ? 0 : 1);
    }),
    { numRuns: 2000 },
  );
});

const anyFrame = fc.record({
  data: fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
  seconds: fc.nat(0xfffffff),
  nanoseconds: fc.nat(999_999).map((micros) => micros * 1000),
});
const anyFile = fc
  .record({ frames: fc.array(anyFrame, { maxLength: 4 }), big: fc.boolean(), nano: fc.boolean(), kind: fc.nat(2) })
  .map(({ frames, big, nano, kind }) => {
    const shape = { big, nano };
    if (kind === 0) return { frames, bytes: [pcapHeader(shape), ...frames.map((frame) => pcapRecord(frame, shape))] };
    const resolution = nano ? 9 : 6;
    const blocks = frames.map((frame) => packetBlock(frame, { big, resolution, obsolete: kind === 2, interface: 1 }));
    const other = block(11, Buffer.alloc(frames.length * 3), big);
    return { frames, bytes: [section(big), interfaceBlock(big), interfaceBlock(big, resolution), ...blocks, other] };
  });

t.test('any files in any pieces with any refusals give their frames once, in order', async () => {
  const pieces = fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 20 });
  const admissions = fc.array(fc.nat(3), { minLength: 1, maxLength: 9 });
  fc.assert(
    fc.property(fc.array(anyFile, { maxLength: 4 }), pieces, admissions, (files, sizes, admits) => {
      const stream = Buffer.concat(files.flatMap((file) => file.bytes));
      const expected = files.flatMap((file) => file.frames);
      const reader = new CaptureReader(1, MAX);
      const keeper = new Keeper();
      let from = 0;
      for (let round = 0; from < stream.length; round += 1) {
        if (round > 4000 || reader.error !== null) return false;
        keeper.admit = round % 3 === 2 ? 1 : admits[round % admits.length]!;
        from += reader.push(stream, from, Math.min(stream.length, from + sizes[round % sizes.length]!), keeper);
      }
      return reader.atBoundary && JSON.stringify(keeper.frames) === JSON.stringify(expected);
    }),
    { numRuns: 1000 },
  );
});

t.test('any bytes are either read or an error, never an exception nor a loop', async () => {
  const junk = fc.oneof(
    fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
    fc
      .tuple(fc.constantFrom(...STREAMS.map(([, stream]) => stream)), fc.nat(), fc.nat(255))
      .map(([stream, place, byte]) => (stream.length === 0 ? stream : change(stream, place % stream.length, byte))),
  );
  fc.assert(
    fc.property(junk, (bytes) => {
      const whole = new CaptureReader(1, MAX);
      const single = new CaptureReader(1, MAX);
      const keepers = [new Keeper(), new Keeper()] as const;
      const accepted = whole.push(bytes, 0, bytes.length, keepers[0]);
      for (let place = 0; place < bytes.length; place += 1) single.push(bytes, place, place + 1, keepers[1]);
      return (
        (accepted === bytes.length) === (whole.error === null) &&
        whole.error?.what === single.error?.what &&
        JSON.stringify(keepers[0].frames) === JSON.stringify(keepers[1].frames)
      );
    }),
    { numRuns: 3000 },
  );
});
