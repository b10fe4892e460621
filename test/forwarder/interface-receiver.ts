/** src/forwarder/interface-receiver.ts on an inlet that writes down what is asked of it. */
import t from 'tap';
import { Counters } from '../../src/base/counters.js';
import { COARSE_FILTER_DELAY_MS, MAX_FRAME_BYTES } from '../../src/base/limits.js';
import { InterfaceRules, type Rule } from '../../src/forwarder/distribution-table.js';
import { FlowTable } from '../../src/forwarder/flow-table.js';
import { InterfaceReceiver } from '../../src/forwarder/interface-receiver.js';
import { Resets } from '../../src/forwarder/resets.js';
import type { LinkType } from '../../src/packet/headers.js';
import { PKTTYPE } from '../../src/sys/packet-socket.js';
import { FakeInlet } from '../support/fake-inlet.js';
import { makePeer, makeRule, type PeerEnd } from '../support/fake-peer.js';
import { ethernet, ipv4, MAC_B, udp } from '../vectors/packet-frames.js';

const to = (port: number, length = 20): Buffer =>
  ethernet(0x0800, ipv4({ protocol: 17 }, udp(40000, port, Buffer.alloc(length, port))));
const lldp = ethernet(0x88cc, Buffer.alloc(46));

/** One interface; rules are added to its table and told to its receiver, as the forwarder does. */
class Bench {
  readonly rules = new InterfaceRules();
  readonly flows = new FlowTable(
    () => 0,
    () => undefined,
    this.rules,
  );
  readonly counters = new Counters();
  readonly one: PeerEnd = makePeer('ctl1');
  readonly errors: number[] = [];
  readonly receiver: InterfaceReceiver;
  inlet!: FakeInlet;

  constructor(linkType: LinkType = 'ethernet', before: readonly string[] = [], failing = '') {
    for (const text of before) this.rules.add(makeRule(this.one.peer, text));
    this.receiver = new InterfaceReceiver({
      open: (sink) => {
        this.inlet = new FakeInlet(sink);
        this.inlet.failing = failing;
        return this.inlet;
      },
      linkType,
      rules: this.rules,
      flows: this.flows,
      resets: new Resets(() => 0, this.counters),
      own: { mac: MAC_B, ip: [Buffer.from([10, 0, 0, 2])] },
      counters: this.counters,
      onFailed: (errno) => this.errors.push(errno),
    });
  }

  add(text: string, more: Partial<Rule> = {}, peer = this.one.peer): Rule {
    const rule = makeRule(peer, text, more);
    this.rules.add(rule);
    this.receiver.ruleAdded(rule);
    return rule;
  }

  remove(rule: Rule): void {
    this.rules.remove(rule);
    this.receiver.ruleRemoved(rule);
  }

  /** What was asked of the inlet since the last look. */
  calls(): string[] {
    return this.inlet.calls.splice(0);
  }

  /** Up tunnels of the data frames that were sent since the last look. */
  tunnels(to: PeerEnd = this.one): number[] {
    return to.channel.takeLines().map((line) => Number(/tunnel=(\d+)/.exec(line)?.[1]));
  }
}

/** Resolves when the filter may be rebuilt again, and so often that nothing is pending. */
async function filterDelay(): Promise<void> {
  for (let i = 0; i < 3; i += 1) await new Promise((resolve) => setTimeout(resolve, COARSE_FILTER_DELAY_MS + 1));
}

t.test('a received frame goes to every rule that it matches, a batch per control device', async (t) => {
  const bench = new Bench();
  t.teardown(() => bench.receiver.close());
  const two = makePeer('ctl2');
  const rules = [bench.add('*'), bench.add('udp:520'), bench.add('udp:521')];
  const theirs = bench.add('udp', {}, two.peer);
  bench.inlet.receive([to(520), to(521), lldp]);
  const [any, rip, ripng] = rules.map((rule) => rule.upTunnel);
  t.same(bench.tunnels(), [any, rip, any, ripng, any]);
  t.same(bench.tunnels(two), [theirs.upTunnel, theirs.upTunnel]);
  t.same([bench.one.channel.messages.length, two.channel.messages.length], [1, 1]);
  t.match(theirs, { frames: 2, bytes: 2 * to(520).length, sent: 2 * to(520).length, dropped: 0 });
  t.equal(bench.counters.get('forwarder_rx_frames'), 3);
  t.equal(bench.counters.get('forwarder_up_frames'), 7);
  bench.inlet.receive([to(9)]);
  t.same(bench.tunnels(two), [theirs.upTunnel], 'and the next batch is another');
});

