/** Writing a symbol: what is taken, what waits, and what a program is told. */
import { hexOf, pcap, pcapHeader, pcapng, pcapRecord } from '../traffic.js';
import type { Case, Topic } from './case.js';

/** For Python: the frames of stdin, a writer of raw frames that fills the tunnel's window while the forwarder stands still. */
const FILL = `
frames = [bytes.fromhex(line) for line in sys.stdin]
def fill(fd):
    """How many frames are taken without waiting."""
    sent = 0
    while not isinstance(err(os.write, fd, frames[sent]), str): sent += 1
    return sent
`;
/** More than what a tunnel takes without confirmation. */
const TOO_MANY = 2500;

/** A shell line that writes `$T/capture` to `$F/eth0`. */
const WAYS: readonly string[] = [
  'cat $T/capture > $F/eth0',
  'cat $T/capture >> $F/eth0',
  'cp $T/capture $F/eth0',
  'tee $F/eth0 < $T/capture > /dev/null',
  'tee -a $F/eth0 < $T/capture > /dev/null',
  'dd if=$T/capture of=$F/eth0 bs=1 status=none',
  'dd if=$T/capture of=$F/eth0 bs=61 status=none',
  'dd if=$T/capture of=$F/eth0 bs=1M status=none conv=notrunc,fsync',
  'dd if=$T/capture of=$F/eth0 bs=4096 status=none oflag=direct,sync',
  'exec 3<> $F/eth0; cat $T/capture >&3',
  'head -c 1M $T/capture > $F/eth0.pcap',
  '(head -c 24; exec cat) < $T/capture > $F/eth0',
];

/** What is refused: a name, and the bytes for it. */
const REFUSED: readonly (readonly [what: string, name: string, bytes: (frame: Buffer) => Buffer])[] = [
  ['what is no capture', 'eth0', () => Buffer.from('hello, world\n'.repeat(10))],
  ['a capture of another link type', 'eth0', (frame) => pcap([frame], { linkType: 101 })],
  [
    'a record that was cut by the snap length',
    'eth0',
    (frame) => Buffer.concat([pcapHeader(), pcapRecord(frame, {}, 0, 2000)]),
  ],
  ['a frame shorter than an Ethernet header', 'eth0', () => pcap([Buffer.alloc(13)])],
  ['a frame of another protocol than the name says', 'eth0:udp:520', (frame) => pcap([frame])],
  ['a raw frame shorter than an Ethernet header', 'eth0:raw', () => Buffer.alloc(13)],
  ['hex that is none', 'eth0:hex', () => Buffer.from('0123456789abcdefg\n')],
  ['an odd number of hex digits', 'eth0:hex', (frame) => Buffer.from(`${frame.toString('hex')}0\n`)],
];

