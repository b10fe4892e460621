/** src/forwarder/distribution-table.ts: the index against a slow twin that looks at every rule. */
import fc from 'fast-check';
import t from 'tap';
import { DistributionTable, InterfaceRules, type Rule, SEEN, SIDE } from '../../src/forwarder/distribution-table.js';
import { FrameView, matchesProtocol } from '../../src/packet/headers.js';
import { parseProtocolAddress } from '../../src/packet/protocol-address.js';
import type { Scope } from '../../src/packet/symbol-name.js';
import { makePeer, makeRule } from '../support/fake-peer.js';
import { ethernet, ethernetFrames, ipPackets, ipv4, protocolAddressTexts, udp } from '../vectors/packet-frames.js';

const { peer } = makePeer();

/** Which of the ways in which a frame is seen each scope shows: DESIGN.md section 3, Scope. */
const SHOWN: Readonly<Record<Scope, readonly number[]>> = {
  in: [SEEN.RECEIVED],
  out: [SEEN.OUTGOING],
  both: [SEEN.RECEIVED, SEEN.OUTGOING],
  promisc: [SEEN.RECEIVED, SEEN.OTHER_HOST],
};

function matched(rules: InterfaceRules, view: FrameView, frame: Buffer, seen: number): Rule[] {
  const out: Rule[] = [];
  const count = rules.match(view, frame, sideOf(seen), seen, out);
  return out.slice(0, count);
}

const sideOf = (seen: number): 0 | 1 => (seen === SEEN.OUTGOING ? SIDE.SENT : SIDE.RECEIVED);

const twin = (rules: readonly Rule[], view: FrameView, frame: Buffer, seen: number): Rule[] =>
  rules.filter((rule) => SHOWN[rule.scope].includes(seen) && matchesProtocol(rule.protocol, view, frame, sideOf(seen)));

const byTunnel = (one: Rule, other: Rule): number => one.upTunnel - other.upTunnel;

// Ranges of ports are configuration's alone: rules have one port.
const ruleTexts = fc.oneof(
  { weight: 1, arbitrary: fc.constant('*') },
  { weight: 8, arbitrary: protocolAddressTexts.map((text) => text.replace(/:(\d+)-\d+$/, ':$1')) },
);
const scopes = fc.constantFrom<Scope>('in', 'in', 'out', 'both', 'promisc');
const ways = fc.constantFrom(SEEN.RECEIVED, SEEN.RECEIVED, SEEN.OTHER_HOST, SEEN.OUTGOING);

for (const [linkType, frames] of [
  ['ethernet', ethernetFrames],
  ['raw', ipPackets],
] as const) {
  t.test(`${linkType}: a frame meets exactly the rules that match it, each once, also after others went`, async () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(ruleTexts, scopes, fc.boolean()), { maxLength: 40 }),
        fc.array(fc.tuple(frames, ways), { minLength: 1, maxLength: 8 }),
        (specs, seenFrames) => {
          const rules = new InterfaceRules();
          const all = specs.map(([text, scope, stays]) => ({ rule: makeRule(peer, text, { scope }), stays }));
          for (const { rule } of all) rules.add(rule);
          const check = (present: readonly Rule[]): void => {
            for (const [frame, seen] of seenFrames) {
              const view = new FrameView();
              if (!view.parse(frame, 0, frame.length, linkType)) continue;
              const found = matched(rules, view, frame, seen).sort(byTunnel);
              const wanted = twin(present, view, frame, seen);
              if (found.length !== wanted.length || found.some((rule, index) => rule !== wanted[index])) {
                throw new Error(`found ${found.map(textOf).join(' ')}, not ${wanted.map(textOf).join(' ')}`);
              }
            }
          };
          check(all.map(({ rule }) => rule));
          for (const { rule, stays } of all) if (!stays) rules.remove(rule);
          check(all.filter(({ stays }) => stays).map(({ rule }) => rule));
        },
      ),
      { numRuns: 400 },
    );
  });
}

const textOf = (rule: Rule): string => `${rule.protocol.text}/${rule.scope}`;

