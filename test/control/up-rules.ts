/** src/control/up-rules.ts: rules that the forwarder ends, and what their readers get. */
import { constants } from 'node:os';
import t from 'tap';
import { type ErrorCode, FwdfsError } from '../../src/base/errors.js';
import { commandsOf } from '../support/commands.js';
import { SymbolFile } from '../../src/control/symbol-file.js';
import type { OpenFile } from '../../src/fusefs/tree.js';
import { parseSymbolName } from '../../src/packet/symbol-name.js';
import { O } from '../../src/sys/libc.js';
import { eventually, type LinkEnd, startPair } from '../support/fake-forwarder.js';
import { dataUp } from '../support/fake-messages.js';

const { EACCES, EAGAIN, EBUSY, EIO, ENETDOWN } = constants.errno;
const rip = parseSymbolName('eth0:udp:520');

interface Reader {
  readonly file: OpenFile;
  wakes: number;
}

async function open({ link }: LinkEnd, name: string): Promise<Reader> {
  const use = { opened: () => undefined, closed: () => undefined };
  const reader = { wakes: 0 };
  const wake = (): void => void (reader.wakes += 1);
  const file = new SymbolFile(5, link, parseSymbolName(name), name, use);
  return Object.assign(reader, { file: await file.open({ flags: O.RDONLY, pid: 1, uid: 0, gid: 0, wake }) });
}

/** What so many reads give: a length, or minus an errno. */
const reads = ({ file }: Reader, count: number): number[] =>
  Array.from({ length: count }, () => file.read(Buffer.alloc(1000), 0, 1000, 0));

t.test(
  'a right that is withdrawn: what came before can be read, then EACCES once, then the end of the file',
  async (t) => {
    const pair = await startPair(t);
    const { forwarder, link, reception, log } = pair;
    const [one, two, other] = [
      await open(pair, 'eth0:raw'),
      await open(pair, 'eth0:hex'),
      await open(pair, 'eth0:arp:raw'),
    ];
    const [id = 0] = [...forwarder.rules.keys()];
    forwarder.sendFrames(dataUp(id, Buffer.alloc(60)));
    await eventually(() => one.wakes === 1);
    forwarder.rules.delete(id);
    forwarder.session.send('transfer-withdrawal', { upTunnel: id, reason: 'no more' });
    await eventually(() => one.wakes === 2);
    t.same(reads(one, 4), [60, -EACCES, 0, 0]);
    t.same(reads(two, 3), [121, -EACCES, 0]);
    t.same(reads(other, 1), [-EAGAIN], 'another rule goes on');
    t.equal(reception.get(id), undefined);
    t.match(link.state.lastError, /^eth0: no more: /);
    t.equal(log.lines.filter(({ message }) => message === 'a rule in use ended').length, 1);
    const seen = forwarder.diary.lines.length;
    const again = await open(pair, 'eth0:raw');
    t.ok(forwarder.diary.lines.slice(seen).includes('transfer-request eth0'), 'the next open asks');
    for (const { file } of [one, two, other, again]) file.release();
    await eventually(() => forwarder.rules.size === 0);
    t.same(reception.rows(), []);
  },
);

t.test('a withdrawal says by its code what readers get: ENETDOWN for an interface of another link type', async (t) => {
  const pair = await startPair(t);
  const { forwarder, link } = pair;
  const cases: [code: string, errno: number][] = [
    ['interface-gone', ENETDOWN],
    ['a code of a newer forwarder', EIO],
  ];
  for (const [code, errno] of cases) {
    const reader = await open(pair, 'eth0:raw');
    const [id = 0] = [...forwarder.rules.keys()];
    forwarder.rules.delete(id);
    forwarder.session.send('transfer-withdrawal', { upTunnel: id, reason: 'no more', code });
    await eventually(() => reader.wakes === 1);
    t.same(reads(reader, 3), [-errno, 0, 0], code);
    t.match(link.state.lastError, /^eth0: no more: /);
    reader.file.release();
  }
});

t.test('a rule is asked for with the link type that its readers have, also by a new session', async (t) => {
  const pair = await startPair(t);
  const { forwarder } = pair;
  const before = await open(pair, 'eth0:raw');
  forwarder.sendLinkType(101);
  await pair.link.tables.read('distribution');
  const after = await open(pair, 'eth0:arp:raw');
  t.same(forwarder.linkTypes, [1, 101]);
  forwarder.cutAndForget();
  await eventually(() => forwarder.linkTypes.length === 4);
  t.same(forwarder.linkTypes, [1, 101, 1, 101]);
  for (const { file } of [before, after]) file.release();
});

