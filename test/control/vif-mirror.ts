import t from 'tap';
import { describe, FwdfsError } from '../../src/base/errors.js';
import type { Logger } from '../../src/base/log.js';
import { silent } from '../../src/base/log.js';
import { VifMirror } from '../../src/control/vif-mirror.js';
import { FrameView } from '../../src/packet/headers.js';
import { membershipOf } from '../../src/packet/membership.js';
import { Netlink } from '../../src/sys/netlink.js';
import { RTMGRP } from '../../src/sys/rtnetlink.js';
import { until } from '../support/lab.js';
import { DEVICE, ETH0, ETH0_DOWN, everything, makeMirror, mirrorLab } from '../support/mirror.js';
import { connectVeth, Netns, withoutRoot } from '../support/netns.js';

const table = (netns: Netns): string => /lookup (74\d+)/.exec(netns.run('ip rule'))?.[1] ?? 'none';

t.test('the device has the MAC, MTU, addresses and state of the interface', { skip: withoutRoot }, async (t) => {
  const { netns, mirror } = await mirrorLab(t);
  t.notMatch(netns.run(`ip link show ${DEVICE}`), /[<,]UP[,>]/);
  t.same(mirror.addresses, []);
  mirror.apply(ETH0);
  const link = netns.run(`ip -d link show ${DEVICE}`);
  t.match(link, /<BROADCAST,MULTICAST,UP,LOWER_UP>/);
  t.match(link, /mtu 1400 .*state UP/);
  t.match(link, /02:00:00:00:00:09/);
  t.match(link, /addrgenmode none/);
  t.match(link, /alias fwdfs ctl1 fwd1\/eth0/);
  const addresses = netns.run(`ip -o addr show dev ${DEVICE}`);
  t.same(
    [...addresses.matchAll(/inet6? (\S+)/g)].map(([, address]) => address),
    ['10.9.0.1/24', '10.9.0.7/24', 'fd09::1/64', 'fe80::9/64'],
  );
  t.notMatch(addresses, /tentative|dadfailed/);
  t.equal([...addresses.matchAll(/noprefixroute/g)].length, 4);
  t.same(
    mirror.addresses.map((address) => address.length),
    [4, 4, 16, 16],
  );
});

t.test(
  'connected prefixes are in main and in its own table, routes with a gateway in its own only',
  { skip: withoutRoot },
  async (t) => {
    const { netns, mirror } = await mirrorLab(t);
    mirror.apply(ETH0);
    const routes = (line: string): string[] =>
      netns
        .run(line)
        .trim()
        .split(/\s*\n\s*/)
        .sort();
    t.same(routes('ip route'), ['10.9.0.0/24 dev fwd1-eth0 proto 110 scope link src 10.9.0.1 metric 4096']);
    t.same(routes('ip -6 route'), [
      'fd09::/64 dev fwd1-eth0 proto 110 metric 4096 pref medium',
      'fe80::/64 dev fwd1-eth0 proto 110 metric 4096 pref medium',
    ]);
    t.same(routes(`ip route show table ${table(netns)}`), [
      '10.2.0.0/16 via 10.9.0.7 dev fwd1-eth0 proto 110',
      '10.9.0.0/24 dev fwd1-eth0 proto 110 scope link src 10.9.0.1',
      'default via 10.9.0.254 dev fwd1-eth0 proto 110',
    ]);
    t.match(netns.run(`ip -6 route show table ${table(netns)}`), /default via fe80::1 dev fwd1-eth0 proto 110/);
    t.match(netns.run('ip rule'), /from 10\.9\.0\.1 lookup 74\d+ proto 110/);
    t.match(netns.run('ip rule'), /from 10\.9\.0\.7 lookup 74\d+ proto 110/);
    t.match(netns.run('ip -6 rule'), /from fd09::1 lookup 74\d+ proto 110/);
    t.match(netns.run('ip -6 rule'), /from all oif fwd1-eth0 lookup 74\d+ proto 110/);
  },
);

t.test(
  'what is not bound to the interface goes by the routes of the control device',
  { skip: withoutRoot },
  async (t) => {
    const { netns, mirror } = await mirrorLab(t);
    const uplink = new Netns('up');
    t.teardown(() => uplink.remove());
    connectVeth({ netns, name: 'up0', addresses: ['192.0.2.2/24'] }, { netns: uplink, name: 'up1' });
    netns.run('ip route add default via 192.0.2.1');
    mirror.apply(ETH0);
    t.match(netns.run('ip route get 198.51.100.1'), /via 192\.0\.2\.1 dev up0/);
    t.match(netns.run('ip route get 198.51.100.1 from 10.9.0.7'), /via 10\.9\.0\.254 dev fwd1-eth0/);
    t.match(netns.run('ip route get 10.2.3.4 oif fwd1-eth0'), /via 10\.9\.0\.7 dev fwd1-eth0/);
    t.match(netns.run('ip route get 10.9.0.5'), /10\.9\.0\.5 dev fwd1-eth0/);
    t.match(netns.run('ip -6 route get fe80::5 oif fwd1-eth0'), /dev fwd1-eth0 .*src fe80::9/);
  },
);

