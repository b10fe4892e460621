import t from 'tap';
import { rowObject, tableLines } from '../../src/cli/output.js';

const table = {
  columns: ['name', 'value'],
  rows: [['a', '1'], ['longer', ''], ['short']],
};

t.test('a table is aligned on a terminal', async (t) => {
  t.same(tableLines(table, true), ['name    value', 'a       1', 'longer  -', 'short   -']);
});

t.test('a table is tab-separated elsewhere, with a dash for what is empty', async (t) => {
  t.same(tableLines(table, false), ['name\tvalue', 'a\t1', 'longer\t-', 'short\t-']);
  t.same(tableLines({ columns: ['name'], rows: [] }, false), ['name']);
});

t.test('a row becomes an object by its columns', async (t) => {
  t.same(rowObject(['name', 'scope'], ['a']), { name: 'a', scope: '' });
});

t.test('counts and ids become numbers, null where there is none; names of digits stay text', async (t) => {
  t.same(rowObject(['interface', 'frames', 'down_tunnel'], ['7', '12', '-']), {
    interface: '7',
    frames: 12,
    down_tunnel: null,
  });
});
