import t from 'tap';
import { createSocket } from 'node:dgram';
import { readdirSync, readlinkSync } from 'node:fs';
import { silent } from '../../src/base/log.js';
import { SocketWatcher } from '../../src/control/socket-watcher.js';
import type { WatchedSocket } from '../../src/control/socket-watcher.js';
import { until } from '../support/lab.js';
import { Netns, withoutRoot } from '../support/netns.js';
import { SocketProcess } from '../support/sockets.js';

const WAIT_MS = 10_000;

interface Watched {
  readonly netns: Netns;
  readonly process: SocketProcess;
  readonly watcher: SocketWatcher;
  /** What is open, by id, as told. */
  readonly open: Map<string, WatchedSocket>;
  /** Every change since the start, `+udp:7`. */
  readonly told: string[];
  /** Resolves to the socket of the inode that Python's `inode(NAME)` gives, when it is told of and fits. */
  readonly opened: (name: string, fits?: (socket: WatchedSocket) => boolean) => Promise<WatchedSocket>;
  readonly closed: (socket: WatchedSocket) => Promise<void>;
}

/** What a descriptor of this process is, without its number. */
function linkOf(fd: string): string[] {
  try {
    return [readlinkSync(`/proc/self/fd/${fd}`).replace(/^socket:.*/, 'socket')];
  } catch {
    return [];
  }
}

type Teardown = { teardown: (undo: () => void | Promise<void>) => void };

async function watch(t: Teardown, before: readonly string[] = [], events = true): Promise<Watched> {
  const netns = new Netns('sw');
  t.teardown(() => netns.remove());
  netns.run('ip link set lo up');
  const process = await SocketProcess.start(netns);
  t.teardown(() => process.kill());
  for (const line of before) await process.run(line);
  const watcher = new SocketWatcher(netns.name, silent, { events });
  t.teardown(() => watcher.close());
  const told: string[] = [];
  const open = new Map<string, WatchedSocket>();
  const first = watcher.start((opened, closed) => {
    for (const socket of closed) {
      if (!open.delete(socket.id)) throw new Error(`${socket.id} closed and was not open`);
      told.push(`-${socket.id}`);
    }
    for (const socket of opened) {
      if (open.has(socket.id)) throw new Error(`${socket.id} opened twice`);
      open.set(socket.id, socket);
      told.push(`+${socket.id}`);
    }
  });
  for (const socket of first) open.set(socket.id, socket);
  const opened = async (
    name: string,
    fits: (socket: WatchedSocket) => boolean = () => true,
  ): Promise<WatchedSocket> => {
    const inode = Number(await process.run(`inode(${name})`));
    const find = (): WatchedSocket | undefined =>
      [...open.values()].find((socket) => socket.inode === inode && fits(socket));
    await until(
      () => find() !== undefined,
      WAIT_MS,
      () => `no socket ${name}: ${JSON.stringify([...open.values()])}`,
    );
    return find()!;
  };
  const closed = (socket: WatchedSocket): Promise<void> =>
    until(
      () => !open.has(socket.id),
      WAIT_MS,
      () => `${socket.id} is still open`,
    );
  return { netns, process, watcher, open, told, opened, closed };
}

/** A line that opens a socket, and what is told of it. */
const KINDS: readonly [title: string, line: string, expected: Partial<WatchedSocket>][] = [
  [
    'TCP that listens',
    "s = listening(AF_INET, ('', 8080))",
    { kind: 'stream', protocol: 6, family: 4, port: 8080, address: null, listening: true, connected: false },
  ],
  [
    'TCP on both families',
    "s = listening(AF_INET6, ('::', 8081), (IPPROTO_IPV6, IPV6_V6ONLY, 0))",
    { kind: 'stream', protocol: 6, family: 6, port: 8081, address: null, v6only: false },
  ],
  [
    'TCP on IPv6 only, at an address',
    "s = listening(AF_INET6, ('::1', 8082), (IPPROTO_IPV6, IPV6_V6ONLY, 1))",
    { kind: 'stream', family: 6, port: 8082, address: Buffer.from([...Buffer.alloc(15), 1]), v6only: true },
  ],
  [
    'UDP',
    "s = bound(AF_INET, SOCK_DGRAM, ('127.0.0.1', 53))",
    { kind: 'datagram', protocol: 17, family: 4, port: 53, address: Buffer.from([127, 0, 0, 1]), listening: false },
  ],
  [
    'UDP of an IPv6 socket at an IPv4 address',
    "s = bound(AF_INET6, SOCK_DGRAM, ('::ffff:127.0.0.1', 54), 0, (IPPROTO_IPV6, IPV6_V6ONLY, 0))",
    { kind: 'datagram', family: 6, port: 54, address: Buffer.from([127, 0, 0, 1]) },
  ],
  [
    'UDP bound to an interface',
    "s = bound(AF_INET, SOCK_DGRAM, ('', 67), 0, (SOL_SOCKET, 25, b'lo'))",
    { kind: 'datagram', port: 67, ifindex: 1 },
  ],
  ['UDP-Lite', "s = bound(AF_INET, SOCK_DGRAM, ('', 5000), 136)", { kind: 'datagram', protocol: 136, port: 5000 }],
  ['raw IPv4', 's = socket(AF_INET, SOCK_RAW, 89)', { kind: 'raw', protocol: 89, family: 4, port: 0, address: null }],
  [
    'raw IPv4 at an address',
    "s = bound(AF_INET, SOCK_RAW, ('127.0.0.1', 0), 112)",
    { kind: 'raw', protocol: 112, address: Buffer.from([127, 0, 0, 1]) },
  ],
  ['raw ICMPv6', 's = socket(AF_INET6, SOCK_RAW, 58)', { kind: 'raw', protocol: 58, family: 6, address: null }],
  [
    'a packet socket',
    's = socket(AF_PACKET, SOCK_RAW, htons(0x88cc))',
    { kind: 'packet', protocol: 0x88cc, family: 0, ifindex: 0, filter: '' },
  ],
  [
    'a packet socket at an interface',
    "s = bound(AF_PACKET, SOCK_RAW, ('lo', 3))",
    { kind: 'packet', protocol: 3, family: 0, ifindex: 1 },
  ],
  [
    'a packet socket with a filter',
    "s = filtered(bound(AF_PACKET, SOCK_DGRAM, ('lo', 0x0800)), '06000000ffff0000')",
    { kind: 'packet', protocol: 0x0800, ifindex: 1, filter: '06000000ffff0000' },
  ],
];

