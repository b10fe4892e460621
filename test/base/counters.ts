/** src/base/counters.ts: what is counted, and under which name. */
import t from 'tap';
import { C, COUNTERS, type CounterName, Counters } from '../../src/base/counters.js';

const names = Object.keys(COUNTERS) as CounterName[];

t.test('every counter has an index of its own, in the order of the table', async (t) => {
  t.same(
    names.map((name) => C[name]),
    names.map((_, index) => index),
  );
  t.equal(Object.keys(C).length, names.length);
});

t.test('counters begin at zero, and adding to one leaves the others', async (t) => {
  const counters = new Counters();
  for (const name of names) t.equal(counters.get(name), 0);
  for (const [index, name] of names.entries()) counters.add(C[name], index + 1);
  counters.add(C.drop_no_rule, 100);
  for (const [index, name] of names.entries()) {
    t.equal(counters.get(name), index + 1 + (name === 'drop_no_rule' ? 100 : 0), name);
  }
});

t.test('two sets of counters are apart', async (t) => {
  const one = new Counters();
  const two = new Counters();
  one.add(C.drop_no_credit, 7);
  t.equal(one.get('drop_no_credit'), 7);
  t.equal(two.get('drop_no_credit'), 0);
});

t.test('a snapshot has every counter in the order of the table, and stays as it was', async (t) => {
  const counters = new Counters();
  counters.add(C.control_rx_bytes, 1500);
  const snapshot = counters.snapshot();
  counters.add(C.control_rx_bytes, 1500);
  t.same([...snapshot.keys()], names);
  t.equal(snapshot.get('control_rx_bytes'), 1500);
  t.equal(counters.get('control_rx_bytes'), 3000);
});

t.test('bytes are exact far beyond 2^32', async (t) => {
  const counters = new Counters();
  counters.add(C.forwarder_rx_bytes, 2 ** 53 - 2);
  counters.add(C.forwarder_rx_bytes, 1);
  t.equal(counters.get('forwarder_rx_bytes'), Number.MAX_SAFE_INTEGER);
});

t.test('an index that is none counts nothing', async (t) => {
  const counters = new Counters();
  counters.add(names.length, 1);
  counters.add(-1, 1);
  for (const name of names) t.equal(counters.get(name), 0);
});

t.test('names can stand in a file name and a table, and every one is explained', async (t) => {
  for (const [name, meaning] of Object.entries(COUNTERS)) {
    t.match(name, /^(?:forwarder|control|drop)_[a-z_]+$/);
    t.ok(meaning.length > 10, name);
  }
});
