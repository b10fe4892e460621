import t from 'tap';
import { readdirSync, readlinkSync } from 'node:fs';
import { socketCalls, socketSources } from '../../src/control/socket-calls.js';
import { until } from '../support/lab.js';
import { Netns, withoutRoot } from '../support/netns.js';
import { SocketProcess } from '../support/sockets.js';

/** Descriptors of perf events that this process has. */
function events(): number {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).includes('perf_event');
    } catch {
      return false;
    }
  }).length;
}

const CASES: readonly [title: string, line: string, lists: readonly string[]][] = [
  ['bind', "s = bound(AF_INET, SOCK_DGRAM, ('', 53))", ['udp', 'udplite', 'packet']],
  ['listen', "s = listening(AF_INET, ('', 80))", ['tcp', 'sctp']],
  ['a raw socket', 's = socket(AF_INET, SOCK_RAW | SOCK_NONBLOCK, 89)', ['raw', 'packet']],
  ['a packet socket', 's = socket(AF_PACKET, SOCK_DGRAM, 0)', ['raw', 'packet']],
  ['SO_BINDTODEVICE', "s = socket(); s.setsockopt(SOL_SOCKET, 25, b'lo')", ['tcp', 'udp']],
  ['SO_ATTACH_FILTER', "s = filtered(socket(AF_INET, SOCK_DGRAM), '06000000ffff0000')", ['packet']],
];

t.test('each call that opens a socket names the lists where it is found', { skip: withoutRoot }, async (t) => {
  const netns = new Netns('sc');
  t.teardown(() => netns.remove());
  const process = await SocketProcess.start(netns);
  t.teardown(() => process.kill());
  const named = new Set<string>();
  const stop = socketCalls.follow((lists) => {
    for (const name of lists) named.add(name);
  });
  t.teardown(stop);
  for (const [title, line, lists] of CASES) {
    named.clear();
    await process.run(line);
    await until(
      () => lists.every((name) => named.has(name)),
      10_000,
      () => `${title}: ${[...named].join(' ')}`,
    );
  }
});

t.test('sockets of netlink, which every look-up of a name opens, wake nobody', { skip: withoutRoot }, async (t) => {
  const netns = new Netns('sc');
  t.teardown(() => netns.remove());
  const process = await SocketProcess.start(netns);
  t.teardown(() => process.kill());
  await process.run('import time');
  await process.run('netlink = lambda: socket(AF_NETLINK, SOCK_RAW, 0).bind((0, 0))');
  const count = 40;
  let told = 0;
  t.teardown(socketCalls.follow(() => void (told += 1)));
  // Calls of the rest of the machine are told of as well, so a round may be spoilt.
  await until(
    async () => {
      told = 0;
      await process.run(`[(netlink(), time.sleep(0.01)) for i in range(${count})]`);
      return told < count / 4;
    },
    10_000,
    () => `${count} sockets of netlink: told ${told} times`,
  );
});

t.test('all who follow are told; with the last one the tracepoints are closed', { skip: withoutRoot }, async (t) => {
  const netns = new Netns('sc');
  t.teardown(() => netns.remove());
  const process = await SocketProcess.start(netns);
  t.teardown(() => process.kill());
  await until(() => events() === 0);
  const told = [0, 0];
  const stops = [0, 1].map((index) => socketCalls.follow(() => void (told[index]! += 1)));
  t.ok(events() > 0);
  await process.run("s = bound(AF_INET, SOCK_DGRAM, ('', 53))");
  await until(() => told.every((count) => count > 0));
  stops[0]?.();
  stops[0]?.();
  const before = told[1]!;
  const gone = told[0];
  await process.run("s = bound(AF_INET, SOCK_DGRAM, ('', 54))");
  await until(() => told[1]! > before);
  t.equal(told[0], gone);
  stops[1]?.();
  await until(() => events() === 0);
});

t.test(
  'where the sources are asked for, they are tried, and nothing is left of it',
  { skip: withoutRoot },
  async (t) => {
    const { opening, why } = socketSources();
    t.equal(opening === 'events', why === '');
    await until(() => events() === 0);
  },
);