t.test('a route of the control device to the same prefix comes first', { skip: withoutRoot }, async (t) => {
  const { netns, mirror } = await mirrorLab(t);
  const link = new Netns('up');
  t.teardown(() => link.remove());
  connectVeth({ netns, name: 'own0', addresses: ['10.9.0.200/24'] }, { netns: link, name: 'own1' });
  const before = netns.run('ip route');
  mirror.apply(ETH0);
  t.match(netns.run('ip route get 10.9.0.5'), /dev own0/);
  t.match(netns.run('ip route get 10.9.0.5 from 10.9.0.1'), /dev fwd1-eth0/);
  await mirror.remove();
  t.equal(netns.run('ip route'), before);
});

t.test(
  'next hops on the link resolve, so that a routing daemon can install its routes',
  { skip: withoutRoot },
  async (t) => {
    const { netns, mirror } = await mirrorLab(t);
    mirror.apply(ETH0);
    netns.run('ip route add 203.0.113.0/24 via 10.9.0.3');
    netns.run('ip -6 route add 2001:db8::/32 via fd09::3');
    netns.run('ip -6 route add 2001:db8:1::/48 via fe80::3 dev fwd1-eth0');
    t.match(netns.run('ip route get 203.0.113.9'), /via 10\.9\.0\.3 dev fwd1-eth0/);
    t.match(netns.run('ip -6 route get 2001:db8::9'), /via fd09::3 dev fwd1-eth0/);
  },
);

t.test('the same attributes again change nothing in the kernel', { skip: withoutRoot }, async (t) => {
  const { netns, mirror } = await mirrorLab(t);
  mirror.apply(ETH0);
  const before = everything(netns);
  const groups = RTMGRP.LINK | RTMGRP.IPV4_IFADDR | RTMGRP.IPV6_IFADDR | RTMGRP.IPV4_ROUTE | RTMGRP.IPV6_ROUTE;
  const events = await netns.within(() => new Netlink({ groups }));
  t.teardown(() => events.close());
  let count = 0;
  const take = (): void => {
    while (events.receive(() => (count += 1)) > 0);
  };
  mirror.apply({ ...ETH0 });
  mirror.apply(structuredClone(ETH0));
  take();
  t.equal(count, 0);
  t.equal(everything(netns), before);
  mirror.apply({ ...ETH0, inet: ['10.9.0.1/24'] });
  take();
  t.ok(count > 0);
});

t.test(
  'in a namespace apart the routes with a gateway are in main too, for those who bind to nothing',
  { skip: withoutRoot },
  async (t) => {
    const { mirror, netns } = await mirrorLab(t, { apart: true });
    mirror.apply(ETH0);
    t.match(netns.run('ip route show table main'), /default via 10\.9\.0\.254 dev fwd1-eth0 proto 110 metric 4096/);
    t.match(netns.run('ip route get 192.0.2.1'), /via 10\.9\.0\.254 dev fwd1-eth0/);
    mirror.apply({ ...ETH0, routes: [] });
    t.notMatch(netns.run('ip route show table main'), /default/);
  },
);

t.test(
  'an address that goes takes its rule along, and the routes get another source',
  { skip: withoutRoot },
  async (t) => {
    const { netns, mirror } = await mirrorLab(t);
    mirror.apply(ETH0);
    mirror.apply({ ...ETH0, inet: ['10.9.0.7/24'], inet6: [] });
    t.match(
      netns.run('ip route'),
      /^10\.9\.0\.0\/24 dev fwd1-eth0 proto 110 scope link src 10\.9\.0\.7 metric 4096 \n$/,
    );
    t.match(netns.run(`ip route show table ${table(netns)}`), /default via 10\.9\.0\.254/);
    t.notMatch(netns.run('ip rule'), /10\.9\.0\.1 /);
    t.notMatch(everything(netns), /fd09|fe80::9/);
    mirror.apply({ ...ETH0, inet: [], inet6: [], routes: [] });
    t.same(mirror.addresses, []);
    t.equal(netns.run('ip -4 route show table all dev fwd1-eth0'), '');
    mirror.apply(ETH0);
    t.match(netns.run('ip route'), /src 10\.9\.0\.1 metric 4096/);
  },
);

