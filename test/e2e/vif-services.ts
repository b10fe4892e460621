/**
 * What a virtual IF asks of a forwarder that runs besides packets: neighbours, groups, routes.
 *
 *     node 10.9.0.2 ----- eth0 10.9.0.1 | forwarder ===== puppet ctl2
 */
import t from 'tap';
import { MAX_HEARTBEAT_MS } from '../../src/base/limits.js';
import { Lab, until } from '../support/lab.js';
import { withoutRoot } from '../support/netns.js';
import { VifPuppet } from '../support/vif-puppet.js';

const RIGHTS = ['ctl1', 'ctl2']
  .map((name) => `  - { control: ${name}, interface: eth0, rights: [read, vif], protocols: ["*"] }`)
  .join('\n');

async function setUp(t: {
  teardown: (undo: () => unknown) => void;
}): Promise<{ lab: Lab; ctl: VifPuppet; down: number }> {
  const lab = await Lab.start({ controls: ['ctl1', 'ctl2'], permissions: RIGHTS, heartbeat: MAX_HEARTBEAT_MS });
  t.teardown(() => lab.stop());
  const ctl = await VifPuppet.connect(lab, 'ctl2');
  t.teardown(() => ctl.close());
  const { down } = await ctl.vif();
  return { lab, ctl, down };
}

t.test("neighbours are found by the forwarder's kernel", { skip: withoutRoot }, async (t) => {
  const { lab, ctl } = await setUp(t);
  const mac = /ether ([0-9a-f:]+)/.exec(lab.node.run('ip link show n0'))?.[1];
  // The kernel asks for a neighbour out of the blue only from a link-local address.
  lab.fwd.run('ip -6 addr add fe80::1/64 dev eth0 nodad');
  for (const address of ['10.9.0.2', 'fd09::2']) {
    t.same(await ctl.ask('neighbour-request', { interface: 'eth0', address }), { address, link: mac });
    t.same(await ctl.ask('neighbour-request', { interface: 'eth0', address }), { address, link: mac }, 'again');
  }
  const silent = { interface: 'eth0', address: '10.9.0.77' };
  t.same(await ctl.ask('neighbour-request', silent), { address: '10.9.0.77', link: '' });
  await t.rejects(ctl.ask('neighbour-request', { interface: 'eth0', address: 'x' }), { code: 'bad-message' });
  await t.rejects(ctl.ask('neighbour-request', { interface: 'c0', address: '10.8.0.2' }), {
    code: 'no-such-interface',
  });
});

t.test('a group is joined while a vif is in it', { skip: withoutRoot }, async (t) => {
  const { lab, ctl, down } = await setUp(t);
  const groups = (): string => lab.fwd.run('ip maddr show dev eth0');
  const { down: other } = await ctl.vif();
  for (const group of ['224.0.0.5', 'ff02::5']) {
    t.notOk(groups().includes(group));
    t.same(await ctl.ask('group-join', { downTunnel: down, group }), { group });
    await ctl.ask('group-join', { downTunnel: other, group });
    t.ok(groups().includes(group));
    await ctl.ask('group-leave', { downTunnel: down, group });
    t.ok(groups().includes(group), 'the other one is in it');
  }
  await ctl.ask('tunnel-deletion-request', { downTunnel: other });
  t.notMatch(groups(), /224\.0\.0\.5|ff02::5\b/);
  await t.rejects(ctl.ask('group-join', { downTunnel: down, group: '10.9.0.2' }), { code: 'bad-message' });
  await t.rejects(ctl.ask('group-join', { downTunnel: other, group: '224.0.0.5' }), { code: 'no-such-vif' });
});

t.test('routes through an interface are attributes of it', { skip: withoutRoot }, async (t) => {
  const { lab, ctl } = await setUp(t);
  const routes = async (): Promise<string[]> =>
    (await ctl.ask('interface-use-request', { interface: 'eth0' })).attributes.routes ?? [];
  t.same(await routes(), ['10.9.0.0/24', 'fd09::/64']);
  lab.fwd.run('ip route add default via 10.9.0.2 dev eth0');
  lab.fwd.run('ip route add 10.2.0.0/16 via 10.9.0.2 dev eth0');
  lab.fwd.run('ip -6 route add default via fd09::2 dev eth0');
  lab.fwd.run('ip route add 10.78.0.0/16 dev eth0');
  await until(async () => (await routes()).length === 6);
  t.same(await routes(), [
    '10.2.0.0/16 via 10.9.0.2',
    '10.78.0.0/16',
    '10.9.0.0/24',
    'default via 10.9.0.2',
    'default via fd09::2',
    'fd09::/64',
  ]);
  lab.fwd.run('ip route del 10.2.0.0/16');
  await until(async () => (await routes()).length === 5);
});
