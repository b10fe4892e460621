/** src/control/packet-reader.ts: what programs read, decoded by the capture reader and by eye. */
import { constants } from 'node:os';
import fc from 'fast-check';
import t from 'tap';
import { ChunkPool } from '../../src/base/chunks.js';
import { Counters } from '../../src/base/counters.js';
import { MAX_FRAME_BYTES } from '../../src/base/limits.js';
import { PacketReader, type ReaderOptions } from '../../src/control/packet-reader.js';
import { ReaderQueue } from '../../src/control/reader-queue.js';
import { CaptureReader } from '../../src/packet/capture-reader.js';
import { Segmenter } from '../../src/packet/segment.js';
import { VNET_GSO_TCPV4, VNET_GSO_UDP, VNET_HEADER_BYTES, writeVnetHeader } from '../../src/packet/virtio.js';
import type { VnetHeader } from '../../src/packet/virtio.js';
import { pcapHeader, pcapRecord } from '../vectors/packet-captures.js';
import { decodeWireFrame, ethernet, ipv4, storePartial, tcp } from '../vectors/packet-frames.js';

const { EACCES, EAGAIN, EMSGSIZE } = constants.errno;
const CHUNK = 4096;

class Bench {
  readonly pool = new ChunkPool({ bytes: CHUNK, keep: 2 });
  readonly counters = new Counters();
  readonly reader: PacketReader;
  wakes = 0;

  constructor(options: Partial<ReaderOptions> & { limit?: number } = {}) {
    const { limit, ...more } = options;
    this.reader = new PacketReader({
      framing: 'pcap',
      gso: false,
      linkType: 1,
      queue: new ReaderQueue(this.pool, limit ?? 1e6),
      counters: this.counters,
      wake: () => {
        this.wakes += 1;
      },
      ...more,
    });
  }

  /** A frame among junk, that is overwritten right after. */
  deliver(frame: Buffer, header: Partial<VnetHeader> = {}, seconds = 1_700_000_000, nanoseconds = 5): void {
    const buf = Buffer.alloc(VNET_HEADER_BYTES + frame.length + 9, 0xa5);
    writeVnetHeader(buf, 0, header);
    frame.copy(buf, VNET_HEADER_BYTES + 4);
    this.reader.deliver(buf, VNET_HEADER_BYTES + 4, frame.length, 0, seconds, nanoseconds);
    buf.fill(0x5a);
  }

  /** The bytes of one read, or its negative errno. */
  read(size: number): Buffer | number {
    const out = Buffer.alloc(size + 5, 0xa5);
    const count = this.reader.read(out, 2, size);
    return count < 0 ? count : out.subarray(2, 2 + count);
  }

  /** Everything, in reads of these sizes again and again. */
  drain(...sizes: number[]): Buffer {
    const parts: Buffer[] = [];
    for (let i = 0; ; i += 1) {
      const part = this.read(sizes[i % sizes.length]!);
      if (typeof part === 'number' || part.length === 0) return Buffer.concat(parts);
      parts.push(part);
    }
  }
}

/** The frames of a stream that programs read; it must end at a record's end. */
function framesOf(stream: Buffer): Buffer[] {
  const frames: Buffer[] = [];
  const capture = new CaptureReader(1, MAX_FRAME_BYTES);
  const sink = {
    frame(buf: Buffer, offset: number, length: number): boolean {
      frames.push(Buffer.from(buf.subarray(offset, offset + length)));
      return true;
    },
  };
  if (capture.push(stream, 0, stream.length, sink) !== stream.length || !capture.atBoundary) {
    throw new Error(`broken stream: ${capture.error?.message ?? 'cut'}`);
  }
  return frames;
}

const frame = (number: number, length = 60): Buffer => Buffer.alloc(length, number);

t.test('a pcap reader gets the file header at once, then records', async (t) => {
  const { reader, ...rest } = new Bench();
  t.ok(rest.pool.inUse === 0 && !reader.isEmpty, 'readable before the first packet');
  const bench = new Bench();
  const header = bench.read(1000);
  const theirs = pcapHeader({ nano: true });
  theirs.writeUInt32LE(262_144, 16);
  t.same(header, theirs);
  t.equal(bench.read(1000), -EAGAIN);
  bench.deliver(frame(1));
  bench.deliver(frame(2));
  const at = { seconds: 1_700_000_000, nanoseconds: 5 };
  const records = [1, 2].map((number) => pcapRecord({ data: frame(number), ...at }, { nano: true }));
  t.same(bench.read(1000), Buffer.concat(records));
});

t.test('the link type of the interface is that of the file', async (t) => {
  const bench = new Bench({ linkType: 101 });
  t.equal((bench.read(24) as Buffer).readUInt32LE(20), 101);
});

