/** src/forwarder/flow-rules.ts: the rules of flows by number, and the flows of a rule. */
import t from 'tap';
import type { Rule, VifEnd } from '../../src/forwarder/distribution-table.js';
import { FlowRules } from '../../src/forwarder/flow-rules.js';
import { NONE } from '../../src/forwarder/flow-rows.js';
import { makePeer, makeRule } from '../support/fake-peer.js';

const { peer } = makePeer();
const vif = (id: number): VifEnd => ({ id, kind: 'tap', stamp: 0, wayBack: null });
const [one, two] = [vif(1), vif(2)];
const rule = (text: string, of = one): Rule => makeRule(peer, text, { mode: 'socket', vif: of });

function flowsOf(rules: FlowRules, of: Rule): number[] {
  const flows: number[] = [];
  for (let flow = rules.first(of); flow !== NONE; flow = rules.after(flow)) flows.push(flow);
  return flows.sort((a, b) => a - b);
}

t.test('a rule has a number while a flow refers to it, then another rule may have it', async (t) => {
  const rules = new FlowRules();
  const [web, dns] = [rule('tcp:80'), rule('udp:53')];
  const number = rules.refer(web);
  t.equal(rules.refer(web), number);
  t.not(rules.refer(dns), number);
  t.equal(rules.of(number), web);
  t.same([rules.count(web), rules.count(dns), rules.count(rule('tcp:81'))], [2, 1, 0]);
  rules.release(number);
  rules.release(number);
  t.equal(rules.count(web), 0);
  t.equal(rules.refer(rule('tcp:82')), number);
});

t.test('the flows of a rule are in its list, whichever of them goes', async (t) => {
  for (const gone of [0, 1, 2, 3]) {
    const rules = new FlowRules();
    const [web, dns] = [rule('tcp:80'), rule('udp:53')];
    for (let flow = 0; flow < 4; flow += 1) rules.link(flow, web);
    rules.link(4, dns);
    rules.link(5, null);
    rules.unlink(gone);
    rules.unlink(5);
    t.same(
      flowsOf(rules, web),
      [0, 1, 2, 3].filter((flow) => flow !== gone),
    );
    t.same(flowsOf(rules, dns), [4]);
    t.equal(rules.through(4), dns);
    t.equal(rules.through(5), null);
    rules.link(gone, dns);
    t.same(flowsOf(rules, dns), [gone, 4]);
    t.same([rules.count(web), rules.count(dns)], [3, 2]);
  }
});

t.test('a rule that was left is found by its virtual IF and protocol address, once', async (t) => {
  const rules = new FlowRules();
  const left = [rule('tcp:80'), rule('tcp:80'), rule('tcp:80', two), rule('tcp:81')];
  left.forEach((of, flow) => rules.link(flow, of));
  for (const of of left) rules.mark(of);
  t.same(rules.takeLeft(rule('tcp:82')), []);
  t.same(new Set(rules.takeLeft(rule('tcp:80'))), new Set(left.slice(0, 2)));
  t.same(rules.takeLeft(rule('tcp:80')), []);
  t.same(rules.takeLeft(rule('tcp:80', two)), [left[2]]);
});

t.test('a rule that was left is forgotten with its last flow', async (t) => {
  const rules = new FlowRules();
  const web = rule('tcp:80');
  rules.link(0, web);
  rules.link(1, web);
  rules.mark(web);
  rules.unlink(0);
  rules.unlink(1);
  t.same(rules.takeLeft(rule('tcp:80')), []);
  t.equal(rules.first(web), NONE);
});
