/** Which addresses may stand for a control device: src/forwarder/vip-sender.ts, in the namespaces of test/support/vip-lab.ts. */
import t from 'tap';
import { isNoHost } from '../../src/forwarder/vip-sender.js';
import { parseIpv4, parseIpv6 } from '../../src/packet/ip-address.js';
import { withoutRoot } from '../support/netns.js';
import { VIP4, VIP6, VipLab } from '../support/vip-lab.js';

const root = { skip: withoutRoot };

t.test('addresses that no host has are told from others', async (t) => {
  const isNone = (text: string): boolean => isNoHost(parseIpv4(text) ?? parseIpv6(text) ?? Buffer.alloc(4));
  for (const text of ['0.0.0.0', '0.1.2.3', '127.0.0.1', '224.0.0.1', '239.1.1.1', '240.0.0.1', '255.255.255.255'])
    t.ok(isNone(text), text);
  for (const text of ['::', '::1', 'fe80::7', 'ff02::1']) t.ok(isNone(text), text);
  for (const text of ['1.0.0.0', '10.8.0.77', '169.254.1.1', '223.255.255.254', 'fdfd::7', '2001:db8::1'])
    t.notOk(isNone(text), text);
});

t.test("an address that is somebody's can not stand for a control device", root, async (t) => {
  const lab = new VipLab(2);
  t.teardown(() => lab.stop());
  lab.fwd.run('ip link add other type veth peer name down0');
  for (const line of ['addr add 10.7.0.1/24 dev other', 'link set other up', 'addr add 10.6.0.1/24 dev down0'])
    lab.fwd.run(`ip ${line}`);
  lab.fwd.run('ip addr add fd07::1/64 dev other nodad');
  // By which the kernel asks for neighbours.
  lab.fwd.run('ip addr add fe80::9/64 dev eth0 nodad');
  const { mac: link, peer } = lab.control(1);
  const register = (sender: string): Promise<unknown> =>
    sender.includes(':')
      ? lab.vips.register(peer, { vip: VIP6, sender, nextHop: 'fe80::2', link })
      : lab.vips.register(peer, { vip: VIP4, sender, nextHop: '10.8.1.2', link });
  for (const sender of ['127.0.0.2', '224.0.0.9', '0.0.0.1', '240.1.1.1', 'ff02::9', '::1', 'fe80::9'])
    await t.rejects(register(sender), { code: 'bad-message' }, sender);
  const used = {
    '10.7.0.1': 'of an interface that is not offered',
    'fd07::1': 'the same of IPv6',
    '10.6.0.1': 'of one that is down',
    '10.8.1.1': 'of the link',
    '10.7.0.255': 'broadcast',
    '10.9.0.0': 'a network',
    '10.8.2.2': 'where another control device connects from',
    '10.9.0.2': 'the client',
    'fd09::2': 'the client',
  };
  for (const [sender, whose] of Object.entries(used))
    await t.rejects(register(sender), { code: 'address-in-use' }, whose);
  t.same(await lab.vips.rows('vip_reception'), []);
  // On a link, and nobody answers for it; behind a default route, where nobody is asked.
  lab.fwd.run('ip route add default dev eth0');
  await register('10.8.1.77');
  await register('fdfd::7:1');
  t.same(
    (await lab.vips.rows('vip_reception')).map(([sender]) => sender),
    ['10.8.1.77', 'fdfd::7:1'],
  );
  const other = lab.control(2);
  const fields = { vip: VIP4, sender: '198.51.100.7', nextHop: '10.8.2.2', link: other.mac };
  await lab.vips.register(other.peer, fields);
});

t.test('who goes while an address is looked for gets none', root, async (t) => {
  const lab = new VipLab(1);
  t.teardown(() => lab.stop());
  const { mac: link, peer } = lab.control(1);
  const registering = lab.vips.register(peer, { vip: VIP4, sender: '10.8.1.77', nextHop: '10.8.1.2', link });
  await Promise.all([t.rejects(registering, { code: 'no-such-vip' }), lab.vips.peerClosed(peer)]);
  t.same(await lab.vips.rows('vip_reception'), []);
});
