import { constants } from 'node:os';
import t from 'tap';
import { Changes } from '../../src/base/changes.js';
import { FwdfsError } from '../../src/base/errors.js';
import { MAX_COMMAND_BYTES } from '../../src/base/limits.js';
import { CommandFile } from '../../src/fusefs/command-file.js';
import { TextFile } from '../../src/fusefs/text-file.js';
import { inoOf, type OpenFile, type OpenRequest } from '../../src/fusefs/tree.js';
import { O, POLL } from '../../src/sys/libc.js';

const request = (flags: number): OpenRequest => ({ flags, pid: 1, uid: 0, gid: 0, wake: () => undefined });

/** Everything from the start, `size` bytes a read. */
function readAll(file: OpenFile, size: number): string {
  const out = Buffer.alloc(size + 8, 0xa5);
  let text = '';
  for (;;) {
    const count = file.read(out, 4, size, text.length);
    if (count <= 0) return text;
    text += out.toString('latin1', 4, 4 + count);
  }
}

t.test('a text file gives the text of the moment of its opening, however it is read', async (t) => {
  let text = 'the first text\n';
  const node = new TextFile(inoOf('/t'), () => text);
  for (const size of [1, 2, 7, 15, 4096]) {
    text = 'the first text\n';
    const file = await node.open(request(O.RDONLY));
    text = 'another one\n';
    t.equal(readAll(file, size), 'the first text\n');
  }
  const file = await node.open(request(O.RDONLY));
  t.equal(readAll(file, 4096), 'another one\n');
  t.equal(file.read(Buffer.alloc(8), 0, 8, 1000), 0, 'behind the end');
  t.equal(file.poll() & POLL.IN, POLL.IN);
  t.equal(file.write(Buffer.alloc(1), 0, 1, 0), -constants.errno.EBADF);
  await file.sync('close');
  file.release();
});

t.test('a text that is made asynchronously, or fails', async (t) => {
  const later = new TextFile(1, () => Promise.resolve('later'));
  t.equal(readAll(await later.open(request(O.RDONLY)), 4), 'later');
  const failing = new TextFile(1, () => Promise.reject(new FwdfsError('not-connected', 'fwd1')));
  await t.rejects(Promise.resolve(failing.open(request(O.RDONLY))), { code: 'not-connected' });
});

t.test('reading again from the start gives the text of now', async (t) => {
  let text = 'first\n';
  const file = await new TextFile(1, () => text).open(request(O.RDONLY));
  t.equal(readAll(file, 3), 'first\n');
  text = 'a longer second\n';
  t.equal(file.read(Buffer.alloc(16), 0, 16, 6), 0, 'behind the end it is still the first');
  t.equal(readAll(file, 3), 'a longer second\n');
});

t.test('a change wakes poll for exceptions until the text is read again from the start', async (t) => {
  const changes = new Changes();
  let wakes = 0;
  let text = 'one\n';
  const node = new TextFile(1, () => text, { changes });
  const file = await node.open({ ...request(O.RDONLY), wake: () => (wakes += 1) });
  t.equal(file.poll(), POLL.IN | POLL.RDNORM);
  text = 'two\n';
  changes.tell();
  changes.tell();
  t.equal(wakes, 1);
  t.equal(file.poll(), POLL.IN | POLL.RDNORM | POLL.PRI | POLL.ERR);
  t.equal(readAll(file, 100), 'one\n', 'of the opening, which nobody had read');
  t.not(file.poll() & POLL.PRI, 0, 'and so the change is still to be seen');
  t.equal(readAll(file, 100), 'two\n');
  t.equal(file.poll(), POLL.IN | POLL.RDNORM);
  file.release();
  t.equal(changes.listenerCount, 0);
});

t.test('a change that leaves the text as it was wakes nobody where poll is exact', async (t) => {
  const changes = new Changes();
  let text: string | null = 'one\n';
  const content = (): string => {
    if (text === null) throw new FwdfsError('no-such-interface', 'eth0');
    return text;
  };
  const file = await new TextFile(1, content, { changes, exact: true }).open(request(O.RDONLY));
  changes.tell();
  t.equal(file.poll() & POLL.PRI, 0);
  text = null;
  changes.tell();
  t.not(file.poll() & POLL.PRI, 0, 'one that can not be made any more is another one');
  t.equal(readAll(file, 100), 'one\n');
  t.throws(() => file.read(Buffer.alloc(8), 0, 8, 0), { code: 'no-such-interface' });
  t.throws(() => file.read(Buffer.alloc(8), 0, 8, 0), { code: 'no-such-interface' }, 'nor is the old one given');
});

