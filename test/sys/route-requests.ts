import t from 'tap';
import { inNetns } from '../../src/sys/netns.js';
import { MAIN_TABLE, RouteRequests, type RouteSpec, type RuleSpec } from '../../src/sys/route-requests.js';
import { Netns, withoutRoot } from '../support/netns.js';

const bytes = (...values: number[]): Buffer => Buffer.from(values);
const FD09 = Buffer.from('fd090000000000000000000000000000', 'hex');
const FD09_1 = Buffer.from('fd090000000000000000000000000001', 'hex');

interface Scene {
  readonly netns: Netns;
  readonly requests: RouteRequests;
  readonly ifindex: number;
  readonly route: RouteSpec;
}

/** A namespace with v0, up. */
function setUp(t: { teardown(undo: () => void): void }): Scene {
  const netns = new Netns('rr');
  t.teardown(() => netns.remove());
  netns.run('ip link add v0 type veth peer name v1');
  for (const line of ['v0 addrgenmode none', 'v0 up', 'v1 up', 'lo up']) netns.run(`ip link set ${line}`);
  const requests = inNetns(netns.name, () => new RouteRequests());
  t.teardown(() => requests.close());
  const ifindex = Number(netns.run('ip -o link show v0').split(':', 1)[0]);
  const family = 4;
  const destination = bytes(10, 9, 0, 0);
  const route = {
    family,
    destination,
    prefixLength: 24,
    gateway: null,
    onlink: false,
    ifindex,
    table: MAIN_TABLE,
    metric: 4096,
    source: null,
  } as const;
  return { netns, requests, ifindex, route };
}

t.test('a link gets what is named and keeps the rest', { skip: withoutRoot }, async (t) => {
  const { netns, requests, ifindex } = setUp(t);
  t.equal(requests.alias(ifindex), '');
  requests.setLink(ifindex, { alias: 'fwdfs x', mtu: 1300, address: bytes(2, 0, 0, 0, 0, 7), queueLength: 77 });
  const link = netns.run('ip link show v0');
  t.match(link, /UP.*mtu 1300.*qlen 77[^]*02:00:00:00:00:07[^]*alias fwdfs x/);
  t.equal(requests.alias(ifindex), 'fwdfs x');
  t.equal(requests.alias(9999), null);
  requests.setLink(ifindex, { up: false });
  t.notMatch(netns.run('ip link show v0'), /[<,]UP[,>]/);
  t.match(netns.run('ip link show v0'), /mtu 1300/);
});

t.test('addresses come without a route and without being asked for', { skip: withoutRoot }, async (t) => {
  const { netns, requests, ifindex } = setUp(t);
  const [four, six] = [
    { address: bytes(10, 9, 0, 1), prefixLength: 24 },
    { address: FD09_1, prefixLength: 64 },
  ];
  for (const one of [four, six, four, six]) requests.addAddress(ifindex, one);
  t.match(netns.run('ip -o addr show v0'), /10\.9\.0\.1\/24 scope global noprefixroute/);
  t.match(netns.run('ip -o addr show v0'), /fd09::1\/64 scope global nodad noprefixroute/);
  t.equal(netns.run('ip route'), '');
  for (const one of [four, six, four, six]) requests.removeAddress(ifindex, one);
  t.equal(netns.run('ip -o addr show v0'), '');
});

t.test('routes stand beside those of others, and only ours are removed', { skip: withoutRoot }, async (t) => {
  const { netns, requests, ifindex, route } = setUp(t);
  netns.run('ip link set v1 addrgenmode none');
  netns.run('ip route add 10.9.0.0/24 dev v1 metric 4096');
  netns.run('ip -6 route add fd09::/64 dev v1 metric 4096');
  const was = netns.run('ip route') + netns.run('ip -6 route');
  const six: RouteSpec = { ...route, family: 6, destination: FD09, prefixLength: 64, ifindex };
  for (const one of [route, six, route, six]) requests.addRoute(one);
  t.match(netns.run('ip route'), /10\.9\.0\.0\/24 dev v0 proto 110 scope link metric 4096/);
  t.match(netns.run('ip -6 route'), /fd09::\/64 dev v0 proto 110 metric 4096/);
  for (const one of [route, six, route, six]) requests.removeRoute(one);
  t.equal(netns.run('ip route') + netns.run('ip -6 route'), was);
});

