/** src/control/vip-link.ts: the link between the devices, as the kernel knows it. */
import t from 'tap';
import { vipLink } from '../../src/control/vip-link.js';
import { inNetns } from '../../src/sys/netns.js';
import { RouteRequests } from '../../src/sys/route-requests.js';
import { Netns, withoutRoot } from '../support/netns.js';

t.test('the link of a connection, and the own address on it', { skip: withoutRoot }, async (t) => {
  const netns = new Netns('-vc-link');
  t.teardown(() => netns.remove());
  for (const line of [
    'link set lo up',
    'link add f0 address 02:00:00:00:00:07 type veth peer name f1',
    'link set f0 addrgenmode none',
    'link set f0 up',
    'link set f1 up',
    'addr add 10.8.0.2/24 dev f0',
    'addr add fd08::2/64 dev f0 nodad',
    'route add 198.51.100.0/24 via 10.8.0.1',
    'tuntap add dev t0 mode tun',
    'addr add 10.7.0.2/24 dev t0',
    'link set t0 up',
  ]) {
    netns.run(`ip ${line}`);
  }
  const requests = inNetns(netns.name, () => new RouteRequests());
  t.teardown(() => requests.close());
  const find = (remoteAddress: string, localAddress: string, family: 4 | 6): object =>
    inNetns(netns.name, () => {
      const { ifindex, ...rest } = vipLink(requests, { remoteAddress, localAddress }, family);
      t.ok(ifindex > 1);
      return rest;
    });
  const f0 = { device: 'f0', mac: '02:00:00:00:00:07' };
  t.same(find('10.8.0.1', '10.8.0.2', 4), { ...f0, address: '10.8.0.2' });
  t.same(find('fd08::1', 'fd08::2', 6), { ...f0, address: 'fd08::2' });
  t.same(find('fd08::1', 'fd08::2', 4), { ...f0, address: '10.8.0.2' }, 'of the other family: one of the link');
  t.throws(() => find('10.8.0.1', '10.8.0.2', 6), { code: 'not-on-link', message: /f0 has no IPv6 address/ });
  netns.run('ip addr add fe80::7/64 dev f0 nodad');
  t.same(find('10.8.0.1', '10.8.0.2', 6), { ...f0, address: 'fe80::7' });
  t.same(find('fe80::1%f0', 'fe80::7%f0', 6), { ...f0, address: 'fe80::7' }, 'with a zone');
  const elsewhere: [remote: string, says: RegExp][] = [
    ['198.51.100.1', /behind a gateway/],
    ['127.0.0.1', /on this host/],
    ['10.8.0.2', /on this host/],
    ['203.0.113.1', /no route/],
    ['10.7.0.1', /no Ethernet link/],
    ['', /no IP address/],
  ];
  for (const [remote, message] of elsewhere) {
    t.throws(() => find(remote, '10.8.0.2', 4), { code: 'not-on-link', message }, remote);
  }
});
