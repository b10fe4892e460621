/** src/control/forwarder-link.ts with a forwarder that can be cut off, held up and made to refuse. */
import { constants } from 'node:os';
import t from 'tap';
import { FwdfsError } from '../../src/base/errors.js';
import { ANY_PROTOCOL, parseProtocolAddress } from '../../src/packet/protocol-address.js';
import { parseSymbolName } from '../../src/packet/symbol-name.js';
import { confirm } from '../support/fake-messages.js';
import { ATTRIBUTES, eventually, FakeForwarder, startLink, startPair } from '../support/fake-forwarder.js';

const { ENETDOWN } = constants.errno;
const eth0 = parseSymbolName('eth0');
const rip = parseSymbolName('eth0:udp:520');

/** 'ok', or the code that an open fails with. */
function codeOf(open: Promise<unknown>): Promise<string> {
  return open.then(
    () => 'ok',
    (error: unknown) => (error instanceof FwdfsError ? error.code : String(error)),
  );
}

const frame = (text: string): Buffer => Buffer.concat([Buffer.from(text), Buffer.alloc(60 - text.length)]);

t.test('registration: the interface is used first, then its tunnel is generated; no rule before an open', async (t) => {
  const { link, forwarder, reception, transmission } = await startPair(t);
  t.same(forwarder.diary.lines, [
    'active resumed=false',
    'interface-use-request eth0',
    'tunnel-generation-request eth0 *',
  ]);
  t.same(link.interfaces.get('eth0')?.attributes, ATTRIBUTES);
  t.same(transmission.rows(), [['fwd1/eth0', '1', 'fwd1', 'eth0', '0', '0']]);
  t.same(reception.rows(), []);
  const tunnel = await link.acquireUp(rip);
  t.same([...forwarder.rules.values()], ['eth0:udp:520'], 'it is there when the open returns');
  t.same(reception.rows(), [['1', 'fwd1/eth0:udp:520', 'udp:520', 'in', 'active', '0', '0', '0', 'copy']]);
  link.releaseUp(tunnel);
  await forwarder.diary.until('transfer-deletion-request eth0:udp:520');
  t.same(reception.rows(), []);
});

t.test('an interface that may not be used is there, without attributes and without a tunnel', async (t) => {
  const forwarder = await FakeForwarder.start(t);
  forwarder.refusals.set('interface-use-request', 'not-permitted');
  const { link } = startLink(t, forwarder.url);
  await link.settled;
  t.match(link.interfaceOf('eth0'), { attributes: null, spare: null });
  t.same([...forwarder.tunnels], []);
  t.throws(() => link.interfaceOf('eth9'), { code: 'no-such-interface' });
});

t.test('without the right to write no tunnel is made at registration', async (t) => {
  const forwarder = await FakeForwarder.start(t);
  forwarder.rights = ['read'];
  const { link } = startLink(t, forwarder.url);
  await link.settled;
  t.same([...forwarder.tunnels], []);
  t.same(link.interfaceOf('eth0').rights, new Set(['read']));
});

t.test('a forwarder that cannot be reached settles, and opens fail with not-connected', async (t) => {
  const { link } = startLink(t, 'ws://127.0.0.1:1');
  await link.settled;
  t.equal(await codeOf(link.acquireUp(eth0)), 'not-connected');
  t.equal(await codeOf(link.acquireDown('eth0', 'eth0', ANY_PROTOCOL)), 'not-connected');
});

t.test('opens of one rule share it, whatever their timing; the last to go takes it back', async (t) => {
  const { link, forwarder } = await startPair(t);
  const release = forwarder.hold('transfer-request');
  const opens = [link.acquireUp(rip), link.acquireUp(parseSymbolName('eth0:UDP:520:raw'))];
  const other = link.acquireUp(parseSymbolName('eth0:udp:520:out'));
  await forwarder.diary.until('transfer-request eth0:udp:520:out');
  release();
  const [one, two] = await Promise.all(opens);
  const three = await link.acquireUp(rip);
  t.ok(one === two && two === three && (await other) !== one);
  t.equal(forwarder.rules.size, 2);
  link.releaseUp(one!);
  link.releaseUp(one!);
  await link.tables.read('distribution');
  t.equal(forwarder.rules.size, 2);
  link.releaseUp(one!);
  await forwarder.diary.until('transfer-deletion-request eth0:udp:520');
  t.same([...forwarder.rules.values()], ['eth0:udp:520:out']);
});