t.test('the scope decides which frames are seen, and which end is the local one', async (t) => {
  const bench = new Bench();
  t.teardown(() => bench.receiver.close());
  const ids = new Map(
    (['in', 'out', 'both', 'promisc'] as const).map((scope) => [bench.add('udp:520', { scope }).upTunnel, scope]),
  );
  const seen = (frame: Buffer, pkttype: number): string[] => {
    bench.inlet.receive([frame], pkttype);
    return bench.tunnels().map((id) => ids.get(id) ?? '?');
  };
  const from520 = ethernet(0x0800, ipv4({ protocol: 17 }, udp(520, 9, Buffer.alloc(20))));
  const cases: [what: string, frame: Buffer, pkttype: number, scopes: string[]][] = [
    ['for us', to(520), PKTTYPE.HOST, ['in', 'both', 'promisc']],
    ['broadcast', to(520), PKTTYPE.BROADCAST, ['in', 'both', 'promisc']],
    ['multicast', to(520), PKTTYPE.MULTICAST, ['in', 'both', 'promisc']],
    ['for another host', to(520), PKTTYPE.OTHERHOST, ['promisc']],
    ['sent', from520, PKTTYPE.OUTGOING, ['out', 'both']],
    ['sent to that port', to(520), PKTTYPE.OUTGOING, []],
    ['received from that port', from520, PKTTYPE.HOST, []],
  ];
  for (const [what, frame, pkttype, scopes] of cases) t.same(seen(frame, pkttype), scopes, what);
  bench.inlet.receive([from520], PKTTYPE.OUTGOING);
  t.match(bench.one.channel.takeLines(), [/flags=1/, /flags=1/], 'a sent frame says so');
});

t.test('what is not delivered is counted with its reason', async (t) => {
  const bench = new Bench();
  t.teardown(() => bench.receiver.close());
  const away = makePeer('ctl2');
  away.peer.active = false;
  const length = to(520).length;
  const poor = bench.add('udp:520', { granted: 2 * length - 1 });
  const suspended = bench.add('udp:521', {}, away.peer);
  const later = ethernet(0x0800, ipv4({ protocol: 17, id: 9, fragment: 4 }, Buffer.alloc(20)));
  bench.inlet.receive([to(520), to(520), to(521), to(522), later, Buffer.alloc(13), Buffer.alloc(MAX_FRAME_BYTES + 4)]);
  bench.inlet.sink.truncated(99_999);
  const { counters } = bench;
  const reasons = [
    'drop_no_credit',
    'drop_suspended',
    'drop_no_rule',
    'drop_fragment_unknown',
    'drop_malformed',
    'drop_truncated',
  ] as const;
  t.same(
    reasons.map((name) => counters.get(name)),
    [1, 1, 1, 1, 1, 2],
  );
  t.same([poor.frames, poor.dropped, poor.sent, suspended.dropped, suspended.frames], [1, 1, length, 1, 0]);
  poor.granted += 1;
  bench.inlet.receive([to(520), to(520)]);
  t.same([poor.frames, poor.dropped], [2, 2], 'credit that came is used, to the byte');
});

t.test('later fragments follow their first one to the rule with its port', async (t) => {
  const bench = new Bench();
  t.teardown(() => bench.receiver.close());
  const rule = bench.add('udp:10.0.0.2:520');
  const whole = udp(1, 520, Buffer.alloc(40));
  const fragment = (field: number, bytes: Buffer): Buffer =>
    ethernet(0x0800, ipv4({ protocol: 17, id: 5, fragment: field }, bytes));
  bench.inlet.receive([fragment(0x2000, whole.subarray(0, 24)), fragment(3, whole.subarray(24))]);
  t.same(bench.tunnels(), [rule.upTunnel, rule.upTunnel]);
});