t.test('any sizes of reads give the same stream', async (t) => {
  const size = fc.oneof(fc.constantFrom(1, 23, 24, 25, 76), fc.integer({ min: 1, max: 3000 }));
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 14, max: 1600 }), { maxLength: 20 }),
      fc.array(size, { minLength: 1, maxLength: 5 }),
      (lengths, sizes) => {
        const bench = new Bench();
        const frames = lengths.map((length, index) => frame(index, length));
        for (const one of frames) bench.deliver(one);
        const stream = bench.drain(...sizes);
        if (!Buffer.concat(framesOf(stream)).equals(Buffer.concat(frames))) throw new Error('another stream');
        if (bench.pool.inUse !== 0) throw new Error('chunks did not come back');
      },
    ),
    { numRuns: 200 },
  );
  const bench = new Bench();
  bench.deliver(frame(7));
  t.same(framesOf(bench.drain(1)), [frame(7)], 'byte by byte');
});

t.test('records are whole where they fit, also behind the file header', async (t) => {
  const bench = new Bench();
  for (const number of [1, 2, 3]) bench.deliver(frame(number));
  t.equal((bench.read(24 + 75) as Buffer).length, 24, 'the first record has 76 bytes');
  t.equal((bench.read(200) as Buffer).length, 152);
  const other = new Bench();
  other.deliver(frame(1));
  t.equal((other.read(24 + 76) as Buffer).length, 100);
});

t.test('raw: one packet a read; a buffer that is too small loses nothing', async (t) => {
  const bench = new Bench({ framing: 'raw' });
  t.equal(bench.read(100), -EAGAIN);
  bench.deliver(frame(1, 60));
  bench.deliver(frame(2, 80));
  t.equal(bench.read(59), -EMSGSIZE);
  t.equal(bench.read(1), -EMSGSIZE);
  t.same(bench.read(60), frame(1, 60));
  t.same(bench.read(1000), frame(2, 80), 'not more than one');
  t.equal(bench.read(1000), -EAGAIN);
});

t.test('hex: a line a packet, cut anywhere', async (t) => {
  const bench = new Bench({ framing: 'hex' });
  bench.deliver(Buffer.from('0123456789abcdef', 'hex'));
  bench.deliver(Buffer.from('ff00', 'hex'));
  t.equal(bench.drain(3).toString(), '0123456789abcdef\nff00\n');
});

t.test('a slow reader loses the newest packets, whole, and every loss is counted', async (t) => {
  for (const framing of ['pcap', 'raw', 'hex'] as const) {
    const bench = new Bench({ framing, limit: 1000 });
    for (let number = 0; number < 100; number += 1) bench.deliver(frame(number));
    const lost = bench.reader.dropped;
    t.equal(bench.counters.get('drop_reader_slow'), lost, framing);
    t.ok(lost > 80 && lost < 100, `${lost} of 100`);
    if (framing === 'pcap') {
      const kept = framesOf(bench.drain(130));
      t.same(
        kept,
        kept.map((_, number) => frame(number)),
        'the oldest are there',
      );
      t.equal(kept.length + lost, 100);
    }
    bench.drain(1000);
    bench.deliver(frame(200));
    t.equal(bench.reader.dropped, lost, 'and there is room again');
  }
});

t.test('framing is intact whatever was dropped between', async () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.integer({ min: 14, max: 900 }), fc.integer({ min: 0, max: 300 })), { maxLength: 60 }),
      (steps) => {
        const bench = new Bench({ limit: 2000 });
        const parts: Buffer[] = [];
        let number = 0;
        for (const [length, size] of steps) {
          bench.deliver(frame(number++ & 0xff, length));
          const part = size === 0 ? -1 : bench.read(size);
          if (typeof part !== 'number') parts.push(part);
        }
        parts.push(bench.drain(500));
        const got = framesOf(Buffer.concat(parts));
        if (got.length + bench.reader.dropped !== steps.length) throw new Error('not all are accounted for');
      },
    ),
    { numRuns: 200 },
  );
});

/** A TCPv4 super-frame with its header. */
function superFrame(payload: number, gsoSize: number): [Buffer, Partial<VnetHeader>] {
  const bytes = Buffer.from(Array.from({ length: payload }, (_, index) => index & 0xff));
  const super_ = ethernet(0x0800, ipv4({ protocol: 6, id: 1, fragment: 0x4000 }, tcp({ sequence: 9 }, bytes)));
  storePartial(super_, 14, 34, 6, 16);
  return [super_, { flags: 1, gsoType: VNET_GSO_TCPV4, hdrLen: 54, gsoSize, csumStart: 34, csumOffset: 16 }];
}

t.test('super-frames become the wire frames of the segmenter, in every framing', async (t) => {
  const [whole, header] = superFrame(3000, 1000);
  const input = Buffer.alloc(VNET_HEADER_BYTES + whole.length);
  writeVnetHeader(input, 0, header);
  whole.copy(input, VNET_HEADER_BYTES);
  const segmenter = new Segmenter();
  segmenter.begin(input, VNET_HEADER_BYTES, whole.length, 0, 'ethernet');
  const wanted: Buffer[] = [];
  for (let bytes = segmenter.nextBytes; bytes > 0; bytes = segmenter.nextBytes) {
    wanted.push(Buffer.alloc(bytes));
    segmenter.next(wanted.at(-1)!, 0);
  }
  t.equal(wanted.length, 3);
  for (const one of wanted) decodeWireFrame(one, 14);
  const pcap = new Bench();
  pcap.deliver(whole, header);
  t.same(framesOf(pcap.drain(2000)), wanted);
  const raw = new Bench({ framing: 'raw' });
  raw.deliver(whole, header);
  t.same(
    [1, 2, 3].map(() => raw.read(2000)),
    wanted,
  );
  const hex = new Bench({ framing: 'hex' });
  hex.deliver(whole, header);
  t.equal(hex.drain(100).toString(), wanted.map((one) => `${one.toString('hex')}\n`).join(''));
});

