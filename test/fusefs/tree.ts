import t from 'tap';
import { type Node, shownMode, staticDirectory } from '../../src/fusefs/tree.js';
import { streamFile } from '../support/fuse-demo.js';

const directory = staticDirectory('/', new Map());
const file = (mode: number): Node => streamFile('/file', () => Promise.reject(new Error('never opened')), mode);
const owner = { uid: 0, gid: 0 };

t.test('without a umask each node shows the bits that it has', async (t) => {
  t.equal(shownMode(file(0o600), owner), 0o600);
  t.equal(shownMode(file(0o444), owner), 0o444);
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
    t.equal(shownMode(file(mode), { ...owner, umask }), shown, `${mode.toString(8)} umask ${umask.toString(8)}`);
  }
  t.equal(shownMode(directory, { ...owner, umask: 0o022 }), 0o755);
  t.equal(shownMode(directory, { ...owner, umask: 0o002 }), 0o775);
  t.equal(shownMode(directory, { ...owner, umask: 0o077 }), 0o700);
});
