import t from 'tap';
import { constants } from 'node:os';
import { addressOf } from '../../src/sys/libc.js';
import { inNetns } from '../../src/sys/netns.js';
import { PacketReceiver, PacketTransmitter } from '../../src/sys/packet-socket.js';
import { TunDevice, type TunKind, type TunSink } from '../../src/sys/tun.js';
import { until } from '../support/lab.js';
import { Netns, withoutRoot } from '../support/netns.js';

const E = constants.errno;
/** Node has no name for it. */
const EBADFD = 77;
const LOCAL_EXPERIMENTAL = 0x88b5;
const VNET_BYTES = 10;
const PASS_ALL = Buffer.from([6, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f]);

class Sink implements TunSink {
  hasRoom = true;
  readonly seen: { vnet: Buffer; frame: Buffer }[] = [];
  readonly errors: number[] = [];
  batches = 0;
  /** Frames that are taken before there is no room. */
  room = Number.POSITIVE_INFINITY;

  frame(buf: Buffer, vnet: number, offset: number, length: number): void {
    this.seen.push({
      vnet: Buffer.from(buf.subarray(vnet, vnet + VNET_BYTES)),
      frame: Buffer.from(buf.subarray(offset, offset + length)),
    });
    this.room -= 1;
    this.hasRoom = this.room > 0;
  }

  batchEnd(): void {
    this.batches += 1;
  }

  failed(errno: number): void {
    this.errors.push(errno);
  }
}

interface Device {
  readonly netns: Netns;
  readonly device: TunDevice;
  readonly sink: Sink;
}

/** A device in a namespace of its own; up and without addresses, so that nobody sends anything by itself. */
function setUp(t: { teardown(undo: () => void): void }, kind: TunKind, name = 'dev0'): Device {
  const netns = new Netns('tun');
  t.teardown(() => netns.remove());
  const device = inNetns(netns.name, () => new TunDevice(name, kind));
  t.teardown(() => device.close());
  const sink = new Sink();
  device.sink = sink;
  if (kind === 'tap') netns.run(`ip link set ${name} addrgenmode none`);
  netns.run(`sysctl -qw net.ipv6.conf.${name}.disable_ipv6=1`);
  netns.run(`ip link set ${name} up`);
  return { netns, device, sink };
}

/** Sends on the device as a program does. */
class Program {
  private readonly transmitter: PacketTransmitter;

  constructor(t: { teardown(undo: () => void): void }, { netns, device }: Device) {
    this.transmitter = inNetns(netns.name, () => new PacketTransmitter(device.ifindex));
    t.teardown(() => this.transmitter.close());
  }

  send(frame: Buffer, vnet: Buffer = Buffer.alloc(VNET_BYTES)): number {
    this.transmitter.add(addressOf(vnet), addressOf(frame), frame.length);
    return this.transmitter.flush();
  }
}

/** What programs receive on the device. */
function listen(t: { teardown(undo: () => void): void }, { netns, device }: Device): { vnet: Buffer; frame: Buffer }[] {
  const seen: { vnet: Buffer; frame: Buffer }[] = [];
  const receiver = inNetns(netns.name, () => {
    return new PacketReceiver(device.ifindex, {
      packet: (slots, offset, length, vnet) =>
        void seen.push({
          vnet: Buffer.from(slots.subarray(vnet, vnet + VNET_BYTES)),
          frame: Buffer.from(slots.subarray(offset, offset + length)),
        }),
      truncated: () => undefined,
      batchEnd: () => undefined,
      failed: () => undefined,
    });
  });
  t.teardown(() => receiver.close());
  receiver.setFilter(PASS_ALL);
  receiver.start();
  return seen;
}

function etherFrame(bytes: number, fill: number, etherType = LOCAL_EXPERIMENTAL): Buffer {
  const frame = Buffer.alloc(bytes, fill);
  Buffer.from('ffffffffffff020000000001', 'hex').copy(frame);
  frame.writeUInt16BE(etherType, 12);
  return frame;
}

