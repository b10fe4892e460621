/**
 * The main job: a remote interface is a file.
 *
 *     ping, raw frames                                                cat eth0 | tcpdump -nr -
 *     node n0 ================= eth0 forwarder c0 ================= f0 control device
 *     tcpdump: what leaves      distribution table                  cat trace.pcap > eth0
 *
 * Source text: Fig. 1, 5, 7, 10 to 12, 24, 28 to 32; S222, S223, S601, S602, S605, S607 to S613, S701 to S706, S901 to S905,
 * S1001 to S1007, S1101 to S1109, S1201 to S1207.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Lab, type Program, run, shell, signalProcess, until } from '../support/lab.js';
import { withoutRoot } from '../support/netns.js';
import {
  addressed,
  Capture,
  filler,
  hexOf,
  macOf,
  numbered,
  pcap,
  python,
  readPcap,
  send,
  untilTestFrames,
} from '../support/traffic.js';
import { ethernet, ipv4, ipv6, tcp, udp } from '../vectors/packet-frames.js';

/** IPv4, IPv6, ARP and VLAN tagged frames of 60 to 1514 bytes, each different from all others. */
function mixture(destination: string): Buffer[] {
  const frames: Buffer[] = [];
  for (const [index, length] of [60, 61, 64, 127, 128, 590, 1000, 1499, 1500, 1513, 1514].entries()) {
    frames.push(
      ethernet(0x0800, ipv4({ protocol: 17, id: index }, udp(4000, 4001, filler(length - 42, index)))),
      ethernet(0x0800, ipv4({ protocol: 6, id: index }, tcp({}, filler(length - 54, index)))),
      ethernet(0x88b5, filler(length - 14, index)),
      ethernet(0x88b5, filler(length - 18, index), [[0x8100, 5]]),
      ethernet(0x88b5, filler(length - 22, index), [
        [0x88a8, 7],
        [0x8100, 0x6005],
      ]),
    );
    if (length >= 62) frames.push(ethernet(0x86dd, ipv6(17, udp(4000, 4001, filler(length - 62, index)))));
  }
  const arp = Buffer.from('0001080006040001020000000001c0000201000000000000c0000202', 'hex');
  frames.push(ethernet(0x0806, Buffer.concat([arp, Buffer.alloc(18)])));
  return frames.map((frame) => addressed(frame, destination));
}

