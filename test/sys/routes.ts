import t from 'tap';
import { ifNameToIndex } from '../../src/sys/libc.js';
import { RouteMonitor } from '../../src/sys/routes.js';
import { until } from '../support/lab.js';
import { keepLog } from '../support/log.js';
import { connectVeth, Netns, withoutRoot } from '../support/netns.js';

interface Scene {
  readonly netns: Netns;
  readonly monitor: RouteMonitor;
  readonly index: number;
  readonly told: () => number;
  /** Gatewayed routes, `4 default via 10.9.0.2`. */
  readonly lines: () => string[];
}

async function setUp(t: { teardown: (undo: () => void) => void }): Promise<Scene> {
  const [netns, far] = [new Netns('route'), new Netns('route')];
  t.teardown(() => {
    netns.remove();
    far.remove();
  });
  connectVeth(
    { netns, name: 'eth0', addresses: ['10.9.0.1/24', 'fd09::1/64'] },
    { netns: far, name: 'n0', addresses: ['10.9.0.2/24'] },
  );
  const [monitor, index] = await netns.within(() => [new RouteMonitor(keepLog()), ifNameToIndex('eth0')] as const);
  t.teardown(() => monitor.close());
  let told = 0;
  monitor.onChange = () => (told += 1);
  monitor.start();
  const lines = (): string[] =>
    monitor
      .routes()
      .filter(({ gateway }) => gateway !== '')
      .map(({ family, destination, gateway, metric }) => `${family} ${destination} via ${gateway} ${metric}`)
      .sort();
  return { netns, monitor, index, told: () => told, lines };
}

t.test('routes that are there, come and go are listed', { skip: withoutRoot }, async (t) => {
  const { netns, monitor, index, told, lines } = await setUp(t);
  t.match(
    monitor.routes().filter(({ destination }) => destination === '10.9.0.0/24'),
    [{ family: 4, gateway: '', oif: index, type: 1, protocol: 2 }],
  );
  const before = told();
  netns.run('ip route add default via 10.9.0.2 metric 7');
  netns.run('ip route add 10.2.0.0/16 nexthop via 10.9.0.2 nexthop via 10.9.0.3');
  netns.run('ip -6 route add default via fd09::2 metric 8');
  netns.run('ip route add 10.4.0.0/16 via 10.9.0.2 table 99');
  const all = [
    '4 10.2.0.0/16 via 10.9.0.2 0',
    '4 10.2.0.0/16 via 10.9.0.3 0',
    '4 default via 10.9.0.2 7',
    '6 default via fd09::2 8',
  ];
  await until(() => lines().length === all.length);
  t.same(lines(), all);
  t.ok(told() > before);
  netns.run('ip route replace default via 10.9.0.4 metric 7');
  netns.run('ip route del 10.2.0.0/16');
  await until(() => lines().length === 2);
  t.same(lines(), ['4 default via 10.9.0.4 7', '6 default via fd09::2 8']);
});

t.test('routes that the kernel takes away with their link are gone', { skip: withoutRoot }, async (t) => {
  const { netns, lines } = await setUp(t);
  netns.run('ip route add default via 10.9.0.2');
  await until(() => lines().length === 1);
  netns.run('ip link set eth0 down');
  await until(() => lines().length === 0);
  t.same(lines(), []);
});

t.test('the next hop is what the kernel says for the interface', { skip: withoutRoot }, async (t) => {
  const { netns, monitor, index } = await setUp(t);
  netns.run('ip route add 10.2.0.0/16 via 10.9.0.2');
  const hop = (...address: number[]): string => monitor.nextHop(index, Buffer.from(address)).join('.');
  t.equal(hop(10, 9, 0, 77), '10.9.0.77', 'on the link');
  t.equal(hop(10, 2, 0, 1), '10.9.0.2', 'by its gateway');
  t.equal(hop(10, 9, 0, 255), '', 'broadcast');
  t.throws(() => monitor.nextHop(index, Buffer.from('fd990000000000000000000000000001', 'hex')), {
    name: 'SystemError',
  });
});