t.test('a text that is made anew asynchronously is waited for', async (t) => {
  const answers: ((text: string | Error) => void)[] = [];
  const node = new TextFile(
    1,
    () =>
      new Promise((resolve, reject) => {
        answers.push((text) => (typeof text === 'string' ? resolve(text) : reject(text)));
      }),
  );
  const wakes: (() => void)[] = [];
  const woken = (): Promise<void> => new Promise((resolve) => wakes.push(resolve));
  const opening = node.open({ ...request(O.RDONLY), wake: () => wakes.shift()?.() });
  answers.shift()?.('one');
  const file = await opening;
  const out = Buffer.alloc(8);
  t.equal(file.read(out, 0, 8, 0), 3);
  t.equal(file.read(out, 0, 8, 0), -constants.errno.EAGAIN);
  t.equal(file.read(out, 0, 8, 3), -constants.errno.EAGAIN, 'whoever comes meanwhile waits too');
  let wake = woken();
  answers.shift()?.('other');
  await wake;
  t.equal(file.read(out, 0, 8, 0), 5);
  t.equal(out.toString('latin1', 0, 5), 'other');
  t.equal(file.read(out, 0, 8, 0), -constants.errno.EAGAIN);
  wake = woken();
  answers.shift()?.(new FwdfsError('not-connected', 'fwd1'));
  await wake;
  t.equal(file.read(out, 0, 8, 0), -constants.errno.ENETDOWN);
  t.equal(file.read(out, 0, 8, 0), -constants.errno.EAGAIN, 'it is asked for again');
  answers.shift()?.('');
});

t.test('a text file is not opened for writing, not even by root', async (t) => {
  const node = new TextFile(1, () => '');
  for (const flags of [O.WRONLY, O.RDWR]) t.throws(() => node.open(request(flags)), { code: 'EACCES' });
});

interface Commands {
  readonly file: OpenFile;
  readonly done: string[];
  /** Writes and waits, as the server does. */
  write(text: string | Buffer): Promise<void>;
}

function commands(work: (line: string) => Promise<void> = () => Promise.resolve()): Commands {
  const done: string[] = [];
  const file = new CommandFile(1, async (line) => {
    await work(line);
    done.push(line);
  }).open();
  return {
    file,
    done,
    async write(text) {
      const data = Buffer.concat([Buffer.from('junk\n'), Buffer.from(text), Buffer.from('\njunk\n')]);
      const length = data.length - 11;
      if (file.write(data, 5, length, 0) !== length) throw new Error('short');
      data.fill(0x21);
      await file.sync('write');
    },
  };
}

t.test('each line is a command, and the write waits for them', async (t) => {
  const { write, done } = commands();
  await write('one\ntwo two\n\n  three \n');
  t.same(done, ['one', 'two two', 'three']);
});

t.test('a line may be cut anywhere over several writes', async (t) => {
  const text = 'rule add eth0:udp:520\nünïcode\nlast\n';
  const bytes = Buffer.from(text);
  const { write, done } = commands();
  for (let at = 0; at < bytes.length; at++) await write(bytes.subarray(at, at + 1));
  t.same(done, ['rule add eth0:udp:520', 'ünïcode', 'last']);
});

t.test('a last line without newline is carried out by fsync or close, once', async (t) => {
  const { write, done, file } = commands();
  await write('one\ntwo');
  t.same(done, ['one']);
  await file.sync('close');
  t.same(done, ['one', 'two']);
  await file.sync('close');
  t.same(done, ['one', 'two']);
  await write('three');
  await file.sync('fsync');
  t.same(done, ['one', 'two', 'three']);
  file.release();
});

t.test(
  'a failing command fails its write and stops what came with it; the next write is judged by itself',
  async (t) => {
    const { write, done } = commands(async (line) => {
      await Promise.resolve();
      if (line === 'bad') throw new FwdfsError('already-there', line);
    });
    await t.rejects(write('one\nbad\ntwo\nthr'), { code: 'already-there' });
    await write('four\n');
    t.same(done, ['one', 'four']);
  },
);

t.test('a failing last line fails the close', async (t) => {
  const { write, file } = commands(() => Promise.reject(new FwdfsError('bad-command', 'x')));
  await write('bad');
  await t.rejects(file.sync('close'), { code: 'bad-command' });
});

t.test('commands of one opener are carried out one after another', async (t) => {
  let running = 0;
  let most = 0;
  const { write, done } = commands(async () => {
    most = Math.max(most, ++running);
    await new Promise((resolve) => setImmediate(resolve));
    running--;
  });
  await Promise.all([write('one\ntwo\n'), write('three\n')]);
  t.equal(most, 1);
  t.same(done, ['one', 'two', 'three']);
});

t.test('a line of MAX_COMMAND_BYTES is a command, a longer one is refused and forgotten', async (t) => {
  const { write, done } = commands();
  const longest = 'x'.repeat(MAX_COMMAND_BYTES);
  await write(`${longest}\n`);
  await t.rejects(write(`${longest}x\n`), { code: 'bad-command' });
  await write(longest);
  await t.rejects(write('x'), { code: 'bad-command' });
  await write('next\n');
  t.same(done, [longest, 'next']);
});

t.test('a command file can always be written and has nothing to read', async (t) => {
  const { file } = commands();
  t.equal(file.poll(), POLL.OUT | POLL.WRNORM);
  t.equal(file.read(Buffer.alloc(1), 0, 1, 0), 0);
  t.equal(file.synchronous, true);
});
