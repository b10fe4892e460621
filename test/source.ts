/** SOURCE.md maps every numeral, figure and step of the source text to files and tests that are there and say so. */
import t from 'tap';
import { projectFile, projectHas, tableRows } from './support/project.js';
import {
  figuresIn,
  importsFile,
  mentionsNumeral,
  type SourceText,
  stepsIn,
  whereOf,
  type Where,
} from './support/source.js';

const text = JSON.parse(projectFile('test/vectors/source-numerals.json')) as SourceText;
const document = projectFile('SOURCE.md');

const KINDS = ['numeral', 'figure', 'step'] as const;
type Kind = (typeof KINDS)[number];

interface Row {
  readonly kind: Kind;
  readonly key: string;
  readonly words: string;
  readonly ours: string;
  readonly where: Where | null;
}

const rows: Row[] = KINDS.flatMap((kind) =>
  tableRows(document, kind).map(([key = '', words = '', ours = '', file = '', test = '', ...rest]) => ({
    kind,
    key,
    words,
    ours,
    where: rest.length === 0 ? whereOf(file, test) : null,
  })),
);

function mentions(content: string, { kind, key }: Row): boolean {
  if (kind === 'step') return stepsIn(content).has(key);
  if (kind === 'figure') return figuresIn(content).has(Number(key));
  const numeral = text.numerals[key];
  return numeral !== undefined && mentionsNumeral(content, key, numeral);
}

/** A test shows a row if it imports what the row is about, or names it, or names the block diagram of its numeral. */
function shows(content: string, row: Row, files: readonly string[]): boolean {
  if (files.some((file) => importsFile(content, file)) || mentions(content, row)) return true;
  return row.kind === 'numeral' && figuresIn(content).has(text.numerals[row.key]?.figure ?? 0);
}

const keysOf = (kind: Kind): string[] => rows.filter((row) => row.kind === kind).map(({ key }) => key);

t.test('the list of the source text is whole', async (t) => {
  t.equal(Object.keys(text.numerals).length, 97);
  t.same(
    text.figures,
    Array.from({ length: 34 }, (_, index) => index + 1),
  );
  t.equal(new Set(text.steps).size, 106);
  const series = { S2: 26, S6: 13, S7: 6, S8: 7, S9: 5, S10: 7, S11: 9, S12: 7, S18: 5, S20: 6, S22: 9, S23: 7 };
  for (const [prefix, last] of Object.entries(series)) {
    const steps = Array.from({ length: last }, (_, index) => `${prefix}${String(index + 1).padStart(2, '0')}`);
    t.same(
      text.steps.filter((step) => step.slice(0, -2) === prefix),
      steps.filter((step) => step !== 'S1004'),
    );
  }
});

t.test('every numeral, figure and step has one row, and nothing else has', async (t) => {
  t.same(keysOf('numeral').sort(), Object.keys(text.numerals).sort());
  t.same(
    keysOf('figure'),
    text.figures.map((figure) => String(figure)),
  );
  t.same(keysOf('step').sort(), [...text.steps].sort());
});

t.test('a numeral has the name that the source text gives it', async (t) => {
  for (const { kind, key, words } of rows) if (kind === 'numeral') t.equal(words, text.numerals[key]?.name, key);
});

t.test('every row says where it is, or why not', async (t) => {
  const topics = new Set(tableRows(document, 'topic').map(([topic]) => topic));
  const used = new Set<string>();
  for (const { kind, key, words, ours, where } of rows) {
    t.ok(where !== null && words.length > 1 && ours.length > 0, `${kind} ${key}`);
    if (where?.kind === 'here') t.ok(ours.length > 1, `${kind} ${key} has a word of ours`);
    if (where?.kind === 'to come') used.add(where.topic);
  }
  t.same([...used].sort(), [...topics].sort());
});

