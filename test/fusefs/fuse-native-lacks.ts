/** Each entry of LACKS is true: what the backend on fuse-native cannot do is tried, and what happens instead is seen. */
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { FUSE_NATIVE_PATIENCE_MS } from '../../src/base/limits.js';
import { silent } from '../../src/base/log.js';
import { LACKS, type Lack } from '../../src/fusefs/fuse-native-lacks.js';
import { loadFuseNative } from '../../src/fusefs/fuse-native-library.js';
import { FuseNativeServer } from '../../src/fusefs/fuse-native-server.js';
import { inoOf } from '../../src/fusefs/tree.js';
import { demo } from '../support/fuse-demo.js';
import { DemoMount, fuseNativeOnly, until } from '../support/fuse-mount.js';

t.test('what fuse-native lacks', fuseNativeOnly, async (t) => {
  const mount = await DemoMount.start('fuse-native');
  t.teardown(() => mount.close());
  const shown = new Set<Lack>();
  const lack = (name: Lack, body: (t: Test) => Promise<void>): PromiseLike<unknown> => {
    shown.add(name);
    return t.test(`${name}: ${LACKS[name]}`, body);
  };

  await lack('interrupt', async (t) => {
    const cat = mount.start('cat', [join(mount.directory, 'quiet')]);
    await cat.blocked();
    const start = performance.now();
    cat.kill('SIGINT');
    t.equal((await cat.outcome).signal, 'SIGINT');
    const taken = performance.now() - start;
    t.comment(`SIGINT after ${taken.toFixed(0)} of ${FUSE_NATIVE_PATIENCE_MS} ms`);
    const writer = mount.startPython(
      'f = os.open(M + "/slow-close", os.O_RDWR); os.write(f, b"x"); print("closing", flush=True); os.close(f)',
    );
    let output = '';
    writer.child.stdout?.on('data', (text: string) => (output += text));
    await until(() => output !== '');
    await writer.waiting();
    writer.kill('SIGKILL');
    // Two reads that were given up are the clock: that is longer than anything waits that is not a barrier.
    await mount.sh('timeout -s INT 0.1 cat $M/quiet; timeout -s INT 0.1 cat $M/quiet');
    t.equal(writer.child.signalCode, null, 'its close still waits');
  });

  await lack('blocking-read', async (t) => {
    const program = await mount.python(`
import ctypes
f = os.open(M + "/quiet", os.O_RDONLY)
read = ctypes.CDLL(None, use_errno=True).read
print(read(f, ctypes.create_string_buffer(1), 1), errno.errorcode[ctypes.get_errno()])`);
    t.equal(program.stdout, '-1 EINTR\n');
  });

  await lack('poll', async (t) => {
    const program = await mount.python(`
f = os.open(M + "/quiet", os.O_RDONLY | os.O_NONBLOCK)
print(bool(select.select([f], [], [], 0)[0]))
try: os.read(f, 1)
except BlockingIOError: print("EAGAIN")`);
    t.equal(program.stdout, 'True\nEAGAIN\n');
  });

  await lack('stream', async (t) => {
    const program = await mount.python(`
f = os.open(M + "/echo", os.O_RDWR)
print(os.lseek(f, 5, 0))
read = threading.Thread(target=lambda: os.read(f, 10))
write = threading.Thread(target=lambda: os.write(f, b"x"))
wchan = lambda thread: open(f"/proc/self/task/{thread.native_id}/wchan").read()
read.start()
while wchan(read) != "request_wait_answer": pass
write.start()
while wchan(write) in ("0", ""): pass
print(wchan(write) != "request_wait_answer")`);
    t.equal(program.stdout, '5\nTrue\n');
  });

  await lack('late-nonblock', async (t) => {
    const reader = mount.startPython(`
f = os.open(M + "/quiet", os.O_RDONLY)
fcntl.fcntl(f, fcntl.F_SETFL, os.O_NONBLOCK)
os.read(f, 1)`);
    await reader.blocked();
    reader.kill('SIGKILL');
    t.equal((await reader.outcome).signal, 'SIGKILL');
  });

  await lack('own-inode', async (t) => {
    const writer = mount.startPython('os.write(os.open(M + "/held", os.O_WRONLY), b"one")');
    await writer.blocked();
    const other = mount.startPython('os.write(os.open(M + "/held", os.O_WRONLY | os.O_NONBLOCK), b"two")');
    await until(() => /write|rwsem/.test(other.wchan));
    t.comment(`waits in ${other.wchan}`);
    writer.kill('SIGKILL');
    await writer.outcome;
    t.match((await other.outcome).stderr, /BlockingIOError/);
  });

  await lack('open-attributes', async (t) => {
    const line =
      'exec 3< $M/text; echo forget text > $M/ctl; while [ -e $M/text ]; do :; done; cat <&3; read -r -u 3 a; echo $a';
    const { stdout, stderr } = await mount.sh(line);
    t.match(stderr, /No such file or directory/);
    t.match(stdout, /^\S/, 'read(2) itself still works');
  });

  await lack('large-requests', async (t) => {
    await mount.sh('dd if=$M/bulk of=/dev/null bs=1M count=4 status=none');
    await mount.sh('dd if=/dev/zero of=$M/bulk bs=1M count=4 status=none conv=notrunc');
    const { stdout } = await mount.sh('cat $M/stats');
    t.match(stdout, /"largestRead":131072,"largestWrite":131072/);
  });

  await lack('wide-inodes', async (t) => {
    t.ok(inoOf('/echo') > 2 ** 32);
    t.equal((await mount.sh('stat -c %i $M/echo')).stdout, `${inoOf('/echo') % 2 ** 32}\n`);
  });

  await lack('nested-mount-point', async (t) => {
    const { root, close } = demo();
    close();
    const options = { allowOther: false, readOnly: false, uid: 0, gid: 0 };
    const request = { root, mountPoint: '/proc', source: 'demo', options, log: silent };
    await t.rejects(new FuseNativeServer(request, loadFuseNative()).mount(), { code: 'EBUSY' });
  });

  t.same([...shown].sort(), Object.keys(LACKS).sort(), 'every entry is shown');
});
