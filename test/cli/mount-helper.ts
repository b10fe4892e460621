/** mount.fwdfs, called as mount(8) does, and mount(8) itself in a mount namespace whose /sbin has the links to it. */
import { join } from 'node:path';
import t from 'tap';
import { withoutRoot } from '../support/netns.js';
import { MountNamespace } from '../support/mount-namespace.js';

const skip = withoutRoot;
/** Nobody listens there. */
const NOWHERE = 'fwd1=ws://127.0.0.1:1';
const NOT_CONNECTED = /^fwdfs: fwd1 is not connected yet[^\n]+\n$/;

async function started(test: Pick<typeof t, 'teardown'>): Promise<MountNamespace> {
  const ns = await MountNamespace.start();
  test.teardown(() => ns.stop());
  await ns.linkHelpers();
  return ns;
}

t.test('the helper keeps the conventions of mount(8)', { skip }, async (t) => {
  const ns = await started(t);
  const dir = join(ns.folder, 'fwd');
  await ns.must(`mkdir ${dir}`);

  await t.test('-f mounts nothing, and checks the options', async (t) => {
    const fake = await ns.shell(`/sbin/mount.fwdfs ${NOWHERE} ${dir} -f -o rw,_netdev`);
    t.same([fake.status, fake.stderr], [0, '']);
    t.equal(ns.mountAt(dir), undefined);
    t.equal((await ns.shell(`/sbin/mount.fwdfs ${NOWHERE} ${dir} -f -o rw,bogus`)).status, 32);
  });

  for (const [line, said] of [
    [`${NOWHERE} ${dir} -o rw,bogus=1`, /^fwdfs: unknown mount option bogus: see fwdfs mount --help[^\n]*\n$/],
    [`${NOWHERE} ${dir}/none -o rw`, /^fwdfs: \S+\/none is not there: mkdir \S+\/none\n$/],
    [`fwd1=http://h ${dir} -o rw`, /^fwdfs: "fwd1=http:\/\/h": expected ws:\/\/HOST[^\n]+\n$/],
    [`/none.yaml ${dir} -o rw`, /^fwdfs: \/none\.yaml: expected a file that can be read[^\n]+\n$/],
    [`${NOWHERE} ${dir} -N /proc/1/ns/mnt -o rw`, /^fwdfs: mount -N is not served: nsenter --mount=[^\n]+\n$/],
    [`${NOWHERE}`, /^fwdfs: missing required argument 'dir' \(mount\.fwdfs --help shows how\)\n$/],
  ] as const) {
    await t.test(`a failure is 32 and one line: ${line.replace(ns.folder, '')}`, async (t) => {
      const { status, stdout, stderr } = await ns.shell(`cd /; /sbin/mount.fwdfs ${line}`);
      t.same([status, stdout.toString()], [32, '']);
      t.match(stderr, said);
      t.equal(ns.mountAt(dir), undefined);
    });
  }

  await t.test('it returns when the mount can be used, from any directory and without HOME', async (t) => {
    const { status, stdout, stderr } = await ns.shell(
      `cd /proc; /sbin/mount.fwdfs ${NOWHERE} ${dir} -snv -o ro,bogus,noexec,relatime,x-a.b && ls ${dir}`,
    );
    t.same([status, stdout.toString()], [0, 'fwd1\n'], stderr);
    t.match(stderr, NOT_CONNECTED);
    t.match(ns.mountAt(dir), / ro,nosuid,nodev,noexec,.* - fuse\.fwdfs fwd1=ws:\/\/127\.0\.0\.1:1 /);
    t.equal((await ns.shell(`umount ${dir}`)).status, 0);
  });
});

t.test('mount(8) mounts by type, and by lines of fstab', { skip }, async (t) => {
  const ns = await started(t);
  const dir = join(ns.folder, 'fwd');
  const second = join(ns.folder, 'second');
  const fstab = join(ns.folder, 'fstab');
  const config = join(ns.folder, 'control.yaml');
  await ns.must(`mkdir ${dir} ${second}
    echo 'forwarders: { fwd2: { url: "ws://127.0.0.1:1" } }' > ${config}
    echo '${NOWHERE},other=ws://127.0.0.1:1 ${dir} fwdfs _netdev,nofail,noauto,user,x-systemd.automount 0 0' > ${fstab}
    echo '${config} ${second} fuse.fwdfs _netdev,nofail,ro,comment=x 0 0' >> ${fstab}`);

  for (const type of ['fwdfs', 'fuse.fwdfs']) {
    await t.test(`mount -t ${type}`, async (t) => {
      const { status, stderr } = await ns.shell(`mount -t ${type} ${NOWHERE} ${dir} -o allow_other,umask=027`);
      t.equal(status, 0);
      t.match(stderr, NOT_CONNECTED);
      t.match(ns.mountAt(dir), / rw,.* - fuse\.fwdfs fwd1=ws:\/\/127\.0\.0\.1:1 .*allow_other/);
      t.equal((await ns.shell(`stat -c %a ${dir}/fwd1/.state`)).stdout.toString(), '440\n');
      t.same(await ns.shell(`umount ${dir}`).then(({ status: code, stderr: said }) => [code, said]), [0, '']);
    });
  }

  await t.test('mount -a mounts what is not mounted yet', async (t) => {
    t.equal((await ns.shell(`mount -a -T ${fstab}`)).status, 0);
    t.equal(ns.mountAt(dir), undefined, 'noauto');
    t.match(ns.mountAt(second), / ro,.* - fuse\.fwdfs \S+\/control\.yaml /);
    t.equal((await ns.shell(`ls ${second}`)).stdout.toString(), 'fwd2\n');
    t.same(await ns.shell(`mount -a -T ${fstab}`).then(({ status, stderr }) => [status, stderr]), [0, '']);
  });

  await t.test('mount DIR mounts the line of that directory', async (t) => {
    t.equal((await ns.shell(`mount -T ${fstab} ${dir}`)).status, 0);
    t.equal((await ns.shell(`ls ${dir}`)).stdout.toString(), 'fwd1\nother\n');
    t.match(ns.mountAt(dir), / - fuse\.fwdfs fwd1=ws:\/\/127\.0\.0\.1:1,other=ws:\/\/127\.0\.0\.1:1 /);
    t.equal((await ns.shell(`umount ${dir} ${second}`)).status, 0);
  });

  await t.test('what fails is told by mount(8), with its status', async (t) => {
    const { status, stderr } = await ns.shell(`mount -t fwdfs ${NOWHERE} ${dir} -o bogus`);
    t.equal(status, 32);
    t.match(stderr, /^fwdfs: unknown mount option bogus[^\n]*\n$/);
  });

  await t.test('mount -f mounts nothing', async (t) => {
    t.equal((await ns.shell(`mount -f -t fwdfs ${NOWHERE} ${dir}`)).status, 0);
    t.equal(ns.mountAt(dir), undefined);
  });
});