t.test('an open that the forwarder refuses leaves nothing behind, for all who shared it', async (t) => {
  const { link, forwarder, reception } = await startPair(t);
  forwarder.refusals.set('transfer-request', 'not-permitted');
  const release = forwarder.hold('transfer-request');
  const opens = [link.acquireUp(rip), link.acquireUp(rip)].map(codeOf);
  release();
  t.same(await Promise.all(opens), ['not-permitted', 'not-permitted']);
  t.same(reception.rows(), []);
  forwarder.refusals.clear();
  const tunnel = await link.acquireUp(rip);
  t.equal(tunnel.holders, 1, 'the next one asks again');
  forwarder.refusals.set('tunnel-generation-request', 'too-many');
  const { tunnels } = forwarder;
  t.equal(await codeOf(link.acquireDown('eth0', 'eth0:udp:520', rip.protocol)), 'too-many');
  t.equal(tunnels.size, 1, "the symbol's own");
});

t.test('a rule that was released while not connected is deleted when the session resumes', async (t) => {
  const { link, forwarder } = await startPair(t);
  const [gone, kept] = [await link.acquireUp(rip), await link.acquireUp(eth0)];
  const seen = forwarder.diary.lines.length;
  forwarder.cut();
  await eventually(() => !link.isConnected);
  t.notOk(kept.active, 'suspended');
  link.releaseUp(gone);
  await forwarder.diary.until('transfer-deletion-request eth0:udp:520', seen);
  t.same([...forwarder.rules.values()], ['eth0']);
  t.ok(kept.active, 'and the other one goes on');
  t.notOk(forwarder.diary.lines.slice(seen).some((line) => line.startsWith('transfer-request')));
});

t.test('a rule whose answer was lost with the connection fails its open and does not stay', async (t) => {
  const { link, forwarder, reception } = await startPair(t);
  forwarder.hold('transfer-request');
  const seen = forwarder.diary.lines.length;
  const open = codeOf(link.acquireUp(rip));
  await forwarder.diary.until('transfer-request');
  forwarder.holds.clear();
  forwarder.cut();
  t.equal(await open, 'not-connected');
  t.same(reception.rows(), []);
  await forwarder.diary.until('transfer-deletion-request eth0:udp:520', seen);
  t.equal(forwarder.rules.size, 0);
});

t.test('a new session gets every rule that is held, under a new id, and nothing that is not', async (t) => {
  const { link, forwarder, reception } = await startPair(t);
  const [kept, gone] = [await link.acquireUp(rip), await link.acquireUp(eth0)];
  const before = kept.id;
  forwarder.cutAndForget();
  await eventually(() => !link.isConnected);
  link.releaseUp(gone);
  await eventually(() => kept.active);
  t.same([...forwarder.rules], [[kept.id, 'eth0:udp:520']]);
  t.ok(kept.id > before);
  t.same(
    reception.rows().map(([id]) => id),
    [String(kept.id)],
  );
  t.equal(reception.get(before), undefined);
});

t.test('an open while a rule is being restored waits for it', async (t) => {
  const { link, forwarder } = await startPair(t);
  const tunnel = await link.acquireUp(rip);
  const release = forwarder.hold('transfer-request');
  forwarder.cutAndForget();
  await forwarder.diary.until('transfer-request', forwarder.diary.lines.length);
  let opened = false;
  const open = link.acquireUp(rip).then((found) => {
    opened = true;
    return found;
  });
  await link.tables.read('distribution');
  t.notOk(opened || tunnel.active);
  release();
  t.equal(await open, tunnel);
  t.ok(tunnel.active);
  t.equal(forwarder.rules.size, 1);
});