const cases: readonly Case[] = [
  ...WAYS.map((line): Case => ({
    title: `all frames of a capture leave, once and in order: ${line}`,
    async run(scene, t) {
      const frames = [60, 61, 100, 1514].flatMap((length) => scene.fresh(2, length));
      scene.file('capture', pcap(frames));
      const left = await scene.left(async () => {
        t.same(await scene.sh(line), { status: 0, out: '', err: '' });
      });
      t.same(left, hexOf(frames));
    },
  })),
  {
    title: 'several captures follow each other in one stream: cat A.pcap B.pcapng C.pcap > FILE',
    async run(scene, t) {
      const frames = scene.fresh(9);
      scene.file('a.pcap', pcap(frames.slice(0, 3), { nanoseconds: true }));
      scene.file('b.pcapng', pcapng(frames.slice(3, 6)));
      scene.file('c.pcap', pcap(frames.slice(6), { bigEndian: true }));
      const left = await scene.left(async () => {
        t.equal((await scene.sh('cat $T/a.pcap $T/b.pcapng $T/c.pcap > $F/eth0')).err, '');
      });
      t.same(left, hexOf(frames));
    },
  },
  {
    title: 'ten thousand frames in one write are all on the interface when the file is closed',
    async run(scene, t) {
      scene.file('capture', pcap(scene.fresh(10_000)));
      const count = async (): Promise<number> => scene.lab.counter('tx_packets');
      const before = await count();
      const left = await scene.left(async () => {
        t.equal((await scene.sh('dd if=$T/capture of=$F/eth0 bs=16M status=none')).err, '');
        t.ok((await count()) - before >= 10_000);
      });
      t.equal(left.length, 10_000);
    },
  },
  {
    title: 'opening for writing sends nothing, and neither does touch, truncate or a write of nothing',
    async run(scene, t) {
      const left = await scene.left(async () => {
        const { err, status } = await scene.sh(
          ': > $F/eth0; : >> $F/eth0; touch $F/eth0; truncate -s 0 $F/eth0; sync $F/eth0; printf "" > $F/eth0:raw',
        );
        t.same([status, err], [0, '']);
      });
      t.same(left, []);
    },
  },
  {
    title:
      'without credit a write gets EAGAIN with O_NONBLOCK and the file is not writable, until there is credit again',
    needs: ['late-nonblock', 'poll'],
    async run(scene, t) {
      const script = `${FILL}
fd = os.open(p('eth0:raw'), os.O_WRONLY | os.O_NONBLOCK)
poll = select.poll(); poll.register(fd, select.POLLOUT)
show(len(poll.poll(0)))
os.kill(FORWARDER, signal.SIGSTOP)
sent = fill(fd)
show([err(os.write, fd, frames[0]), len(poll.poll(0))])
os.kill(FORWARDER, signal.SIGCONT)
show(len(poll.poll()))
for frame in frames[sent:]:
    while err(os.write, fd, frame) == 'EAGAIN': poll.poll()
show(err(os.close, fd))
`.replaceAll('FORWARDER', String(scene.lab.forwarder?.pid));
      const frames = scene.fresh(TOO_MANY, 1000);
      const left = await scene.left(async () => {
        t.same(await scene.py(script, hexOf(frames).join('\n')), [1, ['EAGAIN', 0], 1, null]);
      });
      t.same(left, hexOf(frames), 'nothing is lost');
    },
  },
  {
    title: 'without credit a write waits for its own opener only, and SIGKILL ends it at once',
    needs: ['interrupt', 'own-inode', 'late-nonblock'],
    async run(scene, t) {
      const frames = scene.fresh(TOO_MANY, 1000);
      const script = `${FILL}
other = os.open(p('eth0:raw'), os.O_WRONLY)
fd = os.open(p('eth0:raw'), os.O_WRONLY | os.O_NONBLOCK)
os.kill(FORWARDER, signal.SIGSTOP)
sent = fill(fd)
os.set_blocking(fd, True)
pid = os.fork()
if pid == 0: os.write(fd, frames[sent])
while open('/proc/%d/wchan' % pid).read() != 'request_wait_answer': time.sleep(0.001)
show(os.write(other, frames[-1]))
os.kill(pid, signal.SIGKILL)
show([os.waitpid(pid, 0)[1] == signal.SIGKILL, sent])
os.kill(FORWARDER, signal.SIGCONT)
`.replaceAll('FORWARDER', String(scene.lab.forwarder?.pid));
      let sent = 0;
      const left = await scene.left(async () => {
        const [written, killed] = await scene.py(script, hexOf(frames).join('\n'));
        sent = (killed as [boolean, number])[1];
        t.same([written, killed], [1000, [true, sent]]);
      });
      const last = hexOf(frames.slice(-1))[0] as string;
      t.equal(left.filter((frame) => frame === last).length, 1);
      t.ok(left.filter((frame) => frame !== last).join() === hexOf(frames.slice(0, sent)).join(), 'each leaves once');
    },
  },
  {
    title: 'fsync and fdatasync return when every frame is on the interface',
    async run(scene, t) {
      const script = `
fd = os.open(p('eth0:raw'), os.O_WRONLY)
def count(): return int(open(p('.if/eth0/statistics/tx_packets')).read())
for barrier in (os.fsync, os.fdatasync):
    before = count()
    for line in range(200): os.write(fd, bytes.fromhex('${hexOf(scene.fresh(1))[0]}'))
    barrier(fd)
    show(count() - before >= 200)
`;
      t.same(await scene.py(script), [true, true]);
    },
  },
  {
    title:
      'a frame that is too long for the MTU fails fsync or close with EIO once, .state says why, and the others leave',
    async run(scene, t) {
      const frames = [...scene.fresh(1), ...scene.fresh(1, 1600), ...scene.fresh(1)];
      const script = `
frames = [bytes.fromhex(line) for line in sys.stdin]
for barrier in (os.fsync, os.close):
    fd = os.open(p('eth0:raw'), os.O_WRONLY)
    show([os.write(fd, frame) for frame in frames])
    show([err(barrier, fd), err(os.close, fd)])
`;
      const left = await scene.left(async () => {
        t.same(await scene.py(script, hexOf(frames).join('\n')), [
          [100, 1600, 100],
          ['EIO', null],
          [100, 1600, 100],
          ['EIO', 'EBADF'],
        ]);
        t.match(await scene.state('last_error'), /eth0: frame not sent \(EMSGSIZE\)/);
      });
      const good = hexOf([frames[0], frames[2]] as Buffer[]);
      t.same(left, [...good, ...good]);
    },
  },
  {
    title: 'with O_SYNC each write says itself whether its frame is on the interface',
    async run(scene, t) {
      const frames = [...scene.fresh(1), ...scene.fresh(1, 1600), ...scene.fresh(1)];
      const script = `
fd = os.open(p('eth0:raw'), os.O_WRONLY | os.O_SYNC)
show([err(os.write, fd, bytes.fromhex(line)) for line in sys.stdin])
`;
      t.same(await scene.py(script, hexOf(frames).join('\n')), [[100, 'EIO', 100]]);
    },
  },
  {
    title: "a line of hex says at once whether it is on the interface, to the shell's own echo too",
    async run(scene, t) {
      const [good, long] = [...scene.fresh(1), ...scene.fresh(1, 1600)] as [Buffer, Buffer];
      const { out, err } = await scene.sh(
        'exec 3> $F/eth0:hex; for frame; do echo $frame >&3; echo $?; done',
        ...hexOf([good, long, good]),
      );
      t.equal(out, '0\n1\n0\n');
      t.match(err, /write error: Input\/output error/);
    },
  },
  {
    title: 'while the interface is down frames fail with EIO, .state says ENETDOWN, and afterwards they leave',
    async run(scene, t) {
      const frames = scene.fresh(1);
      scene.file('capture', pcap(frames));
      const left = await scene.left(async () => {
        const down = await scene.sh('$FWD ip link set eth0 down; cat $T/capture > $F/eth0; $FWD ip link set eth0 up');
        t.match(down.err, /Input\/output error/);
        t.match(await scene.state('last_error'), /frame not sent \(ENETDOWN\)/);
        t.equal((await scene.sh('cat $T/capture > $F/eth0')).err, '');
      });
      t.same(left, hexOf(frames));
    },
  },
  ...REFUSED.map(([what, name, bytes]): Case => ({
    title: `${what} is refused with EINVAL, and nothing of it leaves`,
    async run(scene, t) {
      const file = scene.file('bad', bytes(scene.fresh(1)[0] as Buffer));
      const left = await scene.left(async () => {
        t.match((await scene.sh('cat $1 > $F/$2', file, name)).err, /Invalid argument/);
      });
      t.same(left, []);
    },
  })),
  {
    title: 'a bad record after good ones gives a short count, then EINVAL, and the good ones leave',
    async run(scene, t) {
      const frames = scene.fresh(2);
      const stream = Buffer.concat([pcap(frames), Buffer.alloc(16, 0xff)]);
      const script = `
data = sys.stdin.buffer.read()
fd = os.open(p('eth0'), os.O_WRONLY)
done = os.write(fd, data)
show([done < len(data), err(os.write, fd, data[done:])])
`;
      const left = await scene.left(async () => {
        t.same(await scene.py(script, stream), [[true, 'EINVAL']]);
      });
      t.same(left, hexOf(frames));
    },
  },
  {
    title: 'a capture whose last record is cut off fails the close with EINVAL, and the records before it leave',
    async run(scene, t) {
      const frames = scene.fresh(3);
      scene.file('capture', pcap(frames).subarray(0, -1));
      const left = await scene.left(async () => {
        t.match((await scene.sh('cat $T/capture > $F/eth0')).err, /Invalid argument/);
      });
      t.same(left, hexOf(frames.slice(0, 2)));
    },
  },
  {
    title: 'who shares an open file is told at its close that a record is cut off, and the next one finishes it',
    async run(scene, t) {
      const frames = scene.fresh(3);
      scene.file('capture', pcap(frames));
      const left = await scene.left(async () => {
        const { err } = await scene.sh('{ head -c 30; cat; } < $T/capture > $F/eth0');
        t.equal(err, 'head: write error: Invalid argument\n');
      });
      t.same(left, hexOf(frames));
    },
  },
  {
    title: 'two who write at the same time do not disturb each other: both captures leave whole',
    async run(scene, t) {
      const [one, other] = [scene.fresh(300), scene.fresh(300)];
      scene.file('one', pcap(one));
      scene.file('other', pcap(other));
      const left = await scene.left(async () => {
        const line = 'dd if=$T/one of=$F/eth0 bs=77 status=none & dd if=$T/other of=$F/eth0 bs=333 status=none & wait';
        t.equal((await scene.sh(line)).err, '');
      });
      const firsts = new Set(hexOf(one));
      t.same(
        left.filter((frame) => firsts.has(frame)),
        hexOf(one),
      );
      t.same(
        left.filter((frame) => !firsts.has(frame)),
        hexOf(other),
      );
    },
  },
  {
    title: 'a writer that is killed within a record leaves what was whole, and the next one starts anew',
    async run(scene, t) {
      const frames = scene.fresh(2);
      scene.file('capture', pcap(frames));
      const left = await scene.left(async () => {
        await scene.sh('{ head -c 150 $T/capture; kill -9 $BASHPID; } > $F/eth0');
        t.equal((await scene.sh('cat $T/capture > $F/eth0')).err, '');
      });
      t.same(left, hexOf([frames[0], ...frames] as Buffer[]));
    },
  },
  {
    title: ':paced keeps the distances of the timestamps',
    async run(scene, t) {
      scene.file('capture', pcap(scene.fresh(4), { spacingMs: 100 }));
      const { out, err } = await scene.sh('TIMEFORMAT=%R; time cat $T/capture > $F/eth0:paced 2>&1');
      t.ok(Number(err) >= 0.29, `${err} ${out}`);
    },
  },
];

export const writing: Topic = { title: 'writing', cases };
