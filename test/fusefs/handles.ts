import { constants } from 'node:os';
import t from 'tap';
import { FwdfsError } from '../../src/base/errors.js';
import { FUSE_DRAIN_COUNT } from '../../src/base/limits.js';
import { silent } from '../../src/base/log.js';
import { HandleTable } from '../../src/fusefs/handles.js';
import type { OpenFile } from '../../src/fusefs/tree.js';
import { POLL } from '../../src/sys/libc.js';
import { streamFile } from '../support/fuse-demo.js';
import { turn } from '../support/fuse-device.js';
import { Puppet, scene, Told, write } from '../support/fuse-puppet.js';

const { EAGAIN, EBADF, EINTR, EIO, EEXIST, ENODEV } = constants.errno;

/** Of who wrote, if only nothing, each close is a barrier. */
function wrote(told: Told, table: HandleTable, fh: number, owner?: number): void {
  table.write(90, fh, Buffer.alloc(0), 0, 0, 0, false, owner);
  told.take();
}

t.test('a read that finds something is answered at once', async (t) => {
  const { told, table, file, fh } = scene();
  file.chunks = ['abc'];
  table.read(2, fh, 10, 0, false);
  t.same(told.take(), ['read 2 3 abc']);
});

t.test('blocked reads are answered in their order, as far as there is something', async (t) => {
  const { told, table, file, fh } = scene();
  for (const id of [2, 4, 6]) table.read(id, fh, 10, 0, false);
  t.same(told.take(), []);
  t.equal(table.waiting, 3);
  file.chunks = ['a', 'b'];
  file.wake();
  t.same(told.take(), [], 'not while whoever woke it is still at work');
  await turn();
  t.same(told.take(), ['read 2 1 a', 'read 4 1 b']);
  file.chunks = ['c'];
  file.wake();
  await turn();
  t.same(told.take(), ['read 6 1 c']);
  t.equal(table.waiting, 0);
});

t.test('a read does not overtake those that wait', async (t) => {
  const { told, table, file, fh } = scene();
  table.read(2, fh, 10, 0, false);
  file.chunks = ['a', 'b'];
  table.read(4, fh, 10, 0, true);
  t.same(told.take(), [`read 4 -${EAGAIN}`], 'nobody was woken yet');
  file.wake();
  table.read(6, fh, 10, 0, false);
  t.same(told.take(), ['read 2 1 a', 'read 6 1 b']);
});

t.test('what O_NONBLOCK asks for and is not there is EAGAIN', async (t) => {
  const { told, table, fh } = scene();
  table.read(2, fh, 10, 0, true);
  write(table, 4, fh, 'x', true);
  t.same(told.take(), [`read 2 -${EAGAIN}`, `written 4 -${EAGAIN}`]);
  t.equal(table.waiting, 0);
});

t.test('a blocked write keeps a copy of its data, and a short count is an answer', async (t) => {
  const { told, table, file, fh } = scene();
  const data = Buffer.from('hello');
  table.write(2, fh, data, 0, 5, 0, false);
  write(table, 4, fh, 'world');
  data.fill('x');
  file.room = 3;
  file.wake();
  await turn();
  t.same(told.take(), ['written 2 3']);
  file.room = 100;
  file.wake();
  await turn();
  t.same(told.take(), ['written 4 5']);
  t.equal(file.written, 'helworld');
});

t.test('a write of nothing is answered with 0', async (t) => {
  const { told, table, fh } = scene();
  write(table, 2, fh, '');
  t.same(told.take(), ['written 2 0']);
});

t.test('a synchronous write is answered after its barrier, with the barrier’s error if it has one', async (t) => {
  const { told, table, file, fh } = scene();
  file.synchronous = true;
  file.room = 100;
  write(table, 2, fh, 'one');
  write(table, 4, fh, 'two');
  t.same(
    file.syncs.map(({ reason }) => reason),
    ['write', 'write'],
  );
  await turn();
  t.same(told.take(), []);
  file.syncs[1]?.reject(new FwdfsError('not-sent', 'two'));
  file.syncs[0]?.resolve();
  await turn();
  t.same(told.take().sort(), ['written 2 3', `written 4 -${EIO}`]);
});