for (const kind of KINDS) {
  t.test(`every file that holds a ${kind} is there and mentions it`, async (t) => {
    for (const row of rows) {
      if (row.kind !== kind || row.where?.kind !== 'here') continue;
      for (const file of row.where.files) {
        t.ok(file.startsWith('src/') && projectHas(file) && mentions(projectFile(file), row), `${row.key}: ${file}`);
      }
    }
  });

  t.test(`every test that shows a ${kind} is there and says so`, async (t) => {
    for (const row of rows) {
      if (row.kind !== kind || row.where?.kind !== 'here') continue;
      for (const test of row.where.tests) {
        const shown = projectHas(test) && shows(projectFile(test), row, row.where.files);
        t.ok(test.startsWith('test/') && shown, `${row.key}: ${test}`);
      }
    }
  });
}

t.test('no file mentions what the source text does not have', async (t) => {
  const files = new Set(rows.flatMap(({ where }) => (where?.kind === 'here' ? where.files : [])));
  t.ok(files.size > 15);
  const known = new Set([...text.steps, 'S1004']);
  for (const file of files) {
    for (const step of stepsIn(projectFile(file))) t.ok(known.has(step), `${file}: ${step}`);
    for (const figure of figuresIn(projectFile(file))) t.ok(text.figures.includes(figure), `${file}: Fig. ${figure}`);
  }
});

t.test('every slip of the list is noted in its row, and every note is in the list', async (t) => {
  const slips = tableRows(document, 'slip').map(([key]) => key);
  t.ok(slips.length > 10);
  t.same(
    slips.sort(),
    rows
      .filter(({ ours }) => ours.includes('(slip: '))
      .map(({ key }) => key)
      .sort(),
  );
});

t.test('what only looks like a mention is none', async (t) => {
  const table = { name: 'distribution table', figure: 1 };
  t.ok(mentionsNumeral('/* Distribution table 342 (Fig. 7) */', '342', table));
  t.ok(mentionsNumeral(' * the distribution\n * table\n * 342', '342', table));
  t.ok(mentionsNumeral('sections 28 and 66', '66', { name: 'tunnel transfer section', figure: 24 }));
  t.notOk(mentionsNumeral('342 rules; a table of 342; table 3421; section 342', '342', table));
  t.notOk(mentionsNumeral('table 342', '34', table));
  t.same(
    [...stepsIn('S1005 before S1006; S901 to\n * S903, SS8, S12, S12345')],
    ['S1005', 'S1006', 'S901', 'S902', 'S903'],
  );
  t.same(
    [...figuresIn('(Fig. 7), Fig. 9 and 10; Fig. 12, S1205; Fig. 24, 26 to 28. Figure 3')],
    [7, 9, 10, 12, 24, 26, 27, 28],
  );
});

t.test('a row that says nothing is found', async (t) => {
  t.same(whereOf('`src/a.ts`, `src/b.ts`', '`test/a.ts`'), {
    kind: 'here',
    files: ['src/a.ts', 'src/b.ts'],
    tests: ['test/a.ts'],
  });
  t.same(whereOf('to come: router', '-'), { kind: 'to come', topic: 'router' });
  t.same(whereOf('not ours: hardware', '-'), { kind: 'not ours', reason: 'hardware' });
  for (const [file, test] of [
    ['', ''],
    ['-', '-'],
    ['`src/a.ts`', '-'],
    ['`src/a.ts`', ''],
    ['src/a.ts', '`test/a.ts`'],
    ['to come: ', '-'],
    ['to come: router', '`test/a.ts`'],
    ['later', '-'],
  ] as const) {
    t.equal(whereOf(file, test), null, `${file} | ${test}`);
  }
});

t.test('an import is one of that very file', async (t) => {
  const content = "import { Discard } from '../../src/forwarder/discard.js';";
  t.ok(importsFile(content, 'src/forwarder/discard.ts'));
  t.notOk(importsFile(content, 'src/forwarder/card.ts'));
  t.notOk(importsFile('// src/forwarder/discard.ts', 'src/forwarder/discard.ts'));
});
