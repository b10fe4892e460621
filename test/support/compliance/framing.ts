/** What readers get: pcap, raw and hex, wire frames, scopes; however small their buffers are. */
import type { Program } from '../lab.js';
import { hexOf, readPcap, untilTestFrames } from '../traffic.js';
import type { Case, Topic } from './case.js';
import type { Scene } from './scene.js';

const TRANSFER_BYTES = 500_000;

/** A TCP transfer from the node to the forwarder, which segments nothing by itself: the interface gets super-frames. */
const TRANSFER = `
$FWD /usr/bin/python3 -c '
import socket
s = socket.create_server(("10.9.0.1", 5099)); print("listening", flush=True)
c = s.accept()[0]
while c.recv(1 << 20): pass' | { read; $NODE /usr/bin/python3 -c '
import socket
socket.create_connection(("10.9.0.1", 5099)).sendall(bytes(${TRANSFER_BYTES}))'; }`;

/** What `name` shows of such a transfer. */
async function transferred(scene: Scene, name: string): Promise<Buffer> {
  const cat = await scene.reader(`eth0:tcp:10.9.0.1:5099${name}`);
  const { status, err } = await scene.sh(TRANSFER);
  if (status !== 0) throw new Error(err);
  const payload = (): number => readPcap(cat.output).reduce((sum, { original }) => sum + original - 66, 0);
  await cat.untilOutput(() => payload() >= TRANSFER_BYTES);
  await cat.kill();
  return cat.output;
}

/** Starts a script, lets frames arrive when it has said something, and ends with what it says then. */
async function meanwhile(scene: Scene, script: string, frames: readonly Buffer[]): Promise<string> {
  const program = scene.startPy(script);
  await program.untilOutput((output) => output.includes('\n'));
  await scene.put(frames);
  const { stdout, stderr } = await program.ended;
  return stdout.toString().slice(stdout.indexOf('\n') + 1) + stderr;
}

