/** Requests, answers, order, malformed messages and silence on one /control channel. */
import { Packr } from 'msgpackr';
import t from 'tap';
import { FwdfsError } from '../../src/base/errors.js';
import { KEEPALIVE_INTERVAL_MS, KEEPALIVE_TIMEOUT_MS, REQUEST_TIMEOUT_MS } from '../../src/base/limits.js';
import { ControlChannel } from '../../src/tunnel/control-channel.js';
import type { Answer, MessageArgs } from '../../src/tunnel/messages.js';
import { FakeSocket } from '../support/fake-socket.js';
import { FakeTimers } from '../support/fake-timers.js';
import { keepLog } from '../support/log.js';

const packr = new Packr({ useRecords: false, variableMapSize: true });
const pack = (value: unknown): Buffer => Buffer.from(packr.pack(value));
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function pair() {
  const [controlSocket, forwarderSocket] = FakeSocket.pair();
  const timers = new FakeTimers();
  const log = keepLog();
  const control = new ControlChannel(controlSocket, { side: 'control', log, timers });
  const forwarder = new ControlChannel(forwarderSocket, { side: 'forwarder', log, timers });
  return { control, forwarder, controlSocket, forwarderSocket, timers, log };
}

/** A handler that answers nothing but transfer-request. */
const answerTransfers = (...[type, fields]: MessageArgs): Answer =>
  type === 'transfer-request' ? { upTunnel: fields.upTunnel } : undefined;

const transfer = (upTunnel: number) => ({
  upTunnel,
  control: '',
  protocol: '*',
  symbol: 'eth0',
  interface: 'eth0',
  scope: 'in' as const,
  claim: false,
  credit: 1,
});

t.test('a request resolves with the fields of its answer', async (t) => {
  const { control, forwarder } = pair();
  forwarder.onMessage(answerTransfers);
  t.same(await control.request('transfer-request', transfer(7)), { upTunnel: 7 });
});

t.test('answers may come out of order, handlers start in the order of arrival', async (t) => {
  const { control, forwarder } = pair();
  const started: number[] = [];
  const finish: (() => void)[] = [];
  forwarder.onMessage((...[type, fields]) => {
    if (type !== 'transfer-request') return undefined;
    started.push(fields.upTunnel);
    return new Promise<Answer>((resolve) => finish.push(() => resolve({ upTunnel: fields.upTunnel })));
  });
  const answered: number[] = [];
  const requests = [1, 2, 3].map((n) =>
    control.request('transfer-request', transfer(n)).then(({ upTunnel }) => answered.push(upTunnel)),
  );
  while (finish.length < 3) await turn();
  t.same(started, [1, 2, 3]);
  for (const index of [2, 0, 1]) {
    finish[index]?.();
    await turn();
    await turn();
  }
  await Promise.all(requests);
  t.same(answered, [3, 1, 2]);
});

t.test('what arrives before there is a handler is kept for it, in order', async (t) => {
  const { control, forwarder } = pair();
  control.send('goodbye', { reason: 'one' });
  const answer = control.request('transfer-request', transfer(1));
  await turn();
  await turn();
  const seen: string[] = [];
  forwarder.onMessage((...message) => {
    seen.push(message[0]);
    return answerTransfers(...message);
  });
  await answer;
  t.same(seen, ['goodbye', 'transfer-request']);
});

t.test('a FwdfsError of the handler, thrown or rejected, arrives with its code and its text', async (t) => {
  const { control, forwarder } = pair();
  const refusal = new FwdfsError('not-permitted', 'ctl1 may not read eth0');
  forwarder.onMessage((...[type]) => {
    if (type === 'transfer-request') throw refusal;
    return Promise.reject(refusal);
  });
  await t.rejects(control.request('transfer-request', transfer(1)), { code: 'not-permitted', what: refusal.what });
  await t.rejects(control.request('interface-use-request', { interface: 'eth0' }), { code: 'not-permitted' });
});

t.test('anything else that is thrown arrives as internal and is logged', async (t) => {
  const { control, forwarder, log } = pair();
  forwarder.onMessage((...[type]) => {
    if (type === 'transfer-request') throw new TypeError('oops');
    return Promise.reject(new RangeError('dear me'));
  });
  await t.rejects(control.request('transfer-request', transfer(1)), { code: 'internal', what: 'oops' });
  await t.rejects(control.request('table-request', { table: 'x' }), { code: 'internal', what: 'dear me' });
  t.equal(log.lines.filter(({ level }) => level === 'error').length, 2);
  t.ok(forwarder.isOpen);
});

t.test('an answer that is not that of the table is internal, and the channel stays', async (t) => {
  const { control, forwarder } = pair();
  forwarder.onMessage(() => ({ upTunnel: -5 }));
  await t.rejects(control.request('transfer-request', transfer(1)), { code: 'internal' });
  forwarder.onMessage(async () => ({ reason: 'wrong type' }));
  await t.rejects(control.request('transfer-request', transfer(1)), { code: 'internal' });
  t.ok(control.isOpen && forwarder.isOpen);
});

t.test('an error code of a newer version counts as internal', async (t) => {
  const { control, controlSocket } = pair();
  const answer = control.request('transfer-request', transfer(1));
  controlSocket.arrive(pack({ type: 'error', re: 1, code: 'out-of-plutonium', text: 'none left' }));
  await t.rejects(answer, { code: 'internal', what: 'none left' });
});

