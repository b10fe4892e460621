/** The forwarder's end: hello, the life of a session, and whoever does not behave. */
import { get } from 'node:http';
import { type Socket, connect } from 'node:net';
import { Packr } from 'msgpackr';
import t from 'tap';
import { WebSocket } from 'ws';
import { FwdfsError } from '../../src/base/errors.js';
import { HELLO_TIMEOUT_MS, MAX_SESSIONS, RESUME_TIME_MS } from '../../src/base/limits.js';
import * as f from '../../src/tunnel/frames.js';
import { FakeTimers } from '../support/fake-timers.js';
import { startTcpProxy } from '../support/tcp-proxy.js';
import { type ServerEndOptions, startClient, startServer } from '../support/tunnel-ends.js';

const packr = new Packr({ useRecords: false, variableMapSize: true });
const ignore = (): void => undefined;

/** A client without manners: a WebSocket on which anything can be sent. */
class Raw {
  readonly ws: WebSocket;
  readonly closed: Promise<string>;
  private readonly received: Record<string, unknown>[] = [];
  private wake = ignore;

  constructor(url: string) {
    this.ws = new WebSocket(url);
    this.ws.on('error', ignore);
    this.ws.on('message', (data: Buffer) => {
      this.received.push(packr.unpack(data) as Record<string, unknown>);
      this.wake();
    });
    this.closed = new Promise((resolve) => {
      this.ws.once('close', (code, reason) => resolve(`${code} ${reason.toString()}`));
    });
  }

  async open(): Promise<this> {
    await new Promise((resolve) => this.ws.once('open', resolve));
    return this;
  }

  send(message: Record<string, unknown>): void {
    this.ws.send(packr.pack(message));
  }

  async next(): Promise<Record<string, unknown>> {
    while (this.received.length === 0) await new Promise<void>((resolve) => (this.wake = resolve));
    return this.received.shift() as Record<string, unknown>;
  }

  async hello(more: Record<string, unknown> = {}): Promise<Record<string, unknown>> {
    this.send({ type: 'hello', id: 1, versions: { min: 1, max: 1 }, name: 'raw', token: 'good', ...more });
    return this.next();
  }
}

async function startRaw(options: ServerEndOptions = {}) {
  const timers = new FakeTimers();
  const end = await startServer({ timers, ...options });
  t.teardown(() => end.server.close());
  const control = await new Raw(`${end.url}/control`).open();
  return { ...end, timers, control };
}

/** Both channels of one well-behaved session. */
async function startActive(options: ServerEndOptions = {}) {
  const end = await startRaw(options);
  const response = await end.control.hello();
  const tunnel = await new Raw(`${end.url}/tunnel?key=${String(response['tunnelKey'])}`).open();
  await end.diary.until('active');
  return { ...end, response, tunnel };
}

/** Another connection that asks to go on with a session. */
async function resume(url: string, response: Record<string, unknown>, more: Record<string, unknown> = {}) {
  const control = await new Raw(`${url}/control`).open();
  const { session, epoch } = response;
  return { control, response: await control.hello({ resume: { session, epoch }, ...more }) };
}

t.test('hello, then the tunnel with its key, make a session active', async (t) => {
  const { response, diary, server, latest } = await startActive();
  t.match(response, {
    type: 'hello-response',
    re: 1,
    version: 1,
    forwarder: 'fwd1',
    resumed: false,
    resumeTime: RESUME_TIME_MS,
  });
  t.equal(response['epoch'], server.epoch);
  t.same(diary.lines, ['active raw resumed=false']);
  t.match(latest(), { identity: 'raw', name: 'raw', address: '127.0.0.1', state: 'active', version: 1 });
  t.equal(server.list().length, 1);
});

