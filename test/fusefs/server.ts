import { spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { silent } from '../../src/base/log.js';
import { UNMOUNT_GRACE_MS } from '../../src/fusefs/backend.js';
import { FuseServer } from '../../src/fusefs/server.js';
import { abortConnection, connectionOf } from '../../src/fusefs/mount.js';
import { demo } from '../support/fuse-demo.js';
import { DemoMount, rootOnly, type Running, until } from '../support/fuse-mount.js';

async function started(test: Pick<typeof t, 'teardown'>): Promise<DemoMount> {
  const mount = await DemoMount.start();
  test.teardown(() => mount.close());
  return mount;
}

async function blockedCat(mount: DemoMount): Promise<Running> {
  const cat = mount.start('cat', [join(mount.directory, 'quiet')]);
  await cat.blocked();
  return cat;
}

function serverOn(mountPoint: string): FuseServer {
  const { root, close } = demo();
  close();
  const options = { allowOther: false, readOnly: false, uid: 0, gid: 0 };
  return new FuseServer({ root, mountPoint, source: 'demo', options, log: silent });
}

t.test('mounting fails clearly where it can not', async (t) => {
  const directory = t.testdir({ file: 'x' });
  await t.rejects(serverOn(join(directory, 'nothing')).mount(), {
    code: 'ENOENT',
    message: /^mount .*nothing: ENOENT$/,
  });
  await t.rejects(serverOn(join(directory, 'file')).mount(), { code: 'ENOTDIR' });
});

t.test('a stopped server gives blocked readers the end of the file and leaves nothing behind', rootOnly, async (t) => {
  const mount = await started(t);
  const readers = await Promise.all([blockedCat(mount), blockedCat(mount), blockedCat(mount)]);
  const start = Date.now();
  mount.server.kill('SIGTERM');
  for (const reader of readers) t.equal((await reader.outcome).code, 0);
  await mount.ended();
  t.match(mount.output, /unmounted/);
  t.equal(mount.isMounted, false);
  t.comment(`${Date.now() - start} ms`);
});

t.test(
  'a stopped server does not wait longer than its grace time for those who keep files open',
  rootOnly,
  async (t) => {
    const mount = await started(t);
    const keeper = mount.startPython(`
f = os.open(M + "/echo", os.O_RDWR)
print("open", flush=True)
select.select([f], [], [], 8)
print(os.read(f, 10), flush=True)
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
    const taken = Date.now() - start;
    t.ok(taken >= UNMOUNT_GRACE_MS - 50, `${taken} ms`);
    // A call that is under way at the end is aborted, one that comes later finds nobody.
    t.match((await keeper.outcome).stdout, /^open\nb''\n(ENOTCONN|ECONNABORTED)\n$/);
  },
);

t.test('umount is EBUSY while a reader is blocked; lazily it lets the reader go on', rootOnly, async (t) => {
  const mount = await started(t);
  const ticks = mount.start('cat', [join(mount.directory, 'ticks')]);
  let output = '';
  ticks.child.stdout?.on('data', (text: string) => (output += text));
  await until(() => output !== '');
  const busy = spawnSync('umount', [mount.directory], { encoding: 'utf8' });
  t.match(busy.stderr, /busy/);
  t.equal(spawnSync('umount', ['-l', mount.directory]).status, 0);
  const before = output.length;
  await until(() => output.length > before + 100);
  t.equal(mount.server.exitCode, null);
  ticks.kill('SIGINT');
  await mount.ended();
  t.match(mount.output, /ended/);
});

t.test('an unmount from outside ends the server', rootOnly, async (t) => {
  const mount = await started(t);
  t.equal(spawnSync('umount', [mount.directory]).status, 0);
  await mount.ended();
  t.match(mount.output, /ended/);
});

t.test('umount -f aborts: readers fail, the server ends', rootOnly, async (t) => {
  const mount = await started(t);
  const cat = await blockedCat(mount);
  spawnSync('umount', ['-f', mount.directory]);
  t.match((await cat.outcome).stderr, /Software caused connection abort/);
  await mount.ended();
  t.match(mount.output, /ended/);
});

const fusectl = existsSync('/sys/fs/fuse/connections') ? rootOnly : { skip: 'no fusectl' };

t.test('a connection is aborted by its number', fusectl, async (t) => {
  const mount = await started(t);
  const cat = await blockedCat(mount);
  const connection = connectionOf(mount.directory) ?? -1;
  if (!existsSync(`/sys/fs/fuse/connections/${connection}`)) {
    t.equal(abortConnection(connection), false, 'fusectl is not mounted here');
    cat.kill('SIGKILL');
    return;
  }
  t.equal(abortConnection(connection), true);
  t.match((await cat.outcome).stderr, /Software caused connection abort/);
  await mount.ended();
  t.equal(abortConnection(connection), false, 'it is gone');
});

t.test('a dead server leaves a dead mount, and mounting over it says what to do', rootOnly, async (t) => {
  const mount = await started(t);
  const cat = await blockedCat(mount);
  mount.server.kill('SIGKILL');
  t.match((await cat.outcome).stderr, /Software caused connection abort/);
  await mount.ended();
  t.match((await mount.sh('ls $M')).stderr, /Transport endpoint is not connected/);
  await t.rejects(serverOn(mount.directory).mount(), { code: 'ENOTCONN', message: /fwdfs umount/ });
  t.equal(spawnSync('umount', [mount.directory]).status, 0);
});

t.test('a mount point with blanks, reached through a symbolic link', rootOnly, async (t) => {
  const directory = t.testdir({ 'a b': {}, link: t.fixture('symlink', 'a b') });
  writeFileSync(join(directory, 'a b', 'hidden'), '');
  const server = serverOn(join(directory, 'link'));
  await server.mount();
  await server.mount();
  t.ok(connectionOf(join(directory, 'a b')) !== undefined);
  await server.unmount();
  await server.unmount();
  t.equal(connectionOf(join(directory, 'a b')), undefined);
  t.equal(existsSync(join(directory, 'a b', 'hidden')), true);
});