t.test('fsync and close wait for the barrier and tell its error', async (t) => {
  const { told, table, file, fh } = scene();
  wrote(told, table, fh);
  table.sync(2, fh, 'close');
  table.sync(4, fh, 'fsync');
  t.same(
    file.syncs.map(({ reason }) => reason),
    ['close', 'fsync'],
  );
  t.equal(table.waiting, 2);
  file.syncs[0]?.resolve();
  await turn();
  t.same(told.take(), ['done 2 0']);
  file.syncs[1]?.reject(new FwdfsError('already-there', 'x'));
  await turn();
  t.same(told.take(), [`done 4 -${EEXIST}`]);
});

t.test('who has not written closes without a barrier', async (t) => {
  const { told, table, file, fh } = scene();
  table.sync(2, fh, 'close', 7);
  t.same(told.take(), ['done 2 0']);
  wrote(told, table, fh, 7);
  table.sync(4, fh, 'close', 8);
  t.same(told.take(), ['done 4 0'], 'a child that has only inherited it');
  table.sync(6, fh, 'close', 7);
  table.sync(8, fh, 'fsync', 8);
  t.same(told.take(), []);
  t.equal(file.syncs.length, 2);
  for (let owner = 100; owner < 170; owner += 1) wrote(told, table, fh, owner);
  table.sync(10, fh, 'close', 9);
  t.same(told.take(), [], 'too many write to be told apart');
});

t.test('a barrier that an interrupt ended says so to the file, which has its error for the next one', async (t) => {
  const { told, table, file, fh } = scene();
  table.sync(2, fh, 'fsync');
  table.sync(4, fh, 'fsync');
  table.interrupt(2);
  await turn();
  t.same(told.take(), [`done 2 -${EINTR}`]);
  t.same(
    file.syncs.map(({ abandoned }) => abandoned?.aborted),
    [true, false],
  );
});

t.test('an interrupt ends a blocked read or write at once, and nobody else', async (t) => {
  const { told, table, file, fh } = scene();
  for (const id of [2, 4, 6]) table.read(id, fh, 10, 0, false);
  for (const id of [8, 10]) write(table, id, fh, 'x');
  table.interrupt(4);
  table.interrupt(8);
  t.same(told.take(), [`read 4 -${EINTR}`, `written 8 -${EINTR}`]);
  file.chunks = ['a', 'b'];
  file.room = 5;
  file.wake();
  await turn();
  t.same(told.take(), ['read 2 1 a', 'read 6 1 b', 'written 10 1']);
  table.interrupt(4);
  table.interrupt(999);
  t.same(told.take(), [], 'what was answered is not answered again');
});

t.test('an interrupted barrier ends with EINTR, and its own end later changes nothing', async (t) => {
  const { told, table, file, fh } = scene();
  wrote(told, table, fh);
  table.sync(2, fh, 'close');
  table.sync(4, fh, 'fsync');
  table.interrupt(2);
  table.interrupt(4);
  await turn();
  t.same(told.take(), [`done 2 -${EINTR}`, `done 4 -${EINTR}`]);
  file.syncs[0]?.resolve();
  file.syncs[1]?.reject(new Error('late'));
  await turn();
  t.same(told.take(), []);
});

t.test('a barrier that is reached already is not spoilt by an interrupt', async (t) => {
  const { told, table, file, fh } = scene();
  wrote(told, table, fh);
  table.sync(2, fh, 'close');
  file.syncs[0]?.resolve();
  table.interrupt(2);
  await turn();
  t.same(told.take(), ['done 2 0']);
});

t.test('an interrupted write that was taken says so, lest it be written twice', async (t) => {
  const { told, table, file, fh } = scene();
  file.synchronous = true;
  file.room = 3;
  write(table, 2, fh, 'hello');
  table.interrupt(2);
  await turn();
  t.same(told.take(), ['written 2 3']);
});