/** A TCP super-frame over IPv4 with its virtio_net_hdr: 54 bytes of headers, segments of 1000 bytes. */
function superFrame(payload: number): { vnet: Buffer; frame: Buffer } {
  const frame = etherFrame(54 + payload, 0x61, 0x0800);
  frame.fill(0, 14, 54);
  frame[14] = 0x45;
  frame.writeUInt16BE(40 + payload, 16);
  frame[22] = 64;
  frame[23] = 6;
  Buffer.from([192, 0, 2, 1, 192, 0, 2, 2]).copy(frame, 26);
  frame.writeUInt16BE(1234, 34);
  frame.writeUInt16BE(80, 36);
  frame[46] = 0x50;
  frame[47] = 0x10;
  const vnet = Buffer.alloc(VNET_BYTES);
  vnet[0] = 1;
  vnet[1] = 1;
  [54, 1000, 34, 16].forEach((value, index) => vnet.writeUInt16LE(value, 2 + 2 * index));
  return { vnet, frame };
}

t.test(
  'what programs send comes out whole and in order, with the end of a batch after it',
  { skip: withoutRoot },
  async (t) => {
    const lab = setUp(t, 'tap');
    const program = new Program(t, lab);
    lab.device.start();
    const sent = Array.from({ length: 300 }, (_, index) => etherFrame(60 + index, index));
    for (const frame of sent) {
      t.equal(program.send(frame), 1);
      if (frame.length % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await until(() => lab.sink.seen.length === sent.length);
    t.ok(lab.sink.seen.every(({ frame }, index) => sent[index]?.equals(frame)));
    await until(() => lab.sink.batches > 0);
    t.same(lab.sink.errors, []);
  },
);

t.test('what is written is received on the device, from any place of a buffer', { skip: withoutRoot }, async (t) => {
  const lab = setUp(t, 'tap');
  const seen = listen(t, lab);
  const frame = etherFrame(200, 7);
  const buf = Buffer.alloc(1000, 0xee);
  buf.fill(0, 100, 110);
  frame.copy(buf, 333);
  t.equal(lab.device.write(buf, 100, 333, frame.length), 0);
  const pooled = Buffer.concat([Buffer.alloc(VNET_BYTES), frame]);
  t.equal(lab.device.write(pooled, 0, VNET_BYTES, frame.length), 0);
  await until(() => seen.length === 2);
  t.same(
    seen.map((one) => one.frame),
    [frame, frame],
  );
});

t.test('super-frames pass both ways as they are, with their header', { skip: withoutRoot }, async (t) => {
  const lab = setUp(t, 'tap');
  const program = new Program(t, lab);
  const seen = listen(t, lab);
  lab.device.start();
  const big = superFrame(60_000);
  t.equal(program.send(big.frame, big.vnet), 1);
  await until(() => lab.sink.seen.length === 1);
  t.equal(lab.sink.seen[0]?.frame.length, big.frame.length);
  t.same(lab.sink.seen[0]?.vnet.subarray(0, 2), Buffer.from([1, 1]));
  t.equal(lab.sink.seen[0]?.vnet.readUInt16LE(4), 1000);
  t.equal(lab.device.write(Buffer.concat([big.vnet, big.frame]), 0, VNET_BYTES, big.frame.length), 0);
  await until(() => seen.length === 1);
  t.same(seen[0]?.frame, big.frame);
  t.equal(seen[0]?.vnet.readUInt16LE(4), 1000);
});

t.test('a tun device carries IP packets without a link layer', { skip: withoutRoot }, async (t) => {
  const lab = setUp(t, 'tun');
  lab.netns.run('ip addr add 192.0.2.1/24 dev dev0');
  const seen = listen(t, lab);
  lab.device.start();
  const packet = Buffer.alloc(40);
  superFrame(0).frame.copy(packet, 0, 14);
  t.equal(lab.device.write(Buffer.concat([Buffer.alloc(VNET_BYTES), packet]), 0, VNET_BYTES, packet.length), 0);
  await until(() => seen.length === 1);
  t.same(seen[0]?.frame, packet);
  const program = new Program(t, lab);
  t.equal(program.send(packet), 1);
  await until(() => lab.sink.seen.length === 1);
  t.same(lab.sink.seen[0]?.frame, packet);
});

t.test(
  'nothing is read while the sink has no room; resume brings the rest in order',
  { skip: withoutRoot },
  async (t) => {
    const lab = setUp(t, 'tap');
    const program = new Program(t, lab);
    lab.sink.room = 3;
    lab.device.start();
    const sent = Array.from({ length: 10 }, (_, index) => etherFrame(60 + index, index));
    for (const frame of sent) program.send(frame);
    await until(() => !lab.sink.hasRoom);
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
    t.equal(lab.sink.seen.length, 3);
    program.send(etherFrame(80, 80));
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
    t.equal(lab.sink.seen.length, 3);
    lab.sink.room = 100;
    lab.sink.hasRoom = true;
    lab.device.resume();
    await until(() => lab.sink.seen.length === 11);
    t.same(
      lab.sink.seen.map(({ frame }) => frame.length),
      [...sent.map((frame) => frame.length), 80],
    );
  },
);

t.test('a device that is taken away tells so once, and writing gives an errno', { skip: withoutRoot }, async (t) => {
  const lab = setUp(t, 'tap');
  lab.device.start();
  const other = setUp(t, 'tap');
  other.device.start();
  const frame = Buffer.concat([Buffer.alloc(VNET_BYTES), etherFrame(60, 1)]);
  lab.netns.run('ip link set dev0 down');
  t.equal(lab.device.write(frame, 0, VNET_BYTES, 60), -E.EIO);
  lab.netns.run('ip link del dev0');
  t.equal(lab.device.write(frame, 0, VNET_BYTES, 60), -EBADFD);
  // Whatever wakes the process next.
  new Program(t, other).send(etherFrame(60, 2));
  await until(() => other.sink.seen.length === 1);
  await until(() => lab.sink.errors.length > 0);
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
  t.equal(lab.sink.errors.length, 1);
});

t.test('a frame that makes no sense is refused', { skip: withoutRoot }, async (t) => {
  const { device } = setUp(t, 'tap');
  t.equal(device.write(Buffer.alloc(20), 0, VNET_BYTES, 10), -E.EINVAL);
});

t.test('the carrier is what it was set to', { skip: withoutRoot }, async (t) => {
  const { netns, device } = setUp(t, 'tap');
  device.setCarrier(false);
  t.match(netns.run('ip link show dev0'), /NO-CARRIER/);
  device.setCarrier(true);
  t.notMatch(netns.run('ip link show dev0'), /NO-CARRIER/);
});

t.test('a name that is taken is EBUSY, and the device that has it goes on', { skip: withoutRoot }, async (t) => {
  const { netns } = setUp(t, 'tap');
  netns.run('ip link add v0 type veth peer name v1');
  const fails = (name: string, errno: number): void => {
    t.throws(() => inNetns(netns.name, () => new TunDevice(name, 'tap')), { errno, message: new RegExp(name) });
  };
  fails('dev0', E.EBUSY);
  fails('v0', E.EBUSY);
  fails('a/b', E.EINVAL);
  t.equal(netns.run('ip -o link').trim().split('\n').length, 4);
});

t.test('the device goes with close, and gone tells when', { skip: withoutRoot }, async (t) => {
  const { netns, device } = setUp(t, 'tap');
  device.start();
  device.close();
  device.close();
  await device.gone;
  t.notMatch(netns.run('ip -o link'), /dev0/);
});