t.test('a rule that is released while it is being restored is deleted', async (t) => {
  const { link, forwarder, reception } = await startPair(t);
  const tunnel = await link.acquireUp(rip);
  const release = forwarder.hold('transfer-request');
  const seen = forwarder.diary.lines.length;
  forwarder.cutAndForget();
  await forwarder.diary.until('transfer-request', seen);
  link.releaseUp(tunnel);
  release();
  await forwarder.diary.until('transfer-deletion-request eth0:udp:520', seen);
  t.equal(forwarder.rules.size, 0);
  t.same(reception.rows(), []);
  t.notOk(tunnel.active);
});

t.test('a connection that is lost again while a rule is being restored does not lose the rule', async (t) => {
  const { link, forwarder } = await startPair(t);
  const tunnel = await link.acquireUp(rip);
  forwarder.hold('transfer-request');
  let seen = forwarder.diary.lines.length;
  forwarder.cutAndForget();
  await forwarder.diary.until('transfer-request', seen);
  const lost = tunnel.id;
  forwarder.holds.clear();
  seen = forwarder.diary.lines.length;
  forwarder.cut();
  await forwarder.diary.until('active resumed=true', seen);
  await eventually(() => tunnel.active && !forwarder.rules.has(lost));
  t.same([...forwarder.rules], [[tunnel.id, 'eth0:udp:520']], 'once');
});

t.test('a rule that could not be restored comes back with its interface', async (t) => {
  const { link, forwarder, log } = await startPair(t);
  const tunnel = await link.acquireUp(rip);
  forwarder.interfaces = [];
  forwarder.refusals.set('transfer-request', 'no-such-interface');
  forwarder.cutAndForget();
  await forwarder.diary.until('transfer-request refused');
  await eventually(() => log.lines.some(({ message }) => message === 'not restored'));
  t.notOk(tunnel.active);
  forwarder.refusals.clear();
  forwarder.sendInterfaces('eth0');
  await eventually(() => tunnel.active);
  t.same([...forwarder.rules], [[tunnel.id, 'eth0:udp:520']]);
});

t.test('rights that a new session does not give any more are not shown any more', async (t) => {
  const { link, forwarder } = await startPair(t);
  forwarder.refusals.set('interface-use-request', 'not-permitted');
  forwarder.cutAndForget();
  await eventually(() => link.interfaces.get('eth0')?.attributes === null);
  t.same(link.interfaces.get('eth0')?.rights, new Set());
});

t.test("rights that change are asked for again, and the symbol's own tunnel with them", async (t) => {
  const { link, forwarder, transmission } = await startPair(t);
  const kept = link.interfaceOf('eth0').spare;
  forwarder.sendAgain();
  await forwarder.diary.count('interface-use-request eth0', 2);
  await link.tables.read('distribution');
  t.equal(link.interfaceOf('eth0').spare, kept, 'the same rights: the same tunnel');
  const writer = await link.acquireDown('eth0', 'eth0', ANY_PROTOCOL);
  forwarder.rights = ['read'];
  forwarder.sendAgain();
  await eventually(() => !link.interfaceOf('eth0').rights.has('inject'));
  link.releaseDown(writer);
  await forwarder.diary.until('close eth0');
  t.equal(link.interfaceOf('eth0').spare, null, 'it does not wait for the next writer, who would not be asked about');
  await eventually(() => transmission.rows().length === 0);
  forwarder.rights = ['read', 'write'];
  forwarder.sendAgain();
  await eventually(() => link.interfaceOf('eth0').spare !== null);
  forwarder.refusals.set('interface-use-request', 'not-permitted');
  forwarder.sendAgain();
  await eventually(() => link.interfaceOf('eth0').rights.size === 0);
  t.same([link.interfaceOf('eth0').spare, transmission.rows()], [null, []]);
  await eventually(() => forwarder.tunnels.size === 0);
});