t.test('an open that was interrupted gives the file back when it arrives', async (t) => {
  const { told, table } = scene();
  const late = new Puppet();
  let arrive: (file: OpenFile) => void = () => undefined;
  const node = streamFile('/late', () => new Promise<OpenFile>((resolve) => (arrive = resolve)));
  table.open(2, node, 0, 0, 0, 0);
  table.interrupt(2);
  await turn();
  t.same(told.take(), [`done 2 -${EINTR}`]);
  arrive(late);
  await turn();
  t.equal(late.released, 1);
  t.same(told.take(), []);
  t.equal(table.size, 1, 'only the file of the scene is open');
});

t.test('an open fails with what the node throws or rejects with', async (t) => {
  const { told, table } = scene();
  const thrown = streamFile('/a', () => {
    throw new FwdfsError('already-there', 'x');
  });
  const rejected = streamFile('/b', () => Promise.reject(new FwdfsError('already-there', 'x')));
  const defect = streamFile('/c', () => Promise.reject(new TypeError('oops')));
  for (const [id, node] of [thrown, rejected, defect].entries()) table.open(id, node, 0, 0, 0, 0);
  await turn();
  t.same(told.take(), [`done 0 -${EEXIST}`, `done 1 -${EEXIST}`, `done 2 -${EIO}`]);
});

t.test('an open that nobody waits for any more is released', async (t) => {
  const { told, table, file, node } = scene();
  told.gone = true;
  table.open(2, node, 0, 0, 0, 0);
  t.equal(file.released, 1);
});

t.test('what a file throws is the errno of that request alone', async (t) => {
  const { told, table, file, fh } = scene();
  wrote(told, table, fh);
  const fail = (): never => {
    throw new FwdfsError('already-there', 'x');
  };
  Object.assign(file, { read: fail, write: fail, sync: fail, poll: fail, release: fail });
  table.read(2, fh, 1, 0, false);
  write(table, 4, fh, 'x');
  table.sync(6, fh, 'close');
  await turn();
  t.same(told.take(), [`read 2 -${EEXIST}`, `written 4 -${EEXIST}`, `done 6 -${EEXIST}`]);
  t.equal(table.poll(fh, 0, 0), POLL.ERR);
  table.release(fh);
  t.equal(table.size, 0);
});

t.test('a file that claims more than it was given is EIO', async (t) => {
  const { told, table, file, fh } = scene();
  Object.assign(file, { read: () => 11, write: () => 0 });
  table.read(2, fh, 10, 0, false);
  write(table, 4, fh, 'x');
  Object.assign(file, { write: () => 2 });
  write(table, 6, fh, 'x');
  t.same(told.take(), [`read 2 -${EIO}`, `written 4 -${EIO}`, `written 6 -${EIO}`]);
});

t.test('a reader never gets more than fits into the answer', async (t) => {
  const { told, table, file, fh } = scene();
  file.chunks = ['x'.repeat(200)];
  table.read(2, fh, 1 << 30, 0, false);
  t.same(told.take(), [`read 2 64 ${'x'.repeat(64)}`]);
});

t.test('who polls is told once for each time it asked, and only of what it asked for', async (t) => {
  const { told, table, file, fh } = scene();
  t.equal(table.poll(fh, 7, POLL.IN), 0);
  file.bits = POLL.OUT;
  file.wake();
  await turn();
  t.same(told.take(), [], 'room to write is not what was asked for');
  file.bits = POLL.OUT | POLL.IN;
  file.wake();
  await turn();
  t.same(told.take(), ['changed 7']);
  file.wake();
  await turn();
  t.same(told.take(), []);
  t.equal(table.poll(fh, 7, POLL.IN), POLL.OUT | POLL.IN);
  file.bits = POLL.HUP;
  file.wake();
  await turn();
  t.same(told.take(), ['changed 7'], 'an end is always told');
});

