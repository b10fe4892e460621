import t from 'tap';
import { readlinkSync } from 'node:fs';
import { inNetns } from '../../src/sys/netns.js';
import { Netns, withoutRoot } from '../support/netns.js';

const current = (): string => readlinkSync('/proc/thread-self/ns/net');

t.test(
  'a step is made in the namespace, by name or path, and the thread is back after it',
  { skip: withoutRoot },
  async (t) => {
    const netns = new Netns('ns');
    t.teardown(() => netns.remove());
    const home = current();
    const there = netns.run('readlink /proc/self/ns/net').trim();
    t.not(there, home);
    t.equal(inNetns(netns.name, current), there);
    t.equal(inNetns(`/run/netns/${netns.name}`, current), there);
    t.equal(current(), home);
    t.equal(inNetns('', current), home);
  },
);

t.test('a step that throws leaves the thread where it was', { skip: withoutRoot }, async (t) => {
  const netns = new Netns('ns');
  t.teardown(() => netns.remove());
  const home = current();
  t.throws(
    () =>
      inNetns(netns.name, () => {
        throw new Error('no');
      }),
    /no/,
  );
  t.equal(current(), home);
});

t.test('what is no namespace is refused', { skip: withoutRoot }, async (t) => {
  const home = current();
  t.throws(() => inNetns('fwdfs-none', current), { code: 'ENOENT' });
  t.throws(() => inNetns('/dev/null', current), { code: 'EINVAL' });
  t.equal(current(), home);
});
