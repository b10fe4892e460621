import t from 'tap';
import { holdName } from '../../src/sys/name-lock.js';
import { Netns, withoutRoot } from '../support/netns.js';

const name = `fwdfst-lock-${process.pid}`;

t.test('a name is held by one at a time, and free again when it was given back', async (t) => {
  const give = holdName(name);
  t.throws(() => holdName(name), { code: 'EADDRINUSE' });
  const other = holdName(`${name}-other`);
  give();
  holdName(name)();
  other();
});

t.test('every network namespace has names of its own', { skip: withoutRoot }, async (t) => {
  const netns = new Netns('lock');
  t.teardown(() => netns.remove());
  const give = holdName(name);
  await netns.within(() => holdName(name)());
  give();
});
