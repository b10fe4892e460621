/** src/control/drains.ts, and the `drain` lines of `.ctl`. */
import t from 'tap';
import { commandsOf } from '../support/commands.js';
import { eventually, FakeForwarder, startLink, startPair } from '../support/fake-forwarder.js';

const drainsIn = (lines: readonly string[]): string[] => lines.filter((line) => line.startsWith('drain-request'));

t.test('what is drained is asked for, of one interface or of all, and taken back', async (t) => {
  const { link, forwarder } = await startPair(t);
  const commands = commandsOf(link);
  t.equal(link.drains.text, '');
  await commands.run('drain eth0');
  t.equal(link.drains.text, 'eth0');
  await commands.run('drain');
  t.equal(link.drains.text, 'all');
  await t.rejects(commands.run('drain eth0 off'), { code: 'bad-command' }, 'one can not take back what is of all');
  await commands.run('drain off');
  t.equal(link.drains.text, '', 'of all, and of those that were drained one by one');
  await commands.run('drain eth0');
  await commands.run('drain eth0 off');
  t.equal(link.drains.text, '');
  t.same(drainsIn(forwarder.diary.lines), [
    'drain-request eth0 true',
    'drain-request * true',
    'drain-request * false',
    'drain-request eth0 true',
    'drain-request eth0 false',
  ]);
});

t.test('a forwarder that forgot the session is asked again, and one that did not too', async (t) => {
  const { link, forwarder } = await startPair(t);
  await commandsOf(link).run('drain eth0');
  forwarder.cutAndForget();
  await eventually(() => drainsIn(forwarder.diary.lines).length === 2);
  forwarder.cut();
  await eventually(() => drainsIn(forwarder.diary.lines).length === 3);
  t.equal(link.drains.text, 'eth0');
});

t.test('what the forwarder refuses, or what is no command, changes nothing', async (t) => {
  const { link, forwarder } = await startPair(t);
  const commands = commandsOf(link);
  forwarder.refusals.set('drain-request', 'unknown-message');
  await t.rejects(commands.run('drain eth0'), { code: 'unknown-message' });
  forwarder.refusals.clear();
  await t.rejects(commands.run('drain eth9'), { code: 'no-such-interface' });
  for (const line of ['drain eth0 eth1', 'drain eth0 on', 'drain off off off']) {
    await t.rejects(commands.run(line), { code: 'bad-command' }, line);
  }
  t.equal(link.drains.text, '');
  forwarder.cut();
  await eventually(() => forwarder.diary.lines.includes('active resumed=true'));
  t.same(drainsIn(forwarder.diary.lines), ['drain-request refused']);
});

t.test('the weight of a control device is told with its hello, if it has one', async (t) => {
  const forwarder = await FakeForwarder.start(t);
  await startLink(t, forwarder.url, 7).link.settled;
  t.equal(forwarder.weight, 7);
  const other = await startPair(t);
  t.equal(other.forwarder.weight, undefined);
});
