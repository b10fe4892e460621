/** src/control/reader-queue.ts against a slow twin: an array of records. */
import fc from 'fast-check';
import t from 'tap';
import { ChunkPool } from '../../src/base/chunks.js';
import { ReaderQueue } from '../../src/control/reader-queue.js';
import { watchPools } from '../support/fake-pool.js';

const CHUNK = 64;

/** What the queue has to do, record by record. */
class Twin {
  records: Buffer[] = [];
  begun = 0;

  read(size: number): Buffer {
    const out: Buffer[] = [];
    let room = size;
    for (let first = this.records[0]; first !== undefined && room > 0; first = this.records[0]) {
      const rest = first.subarray(this.begun);
      if (rest.length > room) {
        if (out.length > 0) break;
        this.begun += room;
        return rest.subarray(0, room);
      }
      out.push(rest);
      room -= rest.length;
      this.records.shift();
      this.begun = 0;
    }
    return Buffer.concat(out);
  }

  get bytes(): number {
    return this.records.reduce((sum, record) => sum + record.length, 0) - this.begun;
  }
}

let fill = 0;

/** Appends a record of `length` bytes for which `reserved` are asked. @returns it, or null: no room */
function append(queue: ReaderQueue, length: number, reserved = length): Buffer | null {
  if (!queue.reserve(reserved)) return null;
  const record = Buffer.alloc(length);
  for (let i = 0; i < length; i += 1) record[i] = fill++ & 0xff;
  record.copy(queue.chunk, queue.offset);
  queue.commit(length);
  return record;
}

function read(queue: ReaderQueue, size: number): Buffer {
  const out = Buffer.alloc(size + 6, 0xa5);
  const count = queue.read(out, 3, size);
  if (count > size || out.subarray(3 + count).some((byte) => byte !== 0xa5)) throw new Error('wrote beyond its room');
  return out.subarray(3, 3 + count);
}

t.test('whatever is written and read in whatever sizes, it is what the twin gives', async (t) => {
  const watch = watchPools();
  t.teardown(() => watch.end());
  const length = fc.oneof(fc.integer({ min: 1, max: 12 }), fc.integer({ min: 1, max: CHUNK }));
  const step = fc.oneof(
    { weight: 3, arbitrary: fc.record({ write: length, more: fc.nat(8) }) },
    { weight: 2, arbitrary: fc.record({ read: fc.integer({ min: 1, max: 3 * CHUNK }) }) },
    { weight: 2, arbitrary: fc.record({ read: fc.integer({ min: 1, max: 9 }) }) },
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), fc.integer({ min: 40, max: 400 }), (steps, limit) => {
      const pool = new ChunkPool({ bytes: CHUNK, keep: 2, limit: 4 });
      const queue = new ReaderQueue(pool, limit);
      const twin = new Twin();
      for (const next of steps) {
        if ('read' in next) {
          const begun = twin.begun > 0;
          const got = read(queue, next.read);
          if (!got.equals(twin.read(next.read))) throw new Error('another read than the twin');
          if (begun && got.length === 0) throw new Error('a record that was begun ended');
        } else {
          const reserved = Math.min(CHUNK, next.write + next.more);
          const record = append(queue, next.write, reserved);
          if (record !== null) twin.records.push(record);
          else if (twin.bytes + reserved <= limit && pool.inUse < 4) throw new Error('refused with room');
          if (twin.bytes > limit) throw new Error('more than the limit');
        }
        if (queue.isEmpty !== (twin.records.length === 0)) throw new Error('isEmpty');
        if (queue.waiting !== twin.bytes) throw new Error('waiting');
        if (queue.nextLength !== (twin.records[0]?.length ?? 0)) throw new Error('nextLength');
        if (queue.isEmpty && pool.inUse > 0) throw new Error('an idle reader holds a chunk');
      }
      if (steps.length % 2 === 0) while (!queue.isEmpty) read(queue, 1000);
      else queue.clear();
      if (pool.inUse !== 0 || watch.inUse !== 0) throw new Error('chunks did not come back');
    }),
    { numRuns: 600 },
  );
});

t.test('a read takes whole records as far as they fit, and begins only a first one that is longer', async (t) => {
  const queue = new ReaderQueue(new ChunkPool({ bytes: CHUNK, keep: 1 }), 1000);
  const [one, two, long] = [append(queue, 10)!, append(queue, 10)!, append(queue, 30)!];
  t.same(read(queue, 25), Buffer.concat([one, two]), 'not the first 5 bytes of the third');
  t.same(read(queue, 25), long.subarray(0, 25));
  const four = append(queue, 8)!;
  t.equal(queue.nextLength, 30);
  t.same(read(queue, 12), long.subarray(25), 'its end, and nothing that is not whole');
  t.same(read(queue, 100), four);
  t.equal(read(queue, 100).length, 0);
});

t.test('a reader of thousands of records gets them in one read, over many chunks', async (t) => {
  const pool = new ChunkPool({ bytes: CHUNK, keep: 1 });
  const queue = new ReaderQueue(pool, 1e6);
  const all: Buffer[] = [];
  // The ring of lengths grows while its begin is not at its place.
  for (let i = 0; i < 10; i += 1) append(queue, 1);
  read(queue, 9);
  all.push(read(queue, 1));
  for (let i = 0; i < 5000; i += 1) all.push(append(queue, 1 + (i % 7))!);
  t.same(read(queue, 1e5), Buffer.concat(all.slice(1)));
  t.equal(pool.inUse, 0);
  const again = append(queue, 5)!;
  t.same(read(queue, 5), again, 'and goes on');
});

t.test('a record that has no room is refused: by its limit, by the pool, by the size of a chunk', async (t) => {
  const pool = new ChunkPool({ bytes: CHUNK, keep: 1, limit: 2 });
  const small = new ReaderQueue(pool, 100);
  t.notOk(small.reserve(CHUNK + 1), 'longer than a chunk');
  t.ok(append(small, 60));
  t.notOk(small.reserve(41), 'its limit');
  t.ok(append(small, 40));
  t.notOk(small.reserve(1));
  const other = new ReaderQueue(pool, 100);
  t.notOk(other.reserve(1), "all chunks are another's");
  read(small, 60);
  t.ok(append(other, 10), 'until one comes back');
  small.clear();
  other.clear();
  t.equal(pool.inUse, 0);
  t.ok(small.isEmpty && small.waiting === 0);
});