t.test('a tunnel key works once, and only in time', async (t) => {
  const { response, url, control, timers, diary } = await startActive();
  for (const key of [String(response['tunnelKey']), '', 'x', 'x'.repeat(43)]) {
    const again = new Raw(`${url}/tunnel?key=${key}`);
    t.match(await again.closed, /key is of no session/);
  }
  t.equal(control.ws.readyState, WebSocket.OPEN, 'the session does not suffer');
  const late = await new Raw(`${url}/control`).open();
  const { tunnelKey } = await late.hello();
  timers.advance(HELLO_TIMEOUT_MS);
  t.match(await late.closed, /opened no tunnel/);
  t.match(await new Raw(`${url}/tunnel?key=${String(tunnelKey)}`).closed, /key is of no session/);
  t.same(diary.lines, ['active raw resumed=false'], 'a session that never was active is not told of');
});

t.test('a wrong token is answered with not-authenticated and the channel is closed', async (t) => {
  const { control } = await startRaw();
  t.match(await control.hello({ token: 'bad' }), {
    type: 'error',
    re: 1,
    code: 'not-authenticated',
    text: 'raw has no good token',
  });
  t.match(await control.closed, /raw has no good token/);
});

t.test('a version that is too new or too old is answered with version-mismatch', async (t) => {
  const { control, url } = await startRaw();
  t.match(await control.hello({ versions: { min: 3, max: 4 } }), { type: 'error', re: 1, code: 'version-mismatch' });
  await control.closed;
  const newer = await new Raw(`${url}/control`).open();
  t.match(await newer.hello({ versions: { min: 1, max: 2 }, mood: 'fine' }), { type: 'hello-response', version: 1 });
});

t.test('anything before hello, and a second hello, are refused', async (t) => {
  const { control, url } = await startRaw();
  control.send({ type: 'table-request', id: 5, table: 'x' });
  t.match(await control.next(), { type: 'error', re: 5, code: 'bad-message' });
  await control.closed;
  const other = await new Raw(`${url}/control`).open();
  await other.hello();
  t.match(await other.hello(), { type: 'error', code: 'bad-message' });
});

t.test('whoever connects and says nothing is cut off, at whatever point', async () => {
  const { control, port, timers } = await startRaw();
  const plain = connect(port, '127.0.0.1');
  plain.on('error', ignore);
  const plainClosed = new Promise((resolve) => plain.once('close', resolve));
  plain.write('GET /control HTTP/1.1\r\nHost: x\r\n');
  await new Promise<void>((resolve) => plain.once('connect', resolve));
  const third = await new Raw(`ws://127.0.0.1:${port}/control`).open();
  timers.advance(HELLO_TIMEOUT_MS);
  await Promise.all([control.closed, plainClosed, third.closed]);
});

