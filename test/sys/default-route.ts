import t from 'tap';
import { isByDefaultRoute } from '../../src/sys/default-route.js';
import { inNetns } from '../../src/sys/netns.js';
import { Netns, withoutRoot } from '../support/netns.js';

t.test('a default route is told from others, with and without a gateway', { skip: withoutRoot }, async (t) => {
  const netns = new Netns('dr');
  t.teardown(() => netns.remove());
  for (const line of [
    'link add v0 type veth peer name v1',
    'link set v0 up',
    'link set v1 up',
    'addr add 10.9.0.1/24 dev v0',
    'addr add fd09::1/64 dev v0 nodad',
    'route add default dev v0',
    '-6 route add default via fd09::2 dev v0',
  ])
    netns.run(`ip ${line}`);
  const isDefault = (hex: string): boolean => inNetns(netns.name, () => isByDefaultRoute(Buffer.from(hex, 'hex')));
  t.equal(isDefault('c0000201'), true);
  t.equal(isDefault('0a090007'), false);
  t.equal(isDefault('20010db8000000000000000000000001'), true);
  t.equal(isDefault('fd090000000000000000000000000007'), false);
});
