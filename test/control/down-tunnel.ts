/** src/control/down-tunnel.ts: the window, the confirmations, what is sent again and what barriers are told. */
import fc from 'fast-check';
import t from 'tap';
import { FwdfsError } from '../../src/base/errors.js';
import { CHUNK_BYTES } from '../../src/base/limits.js';
import { DownTunnel } from '../../src/control/down-tunnel.js';
import * as f from '../../src/tunnel/frames.js';
import { FakeChannel } from '../support/fake-channel.js';
import { watchPools } from '../support/fake-pool.js';

const EIO = 5;
const EMSGSIZE = 90;
const WINDOW = 1000;

class Bench {
  readonly channel = new FakeChannel('down');
  readonly errors: string[] = [];
  readonly tunnel: DownTunnel;
  wakes = 0;

  constructor(window = WINDOW) {
    this.tunnel = new DownTunnel(this.channel, 'fwd1', 'eth0', 'eth0', '*', (text) => this.errors.push(text));
    this.tunnel.established(7, window);
    this.tunnel.wake = () => {
      this.wakes += 1;
    };
  }

  send(number: number, length = 60): boolean {
    const junk = Buffer.alloc(length + 8, 0xa5);
    junk.fill(number, 5, 5 + length);
    return this.tunnel.send(junk, 5, length);
  }

  /** Sends frames 1 to `count` of 60 bytes. */
  sendAll(count: number): void {
    for (let number = 1; number <= count; number += 1) if (!this.send(number)) throw new Error('no credit');
    this.tunnel.flush();
  }

  /** Sequence numbers of the data frames since the last look, `close N` for a close frame. */
  sent(): (number | string)[] {
    return this.channel.takeLines().map((line) => {
      const sequence = Number(/sequence=(\d+)/.exec(line)?.[1]);
      return line.includes('close') ? `close ${sequence}` : sequence;
    });
  }
}

