/** fwdfs umount as another user than root, in each case that a mount can be in. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { signalProcess, until } from '../support/lab.js';
import { userNamespace } from '../support/mount-namespace.js';
import { withoutRoot } from '../support/netns.js';

const skip = withoutRoot;
/** Nobody listens there. */
const NOWHERE = 'fwd1=ws://127.0.0.1:1';
/** No umount may take longer: a control device that does not answer is given 2 s. */
const LIMIT_S = 10;

t.test('the mount of a killed control device goes, and another one takes its place', { skip }, async (t) => {
  const { ns, dir } = await userNamespace(t);
  for (const way of ['umount', 'umount -l', 'mount']) {
    t.equal((await ns.asNobody(`${ns.fwdfs} mount ${NOWHERE} ${dir}`)).status, 0);
    signalProcess(await ns.controlDeviceOf(dir), 'SIGKILL');
    await until(async () => (await ns.asNobody(`ls ${dir}`)).status !== 0);
    const words = way === 'mount' ? `mount ${NOWHERE}` : way;
    const { status, stderr } = await ns.asNobody(`timeout ${LIMIT_S} ${ns.fwdfs} ${words} ${dir}`);
    t.equal(status, 0, `${way}: ${stderr}`);
    t.equal(ns.mountAt(dir) === undefined, way !== 'mount', way);
  }
  t.equal((await ns.asNobody(`ls ${dir}`)).stdout.toString(), 'fwd1\n');
  t.equal((await ns.asNobody(`${ns.fwdfs} umount ${dir}`)).status, 0);
  t.equal(ns.mountAt(dir), undefined, 'nothing is below');
});

t.test('the mount of a stopped control device goes', { skip }, async (t) => {
  const { ns, dir } = await userNamespace(t);
  for (const words of ['umount', 'umount -l']) {
    t.equal((await ns.asNobody(`${ns.fwdfs} mount ${NOWHERE} ${dir}`)).status, 0);
    const pid = await ns.controlDeviceOf(dir);
    signalProcess(pid, 'SIGSTOP');
    const { status, stderr } = await ns.asNobody(`timeout ${LIMIT_S} ${ns.fwdfs} ${words} ${dir}`);
    signalProcess(pid, 'SIGCONT');
    t.same([status, stderr], [0, ''], words);
    t.equal(ns.mountAt(dir), undefined, words);
    await until(() => !existsSync(`/proc/${pid}`));
  }
});

t.test('the mount of a stopped control device goes, also while it is in use', { skip }, async (t) => {
  const { ns, dir } = await userNamespace(t);
  t.equal((await ns.asNobody(`${ns.fwdfs} mount ${NOWHERE} ${dir}`)).status, 0);
  const pid = await ns.controlDeviceOf(dir);
  const { pid: used, end } = await ns.user(`cd ${dir}`);
  const busy = await ns.asNobody(`timeout ${LIMIT_S} ${ns.fwdfs} umount ${dir}`);
  t.equal(busy.status, 1);
  t.match(busy.stderr, new RegExp(`^fwdfs: \\S+ is busy, it is used by timeout \\(pid ${used}\\)[^\n]*\n$`));
  signalProcess(pid, 'SIGSTOP');
  const { status, stderr } = await ns.asNobody(`timeout ${LIMIT_S} ${ns.fwdfs} umount ${dir}`);
  signalProcess(pid, 'SIGCONT');
  t.equal(status, 0, stderr);
  // Which of the two it is depends on whether this host has fusectl mounted.
  t.match(stderr, /^fwdfs: the control device (did not answer: its connection was ended|does not answer)[^\n]*\n$/);
  t.equal(ns.mountAt(dir), undefined);
  await end();
  await until(() => !existsSync(`/proc/${pid}`));
});

t.test("a mount is its owner's to unmount", { skip }, async (t) => {
  const { ns } = await userNamespace(t);
  const dir = join(ns.folder, 'root');
  await ns.must(`mkdir ${dir} && ${ns.fwdfs} mount ${NOWHERE} ${dir}`);
  for (const flag of ['', '-l ']) {
    const { status, stderr } = await ns.asNobody(`timeout ${LIMIT_S} ${ns.fwdfs} umount ${flag}${dir}`);
    t.equal(status, 1);
    t.match(stderr, /^fwdfs: \S+ can't be unmounted by this user: sudo fwdfs umount [^\n]+\n$/);
    t.ok(ns.mountAt(dir) !== undefined);
  }
  t.equal((await ns.shell(`${ns.fwdfs} umount ${dir}`)).status, 0);
});
