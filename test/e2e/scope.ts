/**
 * Scopes: which frames of the interface a name shows, and what the interface is asked for meanwhile.
 *
 *     node n0 ================= eth0 forwarder c0 ============ f0 control device
 *     n0.5, n0.7: tagged        eth0.5                         eth0   eth0:out   eth0:both   eth0:promisc
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Lab, run, until } from '../support/lab.js';
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
import { ethernet, ipv4, udp } from '../vectors/packet-frames.js';

const TRANSFER = `
import socket, sys
s = socket.create_server(('10.9.5.1', 5099))
print('listening', flush=True)
c, _ = s.accept()
n = 0
while n < 300000: n += len(c.recv(1 << 20))
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
    const names = ['eth0:icmp', 'eth0:icmp:out', 'eth0:icmp:both'];
    const readers = await Promise.all(names.map((name) => lab.reader(name)));
    const capture = await Capture.start(lab, lab.fwd, 'eth0', 'inout', 'icmp');
    lab.fwd.run('ping -c 2 -i 0.01 10.9.0.2');
    lab.node.run('ping -c 1 10.9.0.1');
    const all = hexOf(await capture.untilCount(6));
    await capture.stop();
    const sent = all.filter((frame) => frame.slice(12, 24) === mac.replaceAll(':', ''));
    for (const [index, expected] of [all.filter((frame) => !sent.includes(frame)), sent, all].entries()) {
      const reader = readers[index] ?? t.fail('no reader');
      if (typeof reader === 'boolean') continue;
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

  await t.test('VLAN tags that were stripped are put back', async (t) => {
    lab.node.run('ip link add link n0 name n0.5 type vlan id 5');
    lab.node.run('ip link add link n0 name n0.7 type vlan proto 802.1ad id 7');
    for (const name of ['n0.5', 'n0.7']) lab.node.run(`ip link set ${name} addrgenmode none up`);
    const reader = await lab.reader('eth0:ether:0x88b5');
    const all = await lab.reader('eth0');
    const [plain, five, seven] = numbered(3, 100, mac) as [Buffer, Buffer, Buffer];
    await send(lab.node, 'n0', [plain]);
    await send(lab.node, 'n0.5', [five]);
    await send(lab.node, 'n0.7', [seven]);
    const tagged = (frame: Buffer, tag: string): Buffer =>
      Buffer.concat([frame.subarray(0, 12), Buffer.from(tag, 'hex'), frame.subarray(12)]);
    const expected = hexOf([plain, tagged(five, '81000005'), tagged(seven, '88a80007')]);
    t.same(hexOf(await untilTestFrames(all, 3)), expected);
    t.same(hexOf(await untilTestFrames(reader, 3)), expected, 'and the protocol address is looked for behind them');
    await reader.kill();
    await all.kill();
    await closed();
  });

  await t.test('a TCP transfer within a VLAN is shown as tagged wire frames with good checksums', async (t) => {
    lab.fwd.run('ip link add link eth0 name eth0.5 type vlan id 5');
    lab.fwd.run('ip addr add 10.9.5.1/24 dev eth0.5');
    lab.fwd.run('ip link set eth0.5 up');
    lab.node.run('ip addr add 10.9.5.2/24 dev n0.5');
    const reader = await lab.reader('eth0:tcp:5099');
    const server = lab.program([...lab.fwd.prefix, 'python3', '-c', TRANSFER]);
    await server.untilOutput((output) => output.includes('listening'));
    const client = `import socket; socket.create_connection(('10.9.5.1', 5099)).sendall(b'x' * 300000)`;
    t.equal((await run([...lab.node.prefix, 'python3', '-c', client])).status, 0);
    await server.ended;
    await reader.untilOutput((output) => output.length >= 300_000);
    const file = join(lab.folder, 'vlan.pcap');
    writeFileSync(file, pcap(readPcap(reader.output).map((record) => record.frame)));
    const words = ['-n', '-r', file, '-o', 'tcp.check_checksum:TRUE', '-T', 'fields'];
    const shown = await run(['tshark', ...words, '-e', 'vlan.id', '-e', 'tcp.checksum.status']);
    const lines = shown.stdout.toString().trim().split('\n');
    t.ok(lines.length > 200 && lines.every((line) => line === '5\t1'), `${lines.length} frames: ${lines[0]}`);
    t.ok(readPcap(reader.output).every((record) => record.frame.length <= 1518));
    await reader.kill();
    await closed();
  });
});