t.test('an unfinished checksum is finished; :gso leaves everything as it is', async (t) => {
  const [whole, header] = superFrame(100, 1000);
  const unfinished = { ...header, gsoType: 0, gsoSize: 0 };
  const bench = new Bench({ framing: 'raw' });
  bench.deliver(whole, unfinished);
  decodeWireFrame(bench.read(2000) as Buffer, 14);
  const gso = new Bench({ framing: 'raw', gso: true });
  const [large, largeHeader] = superFrame(3000, 1000);
  gso.deliver(whole, unfinished);
  gso.deliver(large, largeHeader);
  t.same([gso.read(4000), gso.read(4000)], [whole, large]);
});

t.test('a super-frame that cannot be cut is counted, not given', async (t) => {
  const bench = new Bench({ framing: 'raw' });
  const [whole, header] = superFrame(3000, 1000);
  bench.deliver(whole, { ...header, gsoType: VNET_GSO_UDP });
  t.equal(bench.read(4000), -EAGAIN);
  t.equal(bench.counters.get('drop_bad_gso'), 1);
  t.equal(bench.reader.dropped, 1);
  t.equal(bench.wakes, 0);
});

t.test('of a super-frame, the wire frames that have room are given and the others counted', async (t) => {
  for (const framing of ['pcap', 'hex'] as const) {
    const bench = new Bench({ framing, limit: framing === 'pcap' ? 2200 : 4400 });
    const [whole, header] = superFrame(3000, 1000);
    bench.deliver(whole, header);
    t.equal(bench.counters.get('drop_reader_slow'), 1, framing);
    bench.drain(5000);
    bench.deliver(frame(1));
    t.ok(!bench.reader.isEmpty);
  }
});

t.test('the reader is woken when there is something after there was nothing, and only then', async (t) => {
  const bench = new Bench();
  bench.deliver(frame(1));
  t.equal(bench.wakes, 0, 'the file header was there');
  bench.drain(1000);
  t.ok(bench.reader.isEmpty);
  bench.deliver(frame(2));
  bench.deliver(frame(3));
  t.equal(bench.wakes, 1);
  bench.read(76);
  bench.deliver(frame(4));
  t.equal(bench.wakes, 1, 'one was left');
  bench.drain(1000);
  bench.deliver(frame(5));
  t.equal(bench.wakes, 2);
});

t.test('after the end what waits can be read, then the end of the file comes, always', async (t) => {
  for (const framing of ['pcap', 'raw', 'hex'] as const) {
    const bench = new Bench({ framing });
    bench.deliver(frame(1));
    bench.reader.end();
    t.equal(bench.wakes, framing === 'pcap' ? 1 : 2, framing);
    t.ok(bench.drain(1000).length > 0);
    t.same([bench.read(10), bench.read(10)], [Buffer.alloc(0), Buffer.alloc(0)]);
    t.notOk(bench.reader.isEmpty, 'a poll says so');
  }
});

t.test(
  'an end with a reason: what waits can be read, then the errno comes once, then the end of the file',
  async (t) => {
    for (const framing of ['pcap', 'raw', 'hex'] as const) {
      const bench = new Bench({ framing });
      bench.deliver(frame(1));
      bench.reader.end(EACCES);
      t.ok((bench.read(1000) as Buffer).length >= 60, framing);
      t.notOk(bench.reader.isEmpty, 'a poll says so');
      t.same([bench.read(10), bench.read(10), bench.read(10)], [-EACCES, Buffer.alloc(0), Buffer.alloc(0)]);
    }
  },
);

t.test('a large read is never filled exactly: the kernel would go on asking, and wait', async (t) => {
  const bench = new Bench();
  const record = 1024;
  const size = 128 << 10;
  bench.drain(24);
  for (let number = 0; number < size / record; number += 1) bench.deliver(frame(number, record - 16));
  t.equal((bench.read(size) as Buffer).length, size - record, 'the last record waits for the next read');
  t.equal((bench.read(size) as Buffer).length, record);
  for (let number = 0; number < 8; number += 1) bench.deliver(frame(number, record - 16));
  t.equal((bench.read(8 * record) as Buffer).length, 8 * record, 'a smaller one is not cut, and filled');
});

t.test('a reader that goes gives all chunks back', async (t) => {
  const bench = new Bench();
  for (let number = 0; number < 100; number += 1) bench.deliver(frame(number, 1000));
  t.ok(bench.pool.inUse > 20);
  bench.reader.release();
  t.equal(bench.pool.inUse, 0);
});
