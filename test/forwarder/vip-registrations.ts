import t from 'tap';
import { parseIpv4, parseIpv6 } from '../../src/packet/ip-address.js';
import type { Peer } from '../../src/forwarder/peer.js';
import { type Registration, VipRegistrations } from '../../src/forwarder/vip-registrations.js';
import { makePeer, makeRule } from '../support/fake-peer.js';

const address = (text: string): Buffer => parseIpv4(text) ?? parseIpv6(text) ?? Buffer.alloc(0);
const VIP = address('10.9.0.1');
const grantOf = () => ({ rights: new Set(['vip'] as const), protocols: [] });

function registration(peer: Peer, number: number, more: Partial<Registration> = {}): Registration {
  const mac = Buffer.alloc(6, number);
  const link = { ifindex: 3, name: 'c0', mac, address: address('10.8.0.1') };
  const at = { sender: address(`169.254.7.${number}`), nextHop: address(`10.8.0.${number}`) };
  return { peer, vip: VIP, ...at, mac, interface: 'eth0', link, ports: new Map(), ...more };
}

t.test('rules of one port are one member until the last one goes', (t) => {
  const { peer } = makePeer('ctl1');
  const table = new VipRegistrations();
  const mine = registration(peer, 1);
  table.add(mine);
  const [one, two, other] = ['tcp:10.9.0.1:80', 'tcp:10.9.0.1:80', 'udp:10.9.0.1:80'].map((text) =>
    makeRule(peer, text, { mode: 'vip', vip: VIP }),
  ) as [ReturnType<typeof makeRule>, ReturnType<typeof makeRule>, ReturnType<typeof makeRule>];
  for (const rule of [one, two, other]) t.equal(table.addRule(rule), mine);
  t.same(
    table.wants(grantOf, 1).members.map(({ protocol, port, weight }) => [protocol, port, weight]),
    [
      [6, 80, 1],
      [17, 80, 1],
    ],
  );
  const id = table.portOf(one)?.id;
  t.equal(table.removeRule(one), null);
  t.equal(table.removeRule(one), null, 'once');
  t.equal(table.removeRule(two)?.id, id);
  t.equal(table.portOf(two), undefined);
  t.not(table.addRule(one).ports.get('6 80')?.id, id, 'a number is not used again');
  t.end();
});

t.test('a rule of an address that the peer has not, or at another interface, has no place', (t) => {
  const { peer } = makePeer('ctl1');
  const table = new VipRegistrations();
  const rule = makeRule(peer, 'tcp:10.9.0.1:80', { mode: 'vip', vip: VIP });
  t.throws(() => table.addRule(rule), { code: 'no-such-vip' });
  table.add(registration(peer, 1, { interface: 'eth1' }));
  t.throws(() => table.addRule(rule), { code: 'no-such-vip' });
  t.throws(() => table.addRule({ ...rule, vip: null }), { code: 'no-such-vip' });
  t.equal(table.removeRule(rule), null);
  t.end();
});

t.test('weights follow what a peer takes, and who is away may begin nothing', (t) => {
  const table = new VipRegistrations();
  const peers = [1, 2, 3, 4].map((number) => makePeer(`ctl${number}`).peer);
  for (const [index, peer] of peers.entries()) {
    table.add(registration(peer, index + 1));
    table.addRule(makeRule(peer, 'tcp:10.9.0.1:80', { mode: 'vip', vip: VIP }));
  }
  const [one, two, three, four] = peers as [Peer, Peer, Peer, Peer];
  one.weight = 5;
  two.silent = true;
  three.active = false;
  four.drains.add('eth0');
  const { members, senders } = table.wants(grantOf, 1);
  t.same(
    members.map(({ weight }) => weight),
    [5, 0, 0, 0],
  );
  t.same(
    senders.map(({ outgoing }) => outgoing !== null),
    [true, false, false, true],
  );
  const [first] = [...table];
  const port = [...(first?.ports.values() ?? [])][0];
  if (first === undefined || port === undefined) throw new Error('no port');
  t.same([...table.membersOf(first, port).values()], [5, 0, 0, 0]);
  t.end();
});

t.test('forwarding is wanted where addresses are, IPv6 as a whole', (t) => {
  const { peer } = makePeer('ctl1');
  const table = new VipRegistrations();
  t.match(table.wants(grantOf, 1), { forwarding: { ipv6: false } });
  table.add(registration(peer, 1));
  const six = registration(peer, 2, { vip: address('fd09::1'), sender: address('fdfd::1') });
  table.add(six);
  const { forwarding } = table.wants(grantOf, 1);
  t.same([...forwarding.ipv4], ['eth0', 'c0']);
  t.equal(forwarding.ipv6, true);
  t.ok(table.uses(address('169.254.7.1')) && table.uses(address('10.8.0.1')) && !table.uses(address('10.8.0.9')));
  t.ok(table.delete(six));
  t.notOk(table.has(six));
  t.equal(table.find(peer, six.vip), undefined);
  t.end();
});
