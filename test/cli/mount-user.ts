/** fwdfs mount as another user than root: through fusermount3, in a mount namespace with a /dev/fuse for all. */
import { existsSync } from 'node:fs';
import t from 'tap';
import { signalProcess, until } from '../support/lab.js';
import { NOBODY, userNamespace } from '../support/mount-namespace.js';
import { withoutRoot } from '../support/netns.js';

const skip = withoutRoot;
/** Nobody listens there. */
const NOWHERE = 'fwd1=ws://127.0.0.1:1';
/** No umount may take longer: a control device that does not answer is given 2 s. */
const LIMIT_S = 10;

t.test('whoever owns a directory may mount on it, and the files are his', { skip }, async (t) => {
  const { ns, dir } = await userNamespace(t);
  const mounted = await ns.asNobody(`${ns.fwdfs} mount ${NOWHERE},b=ws+unix:/no ${dir}`);
  t.equal(mounted.status, 0, mounted.stderr);
  const options = `user_id=${NOBODY},group_id=${NOBODY},default_permissions,max_read=1048576`;
  t.match(
    ns.mountAt(dir),
    new RegExp(` rw,nosuid,nodev,noexec,.* - fuse\\.fwdfs ${NOWHERE},b=ws\\+unix:/no rw,${options}$`),
  );
  const seen = await ns.asNobody(`ls ${dir}; cat ${dir}/fwd1/.state; stat -c %u:%g:%a ${dir} ${dir}/fwd1/.ctl`);
  t.equal(seen.stderr, '');
  t.match(seen.stdout.toString(), /^b\nfwd1\nstate\tnot connected\n/);
  t.match(seen.stdout.toString(), new RegExp(`\n${NOBODY}:${NOBODY}:755\n${NOBODY}:${NOBODY}:200\n$`));
  t.match((await ns.shell(`ls ${dir}`)).stderr, /Permission denied/, 'not even root looks in');

  const again = await ns.asNobody(`${ns.fwdfs} mount ${NOWHERE} ${dir}`);
  t.equal(again.status, 1);
  t.match(again.stderr, /^fwdfs: \S+ is a mount of fwdfs already: [^\n]+\n$/);

  const pid = await ns.controlDeviceOf(dir);
  const umount = await ns.asNobody(`timeout ${LIMIT_S} ${ns.fwdfs} umount ${dir}`);
  t.same([umount.status, umount.stderr], [0, '']);
  t.equal(ns.mountAt(dir), undefined);
  await until(() => !existsSync(`/proc/${pid}`));
});

t.test('SIGTERM takes the mount down, also while a file in it is open', { skip }, async (t) => {
  const { ns, dir } = await userNamespace(t);
  t.equal((await ns.asNobody(`${ns.fwdfs} mount ${NOWHERE} ${dir}`)).status, 0);
  const pid = await ns.controlDeviceOf(dir);
  const { end } = await ns.user(`exec 5< ${dir}/.version`);
  signalProcess(pid, 'SIGTERM');
  await until(() => ns.mountAt(dir) === undefined);
  await until(() => !existsSync(`/proc/${pid}`));
  await end();
});

t.test('what keeps a user from mounting is said in one line', { skip }, async (t) => {
  const { ns, dir } = await userNamespace(t);
  await ns.must(`mkdir ${ns.folder}/root ${ns.folder}/private ${ns.folder}/private/in
    chmod 0700 ${ns.folder}/private
    mkdir -m 1777 ${ns.folder}/sticky
    echo > ${ns.folder}/fuse.conf
    mount --bind ${ns.folder}/fuse.conf /etc/fuse.conf`);
  const rows: [line: string, said: RegExp][] = [
    [`${ns.folder}/root`, /mount \S+\/root \(expected a directory of your own\): EACCES/],
    [`${ns.folder}/sticky`, /mount \S+\/sticky \(expected a directory of your own\): EACCES/],
    [`${ns.folder}/private/in`, /\/private\/in can't be looked at \(EACCES\): use a directory of your own/],
    [`-o allow_other ${dir}`, /allow_other by others than root needs the line user_allow_other in \/etc\/fuse\.conf/],
  ];
  for (const [words, said] of rows) {
    const line = words.replace(/ ?(\S+)$/, ` ${NOWHERE} $1`);
    const { status, stderr } = await ns.asNobody(`timeout 20 ${ns.fwdfs} mount -f ${line}`);
    t.equal(status, 1, line);
    t.match(stderr, /^fwdfs: [^\n]+\n$/);
    t.match(stderr, said);
  }
  const without = await ns.asNobody(`PATH=${ns.folder}/bin node ${ns.fwdfs} mount -f ${NOWHERE} ${dir}`);
  t.equal(without.status, 1);
  t.match(without.stderr, /^fwdfs: mounting by others than root needs fusermount3 \(apt-get install fuse3\)[^\n]*\n$/);
  await ns.must(`chmod 0600 /dev/fuse`);
  const closed = await ns.asNobody(`${ns.fwdfs} mount ${NOWHERE} ${dir}`);
  t.equal(closed.status, 1);
  t.match(closed.stderr, /^fwdfs: this user may not open \/dev\/fuse \(as root: chmod 0666 \/dev\/fuse\)[^\n]*\n$/);
  t.equal(ns.mountAt(dir), undefined);
});

t.test('with user_allow_other and a umask others may look in', { skip }, async (t) => {
  const { ns, dir } = await userNamespace(t);
  await ns.must(`echo user_allow_other > ${ns.folder}/fuse.conf
    mount --bind ${ns.folder}/fuse.conf /etc/fuse.conf`);
  t.equal((await ns.asNobody(`${ns.fwdfs} mount -o allow_other,umask=022 ${NOWHERE} ${dir}`)).status, 0);
  const other = ['setpriv', '--reuid=12345', '--regid=12345', '--clear-groups'];
  t.equal((await ns.shell(`ls ${dir}`, other)).stdout.toString(), 'fwd1\n');
  t.match((await ns.shell(`echo x > ${dir}/.ctl`, other)).stderr, /Permission denied/);
});
