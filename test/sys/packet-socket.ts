import t from 'tap';
import { addressOf, ifNameToIndex, must } from '../../src/sys/libc.js';
import {
  isBusy,
  MEMBERSHIP,
  PacketReceiver,
  type PacketSink,
  PacketTransmitter,
  PKTTYPE,
} from '../../src/sys/packet-socket.js';
import { VNET_BYTES } from '../../src/sys/receive-slots.js';
import { connectVeth, Netns, withoutRoot } from '../support/netns.js';

/*
 *   netns a: va  <---- veth ---->  vb :netns b
 */

const PASS_ALL = Buffer.from([6, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f]);
const PASS_NONE = Buffer.from([6, 0, 0, 0, 0, 0, 0, 0]);
const LOCAL_EXPERIMENTAL = 0x88b5;

interface Seen {
  readonly frame: Buffer;
  readonly pkttype: number;
  readonly vnet: Buffer;
  readonly time: number;
}

class Sink implements PacketSink {
  readonly seen: Seen[] = [];
  readonly errors: number[] = [];
  batches = 0;

  packet(
    slots: Buffer,
    offset: number,
    length: number,
    vnetOffset: number,
    pkttype: number,
    seconds: number,
    nanoseconds: number,
  ): void {
    this.seen.push({
      frame: Buffer.from(slots.subarray(offset, offset + length)),
      vnet: Buffer.from(slots.subarray(vnetOffset, vnetOffset + VNET_BYTES)),
      pkttype,
      time: seconds * 1000 + nanoseconds / 1e6,
    });
  }

  truncated(): void {
    this.errors.push(-1);
  }

  batchEnd(): void {
    this.batches += 1;
  }

  failed(errno: number): void {
    this.errors.push(errno);
  }
}

function frameOf(bytes: number, fill: number, destination = 'ffffffffffff'): Buffer {
  const frame = Buffer.alloc(bytes, fill);
  Buffer.from(destination, 'hex').copy(frame);
  Buffer.from('020000000001', 'hex').copy(frame, 6);
  frame.writeUInt16BE(LOCAL_EXPERIMENTAL, 12);
  return frame;
}

class Wire {
  readonly a = new Netns('psa');
  readonly b = new Netns('psb');
  readonly sink = new Sink();

  constructor(t: { teardown(undo: () => void): void }) {
    t.teardown(() => {
      this.a.remove();
      this.b.remove();
    });
    connectVeth({ netns: this.a, name: 'va' }, { netns: this.b, name: 'vb' });
  }

  receiver(t: { teardown(undo: () => void): void }): Promise<PacketReceiver> {
    return this.b.within(() => {
      const receiver = new PacketReceiver(ifNameToIndex('vb'), this.sink);
      t.teardown(() => receiver.close());
      receiver.setFilter(PASS_ALL);
      receiver.start();
      return receiver;
    });
  }

  transmitter(t: { teardown(undo: () => void): void }, netns = this.a, name = 'va'): Promise<PacketTransmitter> {
    return netns.within(() => {
      const transmitter = new PacketTransmitter(ifNameToIndex(name));
      t.teardown(() => transmitter.close());
      return transmitter;
    });
  }
}

/** Sends frames in batches as they fit. */
function send(transmitter: PacketTransmitter, frames: readonly Buffer[]): number {
  let sent = 0;
  for (const frame of frames) {
    const slot = Buffer.concat([Buffer.alloc(16), frame]);
    transmitter.add(addressOf(slot), addressOf(slot) + 16, frame.length);
    sent += must('sendmmsg', transmitter.flush());
  }
  return sent;
}

