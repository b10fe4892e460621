/** ERRORS.md and the table of src/base/errors.ts have the same codes, errnos and advice. */
import t from 'tap';
import { constants } from 'node:os';
import { ERRORS } from '../src/base/errors.js';
import { projectFile, typescriptFiles } from './support/project.js';

interface Section {
  readonly code: string;
  readonly errno: string;
  readonly number: number;
  readonly when: string;
  readonly advice: string;
}

function sections(text: string): Section[] {
  return text
    .split(/^## /m)
    .slice(1)
    .map((section) => {
      const field = (name: string): string => new RegExp(`^- \\*\\*${name}\\*\\*: (.+)$`, 'm').exec(section)?.[1] ?? '';
      const [, errno = '', number = ''] = /^(E[A-Z]+) \((\d+)\)$/.exec(field('errno')) ?? [];
      const code = section.slice(0, section.indexOf('\n'));
      return { code, errno, number: Number(number), when: field('when'), advice: field('what to do') };
    });
}

const documented = sections(projectFile('ERRORS.md'));
const errnos: Readonly<Record<string, number>> = constants.errno;

t.test('every code is a heading of ERRORS.md, in the order of the table, with its errno and its advice', async (t) => {
  t.same(
    documented.map(({ code, number, advice }) => ({ code, number, advice })),
    Object.entries(ERRORS).map(([code, { errno, advice }]) => ({ code, number: errno, advice })),
  );
});

t.test('every errno has the name and the number of Linux', async (t) => {
  for (const { code, errno, number } of documented) t.equal(errnos[errno], number, code);
});

t.test('every code says when it happens', async (t) => {
  for (const { code, when } of documented) t.match(when, /^.{20,}\.$/, code);
});

t.test('every code that is thrown is in the table', async (t) => {
  const codes = new Set<string>(Object.keys(ERRORS));
  const thrown = typescriptFiles('src').flatMap((path) =>
    [...projectFile(path).matchAll(/\bFwdfsError\(\s*'([^']+)'/g)].map(([, code = '']) => code),
  );
  t.ok(thrown.length > 50);
  t.same(
    thrown.filter((code) => !codes.has(code)),
    [],
  );
});

t.test('a heading that is missing, doubled or changed is found', async (t) => {
  const text =
    '# Errors\n\n## a-b\n\n- **errno**: EIO (5)\n- **when**: Now.\n- **what to do**: wait\n\n## c\n\nnothing\n';
  t.same(sections(text), [
    { code: 'a-b', errno: 'EIO', number: 5, when: 'Now.', advice: 'wait' },
    { code: 'c', errno: '', number: 0, when: '', advice: '' },
  ]);
});
