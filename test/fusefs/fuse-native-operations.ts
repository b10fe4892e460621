import { constants } from 'node:os';
import t from 'tap';
import { silent } from '../../src/base/log.js';
import { type FuseNativeOperations } from '../../src/fusefs/fuse-native-library.js';
import { nodeAt, type Served, serveOperations } from '../../src/fusefs/fuse-native-operations.js';
import { ENDLESS } from '../../src/fusefs/patience.js';
import { inoOf } from '../../src/fusefs/tree.js';
import { O } from '../../src/sys/libc.js';
import { demo, TEXT } from '../support/fuse-demo.js';
import { turn } from '../support/fuse-device.js';

const E = constants.errno;

interface Ends {
  /** What `done` was called with, in its order. */
  readonly results: number[];
  readonly done: (result: number) => void;
}

function ends(): Ends {
  const results: number[] = [];
  return { results, done: (result) => void results.push(result) };
}

function served(readOnly = false): Served {
  const { root, close } = demo();
  t.teardown(close);
  return serveOperations(root, { uid: 5, gid: 6 }, readOnly, silent, ENDLESS);
}

/** The handle, or minus the errno. */
function open({ operations }: Served, path: string, flags: number = O.RDWR): number {
  let handle = 0;
  operations.open(path, flags, (result, fd) => {
    handle = fd ?? result;
  });
  return handle;
}

t.test('a path is walked through directories alone', async (t) => {
  const { root, close } = demo();
  close();
  t.equal(nodeAt(root, '/').node, root);
  const { node, parent } = nodeAt(root, '/dir/text');
  t.same([node.ino, parent.ino], [inoOf('/text'), inoOf('/dir')]);
  t.throws(() => nodeAt(root, '/text/x'), { code: 'ENOTDIR' });
  t.throws(() => nodeAt(root, '/nothing'), { code: 'no-such-name' });
  t.throws(() => nodeAt(root, `/${'x'.repeat(256)}`), { code: 'ENAMETOOLONG' });
});

t.test('attributes and listings are those of the tree', async (t) => {
  const { operations } = served();
  operations.getattr('/echo', (result, stat) => {
    t.equal(result, 0);
    t.match(stat, { mode: 0o100666, uid: 5, gid: 6, size: 0, nlink: 1, ino: inoOf('/echo') });
  });
  operations.getattr('/nothing', (result) => t.equal(result, -E.ENOENT));
  operations.readdir('/dir', (result, names, stats) => {
    t.equal(result, 0);
    t.same(names, ['.', '..', 'text']);
    t.same(
      stats?.map(({ ino, mode }) => [ino, mode]),
      [
        [inoOf('/dir'), 0o040000],
        [inoOf('/'), 0o040000],
        [inoOf('/text'), 0o100000],
      ],
    );
  });
  operations.readdir('/text', (result) => t.equal(result, -E.ENOTDIR));
});

t.test('a read answers in the buffer that came with it, at once or when there is something', async (t) => {
  const scene = served();
  const fd = open(scene, '/echo');
  const buffer = Buffer.alloc(16, 0xa5);
  const reader = ends();
  scene.operations.read('/echo', fd, buffer, 8, 0, reader.done);
  t.same([reader.results, scene.handles.waiting], [[], 1]);
  const writer = ends();
  scene.operations.write('/echo', fd, Buffer.from('hello'), 5, 0, writer.done);
  await turn();
  t.same([writer.results, reader.results], [[5], [5]]);
  t.equal(buffer.toString('latin1', 0, 6), 'hello\xa5');
});

t.test('a text file is read by its position; the position of a stream is nothing', async (t) => {
  const scene = served();
  const fd = open(scene, '/text', O.RDONLY);
  const buffer = Buffer.alloc(6);
  const { results, done } = ends();
  scene.operations.read('/text', fd, buffer, 6, 7, done);
  t.same([results, buffer.toString()], [[6], TEXT.slice(7, 13)]);
});

