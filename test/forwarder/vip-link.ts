import t from 'tap';
import { parseIpv4, parseIpv6 } from '../../src/packet/ip-address.js';
import { RouteRequests } from '../../src/sys/route-requests.js';
import { inNetns } from '../../src/sys/netns.js';
import { dropSenderRoutes, findLink, senderRoute, type VipLink } from '../../src/forwarder/vip-link.js';
import { connectVeth, Netns, withoutRoot } from '../support/netns.js';
import { macOf } from '../support/vip-lab.js';

const address = (text: string): Buffer => parseIpv4(text) ?? parseIpv6(text) ?? Buffer.alloc(0);

interface Scene {
  readonly fwd: Netns;
  readonly requests: RouteRequests;
  find(remote: string, nextHop: string): VipLink;
}

/** c0 10.8.0.1, fe80::1, fd08::1 and c1 10.8.1.1, fe80::1, each with a control device behind it. */
function setUp(t: { teardown(undo: () => void): void }): Scene {
  const fwd = new Netns('-vf-l');
  const ctl = new Netns('-vf-m');
  t.teardown(() => {
    fwd.remove();
    ctl.remove();
  });
  for (const number of [0, 1]) {
    connectVeth(
      { netns: fwd, name: `c${number}`, addresses: [`10.8.${number}.1/24`, 'fe80::1/64', `fd08:${number}::1/64`] },
      { netns: ctl, name: `f${number}`, addresses: [`10.8.${number}.2/24`] },
    );
  }
  const requests = inNetns(fwd.name, () => new RouteRequests());
  t.teardown(() => requests.close());
  return {
    fwd,
    requests,
    find: (remote, nextHop) => inNetns(fwd.name, () => findLink(requests, remote, address(nextHop))),
  };
}

t.test('the link is that of the session, with our address of the family on it', { skip: withoutRoot }, async (t) => {
  const { fwd, find } = setUp(t);
  const mac = Buffer.from(macOf(fwd, 'c1').replaceAll(':', ''), 'hex');
  t.match(find('10.8.1.2', '10.8.1.2'), { name: 'c1', mac, address: address('10.8.1.1') });
  t.match(find('::ffff:10.8.1.2', '10.8.1.2'), { name: 'c1', address: address('10.8.1.1') });
  t.match(find('10.8.1.2', 'fe80::2'), { name: 'c1', address: address('fe80::1') });
  t.match(find('10.8.1.2', 'fd08:1::2'), { name: 'c1', address: address('fd08:1::1') });
  t.match(find('fd08:1::2', '10.8.1.2'), { name: 'c1', address: address('10.8.1.1') });
  t.match(find('fe80::2%c1', '10.8.1.2'), { name: 'c1', address: address('10.8.1.1') });
});

t.test('what is no common link is refused', { skip: withoutRoot }, async (t) => {
  const { fwd, find } = setUp(t);
  fwd.run('ip route add 10.66.0.0/16 via 10.8.0.2');
  for (const [remote, nextHop] of [
    ['', '10.8.0.2'],
    ['10.8.0.2', '10.8.1.2'],
    ['10.66.0.1', '10.8.0.2'],
    ['10.8.0.2', '10.66.0.1'],
    ['192.0.2.1', '10.8.0.2'],
    ['127.0.0.1', '127.0.0.1'],
    ['10.8.0.1', '10.8.0.1'],
    ['fe80::2%c9', '10.8.0.2'],
  ] as const)
    t.throws(() => find(remote, nextHop), { code: 'not-on-link' }, remote);
});

t.test('the route to a sender is ours, and goes alone', { skip: withoutRoot }, async (t) => {
  const { fwd, requests, find } = setUp(t);
  const [sender, six] = [address('169.254.7.1'), address('fdfd::1')];
  requests.addRoute(senderRoute(sender, address('10.8.0.2'), find('10.8.0.2', '10.8.0.2')));
  requests.addRoute(senderRoute(six, address('fe80::2'), find('10.8.0.2', 'fe80::2')));
  for (const line of ['169.254.0.0/16 dev c1 proto 110', '169.254.7.1 dev c1 metric 7'])
    fwd.run(`ip route add ${line}`);
  t.match(fwd.run('ip route get 169.254.7.1'), 'via 10.8.0.2 dev c0');
  t.match(fwd.run('ip -6 route get fdfd::1'), 'via fe80::2 dev c0');
  dropSenderRoutes(requests, sender);
  dropSenderRoutes(requests, six);
  dropSenderRoutes(requests, six);
  const left = fwd.run('ip route');
  t.notMatch(left, '169.254.7.1 via');
  t.match(left, '169.254.7.1 dev c1');
  t.match(left, '169.254.0.0/16 dev c1');
  t.notMatch(fwd.run('ip -6 route'), 'fdfd::1');
});
