import t from 'tap';
import { readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import type { Tracepoint } from '../../src/sys/tracepoints.js';
import { Tracepoints } from '../../src/sys/tracepoints.js';
import { until } from '../support/lab.js';
import { Netns, withoutRoot } from '../support/netns.js';
import { SocketProcess } from '../support/sockets.js';

const BIND: Tracepoint = { name: 'syscalls/sys_exit_bind', filter: 'ret == 0' };
/** An argument that only this test gives. */
const LISTEN: Tracepoint = { name: 'syscalls/sys_enter_listen', filter: 'backlog == 4711' };

function follow(t: { teardown: (undo: () => void) => void }): { hits: Map<Tracepoint, number>; points: Tracepoints } {
  const hits = new Map<Tracepoint, number>();
  const points = new Tracepoints([BIND, LISTEN], (hit) => {
    for (const point of hit) hits.set(point, (hits.get(point) ?? 0) + 1);
  });
  t.teardown(() => points.close());
  return { hits, points };
}

t.test('calls of other processes are told of, by tracepoint and filter', { skip: withoutRoot }, async (t) => {
  const netns = new Netns('tp');
  t.teardown(() => netns.remove());
  const process = await SocketProcess.start(netns);
  t.teardown(() => process.kill());
  const { hits } = follow(t);
  await process.run("s = bound(AF_INET, SOCK_STREAM, ('', 80)); s.listen(4710)");
  await until(() => hits.has(BIND));
  t.notOk(hits.has(LISTEN), 'the filter keeps it out');
  await process.run('s.listen(4711)');
  await until(() => hits.has(LISTEN));
});

t.test('calls of this process are told of too, on whatever processor', { skip: withoutRoot }, async (t) => {
  const { hits } = follow(t);
  const server = createServer();
  await new Promise<void>((resolve) => server.listen({ port: 0, host: '127.0.0.1', backlog: 4711 }, () => resolve()));
  server.close();
  await until(() => hits.has(LISTEN));
});

t.test('more hits than a ring holds are told of, and the next one too', { skip: withoutRoot }, async (t) => {
  const netns = new Netns('tp');
  t.teardown(() => netns.remove());
  const process = await SocketProcess.start(netns);
  t.teardown(() => process.kill());
  const { hits } = follow(t);
  await process.run("for i in range(3000): bound(AF_INET, SOCK_DGRAM, ('', 0)).close()");
  await until(() => hits.has(BIND));
  hits.clear();
  await process.run("s = bound(AF_INET, SOCK_STREAM, ('', 80)); s.listen(4711)");
  await until(() => hits.has(LISTEN));
});

t.test('tracefs is mounted nowhere after it, and no descriptor is left', { skip: withoutRoot }, async (t) => {
  const mounts = (): number => readFileSync('/proc/self/mounts', 'utf8').split('tracefs').length;
  const before = mounts();
  const { points } = follow(t);
  t.equal(mounts(), before);
  t.same(
    readdirSync(tmpdir()).filter((name) => name.startsWith('fwdfs-tracefs-')),
    [],
  );
  points.close();
  points.close();
});

t.test('a tracepoint or filter that is not there throws, and leaves nothing', { skip: withoutRoot }, async (t) => {
  const none = (): void => undefined;
  t.throws(() => new Tracepoints([{ name: 'syscalls/sys_exit_none', filter: '' }], none), { code: 'ENOENT' });
  t.throws(() => new Tracepoints([{ ...BIND, filter: 'nothing == 0' }], none), { code: 'EINVAL' });
});