t.test('a withdrawal of a tunnel that nobody has, or that is another forwarder’s, is nothing', async (t) => {
  const pair = await startPair(t);
  const reader = await open(pair, 'eth0:raw');
  pair.forwarder.session.send('transfer-withdrawal', { upTunnel: 4711, reason: 'no more' });
  await pair.link.tables.read('distribution');
  t.same(reads(reader, 1), [-EAGAIN]);
  reader.file.release();
});

t.test('a withdrawal that comes with the answer fails the open', async (t) => {
  const pair = await startPair(t);
  const { forwarder, reception } = pair;
  const release = forwarder.hold('transfer-request');
  const opening = pair.link.acquireUp(rip);
  await forwarder.diary.until('transfer-request');
  const [id = 0] = [...forwarder.rules.keys()];
  forwarder.rules.delete(id);
  forwarder.session.send('transfer-withdrawal', { upTunnel: id, reason: 'no more' });
  release();
  await t.rejects(opening, { code: 'not-permitted' });
  t.same(reception.rows(), []);
  const tunnel = await pair.link.acquireUp(rip);
  t.ok(tunnel.active);
});

const refusals: [code: ErrorCode, errno: number][] = [
  ['not-permitted', EACCES],
  ['claimed', EBUSY],
  ['interface-gone', ENETDOWN],
];
for (const [code, errno] of refusals) {
  t.test(`a rule that a new session is refused (${code}) ends its readers, and the next open asks anew`, async (t) => {
    const pair = await startPair(t);
    const { forwarder } = pair;
    const reader = await open(pair, 'eth0:udp:53:raw:claim');
    forwarder.refusals.set('transfer-request', code);
    forwarder.cutAndForget();
    await eventually(() => reader.wakes === 1);
    t.same(reads(reader, 3), [-errno, 0, 0]);
    forwarder.refusals.clear();
    const next = await open(pair, 'eth0:udp:53:raw:claim');
    t.same(reads(next, 1), [-EAGAIN]);
    for (const { file } of [reader, next]) file.release();
  });
}

t.test('a rule that was withdrawn while the session was suspended is asked for when it resumes', async (t) => {
  const pair = await startPair(t);
  const { forwarder, link } = pair;
  const [gone, kept] = [await open(pair, 'eth0:raw'), await open(pair, 'eth0:arp:raw')];
  const [id = 0] = [...forwarder.rules.keys()];
  const seen = forwarder.diary.lines.length;
  forwarder.rules.delete(id);
  forwarder.refusals.set('transfer-request', 'not-permitted');
  forwarder.cut();
  await forwarder.diary.until('active resumed=true', seen);
  await eventually(() => gone.wakes === 1);
  t.same(reads(gone, 2), [-EACCES, 0]);
  t.same(reads(kept, 1), [-EAGAIN]);
  t.equal(link.isConnected, true);
  for (const { file } of [gone, kept]) file.release();
});

t.test('a rule by hand that the forwarder ended can be added again, or removed', async (t) => {
  const { link, forwarder } = await startPair(t);
  const commands = commandsOf(link);
  const withdraw = async (): Promise<void> => {
    const [id = 0] = [...forwarder.rules.keys()];
    forwarder.rules.delete(id);
    forwarder.session.send('transfer-withdrawal', { upTunnel: id, reason: 'no more' });
    await link.tables.read('distribution');
  };
  await commands.run('rule add eth0');
  await withdraw();
  await commands.run('rule add eth0');
  t.same([...forwarder.rules.values()], ['eth0']);
  await withdraw();
  await commands.run('rule remove eth0');
  await t.rejects(commands.run('rule remove eth0'), { code: 'no-such-name' });
});

t.test('of two who claim one name here the second is told at once, without the forwarder', async (t) => {
  const { link, forwarder } = await startPair(t);
  const release = forwarder.hold('transfer-request');
  const first = link.acquireUp(parseSymbolName('eth0:udp:53:claim'));
  const second = link.acquireUp(parseSymbolName('eth0:udp:53:claim'));
  await t.rejects(second, { code: 'claimed', what: 'fwd1/eth0:udp:53:claim is open here already' });
  release();
  const tunnel = await first;
  t.equal(tunnel.holders, 1);
  t.equal(forwarder.rules.size, 1);
  t.ok(new FwdfsError('claimed', '').errno === EBUSY);
});
