/** src/forwarder/socket-groups.ts: which group a packet is for, and which member. */
import t from 'tap';
import { parseIpv4 } from '../../src/packet/ip-address.js';
import type { Peer } from '../../src/forwarder/peer.js';
import type { Rule, VifEnd } from '../../src/forwarder/rule.js';
import { Balancing, SERVED, SocketGroups } from '../../src/forwarder/socket-groups.js';
import { makePeer, makeRule } from '../support/fake-peer.js';

const TCP = 6;
const A = parseIpv4('10.9.0.1')!;
const B = parseIpv4('10.9.0.7')!;

class Bench {
  readonly balancing = new Balancing();
  readonly groups = new SocketGroups(this.balancing);
  readonly peers = ['ctl1', 'ctl2', 'ctl3'].map((name): Peer => makePeer(name).peer);

  add(text: string, index: number, more: Partial<Rule> = {}): Rule {
    const rule = makeRule(this.peers[index]!, text, { mode: 'socket', ...more });
    this.groups.add(rule);
    return rule;
  }

  vip(address: Buffer, index: number): Rule {
    const text = `tcp:${address.join('.')}:80`;
    return this.add(text, index, { mode: 'vip', vip: address });
  }

  /** The group, or who else has it. */
  find(port: number, address = A, opens = true): string | number {
    const served = this.groups.find(TCP, port, address, 0, 4, opens);
    return served === SERVED.BY_GROUP ? this.groups.found!.protocol.text : served;
  }

  /** How many of 1000 flows each rule gets. */
  spread(port = 80, address = A): Map<Rule | null, number> {
    const counts = new Map<Rule | null, number>();
    this.groups.find(TCP, port, address, 0, 4, true);
    for (let flow = 0; flow < 1000; flow++) {
      const rule = this.groups.found!.pick(Math.imul(flow + 1, 0x9e3779b1) >>> 0);
      counts.set(rule, (counts.get(rule) ?? 0) + 1);
    }
    return counts;
  }
}

t.test('the group with the local address goes before that of any', async (t) => {
  const bench = new Bench();
  const any = bench.add('tcp:80', 0);
  t.equal(bench.find(80), 'tcp:80');
  const exact = bench.add('tcp:10.9.0.1:80', 1);
  t.equal(bench.find(80), 'tcp:10.9.0.1:80');
  t.equal(bench.find(80, B), 'tcp:80');
  t.equal(bench.find(81), SERVED.BY_NOBODY);
  t.equal(bench.groups.find(17, 80, A, 0, 4, true), SERVED.BY_NOBODY, 'of another protocol');
  bench.groups.remove(exact);
  t.equal(bench.find(80), 'tcp:80');
  t.equal(bench.groups.groupOf(any)?.rules.length, 1);
  bench.groups.remove(any);
  t.equal(bench.find(80), SERVED.BY_NOBODY);
  t.equal(bench.groups.size, 0, 'nothing is left of a port that nobody serves');
});

t.test('each member gets its share, and a flow stays where it was unless its member goes', async (t) => {
  const bench = new Bench();
  const rules = [0, 1, 2].map((index) => bench.add('tcp:80', index));
  for (const rule of rules) t.ok(Math.abs(bench.spread().get(rule)! - 333) < 60, 'four standard deviations');
  bench.find(80);
  const before = bench.groups.found!.pick(7);
  const other = rules.find((rule) => rule !== before)!;
  bench.groups.remove(other);
  t.equal(bench.groups.found!.pick(7), before);
  bench.groups.add(other);
  t.equal(bench.groups.found!.pick(7), before);
});

