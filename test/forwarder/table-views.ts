import t from 'tap';
import { Counters } from '../../src/base/counters.js';
import { FwdfsError } from '../../src/base/errors.js';
import { TABLE_PAGE_BYTES } from '../../src/base/limits.js';
import { DistributionTable } from '../../src/forwarder/distribution-table.js';
import type { Peer } from '../../src/forwarder/peer.js';
import { PermissionTable } from '../../src/forwarder/permission-table.js';
import { ReceptionTable } from '../../src/forwarder/reception-table.js';
import { TableViews } from '../../src/forwarder/table-views.js';
import { ANY_PROTOCOL } from '../../src/packet/protocol-address.js';
import { makePeer, makeRule } from '../support/fake-peer.js';

function* eachOf(rows: Iterable<string[]>): Generator<string[]> {
  yield* rows;
}

interface Views {
  readonly views: TableViews;
  readonly distribution: DistributionTable;
  readonly reception: ReceptionTable;
  /** `IDENTITY TABLE` for each time that a peer was told. */
  readonly told: string[];
}

function makeViews(flows: Iterable<string[]> = []): Views {
  const distribution = new DistributionTable();
  const reception = new ReceptionTable();
  const told: string[] = [];
  const views = new TableViews({
    permissions: new PermissionTable([]),
    distribution,
    reception,
    interfaces: { find: () => undefined, flowRows: () => eachOf(flows), statistics: () => Promise.resolve([]) },
    vips: { converted: async () => () => undefined, rows: async (table) => [[table]] },
    lost: new Counters(),
    checkUse: (peer: Peer, name: string) => {
      throw new FwdfsError('not-permitted', `${peer.identity} may not use ${name}`);
    },
    send: (peer, table) => told.push(`${peer.identity} ${table}`),
  });
  return { views, distribution, reception, told };
}

t.test('who asked to watch is told once of the first change after the rows', async (t) => {
  const { views, distribution, told } = makeViews();
  const { peer } = makePeer('ctl1');
  const { peer: other } = makePeer('ctl2');
  await views.rows(peer, { table: 'distribution', watch: true });
  await views.rows(other, { table: 'distribution' });
  t.same(told, []);
  const rule = makeRule(peer, 'udp:9');
  distribution.add(rule);
  distribution.remove(rule);
  t.same(told, ['ctl1 distribution']);
  const { rows } = await views.rows(peer, { table: 'distribution', watch: true });
  t.same(rows, []);
  distribution.add(rule);
  t.same(told, ['ctl1 distribution', 'ctl1 distribution']);
});

t.test('a change of one table is none of another; states are of both', async (t) => {
  const { views, reception, told } = makeViews();
  const { peer } = makePeer();
  for (const table of ['distribution', 'reception', 'permission']) await views.rows(peer, { table, watch: true });
  const tunnel = reception.add(peer, 'eth0', 'eth0', ANY_PROTOCOL, 'inject', 'ethernet');
  t.same(told, ['ctl1 reception']);
  await views.rows(peer, { table: 'reception', watch: true });
  views.statesChanged();
  t.same(told.slice(1), ['ctl1 distribution', 'ctl1 reception']);
  await views.rows(peer, { table: 'reception', watch: true });
  views.forget(peer);
  reception.remove(tunnel);
  t.equal(told.length, 3, 'a peer that is gone is not told');
});

t.test('a table that is larger than a message comes in parts of one moment', async (t) => {
  const { views, distribution } = makeViews();
  const { peer } = makePeer();
  const { peer: other } = makePeer('ctl2');
  const count = 6000;
  for (let i = 0; i < count; i++) distribution.add(makeRule(peer, `udp:${i + 1}`));
  const first = await views.rows(peer, { table: 'distribution' });
  const text = first.rows.map((row) => row.join('\t')).join('').length;
  t.ok(text >= TABLE_PAGE_BYTES && text < TABLE_PAGE_BYTES + 200, `${text} bytes`);
  for (const rule of distribution.rulesOf(peer)) distribution.remove(rule);
  const names = new Set(first.rows.map((row) => row[1]));
  let next = first.next;
  for (let parts = 1; next !== undefined && parts < 10; parts++) {
    t.equal(names.size, next);
    const part = await views.rows(peer, { table: 'distribution', from: next });
    for (const row of part.rows) names.add(row[1]);
    next = part.next;
  }
  t.equal(names.size, count);
  await t.rejects(views.rows(peer, { table: 'distribution', from: 1 }), { code: 'bad-message' }, 'it was the last');
  await t.rejects(views.rows(other, { table: 'distribution', from: 1 }), { code: 'bad-message' });
});

t.test('flows are made as they are asked for', async (t) => {
  let made = 0;
  function* flows(): Generator<string[]> {
    for (; made < 20_000; made += 1) yield [`eth0 ${made}`.padEnd(100)];
  }
  const { views } = makeViews(flows());
  const { peer } = makePeer();
  const first = await views.rows(peer, { table: 'flow' });
  t.ok(made < 3000, `${made} of 20,000`);
  let count = first.rows.length;
  for (let { next } = first; next !== undefined;) {
    t.equal(next, count);
    const part = await views.rows(peer, { table: 'flow', from: next });
    count += part.rows.length;
    next = part.next;
  }
  t.equal(count, 20_000);
  await t.rejects(views.rows(peer, { table: 'flow', from: count }), { code: 'bad-message' });
});

t.test('a table that is not there can be neither read nor watched', async (t) => {
  const { views, told } = makeViews();
  const { peer } = makePeer();
  await t.rejects(views.rows(peer, { table: 'nothing', watch: true }), { code: 'no-such-name' });
  await t.rejects(views.rows(peer, { table: 'statistics', interface: 'eth0', watch: true }), { code: 'not-permitted' });
  views.changed('nothing');
  views.changed('statistics');
  t.same(told, []);
});