t.test('O_NONBLOCK of the open counts', async (t) => {
  const scene = served();
  const fd = open(scene, '/quiet', O.RDONLY | O.NONBLOCK);
  const { results, done } = ends();
  scene.operations.read('/quiet', fd, Buffer.alloc(1), 1, 0, done);
  t.same(results, [-E.EAGAIN]);
});

t.test('opens are refused as on our own server', async (t) => {
  t.equal(open(served(), '/dir'), -E.EISDIR);
  t.equal(open(served(), '/text'), -E.EACCES);
  t.equal(open(served(true), '/echo'), -E.EROFS);
  t.ok(open(served(true), '/echo', O.RDONLY) > 0);
});

t.test('close, fsync and release reach the file', async (t) => {
  const scene = served();
  const fd = open(scene, '/echo');
  const { results, done } = ends();
  scene.operations.flush('/echo', fd, done);
  scene.operations.fsync('/echo', 0, fd, done);
  await turn();
  scene.operations.release('/echo', fd, done);
  t.same(results, [0, 0, 0]);
  t.equal(scene.handles.size, 0);
  scene.operations.flush('/echo', fd, done);
  t.equal(results.at(-1), -E.EBADF);
});

t.test(
  'names can not be changed; sizes and times are accepted, rights and owners only if nothing changes',
  async (t) => {
    const { operations } = served();
    const cases: [string, number, (operations: FuseNativeOperations, done: (result: number) => void) => void][] = [
      ['mkdir', -E.EPERM, (o, done) => o.mkdir('/x', 0, done)],
      ['mknod', -E.EPERM, (o, done) => o.mknod('/x', 0, 0, done)],
      ['unlink', -E.EPERM, (o, done) => o.unlink('/text', done)],
      ['rmdir', -E.EPERM, (o, done) => o.rmdir('/dir', done)],
      ['rename', -E.EPERM, (o, done) => o.rename('/text', '/x', done)],
      ['link', -E.EPERM, (o, done) => o.link('/text', '/x', done)],
      ['symlink', -E.EPERM, (o, done) => o.symlink('x', '/x', done)],
      ['create', -E.ENOENT, (o, done) => o.create('/x', 0, done)],
      ['readlink', -E.EINVAL, (o, done) => o.readlink('/text', done)],
      ['truncate', 0, (o, done) => o.truncate('/echo', 0, done)],
      ['ftruncate', 0, (o, done) => o.ftruncate('/echo', 1, 0, done)],
      ['utimens', 0, (o, done) => o.utimens('/text', 0, 0, done)],
      ['chmod to what it is', 0, (o, done) => o.chmod('/text', 0o100444, done)],
      ['chmod', -E.EPERM, (o, done) => o.chmod('/text', 0o100600, done)],
      ['chown to nobody else', 0, (o, done) => o.chown('/text', 5, 0xffffffff, done)],
      ['chown', -E.EPERM, (o, done) => o.chown('/text', 0, 0xffffffff, done)],
      ['chown of a stream', 0, (o, done) => o.chown('/echo', 0, 0, done)],
      ['of what is not there', -E.ENOENT, (o, done) => o.utimens('/nothing', 0, 0, done)],
    ];
    for (const [title, result, call] of cases) {
      const { results, done } = ends();
      call(operations, done);
      t.same(results, [result], title);
    }
  },
);

t.test('whoever still waits at the end is let go, once', async (t) => {
  const scene = served();
  const fd = open(scene, '/quiet');
  const { results, done } = ends();
  scene.operations.read('/quiet', fd, Buffer.alloc(1), 1, 0, done);
  scene.operations.open('/slow-open', O.RDONLY, done);
  scene.handles.end();
  scene.answers.abandon();
  scene.answers.abandon();
  t.same(results, [-E.ENODEV, -E.ENODEV]);
});