t.test(
  'an interface that is down is down here, and everything is there again when it is up',
  { skip: withoutRoot },
  async (t) => {
    const { netns, mirror } = await mirrorLab(t);
    mirror.apply(ETH0);
    const before = everything(netns);
    mirror.apply(ETH0_DOWN);
    t.match(netns.run(`ip link show ${DEVICE}`), /<NO-CARRIER,BROADCAST,MULTICAST>|<BROADCAST,MULTICAST>/);
    t.equal(netns.run('ip route'), '');
    t.match(netns.run(`ip -4 addr show ${DEVICE}`), /10\.9\.0\.1/);
    mirror.apply(ETH0);
    await until(() => everything(netns) === before);
    t.pass();
  },
);

t.test('an interface that is gone has no carrier, and nothing else changes', { skip: withoutRoot }, async (t) => {
  const { netns, mirror } = await mirrorLab(t);
  mirror.apply(ETH0);
  mirror.apply(null);
  t.match(netns.run(`ip link show ${DEVICE}`), /<NO-CARRIER,BROADCAST,MULTICAST,UP>/);
  t.match(netns.run(`ip addr show ${DEVICE}`), /10\.9\.0\.1\/24[^]*fd09::1/);
  mirror.apply(ETH0);
  t.match(netns.run(`ip link show ${DEVICE}`), /<BROADCAST,MULTICAST,UP,LOWER_UP>/);
  mirror.apply({ ...ETH0, operstate: 'lowerlayerdown' });
  t.match(netns.run(`ip link show ${DEVICE}`), /<NO-CARRIER,BROADCAST,MULTICAST,UP>/);
});

t.test(
  'a device that somebody takes down and up gets its routes and IPv6 addresses back',
  { skip: withoutRoot },
  async (t) => {
    const { netns, mirror } = await mirrorLab(t);
    mirror.apply(ETH0);
    await until(() => /state UP/.test(netns.run(`ip link show ${DEVICE}`)));
    const before = everything(netns);
    netns.run(`ip link set ${DEVICE} down`);
    t.equal(netns.run('ip -6 route'), '');
    netns.run(`ip link set ${DEVICE} up`);
    await until(() => everything(netns) === before);
    t.pass();
  },
);

t.test(
  'a new MTU and MAC are taken over; below the least of IPv6 there are IPv4 addresses only',
  { skip: withoutRoot },
  async (t) => {
    const { netns, mirror } = await mirrorLab(t);
    mirror.apply(ETH0);
    mirror.apply({ ...ETH0, mtu: 9000, address: '02:00:00:00:00:0a' });
    t.match(netns.run(`ip link show ${DEVICE}`), /mtu 9000[^]*02:00:00:00:00:0a/);
    mirror.apply({ ...ETH0, mtu: 600 });
    t.match(netns.run(`ip addr show ${DEVICE}`), /mtu 600[^]*10\.9\.0\.1/);
    t.same(
      mirror.addresses.map((address) => address.length),
      [4, 4],
    );
    mirror.apply(ETH0);
    t.match(netns.run(`ip addr show ${DEVICE}`), /fd09::1\/64/);
  },
);

t.test('nothing leaves a device by itself but reports for neighbour discovery', { skip: withoutRoot }, async (t) => {
  const { netns, mirror, frames } = await mirrorLab(t);
  for (const attributes of [ETH0, ETH0_DOWN, ETH0, null, ETH0]) mirror.apply(attributes);
  netns.run(`ip link set ${DEVICE} down`);
  netns.run(`ip link set ${DEVICE} up`);
  // Solicitations of routers and of one's own address leave within the first second.
  await new Promise((resolve) => setTimeout(resolve, 1500));
  const view = new FrameView();
  const groups: string[] = [];
  const others = frames.seen.filter((frame) => {
    view.parse(frame, 0, frame.length);
    return !membershipOf(frame, view, (_, group) => groups.push(group.toString('hex')));
  });
  t.same(others, []);
  t.same(groups, []);
});

t.test('clients off the link get in where all/rp_filter is strict', { skip: withoutRoot }, async (t) => {
  const before = ['sysctl -qw net.ipv4.conf.all.rp_filter=1'];
  const { netns, mirror } = await mirrorLab(t, { before });
  mirror.apply(ETH0);
  t.equal(netns.run(`sysctl -n net.ipv4.conf.${DEVICE}.rp_filter`).trim(), '2');
  const loose = await mirrorLab(t);
  t.equal(loose.netns.run(`sysctl -n net.ipv4.conf.${DEVICE}.rp_filter`).trim(), '0');
});

