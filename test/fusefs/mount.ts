import t from 'tap';
import { connectionOf } from '../../src/fusefs/mount.js';
import { mountedTree } from '../support/mounted-tree.js';

t.test('the connection of a mount point is found without touching the mount', async (t) => {
  const mountinfo = [
    '22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw',
    '40 22 0:39 / /tmp/a\\040b rw,nosuid,nodev - fuse.fwdfs demo rw',
    '41 40 0:40 / /tmp/a\\040b rw,nosuid,nodev - fuse.fwdfs demo rw',
    '42 22 0:41 / /tmp/a\\040bc rw - fuse.fwdfs demo rw',
    '',
  ].join('\n');
  t.equal(connectionOf('/tmp/a b', mountinfo), 40, 'the mount on top');
  t.equal(connectionOf('/tmp/a b/', mountinfo), 40);
  t.equal(connectionOf('/', mountinfo), 0);
  t.equal(connectionOf('/tmp', mountinfo), undefined);
});

mountedTree('own', new Set());
