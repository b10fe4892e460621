/** src/forwarder/flow-rows.ts against a Map, with keys from frames. */
import t from 'tap';
import { SIDE } from '../../src/forwarder/distribution-table.js';
import { FlowKey } from '../../src/forwarder/flow-key.js';
import { FlowRows, NONE } from '../../src/forwarder/flow-rows.js';
import { FrameView } from '../../src/packet/headers.js';
import { FlowKeys } from '../support/flow-keys.js';
import { ipv6, udp } from '../vectors/packet-frames.js';

t.test('rows are found by their keys, through growth, removal and use again', async (t) => {
  const rows = new FlowRows();
  const keys = new FlowKeys();
  const model = new Map<number, number>();
  let state = 1;
  const random = (bound: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 0x1_0000_0000) * bound);
  };
  let wrong = 0;
  for (let step = 0; step < 40_000; step += 1) {
    // Grows to some thousands, and shrinks again.
    const growing = step % 20_000 < 12_000;
    const number = random(8000);
    const row = rows.find(keys.of(number));
    if (row !== (model.get(number) ?? NONE)) wrong += 1;
    if (row === NONE) {
      if (!growing) continue;
      const added = rows.add(keys.of(number));
      if (rows.state(added) !== 0 || rows.expires(added) !== 0 || rows.ack(added) !== 0) wrong += 1;
      rows.setState(added, number);
      rows.setExpires(added, -number);
      rows.setAck(added, number);
      model.set(number, added);
    } else if (!growing || random(4) === 0) {
      if (rows.state(row) !== number || rows.expires(row) !== -number || rows.ack(row) !== number) wrong += 1;
      rows.remove(row);
      model.delete(number);
      if (rows.isUsed(row)) wrong += 1;
    }
  }
  for (const [number, row] of model) if (rows.find(keys.of(number)) !== row || !rows.isUsed(row)) wrong += 1;
  t.equal(wrong, 0);
  t.equal(rows.size, model.size);
  t.equal(new Set(model.values()).size, model.size, 'no row is of two');
  t.ok(Math.max(...model.values()) < rows.end && rows.end <= 8000, 'free rows come first');
});

t.test('a row gives back the ends of its key', async (t) => {
  const rows = new FlowRows();
  const view = new FrameView();
  const key = new FlowKey();
  const packet = ipv6(17, udp(0xfffe, 0x8001, Buffer.alloc(0)));
  view.parse(packet, 0, packet.length, 'raw');
  key.read(view, packet, SIDE.SENT);
  const row = rows.add(key);
  t.same(rows.copyLocal(row, 16), packet.subarray(8, 24));
  t.same(rows.copyRemote(row, 16), packet.subarray(24, 40));
  t.equal(rows.ports(row) >>> 0, 0xfffe8001);
  t.equal(rows.kind(row), key.kind);
});

t.test('an acknowledgment number is one of 32 bits', async (t) => {
  const rows = new FlowRows();
  const row = rows.add(new FlowKeys().of(1));
  for (const ack of [0, 1, 0x7fffffff, 0x80000000, 0xffffffff]) {
    rows.setAck(row, ack);
    t.equal(rows.ack(row), ack);
  }
});

t.test('an empty table begins anew, one with rows stays', async (t) => {
  const rows = new FlowRows();
  const keys = new FlowKeys();
  for (let round = 0; round < 3; round += 1) {
    for (let number = 0; number < 5000; number += 1) rows.add(keys.of(number));
    for (let row = 0; row < 4999; row += 1) rows.remove(row);
    rows.shrink();
    t.equal(rows.find(keys.of(4999)), 4999);
    rows.remove(4999);
    rows.shrink();
    t.same([rows.end, rows.size, rows.isUsed(0), rows.find(keys.of(1))], [0, 0, false, NONE]);
  }
});
