/**
 * Mounts as users meet them: several at once, with rights for others, after crashes, and under umount(8).
 *
 * The topology is that of test/support/lab.ts.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { FWDFS, Lab, type Result, run, shell, until } from '../support/lab.js';
import { NOBODY } from '../support/mount-namespace.js';
import { withoutRoot } from '../support/netns.js';

const skip = withoutRoot;
const LIMIT_S = 10;
const fwdfs = (line: string): Promise<Result> => shell(`timeout ${LIMIT_S} ${process.execPath} ${FWDFS} ${line}`);
const asNobody = (words: readonly string[]): Promise<Result> =>
  run(['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups', ...words]);
const mountsAt = (mountPoint: string): number =>
  readFileSync('/proc/self/mountinfo', 'utf8').split(` ${mountPoint} `).length - 1;

async function started(test: Pick<typeof t, 'teardown'>, options = {}): Promise<Lab> {
  const lab = await Lab.start(options);
  test.teardown(() => lab.stop());
  return lab;
}

/** A program that has a file open and waits for something else. */
async function holderOf(file: string): Promise<ChildProcess> {
  const holder = spawn('bash', ['-c', `exec 5<${file} && echo open && read -r`], { stdio: 'pipe' });
  await once(holder.stdout, 'data');
  return holder;
}

t.test('a umask decides who may use the files', { skip }, async (t) => {
  const lab = await started(t, { mountOptions: 'allow_other,umask=022' });
  chmodSync(lab.folder, 0o755);
  const file = lab.file('eth0:icmp:hex');
  t.equal((await run(['stat', '-c', '%a %u', lab.file('eth0'), lab.file('.ctl')])).stdout.toString(), '644 0\n200 0\n');
  const reading = asNobody(['timeout', '20', 'head', '-n', '1', file]);
  await until(async () => (await lab.table('distribution')).length === 1);
  lab.node.run('ping -q -c 1 10.9.0.1');
  const { status, stdout } = await reading;
  t.equal(status, 0);
  t.match(stdout.toString(), /^[0-9a-f]{60,}\n$/);
  for (const name of [file, lab.file('.ctl')]) {
    const written = await asNobody(['sh', '-c', `echo x > ${name}`]);
    t.match(written.stderr, /Permission denied/, name);
  }
});

t.test("without a umask the files are their owner's, also for those who may look in", { skip }, async (t) => {
  const lab = await started(t, { mountOptions: `allow_other,uid=${NOBODY}` });
  chmodSync(lab.folder, 0o755);
  t.equal((await run(['stat', '-c', '%a %u', lab.file('eth0')])).stdout.toString(), `600 ${NOBODY}\n`);
  t.equal((await asNobody(['timeout', '20', 'head', '-c', '0', lab.file('eth0')])).status, 0);
  const other = await run(['setpriv', '--reuid=12345', '--clear-groups', 'cat', lab.file('eth0')]);
  t.match(other.stderr, /Permission denied/);
});

t.test('one who does not own the mount is not let in', { skip }, async (t) => {
  const lab = await started(t);
  chmodSync(lab.folder, 0o755);
  t.match((await asNobody(['ls', lab.mountPoint])).stderr, /Permission denied/);
});

t.test('a new mount takes the place of a dead one that somebody still has open', { skip }, async (t) => {
  const lab = await started(t);
  const holder = await holderOf(lab.file('eth0'));
  const reader = await lab.reader('eth0:raw');
  await lab.control?.end('SIGKILL');
  t.not((await reader.ended).status, 0, 'a blocked reader is told');
  t.match(reader.stderr, /connection abort|not connected/);
  await lab.startControl();
  t.equal((await run(['ls', lab.mountPoint])).stdout.toString(), 'fwd1\n');
  t.equal(mountsAt(lab.mountPoint), 1, 'nothing is below');
  const again = await lab.reader('eth0:icmp:hex');
  lab.node.run('ping -q -c 1 10.9.0.1');
  await again.untilOutput((output) => output.length > 0);
  holder.kill('SIGKILL');
});

t.test('umount(8) is bounded with a blocked reader and with a killed control device', { skip }, async (t) => {
  const lab = await started(t);
  const reader = await lab.reader('eth0:raw');
  const busy = await shell(`timeout ${LIMIT_S} umount ${lab.mountPoint}`);
  t.equal(busy.status, 32);
  t.match(busy.stderr, /target is busy/);
  t.equal(reader.child.exitCode, null, 'the reader goes on');
  const holder = await holderOf(lab.file('.state'));
  await lab.control?.end('SIGKILL');
  await reader.ended;
  t.equal((await shell(`timeout ${LIMIT_S} umount ${lab.mountPoint}`)).status, 32, 'a file is still open');
  t.equal((await shell(`timeout ${LIMIT_S} umount -l ${lab.mountPoint}`)).status, 0);
  t.equal(mountsAt(lab.mountPoint), 0);
  holder.kill('SIGKILL');
});

t.test('umount -l lets a blocked reader go on, and the control device ends after it', { skip }, async (t) => {
  const lab = await started(t);
  const reader = await lab.reader('eth0:icmp:hex');
  t.equal((await shell(`timeout ${LIMIT_S} umount -l ${lab.mountPoint}`)).status, 0);
  lab.node.run('ping -q -c 1 10.9.0.1');
  await reader.untilOutput((output) => output.length > 0);
  await reader.kill('SIGINT');
  await until(() => lab.control?.ended ?? true);
  t.equal(lab.control?.child.exitCode, 0);
});

t.test(
  'mounts of one and of several control devices are there at once, each with its own rules',
  { skip },
  async (t) => {
    const lab = await started(t, { controls: ['ctl1', 'ctl2'] });
    const second = await lab.addControl('ctl2');
    const readers = await Promise.all([lab.reader('eth0:icmp:hex'), lab.reader('eth0:icmp:hex', second)]);
    t.same((await lab.table('distribution')).map((row) => row[4]).sort(), ['ctl1', 'ctl2']);
    lab.node.run('ping -q -c 1 10.9.0.1');
    for (const reader of readers) await reader.untilOutput((output) => output.length > 0);
    await lab.endControl('ctl2');
    await readers[1]?.ended;
    t.equal(mountsAt(second), 0);
    await until(async () => (await lab.table('distribution')).length === 1);
    const [first] = readers;
    const before = first?.output.length ?? 0;
    lab.node.run('ping -q -c 1 10.9.0.1');
    await first?.untilOutput((output) => output.length > before);
  },
);

t.test('one control device may have two mounts', { skip }, async (t) => {
  const lab = await started(t);
  const second = join(lab.folder, 'second');
  mkdirSync(second);
  const options = `name=ctl1,token_file=${join(lab.folder, 'token')}`;
  const line = [...lab.ctl.prefix, process.execPath, FWDFS, 'mount', '-o', options, 'fwd1=ws://10.8.0.1:7440', second];
  t.equal((await run(line)).status, 0);
  t.teardown(() => fwdfs(`umount -l ${second}`));
  const readers = await Promise.all([lab.reader('eth0:icmp:hex'), lab.reader('eth0:icmp:hex', second)]);
  lab.node.run('ping -q -c 1 10.9.0.1');
  for (const reader of readers) await reader.untilOutput((output) => output.length > 0);
  await readers[1]?.kill('SIGINT');
  t.equal((await fwdfs(`umount ${second}`)).status, 0);
  t.equal((await run(['cat', lab.file('.state')])).status, 0, 'the other one is not concerned');
});
