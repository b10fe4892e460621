import t from 'tap';
import { isGranted, shownMode } from '../../src/fusefs/attributes.js';
import { TextFile } from '../../src/fusefs/text-file.js';
import { type Node, staticDirectory } from '../../src/fusefs/tree.js';
import { Quiet, streamFile } from '../support/fuse-demo.js';

const owner = { uid: 5, gid: 6 };
const stats = { opens: 0, releases: 0, largestRead: 0, largestWrite: 0, commands: [] };
const text = new TextFile(2, () => '');
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

const streamOf = (mode: number): Node => streamFile('/file', () => new Quiet(stats), mode);

t.test('without a umask each node shows the bits that it has', async (t) => {
  t.equal(shownMode(streamOf(0o600), owner), 0o600);
  t.equal(shownMode(streamOf(0o444), owner), 0o444);
  t.equal(shownMode(directory, owner), 0o755);
});

t.test('with a umask all may do what the owner may, but for its bits', async (t) => {
  for (const [mode, umask, shown] of [
    [0o600, 0o000, 0o666],
    [0o600, 0o022, 0o644],
    [0o600, 0o027, 0o640],
    [0o600, 0o077, 0o600],
    [0o400, 0o022, 0o444],
    [0o200, 0o022, 0o200],
    [0o200, 0o002, 0o220],
    [0o000, 0o000, 0o000],
    [0o444, 0o027, 0o440],
    [0o600, 0o777, 0o000],
  ] as const) {
    t.equal(shownMode(streamOf(mode), { ...owner, umask }), shown, `${mode.toString(8)} umask ${umask.toString(8)}`);
  }
  t.equal(shownMode(directory, { ...owner, umask: 0o022 }), 0o755);
  t.equal(shownMode(directory, { ...owner, umask: 0o002 }), 0o775);
  t.equal(shownMode(directory, { ...owner, umask: 0o077 }), 0o700);
});
