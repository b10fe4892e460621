/** Frames through one /tunnel channel: order, bytes, ownership of buffers, malformed messages. */
import t from 'tap';
import { silent } from '../../src/base/log.js';
import * as f from '../../src/tunnel/frames.js';
import { TunnelChannel } from '../../src/tunnel/tunnel-channel.js';
import { FakeSocket } from '../support/fake-socket.js';
import { FakeTimers } from '../support/fake-timers.js';
import { keepLog } from '../support/log.js';
import { openWsPair } from '../support/ws-pair.js';

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const ignore = (): void => undefined;

function fakePair() {
  const [oneSocket, twoSocket] = FakeSocket.pair();
  const timers = new FakeTimers();
  const log = keepLog();
  const one = new TunnelChannel(oneSocket, { log, timers });
  const two = new TunnelChannel(twoSocket, { log, timers });
  return { one, two, oneSocket, twoSocket, timers, log };
}

/** Frame number n: its length and its bytes follow from n. */
function putNumbered(buf: Buffer, off: number, n: number): number {
  const length = (n * 7919) % 1500;
  f.putNoOffload(buf, off);
  buf.fill(n & 0xff, off + f.FRAME_HEADER_BYTES, off + f.FRAME_HEADER_BYTES + length);
  return f.putDataDown(buf, off, 0, n % 5, length, n);
}

function isNumbered(buf: Buffer, off: number, n: number): boolean {
  const length = (n * 7919) % 1500;
  if (f.getCounter(buf, off) !== n || f.getLength(buf, off) !== length || f.getTunnel(buf, off) !== n % 5) return false;
  const start = off + f.FRAME_HEADER_BYTES;
  return buf.subarray(start, start + length).every((byte) => byte === (n & 0xff));
}

for (const from of ['client', 'server'] as const) {
  t.test(
    `10,000 frames from the ${from} arrive in order with equal bytes, through buffers that are used again`,
    async (t) => {
      const sockets = await openWsPair();
      t.teardown(sockets.end);
      const sender = new TunnelChannel(sockets[from], { log: silent });
      const receiver = new TunnelChannel(sockets[from === 'client' ? 'server' : 'client'], { log: silent });
      const FRAMES = 10_000;
      const free: Buffer[] = [Buffer.alloc(65_536), Buffer.alloc(65_536), Buffer.alloc(65_536)];
      let sent = 0;
      let lent = 0;
      const fill = (): void => {
        while (sent < FRAMES && free.length > 0) {
          const buf = free.pop() as Buffer;
          let off = 0;
          while (sent < FRAMES && off + 2048 <= buf.length) off = putNumbered(buf, off, sent++);
          lent += 1;
          sender.send(buf, off, back);
        }
      };
      const back = (buffer: Buffer): void => {
        lent -= 1;
        buffer.fill(0xee);
        free.push(buffer);
        fill();
      };
      let got = 0;
      let wrong = 0;
      await new Promise<void>((resolve) => {
        receiver.onFrames((message, end) => {
          for (let off = 0; off < end; off = f.nextFrame(message, off, end)) {
            if (!isNumbered(message, off, got)) wrong += 1;
            got += 1;
          }
          if (got === FRAMES) resolve();
        });
        fill();
      });
      t.equal(wrong, 0);
      while (lent > 0) await turn();
      t.equal(sender.bufferedBytes, 0);
      sender.close('done');
      receiver.close('done');
    },
  );
}

t.test('a part of a buffer is sent as just that part', async (t) => {
  const { one, two } = fakePair();
  const messages: Buffer[] = [];
  two.onFrames((message, end) => messages.push(message.subarray(0, end)));
  const buffer = Buffer.alloc(256, 0xee);
  const end = putNumbered(buffer, 0, 0);
  t.ok(one.send(buffer, end, ignore));
  t.equal(one.bufferedBytes, end);
  await turn();
  t.equal(one.bufferedBytes, 0);
  t.same(messages, [buffer.subarray(0, end)]);
});

t.test('every buffer comes back exactly once when the connection is cut', async (t) => {
  const sockets = await openWsPair();
  t.teardown(sockets.end);
  const sender = new TunnelChannel(sockets.server, { log: silent });
  const receiver = new TunnelChannel(sockets.client, { log: silent });
  const came = new Map<Buffer, number>();
  const back = (buffer: Buffer): void => void came.set(buffer, (came.get(buffer) ?? 0) + 1);
  sockets.stream.pause();
  const buffers = Array.from({ length: 64 }, () => Buffer.alloc(1 << 19));
  for (const buffer of buffers) {
    // One data frame of zero length after the other.
    for (let off = 0; off < buffer.length; off += 32) f.putClose(buffer, off, 1, 1);
    sender.send(buffer, buffer.length, back);
  }
  t.ok(sender.bufferedBytes > 0);
  const closed = new Promise<void>((resolve) => receiver.onClose(() => resolve()));
  sender.terminate('cut');
  sockets.stream.destroy();
  await closed;
  while (came.size < buffers.length) await turn();
  await turn();
  t.ok(
    buffers.every((buffer) => came.get(buffer) === 1),
    'each once',
  );
  t.equal(sender.bufferedBytes, 0);
  const late = Buffer.alloc(32);
  t.notOk(sender.send(late, 32, back), 'afterwards nothing is sent');
  t.equal(came.get(late), 1, 'and the buffer is back at once');
});

t.test('a malformed frame closes the channel, and no frame of its message is delivered', async (t) => {
  const good = Buffer.alloc(64);
  f.putClose(good, 0, 1, 1);
  f.putClose(good, 32, 1, 1);
  const badKind = Buffer.from(good);
  badKind[32] = 9;
  for (const [name, data, binary] of [
    ['an unknown kind at the end', badKind, true],
    ['a frame cut short', good.subarray(0, 40), true],
    ['text', Buffer.from('hello'), false],
  ] as const) {
    const { one, oneSocket, log, timers } = fakePair();
    let delivered = 0;
    let reason = '';
    one.onFrames(() => (delivered += 1));
    one.onClose((why) => (reason = why));
    oneSocket.arrive(good);
    oneSocket.arrive(data, binary);
    oneSocket.arrive(good);
    t.equal(delivered, 1, name);
    t.match(log.lines, [{ level: 'warn', fields: { reason } }]);
    t.equal(oneSocket.closedWith?.code, 1002);
    t.notOk(one.isOpen);
    t.equal(timers.running, 1, 'only the other end keeps its timer');
  }
});

t.test('a handler that throws closes its channel, not the process', async (t) => {
  const { one, oneSocket, log } = fakePair();
  one.onFrames(() => {
    throw new TypeError('oops');
  });
  const message = Buffer.alloc(32);
  f.putClose(message, 0, 1, 1);
  oneSocket.arrive(message);
  t.notOk(one.isOpen);
  t.match(log.lines, [{ level: 'error' }]);
});

t.test('an empty message holds no frame and does no harm', async (t) => {
  const { one, oneSocket } = fakePair();
  one.onFrames(ignore);
  oneSocket.arrive(Buffer.alloc(0));
  t.ok(one.isOpen);
});

t.test('silence ends a tunnel as it ends a control channel', async (t) => {
  const { one, oneSocket, timers } = fakePair();
  oneSocket.frozen = true;
  timers.advance(12_000);
  t.notOk(one.isOpen);
});
