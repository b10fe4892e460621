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
  t.same(rowObject(table.columns, ['a']), { name: 'a', value: '' });
});
