/** The control device's end against a real server: connecting, losing, resuming, giving up. */
import t from 'tap';
import { HELLO_TIMEOUT_MS, RECONNECT_MAX_MS, RECONNECT_MIN_MS } from '../../src/base/limits.js';
import { backoff } from '../../src/tunnel/backoff.js';
import { FwdfsError } from '../../src/base/errors.js';
import * as f from '../../src/tunnel/frames.js';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { FakeTimers } from '../support/fake-timers.js';
import { startTcpProxy } from '../support/tcp-proxy.js';
import { startClient, startServer } from '../support/tunnel-ends.js';

const ignore = (): void => undefined;

t.test('back-off doubles up to its bound, and is spread over all of it', (t) => {
  const bounds = Array.from({ length: 12 }, (_, attempt) => backoff(attempt, 1));
  t.equal(bounds[0], RECONNECT_MIN_MS);
  t.same(
    bounds,
    bounds.map((_, attempt) => Math.min(RECONNECT_MAX_MS, RECONNECT_MIN_MS * 2 ** attempt)),
  );
  t.equal(bounds.at(-1), RECONNECT_MAX_MS);
  t.equal(backoff(3, 0), 0);
  t.equal(backoff(3, 0.5), RECONNECT_MIN_MS * 4);
  t.equal(backoff(5000, 1), RECONNECT_MAX_MS, 'for ever');
  t.end();
});

t.test('a client connects, says who it is, and its state tells all about it', async (t) => {
  const { server, url, diary: there } = await startServer();
  t.teardown(() => server.close());
  const { client, diary, connections } = startClient(url);
  t.teardown(() => client.close());
  t.match(client.state, { connected: false, version: 0, lastError: '', forwarder: '' });
  await diary.until('connected');
  await there.until('active ctl1 resumed=false');
  t.match(connections, [{ resumed: false, sameEpoch: false, forwarder: 'fwd1', version: 1, tunnels: [] }]);
  t.match(client.state, {
    connected: true,
    version: 1,
    resumedCount: 0,
    lastError: '',
    forwarder: 'fwd1',
    localAddress: '127.0.0.1',
    remoteAddress: '127.0.0.1',
  });
});

t.test('requests work from connected on, before its promise is settled', async (t) => {
  const { server, url } = await startServer({
    answer: (_session, ...[type, fields]) =>
      type === 'table-request' ? { columns: [fields.table], rows: [] } : undefined,
  });
  t.teardown(() => server.close());
  const columns: string[] = [];
  const { client, diary } = startClient(url, {
    async onConnected() {
      columns.push(...(await client.request('table-request', { table: 'path' })).columns);
      diary.add('asked');
    },
  });
  t.teardown(() => client.close());
  await diary.until('asked');
  t.same(columns, ['path']);
});

t.test('messages that the forwarder pushes at once come after connected', async (t) => {
  const { server, url, latest, diary: there } = await startServer();
  t.teardown(() => server.close());
  const { client, diary } = startClient(url);
  t.teardown(() => client.close());
  await there.until('active');
  latest().send('interface-list', { interfaces: ['eth0'] });
  await diary.until('message interface-list');
  t.same(diary.lines, ['connected resumed=false sameEpoch=false', 'message interface-list']);
});

t.test('frames go both ways, and come back as done', async (t) => {
  const { server, url, latest, diary: there } = await startServer();
  t.teardown(() => server.close());
  const { client, diary } = startClient(url);
  t.teardown(() => client.close());
  const frame = Buffer.alloc(64);
  const end = f.putCredit(frame, 0, 1, 1000);
  let done = 0;
  t.notOk(
    client.sendFrames(frame, end, () => (done += 1)),
    'not before it is connected',
  );
  t.equal(done, 1, 'then the buffer is back at once');
  await diary.until('connected');
  t.ok(client.sendFrames(frame, end, ignore));
  await there.until('frames 32');
  t.ok(latest().sendFrames(frame, end, ignore));
  await diary.until('frames 32');
});

