/** src/base/chunks.ts: the pool of equal buffers. */
import t from 'tap';
import { ChunkPool } from '../../src/base/chunks.js';

t.test('a chunk has the size of the pool, and what was given back is taken again', async (t) => {
  const pool = new ChunkPool({ bytes: 64, keep: 2 });
  const chunk = pool.take();
  t.equal(chunk.length, 64);
  pool.give(chunk);
  t.equal(pool.take(), chunk);
});

t.test('the chunk that was given back last comes first: it is the one that caches know', async (t) => {
  const pool = new ChunkPool({ bytes: 8, keep: 2 });
  const first = pool.take();
  const second = pool.take();
  pool.give(first);
  pool.give(second);
  t.equal(pool.take(), second);
  t.equal(pool.take(), first);
});

t.test('a chunk is with one taker at a time', async (t) => {
  const pool = new ChunkPool({ bytes: 8, keep: 4 });
  for (let i = 0; i < 4; i++) pool.give(pool.take());
  const taken = Array.from({ length: 16 }, () => pool.take());
  t.equal(new Set(taken).size, 16);
});

t.test('chunks are memory of their own, not slices of the shared pool of Node', async (t) => {
  const pool = new ChunkPool({ bytes: 16, keep: 1 });
  const [one, two] = [pool.take(), pool.take()];
  t.equal(one.byteOffset, 0);
  t.equal(one.buffer.byteLength, 16);
  t.not(one.buffer, two.buffer);
});

t.test('only so many are kept', async (t) => {
  const pool = new ChunkPool({ bytes: 8, keep: 1 });
  const [one, two] = [pool.take(), pool.take()];
  pool.give(one);
  pool.give(two);
  t.equal(pool.take(), one);
  t.not(pool.take(), two);
});

t.test('tryTake stops at the limit and goes on when one comes back; take does not stop', async (t) => {
  const pool = new ChunkPool({ bytes: 8, keep: 1, limit: 2 });
  const one = pool.tryTake();
  t.ok(one);
  t.ok(pool.tryTake());
  t.equal(pool.tryTake(), null);
  t.equal(pool.inUse, 2, 'a refusal takes nothing');
  if (one !== null) pool.give(one);
  t.equal(pool.tryTake(), one);
  t.ok(pool.take());
  t.equal(pool.inUse, 3);
  t.equal(pool.tryTake(), null);
});

t.test('without a limit there is none', async (t) => {
  const pool = new ChunkPool({ bytes: 1, keep: 0 });
  for (let i = 0; i < 1000; i++) t.ok(pool.tryTake() !== null);
  t.equal(pool.inUse, 1000);
});
