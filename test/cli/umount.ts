/** fwdfs umount, in each case that a mount can be in. */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import t from 'tap';
import { FWDFS, Lab, type Result, shell, until } from '../support/lab.js';
import { withoutRoot } from '../support/netns.js';

/** No case may take longer: a control device that does not answer is given 2 s. */
const LIMIT_S = 6;
const umount = (line: string): Promise<Result> =>
  shell(`timeout ${LIMIT_S} ${process.execPath} ${FWDFS} umount ${line}`);
const isMounted = (lab: Lab): boolean => readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${lab.mountPoint} `);

interface Reader {
  readonly child: ChildProcess;
  stdout: string;
  stderr: string;
  readonly ended: Promise<void>;
}

/** A program that waits in read(2) for a packet. */
async function blockedReader(lab: Lab): Promise<Reader> {
  const child = spawn('cat', [lab.file('eth0:raw')], { stdio: ['ignore', 'pipe', 'pipe'] });
  const reader: Reader = {
    child,
    stdout: '',
    stderr: '',
    ended: new Promise((resolve) => child.once('close', () => resolve())),
  };
  child.stdout.on('data', (data: Buffer) => (reader.stdout += data.toString('latin1')));
  child.stderr.on('data', (data: Buffer) => (reader.stderr += data.toString()));
  await until(async () => (await lab.table('distribution')).length === 1);
  return reader;
}

async function withLab(work: (lab: Lab) => Promise<void>): Promise<void> {
  const lab = await Lab.start();
  try {
    await work(lab);
  } finally {
    await lab.stop();
  }
}

const skip = withoutRoot;

t.test('an idle mount goes, and its control device ends', { skip }, async (t) => {
  await withLab(async (lab) => {
    const { status, stderr } = await umount(lab.mountPoint);
    t.same([status, stderr], [0, '']);
    t.equal(isMounted(lab), false);
    await until(() => lab.control?.ended ?? true);
    t.equal(lab.control?.child.exitCode, 0);
    const again = await umount(lab.mountPoint);
    t.equal(again.status, 1);
    t.match(again.stderr, /^fwdfs: \S+ is no mount of fwdfs: [^\n]+\n$/);
  });
});

t.test('a mount that is in use stays, and the error names who uses it and -l', { skip }, async (t) => {
  await withLab(async (lab) => {
    const reader = await blockedReader(lab);
    const { status, stderr } = await umount(lab.mountPoint);
    t.equal(status, 1);
    t.match(
      stderr,
      new RegExp(`^fwdfs: \\S+ is busy, it is used by cat \\(pid ${reader.child.pid}\\): .*umount -l [^\n]+\n$`),
    );
    t.equal(isMounted(lab), true);
    t.equal(reader.child.exitCode, null, 'the reader goes on');
    reader.child.kill('SIGINT');
    await reader.ended;
    await until(async () => (await lab.table('distribution')).length === 0);
    t.equal((await umount(lab.mountPoint)).status, 0);
  });
});

t.test('-l detaches at once, and who reads goes on until it closes', { skip }, async (t) => {
  await withLab(async (lab) => {
    const reader = await blockedReader(lab);
    const { status, stderr } = await umount(`-l ${lab.mountPoint}`);
    t.same([status, stderr], [0, '']);
    t.equal(isMounted(lab), false);
    lab.node.run('ping -q -c 1 10.9.0.1');
    await until(() => reader.stdout.length > 0);
    reader.child.kill('SIGKILL');
    await reader.ended;
    await until(() => lab.control?.ended ?? true);
    t.equal(lab.control?.child.exitCode, 0, 'the control device ends after the last close');
  });
});

t.test('the mount of a killed control device goes', { skip }, async (t) => {
  await withLab(async (lab) => {
    await lab.control?.end('SIGKILL');
    const { status, stderr } = await umount(lab.mountPoint);
    t.same([status, stderr], [0, '']);
    t.equal(isMounted(lab), false);
  });
});

t.test('the mount of a killed control device goes, also while a file in it is open', { skip }, async (t) => {
  await withLab(async (lab) => {
    const holder = spawn('bash', ['-c', `exec 5<${lab.file('eth0')}; echo open; read -r`], { stdio: 'pipe' });
    await new Promise((resolve) => holder.stdout.once('data', resolve));
    await lab.control?.end('SIGKILL');
    const { status, stderr } = await umount(lab.mountPoint);
    t.same([status, stderr], [0, '']);
    t.equal(isMounted(lab), false);
    holder.kill('SIGKILL');
  });
});

t.test('the mount of a stopped control device goes', { skip }, async (t) => {
  await withLab(async (lab) => {
    lab.control?.child.kill('SIGSTOP');
    const { status, stderr } = await umount(lab.mountPoint);
    t.same([status, stderr], [0, '']);
    t.equal(isMounted(lab), false);
    lab.control?.child.kill('SIGCONT');
    await until(() => lab.control?.ended ?? true);
    t.equal(lab.control?.child.exitCode, 0, 'continued, it finds its mount gone and ends');
  });
});

t.test('the mount of a stopped control device goes, and who reads from it is told', { skip }, async (t) => {
  await withLab(async (lab) => {
    const reader = await blockedReader(lab);
    lab.control?.child.kill('SIGSTOP');
    const { status, stderr } = await umount(lab.mountPoint);
    t.equal(status, 0);
    t.match(stderr, /^fwdfs: the control device did not answer: its connection was ended[^\n]*\n$/);
    t.equal(isMounted(lab), false);
    await reader.ended;
    t.match(reader.stderr, /connection abort|not connected/);
    lab.control?.child.kill('SIGCONT');
    await until(() => lab.control?.ended ?? true);
  });
});

t.test('-l detaches the mount of a stopped control device, too', { skip }, async (t) => {
  await withLab(async (lab) => {
    const reader = await blockedReader(lab);
    lab.control?.child.kill('SIGSTOP');
    const { status, stderr } = await umount(`-l ${lab.mountPoint}`);
    t.same([status, stderr], [0, '']);
    t.equal(isMounted(lab), false);
    lab.control?.child.kill('SIGCONT');
    reader.child.kill('SIGKILL');
    await until(() => lab.control?.ended ?? true);
  });
});

t.test('what is inside the mount of a stopped control device is said so, and goes with it', { skip }, async (t) => {
  await withLab(async (lab) => {
    const fwdfs = (line: string): Promise<Result> => shell(`timeout 9 ${process.execPath} ${FWDFS} ${line}`);
    const inner = `${lab.mountPoint}/fwd1`;
    const source = 'other=ws://127.0.0.1:1';
    t.equal((await fwdfs(`mount -o nonempty ${source} ${inner}`)).status, 0);
    lab.control?.child.kill('SIGSTOP');
    const lines = [`umount ${inner}`, `umount -l ${inner}`, `mount ${source} ${inner}`];
    lines.push(`mount -o log_file=${lab.mountPoint}/log ${source} ${lab.folder}`);
    for (const { status, stderr } of await Promise.all(lines.map(fwdfs))) {
      t.equal(status, 1);
      t.match(stderr, /^fwdfs: \S+ is inside \S+, whose control device does not answer: continue it [^\n]+\n$/);
    }
    t.equal((await umount(lab.mountPoint)).status, 0);
    t.equal(readFileSync('/proc/self/mountinfo', 'utf8').includes(lab.mountPoint), false, 'both are gone');
    lab.control?.child.kill('SIGCONT');
    await until(() => lab.control?.ended ?? true);
  });
});

t.test('a path that is no mount is left alone', { skip }, async (t) => {
  for (const path of ['/proc', '/', '/no/such/path', t.testdir({})]) {
    const { status, stderr } = await umount(path);
    t.equal(status, 1, path);
    t.match(stderr, /^fwdfs: \S+ is no mount of fwdfs: [^\n]+\n$/, path);
  }
});
