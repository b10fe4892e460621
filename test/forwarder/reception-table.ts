import t from 'tap';
import { RECEPTION_COLUMNS, ReceptionTable } from '../../src/forwarder/reception-table.js';
import { parseProtocolAddress } from '../../src/packet/protocol-address.js';
import { makePeer } from '../support/fake-peer.js';

const any = parseProtocolAddress('*');

t.test('ids are never used twice, and one id space serves all control devices', async (t) => {
  const table = new ReceptionTable();
  const one = makePeer('ctl1').peer;
  const two = makePeer('ctl2').peer;
  const first = table.add(one, 'eth0', 'eth0', any, 'inject', 'ethernet');
  const second = table.add(two, 'eth0', 'eth0', any, 'write', 'ethernet');
  table.remove(first);
  table.remove(second);
  const third = table.add(one, 'eth1', 'eth1', any, 'inject', 'ethernet');
  t.equal(new Set([first.id, second.id, third.id]).size, 3);
  t.ok([first, second, third].every(({ id }) => id > 0));
});

t.test('a tunnel is found only by the peer that it was made for', async (t) => {
  const table = new ReceptionTable();
  const one = makePeer('ctl1').peer;
  const two = makePeer('ctl2').peer;
  const tunnel = table.add(one, 'eth0', 'eth0', any, 'inject', 'ethernet');
  t.equal(table.get(one, tunnel.id), tunnel);
  t.equal(table.get(two, tunnel.id), undefined);
  t.equal(table.get(one, tunnel.id + 1), undefined);
  t.same(table.tunnelsOf(one), [tunnel]);
  t.same(table.tunnelsOf(two), []);
});

t.test('counts follow what is there, also when something is removed twice', async (t) => {
  const table = new ReceptionTable();
  const { peer } = makePeer();
  const tunnels = [1, 2, 3].map(() => table.add(peer, 'eth0', 'eth0', any, 'inject', 'ethernet'));
  t.equal(table.countOf(peer), 3);
  table.remove(tunnels[0]!);
  table.remove(tunnels[0]!);
  t.equal(table.countOf(peer), 2);
  for (const tunnel of tunnels) table.remove(tunnel);
  t.equal(table.countOf(peer), 0);
  t.same(
    table.rows(() => true),
    [],
  );
});

t.test('its rows show every tunnel with its right and its counts', async (t) => {
  const table = new ReceptionTable();
  const { peer } = makePeer();
  const tunnel = table.add(peer, 'eth0', 'eth0:udp:520', parseProtocolAddress('udp:520'), 'write', 'ethernet');
  Object.assign(tunnel, { received: 5, bytes: 300, errors: 1 });
  table.add(peer, 'eth1', 'eth1', any, 'inject', 'ethernet');
  t.same(
    table.rows(() => true),
    [
      ['1', 'eth0', 'udp:520', 'write', 'ctl1', '10.0.0.9', 'active', '5', '300', '1'],
      ['2', 'eth1', '*', 'inject', 'ctl1', '10.0.0.9', 'active', '0', '0', '0'],
    ],
  );
  peer.active = false;
  t.equal(table.rows(() => true)[0]?.[6], 'suspended');
  t.equal(table.rows(() => false)[0]?.[6], 'absent', 'its interface is not there');
  t.equal(RECEPTION_COLUMNS.length, 10);
});
