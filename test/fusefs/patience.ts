import { constants } from 'node:os';
import t from 'tap';
import { ENDLESS, type Patience } from '../../src/fusefs/patience.js';
import { turn } from '../support/fuse-device.js';
import { scene, type Scene, write } from '../support/fuse-puppet.js';
import { until } from '../support/lab.js';

const { EINTR } = constants.errno;

/** A scene whose table has patience, and ends with the test. */
function impatient(test: Pick<typeof t, 'teardown'>, patience: Partial<Patience>): Scene {
  const made = scene({ ...ENDLESS, ...patience });
  test.teardown(() => made.table.end());
  return made;
}

/** Lines as they come, until there are `count`. */
async function lines({ told }: Scene, count: number): Promise<string[]> {
  await until(() => told.lines.length >= count);
  return told.take();
}

t.test('reads and writes that wait are given up with EINTR, in time and not at once', async (t) => {
  const patience = 60;
  const made = impatient(t, { repeatableMs: patience });
  const start = performance.now();
  made.table.read(2, made.fh, 10, 0, false);
  write(made.table, 4, made.fh, 'abc');
  t.same(made.told.take(), []);
  t.same(await lines(made, 2), [`read 2 -${EINTR}`, `written 4 -${EINTR}`]);
  t.ok(performance.now() - start > patience / 2 - 5, 'it waited');
  t.equal(made.table.waiting, 0);
});

t.test('whoever asks again waits anew and loses nothing', async (t) => {
  const made = impatient(t, { repeatableMs: 10 });
  for (let id = 2; id < 8; id++) {
    made.table.read(id, made.fh, 10, 0, false);
    t.same(await lines(made, 1), [`read ${id} -${EINTR}`]);
  }
  made.table.read(8, made.fh, 10, 0, false);
  made.file.chunks = ['abc'];
  made.file.wake();
  await turn();
  t.same(made.told.take(), ['read 8 3 abc']);
});

t.test('with patience for what can be repeated alone, barriers, opens and taken writes wait on', async (t) => {
  const made = impatient(t, { repeatableMs: 10 });
  made.file.synchronous = true;
  made.file.room = 9;
  made.table.sync(2, made.fh, 'fsync');
  write(made.table, 4, made.fh, 'abc');
  // Three reads that were given up are the clock.
  for (const id of [6, 8, 10]) {
    made.table.read(id, made.fh, 10, 0, false);
    t.same(await lines(made, 1), [`read ${id} -${EINTR}`]);
  }
  t.equal(made.table.waiting, 2);
  for (const { resolve } of made.file.syncs) resolve();
  await turn();
  t.same(made.told.take(), ['done 2 0', 'written 4 3']);
});

t.test('with patience for all, a barrier ends with EINTR and a write that was taken says so', async (t) => {
  const made = impatient(t, { promisedMs: 10 });
  made.file.synchronous = true;
  made.file.room = 9;
  made.table.read(1, made.fh, 10, 0, false);
  made.table.sync(2, made.fh, 'fsync');
  write(made.table, 4, made.fh, 'abc');
  made.table.open(6, { ...made.node, open: () => new Promise(() => undefined) }, 0, 0, 0, 0);
  t.same((await lines(made, 3)).sort(), [`done 2 -${EINTR}`, `done 6 -${EINTR}`, 'written 4 3']);
  t.equal(made.table.waiting, 1, 'the read waits on');
});

t.test('the two kinds may have different patience', async (t) => {
  const made = impatient(t, { repeatableMs: 10, promisedMs: 35 });
  made.table.sync(2, made.fh, 'fsync');
  const told: string[] = [];
  for (let id = 4; !told.includes(`done 2 -${EINTR}`); id += 2) {
    made.table.read(id, made.fh, 10, 0, false);
    told.push(...(await lines(made, 1)));
  }
  t.ok(told.filter((line) => line.startsWith('read')).length >= 2, told.join(', '));
});
