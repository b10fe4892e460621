/**
 * src/forwarder/distribution-rows.ts: what `fwdfs rules` shows of each rule.
 * Source text: Fig. 7.
 */
import t from 'tap';
import { DISTRIBUTION_COLUMNS, distributionRows, type RowsView } from '../../src/forwarder/distribution-rows.js';
import { DistributionTable } from '../../src/forwarder/distribution-table.js';
import type { Rule } from '../../src/forwarder/rule.js';
import { makePeer, makeRule } from '../support/fake-peer.js';

const view = (more: Partial<RowsView> = {}): RowsView => ({
  isThere: () => true,
  flowsOf: () => 0,
  convertedOf: () => undefined,
  ...more,
});

/** Some columns of each row. */
function columns(table: DistributionTable, of: RowsView, ...names: string[]): (string | undefined)[][] {
  const at = names.map((name) => DISTRIBUTION_COLUMNS.indexOf(name));
  return distributionRows(table, of).map((row) => at.map((index) => row[index]));
}

t.test('every rule is there with its state and its counts', async (t) => {
  const table = new DistributionTable();
  const { peer } = makePeer();
  const gone = makePeer('ctl2', '').peer;
  gone.active = false;
  const drops = { dropped: 3, droppedSuspended: 1 };
  table.add(makeRule(peer, 'tcp:10.0.0.2:80', { upTunnel: 7, frames: 3, bytes: 180, mode: 'claim', ...drops }));
  table.add(makeRule(gone, 'ip:89', { upTunnel: 7, scope: 'both' }));
  const rest = ['-', '-', '-'];
  t.same(distributionRows(table, view()), [
    ['eth0', 'ip:89', 'both', '7', 'ctl2', '', 'suspended', '0', '0', '0', 'copy', ...rest, '-'],
    ['eth0', 'tcp:10.0.0.2:80', 'in', '7', 'ctl1', '10.0.0.9', 'active', '3', '180', '3', 'claim', ...rest].concat(
      'no_credit=2,suspended=1',
    ),
  ]);
  t.equal(DISTRIBUTION_COLUMNS.length, 15);
  t.same(columns(table, view({ isThere: () => false }), 'state'), [['absent'], ['absent']]);
});

t.test('rules of one group show its members, their shares and flows, and who takes none', async (t) => {
  const table = new DistributionTable();
  const peers = ['ctl1', 'ctl2', 'ctl3'].map((name) => makePeer(name).peer);
  peers[2]!.weight = 2;
  const rules = peers.map((peer) => makeRule(peer, 'tcp:80', { mode: 'socket' }));
  for (const rule of rules) table.add(rule);
  const flows = new Map<Rule, number>([[rules[0]!, 12]]);
  const of = view({ flowsOf: (rule) => flows.get(rule) ?? 0 });
  const shown = (): (string | undefined)[][] => columns(table, of, 'control', 'state', 'members', 'share', 'flows');
  t.same(shown(), [
    ['ctl1', 'active', '3', '25.0%', '12'],
    ['ctl2', 'active', '3', '25.0%', '0'],
    ['ctl3', 'active', '3', '50.0%', '0'],
  ]);
  peers[0]!.drains.add('eth0');
  peers[1]!.silent = true;
  table.balancing.changed();
  t.same(shown(), [
    ['ctl1', 'draining', '3', '0.0%', '12'],
    ['ctl2', 'silent', '3', '0.0%', '0'],
    ['ctl3', 'active', '3', '100.0%', '0'],
  ]);
});

t.test('of a virtual IP address the kernel counts', async (t) => {
  const table = new DistributionTable();
  const rule = makeRule(makePeer().peer, 'tcp:10.9.0.1:80', { mode: 'vip', vip: Buffer.from([10, 9, 0, 1]) });
  table.add(rule);
  const names = ['mode', 'members', 'share', 'flows', 'frames', 'bytes'];
  t.same(columns(table, view(), ...names), [['vip', '-', '-', '-', '0', '0']]);
  const converted = { flows: 4, packets: 50, bytes: 6000, share: 0.5, members: 2 };
  t.same(columns(table, view({ convertedOf: () => converted }), ...names), [['vip', '2', '50.0%', '4', '50', '6000']]);
});