t.test('the drops of the kernel are collected when they are asked for and at the end', async (t) => {
  const bench = new Bench();
  bench.inlet.drops = 3;
  bench.receiver.collectDrops();
  t.equal(bench.counters.get('drop_socket_full'), 3);
  bench.inlet.drops = 2;
  bench.receiver.close();
  t.equal(bench.counters.get('drop_socket_full'), 5);
  t.equal(bench.calls().at(-1), 'close');
});

t.test('without rules nothing passes the filter; a rule passes when ruleAdded returns', async (t) => {
  const bench = new Bench();
  t.teardown(() => bench.receiver.close());
  t.notOk(bench.inlet.passes(to(520)) || bench.inlet.passes(lldp));
  bench.add('udp:520');
  t.ok(bench.inlet.passes(to(520)));
  t.notOk(bench.inlet.passes(to(521)));
  for (const port of [600, 601, 602, 603]) {
    bench.add(`udp:${port}`);
    t.ok(bench.inlet.passes(to(port)) && bench.inlet.passes(to(520)), `${port}`);
  }
});

t.test(
  'what the kernel converts for a virtual IP address does not pass, errors about flows of sockets do',
  async (t) => {
    const bench = new Bench();
    t.teardown(() => bench.receiver.close());
    bench.add('udp:10.0.0.2:520', { mode: 'vip', vip: Buffer.from([10, 0, 0, 2]) });
    t.notOk(bench.inlet.passes(to(520)));
    const error = ethernet(0x0800, ipv4({ protocol: 1 }, Buffer.from([3, 4, 0, 0, 0, 0, 0, 0])));
    t.notOk(bench.inlet.passes(error));
    bench.add('udp:600', { mode: 'socket' });
    await filterDelay();
    t.ok(bench.inlet.passes(to(600)) && bench.inlet.passes(error));
    t.notOk(bench.inlet.passes(to(520)));
  },
);

t.test('the filter is rebuilt at most once in its time, and is exact in the end', async (t) => {
  const bench = new Bench();
  t.teardown(() => bench.receiver.close());
  const before = bench.inlet.filters.length;
  const rules = Array.from({ length: 50 }, (_, index) => bench.add(`udp:${1000 + index}`));
  t.equal(bench.inlet.filters.length - before, 2, 'one for the first, one that passes everything for all others');
  await filterDelay();
  t.equal(bench.inlet.filters.length - before, 3);
  t.ok(bench.inlet.passes(to(1049)));
  t.notOk(bench.inlet.passes(to(520)));
  for (const rule of rules) bench.remove(rule);
  t.equal(bench.inlet.filters.length - before, 3, 'what is too wide for a moment does no harm');
  await filterDelay();
  t.equal(bench.inlet.filters.length - before, 4);
  t.notOk(bench.inlet.passes(to(1049)));
});

t.test('rules that come and go for long cost one rebuild in its time', async (t) => {
  const bench = new Bench();
  t.teardown(() => bench.receiver.close());
  const start = performance.now();
  const before = bench.inlet.filters.length;
  let missed = 0;
  while (performance.now() - start < 60) {
    const rule = bench.add('udp:520');
    if (!bench.inlet.passes(to(520))) missed += 1;
    bench.remove(rule);
    await new Promise((resolve) => setImmediate(resolve));
  }
  const elapsed = performance.now() - start;
  t.equal(missed, 0, 'no wanted frame is dropped');
  const exact = bench.inlet.filters.slice(before).filter((program) => program.length > 8 || program[7] === 0).length;
  t.ok(exact <= elapsed / COARSE_FILTER_DELAY_MS + 2, `${exact} rebuilds in ${Math.round(elapsed)} ms`);
});