async function until(condition: () => boolean): Promise<void> {
  const end = performance.now() + 5000;
  while (!condition()) {
    if (performance.now() > end) throw new Error('waited in vain');
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

t.test(
  'frames of every length arrive as they were sent, in order, with their receive time',
  { skip: withoutRoot },
  async (t) => {
    const wire = new Wire(t);
    await wire.receiver(t);
    const transmitter = await wire.transmitter(t);
    const before = Date.now();
    const frames = Array.from({ length: 300 }, (_, i) => frameOf(15 + ((i * 37) % 1500), i & 0xff));
    t.equal(send(transmitter, frames), frames.length);
    await until(() => wire.sink.seen.length >= frames.length);
    t.same(
      wire.sink.seen.map(({ frame }) => frame),
      frames,
    );
    t.ok(wire.sink.seen.every(({ time }) => time >= before - 50 && time <= Date.now() + 50));
    t.ok(wire.sink.seen.every(({ pkttype }) => pkttype === PKTTYPE.BROADCAST));
    t.ok(wire.sink.batches > 0);
  },
);

t.test(
  'a frame longer than the MTU is refused with EMSGSIZE, a frame on a link that is down with ENETDOWN',
  { skip: withoutRoot },
  async (t) => {
    const wire = new Wire(t);
    const transmitter = await wire.transmitter(t);
    t.throws(() => send(transmitter, [frameOf(1600, 1)]), { code: 'EMSGSIZE' });
    wire.a.run('ip link set va down');
    t.throws(() => send(transmitter, [frameOf(100, 1)]), { code: 'ENETDOWN' });
    t.equal(isBusy(90), false);
    t.ok(isBusy(11) && isBusy(105), 'EAGAIN and ENOBUFS pass');
  },
);

t.test(
  "the filter is the kernel's: nothing it rejects is delivered, and a new one holds at once",
  { skip: withoutRoot },
  async (t) => {
    const wire = new Wire(t);
    const receiver = await wire.receiver(t);
    const transmitter = await wire.transmitter(t);
    receiver.setFilter(PASS_NONE);
    send(transmitter, [frameOf(100, 1)]);
    receiver.setFilter(PASS_ALL);
    send(transmitter, [frameOf(100, 2)]);
    await until(() => wire.sink.seen.length > 0);
    t.same(
      wire.sink.seen.map(({ frame }) => frame[50]),
      [2],
    );
  },
);

t.test('frames that leave are seen only when they are asked for', { skip: withoutRoot }, async (t) => {
  const wire = new Wire(t);
  const receiver = await wire.receiver(t);
  const transmitter = await wire.transmitter(t, wire.b, 'vb');
  send(transmitter, [frameOf(100, 1)]);
  receiver.setOutgoing(true);
  send(transmitter, [frameOf(100, 2)]);
  await until(() => wire.sink.seen.length > 0);
  t.same(
    wire.sink.seen.map(({ frame, pkttype }) => [frame[50], pkttype]),
    [[2, PKTTYPE.OUTGOING]],
  );
});

t.test('a tag that was stripped on receipt is put back where it was', { skip: withoutRoot }, async (t) => {
  // The kernel takes a tag out of every received frame before packet sockets see it, whether or not the device did.
  const wire = new Wire(t);
  await wire.receiver(t);
  const transmitter = await wire.transmitter(t);
  const plain = frameOf(100, 7);
  const tags = ['81000005', '88a8e00a', '8100000581000006'];
  const frames = tags.map((tag) => Buffer.concat([plain.subarray(0, 12), Buffer.from(tag, 'hex'), plain.subarray(12)]));
  send(transmitter, frames);
  await until(() => wire.sink.seen.length === frames.length);
  t.same(
    wire.sink.seen.map(({ frame }) => frame.toString('hex')),
    frames.map((frame) => frame.toString('hex')),
  );
});

t.test('memberships show at the interface and are taken back', { skip: withoutRoot }, async (t) => {
  const wire = new Wire(t);
  const receiver = await wire.receiver(t);
  const details = (): string => wire.b.run('ip -d link show dev vb');
  receiver.setMembership(MEMBERSHIP.ALLMULTI, true);
  t.match(details(), /allmulti 1/);
  receiver.setMembership(MEMBERSHIP.ALLMULTI, false);
  receiver.setMembership(MEMBERSHIP.PROMISC, true);
  t.match(details(), /promiscuity 1/);
  t.match(details(), /allmulti 0/);
  receiver.close();
  t.match(details(), /promiscuity 0/, 'the kernel takes it back with the socket');
});

t.test('what the kernel dropped for want of room is told', { skip: withoutRoot }, async (t) => {
  const wire = new Wire(t);
  const receiver = await wire.receiver(t);
  const transmitter = await wire.transmitter(t);
  const many = Array.from({ length: 64 }, () => frameOf(1500, 3));
  // Nothing is drained while this loop runs, so the socket's buffer runs full.
  let drops = 0;
  for (let round = 0; round < 2000 && drops === 0; round++) {
    send(transmitter, many);
    drops = receiver.takeDrops();
  }
  t.ok(drops > 0);
  t.equal(receiver.takeDrops(), 0, 'each drop is told once');
});

t.test(
  'a link that goes down is reported, and the socket works again when it is back',
  { skip: withoutRoot },
  async (t) => {
    const wire = new Wire(t);
    await wire.receiver(t);
    const transmitter = await wire.transmitter(t);
    wire.b.run('ip link set vb down');
    await until(() => wire.sink.errors.length > 0);
    t.same(wire.sink.errors, [100], 'ENETDOWN, once');
    wire.b.run('ip link set vb up');
    send(transmitter, [frameOf(100, 9)]);
    await until(() => wire.sink.seen.length > 0);
    t.equal(wire.sink.seen[0]?.frame[50], 9);
  },
);
