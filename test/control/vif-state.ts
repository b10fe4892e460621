import t from 'tap';
import { deviceOfTable, deviceRules, mirrorState, tableOf, VIF_ROUTE_METRIC } from '../../src/control/vif-state.js';
import { formatIpAddress } from '../../src/packet/ip-address.js';
import { MAIN_TABLE, type RouteSpec } from '../../src/sys/route-requests.js';
import { ETH0, ETH0_DOWN } from '../support/mirror.js';

const TAP = { name: 'fwd1-eth0', ifindex: 7, kind: 'tap', apart: false } as const;
const TUN = { ...TAP, kind: 'tun' } as const;
const ip = (address: Buffer | null): string => (address === null ? '-' : formatIpAddress(address, 0, address.length));

/** `10.9.0.0/24 via - table own metric 0 src 10.9.0.1` */
function inWords({ destination, prefixLength, gateway, table, metric, source }: RouteSpec): string {
  const name = table === MAIN_TABLE ? 'main' : table === tableOf(7) ? 'own' : `${table}`;
  return `${ip(destination)}/${prefixLength} via ${ip(gateway)} table ${name} metric ${metric} src ${ip(source)}`;
}
const routes = (...args: Parameters<typeof mirrorState>): string[] =>
  Array.from(mirrorState(...args).routes.values(), inWords);

t.test('connected prefixes are in both tables, gateways in the own one', async (t) => {
  t.same(routes({ ...ETH0, inet6: [], routes: ['default via 10.9.0.254'] }, TAP), [
    `10.9.0.0/24 via - table main metric ${VIF_ROUTE_METRIC} src 10.9.0.1`,
    '10.9.0.0/24 via - table own metric 0 src 10.9.0.1',
    '-/0 via 10.9.0.254 table own metric 0 src -',
  ]);
});

t.test('in a namespace apart gateways are in main too', async (t) => {
  t.same(routes({ ...ETH0, inet: [], inet6: [], routes: ['default via 10.9.0.254'] }, { ...TAP, apart: true }), [
    '-/0 via 10.9.0.254 table own metric 0 src -',
    `-/0 via 10.9.0.254 table main metric ${VIF_ROUTE_METRIC} src -`,
  ]);
});

t.test('networks are cut at any prefix length; one address has no prefix', async (t) => {
  const of = (inet: string[], inet6: string[] = []): string[] =>
    routes({ ...ETH0, inet, inet6, routes: [] }, TAP).filter((line) => line.includes('own'));
  t.same(of(['10.9.255.255/17']), ['10.9.128.0/17 via - table own metric 0 src 10.9.255.255']);
  t.same(of(['10.9.0.3/31']), ['10.9.0.2/31 via - table own metric 0 src 10.9.0.3']);
  t.same(of(['10.9.0.3/8']), ['10.0.0.0/8 via - table own metric 0 src 10.9.0.3']);
  t.same(of(['10.9.0.3/32'], ['fd09::1/128']), []);
  t.same(of([], ['fd09:0:0:ff::1/60']), ['fd09:0:0:f0::/60 via - table own metric 0 src -']);
  t.same(of(['10.9.0.1/24', '10.9.0.7/24']), ['10.9.0.0/24 via - table own metric 0 src 10.9.0.1']);
});

t.test('of several routes to one destination the first one comes first', async (t) => {
  const texts = ['default via 10.9.0.254', 'default via 10.9.0.253', 'default via fe80::1', 'default via fe80::2'];
  t.same(routes({ ...ETH0, inet: [], inet6: [], routes: texts }, TAP), [
    '-/0 via 10.9.0.254 table own metric 0 src -',
    '-/0 via 10.9.0.253 table own metric 1 src -',
    '-/0 via fe80::1 table own metric 1024 src -',
    '-/0 via fe80::2 table own metric 1025 src -',
  ]);
});

t.test('a tun device has no MAC and needs no gateways', async (t) => {
  const state = mirrorState(ETH0, TUN);
  t.equal(state.mac, null);
  t.ok([...state.routes.values()].every(({ gateway }) => gateway === null));
});

t.test('each address that is not link-local has a rule, and the device one of each family', async (t) => {
  const rules = [...mirrorState(ETH0, TAP).rules.values()];
  t.same(
    rules.map(({ from, table }) => `${ip(from)} ${table === tableOf(7)}`),
    ['10.9.0.1 true', '10.9.0.7 true', 'fd09::1 true'],
  );
  t.same(
    Array.from(deviceRules(TAP).values(), ({ family, from, oif }) => [family, from, oif]),
    [
      [4, null, 'fwd1-eth0'],
      [6, null, 'fwd1-eth0'],
    ],
  );
});

t.test('a device that is down has no routes and no IPv6 addresses; below its MTU there is no IPv6', async (t) => {
  const down = mirrorState(ETH0_DOWN, TAP);
  t.equal(down.routes.size, 0);
  t.same(
    Array.from(down.addresses.values(), ({ address }) => ip(address)),
    ['10.9.0.1', '10.9.0.7'],
  );
  t.equal(down.carrier, false);
  t.equal(mirrorState({ ...ETH0, mtu: 1279 }, TAP).addresses.size, 2);
  t.equal(mirrorState({ ...ETH0, mtu: 1280 }, TAP).addresses.size, 4);
});

t.test('the carrier is on while the interface is up, or does not say', async (t) => {
  const carrier = (operstate: string): boolean => mirrorState({ ...ETH0, operstate }, TAP).carrier;
  t.same(['up', 'unknown', 'down', 'lowerlayerdown', 'dormant', 'notpresent'].map(carrier), [
    true,
    true,
    false,
    false,
    false,
    false,
  ]);
});

t.test('what is no address or route is left out', async (t) => {
  const inet = ['10.9.0.1', '10.9.0.1/33', '10.9.0.1/x', '', '10.9.0.256/24', '10.9.0.1/-1', '10.9.0.5/24'];
  const nonsense = [
    'default',
    'default via',
    'default dev eth0',
    'default via x',
    '10.0.0.0/8 via fe80::1',
    'x via 10.9.0.1',
  ];
  const state = mirrorState({ ...ETH0, inet, inet6: ['fd09::1/129'], routes: nonsense }, TAP);
  t.same(
    Array.from(state.addresses.values(), ({ address }) => ip(address)),
    ['10.9.0.5'],
  );
  t.equal(state.routes.size, 2);
});

t.test('a table tells its device', async (t) => {
  t.equal(deviceOfTable(tableOf(7)), 7);
  t.equal(deviceOfTable(MAIN_TABLE), 0);
});