t.test("a writer gets the symbol's tunnel without asking, the next one another; it comes back", async (t) => {
  const { link, forwarder, transmission } = await startPair(t);
  const asked = (): number => forwarder.diary.lines.filter((line) => line.startsWith('tunnel-gen')).length;
  const one = await link.acquireDown('eth0', 'eth0', ANY_PROTOCOL);
  t.equal(asked(), 1);
  const two = await link.acquireDown('eth0', 'eth0:raw', ANY_PROTOCOL);
  const three = await link.acquireDown('eth0', 'eth0:udp:520', parseProtocolAddress('udp:520'));
  t.equal(asked(), 3);
  t.equal(new Set([one.id, two.id, three.id]).size, 3);
  link.releaseDown(one);
  t.equal(await link.acquireDown('eth0', 'eth0', ANY_PROTOCOL), one);
  t.equal(asked(), 3);
  link.releaseDown(two);
  link.releaseDown(three);
  await forwarder.diary.count('close', 2);
  t.equal(transmission.rows().length, 1);
  t.equal(forwarder.tunnels.size, 1);
});

t.test('a tunnel is closed behind its data, and known until all of it is confirmed', async (t) => {
  const { link, forwarder, transmission } = await startPair(t);
  forwarder.confirms = false;
  const tunnel = await link.acquireDown('eth0', 'eth0:udp:520', rip.protocol);
  tunnel.send(frame('last'), 0, 60);
  link.releaseDown(tunnel);
  await forwarder.diary.until('close eth0:udp:520');
  t.same(forwarder.frames, ['last']);
  t.equal(transmission.rows().length, 2);
  forwarder.sendFrames(confirm(tunnel.id, 1));
  await eventually(() => transmission.rows().length === 1);
});

t.test("what a killed writer left in the symbol's tunnel is confirmed before the next writer has it", async (t) => {
  const { link, forwarder, transmission } = await startPair(t);
  forwarder.confirms = false;
  const tunnel = await link.acquireDown('eth0', 'eth0', ANY_PROTOCOL);
  tunnel.send(frame('last'), 0, 60);
  tunnel.flush();
  link.releaseDown(tunnel);
  const other = await link.acquireDown('eth0', 'eth0', ANY_PROTOCOL);
  t.not(other, tunnel);
  forwarder.sendFrames(confirm(tunnel.id, 1));
  await eventually(() => tunnel.isDrained);
  t.equal(await link.acquireDown('eth0', 'eth0', ANY_PROTOCOL), tunnel);
  t.same(forwarder.frames, ['last']);
  link.releaseDown(tunnel);
  link.releaseDown(other);
  await eventually(() => transmission.rows().length === 1);
});

t.test('frames written but not confirmed arrive exactly once after a resume', async (t) => {
  const { link, forwarder } = await startPair(t);
  forwarder.confirms = false;
  const tunnel = await link.acquireDown('eth0', 'eth0', ANY_PROTOCOL);
  for (const text of ['a', 'b']) tunnel.send(frame(text), 0, 60);
  tunnel.flush();
  await forwarder.diary.until('frame b');
  forwarder.cut();
  await eventually(() => !link.isConnected);
  for (const text of ['c', 'd']) tunnel.send(frame(text), 0, 60);
  const barrier = tunnel.sync();
  forwarder.confirms = true;
  await barrier;
  t.same(forwarder.frames, ['a', 'b', 'c', 'd']);
});

t.test('a new session fails the barriers for what was not confirmed, and the writer goes on', async (t) => {
  const { link, forwarder } = await startPair(t);
  forwarder.confirms = false;
  const tunnel = await link.acquireDown('eth0', 'eth0', ANY_PROTOCOL);
  tunnel.send(frame('a'), 0, 60);
  const barrier = codeOf(tunnel.sync());
  await forwarder.diary.until('frame a');
  forwarder.cutAndForget();
  t.equal(await barrier, 'not-sent');
  t.match(link.state.lastError, /^eth0: /);
  forwarder.confirms = true;
  await eventually(() => tunnel.hasAnyCredit);
  tunnel.send(frame('b'), 0, 60);
  await tunnel.sync();
  t.same(forwarder.frames, ['a', 'b']);
});

