import t from 'tap';
import { readdirSync } from 'node:fs';
import type { Logger } from '../../src/base/log.js';
import { silent } from '../../src/base/log.js';
import type { Link, LinkChange } from '../../src/sys/links.js';
import { ARPHRD, LinkMonitor } from '../../src/sys/links.js';
import { Netns, withoutRoot } from '../support/netns.js';

const WAIT_MS = 10_000;
const FLAGS: Readonly<Record<string, number>> = { UP: 1, BROADCAST: 2, LOOPBACK: 8, NOARP: 0x80, MULTICAST: 0x1000 };
const SEEN_FLAGS = Object.values(FLAGS).reduce((all, bit) => all | bit, 0);

interface IpLink {
  readonly ifindex: number;
  readonly ifname: string;
  readonly address?: string;
  readonly mtu: number;
  readonly flags: string[];
  readonly operstate: string;
  readonly addr_info: { family: string; local: string; prefixlen: number }[];
}

/** What the monitor should know, by ip(8). */
function byIp(netns: Netns): object[] {
  const links = JSON.parse(netns.run('ip -j addr')) as IpLink[];
  return links.map((link) => {
    const addresses = (family: string): string[] =>
      link.addr_info.filter((one) => one.family === family).map((one) => `${one.local}/${one.prefixlen}`);
    return {
      index: link.ifindex,
      name: link.ifname,
      address: link.address ?? '',
      mtu: link.mtu,
      flags: link.flags.reduce((all, name) => all | (FLAGS[name] ?? 0), 0),
      operstate: link.operstate.toLowerCase(),
      inet: addresses('inet').sort(),
      inet6: addresses('inet6').sort(),
    };
  });
}

function byMonitor(monitor: LinkMonitor): object[] {
  const links = [...monitor.links().values()].sort((a, b) => a.index - b.index);
  return links.map(({ index, name, address, mtu, flags, operstate, inet, inet6 }) => {
    return {
      index,
      name,
      address,
      mtu,
      flags: flags & SEEN_FLAGS,
      operstate,
      inet: [...inet].sort(),
      inet6: [...inet6].sort(),
    };
  });
}

interface Followed {
  readonly netns: Netns;
  readonly monitor: LinkMonitor;
  /** Every change since the start: `added va`. */
  readonly changes: string[];
  /** Resolves when `condition` holds, which is looked at after every change. */
  readonly until: (condition: () => boolean) => Promise<void>;
  /** Resolves when the monitor knows what ip(8) shows. */
  readonly untilEqual: () => Promise<void>;
}

async function follow(
  t: { teardown: (undo: () => void) => void },
  log: Logger = silent,
  before: string[] = [],
): Promise<Followed> {
  const netns = new Netns('lm');
  t.teardown(() => netns.remove());
  for (const line of before) netns.run(line);
  const monitor = await netns.within(() => new LinkMonitor(log));
  t.teardown(() => monitor.close());
  const changes: string[] = [];
  let look = (): void => undefined;
  let looking: NodeJS.Immediate | undefined;
  monitor.onChange = (kind: LinkChange, link: Link): void => {
    changes.push(`${kind} ${link.name}`);
    // Once for all the changes of a turn: conditions may run ip(8).
    clearImmediate(looking);
    looking = setImmediate(() => look());
  };
  monitor.start();
  const until = (condition: () => boolean): Promise<void> =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(
          new Error(`still waiting after ${changes.join(', ')}: ${JSON.stringify([...monitor.links().values()])}`),
        );
      }, WAIT_MS);
      look = (): void => {
        if (!condition()) return;
        look = (): void => undefined;
        clearTimeout(timer);
        resolve();
      };
      look();
    });
  const untilEqual = (): Promise<void> =>
    until(() => JSON.stringify(byMonitor(monitor)) === JSON.stringify(byIp(netns)));
  return { netns, monitor, changes, until, untilEqual };
}

const PAIR = [
  'ip link add va address 02:00:00:00:00:0a type veth peer name vb',
  'ip addr add 10.0.0.1/24 dev va',
  'ip addr add 10.0.0.2/32 peer 10.9.0.1/32 dev va',
  'ip -6 addr add 2001:db8::1/64 dev va nodad',
];

t.test(
  'after start everything that is there is known, without a change being told',
  { skip: withoutRoot },
  async (t) => {
    const { netns, monitor, changes } = await follow(t, silent, PAIR);
    t.same(byMonitor(monitor), byIp(netns));
    t.same(changes, []);
    const a = monitor.byName('va');
    t.match(a, { type: ARPHRD.ETHER, address: '02:00:00:00:00:0a', mtu: 1500, operstate: 'down', speed: 10_000 });
    t.same(a?.inet, ['10.0.0.1/24', '10.0.0.2/32']);
    t.same(a?.inet6, ['2001:db8::1/64']);
    t.match(monitor.byName('lo'), { index: 1, type: ARPHRD.LOOPBACK, address: '00:00:00:00:00:00', speed: -1 });
    t.equal(monitor.byName('vc'), undefined);
  },
);

