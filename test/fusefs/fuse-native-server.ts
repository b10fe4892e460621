/** The demo tree on a mount by fuse-native: the same cases as on our own server, and what is its own. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import t from 'tap';
import { FUSE_NATIVE_PATIENCE_MS } from '../../src/base/limits.js';
import { silent } from '../../src/base/log.js';
import { UNMOUNT_GRACE_MS } from '../../src/fusefs/backend.js';
import { LACKS, type Lack } from '../../src/fusefs/fuse-native-lacks.js';
import { loadFuseNative } from '../../src/fusefs/fuse-native-library.js';
import { escapedSource, FuseNativeServer, optionList } from '../../src/fusefs/fuse-native-server.js';
import { demo } from '../support/fuse-demo.js';
import { DemoMount, fuseNativeOnly, type Running, until } from '../support/fuse-mount.js';
import { mountedTree } from '../support/mounted-tree.js';

mountedTree('fuse-native', new Set(Object.keys(LACKS) as Lack[]), fuseNativeOnly);

async function started(test: Pick<typeof t, 'teardown'>, ...words: string[]): Promise<DemoMount> {
  const mount = await DemoMount.start('fuse-native', ...words);
  test.teardown(() => mount.close());
  return mount;
}

async function blockedCat(mount: DemoMount): Promise<Running> {
  const cat = mount.start('cat', [join(mount.directory, 'quiet')]);
  await cat.blocked();
  return cat;
}

t.test('its options are those of libfuse 2, and a comma in the source ends none', async (t) => {
  const options = { allowOther: false, readOnly: false, uid: 0, gid: 0 };
  t.match(optionList(options), /^direct_io,use_ino,.*attr_timeout=0/);
  t.notMatch(optionList(options), /allow_other|ro\b/);
  t.match(optionList(options), /,nonempty,nosuid,nodev,noexec$/, 'whether the directory is empty is not its business');
  t.match(optionList({ ...options, allowOther: true, readOnly: true }), /,allow_other,ro$/);
  t.equal(escapedSource('a=ws://x,b\\c'), 'a=ws://x\\,b\\\\c');
  t.ok(escapedSource(','.repeat(2000)).length <= 512);
});

t.test('mounting fails clearly where it can not', fuseNativeOnly, async (t) => {
  const directory = t.testdir({ file: 'x' });
  const { root, close } = demo();
  close();
  const options = { allowOther: false, readOnly: false, uid: 0, gid: 0 };
  const on = (mountPoint: string): FuseNativeServer =>
    new FuseNativeServer({ root, mountPoint, source: 'demo', options, log: silent }, loadFuseNative());
  await t.rejects(on(join(directory, 'nothing')).mount(), { code: 'ENOENT' });
  await t.rejects(on(join(directory, 'file')).mount(), { code: 'ENOTDIR' });
  await t.rejects(on('/proc').mount(), { code: 'EBUSY', message: /mount point already: use another directory/ });
});

t.test('a blocked reader that no signal reaches goes on reading', fuseNativeOnly, async (t) => {
  const mount = await started(t);
  const reader = mount.startPython(`
import ctypes
f = os.open(M + "/echo", os.O_RDWR)
read = ctypes.CDLL(None, use_errno=True).read
buffer = ctypes.create_string_buffer(10)
results = []
while len(results) < 3:
    results.append((read(f, buffer, 10), errno.errorcode[ctypes.get_errno()]))
print(results)
threading.Timer(0.3, lambda: None).start()
os.write(f, b"hello")
print(os.read(f, 10))`);
  const { stdout, ms } = await reader.outcome;
  t.equal(stdout, "[(-1, 'EINTR'), (-1, 'EINTR'), (-1, 'EINTR')]\nb'hello'\n");
  t.ok(ms > (3 * FUSE_NATIVE_PATIENCE_MS) / 2 - 100, `${ms} ms: not at once`);
});

t.test(
  'a stopped server gives blocked readers the end of the file and leaves nothing behind',
  fuseNativeOnly,
  async (t) => {
    const mount = await started(t);
    const readers = await Promise.all([blockedCat(mount), blockedCat(mount), blockedCat(mount)]);
    mount.server.kill('SIGTERM');
    for (const reader of readers) t.equal((await reader.outcome).code, 0);
    await mount.ended();
    t.match(mount.output, /unmounted/);
    t.equal(mount.isMounted, false);
    t.equal(mount.server.exitCode, 0);
  },
);

t.test('a stopped server does not wait longer than its grace time for open files', fuseNativeOnly, async (t) => {
  const mount = await started(t);
  const keeper = mount.startPython(`
f = os.open(M + "/text", os.O_RDONLY)
print("open", flush=True)
while True:
    try: os.fstat(f)
    except OSError as error: print(errno.errorcode[error.errno]); break
    time.sleep(0.02)`);
  let output = '';
  keeper.child.stdout?.on('data', (text: string) => (output += text));
  await until(() => output.includes('open'));
  const start = Date.now();
  mount.server.kill('SIGTERM');
  await until(() => !mount.isMounted);
  t.notMatch(output, /CONN/, 'the name is free while the file is still open');
  await mount.ended();
  t.ok(Date.now() - start >= UNMOUNT_GRACE_MS - 50);
  t.match((await keeper.outcome).stdout, /^open\n(ENOTCONN|ECONNABORTED)\n$/);
});

t.test('a close that never ends does not hold up the unmount', fuseNativeOnly, async (t) => {
  const mount = await started(t);
  const writer = mount.start('bash', ['-c', 'exec 3> $M/slow-close; echo x >&3']);
  await writer.blocked();
  mount.server.kill('SIGTERM');
  await mount.ended();
  t.match(mount.output, /unmounted/);
  await writer.outcome;
});

t.test('an unmount from outside ends the server, busy or not', fuseNativeOnly, async (t) => {
  const idle = await started(t);
  t.equal(spawnSync('umount', [idle.directory]).status, 0);
  await idle.ended();
  t.match(idle.output, /ended/);
  const busy = await started(t);
  const cat = await blockedCat(busy);
  t.match(spawnSync('umount', [busy.directory], { encoding: 'utf8' }).stderr, /busy/);
  t.equal(spawnSync('umount', ['-l', busy.directory]).status, 0);
  t.equal(busy.server.exitCode, null);
  cat.kill('SIGINT');
  await busy.ended();
  t.match(busy.output, /ended/);
});

t.test('umount -f aborts: readers fail, the server ends', fuseNativeOnly, async (t) => {
  const mount = await started(t);
  const cat = await blockedCat(mount);
  spawnSync('umount', ['-f', mount.directory]);
  t.match((await cat.outcome).stderr, /Software caused connection abort/);
  await mount.ended();
  t.match(mount.output, /ended/);
});

t.test('a dead server leaves a dead mount', fuseNativeOnly, async (t) => {
  const mount = await started(t);
  const cat = await blockedCat(mount);
  mount.server.kill('SIGKILL');
  t.match((await cat.outcome).stderr, /Software caused connection abort/);
  await mount.ended();
  t.match((await mount.sh('ls $M')).stderr, /Transport endpoint is not connected/);
  t.equal(spawnSync('umount', [mount.directory]).status, 0);
});
