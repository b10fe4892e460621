/** LIMITS.md and the source name the same limits with the same values. */
import t from 'tap';
import * as limits from '../src/base/limits.js';
import { projectFile, tableRows, typescriptFiles } from './support/project.js';

const LIMITS_FILE = 'src/base/limits.ts';
const exported = new Map<string, number>(Object.entries(limits));
const document = projectFile('LIMITS.md');

/** A name that says: limit. What it finds outside of limits.ts must be in the second table. */
const LIMIT_NAME = /^(?:MAX|LONGEST|KEPT)_|_(?:MS|DATAGRAMS)$/;
/** Names that look like one, and are a unit, the range of a field, or a timer for ever. */
const NO_LIMITS = new Set(['NS_PER_MS', 'MAX_NANOSECONDS', 'LONGEST_TIMER_MS']);

/** `1 << 20`, `3 * MAX_FRAME_BYTES`, `30_000`: one operator at most. */
function evaluate(expression: string): number {
  const [left = '', operator, right = ''] = expression.trim().split(/\s+/);
  const value = (word: string): number => exported.get(word) ?? Number(word.replaceAll('_', ''));
  if (operator === undefined) return value(left);
  if (operator === '<<') return value(left) << value(right);
  if (operator === '*') return value(left) * value(right);
  if (operator === '+') return value(left) + value(right);
  return Number.NaN;
}

/** The constants of a file, by name, with the text of their values. */
function constants(path: string): Map<string, string> {
  const found = projectFile(path).matchAll(/^(?:export )?const ([A-Z][A-Z0-9_]*) = ([^;]+);$/gm);
  return new Map([...found].map(([, name = '', value = '']) => [name, value]));
}

const number = (cell: string | undefined): number => Number((cell ?? '').replaceAll(',', ''));

t.test('every limit of limits.ts is in LIMITS.md with its value, in the same order', async (t) => {
  const rows = tableRows(document, 'limit');
  t.ok(rows.length > 20);
  t.same(
    rows.map(([name, value]) => [name, number(value)]),
    [...constants(LIMITS_FILE).keys()].map((name) => [name, exported.get(name)]),
  );
  t.equal(exported.size, rows.length);
});

t.test('every limit of a single file is in LIMITS.md with its value', async (t) => {
  for (const [name = '', value, , file = ''] of tableRows(document, 'limit of a file')) {
    const expression = constants(file.replaceAll('`', '')).get(name);
    t.equal(evaluate(expression ?? ''), number(value), `${name} of ${file}`);
  }
});

t.test('every constant below the commands that is called a limit is in LIMITS.md', async (t) => {
  const listed = new Set(tableRows(document, 'limit of a file').map(([name, , , file]) => `${name} of ${file}`));
  const missing: string[] = [];
  for (const path of typescriptFiles('src')) {
    if (path === LIMITS_FILE || path.startsWith('src/cli/')) continue;
    for (const name of constants(path).keys()) {
      const entry = `${name} of \`${path}\``;
      if (LIMIT_NAME.test(name) && !NO_LIMITS.has(name) && !listed.has(entry)) missing.push(entry);
    }
  }
  t.same(missing, []);
});

t.test('every limit says its unit, why it is there and what happens beyond it', async (t) => {
  for (const [name = '', , unit = '', ...rest] of [
    ...tableRows(document, 'limit'),
    ...tableRows(document, 'limit of a file'),
  ]) {
    const [why = '', beyond = ''] = rest.slice(-2);
    t.ok(unit.length > 0 && why.length > 15 && beyond.length > 15, name);
  }
});

t.test('every limit of limits.ts is used', async (t) => {
  const source = typescriptFiles('src')
    .filter((path) => path !== LIMITS_FILE)
    .map(projectFile)
    .join('\n');
  t.same(
    [...exported.keys()].filter((name) => !new RegExp(`\\b${name}\\b`).test(source)),
    [],
  );
});

t.test('counters and errors that LIMITS.md names are there', async (t) => {
  const counters = projectFile('src/base/counters.ts');
  const errors = projectFile('src/base/errors.ts');
  const named = [...document.matchAll(/`(drop_[a-z_]+|[a-z]+(?:-[a-z]+)+)`/g)].map(([, name = '']) => name);
  t.ok(named.length > 15);
  for (const name of named) {
    if (name === 'drop_') continue;
    t.ok(name.startsWith('drop_') ? counters.includes(`  ${name}:`) : errors.includes(`  '${name}':`), name);
  }
});
