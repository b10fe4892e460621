/** PROGRAMS.md tells users what the compliance cases of programs show: the same rows, the same lines. */
import t from 'tap';
import { CLOSERS, READERS, STOPPED } from './support/compliance/programs.js';
import { projectFile, tableRows } from './support/project.js';

const document = projectFile('PROGRAMS.md');
const answer = (yes: boolean): string => (yes ? 'yes' : 'no');

/** The rows of the table of programs whose second header cell begins so. */
function rowsOf(second: string): string[][] {
  const at = document.search(new RegExp(`^\\| program +\\| ${second}`, 'm'));
  const end = document.indexOf('\n\n', at);
  return tableRows(document.slice(at, end), 'program').map((row) => row.slice(0, 2));
}

t.test('the page says of each program whether it looks at what close() says', async (t) => {
  t.same(
    rowsOf('exit status'),
    CLOSERS.map(([program, , says]) => [program, answer(says)]),
  );
});

t.test('the page says of each program whether it goes on after Ctrl-Z and fg', async (t) => {
  t.same(
    rowsOf('goes on'),
    STOPPED.map(([program, , goesOn]) => [program, answer(goesOn)]),
  );
});

t.test('each line that the page recommends for reading is run by the suite', async (t) => {
  const [, block = ''] = /## Reading\n\n```\n([^`]+)```/.exec(document) ?? [];
  const lines = block.trimEnd().split('\n');
  t.ok(lines.length > 5);
  const run = new Set(READERS.map(([line]) => line));
  for (const line of lines) t.ok(run.has(line.replaceAll('/fwd/fwd1/', '$F/')), line);
});
