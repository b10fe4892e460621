import { mkdirSync, symlinkSync } from 'node:fs';
import { join, relative } from 'node:path';
import t from 'tap';
import { chooseMount, fwdfsMounts, mountAt, mountsAbove } from '../../src/cli/mounts.js';

const line = (place: string, type: string, options = 'shared:1'): string =>
  `36 35 0:41 / ${place} rw,nosuid ${options}${options === '' ? '' : ' '}- ${type} fwd1=ws://h:1 rw,user_id=0`;

t.test('the mounts of this host are read from mountinfo', async (t) => {
  const mountinfo = [
    line('/', 'ext4'),
    line('/fwd', 'fuse.fwdfs'),
    line('/other', 'fuse.sshfs'),
    line('/with\\040blank', 'fuse.fwdfs', ''),
    line('/\\303\\274ber', 'fuse.fwdfs', 'shared:1 master:2'),
    line('/covered', 'fuse.fwdfs'),
    line('/covered', 'tmpfs'),
    line('/twice', 'tmpfs'),
    line('/twice', 'fuse.fwdfs'),
    '',
  ].join('\n');
  t.same(fwdfsMounts(mountinfo), ['/fwd', '/with blank', '/über', '/twice']);
  t.same(fwdfsMounts(''), []);
});

t.test('a mount is found by every path that leads to it, without looking into it', async (t) => {
  const folder = t.testdir({ real: { fwd: {} } });
  const mounts = [join(folder, 'real/fwd')];
  symlinkSync('real', join(folder, 'link'));
  symlinkSync('link/fwd', join(folder, 'shortcut'));
  symlinkSync('loop', join(folder, 'loop'));
  mkdirSync(join(folder, 'elsewhere'));
  for (const path of ['real/fwd', 'real/fwd/', 'real/../real/fwd', 'link/fwd', 'shortcut']) {
    t.equal(mountAt(join(folder, path), mounts), mounts[0], path);
  }
  t.equal(mountAt(relative(process.cwd(), join(folder, 'real/fwd')), mounts), mounts[0], 'relative');
  for (const path of ['elsewhere', 'real', 'nowhere', 'real/fwd/inside', 'loop', 'nowhere/at/all']) {
    t.equal(mountAt(join(folder, path), mounts), undefined, path);
  }
});

t.test('the mounts on the way to a path are found, outermost first, without looking into them', async (t) => {
  const folder = t.testdir({ fwd: {}, fwd1: {} });
  const [outer, middle] = [join(folder, 'fwd'), join(folder, 'fwd/a/b')];
  const mounts = [middle, outer, join(folder, 'fwd1')];
  symlinkSync('fwd/a', join(folder, 'link'));
  t.same(mountsAbove(join(folder, 'link/b/c/file'), mounts), [outer, middle]);
  t.same(mountsAbove(middle, mounts), [outer]);
  t.same(mountsAbove(outer, mounts), []);
  t.same(mountsAbove(join(folder, 'fwd1/file'), mounts), [join(folder, 'fwd1')]);
  t.equal(mountAt(join(folder, 'link/b'), mounts), middle);
});

t.test('-m may be left out where there is exactly one mount', async (t) => {
  t.equal(chooseMount(undefined, ['/fwd']), '/fwd');
  t.equal(chooseMount('/b', ['/a', '/b']), '/b');
  t.throws(() => chooseMount(undefined, []), { message: /^there is no mount of fwdfs: make one with fwdfs mount/ });
  t.throws(() => chooseMount(undefined, ['/a', '/b']), {
    message: 'there are several mounts, say which with -m: /a, /b',
  });
  t.throws(() => chooseMount('/c', ['/a', '/b']), { message: '/c is no mount of fwdfs: try /a, /b' });
  t.throws(() => chooseMount('/c', []), { message: /there is none/ });
});
