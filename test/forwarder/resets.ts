/** src/forwarder/resets.ts: what ends the connections of lost control devices. */
import t from 'tap';
import { Counters } from '../../src/base/counters.js';
import { MAX_WAITING_RESETS, RESET_SLICE_COUNT } from '../../src/base/limits.js';
import { Resets } from '../../src/forwarder/resets.js';
import { FrameView } from '../../src/packet/headers.js';
import { ACK, RST, SYN } from '../support/hand-tcp.js';
import { ethernet, ipv4, IPV6_A, IPV6_B, ipv6, tcp } from '../vectors/packet-frames.js';

class Bench {
  readonly sent: Buffer[] = [];
  readonly counters = new Counters();
  errno = 0;
  readonly resets = new Resets((packet) => {
    this.sent.push(packet);
    return this.errno;
  }, this.counters);

  segment(frame: Buffer): void {
    const view = new FrameView();
    if (!view.parse(frame, 0, frame.length)) throw new Error('no frame');
    this.resets.segment(view, frame);
  }

  counts(): number[] {
    return [this.counters.get('forwarder_resets'), this.counters.get('drop_reset')];
  }
}

const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve));
const received = (flags: number, data = 0): Buffer =>
  ethernet(0x0800, ipv4({ protocol: 6 }, tcp({ sourcePort: 4000, flags, sequence: 77 }, Buffer.alloc(data))));

t.test('a segment is answered at the number that it acknowledges, turned around', async (t) => {
  const bench = new Bench();
  bench.segment(received(ACK, 10));
  await turn();
  const [packet] = bench.sent as [Buffer];
  t.same([...packet.subarray(12, 20)], [10, 0, 0, 2, 10, 0, 0, 1]);
  t.same([packet.readUInt16BE(20), packet.readUInt16BE(22)], [80, 4000]);
  t.same([packet.readUInt32BE(24), packet.readUInt32BE(28), packet[33]], [0x01020304, 0, RST]);
  t.same(bench.counts(), [1, 0]);
});

t.test('one that acknowledges nothing is itself acknowledged, its SYN too', async (t) => {
  const bench = new Bench();
  bench.segment(received(SYN));
  await turn();
  const [packet] = bench.sent as [Buffer];
  t.same([packet.readUInt32BE(24), packet.readUInt32BE(28), packet[33]], [0, 78, RST | ACK]);
});

t.test('IPv6 likewise; an RST is not answered', async (t) => {
  const bench = new Bench();
  bench.segment(received(RST | ACK));
  bench.segment(ethernet(0x86dd, ipv6(6, tcp({ sourcePort: 4000, flags: ACK }, Buffer.alloc(0)))));
  await turn();
  t.equal(bench.sent.length, 1);
  const [packet] = bench.sent as [Buffer];
  t.same([packet.subarray(8, 24), packet.subarray(24, 40)], [IPV6_B, IPV6_A]);
});

t.test('many leave in slices, what is too much or can not be sent is counted', async (t) => {
  const bench = new Bench();
  const frame = received(ACK);
  for (let i = 0; i < MAX_WAITING_RESETS + 5; i++) bench.segment(frame);
  t.same(bench.counts(), [0, 5]);
  await turn();
  t.equal(bench.sent.length, RESET_SLICE_COUNT);
  bench.errno = 113;
  await turn();
  t.same(bench.counts(), [RESET_SLICE_COUNT, 5 + RESET_SLICE_COUNT]);
  bench.resets.close();
  await turn();
  t.equal(bench.sent.length, 2 * RESET_SLICE_COUNT, 'nothing goes on after the end');
});
