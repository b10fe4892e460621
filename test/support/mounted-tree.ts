/** The demo tree on a mount, as any backend must show it; what one lacks is named in the output, and not tried. */
import t, { type Test } from 'tap';
import type { BackendName } from '../../src/fusefs/backend.js';
import type { Lack } from '../../src/fusefs/fuse-native-lacks.js';
import { TEXT } from './fuse-demo.js';
import { DemoMount, rootOnly, until } from './fuse-mount.js';

export function mountedTree(
  backend: BackendName,
  lacks: ReadonlySet<Lack>,
  options: { skip?: string } = rootOnly,
): void {
  t.test('a mounted tree', options, async (t) => {
    const mount = await DemoMount.start(backend);
    t.teardown(() => mount.close());
    const test = (title: string, needs: readonly Lack[], body: (t: Test) => Promise<void>): unknown => {
      const missing = needs.filter((name) => lacks.has(name));
      if (missing.length === 0) return t.test(title, body);
      return t.comment(`${backend} lacks ${missing.join(', ')}: ${title}`);
    };

    await test('ls, find, stat and df show it', [], async (t) => {
      const ls = await mount.sh('ls -la $M');
      t.equal(ls.stderr, '');
      t.match(ls.stdout, /^-rw-rw-rw- +1 root +root +0 .* echo$/m);
      t.match(ls.stdout, /^-r--r--r-- .* text$/m);
      t.match(ls.stdout, /^drwxr-xr-x .* dir$/m);
      const find = await mount.sh('cd $M && find . -name text | sort');
      t.equal(find.stdout, './dir/text\n./text\n');
      const stat = await mount.sh(
        'stat -c "%a %s %h %F %o" $M/echo; test $(stat -c %i $M/echo) = $(stat -c %i $M/echo) && echo same',
      );
      t.equal(stat.stdout, '666 0 1 regular empty file 131072\nsame\n');
      const df = await mount.sh('df $M');
      t.match(df.stdout, /^demo +0 +0 +0 +- /m);
      const table = await mount.sh('grep " $M " /proc/mounts');
      t.match(table.stdout, /^demo \S+ fuse\.fwdfs rw,nosuid,nodev,.*default_permissions,allow_other/);
    });

    await test('a text file reads the same in every way', [], async (t) => {
      t.equal((await mount.sh('cat $M/text')).stdout, TEXT);
      t.equal((await mount.sh('dd if=$M/text bs=1 status=none')).stdout, TEXT);
      t.equal((await mount.sh('dd if=$M/dir/text bs=333 status=none')).stdout, TEXT);
      t.equal((await mount.sh('tail -n 2 $M/text')).stdout, 'line 298\nline 299\n');
      t.equal((await mount.sh('{ read a; read b; echo "$b $a"; } < $M/text')).stdout, 'line 1 line 0\n');
      t.equal((await mount.sh('wc -l < $M/text; md5sum < $M/text')).stdout.split('\n')[0], '300');
      const seek = await mount.python(
        'f = open(M + "/text", "rb"); f.seek(5); print(f.read(3), os.pread(f.fileno(), 6, 7))',
      );
      t.equal(seek.stdout, "b'0\\nl' b'line 1'\n");
    });

    await test('a stream is read as it comes', [], async (t) => {
      t.match((await mount.sh('head -n 3 $M/ticks')).stdout, /^(tick \d+\n){3}$/);
      const line = await mount.sh('read -r a < $M/ticks; echo "$a"');
      t.match(line.stdout, /^tick \d+\n$/);
      const cat = await mount.sh('timeout -s INT 0.3 cat $M/ticks | wc -l');
      t.ok(Number(cat.stdout) > 10, `${cat.stdout.trim()} lines`);
    });

    await test('what one opener wrote, it reads', [], async (t) => {
      const shell = await mount.sh('exec 3<>$M/echo; echo hello >&3; read -r a <&3; echo "got $a"');
      t.equal(shell.stdout, 'got hello\n');
    });

    await test('a read that blocks does not block a write on the same descriptor', ['stream'], async (t) => {
      const both = await mount.python(`
f = os.open(M + "/echo", os.O_RDWR)
got = []
reader = threading.Thread(target=lambda: got.append(os.read(f, 100)))
reader.start()
while open(f"/proc/self/task/{reader.native_id}/wchan").read() != "request_wait_answer": pass
os.write(f, b"hello")
reader.join()
print(got)`);
      t.equal(both.stdout, "[b'hello']\n");
    });

    await test('reads and writes of 1 MiB are one request each', ['large-requests'], async (t) => {
      const dd = await mount.sh(
        'dd if=$M/bulk of=/dev/null bs=1M count=4 && dd if=/dev/zero of=$M/bulk bs=1M count=4 conv=notrunc; cat $M/stats',
      );
      t.match(dd.stdout, /"largestRead":1048576,"largestWrite":1048576/);
      t.match(dd.stderr, /^4\+0 records in\n4\+0 records out/);
      const small = await mount.sh('dd if=$M/packet of=/dev/null bs=64k count=100');
      t.match(small.stderr, /^0\+100 records in/m, 'a short read ends the read');
    });

    await test('O_NONBLOCK gives EAGAIN', [], async (t) => {
      const program = await mount.python(`
def code(call, *arguments):
    try: return call(*arguments)
    except OSError as error: return errno.errorcode[error.errno]
f = os.open(M + "/echo", os.O_RDWR | os.O_NONBLOCK)
print(code(os.read, f, 10), code(os.write, f, b"abc"), code(os.read, f, 10))
print(code(os.write, os.open(M + "/held", os.O_WRONLY | os.O_NONBLOCK), b"x"))`);
      t.equal(program.stdout, "EAGAIN 3 b'abc'\nEAGAIN\n");
      const dd = await mount.sh('dd if=$M/quiet iflag=nonblock count=1 status=none of=/dev/null');
      t.match(dd.stderr, /Resource temporarily unavailable/);
    });

    await test('O_NONBLOCK may be set later', ['late-nonblock'], async (t) => {
      const program = await mount.python(`
held = os.open(M + "/held", os.O_WRONLY)
fcntl.fcntl(held, fcntl.F_SETFL, os.O_NONBLOCK)
try: os.write(held, b"x")
except BlockingIOError: print("EAGAIN")`);
      t.equal(program.stdout, 'EAGAIN\n');
    });

    await test('poll, select and epoll wake when something comes, and time out otherwise', ['poll'], async (t) => {
      const program = await mount.python(`
f = os.open(M + "/echo", os.O_RDWR)
p = select.poll(); p.register(f, select.POLLIN)
level = select.epoll(); level.register(f, select.EPOLLIN)
edge = select.epoll(); edge.register(f, select.EPOLLIN | select.EPOLLET)
print(p.poll(20), select.select([f], [f], [], 0.02)[0], level.poll(0.02), edge.poll(0.02))
ways = {
  "poll": lambda: bool(p.poll(3000)),
  "select": lambda: bool(select.select([f], [], [], 3)[0]),
  "epoll": lambda: bool(level.poll(3)),
  "edge": lambda: bool(edge.poll(3)),
}
for name, wait in ways.items():
    edge.poll(0)
    threading.Timer(0.05, lambda: os.write(f, b"hello")).start()
    start = time.monotonic()
    ready = wait()
    taken = time.monotonic() - start
    print(name, ready, 0.03 < taken, os.read(f, 100))
print(bool(select.select([], [f], [], 0)[1]), p.poll(0))`);
      t.equal(program.stderr, '');
      t.equal(
        program.stdout,
        `[] [] [] []\n${['poll', 'select', 'epoll', 'edge'].map((way) => `${way} True True b'hello'\n`).join('')}True []\n`,
      );
    });

    await test('a signal ends a blocked read', [], async (t) => {
      const interrupted = await mount.sh('timeout -s INT 0.2 cat $M/quiet');
      t.equal(interrupted.code, 124);
      t.comment(`SIGINT: ${interrupted.ms} ms, 200 of them before it`);
      for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
        const cat = mount.start('cat', [`${mount.directory}/quiet`]);
        await cat.blocked();
        const start = Date.now();
        cat.kill(signal);
        t.equal((await cat.outcome).signal, signal);
        t.comment(`${signal}: ${Date.now() - start} ms`);
      }
    });

    const endsBySignal = async (t: Test, script: string): Promise<void> => {
      const shell = mount.start('bash', ['-c', script]);
      await shell.waiting();
      shell.kill('SIGKILL');
      t.equal((await shell.outcome).signal, 'SIGKILL', script);
    };

    await test('a signal ends a write that waits', [], (t) => endsBySignal(t, 'echo x > $M/held'));

    await test('a signal ends an open and a close that wait', ['interrupt'], async (t) => {
      await endsBySignal(t, 'exec cat $M/slow-open');
      await endsBySignal(t, 'echo x > $M/slow-close');
    });

    await test('a handled signal shows as EINTR', [], async (t) => {
      const program = await mount.python(`
import signal
def stop(*_): raise InterruptedError
signal.signal(signal.SIGALRM, stop)
signal.setitimer(signal.ITIMER_REAL, 0.1)
f = os.open(M + "/quiet", os.O_RDONLY)
try: os.read(f, 1)
except InterruptedError: print("interrupted")`);
      t.equal(program.stdout, 'interrupted\n');
    });

    await test('a held write of one opener holds up nobody else', ['own-inode'], async (t) => {
      const writer = mount.startPython('print(os.write(os.open(M + "/held", os.O_WRONLY), b"one"))');
      await writer.blocked();
      // If one of these waited for the held write, it would wait until it is let go below, which comes after.
      const others = await mount.python(`
f = os.open(M + "/held", os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK)
try: os.write(f, b"two")
except BlockingIOError: print("EAGAIN")
os.utime(M + "/held"); os.truncate(M + "/held", 0); os.stat(M + "/held"); os.close(f)
print("done")`);
      t.equal(others.stdout, 'EAGAIN\ndone\n');
      t.equal((await mount.sh('echo let go > $M/ctl')).code, 0);
      t.equal((await writer.outcome).stdout, '3\n');
    });

    await test('commands succeed or fail with their own errno', [], async (t) => {
      const good = await mount.sh('printf "one\\ntwo\\n" > $M/ctl && printf three > $M/ctl && cat $M/stats');
      t.match(good.stdout, /"one","two","three"/);
      const bad = await mount.sh('echo fail > $M/ctl');
      t.equal(bad.code, 1);
      t.match(bad.stderr, /File exists/);
    });

    await test('names can not be changed, and the errno says so', [], async (t) => {
      const program = await mount.python(`
def code(call, *arguments):
    try: call(*arguments); return "ok"
    except OSError as error: return errno.errorcode[error.errno]
print(*[
  code(os.mkdir, M + "/new"), code(os.rmdir, M + "/dir"), code(os.unlink, M + "/echo"), code(os.rename, M + "/echo", M + "/new"),
  code(os.symlink, "x", M + "/new"), code(os.link, M + "/echo", M + "/new"), code(os.mkfifo, M + "/new"), code(open, M + "/new", "w"),
])
print(*[
  code(open, M + "/new"), code(os.chmod, M + "/text", 0o600), code(os.chown, M + "/text", 1, 1), code(os.utime, M + "/text"),
  code(open, M + "/text", "w"), code(os.getxattr, M + "/text", "user.x"), code(os.listdir, M + "/text"), code(os.listdir, M),
])
f = os.open(M + "/echo", os.O_RDWR)
print(*[code(os.ftruncate, f, 0), code(os.fsync, f), os.isatty(f)])`);
      t.equal(program.stderr, '');
      t.same(program.stdout.split('\n'), [
        'EPERM EPERM EPERM EPERM EPERM EPERM EPERM ENOENT',
        'ENOENT EPERM EPERM ok EACCES ENOTSUP ENOTDIR ok',
        'ok ok False',
        '',
      ]);
      t.equal((await mount.sh('touch $M/echo && : > $M/echo && : >> $M/echo')).code, 0);
    });

    await test('a stream has no position', ['stream'], async (t) => {
      const program = await mount.python(`
f = os.open(M + "/echo", os.O_RDWR)
for call in (lambda: os.lseek(f, 0, 0), lambda: os.pread(f, 1, 0)):
    try: call()
    except OSError as error: print(errno.errorcode[error.errno])`);
      t.equal(program.stdout, 'ESPIPE\nESPIPE\n');
    });

    await test('mode bits hold for those who are not root', [], async (t) => {
      const program = await mount.python(`
os.chmod(os.path.dirname(M), os.stat(os.path.dirname(M)).st_mode)
os.setuid(65534)
try: open(M + "/ctl", "w")
except OSError as error: print(errno.errorcode[error.errno])
print(len(open(M + "/text").read()))`);
      t.equal(program.stdout, `EACCES\n${TEXT.length}\n`);
    });

    await test('400 blocked readers wait, hold up nobody and die at once', [], async (t) => {
      const readers = mount.startPython(`
threading.stack_size(65536)
files = [os.open(M + "/quiet", os.O_RDONLY) for _ in range(400)]
threads = [threading.Thread(target=os.read, args=(file, 1), daemon=True) for file in files]
for thread in threads: thread.start()
for thread in threads:
    while open(f"/proc/self/task/{thread.native_id}/wchan").read() != "request_wait_answer": pass
print("blocked", flush=True)
time.sleep(60)`);
      let blocked = '';
      readers.child.stdout?.on('data', (text: string) => (blocked += text));
      await until(() => blocked.includes('blocked'));
      const stat = await mount.python(
        'start = time.monotonic(); os.stat(M + "/echo"); print(f"{1000 * (time.monotonic() - start):.1f} ms")',
      );
      t.equal(stat.code, 0);
      t.comment(`stat beside them: ${stat.stdout.trim()}`);
      const start = Date.now();
      readers.kill('SIGKILL');
      await readers.outcome;
      t.comment(`gone after ${Date.now() - start} ms`);
    });

    await test('every file that was opened was released', [], async (t) => {
      const stats = async (): Promise<{ opens: number; releases: number }> =>
        JSON.parse((await mount.sh('cat $M/stats')).stdout) as { opens: number; releases: number };
      let { opens, releases } = await stats();
      for (let tries = 0; opens !== releases && tries < 50; tries++) ({ opens, releases } = await stats());
      t.equal(releases, opens);
      t.ok(opens > 400, `${opens} opens`);
    });
  });

  t.test('a read-only mount refuses whatever writes', options, async (t) => {
    const mount = await DemoMount.start(backend, 'ro');
    t.teardown(() => mount.close());
    const outcome = await mount.sh('cat $M/dir/text | wc -c; echo x > $M/echo; mkdir $M/x; touch $M/text; rm $M/text');
    t.equal(outcome.stdout, `${TEXT.length}\n`);
    t.equal(outcome.stderr.match(/Read-only file system/g)?.length, 4);
  });
}