/** 'ok', or the errno that a barrier ends with; 'waits' while it does not. */
function watchBarrier(barrier: Promise<void>): { state: string | number } {
  const watch: { state: string | number } = { state: 'waits' };
  barrier.then(
    () => {
      watch.state = 'ok';
    },
    (error: unknown) => {
      watch.state = error instanceof FwdfsError ? error.errno : 'thrown';
    },
  );
  return watch;
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

t.test('frames are numbered from 1 and leave with the flush, without offload', async (t) => {
  const bench = new Bench();
  t.ok(bench.send(9) && bench.send(8, 14));
  t.same(bench.channel.messages, []);
  bench.tunnel.flush();
  bench.tunnel.flush();
  t.same(bench.channel.takeLines(), [
    `down data tunnel=7 flags=0 offload=${'00'.repeat(10)} length=60 sequence=1`,
    `down data tunnel=7 flags=0 offload=${'00'.repeat(10)} length=14 sequence=2`,
  ]);
  const [message] = bench.channel.messages;
  t.same(message?.subarray(f.FRAME_HEADER_BYTES, f.FRAME_HEADER_BYTES + 60), Buffer.alloc(60, 9));
  t.same([bench.tunnel.frames, bench.tunnel.bytes], [2, 74]);
});

t.test('the window bounds what is under way, in bytes of payload', async (t) => {
  const bench = new Bench();
  bench.sendAll(16);
  t.notOk(bench.send(17, 60), '960 of 1000 bytes are under way');
  t.notOk(bench.tunnel.hasAnyCredit, 'the one that waits has no room');
  t.ok(bench.tunnel.hasCredit(40));
  t.ok(bench.send(17, 40));
  t.notOk(bench.tunnel.hasAnyCredit);
  bench.tunnel.flush();
  bench.tunnel.confirm(1, 0);
  t.equal(bench.wakes, 1);
  t.ok(bench.tunnel.hasAnyCredit && bench.send(18, 60));
});

t.test('a frame that is larger than the window goes alone', async (t) => {
  const bench = new Bench(100);
  t.ok(bench.send(1, 5000));
  t.notOk(bench.send(2, 14));
  bench.tunnel.flush();
  bench.tunnel.confirm(1, 0);
  t.ok(bench.send(2, 60));
  t.notOk(bench.send(3, 5000));
});

t.test('without a tunnel at the forwarder nothing is taken', async (t) => {
  const channel = new FakeChannel('down');
  const tunnel = new DownTunnel(channel, 'fwd1', 'eth0', 'eth0', '*', () => undefined);
  t.notOk(tunnel.send(Buffer.alloc(60), 0, 60) || tunnel.hasAnyCredit);
  tunnel.close();
  t.same(channel.messages, []);
  await tunnel.sync();
});

t.test('confirmations walk on, over chunks, and what they pass is given back', async (t) => {
  const watch = watchPools();
  t.teardown(() => watch.end());
  const bench = new Bench(1e9);
  const length = 1400;
  const perChunk = Math.floor(CHUNK_BYTES / f.frameBytes(length));
  const count = 3 * perChunk + 1;
  for (let number = 1; number <= count; number += 1) bench.send(number, length);
  bench.tunnel.flush();
  t.equal(watch.inUse, 4);
  t.same(
    bench.sent(),
    Array.from({ length: count }, (_, index) => index + 1),
  );
  t.ok(bench.channel.messages.every((message) => message.length <= CHUNK_BYTES));
  const steps: [sequence: number, chunks: number][] = [
    [perChunk - 1, 4],
    [perChunk, 3],
    [perChunk - 1, 3],
    [3 * perChunk, 1],
    [count + 1, 1],
    [count, 0],
  ];
  for (const [sequence, chunks] of steps) {
    bench.tunnel.confirm(sequence, 0);
    t.equal(watch.inUse, chunks, `${sequence}`);
    t.equal(bench.tunnel.isDrained, chunks === 0);
  }
  bench.sendAll(1);
  t.same(bench.sent(), [count + 1], 'and it goes on');
  bench.tunnel.confirm(count + 1, 0);
});

t.test('a session that resumes gets exactly what the forwarder does not have', async (t) => {
  const watch = watchPools();
  t.teardown(() => watch.end());
  const lengths = fc.array(fc.constantFrom(14, 60, 1400, 65_000), { minLength: 1, maxLength: 40 });
  fc.assert(
    fc.property(lengths, fc.nat(40), fc.nat(40), fc.nat(40), (all, confirmed, received, cutAt) => {
      const bench = new Bench(1e9);
      for (const [index, length] of all.entries()) {
        if (index === cutAt) {
          bench.tunnel.flush();
          bench.channel.connected = false;
        }
        bench.send(index + 1, length);
      }
      const have = Math.min(received, all.length);
      const done = Math.min(confirmed, have);
      if (done > 0) bench.tunnel.confirm(done, 0);
      bench.tunnel.flush();
      bench.sent();
      bench.channel.connected = true;
      bench.tunnel.resume(have);
      const wanted = Array.from({ length: all.length - have }, (_, index) => have + 1 + index);
      const got = bench.sent();
      if (got.join() !== wanted.join()) throw new Error(`sent ${got.join()}, not ${wanted.join()}`);
      bench.tunnel.flush();
      if (bench.sent().length > 0) throw new Error('sent twice');
      bench.tunnel.confirm(all.length, 0);
      if (!bench.tunnel.isDrained || watch.inUse > 0) throw new Error('not drained');
    }),
    { numRuns: 150 },
  );
});

t.test('a barrier ends when all that was taken before it is confirmed', async (t) => {
  const bench = new Bench();
  await bench.tunnel.sync();
  bench.send(1);
  const first = watchBarrier(bench.tunnel.sync());
  t.same(bench.sent(), [1], 'it flushes');
  bench.send(2);
  const second = watchBarrier(bench.tunnel.sync());
  bench.tunnel.confirm(1, 0);
  await turn();
  t.same([first.state, second.state], ['ok', 'waits']);
  bench.tunnel.confirm(2, 0);
  await turn();
  t.equal(second.state, 'ok');
});

t.test('a frame that was not sent fails the next barrier, once, and tells why', async (t) => {
  const bench = new Bench();
  bench.sendAll(3);
  bench.tunnel.confirm(2, 100);
  bench.tunnel.confirm(3, 0);
  t.match(bench.errors, [/^eth0: frame not sent \(ENETDOWN\)$/]);
  await t.rejects(bench.tunnel.sync(), { code: 'not-sent', errno: EIO });
  await bench.tunnel.sync();
  bench.tunnel.confirm(3, 100);
  await bench.tunnel.sync();
  t.equal(bench.errors.length, 1, 'a confirmation that comes again is no new failure');
});

t.test('many frames that were not sent are one failure until a barrier was told', async (t) => {
  const bench = new Bench();
  bench.sendAll(4);
  for (const sequence of [1, 2, 3]) bench.tunnel.confirm(sequence, 99 + sequence);
  t.same(bench.errors, ['eth0: frame not sent (ENETDOWN)']);
  bench.tunnel.confirm(4, 0);
  await t.rejects(bench.tunnel.sync(), { code: 'not-sent' });
  await bench.tunnel.sync();
  bench.sendAll(1);
  bench.tunnel.confirm(5, 101);
  t.equal(bench.errors.length, 2, 'and the next one is another');
});

t.test('a barrier before the frame that was not sent is not concerned', async (t) => {
  const bench = new Bench();
  bench.sendAll(1);
  const before = watchBarrier(bench.tunnel.sync());
  bench.sendAll(1);
  const after = watchBarrier(bench.tunnel.sync());
  bench.tunnel.confirm(2, 100);
  await turn();
  t.same([before.state, after.state], ['ok', EIO]);
});

t.test('a tunnel that the forwarder lost fails its barriers for what was not confirmed, and starts anew', async (t) => {
  const watch = watchPools();
  t.teardown(() => watch.end());
  const bench = new Bench();
  bench.sendAll(3);
  bench.tunnel.confirm(1, 0);
  const barrier = watchBarrier(bench.tunnel.sync());
  bench.sent();
  bench.tunnel.lost('the forwarder was restarted');
  await turn();
  t.equal(barrier.state, EIO);
  t.same(bench.errors, ['eth0: the forwarder was restarted']);
  t.equal(watch.inUse, 0);
  t.ok(bench.wakes > 1);
  t.notOk(bench.send(4) || bench.tunnel.hasAnyCredit, 'nothing is taken until it is there again');
  bench.tunnel.confirm(3, 0);
  bench.tunnel.established(8, WINDOW);
  await bench.tunnel.sync();
  bench.sendAll(2);
  t.match(bench.channel.takeLines(), [/tunnel=8 .*sequence=1$/, /tunnel=8 .*sequence=2$/]);
  bench.tunnel.confirm(2, 0);
});

t.test('a barrier that comes after the loss is told as well', async (t) => {
  const bench = new Bench();
  bench.sendAll(1);
  bench.tunnel.lost('gone');
  await t.rejects(bench.tunnel.sync(), { code: 'not-sent' });
  await bench.tunnel.sync();
});

t.test('a tunnel that has nothing under way is lost without anybody being told', async (t) => {
  const bench = new Bench();
  bench.sendAll(1);
  bench.tunnel.confirm(1, 0);
  const barrier = bench.tunnel.sync();
  bench.tunnel.lost('gone');
  await barrier;
  await bench.tunnel.sync();
  t.same(bench.errors, []);
});

t.test('a close frame stands behind all data', async (t) => {
  const bench = new Bench();
  bench.send(1);
  bench.send(2);
  bench.tunnel.close();
  t.same(bench.sent(), [1, 2, 'close 2']);
  const idle = new Bench();
  idle.tunnel.close();
  t.same(idle.sent(), ['close 0']);
});

t.test('the next writer does not get the failures of the one before', async (t) => {
  const bench = new Bench();
  bench.sendAll(1);
  bench.tunnel.confirm(1, 100);
  bench.tunnel.reuse();
  const { wakes } = bench;
  await bench.tunnel.sync();
  bench.sendAll(1);
  t.same(bench.sent(), [1, 2]);
  bench.tunnel.confirm(2, 0);
  t.equal(bench.wakes, wakes, 'nor is that one woken');
});

/** What a barrier says in the end. */
function outcome(barrier: Promise<void>): Promise<string> {
  return barrier.then(
    () => 'sent',
    () => 'not sent',
  );
}

t.test('a failure is told to all who wait for it, and kept where nobody does', async (t) => {
  const { tunnel } = new Bench();
  const frame = Buffer.alloc(60);
  tunnel.send(frame, 0, 60);
  const both = [outcome(tunnel.sync()), outcome(tunnel.sync())];
  tunnel.confirm(1, EMSGSIZE);
  t.same(await Promise.all(both), ['not sent', 'not sent']);
  t.equal(await outcome(tunnel.sync()), 'sent', 'it was told');
  tunnel.send(frame, 0, 60);
  const abandoned = new AbortController();
  void outcome(tunnel.sync(abandoned.signal));
  abandoned.abort();
  tunnel.confirm(2, EMSGSIZE);
  t.equal(await outcome(tunnel.sync()), 'not sent', 'a signal had ended the one that waited');
});

t.test('the first error after a resume stands for all that was not confirmed before', async (t) => {
  const { tunnel } = new Bench();
  const frame = Buffer.alloc(60);
  tunnel.send(frame, 0, 60);
  const first = outcome(tunnel.sync());
  tunnel.send(frame, 0, 60);
  tunnel.resume(2);
  // Of two errors the forwarder tells the newest.
  tunnel.confirm(2, EMSGSIZE);
  t.equal(await first, 'not sent');
  tunnel.send(frame, 0, 60);
  const third = outcome(tunnel.sync());
  tunnel.send(frame, 0, 60);
  tunnel.confirm(4, EMSGSIZE);
  t.equal(await third, 'sent', 'from then on an error names its frame again');
});