t.test('a message that the other side does not know is answered with unknown-message', async (t) => {
  const { control, forwarder, forwarderSocket, controlSocket } = pair();
  forwarder.onMessage(answerTransfers);
  await t.rejects(
    control.request('table-request', { table: 'x' }),
    { code: 'unknown-message' },
    'the handler gave undefined',
  );
  const sent: unknown[] = [];
  const arrive = controlSocket.arrive.bind(controlSocket);
  controlSocket.arrive = (data, binary) => {
    sent.push(packr.unpack(data));
    arrive(data, binary);
  };
  forwarderSocket.arrive(pack({ type: 'teleport', id: 9 }));
  forwarderSocket.arrive(pack({ type: 'teleport' }));
  forwarderSocket.arrive(pack({ type: 'hello-response', id: 10 }), true);
  await turn();
  await turn();
  t.match(sent.slice(0, 2), [
    { type: 'error', re: 9, code: 'unknown-message' },
    { type: 'error', code: 'unknown-message' },
  ]);
});

t.test('a message in the wrong direction is refused, and never reaches the handler', async (t) => {
  const { control, forwarder } = pair();
  const seen: string[] = [];
  control.onMessage((...[type]) => void seen.push(type));
  await t.rejects(forwarder.request('transfer-request', transfer(1)), { code: 'unknown-message' });
  t.same(seen, []);
});

t.test('malformed messages close the channel with a logged reason, and fail what is pending', async (t) => {
  for (const [name, data, binary] of [
    ['not msgpack', Buffer.from([0xc1]), true],
    ['a field missing', pack({ type: 'transfer-response' }), true],
    ['text', Buffer.from('hello'), false],
  ] as const) {
    const { control, controlSocket, log } = pair();
    const reasons: string[] = [];
    control.onClose((reason) => reasons.push(reason));
    const pending = control.request('transfer-request', transfer(1));
    controlSocket.arrive(data, binary);
    await t.rejects(pending, { code: 'not-connected' }, name);
    t.equal(reasons.length, 1);
    t.match(log.lines, [{ level: 'warn', message: /malformed/, fields: { reason: reasons[0] } }]);
    t.equal(controlSocket.closedWith?.code, 1002);
    t.notOk(control.send('goodbye', { reason: '' }), 'nothing is sent any more');
    await t.rejects(control.request('transfer-request', transfer(1)), { code: 'not-connected' });
    controlSocket.arrive(pack({ type: 'goodbye', reason: '' }));
  }
});

t.test('something else than the answer fails the request, not the channel', async (t) => {
  const { control, controlSocket } = pair();
  const first = control.request('transfer-request', transfer(1));
  controlSocket.arrive(pack({ type: 'tunnel-deletion-response', re: 1, downTunnel: 1 }));
  await t.rejects(first, { code: 'bad-message' });
  const second = control.request('transfer-request', transfer(1));
  controlSocket.arrive(pack({ type: 'teleported', re: 2 }));
  await t.rejects(second, { code: 'bad-message' });
  t.ok(control.isOpen);
});

t.test('a request that is not answered times out, and its late answer is ignored', async (t) => {
  const { control, controlSocket, timers } = pair();
  const request = control.request('transfer-request', transfer(1));
  const short = control.request('transfer-request', transfer(2), 5);
  timers.advance(5);
  await t.rejects(short, { code: 'timed-out' });
  controlSocket.bytesReceived += 1;
  timers.advance(REQUEST_TIMEOUT_MS - 5);
  await t.rejects(request, { code: 'timed-out' });
  controlSocket.arrive(pack({ type: 'transfer-response', re: 1, upTunnel: 1 }));
  t.ok(control.isOpen);
});

t.test('closing fails what is pending, tells once, stops all timers and delivers nothing any more', async (t) => {
  const { control, forwarder, timers } = pair();
  const reasons: string[] = [];
  const seen: string[] = [];
  control.onClose((reason) => reasons.push(`control: ${reason}`));
  forwarder.onClose((reason) => reasons.push(`forwarder: ${reason}`));
  forwarder.onMessage((...[type]) => void seen.push(type));
  const pending = control.request('transfer-request', transfer(1));
  control.send('goodbye', { reason: 'bye' });
  control.close('that was it');
  control.close('again');
  await t.rejects(pending, { code: 'not-connected', what: /that was it/ });
  while (forwarder.isOpen) await turn();
  t.same(reasons, ['control: that was it', 'forwarder: that was it']);
  t.same(seen, ['transfer-request', 'goodbye'], 'what was sent before the close arrived');
  t.equal(timers.running, 0);
});

t.test('a channel from which nothing comes is closed after the keep-alive timeout, not before', async (t) => {
  const { control, controlSocket, forwarderSocket, timers } = pair();
  await turn();
  forwarderSocket.frozen = true;
  controlSocket.frozen = true;
  let reason = '';
  control.onClose((why) => (reason = why));
  timers.advance(KEEPALIVE_TIMEOUT_MS);
  t.ok(control.isOpen, 'the first second still saw the last bytes');
  timers.advance(1000);
  t.match(reason, /nothing was heard/);
});

t.test('bytes that arrive keep a channel open, and pings go out at their interval', async (t) => {
  const { control, controlSocket, timers } = pair();
  for (let second = 0; second < 30; second += 1) {
    await turn();
    timers.advance(1000);
  }
  t.ok(control.isOpen);
  t.equal(controlSocket.pings, 1 + 30_000 / KEEPALIVE_INTERVAL_MS);
});

t.test('the round-trip time is measured and smoothed', async (t) => {
  const { control, timers } = pair();
  t.equal(control.roundTripMs, 0, 'not measured yet');
  timers.advance(8);
  await turn();
  t.equal(control.roundTripMs, 8);
  timers.advance(KEEPALIVE_INTERVAL_MS);
  timers.advance(8);
  await turn();
  t.ok(control.roundTripMs >= 8 && control.roundTripMs < 16, String(control.roundTripMs));
});
