import t from 'tap';
import { F, must, O, sys } from '../../src/sys/libc.js';
import { readiness, type Source } from '../../src/sys/readiness.js';

/*
 * The descriptors are one end each of Unix datagram socket pairs: they raise SIGIO as packet sockets do, keep messages apart,
 * and need no rights.
 */

type Test = Pick<typeof t, 'teardown'>;

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const EAGAIN = 11;

let made = 0;

/** A receiving and a sending descriptor, joined by an abstract name. */
function pair(t: Test): { receive: number; send: number; address: Buffer } {
  made += 1;
  const name = `\0fwdfst-${process.pid}-${made}`;
  const address = Buffer.concat([Buffer.from([AF_UNIX, 0]), Buffer.from(name)]);
  const receive = must('socket', sys.socket(AF_UNIX, SOCK_DGRAM | O.NONBLOCK | O.CLOEXEC, 0));
  must('bind', sys.bind(receive, address));
  const send = must('socket', sys.socket(AF_UNIX, SOCK_DGRAM | O.NONBLOCK | O.CLOEXEC, 0));
  t.teardown(() => {
    sys.close(receive);
    sys.close(send);
  });
  return { receive, send, address };
}

const message = Buffer.from('x');
const inbox = Buffer.alloc(16);

/** Reads up to `bound` messages a drain. */
class Reader implements Source {
  readonly fd: number;
  private readonly bound: number;
  got = 0;
  drains = 0;
  onGot: () => void = () => undefined;

  constructor(fd: number, bound: number) {
    this.fd = fd;
    this.bound = bound;
  }

  drain(): boolean {
    this.drains += 1;
    for (let i = 0; i < this.bound; i++) {
      const length = sys.recv(this.fd, inbox, inbox.length, 0);
      if (length === -EAGAIN) return false;
      this.got += 1;
      this.onGot();
    }
    return true;
  }
}

function armed(t: Test, reader: Reader): void {
  readiness.arm(reader);
  t.teardown(() => readiness.disarm(reader));
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

async function until(condition: () => boolean): Promise<void> {
  const end = performance.now() + 10_000;
  while (!condition()) {
    if (performance.now() > end) throw new Error('waited in vain');
    await turn();
  }
}

function send(to: { send: number; address: Buffer }): void {
  must('sendto', sys.sendto(to.send, message, message.length, 0, to.address));
}

t.test('what came before a source was armed is drained', async (t) => {
  const ends = pair(t);
  send(ends);
  const reader = new Reader(ends.receive, 8);
  armed(t, reader);
  await until(() => reader.got === 1);
});

t.test('a message raises the signal and is drained with no other event in the process', async (t) => {
  const ends = pair(t);
  const reader = new Reader(ends.receive, 8);
  armed(t, reader);
  await turn();
  const got = new Promise<void>((resolve) => {
    reader.onGot = resolve;
  });
  const alive = setTimeout(() => t.fail('no signal came'), 10_000);
  send(ends);
  await got;
  clearTimeout(alive);
  t.equal(reader.got, 1);
});

t.test('a drain that stops early goes on in a later turn, after timers', async (t) => {
  const ends = pair(t);
  const reader = new Reader(ends.receive, 1);
  for (let i = 0; i < 8; i++) send(ends);
  let timers = 0;
  const timer = setInterval(() => (timers += 1), 0);
  t.teardown(() => clearInterval(timer));
  armed(t, reader);
  await until(() => reader.got === 8);
  t.ok(reader.drains >= 8, 'one message a drain');
  await until(() => timers > 0);
});

t.test('64 busy descriptors beside timers: none starves, none is forgotten', async (t) => {
  const COUNT = 64;
  const BUSY_MS = 1000;
  const ends = Array.from({ length: COUNT }, () => pair(t));
  const readers = ends.map(({ receive }) => new Reader(receive, 4));
  const sent = ends.map(() => 0);
  let busy = true;
  for (const [i, reader] of readers.entries()) {
    const again = (): void => {
      if (!busy) return;
      send(ends[i] as (typeof ends)[number]);
      sent[i] = (sent[i] ?? 0) + 1;
    };
    reader.onGot = again;
    armed(t, reader);
    again();
  }
  let ticks = 0;
  const interval = setInterval(() => (ticks += 1), 10);
  t.teardown(() => clearInterval(interval));
  await new Promise((resolve) => setTimeout(resolve, BUSY_MS));
  busy = false;
  await until(() => readers.every((reader, i) => reader.got === sent[i]));
  const counts = readers.map((reader) => reader.got);
  t.comment(
    `messages per descriptor: ${Math.min(...counts)} to ${Math.max(...counts)}, ticks: ${ticks} of ${BUSY_MS / 10}`,
  );
  t.ok(Math.min(...counts) > 0, 'every descriptor was drained');
  t.ok(Math.min(...counts) * 2 > Math.max(...counts), 'no descriptor had less than half of what another had');
  t.ok(ticks >= BUSY_MS / 10 / 4, 'timers ran on time or nearly so');
  // Once more when all is quiet: the edge of each still arrives.
  for (const end of ends) send(end);
  await until(() => readers.every((reader, i) => reader.got === (sent[i] ?? 0) + 1));
});

t.test('a source that is disarmed while others are drained is not drained again', async (t) => {
  const ends = [pair(t), pair(t)];
  const readers = ends.map(({ receive }) => new Reader(receive, 8));
  const [first, second] = readers as [Reader, Reader];
  first.onGot = () => readiness.disarm(second);
  armed(t, first);
  armed(t, second);
  await turn();
  for (const end of ends) send(end);
  await until(() => first.got === 1);
  const { drains } = second;
  await turn();
  send(ends[1] as (typeof ends)[number]);
  await turn();
  t.ok(second.got <= 1);
  t.equal(second.drains, drains);
});

t.test('a signal that is still pending when the last source goes does not end the process', async (t) => {
  const ends = pair(t);
  const reader = new Reader(ends.receive, 8);
  readiness.arm(reader);
  await turn();
  for (let i = 0; i < 9; i++) send(ends);
  readiness.disarm(reader);
  send(ends);
  await turn();
  await turn();
  t.equal(must('fcntl', sys.fcntl(ends.receive, F.GETFL, 0)) & O.ASYNC, 0);
});

t.test('a source that may rest is drained less often than others while it is ready all the time', async (t) => {
  const quiet = pair(t);
  const busy = pair(t);
  const resting = Object.assign(new Reader(quiet.receive, 1000), { restMs: 5 });
  const other = new Reader(busy.receive, 1000);
  armed(t, resting);
  armed(t, other);
  let sent = 0;
  for (let i = 0; i < 300; i++) {
    // Its queue is full when it was left alone for ten of them.
    if (sys.sendto(quiet.send, message, message.length, 0, quiet.address) > 0) sent += 1;
    send(busy);
    await until(() => other.got === i + 1);
  }
  await until(() => resting.got === sent);
  t.ok(sent > 10, 'it was drained meanwhile');
  t.ok(resting.drains < other.drains, `${resting.drains} and ${other.drains} drains`);
});

t.test('a source that is disarmed while it rests is not drained again', async (t) => {
  const { receive, ...to } = pair(t);
  const reader = Object.assign(new Reader(receive, 1000), { restMs: 5 });
  readiness.arm(reader);
  for (let i = 1; i <= 3; i++) {
    send(to);
    await until(() => reader.got === i);
  }
  readiness.disarm(reader);
  send(to);
  // A timer of the same length that is set later ends later.
  await new Promise((resolve) => setTimeout(resolve, reader.restMs));
  await turn();
  t.equal(reader.got, 3);
});
