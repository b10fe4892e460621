/**
 * What readers get: wire frames with finished checksums, in the framing of the name, however small their buffers are.
 *
 *     TCP with segmentation offload                         pcap, :gso, raw, hex
 *     node n0 ==================== eth0 forwarder c0 ==================== f0 control device
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
  pythonWords,
  readPcap,
  send,
  shown,
  testFrames,
  untilTestFrames,
} from '../support/traffic.js';
import { ethernet } from '../vectors/packet-frames.js';

const TRANSFER_BYTES = 2_000_000;
const PORT = 5099;

const SERVER = `
import socket
s = socket.create_server(('10.9.0.1', ${PORT}))
print('listening', flush=True)
c, _ = s.accept()
n = 0
while True:
    data = c.recv(1 << 20)
    if not data: break
    n += len(data)
print(n, flush=True)
`;

const CLIENT = `
import socket
c = socket.create_connection(('10.9.0.1', ${PORT}))
c.sendall(bytes(i * 7 & 255 for i in range(${TRANSFER_BYTES})))
`;

/** Sequence numbers and payload of the TCP segments of a stream of frames. */
function segments(frames: readonly Buffer[]): { sequence: number; payload: Buffer; bytes: number }[] {
  return frames.map((frame) => {
    const ip = 14;
    const header = ((frame[ip] ?? 0) & 15) * 4;
    const at = ip + header;
    const end = ip + frame.readUInt16BE(ip + 2);
    const data = at + ((frame[at + 12] ?? 0) >> 4) * 4;
    return { sequence: frame.readUInt32BE(at + 4), payload: frame.subarray(data, end), bytes: frame.length };
  });
}