t.test('a cut connection is resumed, with what the forwarder received', async (t) => {
  const received = [{ tunnel: 3, sequence: 2 ** 40 }];
  const { server, port, latest, diary: there } = await startServer({ received });
  t.teardown(() => server.close());
  const proxy = await startTcpProxy(port);
  t.teardown(() => proxy.close());
  const { client, diary, connections } = startClient(`ws://127.0.0.1:${proxy.port}`);
  t.teardown(() => client.close());
  await diary.until('connected');
  const session = latest();
  proxy.cut();
  await diary.until('connected resumed=true sameEpoch=true');
  await there.until('active ctl1 resumed=true');
  t.equal(latest(), session, 'it is the same session');
  t.same(connections[1]?.tunnels, received);
  t.match(diary.lines[1], /^disconnected not-connected orderly=false/);
  t.same(there.lines, ['active ctl1 resumed=false', 'suspended ctl1', 'active ctl1 resumed=true']);
  t.match(client.state, { connected: true, resumedCount: 1 });
  t.ok(client.state.lastError.length > 0, 'the reason is still told');
});

t.test('a request in flight when the channel dies rejects with not-connected', async (t) => {
  const { server, port, diary: there } = await startServer({ answer: () => new Promise(ignore) });
  t.teardown(() => server.close());
  const proxy = await startTcpProxy(port);
  t.teardown(() => proxy.close());
  const { client, diary } = startClient(`ws://127.0.0.1:${proxy.port}`);
  t.teardown(() => client.close());
  await diary.until('connected');
  const request = client.request('table-request', { table: 'path' });
  await there.until('message table-request');
  proxy.cut();
  await t.rejects(request, { code: 'not-connected' });
});

t.test('a forwarder that was started again is a new epoch and nothing is resumed', async (t) => {
  const first = await startServer();
  const { client, diary } = startClient(first.url);
  t.teardown(() => client.close());
  await diary.until('connected');
  const before = diary.lines.length;
  await first.server.close();
  const second = await startServer({ url: `ws://127.0.0.1:${first.port}` });
  t.teardown(() => second.server.close());
  t.equal(await diary.until('connected', before), 'connected resumed=false sameEpoch=false');
  t.match(diary.lines[1], /^disconnected not-connected orderly=true: the forwarder said goodbye: the forwarder stops/);
});

t.test('after a goodbye of the forwarder the session is new, in the same epoch', async (t) => {
  const { server, url, latest } = await startServer();
  t.teardown(() => server.close());
  const { client, diary } = startClient(url);
  t.teardown(() => client.close());
  await diary.until('connected');
  latest().end('enough');
  await diary.until('connected resumed=false sameEpoch=true');
  t.match(diary.lines[1], /orderly=true: the forwarder said goodbye: enough/);
});

t.test('a forwarder that suspends the session gets it back', async (t) => {
  const { server, url, latest, diary: there } = await startServer();
  t.teardown(() => server.close());
  const { client, diary } = startClient(url);
  t.teardown(() => client.close());
  await diary.until('connected');
  latest().send('suspend', {});
  await diary.until('connected resumed=true');
  t.match(diary.lines[1], /orderly=false: the forwarder suspended/);
  t.same(there.lines.slice(-2), ['suspended ctl1', 'active ctl1 resumed=true']);
});

t.test('close says goodbye, ends all timers, and happens once', async (t) => {
  const timers = new FakeTimers();
  const { server, url, diary: there } = await startServer();
  t.teardown(() => server.close());
  const { client, diary } = startClient(url, { timers });
  await diary.until('connected');
  client.close('unmounted');
  client.close('again');
  await there.until('closed ctl1: the control device left: unmounted');
  t.same(diary.lines.slice(1), ['disconnected not-connected orderly=true: unmounted']);
  t.equal(timers.running, 0);
  await t.rejects(client.request('table-request', { table: 'x' }), { code: 'not-connected' });
});

t.test('a wrong token is tried again for ever, and the state says why', async (t) => {
  const { server, url } = await startServer();
  t.teardown(() => server.close());
  const { client, diary, log } = startClient(url, { token: 'bad' });
  t.teardown(() => client.close());
  await diary.count('failed not-authenticated', 3);
  t.match(client.state.lastError, /ctl1 has no good token/);
  t.notOk(client.state.connected);
  t.equal(log.lines.filter(({ level }) => level === 'warn').length, 1, 'logged once, not every time');
});