const cases: readonly Case[] = [
  {
    title: 'the pcap file header reaches each reader first, before there is a packet, also one that comes later',
    async run(scene, t) {
      const first = await scene.reader('eth0:ether:0x88b5');
      await first.untilOutput((output) => output.length === 24);
      await scene.put(scene.incoming(1));
      const later = await scene.reader('eth0:ether:0x88b5');
      await later.untilOutput((output) => output.length === 24);
      t.ok(later.output.equals(first.output.subarray(0, 24)));
      for (const reader of [first, later]) await reader.kill();
    },
  },
  {
    title: 'pcap records have the receive time of the kernel in nanoseconds',
    async run(scene, t) {
      const cat = await scene.reader('eth0:ether:0x88b5');
      const before = Date.now();
      for (let count = 1; count <= 10; count++) {
        await scene.put(scene.incoming(1));
        await untilTestFrames(cat, count);
      }
      const times = readPcap(cat.output).map(({ seconds, nanoseconds }) => seconds * 1000 + nanoseconds / 1e6);
      t.ok(times.every((time, index) => time >= (times[index - 1] ?? before - 10) && time <= Date.now() + 10));
      t.ok(readPcap(cat.output).some(({ nanoseconds }) => nanoseconds % 1000 !== 0));
      await cat.kill();
    },
  },
  {
    title: 'read byte by byte, the pcap stream is the same',
    async run(scene, t) {
      const dd = scene.start('exec 3< $F/eth0:ether:0x88b5; echo open >&2; exec dd bs=1 status=none <&3');
      await dd.untilStderr(/open/);
      const frames = scene.incoming(5);
      await scene.put(frames);
      t.same(hexOf(await untilTestFrames(dd, 5)), hexOf(frames));
      await dd.kill();
    },
  },
  {
    title: 'raw gives one packet a read, and a vector of buffers is filled with one packet',
    async run(scene, t) {
      const script = `
fd = os.open(p('eth0:ether:0x88b5:raw'), os.O_RDONLY)
show('ready')
show([len(os.read(fd, 65536)), len(os.read(fd, 65536))])
a, b = bytearray(60), bytearray(2000)
show([os.readv(fd, [a, b]), a[14:18].hex()])
`;
      const frames = [100, 200, 300].flatMap((length) => scene.incoming(1, length));
      t.equal(await meanwhile(scene, script, frames), `[100, 200]\n[300, "${frames[2]?.toString('hex', 14, 18)}"]\n`);
    },
  },
  {
    title: 'raw: a buffer that is too small gets EMSGSIZE, and the packet is there for a larger one',
    async run(scene, t) {
      const script = `
fd = os.open(p('eth0:ether:0x88b5:raw'), os.O_RDONLY)
show('ready')
show([err(os.read, fd, 99), err(os.read, fd, 1), len(os.read(fd, 100))])
`;
      t.equal(await meanwhile(scene, script, scene.incoming(1)), '["EMSGSIZE", "EMSGSIZE", 100]\n');
    },
  },
  {
    title: 'raw: a write is one packet, also of a vector of buffers',
    async run(scene, t) {
      const [frame] = scene.fresh(1) as [Buffer];
      const script = `
frame = bytes.fromhex(sys.stdin.read())
fd = os.open(p('eth0:raw'), os.O_WRONLY)
show([os.write(fd, frame), os.writev(fd, [frame[:14], frame[14:50], frame[50:]])])
`;
      const left = await scene.left(async () => {
        t.same(await scene.py(script, frame.toString('hex')), [[100, 100]]);
      });
      t.same(left, hexOf([frame, frame]));
    },
  },
  {
    title: 'hex gives one line a packet, which the read of a shell takes',
    // The shell would seek back to the end of the line.
    needs: ['stream'],
    async run(scene, t) {
      const shell = scene.start(
        'exec 3< $F/eth0:ether:0x88b5:hex; echo open; read -u 3 a; read -u 3 b; echo $a; echo $b',
      );
      await shell.untilOutput((output) => output.includes('open'));
      const frames = scene.incoming(2);
      await scene.put(frames);
      t.equal((await shell.ended).stdout.toString(), ['open', ...hexOf(frames), ''].join('\n'));
    },
  },
  {
    title: 'hex takes one packet a line, with blanks, colons, 0x and capital letters, cut anywhere',
    async run(scene, t) {
      const frames = scene.fresh(3);
      const [a = '', b = '', c = ''] = hexOf(frames);
      const lines = [a.replaceAll(/..(?=.)/g, '$&:'), b.toUpperCase().replaceAll(/..(?=.)/g, '$& '), c];
      scene.file('lines', `${lines.join('\n')}\n`);
      const left = await scene.left(async () => {
        t.equal((await scene.sh('dd if=$T/lines of=$F/eth0:hex bs=7 status=none')).err, '');
      });
      t.same(left, hexOf(frames));
    },
  },
  {
    title:
      'readers get wire frames: of a transfer with offload none is longer than the MTU, and all checksums are good',
    async run(scene, t) {
      scene.file('wire.pcap', await transferred(scene, ''));
      const long = readPcap(await transferred(scene, '')).filter(({ frame }) => frame.length > 1514);
      t.equal(long.length, 0);
      const checks = '-o ip.check_checksum:TRUE -o tcp.check_checksum:TRUE';
      const fields = `tshark -r $T/wire.pcap ${checks} -T fields -e ip.checksum.status -e tcp.checksum.status 2> /dev/null`;
      t.equal((await scene.sh(`${fields} | sort -u`)).out, '1\t1\n');
    },
  },
  {
    title: ':gso shows super-frames as the interface had them',
    async run(scene, t) {
      const frames = readPcap(await transferred(scene, ':gso')).map(({ frame }) => frame.length);
      t.ok(Math.max(...frames) > 1514, `the longest has ${Math.max(...frames)} bytes`);
    },
  },
  {
    title: 'a scope chooses between what arrives, what leaves, and both',
    async run(scene, t) {
      const scopes = ['', ':out', ':both'];
      const readers: Program[] = [];
      for (const scope of scopes) readers.push(await scene.reader(`eth0:icmp${scope}:hex`));
      await scene.sh('$NODE ping -c 1 10.9.0.1');
      const [incoming, outgoing, both] = readers as [Program, Program, Program];
      await both.untilOutput((output) => output.toString().split('\n').length === 3);
      await incoming.untilOutput((output) => output.includes('\n'));
      await outgoing.untilOutput((output) => output.includes('\n'));
      const [request, reply] = [incoming.output.toString(), outgoing.output.toString()];
      t.ok(request.includes('08004500') && request !== reply);
      t.equal(both.output.toString(), request + reply);
      for (const reader of readers) await reader.kill();
    },
  },
];

export const framing: Topic = { title: 'framing', cases };