t.test('what a scope needs of the interface is asked for once and taken back with the last rule', async (t) => {
  const bench = new Bench();
  t.teardown(() => bench.receiver.close());
  bench.calls();
  const cases: [text: string, scope: Rule['scope'], calls: string[]][] = [
    ['*', 'in', ['allmulti']],
    ['udp:520', 'in', ['allmulti']],
    ['*', 'out', ['outgoing']],
    ['*', 'both', ['outgoing', 'allmulti']],
    ['*', 'promisc', ['promisc', 'allmulti']],
    ['udp:10.0.0.1:520', 'in', []],
    ['udp:10.0.0.1:520', 'promisc', ['promisc']],
    ['udp:239.129.2.3:520', 'in', ['multicast 01005e010203']],
    ['udp:[ff02::1:ff00:7]:520', 'in', ['multicast 3333ff000007']],
    ['udp:[2001:db8::1]:520', 'in', []],
    ['udp:239.129.2.3:520', 'out', ['outgoing']],
  ];
  for (const [text, scope, needs] of cases) {
    const rules = [bench.add(text, { scope }), bench.add(text, { scope })];
    t.same(
      bench.calls(),
      needs.map((need) => `+${need}`),
      `${text} ${scope}`,
    );
    bench.remove(rules[0]!);
    t.same(bench.calls(), [], 'another one needs it');
    bench.remove(rules[1]!);
    t.same(
      bench.calls(),
      needs.map((need) => `-${need}`),
      `${text} ${scope} goes`,
    );
  }
  const groups = [bench.add('udp:239.1.2.3:1'), bench.add('udp:239.129.2.3:1'), bench.add('udp:239.1.2.4:1')];
  t.same(bench.calls(), ['+multicast 01005e010203', '+multicast 01005e010204'], 'two groups share a MAC address');
  for (const rule of groups) bench.remove(rule);
  t.same(bench.calls(), ['-multicast 01005e010203', '-multicast 01005e010204']);
});

t.test('a link without MAC addresses has no groups to join', async (t) => {
  const bench = new Bench('raw');
  t.teardown(() => bench.receiver.close());
  bench.calls();
  bench.add('*');
  bench.add('udp:239.1.2.3:1');
  t.same(bench.calls(), []);
});

t.test('the rules of an interface that comes back are served from the start', async (t) => {
  const bench = new Bench('ethernet', ['udp:520', '*']);
  t.teardown(() => bench.receiver.close());
  t.same(bench.calls(), ['+allmulti', 'start'], 'it starts when all is ready');
  t.ok(bench.inlet.passes(lldp));
});

t.test('a receiver that cannot start closes its socket', async (t) => {
  for (const failing of ['start', '+allmulti', 'filter']) {
    let inlet: FakeInlet | undefined;
    const rules = new InterfaceRules();
    rules.add(makeRule(makePeer().peer, '*'));
    const open = (sink: FakeInlet['sink']): FakeInlet => {
      inlet = new FakeInlet(sink);
      inlet.failing = failing;
      return inlet;
    };
    const flows = new FlowTable(
      () => 0,
      () => undefined,
      rules,
    );
    const own = { mac: MAC_B, ip: [] };
    const options = {
      open,
      linkType: 'ethernet',
      rules,
      flows,
      resets: new Resets(() => 0, new Counters()),
      own,
      counters: new Counters(),
      onFailed: () => undefined,
    } as const;
    t.throws(() => new InterfaceReceiver(options), { message: `${failing} failed` });
    t.equal(inlet?.calls.at(-1), 'close', failing);
  }
});

t.test('a rule that could not be set takes nothing along when it is removed', async (t) => {
  const bench = new Bench();
  t.teardown(() => bench.receiver.close());
  bench.calls();
  bench.inlet.failing = '+allmulti';
  const rule = makeRule(bench.one.peer, '*', { scope: 'promisc' });
  bench.rules.add(rule);
  t.throws(() => bench.receiver.ruleAdded(rule));
  bench.inlet.failing = '';
  bench.remove(rule);
  t.same(bench.calls(), ['+promisc', '-promisc'], 'only what it had');
  const next = bench.add('*');
  t.same(bench.calls(), ['+allmulti'], 'and the next one asks again');
  bench.remove(next);
  t.same(bench.calls(), ['-allmulti']);
});

t.test('a filter that the kernel does not take later leaves the wider one, and nothing ends', async (t) => {
  const bench = new Bench();
  t.teardown(() => bench.receiver.close());
  bench.add('udp:520');
  bench.add('udp:521');
  bench.inlet.failing = 'filter';
  await filterDelay();
  t.equal(bench.errors.length, 1);
  t.ok(bench.inlet.passes(to(520)) && bench.inlet.passes(to(521)));
  bench.inlet.failing = '';
  bench.remove(bench.add('udp:522'));
  await filterDelay();
  t.ok(bench.inlet.passes(to(520)) && bench.inlet.passes(to(521)));
  t.notOk(bench.inlet.passes(to(522)));
});