t.test('a tun device has no MAC and no gateways', { skip: withoutRoot }, async (t) => {
  const { netns, mirror } = await mirrorLab(t, { kind: 'tun' });
  mirror.apply({ ...ETH0, address: '' });
  const link = netns.run(`ip addr show ${DEVICE}`);
  t.match(link, /POINTOPOINT,MULTICAST,NOARP,UP/);
  t.match(link, /link\/none/);
  t.match(link, /10\.9\.0\.1\/24[^]*fd09::1\/64/);
  t.match(netns.run(`ip route show table ${table(netns)}`), /default dev fwd1-eth0 proto 110/);
  t.match(netns.run('ip route get 198.51.100.1 from 10.9.0.1'), /198\.51\.100\.1 from 10\.9\.0\.1 dev fwd1-eth0/);
});

t.test('nothing is left after remove, and what was there before is as it was', { skip: withoutRoot }, async (t) => {
  const before = ['ip rule add from 192.0.2.77 lookup 100', 'nft add table inet fwdfs_ctl1'];
  const { netns, mirror } = await mirrorLab(t, { before });
  await mirror.remove();
  const was = everything(netns);
  const again = await makeMirror(netns);
  again.apply(ETH0);
  t.not(everything(netns), was);
  await again.remove();
  t.equal(everything(netns), was);
  t.match(was, /from 192\.0\.2\.77 lookup 100/);
});

t.test('what can not be made leaves nothing behind, and says why', { skip: withoutRoot }, async (t) => {
  const netns = new Netns('vif');
  t.teardown(() => netns.remove());
  netns.run('ip link add v0 type veth peer name v1');
  const was = everything(netns);
  const failure = async (name: string): Promise<unknown> =>
    makeMirror(netns, { name }).then(
      () => null,
      (error: unknown) => error,
    );
  t.match(await failure('v0'), { code: 'already-there' });
  for (const name of ['a/b', 'a b', '', 'a-name-of-16-byt', 'tap%d', '..', 'a"b']) {
    const error = await failure(name);
    t.ok(error instanceof FwdfsError, `${name}: ${describe(error)}`);
  }
  const options = {
    control: 'c',
    symbol: 'f/e',
    name: DEVICE,
    kind: 'tap',
    netns: 'fwdfs-none',
    apart: true,
    log: silent,
  } as const;
  await t.rejects(VifMirror.create(options), { code: 'ENOENT' });
  t.equal(everything(netns), was);
});

t.test(
  'a gateway beyond every prefix is on the link; routes without a gateway are there, in main too',
  { skip: withoutRoot },
  async (t) => {
    const { netns, mirror } = await mirrorLab(t);
    const routes = ['default via 172.31.1.1', '10.78.0.0/16', '172.30.0.2/32', '10.9.0.0/24', '::/0'];
    mirror.apply({ ...ETH0, inet: ['10.9.0.1/24', '172.30.0.1/32'], routes });
    const own = netns.run(`ip route show table ${table(netns)}`);
    t.match(own, /default via 172\.31\.1\.1 dev fwd1-eth0 proto 110 onlink/);
    t.match(own, /10\.78\.0\.0\/16 dev fwd1-eth0/);
    t.match(own, /172\.30\.0\.2 dev fwd1-eth0/);
    t.equal(own.match(/10\.9\.0\.0\/24/g)?.length, 1);
    t.match(netns.run(`ip -6 route show table ${table(netns)}`), /default dev fwd1-eth0/);
    const main = netns.run('ip route show table main');
    t.match(main, /10\.78\.0\.0\/16 dev fwd1-eth0 proto 110 .*metric 4096/);
    t.notMatch(main, /default/);
  },
);

t.test(
  'an address that the kernel refuses is logged, and does not take the others along',
  { skip: withoutRoot },
  async (t) => {
    const said: object[] = [];
    const log: Logger = { ...silent, warn: (fields) => said.push(fields) };
    const { netns, mirror } = await mirrorLab(t, { log });
    mirror.apply({ ...ETH0, routes: ['default via 224.0.0.1', '10.2.0.0/16 via 10.9.0.7', 'nonsense'] });
    t.equal(said.length, 1);
    t.match(JSON.stringify(said), /EINVAL/);
    t.match(netns.run(`ip route show table ${table(netns)}`), /10\.2\.0\.0\/16 via 10\.9\.0\.7/);
  },
);

t.test(
  'an interface name of one control device is free for the same device in another namespace',
  { skip: withoutRoot },
  async (t) => {
    const one = await mirrorLab(t);
    const other = await mirrorLab(t);
    one.mirror.apply(ETH0);
    other.mirror.apply(ETH0);
    await one.mirror.remove();
    t.match(other.netns.run('nft list tables'), /fwdfs_ctl1\/vif\/fwd1-eth0/);
    t.match(other.netns.run('ip route'), /10\.9\.0\.0\/24/);
  },
);
