import t from 'tap';
import { isGranted } from '../../src/fusefs/attributes.js';
import { TextFile } from '../../src/fusefs/text-file.js';
import { staticDirectory } from '../../src/fusefs/tree.js';
import { Quiet, streamFile } from '../support/fuse-demo.js';

const owner = { uid: 5, gid: 6 };
const stats = { opens: 0, releases: 0, largestRead: 0, largestWrite: 0, commands: [] };
const text = new TextFile(2, () => '', 0o444);
const stream = streamFile('/stream', () => new Quiet(stats), 0o666);
const directory = staticDirectory('/', new Map(), 0o755);

t.test('what changes nothing is granted', async (t) => {
  for (const node of [text, stream, directory]) {
    t.equal(isGranted(node, owner, {}), true);
    t.equal(isGranted(node, owner, { mode: node.mode, uid: 5, gid: 6 }), true);
  }
});

t.test('other rights are refused to everything, another owner to all but a stream', async (t) => {
  for (const node of [text, stream, directory]) {
    t.equal(isGranted(node, owner, { mode: 0o600 }), false);
    t.equal(isGranted(node, owner, { uid: 1 }), node === stream);
    t.equal(isGranted(node, owner, { gid: 1 }), node === stream);
  }
});