t.test('a barrier fails when the connection stays away for longer than the resume time', async (t) => {
  const { link, forwarder } = await startPair(t, 50);
  forwarder.confirms = false;
  const tunnel = await link.acquireDown('eth0', 'eth0', ANY_PROTOCOL);
  tunnel.send(frame('a'), 0, 60);
  const barrier = codeOf(tunnel.sync());
  await forwarder.diary.until('frame a');
  await forwarder.goAway();
  t.equal(await barrier, 'not-sent');
  t.notOk(link.isConnected);
  t.notOk(tunnel.hasAnyCredit, 'a writer waits');
});

t.test('a tunnel whose answer was lost with the connection does not stay at the forwarder', async (t) => {
  const { link, forwarder } = await startPair(t);
  forwarder.hold('tunnel-generation-request');
  const seen = forwarder.diary.lines.length;
  const open = codeOf(link.acquireDown('eth0', 'eth0:udp:520', rip.protocol));
  await forwarder.diary.until('tunnel-generation-request', seen);
  forwarder.holds.clear();
  forwarder.cut();
  t.equal(await open, 'not-connected');
  await forwarder.diary.until('tunnel-deletion-request eth0:udp:520', seen);
  t.same(
    [...forwarder.tunnels.values()].map(({ symbol }) => symbol),
    ['eth0'],
  );
});

t.test('a writer that goes while its tunnel is being restored leaves none behind', async (t) => {
  const { link, forwarder, transmission } = await startPair(t);
  const tunnel = await link.acquireDown('eth0', 'eth0:udp:520', rip.protocol);
  const release = forwarder.hold('tunnel-generation-request');
  const seen = forwarder.diary.lines.length;
  forwarder.cutAndForget();
  await forwarder.diary.until('tunnel-generation-request eth0:udp:520', seen);
  link.releaseDown(tunnel);
  release();
  await forwarder.diary.until('tunnel-deletion-request eth0:udp:520', seen);
  await eventually(() => transmission.rows().length === 1);
  t.same(transmission.rows()[0]?.[0], 'fwd1/eth0', "only the symbol's own");
});

t.test('a tunnel whose restoring was lost with the connection is restored when the session resumes', async (t) => {
  const { link, forwarder } = await startPair(t);
  const tunnel = await link.acquireDown('eth0', 'eth0:udp:520', rip.protocol);
  forwarder.hold('tunnel-generation-request');
  const seen = forwarder.diary.lines.length;
  forwarder.cutAndForget();
  await forwarder.diary.until('tunnel-generation-request eth0:udp:520', seen);
  forwarder.holds.clear();
  forwarder.cut();
  await eventually(() => tunnel.hasAnyCredit);
  tunnel.send(frame('a'), 0, 60);
  await tunnel.sync();
  const symbols = (): string[] => [...forwarder.tunnels.values()].map(({ symbol }) => symbol).sort();
  await eventually(() => symbols().join() === 'eth0,eth0:udp:520');
  t.equal(tunnel.frames, 1);
});

t.test('a closed tunnel that ended at the forwarder while the connection was gone is no failure', async (t) => {
  const { link, forwarder, transmission } = await startPair(t);
  forwarder.confirms = false;
  const tunnel = await link.acquireDown('eth0', 'eth0:udp:520', rip.protocol);
  tunnel.send(frame('last'), 0, 60);
  link.releaseDown(tunnel);
  await forwarder.diary.until('close eth0:udp:520');
  forwarder.cut();
  await eventually(() => transmission.rows().length === 1);
  await eventually(() => link.isConnected);
  t.equal(link.state.lastError.includes('eth0:udp:520'), false);
});

