/** src/control/packet-writer.ts: what programs write, to frames of a down tunnel, exactly once each. */
import { constants } from 'node:os';
import fc from 'fast-check';
import t from 'tap';
import { Counters } from '../../src/base/counters.js';
import { MAX_FRAME_BYTES } from '../../src/base/limits.js';
import { DownTunnel } from '../../src/control/down-tunnel.js';
import { PacketWriter, type WriterOptions } from '../../src/control/packet-writer.js';
import { ANY_PROTOCOL, parseProtocolAddress } from '../../src/packet/protocol-address.js';
import * as f from '../../src/tunnel/frames.js';
import { FakeChannel } from '../support/fake-channel.js';
import { pcapHeader, pcapRecord } from '../vectors/packet-captures.js';
import { ethernet, ipv4, udp } from '../vectors/packet-frames.js';

const { EAGAIN, EINVAL, EIO, EMSGSIZE } = constants.errno;

class Bench {
  readonly channel = new FakeChannel('down');
  readonly counters = new Counters();
  readonly tunnel: DownTunnel;
  readonly writer: PacketWriter;
  wakes = 0;
  private wakened: (() => void)[] = [];

  constructor(options: Partial<WriterOptions> = {}, window = 1e6) {
    this.tunnel = new DownTunnel(this.channel, 'fwd1', 'eth0', 'eth0', '*', () => undefined);
    this.tunnel.established(7, window);
    this.writer = new PacketWriter({
      framing: 'pcap',
      protocol: ANY_PROTOCOL,
      linkType: 1,
      paced: false,
      tunnel: this.tunnel,
      counters: this.counters,
      wake: () => {
        this.wakes += 1;
        for (const wake of this.wakened.splice(0)) wake();
      },
      ...options,
    });
  }

  untilWoken(): Promise<void> {
    return new Promise((resolve) => this.wakened.push(resolve));
  }

  /** One write(2) of bytes that are gone right after. */
  write(bytes: Buffer): number {
    const data = Buffer.concat([Buffer.alloc(3, 0xa5), bytes, Buffer.alloc(3, 0xa5)]);
    const result = this.writer.write(data, 3, bytes.length);
    data.fill(0x5a);
    return result;
  }

  /** Payloads that were sent. */
  frames(): Buffer[] {
    return this.channel.messages.flatMap((message) => {
      const frames: Buffer[] = [];
      for (let at = 0; at < message.length; at = f.nextFrame(message, at, message.length)) {
        const start = at + f.FRAME_HEADER_BYTES;
        frames.push(message.subarray(start, start + f.getLength(message, at)));
      }
      return frames;
    });
  }

  /** The forwarder puts everything out. */
  confirmAll(errno = 0): void {
    this.tunnel.confirm(this.tunnel.frames, errno);
  }
}

const frame = (number: number, length = 60): Buffer => Buffer.alloc(length, number);
const record = (data: Buffer, seconds = 0, nanoseconds = 0): Buffer => pcapRecord({ data, seconds, nanoseconds });
const trace = (...frames: Buffer[]): Buffer => Buffer.concat([pcapHeader(), ...frames.map((data) => record(data))]);

t.test('a whole capture is taken at once, and its frames leave', async (t) => {
  const bench = new Bench();
  const stream = trace(frame(1), frame(2));
  t.equal(bench.write(stream), stream.length);
  t.same(bench.frames(), [frame(1), frame(2)]);
  t.equal(bench.channel.messages.length, 1, 'in one message');
  t.same([bench.counters.get('control_tx_frames'), bench.counters.get('control_tx_bytes')], [2, 120]);
});

t.test('a bad record behind good ones gives a short count, then EINVAL, and nothing of it is sent', async (t) => {
  const snapped = pcapRecord({ data: frame(3), seconds: 0, nanoseconds: 0 }, {}, 1500);
  const bench = new Bench();
  const good = trace(frame(1), frame(2));
  t.equal(bench.write(Buffer.concat([good, snapped, record(frame(4))])), good.length);
  t.same(bench.frames(), [frame(1), frame(2)]);
  t.equal(bench.write(Buffer.concat([snapped, record(frame(4))])), -EINVAL);
  t.equal(bench.write(record(frame(4))), -EINVAL, 'the stream is at its end');
  t.equal(bench.frames().length, 2);
  bench.confirmAll();
  await bench.writer.flush();
});

t.test('streams that are none of this interface are EINVAL at once', async (t) => {
  const cases: [what: string, stream: Buffer][] = [
    ['another link type', pcapHeader({ linkType: 101 })],
    ['no capture', Buffer.from('hello, world, this is text')],
  ];
  for (const [what, stream] of cases) t.equal(new Bench().write(stream), -EINVAL, what);
});