/** What is told first may be the socket before it was bound or had its filter. */
function isAsFinally(socket: WatchedSocket, expected: Partial<WatchedSocket>): boolean {
  const { filter = '', ifindex = 0, protocol = socket.protocol, address = null } = expected;
  if (socket.filter !== filter || socket.ifindex !== ifindex || socket.protocol !== protocol) return false;
  return (socket.address === null) === (address === null);
}

for (const events of [true, false]) {
  for (const [title, line, expected] of KINDS) {
    const how = events ? 'by events' : 'by polling';
    t.test(`${title}: it is told of when it opens and when it closes, ${how}`, { skip: withoutRoot }, async (t) => {
      const { process, opened, closed, open } = await watch(t, [], events);
      await process.run(line);
      const socket = await opened('s', (one) => isAsFinally(one, expected));
      t.match(socket, expected);
      await process.run('s.close()');
      await closed(socket);
      t.equal(open.size, 0);
    });
  }
}

t.test('what was open before is what start gives, and nothing of it is told', { skip: withoutRoot }, async (t) => {
  const lines = KINDS.map(([, line], index) => `${line.replace(/^s/, `s${index}`)}`);
  const { open, told, opened } = await watch(t, lines);
  t.equal(open.size, KINDS.length);
  t.same(told, []);
  for (const [index, [title, , expected]] of KINDS.entries()) t.match(await opened(`s${index}`), expected, title);
});

t.test('a process that is killed leaves none of its sockets', { skip: withoutRoot }, async (t) => {
  const lines = KINDS.map(([, line], index) => `${line.replace(/^s/, `s${index}`)}`);
  const { open, process } = await watch(t, lines);
  await process.kill();
  await until(
    () => open.size === 0,
    WAIT_MS,
    () => `left: ${[...open.keys()].join(' ')}`,
  );
});

t.test(
  'sockets that opened and closed by the hundred are all told of, in the right order',
  { skip: withoutRoot },
  async (t) => {
    const { process, open, told } = await watch(t);
    await process.run("l = [bound(AF_INET, SOCK_DGRAM, ('', 0)) for i in range(800)]");
    await process.run('for i in range(0, 800, 2): l[i].close()');
    await process.run("m = [listening(AF_INET, ('', 0)) for i in range(300)]");
    await until(
      () => open.size === 700,
      WAIT_MS,
      () => `${open.size} are open`,
    );
    await process.kill();
    await until(
      () => open.size === 0,
      WAIT_MS,
      () => `left: ${[...open.keys()].join(' ')}`,
    );
    t.equal(new Set(told).size, told.length, 'nothing is told twice');
  },
);

t.test('a socket that connects is told of again, with the same id', { skip: withoutRoot }, async (t) => {
  const { process, opened, told, netns } = await watch(t);
  netns.run('ip addr add 10.9.0.1/32 dev lo');
  await process.run("s = bound(AF_INET, SOCK_DGRAM, ('', 4000))");
  const before = await opened('s');
  t.match(before, { address: null, connected: false });
  await process.run("s.connect(('10.9.0.1', 9))");
  // A client of UDP that connects matters little: the audit finds it, and so does whatever else is opened.
  await process.run("other = bound(AF_INET, SOCK_DGRAM, ('', 4001))");
  const after = await opened('s', (socket) => socket.connected);
  t.match(after, { id: before.id, port: 4000, address: Buffer.from([10, 9, 0, 1]) });
  t.same(told.slice(0, 1), [`+${before.id}`]);
  t.ok(told.indexOf(`-${before.id}`) > 0);
});

