import t from 'tap';
import { Counters } from '../../src/base/counters.js';
import { DownTunnel } from '../../src/control/down-tunnel.js';
import {
  RECEPTION_COLUMNS,
  ReceptionTable,
  tableText,
  TRANSMISSION_COLUMNS,
  TransmissionTable,
} from '../../src/control/tables.js';
import { UpTunnel } from '../../src/control/up-tunnel.js';
import { parseSymbolName } from '../../src/packet/symbol-name.js';
import { FakeChannel } from '../support/fake-channel.js';

function upTunnel(table: ReceptionTable, name: string): UpTunnel {
  const tunnel = new UpTunnel(parseSymbolName(name), 'fwd1', new Counters());
  tunnel.id = table.allocate();
  return tunnel;
}

t.test('an up tunnel id is never used twice', async (t) => {
  const table = new ReceptionTable();
  const ids = new Set<number>();
  for (let i = 0; i < 100; i += 1) {
    const tunnel = upTunnel(table, 'eth0');
    ids.add(tunnel.id);
    table.add(tunnel);
    table.remove(tunnel.id);
  }
  t.equal(ids.size, 100);
  t.notOk(ids.has(0), '0 is no id');
  t.same(table.rows(), []);
});

t.test('the reception table shows each up tunnel with its symbol', async (t) => {
  const table = new ReceptionTable();
  const tunnel = upTunnel(table, 'eth0:udp:520:both');
  table.add(tunnel);
  t.equal(table.get(tunnel.id), tunnel);
  t.same(table.rows(), [['1', 'fwd1/eth0:udp:520:both', 'udp:520', 'both', 'suspended', '0', '0', '0', 'copy']]);
  tunnel.active = true;
  t.equal(table.rows()[0]?.[4], 'active');
  t.equal(RECEPTION_COLUMNS.length, 9);
  table.add(upTunnel(table, 'eth0:claim'));
  t.match(table.rows()[1], [/2/, 'fwd1/eth0:claim', '*', 'in', 'suspended', '0', '0', '0', 'claim']);
});

t.test('the transmission table shows each symbol with its down tunnel, a dash while there is none', async (t) => {
  const table = new TransmissionTable();
  const tunnel = new DownTunnel(new FakeChannel('down'), 'fwd1', 'eth0', 'eth0:raw', '*', () => undefined);
  table.add(tunnel);
  t.same(table.rows(), [['fwd1/eth0:raw', '-', 'fwd1', 'eth0', '0', '0']]);
  tunnel.established(9, 1000);
  tunnel.send(Buffer.alloc(60), 0, 60);
  t.same(table.rows(), [['fwd1/eth0:raw', '9', 'fwd1', 'eth0', '1', '60']]);
  table.remove(tunnel);
  t.same(table.rows(), []);
  t.equal(TRANSMISSION_COLUMNS.length, 6);
  tunnel.confirm(1, 0);
});

t.test('a table as text has a header line and one row a line, also where it is empty', async (t) => {
  t.equal(tableText(['a', 'b'], []), 'a\tb\n');
  t.equal(
    tableText(
      ['a', 'b'],
      [
        ['1', ''],
        ['x y', '2'],
      ],
    ),
    'a\tb\n1\t\nx y\t2\n',
  );
});