t.test('frames that may not be sent are refused, and the stream goes on with others', async (t) => {
  const rip = ethernet(0x0800, ipv4({ protocol: 17 }, udp(520, 9, Buffer.alloc(20))));
  const other = ethernet(0x0800, ipv4({ protocol: 17 }, udp(521, 520, Buffer.alloc(20))));
  const bench = new Bench({ protocol: parseProtocolAddress('udp:520') });
  const good = trace(rip);
  t.equal(bench.write(Buffer.concat([good, record(other)])), good.length, 'the local end is the source');
  t.equal(bench.write(record(other)), -EINVAL);
  t.equal(bench.write(record(rip)), record(rip).length);
  t.same(bench.frames(), [rip, rip]);
  const raw = new Bench({ framing: 'raw' });
  t.equal(raw.write(Buffer.alloc(13)), -EINVAL, 'less than a header');
  t.equal(raw.write(Buffer.alloc(MAX_FRAME_BYTES + 1)), -EMSGSIZE);
  t.same(raw.frames(), []);
});

t.test('without credit a write is short, then EAGAIN, and goes on with the same bytes', async (t) => {
  const bench = new Bench({}, 120);
  const stream = trace(frame(1), frame(2), frame(3));
  const accepted = bench.write(stream);
  t.equal(accepted, stream.length - 76);
  t.notOk(bench.writer.canWrite);
  t.equal(bench.write(stream.subarray(accepted)), -EAGAIN);
  bench.tunnel.confirm(1, 0);
  t.equal(bench.wakes, 1);
  t.ok(bench.writer.canWrite);
  t.equal(bench.write(stream.subarray(accepted)), 76);
  t.same(bench.frames(), [frame(1), frame(2), frame(3)]);
});

t.test('cut anywhere and held anywhere, every frame leaves exactly once', async () => {
  const formats = fc.constantFrom<'pcap' | 'hex'>('pcap', 'hex');
  fc.assert(
    fc.property(
      formats,
      fc.array(fc.integer({ min: 14, max: 200 }), { minLength: 1, maxLength: 12 }),
      fc.array(fc.integer({ min: 1, max: 150 }), { minLength: 1, maxLength: 8 }),
      fc.integer({ min: 14, max: 500 }),
      (framing, lengths, cuts, window) => {
        const bench = new Bench({ framing }, window);
        const frames = lengths.map((length, index) => frame(index + 1, length));
        const stream =
          framing === 'pcap'
            ? trace(...frames)
            : Buffer.from(frames.map((data) => `${data.toString('hex')}\n`).join(''));
        let at = 0;
        for (let step = 0; at < stream.length; step += 1) {
          const end = Math.min(stream.length, at + cuts[step % cuts.length]!);
          // As the kernel does: the rest of what a program wrote is offered again.
          while (at < end) {
            const result = bench.write(stream.subarray(at, end));
            if (result > 0) at += result;
            else if (result !== -EAGAIN) throw new Error(`write gives ${result}`);
            else if (bench.tunnel.isDrained) throw new Error('held with nothing under way');
            else bench.confirmAll();
          }
        }
        if (!Buffer.concat(bench.frames()).equals(Buffer.concat(frames))) throw new Error('other frames left');
      },
    ),
    { numRuns: 300 },
  );
});

t.test('raw: one packet a write', async (t) => {
  const bench = new Bench({ framing: 'raw' }, 100);
  t.equal(bench.write(frame(1)), 60);
  t.equal(bench.write(frame(2)), -EAGAIN, 'no credit');
  bench.confirmAll();
  t.equal(bench.write(frame(2)), 60);
  t.same(bench.frames(), [frame(1), frame(2)]);
});

t.test('an interface without link layer takes IP packets as they are', async (t) => {
  const bench = new Bench({ linkType: 101, framing: 'raw', protocol: parseProtocolAddress('udp:520') });
  const packet = ipv4({ protocol: 17 }, udp(520, 9, Buffer.alloc(4)));
  t.equal(bench.write(packet), packet.length);
  t.equal(bench.write(ethernet(0x0800, packet)), -EINVAL);
});

t.test('hex: the last line needs no newline at close', async (t) => {
  const bench = new Bench({ framing: 'hex' });
  bench.write(Buffer.from(`${frame(1).toString('hex')}\n${frame(2).toString('hex')}`));
  t.same(bench.frames(), [frame(1)]);
  const closed = bench.writer.flush();
  t.same(bench.frames(), [frame(1), frame(2)]);
  bench.confirmAll();
  await closed;
  await bench.writer.flush();
  t.equal(bench.frames().length, 2, 'once');
});