t.test('an interface that goes takes its spare tunnel along, and comes back with another', async (t) => {
  const { link, forwarder, transmission } = await startPair(t);
  const rule = await link.acquireUp(rip);
  forwarder.sendInterfaces();
  await forwarder.diary.until('close eth0');
  t.throws(() => link.interfaceOf('eth0'), { code: 'no-such-interface' });
  t.same(transmission.rows(), []);
  t.ok(rule.active, 'a rule outlives it');
  forwarder.sendInterfaces('eth0');
  await eventually(() => transmission.rows().length === 1);
  t.ok(link.interfaceOf('eth0').spare !== null);
});

t.test('an interface that goes while its tunnel is being generated leaves none behind', async (t) => {
  const forwarder = await FakeForwarder.start(t);
  const release = forwarder.hold('tunnel-generation-request');
  const { link, transmission } = startLink(t, forwarder.url);
  await forwarder.diary.until('tunnel-generation-request');
  forwarder.sendInterfaces('eth1');
  await eventually(() => link.interfaces.has('eth1'));
  release();
  await forwarder.diary.until('close eth0');
  await eventually(() => transmission.rows().length === 1);
  t.same(transmission.rows()[0]?.[0], 'fwd1/eth1');
  t.same(
    [...forwarder.tunnels.values()].map(({ symbol }) => symbol),
    ['eth1'],
  );
});

t.test('a list that comes again asks for nothing that is known', async (t) => {
  const { link, forwarder } = await startPair(t);
  const taken = await link.acquireDown('eth0', 'eth0', ANY_PROTOCOL);
  forwarder.sendInterfaces('eth0');
  forwarder.sendInterfaces('eth0');
  await link.tables.read('distribution');
  t.equal(forwarder.tunnels.size, 1, "the writer's alone");
  link.releaseDown(taken);
  const again = await link.acquireDown('eth0', 'eth0', ANY_PROTOCOL);
  t.equal(again, taken, 'it went back to its symbol');
});

t.test(
  'an interface of another link type: its writers can go no further, and the next one gets a new tunnel',
  async (t) => {
    const { link, forwarder } = await startPair(t);
    const taken = await link.acquireDown('eth0', 'eth0', ANY_PROTOCOL);
    let wakes = 0;
    taken.wake = () => (wakes += 1);
    forwarder.sendLinkType(1);
    await link.tables.read('distribution');
    t.same([taken.ended, wakes], [0, 0], 'the same one changes nothing');
    forwarder.sendLinkType(101);
    await eventually(() => wakes === 1);
    t.same([taken.ended, taken.linkType], [ENETDOWN, 1]);
    link.releaseDown(taken);
    await forwarder.diary.until('close eth0');
    const next = await link.acquireDown('eth0', 'eth0', ANY_PROTOCOL);
    t.same([next.ended, next.linkType], [0, 101]);
  },
);

t.test('an interface of another link type: the tunnel that no writer has goes', async (t) => {
  const { link, forwarder } = await startPair(t);
  forwarder.sendLinkType(101);
  await forwarder.diary.until('close eth0');
  t.equal(link.interfaceOf('eth0').spare, null);
});

t.test('a link that is closed says goodbye, ends its readers and empties its tables', async (t) => {
  const { link, forwarder, reception, transmission } = await startPair(t);
  forwarder.confirms = false;
  const rule = await link.acquireUp(rip);
  const tunnel = await link.acquireDown('eth0', 'eth0', ANY_PROTOCOL);
  tunnel.send(frame('a'), 0, 60);
  const barrier = codeOf(tunnel.sync());
  link.close('the forwarder was removed');
  t.equal(await barrier, 'not-sent');
  t.equal(link.state.lastError, 'the forwarder was removed');
  await forwarder.diary.until('closed');
  t.same(reception.rows(), []);
  link.releaseUp(rule);
  link.releaseDown(tunnel);
  t.same(transmission.rows(), []);
  t.equal(await codeOf(link.acquireUp(rip)), 'not-connected');
});