t.test('ether:0x8100 is every tagged frame, whatever is behind the tag', async (t) => {
  const rules = new InterfaceRules();
  const tagged = makeRule(peer, 'ether:0x8100');
  const lldp = makeRule(peer, 'ether:0x88cc');
  rules.add(tagged);
  rules.add(lldp);
  const frame = ethernet(0x88cc, Buffer.alloc(46), [[0x8100, 7]]);
  const view = new FrameView();
  view.parse(frame, 0, frame.length);
  t.same(matched(rules, view, frame, SEEN.RECEIVED).sort(byTunnel), [tagged, lldp]);
});

t.test('a packet meets few rules, however many there are', async (t) => {
  const rules = new InterfaceRules();
  const many = Array.from({ length: 5000 }, (_, index) => makeRule(peer, `udp:${1000 + index}`));
  for (const rule of many) rules.add(rule);
  t.equal(rules.size, 5000);
  const frame = ethernet(0x0800, ipv4({ protocol: 17 }, udp(1, 4321, Buffer.alloc(8))));
  const view = new FrameView();
  view.parse(frame, 0, frame.length);
  const looked: string[] = [];
  const counting = new Proxy([], { set: (_, place) => looked.push(String(place)) > 0 });
  t.equal(rules.match(view, frame, SIDE.RECEIVED, SEEN.RECEIVED, counting), 1);
  t.same(looked, ['0']);
  t.same(
    matched(rules, view, frame, SEEN.RECEIVED).map((rule) => rule.protocol.text),
    ['udp:4321'],
  );
  t.ok(many.every((rule) => rules.remove(rule)));
  t.equal(rules.size, 0);
  t.same([...rules], []);
  t.same(matched(rules, view, frame, SEEN.RECEIVED), []);
  t.notOk(rules.remove(many[0]!), 'what is gone cannot go again');
});

t.test('the table knows the rules of each interface and of each peer, and forgets all of a removed one', async (t) => {
  const table = new DistributionTable();
  const other = makePeer('ctl2').peer;
  const mine = [makeRule(peer, '*'), makeRule(peer, 'udp:520', { interface: 'eth1' })];
  // Ids are each control device's own: two may use the same.
  const theirs = makeRule(other, 'arp', { upTunnel: mine[0]!.upTunnel });
  const eth0 = table.of('eth0');
  for (const rule of [...mine, theirs]) table.add(rule);
  t.equal(table.of('eth0'), eth0, 'an interface has the same rules for ever');
  t.same([...eth0], [mine[0], theirs]);
  t.equal(table.get(peer, mine[0]!.upTunnel), mine[0]);
  t.equal(table.get(other, theirs.upTunnel), theirs);
  t.equal(table.get(other, mine[1]!.upTunnel), undefined, "another's rule is not found");
  t.same(table.rulesOf(peer), mine);
  t.same([table.countOf(peer), table.countOf(other)], [2, 1]);
  for (const rule of mine) table.remove(rule);
  t.same(table.rulesOf(peer), []);
  t.same([table.countOf(peer), table.countOf(other)], [0, 1]);
  t.same([...eth0], [theirs]);
  table.remove(theirs);
  t.same([...table.rules()], []);
  t.equal(eth0.size, 0);
});

t.test(
  'claims are found by what they have in common with another address of the interface; copies are none',
  async (t) => {
    const table = new DistributionTable();
    const claim = makeRule(peer, 'udp:53', { mode: 'claim' });
    const absent = makeRule(makePeer('ctl2').peer, '*', { mode: 'claim', interface: 'eth1' });
    for (const rule of [makeRule(peer, 'tcp:80'), makeRule(peer, 'udp:53'), claim, absent]) table.add(rule);
    t.same(table.claims(), [claim, absent]);
    const meets = (name: string, text: string): Rule | undefined =>
      table.ruleThatMeets('claim', name, parseProtocolAddress(text));
    t.equal(meets('eth0', 'udp:10.0.0.1:53'), claim);
    t.equal(meets('eth0', 'tcp:80'), undefined);
    t.equal(meets('eth1', 'tcp:80'), absent);
    t.equal(meets('eth2', '*'), undefined);
    table.remove(claim);
    t.equal(meets('eth0', '*'), undefined);
  },
);
