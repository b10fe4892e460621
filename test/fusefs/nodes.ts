import t from 'tap';
import { NodeTable, ROOT_NODEID } from '../../src/fusefs/nodes.js';
import { TextFile } from '../../src/fusefs/text-file.js';
import { inoOf, staticDirectory } from '../../src/fusefs/tree.js';
import { Quiet, streamFile } from '../support/fuse-demo.js';

const stats = { opens: 0, releases: 0, largestRead: 0, largestWrite: 0, commands: [] };
const stream = streamFile('/stream', () => new Quiet(stats));
const text = new TextFile(inoOf('/text'), () => '');
const inner = staticDirectory('/inner', new Map([['text', text]]));
const root = staticDirectory('/', new Map());

t.test('every lookup of a stream gets a nodeid of its own', async (t) => {
  const nodes = new NodeTable(root);
  const ids = [1, 2, 3].map(() => nodes.looked(ROOT_NODEID, 'stream', stream));
  t.equal(new Set(ids).size, 3);
  for (const id of ids) t.equal(nodes.get(id), stream);
  for (const id of ids) nodes.forget(id, 1);
  t.equal(nodes.size, 1);
});

t.test('a directory or text file keeps its nodeid until the kernel forgets every lookup of it', async (t) => {
  const nodes = new NodeTable(root);
  const id = nodes.looked(ROOT_NODEID, 'inner', inner);
  t.equal(nodes.looked(ROOT_NODEID, 'inner', inner), id);
  t.equal(nodes.looked(ROOT_NODEID, 'inner', inner), id);
  nodes.forget(id, 2);
  t.equal(nodes.get(id), inner);
  nodes.forget(id, 1);
  t.throws(() => nodes.get(id), { code: 'ESTALE' });
  t.ok(nodes.looked(ROOT_NODEID, 'inner', inner) !== id, 'a nodeid never comes again');
});

t.test('equal names in different directories are different nodes', async (t) => {
  const nodes = new NodeTable(root);
  const directory = nodes.looked(ROOT_NODEID, 'inner', inner);
  t.ok(nodes.looked(directory, 'text', text) !== nodes.looked(ROOT_NODEID, 'text', text));
});

t.test('what takes over the name of another thing gets another nodeid, and the old one stays valid', async (t) => {
  const nodes = new NodeTable(root);
  const before = nodes.looked(ROOT_NODEID, 'x', inner);
  const after = nodes.looked(ROOT_NODEID, 'x', text);
  t.ok(after !== before);
  t.equal(nodes.get(before), inner);
  nodes.forget(before, 1);
  t.equal(nodes.looked(ROOT_NODEID, 'x', text), after);
});

t.test('a node that was made anew for the same name is the one that answers', async (t) => {
  const nodes = new NodeTable(root);
  const id = nodes.looked(ROOT_NODEID, 'text', text);
  const again = new TextFile(text.ino, () => 'new', { mode: 0o400 });
  t.equal(nodes.looked(ROOT_NODEID, 'text', again), id);
  t.equal(nodes.get(id), again);
});

t.test('the parent of a directory is known, the root is its own', async (t) => {
  const nodes = new NodeTable(root);
  t.equal(nodes.parentIno(ROOT_NODEID), root.ino);
  t.equal(nodes.parentIno(nodes.looked(ROOT_NODEID, 'inner', inner)), root.ino);
});

t.test('a file is no directory', async (t) => {
  const nodes = new NodeTable(root);
  t.throws(() => nodes.directory(nodes.looked(ROOT_NODEID, 'text', text)), { code: 'ENOTDIR' });
  t.equal(nodes.directory(ROOT_NODEID), root);
});

t.test('forgetting the root, what is unknown, or too much is harmless', async (t) => {
  const nodes = new NodeTable(root);
  nodes.forget(ROOT_NODEID, 100);
  nodes.forget(12345, 1);
  const id = nodes.looked(ROOT_NODEID, 'stream', stream);
  nodes.forget(id, 1e9);
  t.equal(nodes.size, 1);
  t.equal(nodes.get(ROOT_NODEID), root);
});

t.test('beyond the limit of live nodes a lookup fails', async (t) => {
  const nodes = new NodeTable(root, 3);
  const id = nodes.looked(ROOT_NODEID, 'stream', stream);
  nodes.looked(ROOT_NODEID, 'stream', stream);
  t.throws(() => nodes.looked(ROOT_NODEID, 'stream', stream), { code: 'too-many' });
  nodes.forget(id, 1);
  t.ok(nodes.looked(ROOT_NODEID, 'stream', stream) > 0);
});

t.test('inode numbers are stable, distinct, and safe integers that nothing else uses', async (t) => {
  t.equal(inoOf('/fwd1/eth0'), inoOf('/fwd1/eth0'));
  const seen = new Set<number>();
  for (let index = 0; index < 10_000; index++) {
    const ino = inoOf(`/fwd1/eth${index}`);
    if (!Number.isSafeInteger(ino) || ino < 2) t.ok(false, `${ino}`);
    seen.add(ino);
  }
  t.equal(seen.size, 10_000);
});

t.test('a static directory lists what it can look up', async (t) => {
  const directory = staticDirectory(
    '/',
    new Map<string, typeof text | typeof inner>([
      ['text', text],
      ['inner', inner],
    ]),
  );
  t.same(directory.list(), [
    { name: 'text', directory: false, ino: text.ino },
    { name: 'inner', directory: true, ino: inner.ino },
  ]);
  t.equal(directory.lookup('inner'), inner);
  t.throws(() => directory.lookup('other'), { code: 'no-such-name' });
});
