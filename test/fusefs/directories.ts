import { constants } from 'node:os';
import t from 'tap';
import { DIRENT, OPEN_OUT } from '../../src/fusefs/abi.js';
import { decode } from '../../src/fusefs/struct.js';
import { TextFile } from '../../src/fusefs/text-file.js';
import { inoOf, type Node, staticDirectory } from '../../src/fusefs/tree.js';
import { demo } from '../support/fuse-demo.js';
import { Bench, type Reply } from '../support/fuse-device.js';

const E = constants.errno;

function bench(): Bench {
  const { root, close } = demo();
  t.teardown(close);
  return new Bench(root);
}

/** Names, inode numbers, types and offsets of a READDIR reply. */
function entries({ message }: Reply): { name: string; ino: number; type: number; off: number }[] {
  const list = [];
  for (let at = 16; at < message.length;) {
    const { ino, off, namelen, type } = decode(DIRENT, message.subarray(at));
    list.push({ name: message.toString('utf8', at + 24, at + 24 + namelen), ino, type, off });
    at += (24 + namelen + 7) & ~7;
  }
  return list;
}

t.test('directories', async (t) => {
  await t.test('READDIR lists everything once, however small the buffer', async (t) => {
    const server = bench();
    const fh = decode(OPEN_OUT, server.ask('OPENDIR').message).fh;
    t.equal(decode(OPEN_OUT, server.ask('OPENDIR').message).open_flags, 0, 'nothing is cached');
    const whole = entries(server.ask('READDIR', { values: { fh, offset: 0, size: 4096 } }));
    t.equal(whole[0]?.name, '.');
    t.equal(whole[1]?.name, '..');
    t.match(
      whole.find(({ name }) => name === 'dir'),
      { type: 4, ino: inoOf('/dir') },
    );
    t.match(
      whole.find(({ name }) => name === 'echo'),
      { type: 8, ino: inoOf('/echo') },
    );
    const names: string[] = [];
    for (let offset = 0; ;) {
      const part = entries(server.ask('READDIR', { values: { fh, offset, size: 40 } }));
      if (part.length === 0) break;
      names.push(...part.map(({ name }) => name));
      offset = part.at(-1)?.off ?? 0;
    }
    t.same(
      names,
      whole.map(({ name }) => name),
    );
    t.equal(server.ask('RELEASEDIR', { values: { fh } }).error, 0);
    t.equal(server.ask('READDIR', { values: { fh, size: 40 } }).error, -E.EBADF);
  });

  await t.test('a listing is of one moment; reading from the start takes a new one', async (t) => {
    const text = new TextFile(1, () => '');
    const children = new Map<string, Node>([['one', text]]);
    const server = new Bench(staticDirectory('/', children));
    const { fh } = decode(OPEN_OUT, server.ask('OPENDIR').message);
    const names = (offset: number): string[] =>
      entries(server.ask('READDIR', { values: { fh, offset, size: 4096 } })).map(({ name }) => name);
    t.same(names(0), ['.', '..', 'one']);
    children.set('two', text);
    t.same(names(2), ['one']);
    t.same(names(0), ['.', '..', 'one', 'two']);
  });

  await t.test('the parent of a directory is its parent', async (t) => {
    const server = bench();
    const nodeid = server.lookup('dir');
    const { fh } = decode(OPEN_OUT, server.ask('OPENDIR', { nodeid }).message);
    const list = entries(server.ask('READDIR', { nodeid, values: { fh, size: 4096 } }));
    t.same(
      list.map(({ ino }) => ino),
      [inoOf('/dir'), inoOf('/'), inoOf('/text')],
    );
  });

  await t.test('a file is no directory, a directory no file', async (t) => {
    const server = bench();
    t.equal(server.ask('OPENDIR', { nodeid: server.lookup('text') }).error, -E.ENOTDIR);
    t.equal(server.ask('OPEN', { nodeid: 1 }).error, -E.EISDIR);
  });
});
