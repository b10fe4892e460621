import t from 'tap';
import { LinkWatch } from '../../src/sys/link-watch.js';
import { inNetns } from '../../src/sys/netns.js';
import { until } from '../support/lab.js';
import { Netns, withoutRoot } from '../support/netns.js';

t.test('one link is told of when it goes up and down, and nothing else', { skip: withoutRoot }, async (t) => {
  const netns = new Netns('lw');
  t.teardown(() => netns.remove());
  netns.run('ip link add v0 type veth peer name v1');
  const index = Number(netns.run('ip -o link show v0').split(':', 1)[0]);
  const told: boolean[] = [];
  const watch = inNetns(netns.name, () => new LinkWatch(index, (up) => told.push(up)));
  t.teardown(() => watch.close());
  for (const line of ['v1 up', 'v0 mtu 1400', 'v0 up', 'v1 down', 'v0 mtu 1300', 'v0 down'])
    netns.run(`ip link set ${line}`);
  await until(() => told.length === 2);
  t.same(told, [true, false]);
  watch.close();
  netns.run('ip link set v0 up');
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
  t.equal(told.length, 2);
});