t.test('waits between tries grow, and shrink again after a connection that lasted', async (t) => {
  const timers = new FakeTimers();
  const waits: number[] = [];
  const after = timers.after.bind(timers);
  timers.after = (ms, run) => {
    if (ms !== HELLO_TIMEOUT_MS) waits.push(ms);
    return after(ms, run);
  };
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve));
  const { port } = probe.address() as AddressInfo;
  await new Promise((resolve) => probe.close(resolve));
  const { client, diary } = startClient(`ws://127.0.0.1:${port}`, { timers, random: () => 0.999 });
  t.teardown(() => client.close());
  for (let tries = 1; tries <= 8; tries += 1) {
    await diary.count('failed', tries);
    timers.advance(RECONNECT_MAX_MS);
  }
  await diary.count('failed', 9);
  t.same(
    waits.map((ms) => Math.round(ms)),
    [100, 200, 400, 799, 1598, 3197, 4995, 4995, 4995],
  );
  t.match(diary.lines[0], /^failed not-connected: cannot reach .*ECONNREFUSED/);
});

t.test('a connect that hangs ends after HELLO_TIMEOUT_MS, wherever it hangs', async (t) => {
  for (const where of ['before HTTP', 'after hello'] as const) {
    const timers = new FakeTimers();
    let accepted = ignore;
    const connected = new Promise<void>((resolve) => (accepted = resolve));
    const silentServer = createServer((socket) => {
      socket.on('error', ignore);
      accepted();
    });
    await new Promise<void>((resolve) => silentServer.listen(0, '127.0.0.1', resolve));
    const {
      server,
      url,
      diary: there,
    } = await startServer({
      authenticate: () => {
        there.add('hello');
        return 'ctl1';
      },
    });
    const target = where === 'before HTTP' ? `ws://127.0.0.1:${(silentServer.address() as AddressInfo).port}` : url;
    const proxy = await startTcpProxy(Number(new URL(target).port));
    const { client, diary } = startClient(`ws://127.0.0.1:${proxy.port}`, { timers });
    if (where === 'before HTTP') await connected;
    else {
      await there.until('hello');
      proxy.freeze();
    }
    timers.advance(HELLO_TIMEOUT_MS);
    t.match(await diary.until('failed'), /timed-out/, where);
    client.close();
    t.equal(timers.running, 0);
    await Promise.all([proxy.close(), server.close()]);
    await new Promise((resolve) => silentServer.close(resolve));
  }
});

t.test(
  'a half-dead connection is noticed by its silence and replaced, although the forwarder has not noticed',
  async (t) => {
    const timers = new FakeTimers();
    const { server, port, diary: there } = await startServer();
    t.teardown(() => server.close());
    const proxy = await startTcpProxy(port);
    t.teardown(() => proxy.close());
    const { client, diary } = startClient(`ws://127.0.0.1:${proxy.port}`, { timers });
    t.teardown(() => client.close());
    await diary.until('connected');
    proxy.freeze();
    timers.advance(12_000);
    t.match(diary.lines[1], /^disconnected not-connected orderly=false: nothing was heard/);
    t.same(there.lines, ['active ctl1 resumed=false'], 'the forwarder believes that it is connected');
    timers.advance(0);
    await diary.until('connected resumed=true');
    t.same(there.lines.slice(1), ['suspended ctl1', 'active ctl1 resumed=true']);
  },
);

t.test('a connected that fails gives the connection up and tries again', async (t) => {
  const { server, url } = await startServer();
  t.teardown(() => server.close());
  let tries = 0;
  const { client, diary } = startClient(url, {
    onConnected() {
      tries += 1;
      if (tries === 1) throw new FwdfsError('interface-gone', 'eth0');
      if (tries === 2) return Promise.reject(new TypeError('oops'));
      return undefined;
    },
  });
  t.teardown(() => client.close());
  await diary.count('connected', 3);
  t.match(diary.lines[1], /^disconnected interface-gone/);
  t.match(diary.lines[3], /^disconnected internal orderly=false: oops/);
  t.ok(client.isConnected);
});

t.test('a URL that is none is bad-config at once', (t) => {
  for (const url of ['http://127.0.0.1:1', 'nonsense', 'ws+unix:relative.sock', 'ws://127.0.0.1:1/path']) {
    t.throws(() => startClient(url), { code: 'bad-config' }, url);
  }
  t.throws(() => startClient('wss://127.0.0.1:1', { tls: { ca: '/does/not/exist' } }), { code: 'bad-config' });
  t.end();
});