t.test('a table is emptied of our routes only', { skip: withoutRoot }, async (t) => {
  const { netns, requests, route } = setUp(t);
  netns.run('ip route add 10.7.0.0/24 dev v0 table 7430000');
  requests.addRoute({ ...route, table: 7_430_000 });
  requests.addRoute({ ...route, table: 7_430_001 });
  requests.addRoute({ ...route, family: 6, destination: FD09, prefixLength: 64, table: 7_430_000 });
  requests.flushTable(7_430_000);
  t.match(netns.run('ip route show table 7430000'), /^10\.7\.0\.0\/24 dev v0 scope link \n$/);
  t.equal(netns.run('ip -6 route show table 7430000'), '');
  t.match(netns.run('ip route show table 7430001'), /10\.9\.0\.0\/24/);
});

t.test(
  'rules are read back as they were written, and those of others are not seen',
  { skip: withoutRoot },
  async (t) => {
    const { netns, requests } = setUp(t);
    netns.run('ip rule add from 10.9.0.1 lookup 100');
    const rule: RuleSpec = {
      family: 4,
      from: null,
      to: null,
      oif: '',
      exceptMark: 0,
      table: 7_440_009,
      priority: 20_410,
    };
    const rules: RuleSpec[] = [
      { ...rule, from: bytes(10, 9, 0, 1) },
      { ...rule, oif: 'v0' },
      { ...rule, to: bytes(192, 0, 2, 9), exceptMark: 0x4000_0000, priority: 20_400 },
      { ...rule, family: 6, from: FD09_1 },
    ];
    for (const one of [...rules, ...rules]) requests.addRule(one);
    const key = (one: RuleSpec): string => JSON.stringify(one);
    t.same(requests.rules().map(key).sort(), rules.map(key).sort());
    for (const one of [...rules, ...rules]) requests.removeRule(one);
    t.same(requests.rules(), []);
    t.match(netns.run('ip rule'), /from 10\.9\.0\.1 lookup 100/);
  },
);

t.test('the way to an address is what the kernel would do; none throws', { skip: withoutRoot }, async (t) => {
  const { netns, requests, ifindex } = setUp(t);
  netns.run('ip addr add 10.9.0.1/24 dev v0');
  netns.run('ip route add default via 10.9.0.254');
  t.match(requests.routeTo(bytes(192, 0, 2, 1), 0), {
    ifindex,
    gateway: bytes(10, 9, 0, 254),
    source: bytes(10, 9, 0, 1),
  });
  t.match(requests.routeTo(bytes(10, 9, 0, 5), 0), { ifindex, gateway: null });
  netns.run('ip rule add fwmark 0x40000000 lookup 100');
  netns.run('ip route add default via 10.9.0.253 table 100');
  t.match(requests.routeTo(bytes(192, 0, 2, 1), 0x4000_0000), { gateway: bytes(10, 9, 0, 253) });
  t.throws(() => requests.routeTo(FD09_1, 0), { message: /ENETUNREACH/ });
});

t.test(
  'an address for the host alone is local, never a source by itself, and known as ours',
  { skip: withoutRoot },
  async (t) => {
    const { netns, requests } = setUp(t);
    const vip = bytes(10, 9, 0, 1);
    t.same(
      requests.addresses(1).filter(({ isOurs }) => isOurs),
      [],
    );
    for (const address of [vip, FD09_1]) requests.addHostAddress(1, address, 'lo:fwdfs');
    const said = netns.run('ip addr show lo');
    t.match(said, /inet 10\.9\.0\.1\/32 scope host .*lo:fwdfs/);
    t.match(said, /inet6 fd09::1\/128 scope global deprecated .*nodad|nodad .*deprecated/);
    t.same(
      requests
        .addresses(1)
        .filter(({ isOurs }) => isOurs)
        .map(({ address }) => address),
      [vip, FD09_1],
    );
    t.same([requests.routeTo(vip, 0).isLocal, requests.routeTo(FD09_1, 0).isLocal], [true, true]);
    netns.run('ip route add 192.0.2.0/24 dev v0');
    t.notMatch(netns.run('ip route get 192.0.2.1'), /src 10\.9\.0\.1/);
    t.equal(requests.routeTo(bytes(192, 0, 2, 1), 0).isLocal, false);
    t.throws(() => requests.addHostAddress(1, vip, 'lo:fwdfs'), { code: 'EEXIST' });
    for (const address of [vip, FD09_1]) requests.removeAddress(1, { address, prefixLength: 8 * address.length });
    t.same(
      requests.addresses(1).filter(({ isOurs }) => isOurs),
      [],
    );
  },
);