t.test('every change of a link and its addresses is followed', { skip: withoutRoot }, async (t) => {
  const { netns, monitor, changes, untilEqual } = await follow(t);
  const steps: [line: string, change: string][] = [
    ['ip link add va type veth peer name vb', 'added va'],
    ['ip link set va mtu 1400', 'changed va'],
    ['ip link set va address 02:00:00:00:00:11', 'changed va'],
    ['ip addr add 10.0.0.1/24 dev va', 'changed va'],
    ['ip -6 addr add 2001:db8::1/64 dev va nodad', 'changed va'],
    ['ip link set va up', 'changed va'],
    ['ip link set vb up', 'changed vb'],
    ['ip addr del 10.0.0.1/24 dev va', 'changed va'],
    ['ip link set va down', 'changed va'],
    ['ip link del va', 'removed va'],
  ];
  for (const [line, change] of steps) {
    changes.length = 0;
    netns.run(line);
    await untilEqual();
    t.ok(changes.includes(change), `${line}: ${change}`);
  }
  t.same([...monitor.links().keys()], [1]);
});

t.test('two ends that are up show operstate up', { skip: withoutRoot }, async (t) => {
  const { netns, monitor, until } = await follow(t, silent, PAIR);
  netns.run('ip link set va up');
  await until(() => monitor.byName('va')?.operstate === 'lowerlayerdown');
  netns.run('ip link set vb up');
  await until(() => monitor.byName('va')?.operstate === 'up' && monitor.byName('vb')?.operstate === 'up');
  t.equal((monitor.byName('va')?.flags ?? 0) & 1, 1);
});

t.test(
  'a rename is told as the old name removed and the new one added, with the index kept',
  { skip: withoutRoot },
  async (t) => {
    const { netns, monitor, changes, untilEqual } = await follow(t, silent, PAIR);
    const before = monitor.byName('va');
    netns.run('ip link set va name vc');
    await untilEqual();
    t.same(changes, ['removed va', 'added vc']);
    t.same(monitor.byName('vc'), { ...before, name: 'vc' });
  },
);

t.test(
  'a link that moves to another namespace is removed, and comes back with it',
  { skip: withoutRoot },
  async (t) => {
    const { netns, monitor, changes, until } = await follow(t, silent, PAIR);
    const other = new Netns('lm2');
    t.teardown(() => other.remove());
    netns.run(`ip link set va netns ${other.name}`);
    await until(() => monitor.byName('va') === undefined);
    t.ok(changes.includes('removed va'));
    other.run(`ip link set va netns ${netns.name}`);
    await until(() => monitor.byName('va') !== undefined);
    t.same(monitor.byName('va')?.inet, [], 'the kernel has taken its addresses');
  },
);

t.test('lost events are made good by listing everything again', { skip: withoutRoot }, async (t) => {
  const messages: string[] = [];
  const log: Logger = { ...silent, info: (_fields, message) => void messages.push(message) };
  const { netns, monitor, changes, untilEqual } = await follow(t, log, [...PAIR, 'ip link add gone type veth']);
  // All of it while the loop can't drain: the socket overflows.
  const script = Array.from({ length: 3000 }, (_, i) => `link set vb mtu ${1000 + (i % 400)}\n`).join('');
  const file = `${t.testdir({ script })}/script`;
  netns.run(`ip -batch ${file}`);
  netns.run('ip link del gone');
  netns.run('ip link set va name kept');
  netns.run('ip link add va type veth peer name late');
  netns.run('ip addr add 10.1.1.1/24 dev late');
  await untilEqual();
  t.ok(messages.includes('events of interfaces were lost; listed them again'));
  t.ok(changes.indexOf('removed va') >= 0 && changes.indexOf('removed va') < changes.indexOf('added va'));
  t.ok(changes.includes('removed gone') && changes.includes('added kept') && changes.includes('added late'));
  netns.run('ip link set late mtu 1280');
  await untilEqual();
  t.equal(monitor.byName('late')?.mtu, 1280, 'events are followed again');
});

t.test('an onChange that throws is logged and stops nothing', { skip: withoutRoot }, async (t) => {
  const errors: object[] = [];
  const { netns, monitor, until } = await follow(t, { ...silent, error: (fields) => void errors.push(fields) }, PAIR);
  const told = monitor.onChange;
  monitor.onChange = (kind, link) => {
    told(kind, link);
    throw new Error('no');
  };
  netns.run('ip link set va mtu 1300');
  await until(() => monitor.byName('va')?.mtu === 1300);
  netns.run('ip link set va mtu 1200');
  await until(() => monitor.byName('va')?.mtu === 1200);
  t.match(errors[0], { interface: 'va', error: 'no' });
});

t.test("statistics are the kernel's of this moment, by the names of sysfs", { skip: withoutRoot }, async (t) => {
  const { netns, monitor } = await follow(t, silent, ['ip link set lo up']);
  t.same([...monitor.statistics(1).keys()].sort(), readdirSync('/sys/class/net/lo/statistics').sort());
  t.equal(monitor.statistics(1).get('rx_packets'), 0);
  netns.run('ping -c 1 127.0.0.1');
  t.equal(monitor.statistics(1).get('rx_packets'), 2);
  t.equal(monitor.statistics(1).get('tx_bytes'), 2 * 84, 'two packets of IP with 64 bytes of ICMP');
  t.throws(() => monitor.statistics(4711), { code: 'interface-gone' });
});

t.test('nothing is told after close, and closing again does nothing', { skip: withoutRoot }, async (t) => {
  const { netns, monitor, changes } = await follow(t);
  monitor.close();
  monitor.close();
  netns.run('ip link add va type veth peer name vb');
  await new Promise((resolve) => setImmediate(resolve));
  t.same(changes, []);
});
