/**
 * src/forwarder/maglev.ts: even shares, few flows moved, the same everywhere.
 * Source text: Fig. 7.
 */
import t from 'tap';
import { MAGLEV_SLOTS, MAX_MAGLEV_TABLES } from '../../src/base/limits.js';
import { SIDE } from '../../src/forwarder/rule.js';
import { FlowKey } from '../../src/forwarder/flow-key.js';
import { flowHash, type MaglevMember, maglevTable, MaglevTables } from '../../src/forwarder/maglev.js';
import { FrameView } from '../../src/packet/headers.js';
import { ethernet, ipv4, ipv6, tcp } from '../vectors/packet-frames.js';

const members = (count: number, weight = 1): MaglevMember[] =>
  Array.from({ length: count }, (_, index) => ({ name: `ctl${index} fwd1-eth0`, weight }));

function shares(table: Uint16Array, count: number): number[] {
  const slots = Array.from({ length: count }, () => 0);
  for (const owner of table) slots[owner]! += 1;
  return slots.map((owned) => owned / table.length);
}

t.test('every slot has an owner, and shares are within 1 % of each other for M > 100 N', async (t) => {
  for (const count of [1, 2, 3, 10, 100, 600]) {
    const of = shares(maglevTable(members(count)), count);
    const most = Math.max(...of.map((share) => Math.abs(share * count - 1)));
    t.ok(most < 0.01, `${count} members: off by ${(most * 100).toFixed(2)} %`);
  }
  t.equal(maglevTable(members(3), 307).length, 307, 'the number of slots is for the caller to say');
});

t.test('a weight is a share, whatever the numbers are', async (t) => {
  const table = maglevTable([
    { name: 'a', weight: 2 },
    { name: 'b', weight: 1 },
    { name: 'c', weight: 5 },
  ]);
  for (const [index, share] of shares(table, 3).entries()) {
    const wanted = [2, 1, 5][index]! / 8;
    t.ok(Math.abs(share / wanted - 1) < 0.01, `${share} of ${wanted}`);
  }
  t.same(maglevTable(members(4, 256)), maglevTable(members(4, 1)), 'equal weights are no weights');
});

t.test('when one of N leaves, at most 1.5 % of 10,000 flows move that were not its own', async (t) => {
  for (const count of [2, 4, 10, 50, 100]) {
    const all = members(count);
    const before = maglevTable(all);
    for (const leaves of [0, count >> 1, count - 1]) {
      const rest = all.filter((_, index) => index !== leaves);
      const after = maglevTable(rest);
      let moved = 0;
      for (let flow = 0; flow < 10_000; flow++) {
        const slot = Math.imul(flow + 1, 0x9e3779b1) >>> 0;
        const was = before[slot % MAGLEV_SLOTS]!;
        if (was !== leaves && all[was]!.name !== rest[after[slot % MAGLEV_SLOTS]!]!.name) moved += 1;
      }
      t.ok(moved <= 150, `${count} members, ${leaves} leaves: ${moved} moved`);
    }
  }
});

t.test('tables are kept by their members, and the oldest goes', async (t) => {
  const tables = new MaglevTables();
  const first = tables.of(members(2));
  t.equal(tables.of(members(2)), first);
  t.not(tables.of(members(2, 3)), first);
  for (let count = 3; count < MAX_MAGLEV_TABLES + 3; count++) tables.of(members(count));
  t.not(tables.of(members(2)), first, 'it was made anew');
});

/** Hash of a received TCP packet. */
function hashOf(frame: Buffer): number {
  const view = new FrameView();
  const key = new FlowKey();
  view.parse(frame, 0, frame.length);
  key.read(view, frame, SIDE.RECEIVED);
  return flowHash(key, frame);
}

t.test('the hash is of the whole five-tuple and of nothing else', async (t) => {
  const frame = (from: number, to: number, source: string, payload = 0): Buffer =>
    ethernet(
      0x0800,
      ipv4({ protocol: 6, source }, tcp({ sourcePort: from, destinationPort: to }, Buffer.alloc(payload))),
    );
  const one = hashOf(frame(4000, 80, '10.0.0.1'));
  t.equal(hashOf(frame(4000, 80, '10.0.0.1', 100)), one, 'not of the payload');
  t.not(hashOf(frame(4001, 80, '10.0.0.1')), one);
  t.not(hashOf(frame(4000, 81, '10.0.0.1')), one);
  t.not(hashOf(frame(4000, 80, '10.0.0.3')), one);
  const v6 = hashOf(ethernet(0x86dd, ipv6(6, tcp({ sourcePort: 4000 }, Buffer.alloc(0)))));
  t.ok(v6 >= 0 && v6 < 2 ** 32);
});

t.test('ports one after the other, of few clients, give even shares', async (t) => {
  const table = maglevTable(members(4));
  const counts = [0, 0, 0, 0];
  for (let port = 1024; port < 21_024; port++) {
    const frame = ethernet(
      0x0800,
      ipv4({ protocol: 6, source: '10.0.0.1' }, tcp({ sourcePort: port }, Buffer.alloc(0))),
    );
    counts[table[hashOf(frame) % table.length]!]! += 1;
  }
  // Four standard deviations of a binomial of 20,000 and one in four: 245.
  for (const count of counts) t.ok(Math.abs(count - 5000) < 245, String(counts));
});
