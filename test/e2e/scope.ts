/**
 * Scopes: which frames of the interface a name shows, and what the interface is asked for meanwhile.
 *
 *     node n0 ================= eth0 forwarder c0 ============ f0 control device
 *     all kinds of frames                                       eth0   eth0:out   eth0:both   eth0:promisc
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Lab, type Program, run, until } from '../support/lab.js';
import { withoutRoot } from '../support/netns.js';
import {
  addressed,
  Capture,
  filler,
  hexOf,
  macOf,
  numbered,
  pcap,
  readPcap,
  send,
  testFrames,
  untilTestFrames,
} from '../support/traffic.js';
import { ethernet, ipv4, slowChecksum, tcp, udp } from '../vectors/packet-frames.js';

/** Sends a TCP super-frame with a VLAN tag as a driver would: segments of 1000 bytes, checksum unfinished. */
const SUPER_FRAME = `
import socket, struct, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(('n0', 0))
s.setsockopt(263, 15, 1)
s.send(struct.pack('<BBHHHH', 1, 1, 58, 1000, 38, 16) + bytes.fromhex(sys.stdin.read()))
`;

t.test('scopes', { skip: withoutRoot, timeout: 60_000 }, async (t) => {
  const lab = await Lab.start();
  t.teardown(() => lab.stop());
  const mac = macOf(lab.fwd, 'eth0');
  const node = macOf(lab.node, 'n0');
  const closed = (): Promise<void> => until(async () => (await lab.table('distribution')).length === 0);
  const write = (frames: readonly Buffer[]) =>
    run(['/bin/bash', '-c', 'cat > "$1"', '-', lab.file('eth0')], pcap(frames));

  await t.test('in shows what arrives, out what leaves, both both, in the order of the interface', async (t) => {
    const names = ['', ':out', ':both'].map((scope) => `eth0:icmp:10.9.0.1${scope}`);
    const readers = await Promise.all(names.map((name) => lab.reader(name)));
    const capture = await Capture.start(lab, lab.fwd, 'eth0', 'inout', 'icmp');
    lab.fwd.run('ping -c 2 -i 0.01 10.9.0.2');
    lab.node.run('ping -c 1 10.9.0.1');
    const all = hexOf(await capture.untilCount(6));
    await capture.stop();
    const sent = all.filter((frame) => frame.slice(12, 24) === mac.replaceAll(':', ''));
    for (const [index, expected] of [all.filter((frame) => !sent.includes(frame)), sent, all].entries()) {
      const reader = readers[index] as Program;
      await reader.untilOutput((output) => readPcap(output).length >= expected.length);
      t.same(hexOf(readPcap(reader.output).map((record) => record.frame)), expected, names[index] ?? '');
      await reader.kill();
    }
    await closed();
  });

  await t.test('out shows what control devices write, and its protocol address means the sending end', async (t) => {
    const datagram = (from: number, to: number): Buffer =>
      addressed(ethernet(0x0800, ipv4({ protocol: 17 }, udp(from, to, filler(40, from)))), node);
    const out = await lab.reader('eth0:udp:520:out');
    const received = await lab.reader('eth0:udp:520');
    const frames = [datagram(520, 9), datagram(9, 520), datagram(520, 520)];
    t.equal((await write(frames)).status, 0);
    t.same(hexOf(await untilTestFrames(out, 2)), hexOf([frames[0], frames[2]] as Buffer[]));
    await send(
      lab.node,
      'n0',
      frames.map((frame) => addressed(frame, mac)),
    );
    t.same(
      hexOf(await untilTestFrames(received, 2)),
      hexOf([frames[1], frames[2]] as Buffer[]).map((hex) => mac.replaceAll(':', '') + hex.slice(12)),
    );
    t.equal(testFrames(out.output).length, 2, 'what arrives is not shown by out');
    await out.kill();
    await received.kill();
    await closed();
  });

  await t.test('frames for another station are shown by promisc alone', async (t) => {
    const promisc = await lab.reader('eth0:promisc');
    const plain = await lab.reader('eth0');
    const foreign = numbered(3, 100, '02:00:00:00:00:99');
    const own = numbered(3, 100, mac, 10);
    await send(lab.node, 'n0', [...foreign, ...own]);
    t.same(hexOf(await untilTestFrames(promisc, 6)), hexOf([...foreign, ...own]));
    t.same(hexOf(await untilTestFrames(plain, 3)), hexOf(own));
    await promisc.kill();
    await plain.kill();
    await closed();
  });

  await t.test('the interface is in the mode that the open symbols need, and in no other', async (t) => {
    interface Detail {
      promiscuity: number;
      allmulti: number;
    }
    const mode = (): [number, number] => {
      const [detail] = JSON.parse(lab.fwd.run('ip -d -j link show eth0')) as Detail[];
      return [detail?.promiscuity ?? -1, detail?.allmulti ?? -1];
    };
    const groups = (): boolean => lab.fwd.run('ip maddr show dev eth0').includes('01:00:5e:00:00:09');
    const [promiscuity, allMulticast] = mode();
    t.same([promiscuity, allMulticast, groups()], [0, 0, false]);
    for (const [name, expected] of [
      ['eth0', [0, 1, false]],
      ['eth0:udp:520', [0, 1, false]],
      ['eth0:udp:10.9.0.1:520', [0, 0, false]],
      ['eth0:udp:224.0.0.9:520', [0, 0, true]],
      ['eth0:out', [0, 0, false]],
      ['eth0:promisc', [1, 1, false]],
    ] as const) {
      const reader = await lab.reader(name);
      t.same([...mode(), groups()], expected, name);
      await reader.kill();
      await closed();
      t.same([...mode(), groups()], [0, 0, false], `after ${name}`);
    }
    const readers = [await lab.reader('eth0'), await lab.reader('eth0:arp')];
    t.same(mode(), [0, 1], 'rules share the mode');
    await readers[0]?.kill();
    await until(async () => (await lab.table('distribution')).length === 1);
    t.same(mode(), [0, 1]);
    await readers[1]?.kill();
    await closed();
    t.same(mode(), [0, 0]);
  });

  await t.test('multicast that nobody joined is received', async (t) => {
    const reader = await lab.reader('eth0');
    const frames = numbered(2, 100, '01:00:5e:01:02:03');
    await send(lab.node, 'n0', frames);
    t.same(hexOf(await untilTestFrames(reader, 2)), hexOf(frames));
    await reader.kill();
    await closed();
  });

  await t.test('VLAN tags that the kernel stripped are put back', async (t) => {
    const reader = await lab.reader('eth0:ether:0x88b5');
    const tags: [number, number][][] = [
      [],
      [[0x8100, 5]],
      [[0x88a8, 7]],
      [
        [0x88a8, 7],
        [0x8100, 0x6005],
      ],
    ];
    const frames = tags.map((one, index) => addressed(ethernet(0x88b5, filler(80, index), one), mac));
    await send(lab.node, 'n0', frames);
    t.same(hexOf(await untilTestFrames(reader, 4)), hexOf(frames), 'the protocol address is looked for behind them');
    await reader.kill();
    await closed();
  });

  await t.test('a super-frame within a VLAN is shown as tagged wire frames with good checksums', async (t) => {
    const names = ['eth0:tcp:80', 'eth0:tcp:80:gso'];
    const [wire, gso] = (await Promise.all(names.map((name) => lab.reader(name)))) as [Program, Program];
    const payload = filler(5000, 7);
    const frame = addressed(ethernet(0x0800, ipv4({ protocol: 6 }, tcp({}, payload)), [[0x8100, 5]]), mac);
    // What a checksum offload begins with: the sum of the pseudo header (virtio 1.2, section 5.1.6.2).
    frame.writeUInt16BE(0xffff - slowChecksum(frame.subarray(30, 38), Buffer.from([0, 6]), u16(20 + 5000)), 54);
    const sent = await run([...lab.node.prefix, 'python3', '-c', SUPER_FRAME], frame.toString('hex'));
    t.equal(sent.status, 0, sent.stderr);
    t.same(hexOf(await untilTestFrames(gso, 1)), hexOf([frame]), 'gso shows it as it was');
    const segments = await untilTestFrames(wire, 5);
    t.ok(Buffer.concat(segments.map((segment) => segment.subarray(58))).equals(payload));
    const file = join(lab.folder, 'vlan.pcap');
    writeFileSync(file, pcap(segments));
    const words = ['-n', '-r', file, '-o', 'tcp.check_checksum:TRUE', '-o', 'ip.check_checksum:TRUE', '-T', 'fields'];
    const fields = ['vlan.id', 'ip.checksum.status', 'tcp.checksum.status', 'frame.len'];
    const shown = await run(['tshark', ...words, ...fields.flatMap((field) => ['-e', field])]);
    t.same(shown.stdout.toString().trim().split('\n'), Array(5).fill('5\t1\t1\t1058'), shown.stderr);
    await wire.kill();
    await gso.kill();
    await closed();
  });
});

function u16(value: number): Buffer {
  return Buffer.from([value >> 8, value & 0xff]);
}
