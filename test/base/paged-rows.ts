/** src/base/paged-rows.ts: rows of words, over many pages. */
import t from 'tap';
import { PagedRows } from '../../src/base/paged-rows.js';

t.test('each word of each row is its own, on every page', async (t) => {
  const rows = new PagedRows(3);
  const count = 10_000;
  for (let row = 0; row < count; row += 1) {
    rows.reserve(row);
    for (let word = 0; word < 3; word += 1) rows.set(row, word, -(3 * row + word));
  }
  let wrong = 0;
  for (let row = 0; row < count; row += 1) {
    for (let word = 0; word < 3; word += 1) {
      if (rows.get(row, word) !== -(3 * row + word)) wrong += 1;
      if (rows.page(row)[rows.at(row) + word] !== -(3 * row + word)) wrong += 1;
    }
  }
  t.equal(wrong, 0);
});

t.test('room that is there stays as it is', async (t) => {
  const rows = new PagedRows(1);
  rows.reserve(0);
  rows.set(0, 0, 7);
  rows.reserve(0);
  rows.reserve(1);
  t.equal(rows.get(0, 0), 7);
});

t.test('what was given back can be asked for again', async (t) => {
  const rows = new PagedRows(2);
  const fill = (): void => {
    for (let row = 0; row < 9000; row += 1) rows.reserve(row);
  };
  rows.clear();
  fill();
  rows.set(8999, 1, 5);
  rows.clear();
  fill();
  t.equal(rows.get(8999, 1), 0, 'anew');
});