t.test('who is suspended, silent or draining gets none, and the weight counts at once', async (t) => {
  const bench = new Bench();
  const [one, two, three] = [0, 1, 2].map((index) => bench.add('tcp:80', index)) as [Rule, Rule, Rule];
  const change = (act: () => void): Map<Rule | null, number> => {
    act();
    bench.balancing.changed();
    return bench.spread();
  };
  t.notOk(change(() => (bench.peers[0]!.active = false)).has(one));
  t.notOk(change(() => (bench.peers[1]!.silent = true)).has(two));
  t.equal(change(() => (bench.peers[1]!.silent = true)).get(three), 1000);
  t.equal(bench.groups.found!.servedWithout(three), false);
  t.equal(bench.groups.found!.servedWithout(one), true);
  t.equal(change(() => bench.peers[2]!.drains.add('eth0')).get(null), 1000, 'nobody takes it');
  t.equal(change(() => bench.peers[2]!.drains.delete('eth0')).get(three), 1000);
  change(() => {
    bench.peers[0]!.active = true;
    bench.peers[0]!.weight = 3;
  });
  t.ok(Math.abs(bench.groups.found!.shareOf(one) - 0.75) < 0.01);
});

t.test('a control device with two virtual IFs is one member, and both have their part of its share', async (t) => {
  const bench = new Bench();
  const [one, two] = [bench.add('tcp:80', 0), bench.add('tcp:80', 0, { symbol: 'other' })];
  const other = bench.add('tcp:80', 1);
  const spread = bench.spread();
  t.ok(Math.abs(spread.get(other)! - 500) < 64, String(spread.get(other)));
  for (const rule of [one, two]) t.ok(Math.abs(spread.get(rule)! - 250) < 55, String(spread.get(rule)));
  t.same(
    [one, two, other].map((rule) => Math.round(100 * bench.groups.found!.shareOf(rule))),
    [25, 25, 50],
  );
});

t.test('a segment of a connection that is not known goes where it was placed, though that one drains', async (t) => {
  const bench = new Bench();
  for (const index of [0, 1, 2]) bench.add('tcp:80', index);
  bench.find(80);
  const group = bench.groups.found!;
  const hashes = Array.from({ length: 200 }, (_, flow) => Math.imul(flow + 1, 0x9e3779b1) >>> 0);
  const placed = hashes.map((hash) => group.pick(hash));
  bench.peers[0]!.drains.add('*');
  bench.balancing.changed();
  t.same(
    hashes.map((hash) => group.pick(hash, false)),
    placed,
  );
  t.notOk(hashes.some((hash) => group.pick(hash)?.peer === bench.peers[0]));
});

t.test('the rule of a virtual IF for a local end, the most specific one', async (t) => {
  const bench = new Bench();
  const vif: VifEnd = { id: 1, kind: 'tap', stamp: 0, wayBack: null };
  const any = bench.add('tcp:80', 0, { vif });
  bench.add('tcp:80', 1);
  const through = (address: Buffer): Rule | null => bench.groups.throughOf(TCP, 80, address, 0, 4, vif);
  t.equal(through(A), any);
  const exact = bench.add('tcp:10.9.0.1:80', 0, { vif });
  t.equal(through(A), exact);
  t.equal(through(B), any);
  t.equal(bench.groups.throughOf(TCP, 80, A, 0, 4, { ...vif }), null, 'not of another');
});

t.test('where a virtual IP address is served, new flows are the kernel’s', async (t) => {
  const bench = new Bench();
  bench.add('tcp:80', 0);
  const vip = bench.vip(A, 1);
  t.equal(bench.find(80), SERVED.BY_KERNEL);
  t.equal(bench.find(80, B), 'tcp:80', 'another address is another matter');
  t.equal(bench.find(80, A, false), SERVED.BY_KERNEL);
  bench.peers[1]!.active = false;
  t.equal(bench.find(80), 'tcp:80', 'the kernel does without who is away');
  t.equal(bench.find(80, A, false), SERVED.BY_KERNEL, 'its connections may go on there');
  bench.peers[1]!.active = true;
  bench.groups.remove(vip);
  t.equal(bench.find(80), 'tcp:80');
  t.equal(bench.find(80, A, false), SERVED.BY_KERNEL, 'also when the rule is gone');
});
