import t from 'tap';
import { LinkPin, sweepPins } from '../../src/control/pin.js';
import { silent } from '../../src/base/log.js';
import { RouteRequests } from '../../src/sys/route-requests.js';
import { until } from '../support/lab.js';
import { DEVICE, ETH0, everything, makeMirror } from '../support/mirror.js';
import { connectVeth, Netns, withoutRoot } from '../support/netns.js';

interface Scene {
  readonly netns: Netns;
  readonly pins: LinkPin;
  /** Where the kernel sends what is for an address: `via 10.8.0.9 dev c0`. */
  readonly way: (address: string, family?: string) => string;
  readonly pin: (address: string) => () => void;
}

/** A control device at 10.8.0.1 (c0) and 10.7.0.1 (d0), with a default route through c0. */
function setUp(t: { teardown(undo: () => void): void }): Scene {
  const [netns, other] = [new Netns('pin'), new Netns('pin')];
  t.teardown(() => netns.remove());
  t.teardown(() => other.remove());
  connectVeth({ netns, name: 'c0', addresses: ['10.8.0.1/24', 'fd08::1/64'] }, { netns: other, name: 'c1' });
  connectVeth({ netns, name: 'd0', addresses: ['10.7.0.1/24'] }, { netns: other, name: 'd1' });
  netns.run('ip route add default via 10.8.0.9');
  const pins = new LinkPin(silent);
  const way = (address: string, family = '-4'): string => {
    const answer = netns.run(`ip ${family} route get ${address}`);
    return /(via \S+ )?dev \S+/.exec(answer)?.[0] ?? answer;
  };
  const pin = (address: string): (() => void) => {
    const leave = netns.enter();
    try {
      return pins.pin(address);
    } finally {
      leave();
    }
  };
  return { netns, pins, way, pin };
}

t.test('a forwarder within a mirrored prefix is reached as it was before', { skip: withoutRoot }, async (t) => {
  const { netns, way, pin } = setUp(t);
  const mirror = await makeMirror(netns);
  t.teardown(() => mirror.remove());
  t.equal(way('10.9.0.200'), 'via 10.8.0.9 dev c0');
  const release = pin('10.9.0.200');
  t.teardown(release);
  mirror.apply(ETH0);
  t.equal(way('10.9.0.200'), 'via 10.8.0.9 dev c0');
  t.equal(way('10.9.0.201'), `dev ${DEVICE}`);
  release();
  t.equal(way('10.9.0.200'), `dev ${DEVICE}`);
});

t.test(
  'a route of a routing daemon through the mirror does not take the tunnel along',
  { skip: withoutRoot },
  async (t) => {
    const { netns, way, pin } = setUp(t);
    const mirror = await makeMirror(netns);
    t.teardown(() => mirror.remove());
    mirror.apply(ETH0);
    t.teardown(pin('203.0.113.7'));
    t.teardown(pin('fd08::7'));
    netns.run('ip route add 203.0.113.0/24 via 10.9.0.3');
    netns.run('ip -6 route add fd08::7/128 via fd09::3');
    t.equal(way('203.0.113.8'), `via 10.9.0.3 dev ${DEVICE}`);
    // Longer than it takes to follow the routes: the answer through the virtual IF is not taken.
    await new Promise((resolve) => setTimeout(resolve, 400));
    t.equal(way('203.0.113.7'), 'via 10.8.0.9 dev c0');
    t.match(way('fd08::7', '-6'), /dev c0/);
  },
);

t.test('the pin follows the routes of the control device', { skip: withoutRoot }, async (t) => {
  const { netns, way, pin } = setUp(t);
  t.teardown(pin('203.0.113.7'));
  netns.run('ip route add 203.0.113.0/24 via 10.7.0.9');
  const pinned = (): string =>
    netns
      .run('ip route show table all')
      .match(/203\.0\.113\.7 .*/g)
      ?.join() ?? '';
  await until(() => /^203\.0\.113\.7 via 10\.7\.0\.9 dev d0 table 743\d+ proto 110[^,]*$/.test(pinned()));
  netns.run('ip link set d0 down');
  await until(() => /^203\.0\.113\.7 via 10\.8\.0\.9 dev c0 [^,]*$/.test(pinned()));
  t.equal(way('203.0.113.7'), 'via 10.8.0.9 dev c0');
  netns.run('ip link set d0 up');
  netns.run('ip route add 203.0.113.0/24 via 10.7.0.9');
  await until(() => /^203\.0\.113\.7 via 10\.7\.0\.9 dev d0 [^,]*$/.test(pinned()));
  t.equal(way('203.0.113.7'), 'via 10.7.0.9 dev d0');
});

t.test('a way that is lost and comes back is pinned again', { skip: withoutRoot }, async (t) => {
  const { netns, way, pin } = setUp(t);
  t.teardown(pin('203.0.113.7'));
  netns.run('ip link set c0 down');
  t.throws(() => way('203.0.113.7'));
  netns.run('ip link set c0 up');
  netns.run('ip route add default via 10.8.0.9');
  await until(() => /203\.0\.113\.7 via 10\.8\.0\.9 dev c0 table 743/.test(netns.run('ip route show table all')));
  t.pass();
});

t.test('pins are shared: the last holder takes them away, and nothing is left', { skip: withoutRoot }, async (t) => {
  const { netns, pin } = setUp(t);
  const was = everything(netns);
  const releases = [pin('203.0.113.7'), pin('203.0.113.7'), pin('198.51.100.7')];
  t.equal([...netns.run('ip rule').matchAll(/proto 110/g)].length, 2);
  releases[0]?.();
  releases[0]?.();
  t.match(netns.run('ip rule'), /203\.0\.113\.7/);
  releases[1]?.();
  t.notMatch(netns.run('ip rule'), /203\.0\.113\.7/);
  t.match(netns.run('ip rule'), /198\.51\.100\.7/);
  releases[2]?.();
  t.equal(everything(netns), was);
  pin('203.0.113.7')();
  t.equal(everything(netns), was);
});

t.test('what needs no pin, and what is no address, leaves no trace', { skip: withoutRoot }, async (t) => {
  const { netns, pin } = setUp(t);
  const was = everything(netns);
  for (const address of ['127.0.0.1', '::1', 'fe80::1', '169.254.1.1', 'forwarder.example', '']) {
    const release = pin(address);
    t.equal(everything(netns), was, address);
    release();
  }
});

t.test(
  'each process has a table of its own, and sweeping leaves those of the living alone',
  { skip: withoutRoot },
  async (t) => {
    const { netns, pin } = setUp(t);
    const other = new LinkPin(silent);
    const release = await netns.within(() => other.pin('203.0.113.7'));
    t.teardown(release);
    t.teardown(pin('203.0.113.7'));
    t.equal(new Set(netns.run('ip rule').match(/lookup 743\d+/g)).size, 2);
    const was = everything(netns);
    await netns.within(() => {
      const requests = new RouteRequests();
      sweepPins(requests, silent);
      requests.close();
    });
    t.equal(everything(netns), was);
  },
);
