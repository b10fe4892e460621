/** Reading a symbol: what blocks, what wakes it, what ends it, and how long the rule lives. */
import { signalProcess, until } from '../lab.js';
import { hexOf, testFrames, untilTestFrames } from '../traffic.js';
import type { Case, Topic } from './case.js';
import { isReading, processState } from './process.js';

/** For Python: a thread's read of `fd`, when it waits in the kernel. */
const BLOCKED_READER = `
def reader(fd):
    got = []
    thread = threading.Thread(target=lambda: got.append(os.read(fd, 65536)), daemon=True)
    thread.start()
    while thread.native_id is None: pass
    while open('/proc/self/task/%d/wchan' % thread.native_id).read() != 'request_wait_answer': time.sleep(0.001)
    return thread, got
`;

/** For lists that are too long to be shown. */
function isSame(some: readonly Buffer[], others: readonly Buffer[]): boolean {
  return Buffer.concat(some).equals(Buffer.concat(others));
}

const signals = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGKILL'] as const;

const cases: readonly Case[] = [
  {
    title: 'open() returns when the rule is there, which goes with the last close()',
    async run(scene, t) {
      const { out } = await scene.sh(
        'rules() { tail -n +2 $F/.tables/distribution | cut -f 2; }; exec 3< $F/eth0:arp; rules; exec 3<&-; sync $F; rules',
      );
      t.match(out, /^arp\n/);
      await scene.untilRules(0);
    },
  },
  ...signals.map((signal): Case => ({
    title: `a blocked read ends at once by ${signal}`,
    needs: ['interrupt'],
    async run(scene, t) {
      const cat = await scene.reader('eth0:udp:9');
      await until(() => isReading(cat.pid));
      await cat.kill(signal);
      t.equal((await cat.ended).signal, signal);
    },
  })),
  {
    title: 'SIGSTOP stops a blocked reader, and after SIGCONT it goes on and has lost nothing',
    needs: ['interrupt'],
    async run(scene, t) {
      const cat = await scene.reader('eth0:ether:0x88b5');
      await until(() => isReading(cat.pid));
      signalProcess(cat.pid, 'SIGSTOP');
      await until(() => processState(cat.pid) === 'T');
      const frames = scene.incoming(3);
      await scene.put(frames);
      signalProcess(cat.pid, 'SIGCONT');
      t.same(hexOf(await untilTestFrames(cat, 3)), hexOf(frames));
      await cat.kill();
    },
  },
  {
    title: 'a signal that is handled shows as EINTR, and the next read gets the packet',
    needs: ['interrupt'],
    async run(scene, t) {
      const script = `
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
fd = os.open(p('eth0:ether:0x88b5:raw'), os.O_RDONLY)
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.05)
buffer = ctypes.create_string_buffer(2048)
show([libc.read(fd, buffer, 2048), errno.errorcode[ctypes.get_errno()]])
show(os.read(fd, 2048).hex())
`;
      const program = scene.startPy(script);
      await program.untilOutput((output) => output.includes('EINTR'));
      const frames = scene.incoming(1);
      await scene.put(frames);
      t.equal((await program.ended).stdout.toString(), `[-1, "EINTR"]\n"${hexOf(frames)[0]}"\n`);
    },
  },
  {
    title: 'with O_NONBLOCK a read of nothing gives EAGAIN, also when it was set after the open',
    needs: ['late-nonblock'],
    async run(scene, t) {
      const script = `
a = os.open(p('eth0:udp:9:raw'), os.O_RDONLY | os.O_NONBLOCK)
b = os.open(p('eth0:udp:9:hex'), os.O_RDONLY)
os.set_blocking(b, False)
show([err(os.read, a, 2048), err(os.read, b, 2048)])
`;
      t.same(await scene.py(script), [['EAGAIN', 'EAGAIN']]);
    },
  },
  {
    title: 'select, poll and epoll wait for their time when nothing comes',
    needs: ['poll'],
    async run(scene, t) {
      const script = `
fd = os.open(p('eth0:udp:9:raw'), os.O_RDONLY)
poll = select.poll(); poll.register(fd, select.POLLIN)
epoll = select.epoll(); epoll.register(fd, select.EPOLLIN)
start = time.monotonic()
show([select.select([fd], [], [], 0.1)[0], poll.poll(100), epoll.poll(0.1)])
show(time.monotonic() - start >= 0.3)
`;
      t.same(await scene.py(script), [[[], [], []], true]);
    },
  },
  ...['select.select([fd], [], [])[0]', 'poll.poll()', 'epoll.poll()'].map((call): Case => ({
    title: `${call.split('.')[0]} wakes when a packet comes, says so until it is read, and not after that`,
    needs: ['poll', 'late-nonblock'],
    async run(scene, t) {
      const script = `
fd = os.open(p('eth0:ether:0x88b5:raw'), os.O_RDONLY | os.O_NONBLOCK)
poll = select.poll(); poll.register(fd, select.POLLIN)
epoll = select.epoll(); epoll.register(fd, select.EPOLLIN)
show('ready')
show([len(${call}), len(${call})])
show([len(os.read(fd, 2048)), err(os.read, fd, 2048), select.select([fd], [], [], 0)[0]])
`;
      const program = scene.startPy(script);
      await program.untilOutput((output) => output.includes('ready'));
      await scene.put(scene.incoming(1));
      t.equal((await program.ended).stdout.toString(), '"ready"\n[1, 1]\n[100, "EAGAIN", []]\n');
    },
  })),
  {
    title: 'edge-triggered epoll tells once of what came, and again of what comes after it was read',
    needs: ['poll', 'late-nonblock'],
    async run(scene, t) {
      const script = `
fd = os.open(p('eth0:ether:0x88b5:raw'), os.O_RDONLY | os.O_NONBLOCK)
epoll = select.epoll(); epoll.register(fd, select.EPOLLIN | select.EPOLLET)
for _ in range(2):
    show('ready')
    show([len(epoll.poll()), len(epoll.poll(0.05)), len(os.read(fd, 2048)), err(os.read, fd, 2048)])
`;
      const program = scene.startPy(script);
      for (const times of [2, 3]) {
        await program.untilOutput((output) => output.toString().split('ready').length === times);
        await scene.put(scene.incoming(1));
      }
      const round = '"ready"\n[1, 0, 100, "EAGAIN"]\n';
      t.equal((await program.ended).stdout.toString(), round + round);
    },
  },
  {
    title: 'a reader of pcap polls as readable before the first packet: the file header is there',
    needs: ['poll'],
    async run(scene, t) {
      const script = `
fd = os.open(p('eth0:udp:9'), os.O_RDONLY)
show([len(select.select([fd], [], [], 0)[0]), len(os.read(fd, 65536)), len(select.select([fd], [], [], 0)[0])])
`;
      t.same(await scene.py(script), [[1, 24, 0]]);
    },
  },
  {
    title: 'the rule lives until the last of dup and fork is closed',
    async run(scene, t) {
      const line = `
        rules() { tail -n +2 $F/.tables/distribution | wc -l; }
        exec 3< $F/eth0:arp 4<&3 3<&-; rules
        sleep 60 & exec 4<&-; rules
        kill $!; wait; until [ $(rules) = 0 ]; do :; done; rules`;
      t.equal((await scene.sh(line)).out, '1\n1\n0\n');
    },
  },
  {
    title: 'a descriptor that is passed to another process keeps its rule, and can be read there',
    async run(scene, t) {
      const script = `
a, b = socket.socketpair()
if os.fork() == 0:
    a.close()
    fd = os.open(p('eth0:ether:0x88b5:raw'), os.O_RDONLY)
    socket.send_fds(b, [b'x'], [fd])
    os._exit(0)
b.close()
_, fds, _, _ = socket.recv_fds(a, 1, 1)
os.wait()
show(len(rules()))
show(os.read(fds[0], 2048).hex())
`;
      const program = scene.startPy(script);
      await program.untilOutput((output) => output.includes('\n'));
      const frames = scene.incoming(1);
      await scene.put(frames);
      t.equal((await program.ended).stdout.toString(), `1\n"${hexOf(frames)[0]}"\n`);
    },
  },
  {
    title: 'exec keeps a descriptor and its rule, unless it is close-on-exec',
    async run(scene, t) {
      const script = `
keep = os.open(p('eth0:arp'), os.O_RDONLY); os.set_inheritable(keep, True)
gone = os.open(p('eth0:icmp'), os.O_RDONLY)
os.execvp('bash', ['bash', '-c', 'while grep -q icmp $0; do :; done; tail -n +2 $0', p('.tables/distribution')])
`;
      const { stdout } = await scene.startPy(script).ended;
      t.match(stdout.toString(), /\tarp\t/);
    },
  },
  {
    title: 'a read that blocks keeps no write of the same descriptor waiting',
    needs: ['stream'],
    async run(scene, t) {
      const frames = scene.fresh(1);
      const script = `${BLOCKED_READER}
fd = os.open(p('eth0:ether:0x88b5:raw'), os.O_RDWR)
reader(fd)
show(os.write(fd, bytes.fromhex(sys.stdin.read())))
os.fsync(fd)
os._exit(0)
`;
      const left = await scene.left(async () => {
        t.same(await scene.py(script, hexOf(frames)[0]), [100]);
      });
      t.same(left, hexOf(frames));
    },
  },
  {
    title: 'two reads at once on one descriptor each get a packet of their own',
    needs: ['stream'],
    async run(scene, t) {
      const script = `${BLOCKED_READER}
fd = os.open(p('eth0:ether:0x88b5:raw'), os.O_RDONLY)
readers = [reader(fd), reader(fd)]
show('ready')
for thread, _ in readers: thread.join()
show(sorted(got[0].hex() for _, got in readers))
`;
      const program = scene.startPy(script);
      await program.untilOutput((output) => output.includes('ready'));
      const frames = scene.incoming(2);
      await scene.put(frames);
      t.equal(
        (await program.ended).stdout.toString(),
        `"ready"\n${JSON.stringify(hexOf(frames)).replace(',', ', ')}\n`,
      );
    },
  },
  {
    title: 'two readers each get every packet',
    async run(scene, t) {
      const readers = [await scene.reader('eth0:ether:0x88b5'), await scene.reader('eth0:ether:0x88b5')];
      const frames = scene.incoming(20);
      await scene.put(frames);
      for (const reader of readers) {
        t.same(hexOf(await untilTestFrames(reader, 20)), hexOf(frames));
        await reader.kill();
      }
    },
  },
  {
    title: 'a reader that is stopped loses the newest packets only, whole ones, and nobody else loses any',
    async run(scene, t) {
      const [slow, quick] = [await scene.reader('eth0:ether:0x88b5'), await scene.reader('eth0:ether:0x88b5')];
      signalProcess(slow.pid, 'SIGSTOP');
      const frames = scene.incoming(7000, 1400);
      for (let at = 0; at < frames.length; at += 1000) {
        await scene.put(frames.slice(at, at + 1000));
        await untilTestFrames(quick, at + 1000);
      }
      t.ok(isSame(testFrames(quick.output), frames), 'the other reader has all');
      t.ok((await scene.lab.counter('drop_reader_slow')) > 0, 'the loss is counted');
      signalProcess(slow.pid, 'SIGCONT');
      await untilTestFrames(slow, 1000);
      await until(() => isReading(slow.pid));
      const last = scene.incoming(1);
      await scene.put(last);
      await slow.untilOutput((output) => isSame(testFrames(output).slice(-1), last));
      const had = testFrames(slow.output).slice(0, -1);
      t.ok(had.length < frames.length && isSame(had, frames.slice(0, had.length)), `${had.length} of 7000`);
      for (const reader of [slow, quick]) await reader.kill();
    },
  },
  {
    title: 'reading from what is open for writing alone is EBADF, and so is the other way round',
    async run(scene, t) {
      const script = `
r, w = os.open(p('eth0:arp'), os.O_RDONLY), os.open(p('eth0:arp'), os.O_WRONLY)
show([err(os.read, w, 100), err(os.write, r, b'x')])
`;
      t.same(await scene.py(script), [['EBADF', 'EBADF']]);
    },
  },
  {
    title: 'there is no position: lseek and pread give ESPIPE, as on a pipe',
    needs: ['stream'],
    async run(scene, t) {
      const script = `
fd = os.open(p('eth0'), os.O_RDWR)
show([err(os.lseek, fd, 0, os.SEEK_CUR), err(os.lseek, fd, 0, os.SEEK_END), err(os.pread, fd, 1, 0), err(os.pwrite, fd, b'x', 0)])
`;
      t.same(await scene.py(script), [['ESPIPE', 'ESPIPE', 'ESPIPE', 'ESPIPE']]);
    },
  },
  {
    title: 'a hundred blocked readers hold up nobody, and go at once',
    needs: ['interrupt'],
    async run(scene, t) {
      const line = 'for i in {1..100}; do cat $F/eth0:udp:9 > /dev/null & done; echo started; wait';
      const all = scene.start(line);
      await all.untilOutput((output) => output.includes('started'));
      await until(async () => (await scene.lab.ownTable('reception'))[0]?.[5] === '100');
      t.same(await scene.rules(), ['udp:9'], 'one rule for all');
      t.equal((await scene.sh('cat $F/.if/eth0/mtu')).out, '1500\n');
      await scene.sh('kill $(pgrep -P $1)', String(all.pid));
      t.equal((await all.ended).status, 0);
    },
  },
];

export const reading: Topic = { title: 'reading', cases };
