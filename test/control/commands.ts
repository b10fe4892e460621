/** src/control/commands.ts: lines written to `.ctl`. */
import t from 'tap';
import { commandsOf } from '../support/commands.js';
import { eventually, startPair } from '../support/fake-forwarder.js';

t.test('a rule that was set by hand stays until it is removed by hand, also with files that come and go', async (t) => {
  const { link, forwarder, reception } = await startPair(t);
  const commands = commandsOf(link);
  await commands.run('rule add eth0:UDP:520');
  t.same([...forwarder.rules.values()], ['eth0:udp:520']);
  const file = await link.acquireUp({ ...reception.get(1)!.key });
  link.releaseUp(file);
  await link.tables.read('distribution');
  t.equal(forwarder.rules.size, 1);
  await commands.run('  rule   remove eth0:udp:520 ');
  await eventually(() => forwarder.rules.size === 0);
  t.same(reception.rows(), []);
});

t.test('an empty line is no command', async (t) => {
  const { link, forwarder } = await startPair(t);
  for (const line of ['', '   ']) await commandsOf(link).run(line);
  t.equal(forwarder.rules.size, 0);
});

t.test('what is no command, no name, there already or not there fails with its code', async (t) => {
  const { link, forwarder } = await startPair(t);
  const commands = commandsOf(link);
  await commands.run('rule add eth0');
  const cases: [line: string, code: string][] = [
    ['rule', 'bad-command'],
    ['rule add', 'bad-command'],
    ['rule add eth0 eth1', 'bad-command'],
    ['rules add eth0', 'bad-command'],
    ['rule delete eth0', 'bad-command'],
    ['rule add eth0:udp:99999', 'bad-protocol-address'],
    ['rule add eth0:blue', 'bad-symbol-name'],
    ['rule add eth0:raw', 'bad-command'],
    ['rule add eth0:udp:520:claim', 'bad-command'],
    ['rule add eth9', 'no-such-interface'],
    ['rule add eth0', 'already-there'],
    ['rule add eth0:*', 'already-there'],
    ['rule remove eth0:udp:520', 'no-such-name'],
  ];
  for (const [line, code] of cases) await t.rejects(commands.run(line), { code }, line);
  t.same([...forwarder.rules.values()], ['eth0']);
});

t.test('two that add one rule at the same time: one does, and removing it once is enough', async (t) => {
  const { link, forwarder } = await startPair(t);
  const commands = commandsOf(link);
  const release = forwarder.hold('transfer-request');
  const first = commands.run('rule add eth0');
  await t.rejects(commands.run('rule add eth0'), { code: 'already-there' });
  const removed = commands.run('rule remove eth0');
  release();
  await Promise.all([first, removed]);
  await eventually(() => forwarder.rules.size === 0);
  await commands.run('rule add eth0');
  t.equal(forwarder.rules.size, 1);
});

t.test('a rule that the forwarder refuses can be added later', async (t) => {
  const { link, forwarder } = await startPair(t);
  const commands = commandsOf(link);
  forwarder.refusals.set('transfer-request', 'not-permitted');
  await t.rejects(commands.run('rule add eth0'), { code: 'not-permitted' });
  forwarder.refusals.clear();
  await commands.run('rule add eth0');
  t.equal(forwarder.rules.size, 1);
});