t.test(
  'by polling, a socket that takes the place of another is seen before the audit',
  { skip: withoutRoot },
  async (t) => {
    const { process, opened, open } = await watch(t, [], false);
    await process.run("s = listening(AF_INET, ('', 8080))");
    const before = await opened('s');
    await process.run("s.close(); s = listening(AF_INET, ('', 8080))");
    await until(() => open.size === 1 && !open.has(before.id), 5000);
    t.match(await opened('s'), { port: 8080 });
  },
);

t.test('connections of TCP and sockets that are only bound are not told of', { skip: withoutRoot }, async (t) => {
  const { process, opened, open } = await watch(t);
  await process.run("s = listening(AF_INET, ('127.0.0.1', 8080))");
  await process.run("c = create_connection(('127.0.0.1', 8080)); a = s.accept()[0]");
  await process.run("b = bound(AF_INET, SOCK_STREAM, ('127.0.0.1', 8090))");
  await process.run('u = socket(AF_INET, SOCK_DGRAM)');
  await opened('s');
  await process.run("last = bound(AF_INET, SOCK_DGRAM, ('', 9))");
  await opened('last');
  t.same([...open.values()].map(({ port }) => port).sort(), [8080, 9]);
});

t.test('a hundred sockets of one port are a hundred sockets', { skip: withoutRoot }, async (t) => {
  const { process, open, told } = await watch(t);
  await process.run("l = [listening(AF_INET, ('', 80), (SOL_SOCKET, SO_REUSEPORT, 1)) for _ in range(100)]");
  await until(() => open.size === 100);
  await process.run('for s in l: s.close()');
  await until(() => open.size === 0);
  t.equal(new Set(told).size, 200);
});

t.test('sockets of this process and of other namespaces are not told of', { skip: withoutRoot }, async (t) => {
  const { process, netns, open, opened, told } = await watch(t);
  const other = new Netns('sw2');
  t.teardown(() => other.remove());
  const stranger = await SocketProcess.start(other);
  t.teardown(() => stranger.kill());
  await stranger.run("s = bound(AF_INET, SOCK_DGRAM, ('', 1))");
  const leave = netns.enter();
  const own = createSocket('udp4');
  await new Promise<void>((resolve) => own.bind(2, '127.0.0.1', () => resolve()));
  leave();
  t.teardown(() => void own.close());
  await process.run("s = bound(AF_INET, SOCK_DGRAM, ('', 3))");
  await opened('s');
  t.same(
    [...open.values()].map(({ port }) => port),
    [3],
  );
  t.equal(told.length, 1);
});

t.test('an onChange that throws is logged and stops nothing', { skip: withoutRoot }, async (t) => {
  const netns = new Netns('sw');
  t.teardown(() => netns.remove());
  const process = await SocketProcess.start(netns);
  t.teardown(() => process.kill());
  const errors: object[] = [];
  const watcher = new SocketWatcher(netns.name, { ...silent, error: (fields) => void errors.push(fields) });
  t.teardown(() => watcher.close());
  let count = 0;
  watcher.start(() => {
    count += 1;
    throw new Error('no');
  });
  await process.run("a = bound(AF_INET, SOCK_DGRAM, ('', 1))");
  await until(() => count === 1);
  await process.run("b = bound(AF_INET, SOCK_DGRAM, ('', 2))");
  await until(() => count === 2);
  t.match(errors[0], { error: 'no' });
});

t.test('nothing is told after close, and no descriptor is left', { skip: withoutRoot }, async (t) => {
  const { process, watcher, told } = await watch(t);
  watcher.close();
  watcher.close();
  await process.run("s = bound(AF_INET, SOCK_DGRAM, ('', 1))");
  // Tracepoints are closed by a thread of its own, as the kernel takes its time.
  const files = (): string =>
    readdirSync('/proc/self/fd')
      .flatMap((fd) => linkOf(fd))
      .sort()
      .join(' ');
  await until(() => !files().includes('perf_event'));
  const before = files();
  const again = new SocketWatcher('', silent);
  again.start(() => undefined);
  t.not(files(), before);
  again.close();
  await until(
    () => files() === before,
    WAIT_MS,
    () => `${files()} instead of ${before}`,
  );
  t.same(told, []);
});

t.test('a namespace that is not there is refused, and leaves nothing open', { skip: withoutRoot }, async (t) => {
  const before = readdirSync('/proc/self/fd').length;
  t.throws(() => new SocketWatcher('fwdfs-none', silent).start(() => undefined), { code: 'ENOENT' });
  t.equal(readdirSync('/proc/self/fd').length, before);
});