t.test('framings', { skip: withoutRoot, timeout: 60_000 }, async (t) => {
  const lab = await Lab.start();
  t.teardown(() => lab.stop());
  const mac = macOf(lab.fwd, 'eth0');

  await t.test('a TCP transfer with offload: pcap shows wire frames, :gso what the interface had', async (t) => {
    const tcp = `eth0:tcp:10.9.0.1:${PORT}`;
    const names = [tcp, `${tcp}:gso`, `${tcp}:raw`, `${tcp}:hex`];
    const [wire, gso, raw, hex] = (await Promise.all(
      names.map((name) => (name.endsWith(':raw') ? rawReader(lab, name) : lab.reader(name))),
    )) as [Program, Program, Program, Program];
    t.equal((await lab.table('distribution')).length, 1, 'framings share the rule');
    const capture = await Capture.start(lab, lab.fwd, 'eth0', 'in', `tcp dst port ${PORT}`, 65_535);
    const server = lab.program([...lab.fwd.prefix, 'python3', '-c', SERVER]);
    await server.untilOutput((output) => output.includes('listening'));
    const client = await run([...lab.node.prefix, 'python3', '-c', CLIENT]);
    t.equal(client.status, 0, client.stderr);
    await server.untilOutput((output) => output.includes(`${TRANSFER_BYTES}`));
    const payloadOf = (stream: Buffer): number =>
      segments(readPcap(stream).map((record) => record.frame)).reduce((sum, one) => sum + one.payload.length, 0);
    for (const reader of [wire, gso]) await reader.untilOutput((output) => payloadOf(output) >= TRANSFER_BYTES);
    await until(() => payloadOf(capture.stream) >= TRANSFER_BYTES);
    const captured = await capture.stop();

    const frames = readPcap(wire.output).map((record) => record.frame);
    t.ok(Math.max(...captured.map((frame) => frame.length)) > 1514, 'the interface had super-frames');
    t.equal(Math.max(...frames.map((frame) => frame.length)), 1514, 'the reader has none');
    const superFrames = readPcap(gso.output).map((record) => record.frame);
    t.ok(Math.max(...superFrames.map((frame) => frame.length)) > 1514, ':gso has them');
    t.same(
      segments(superFrames).map(({ bytes }) => bytes),
      segments(captured)
        .map(({ bytes }) => bytes)
        .slice(0, superFrames.length),
      'the same ones as tcpdump',
    );

    const file = join(lab.folder, 'wire.pcap');
    writeFileSync(file, wire.output);
    const options = ['-o', 'tcp.check_checksum:TRUE', '-o', 'ip.check_checksum:TRUE'];
    const fields = ['ip.checksum.status', 'tcp.checksum.status'];
    const checked = await run([
      'tshark',
      '-n',
      '-r',
      file,
      ...options,
      '-T',
      'fields',
      ...fields.flatMap((f) => ['-e', f]),
    ]);
    const verdicts = checked.stdout.toString().trim().split('\n');
    t.equal(verdicts.length, frames.length, checked.stderr);
    t.ok(
      verdicts.every((line) => line === '1\t1'),
      'tshark finds every checksum good',
    );

    let expected = segments(frames)[0]?.sequence ?? 0;
    const all = Buffer.concat(
      segments(frames).map(({ sequence, payload }, index) => {
        // A sender that waits too long for an acknowledgement sends again: those bytes were there.
        const repeated = payload.length === 0 ? 0 : (expected - sequence) >>> 0;
        t.ok(repeated <= TRANSFER_BYTES, `segment ${index} leaves nothing out`);
        const news = payload.subarray(repeated);
        if (index === 0) expected += 1; // SYN
        expected = (expected + news.length) >>> 0;
        return news;
      }),
    );
    t.ok(
      all.equals(Buffer.from(Array.from({ length: TRANSFER_BYTES }, (_, i) => (i * 7) & 255))),
      'nothing is missing',
    );

    await hex.untilOutput((output) => output.toString('latin1').split('\n').length > frames.length);
    t.same(hex.output.toString('latin1').split('\n').slice(0, frames.length), hexOf(frames), 'hex shows the same');
    await raw.untilOutput((output) => output.toString('latin1').split('\n').length > frames.length);
    t.same(raw.output.toString('latin1').split('\n').slice(0, frames.length), hexOf(frames), 'raw shows the same');
    for (const reader of [wire, gso, raw, hex, server]) await reader.kill('SIGKILL');
  });

  await t.test('a reader of single bytes gets the same stream', async (t) => {
    const frames = [...numbered(5, 60, mac), ...numbered(5, 1514, mac, 5)];
    const count = 24 + frames.reduce((sum, frame) => sum + 16 + frame.length, 0);
    const readers = [1, 7, 1000].map((size) =>
      lab.program(['dd', `if=${lab.file('eth0:ether:0x88b5')}`, `bs=${size}`, 'status=none']),
    );
    await until(async () => (await lab.ownTable('reception'))[0]?.[5] === '3');
    await send(lab.node, 'n0', frames);
    for (const reader of readers) {
      t.same(hexOf(await untilTestFrames(reader, frames.length)), hexOf(frames));
      t.equal(reader.output.length, count);
      t.same(reader.output, readers[0]?.output);
      await reader.kill();
    }
  });

  await t.test("bash's own read gets a frame a line from hex", async (t) => {
    const line = 'while read -r line; do echo "got $line"; done < "$1"';
    const reader = lab.program(['/bin/bash', '-c', line, '-', lab.file('eth0:ether:0x88b5:hex')]);
    await until(async () => (await lab.table('distribution')).length === 1);
    const frames = numbered(3, 60, mac);
    await send(lab.node, 'n0', frames);
    await reader.untilOutput((output) => output.toString().split('\n').length === 4);
    t.equal(
      reader.output.toString(),
      hexOf(frames)
        .map((frame) => `got ${frame}\n`)
        .join(''),
    );
    await reader.kill();
  });

  await t.test('whole records come where the buffer has room for them', async (t) => {
    const script = `
fd = os.open(p('eth0:ether:0x88b5'), os.O_RDONLY)
show('open')
sys.stdin.readline()
time.sleep(0.05)
show([len(os.read(fd, 24)), len(os.read(fd, 16 + 100)), len(os.read(fd, 2 * 116 + 115)), len(os.read(fd, 50)), len(os.read(fd, 4096))])
`;
    const frames = numbered(10, 100, mac);
    const program = lab.program([
      '/bin/bash',
      '-c',
      'exec "$@" < <(sleep 0.5; echo)',
      '-',
      ...pythonWords(lab, script),
    ]);
    await program.untilOutput((output) => output.includes('open'));
    await send(lab.node, 'n0', frames);
    t.same(shown(await program.ended), ['open', [24, 116, 232, 50, 6 * 116 + 66]]);
  });

  await t.test('receive times are those of the packets: in order, with nanoseconds', async (t) => {
    const reader = await lab.reader('eth0:ether:0x88b5');
    const capture = await Capture.start(lab, lab.fwd, 'eth0', 'in');
    const started = Date.now() / 1000;
    await send(lab.node, 'n0', numbered(50, 100, mac));
    await untilTestFrames(reader, 50);
    const ended = Date.now() / 1000;
    await capture.untilCount(50);
    const times = readPcap(reader.output).map((record) => record.seconds + record.nanoseconds / 1e9);
    t.equal(reader.output.readUInt32LE(0), 0xa1b23c4d, 'the magic number of nanoseconds');
    t.ok(
      times.every((time) => time >= started - 0.01 && time <= ended + 0.01),
      'between sending and receiving',
    );
    t.ok(
      times.every((time, index) => index === 0 || time >= (times[index - 1] ?? 0)),
      'in order',
    );
    t.ok(
      readPcap(reader.output).some((record) => record.nanoseconds % 1000 !== 0),
      'finer than microseconds',
    );
    const theirs = capture.records.map((record) => record.seconds + record.nanoseconds / 1e9);
    t.ok(
      theirs.every((time, index) => Math.abs(time - (times[index] ?? 0)) < 0.001),
      'as tcpdump has them',
    );
    await capture.stop();
    await reader.kill();
  });

  await t.test('a reader that is too slow loses the newest packets, whole, and nobody else does', async (t) => {
    const slow = await lab.reader('eth0:ether:0x88b5');
    slow.child.kill('SIGSTOP');
    const quick = await lab.reader('eth0:ether:0x88b5');
    const before = await lab.counter('drop_reader_slow');
    const frames = numbered(8000, 1500, mac);
    for (let at = 0; at < frames.length; at += 1000) {
      await send(lab.node, 'n0', frames.slice(at, at + 1000));
      await untilTestFrames(quick, at + 1000);
    }
    const dropped = (await lab.counter('drop_reader_slow')) - before;
    t.ok(dropped > 1000, `${dropped} frames were dropped and counted`);
    slow.child.kill('SIGCONT');
    const kept = await untilTestFrames(slow, frames.length - dropped);
    t.same(hexOf(kept), hexOf(frames.slice(0, kept.length)), 'the oldest are kept in order');
    const last = numbered(1, 60, mac, 77_777);
    await send(lab.node, 'n0', last);
    await untilTestFrames(slow, kept.length + 1);
    t.same(hexOf(testFrames(slow.output).slice(kept.length)), hexOf(last), 'the stream goes on behind the gap');
    await slow.kill('SIGKILL');
    await quick.kill();
  });

  await t.test('jumbo frames of 9000 bytes pass whole, both ways', async (t) => {
    lab.node.run('ip link set n0 mtu 9000');
    lab.fwd.run('ip link set eth0 mtu 9000');
    const frame = addressed(ethernet(0x88b5, filler(9000, 1)), mac);
    const reader = await lab.reader('eth0:ether:0x88b5');
    await send(lab.node, 'n0', [frame]);
    t.same(hexOf(await untilTestFrames(reader, 1)), hexOf([frame]));
    await reader.kill();
    const capture = await Capture.start(lab, lab.node, 'n0', 'in', undefined, 65_535);
    const written = await run(['/bin/bash', '-c', 'cat > "$1"', '-', lab.file('eth0')], reader.output);
    t.equal(written.status, 0, written.stderr);
    t.same(hexOf(await capture.untilCount(1)), hexOf([frame]), 'what was read can be written');
    await capture.stop();
  });
});

/** Reads packets one by one and prints each as a line of hex. */
async function rawReader(lab: Lab, name: string): Promise<Program> {
  const script = `
fd = os.open(p('${name}'), os.O_RDONLY)
print('open', file=sys.stderr, flush=True)
while True: print(os.read(fd, 65536).hex(), flush=True)
`;
  const program = lab.program(pythonWords(lab, script));
  await program.untilStderr(/open/);
  return program;
}