t.test('hex: a last line that is no frame fails the close, after what was good is out', async (t) => {
  const cases: [what: string, line: string, code: string][] = [
    ['half a byte', 'abc', 'bad-hex'],
    ['too short for a frame', 'abcd', 'frame-too-short'],
  ];
  for (const [what, line, code] of cases) {
    const bench = new Bench({ framing: 'hex' });
    bench.write(Buffer.from(`${frame(1).toString('hex')}\n${line}`));
    const closed = t.rejects(bench.writer.flush(), { code }, what);
    bench.confirmAll();
    await closed;
    t.same(bench.frames(), [frame(1)]);
  }
});

t.test('hex: a last line for which there is no credit leaves when there is, or fails the close', async (t) => {
  const text = Buffer.from(`${frame(1).toString('hex')}\n${frame(2).toString('hex')}`);
  const bench = new Bench({ framing: 'hex' }, 60);
  bench.write(text);
  const closed = bench.writer.flush();
  t.same(bench.frames(), [frame(1)]);
  bench.confirmAll();
  while (bench.frames().length < 2) await new Promise((resolve) => setImmediate(resolve));
  bench.confirmAll();
  await closed;
  t.same(bench.frames(), [frame(1), frame(2)]);
  const away = new Bench({ framing: 'hex' }, 60);
  away.write(text);
  away.confirmAll();
  away.tunnel.lost('gone');
  await t.rejects(away.writer.flush(), { code: 'not-sent', errno: EIO });
});

t.test('a record that is cut off fails the close, after all before it is out', async (t) => {
  const bench = new Bench();
  const stream = trace(frame(1), frame(2));
  t.equal(bench.write(stream.subarray(0, stream.length - 1)), stream.length - 1);
  const closed = t.rejects(bench.writer.flush(), { code: 'bad-capture', errno: EINVAL });
  bench.confirmAll();
  await closed;
  t.same(bench.frames(), [frame(1)]);
});

t.test('fsync and close wait for the forwarder and tell what was not sent', async (t) => {
  const bench = new Bench();
  bench.write(trace(frame(1)));
  const barrier = bench.writer.fsync();
  bench.confirmAll();
  await barrier;
  bench.write(record(frame(2)));
  const closed = t.rejects(bench.writer.flush(), { code: 'not-sent', errno: EIO });
  bench.confirmAll(100);
  await closed;
  await bench.writer.flush();
});

t.test('paced: frames leave at the distances of their times', async (t) => {
  const bench = new Bench({ paced: true });
  t.teardown(() => bench.writer.release());
  const at = [0, 0, 20, 35].map((ms) => record(frame(ms + 1), 1000 + Math.floor(ms / 1000), ms * 1e6));
  const stream = Buffer.concat([pcapHeader(), ...at]);
  const start = performance.now();
  const times: number[] = [];
  for (let done = 0; done < stream.length;) {
    const result = bench.write(stream.subarray(done));
    while (times.length < bench.frames().length) times.push(performance.now() - start);
    if (result > 0) done += result;
    else {
      t.equal(result, -EAGAIN);
      await bench.untilWoken();
    }
  }
  t.same(
    bench.frames(),
    [1, 1, 21, 36].map((number) => frame(number)),
  );
  t.ok(times[1]! < 15 && times[2]! >= 19 && times[3]! >= 34, times.map(Math.round).join(' '));
});

t.test('paced: a file is writable when its next frame is due, and each capture has a clock of its own', async (t) => {
  const bench = new Bench({ paced: true });
  t.teardown(() => bench.writer.release());
  const first = Buffer.concat([pcapHeader(), record(frame(1), 1000)]);
  t.equal(bench.write(first), first.length);
  t.ok(bench.writer.canWrite);
  const later = record(frame(2), 1000, 20e6);
  t.equal(bench.write(later), -EAGAIN);
  t.notOk(bench.writer.canWrite, 'a poll would say so again and again');
  await bench.untilWoken();
  t.ok(bench.writer.canWrite);
  t.equal(bench.write(later), later.length);
  const day = 86_400;
  const another = Buffer.concat([pcapHeader(), record(frame(3), 1000 + day)]);
  t.equal(bench.write(another), another.length, 'its first frame goes at once');
  t.equal(bench.write(record(frame(4), 1000 + day, 5e6)), -EAGAIN, 'and the next one 5 ms after it');
});

t.test('paced: a frame that is due in years keeps no timer running hot', async (t) => {
  const bench = new Bench({ paced: true });
  const header = Buffer.concat([pcapHeader(), record(frame(1), 0)]);
  t.equal(bench.write(header), header.length);
  const warnings: Error[] = [];
  const warned = (warning: Error): number => warnings.push(warning);
  process.on('warning', warned);
  t.teardown(() => process.off('warning', warned));
  t.equal(bench.write(record(frame(2), 1_700_000_000)), -EAGAIN);
  await new Promise((resolve) => setTimeout(resolve, 5));
  t.same(warnings, []);
  t.equal(bench.wakes, 0);
  bench.writer.release();
});