t.test('many wakes in one turn are one look at the file', async (t) => {
  const { table, file, fh } = scene();
  let looks = 0;
  table.read(2, fh, 1, 0, false);
  Object.assign(file, { read: () => (looks++, -EAGAIN) });
  for (let count = 0; count < 1000; count++) file.wake();
  await turn();
  t.equal(looks, 1);
});

t.test('a file that wakes itself at every look lets the loop go on', async (t) => {
  const { table, file, fh } = scene();
  let looks = 0;
  Object.assign(file, { read: () => (looks++, file.wake(), -EAGAIN) });
  table.read(2, fh, 1, 0, false);
  for (let count = 0; count < 10; count++) await turn();
  t.ok(looks > 1 && looks < 50, `${looks} looks`);
  table.release(fh);
});

t.test('more blocked readers than one turn serves are all answered', async (t) => {
  const told = new Told();
  const table = new HandleTable(told, silent);
  const files: Puppet[] = [];
  const node = streamFile('/many', (request) => {
    const file = new Puppet();
    file.wake = request.wake;
    files.push(file);
    return file;
  });
  const count = 3 * FUSE_DRAIN_COUNT;
  for (let index = 0; index < count; index++) {
    table.open(10_000 + index, node, 0, 0, 0, 0);
    table.read(index, told.fh, 1, 0, false);
  }
  told.take();
  for (const file of files) {
    file.chunks = ['a'];
    file.wake();
  }
  await Promise.resolve();
  const first = told.lines.length;
  t.ok(first >= FUSE_DRAIN_COUNT && first < count, `${first} in the first turn`);
  for (let turns = 0; turns < 4; turns++) await turn();
  t.equal(told.take().length, count);
  t.equal(table.waiting, 0);
});

t.test('the last close releases the file, and its wake is of no effect then', async (t) => {
  const { told, table, file, fh } = scene();
  wrote(told, table, fh);
  file.wake();
  table.release(fh);
  table.release(fh);
  file.chunks = ['late'];
  file.wake();
  await turn();
  t.equal(file.released, 1);
  table.read(2, fh, 1, 0, false);
  write(table, 4, fh, 'x');
  table.sync(6, fh, 'close');
  t.equal(table.poll(fh, 1, 1), -EBADF);
  t.same(told.take(), [`read 2 -${EBADF}`, `written 4 -${EBADF}`, `done 6 -${EBADF}`]);
});

t.test('stopping: readers get the end of the file, writes and opens ENODEV, closes go on', async (t) => {
  const { told, table, file, node, fh } = scene();
  const never = streamFile('/never', () => new Promise<OpenFile>(() => undefined));
  table.read(2, fh, 1, 0, false);
  write(table, 4, fh, 'x');
  table.open(6, never, 0, 0, 0, 0);
  wrote(told, table, fh);
  table.sync(8, fh, 'close');
  table.poll(fh, 9, POLL.IN);
  table.stop();
  t.same(told.take(), ['read 2 0', `written 4 -${ENODEV}`, 'changed 9', `done 6 -${ENODEV}`]);
  table.read(12, fh, 1, 0, false);
  write(table, 14, fh, 'x');
  table.open(16, node, 0, 0, 0, 0);
  t.same(told.take(), ['read 12 0', `written 14 -${ENODEV}`, `done 16 -${ENODEV}`]);
  t.equal(table.poll(fh, 0, 0), POLL.IN | POLL.RDNORM | POLL.HUP);
  file.syncs[0]?.resolve();
  await turn();
  t.same(told.take(), ['done 8 0']);
  table.release(fh);
  t.equal(file.released, 1);
});

t.test('the end releases every file and answers nobody', async (t) => {
  const { told, table, file, fh } = scene();
  table.read(2, fh, 1, 0, false);
  wrote(told, table, fh);
  table.sync(4, fh, 'close');
  table.end();
  file.chunks = ['a'];
  file.wake();
  file.syncs[0]?.resolve();
  await turn();
  t.equal(file.released, 1);
  t.equal(table.size, 0);
  t.equal(table.waiting, 0);
  t.same(told.take(), []);
});