t.test('a remote interface is a file', { skip: withoutRoot, timeout: 60_000 }, async (t) => {
  const lab = await Lab.start();
  t.teardown(() => lab.stop());
  const eth0 = lab.file('eth0');
  const withoutRules = (timeoutMs = 2000): Promise<void> =>
    until(
      async () => (await lab.table('distribution')).length === 0,
      timeoutMs,
      () => 'a rule is left',
    );

  await t.test('open() sets the rule at the forwarder, and it is there only while the file is open', async (t) => {
    t.same(await lab.table('distribution'), []);
    t.same(await lab.ownTable('reception'), []);
    const cat = await lab.reader('eth0');
    const [rule, ...rest] = await lab.table('distribution');
    t.same(rest, []);
    const [own, ...others] = await lab.ownTable('reception');
    t.same(others, []);
    t.same(rule?.slice(0, 7), ['eth0', '*', 'in', own?.[0], 'ctl1', '10.8.0.2', 'active']);
    t.same(own?.slice(1, 6), ['fwd1/eth0', '*', 'in', 'active', '1']);
    await cat.kill();
    await withoutRules();
    t.same(await lab.ownTable('reception'), []);
  });

  await t.test('cat | tcpdump -nr - shows the packets as they come', async (t) => {
    const line = 'exec 3<"$1"; echo open >&2; exec cat <&3 | tcpdump -lnr - icmp';
    const shown = lab.program(['/bin/bash', '-c', line, '-', eth0]);
    await shown.untilStderr(/open/);
    for (let count = 1; count <= 3; count++) {
      lab.node.run('ping -c 1 -W 2 10.9.0.1');
      await shown.untilOutput((output) => output.toString().split('echo request').length === count + 1, 1000);
    }
    t.match(shown.output.toString(), /IP 10\.9\.0\.2 > 10\.9\.0\.1: ICMP echo request, id \d+, seq 1, length 64/);
    const cat = lab.program(['pgrep', '-P', String(shown.pid), 'cat']);
    const { stdout } = await cat.ended;
    signalProcess(Number(stdout.toString().trim()), 'SIGTERM');
    t.equal((await shown.ended).status, 0, 'tcpdump sees the end of the file');
    await withoutRules();
  });

  await t.test('what a pcap file holds leaves the remote interface byte for byte', async (t) => {
    const frames = mixture(macOf(lab.node, 'n0'));
    const trace = join(lab.folder, 'trace.pcap');
    writeFileSync(trace, pcap(frames));
    const capture = await Capture.start(lab, lab.node, 'n0', 'in');
    const written = await shell(`cat ${trace} > ${eth0}`);
    t.equal(written.status, 0, written.stderr);
    await capture.untilCount(frames.length);
    t.same(hexOf(await capture.stop()), hexOf(frames));
  });

  await t.test('what arrives at the remote interface is read byte for byte', async (t) => {
    const frames = mixture(macOf(lab.fwd, 'eth0'));
    const cat = await lab.reader('eth0');
    const capture = await Capture.start(lab, lab.fwd, 'eth0', 'in');
    await send(lab.node, 'n0', frames);
    t.same(hexOf(await untilTestFrames(cat, frames.length)), hexOf(frames));
    const captured = await capture.untilCount(frames.length);
    t.same(hexOf(captured), hexOf(frames));
    t.ok(readPcap(cat.output).every((record) => record.original === record.frame.length));
    await capture.stop();
    await cat.kill();
    await withoutRules();
  });

  await t.test('two readers each get every packet, and one up tunnel crosses the wire', async (t) => {
    const readers = [await lab.reader('eth0'), await lab.reader('eth0.pcap')];
    t.equal((await lab.table('distribution')).length, 1);
    t.equal((await lab.ownTable('reception'))[0]?.[5], '2');
    const before = await lab.counter('forwarder_up_frames');
    const frames = numbered(500, 200);
    await send(lab.node, 'n0', frames);
    for (const reader of readers) {
      t.same(hexOf(await untilTestFrames(reader, frames.length)), hexOf(frames));
    }
    const copies = (await lab.counter('forwarder_up_frames')) - before;
    t.ok(copies >= frames.length && copies < 1.1 * frames.length, `${copies} frames for two readers`);
    const [first, second] = readers as [Program, Program];
    await first.kill();
    await send(lab.node, 'n0', numbered(1, 60));
    await untilTestFrames(second, frames.length + 1);
    t.equal((await lab.table('distribution')).length, 1, 'the rule is there for the other one');
    await second.kill();
    await withoutRules();
  });

  await t.test('packets that match no rule never reach the control device', async (t) => {
    const mac = macOf(lab.fwd, 'eth0');
    const datagram = (port: number, id: number): Buffer =>
      addressed(ethernet(0x0800, ipv4({ protocol: 17, id }, udp(4000, port, filler(1400, id)))), mac);
    const linkBytes = (): number => {
      const words = lab.ctl
        .run('cat /proc/net/dev')
        .split('\n')
        .find((line) => line.includes('f0:'));
      return Number(words?.split(':')[1]?.trim().split(/\s+/)[0]);
    };
    const cat = await lab.reader('eth0:udp:520');
    const counted = ['control_rx_frames', 'forwarder_up_frames'];
    const before = await Promise.all(counted.map((name) => lab.counter(name)));
    const bytes = linkBytes();
    const others = Array.from({ length: 300 }, (_, id) => datagram(521, id));
    await send(lab.node, 'n0', [...others, datagram(520, 1000)]);
    t.same(hexOf(await untilTestFrames(cat, 1)), hexOf([datagram(520, 1000)]));
    const grown = linkBytes() - bytes;
    t.ok(grown < 20_000, `${grown} bytes for one frame of ${1400 + 42}`);
    const after = await Promise.all(counted.map((name) => lab.counter(name)));
    t.same(
      after.map((value, index) => value - (before[index] ?? 0)),
      [1, 1],
    );
    await cat.kill();
    await withoutRules();
  });

  await t.test('the rule lives until the last of dup and fork closes', async (t) => {
    const script = `
fd = os.open(p('eth0'), os.O_RDONLY)
other = os.dup(fd)
os.close(fd)
show(len(rules()))
r, w = os.pipe()
child = os.fork()
if child == 0:
    os.close(w)
    os.read(r, 1)
    os._exit(0)
os.close(r)
os.close(other)
time.sleep(0.1)
show(len(rules()))
os.close(w)
os.waitpid(child, 0)
show(gone() < 1)
`;
    t.same(await python(lab, script), [1, 1, true]);
  });

  await t.test('a reader killed by SIGKILL leaves no rule behind', async (t) => {
    const script = `
times = []
for i in range(20):
    r, w = os.pipe()
    child = os.fork()
    if child == 0:
        fd = os.open(p('eth0'), os.O_RDWR)
        os.write(w, b'x')
        while True: os.read(fd, 65536)
    os.read(r, 1)
    assert len(rules()) == 1
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    times.append(gone())
show(max(times))
`;
    const [longest] = await python(lab, script);
    t.comment(`gone after ${Number(longest) * 1000} ms at most`);
  });

  await t.test('one descriptor reads and writes: an ARP request goes out and its answer comes in', async (t) => {
    const own = macOf(lab.fwd, 'eth0').replaceAll(':', '');
    const request = `ffffffffffff${own}08060001080006040001${own}0a0900010000000000000a090002${'00'.repeat(18)}`;
    const script = `
fd = os.open(p('eth0:arp:raw'), os.O_RDWR)
show(len(rules()))
show(os.write(fd, bytes.fromhex('${request}')))
while True:
    frame = os.read(fd, 65536)
    if frame[20:22] == b'\\0\\2': break
show(frame[:42].hex())
`;
    const node = macOf(lab.node, 'n0').replaceAll(':', '');
    const answer = `${own}${node}08060001080006040002${node}0a090002${own}0a090001`;
    t.same(await python(lab, script), [1, 60, answer]);
    await withoutRules();
  });

  await t.test('a signal ends a blocked reader at once', async (t) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      const cat = await lab.reader('eth0:udp:9');
      await cat.untilOutput((output) => output.length === 24);
      const ms = await cat.kill(signal);
      t.equal((await cat.ended).signal, signal);
      t.comment(`${signal} took ${ms} ms`);
    }
    await withoutRules();
  });

  await t.test('close() returns when the last frame is on the interface', async (t) => {
    const frames = numbered(3000, 1000, macOf(lab.node, 'n0'));
    const trace = join(lab.folder, 'many.pcap');
    writeFileSync(trace, pcap(frames));
    const capture = await Capture.start(lab, lab.node, 'n0', 'in');
    const count = `${lab.node.prefix.join(' ')} cat /proc/net/dev | sed -n 's/.*n0: *//p' | cut -d' ' -f1`;
    const { stdout, stderr } = await shell(`${count}; cat ${trace} > ${eth0}; ${count}`);
    const [before = 0, after = 0] = stdout.toString().trim().split('\n').map(Number);
    t.ok(after - before >= 3000 * 1000, `${after - before} bytes had arrived ${stderr}`);
    await capture.untilCount(frames.length);
    t.same(hexOf(await capture.stop()), hexOf(frames));
  });

  await t.test('nothing is left at the end', async (t) => {
    await withoutRules();
    t.same(await lab.ownTable('reception'), []);
    t.equal((await lab.ownTable('transmission')).length, 1, "the symbol's own tunnel");
    t.equal((await lab.table('reception')).length, 1);
    const { status } = await run(['umount', lab.mountPoint]);
    t.equal(status, 0, 'it can be unmounted');
  });
});