t.test('any other path is 404, with and without an upgrade', async (t) => {
  const { url, port } = await startRaw();
  const status = (path: string): Promise<number | undefined> =>
    new Promise((resolve) =>
      get({ port, host: '127.0.0.1', path }, (response) => resolve(response.resume().statusCode)),
    );
  t.equal(await status('/'), 404);
  t.equal(await status('/control'), 404);
  for (const path of ['/', '/control/', '/other', '//', '/control/../x']) {
    const answer = await new Promise<string>((resolve) => {
      const socket: Socket = connect(port, '127.0.0.1');
      socket.write(
        `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
          'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n',
      );
      socket.once('data', (data) => resolve(data.toString().split('\r\n')[0] ?? ''));
    });
    t.match(answer, /404/, path);
  }
  const raw = await new Raw(`${url}/control`).open();
  t.match(await raw.hello(), { type: 'hello-response' }, 'and the server is well');
});

t.test('a malformed message suspends its own session and disturbs nobody else', async (t) => {
  const { control, tunnel, url, server, diary, latest, response } = await startActive();
  const other = startClient(url);
  t.teardown(() => other.client.close());
  await diary.until('active ctl1');
  control.ws.send(Buffer.from([0xc1]));
  t.match(await control.closed, /^1002 .*not plain msgpack/);
  await tunnel.closed;
  t.ok(other.client.isConnected && latest().state === 'active');
  t.equal(diary.lines.at(-1), 'suspended raw');

  const again = await resume(url, response);
  const second = await new Raw(`${url}/tunnel?key=${String(again.response['tunnelKey'])}`).open();
  await diary.until('active raw resumed=true');
  second.ws.send(Buffer.alloc(40, 0xff));
  t.match(await second.closed, /^1002 .*malformed frame/);
  await again.control.closed;
  t.notOk(
    diary.lines.some((line) => line.startsWith('frames')),
    'nothing of it was delivered',
  );
  t.ok(other.client.isConnected);
  t.equal(server.list().length, 2);
});

t.test('frames reach the handler, and answers the one who asked', async (t) => {
  const { control, tunnel, diary, bytes } = await startActive({
    answer: (session, ...[type, fields]) =>
      type === 'interface-use-request'
        ? Promise.reject(new FwdfsError('not-permitted', `${session.name} ${fields.interface}`))
        : undefined,
  });
  control.send({ type: 'interface-use-request', id: 8, interface: 'eth0' });
  t.match(await control.next(), { type: 'error', re: 8, code: 'not-permitted', text: 'raw eth0' });
  control.send({ type: 'teleport', id: 9 });
  t.match(await control.next(), { type: 'error', re: 9, code: 'unknown-message' });
  const frame = Buffer.alloc(64);
  f.putCredit(frame, 0, 1, 1);
  f.putClose(frame, 32, 1, 1);
  tunnel.ws.send(frame);
  await diary.until('frames 64');
  t.equal(bytes(), 64);
});

t.test('either channel lost suspends the session; both are closed', async (t) => {
  for (const which of ['control', 'tunnel'] as const) {
    const end = await startActive();
    end[which].ws.terminate();
    await end.diary.until('suspended raw');
    await Promise.all([end.control.closed, end.tunnel.closed]);
    t.equal(end.latest().state, 'suspended');
    t.notOk(end.latest().send('interface-list', { interfaces: [] }));
    await t.rejects(end.latest().request('hello', { versions: { min: 1, max: 1 }, name: '' }), {
      code: 'not-connected',
    });
    let done = 0;
    t.notOk(end.latest().sendFrames(Buffer.alloc(32), 32, () => (done += 1)));
    t.equal(done, 1, 'buffers come back at once');
  }
});

t.test('a suspended session ends after the resume time, and is new afterwards', async (t) => {
  const { control, diary, timers, url, response, server } = await startActive();
  control.ws.terminate();
  await diary.until('suspended raw');
  timers.advance(RESUME_TIME_MS - 1);
  t.equal(diary.lines.at(-1), 'suspended raw');
  timers.advance(1);
  t.equal(diary.lines.at(-1), 'closed raw: it was not resumed');
  t.equal(server.list().length, 0);
  t.match((await resume(url, response)).response, { resumed: false, tunnels: [] });
});

t.test('a resume that gets no tunnel leaves the session suspended, for the resume time again', async (t) => {
  const { control, diary, timers, url, response } = await startActive();
  control.ws.terminate();
  await diary.until('suspended raw');
  timers.advance(RESUME_TIME_MS - 1);
  const again = await resume(url, response);
  t.equal(again.response['resumed'], true);
  timers.advance(HELLO_TIMEOUT_MS);
  await again.control.closed;
  t.same(diary.lines, ['active raw resumed=false', 'suspended raw'], 'not told twice');
  timers.advance(RESUME_TIME_MS);
  t.equal(diary.lines.at(-1), 'closed raw: it was not resumed');
});

t.test('only the identity that began a session resumes it, and only in its epoch', async (t) => {
  const { diary, url, response, latest } = await startActive();
  const thief = await resume(url, response, { name: 'thief' });
  t.match(thief.response, { resumed: false });
  t.ok(thief.response['session'] !== response['session']);
  const stale = await resume(url, { ...response, epoch: 'older' });
  t.match(stale.response, { resumed: false });
  const guess = await resume(url, { ...response, session: 'guess' });
  t.match(guess.response, { resumed: false });
  t.equal(latest().state, 'active', 'the session does not suffer');
  t.same(diary.lines, ['active raw resumed=false']);
});

t.test('a resume replaces the half-dead channels of its session', async (t) => {
  const received = [{ tunnel: 1, sequence: 17 }];
  const { control, tunnel, diary, url, response, latest } = await startActive({ received });
  const session = latest();
  const again = await resume(url, response);
  t.match(again.response, { resumed: true, session: response['session'], tunnels: received });
  t.ok(again.response['tunnelKey'] !== response['tunnelKey']);
  await Promise.all([control.closed, tunnel.closed]);
  await new Raw(`${url}/tunnel?key=${String(again.response['tunnelKey'])}`).open();
  await diary.until('active raw resumed=true');
  t.equal(latest(), session);
  t.same(diary.lines, ['active raw resumed=false', 'suspended raw', 'active raw resumed=true']);
});

t.test('a goodbye ends the session at once', async (t) => {
  const { control, tunnel, diary, server } = await startActive();
  control.send({ type: 'goodbye', reason: 'all done' });
  await diary.until('closed raw: the control device left: all done');
  await Promise.all([control.closed, tunnel.closed]);
  t.same(diary.lines.slice(1), ['closed raw: the control device left: all done'], 'not suspended before');
  t.equal(server.list().length, 0);
});

t.test('suspend suspends it', async () => {
  const { control, tunnel, diary } = await startActive();
  control.send({ type: 'suspend' });
  await diary.until('suspended raw');
  await Promise.all([control.closed, tunnel.closed]);
});

t.test('a handler that throws harms neither the server nor its session', async (t) => {
  const end = await startActive();
  const oops = (): never => {
    throw new TypeError('oops');
  };
  const server = await startServer({
    handler: { active: oops, message: oops, frames: oops, suspended: oops, closed: oops, received: oops, sent: oops },
  });
  t.teardown(() => server.server.close());
  const { client, diary } = startClient(server.url);
  await diary.until('connected');
  await t.rejects(client.request('table-request', { table: 'x' }), { code: 'internal', what: 'oops' });
  client.close();
  t.equal(end.latest().state, 'active');
});

t.test('there are no more than MAX_SESSIONS', async (t) => {
  const { url, control } = await startRaw();
  for (let n = 0; n < MAX_SESSIONS; n += 1) {
    const raw = await new Raw(`${url}/control`).open();
    t.teardown(() => raw.ws.terminate());
    const response = await raw.hello();
    if (response['type'] !== 'hello-response') t.fail(`session ${n} was refused`);
  }
  t.match(await control.hello(), { type: 'error', code: 'too-many' });
});

t.test('close says goodbye to everybody and ends every timer', async (t) => {
  const { control, tunnel, server, diary, timers, url } = await startActive();
  await server.close('going home');
  t.match(await control.next(), { type: 'goodbye', reason: 'going home' });
  await Promise.all([control.closed, tunnel.closed]);
  t.equal(diary.lines.at(-1), 'closed raw: going home');
  t.equal(timers.running, 0);
  await new Raw(url).closed;
});

t.test('the session of a frozen peer is suspended by its silence', async (t) => {
  const timers = new FakeTimers();
  const end = await startServer({ timers });
  t.teardown(() => end.server.close());
  const proxy = await startTcpProxy(end.port);
  t.teardown(() => proxy.close());
  const { client } = startClient(`ws://127.0.0.1:${proxy.port}`);
  t.teardown(() => client.close());
  await end.diary.until('active');
  proxy.freeze();
  timers.advance(12_000);
  t.equal(end.diary.lines.at(-1), 'suspended ctl1');
});
