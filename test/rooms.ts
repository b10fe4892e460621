/** The rules of the source tree (test/support/rooms.ts), and that the checker of the rules can fail. */
import t from 'tap';
import { projectFile, typescriptFiles } from './support/project.js';
import { FLOORS, importsOf, MAX_LINES, readCode, violationsOf } from './support/rooms.js';

t.test('every source file keeps the rules of the rooms', async (t) => {
  const files = typescriptFiles('src');
  t.ok(files.length > 50, `${files.length} files`);
  t.same(
    files.flatMap((path) => violationsOf(path, projectFile(path))),
    [],
  );
});

t.test('every room has files, and imports are found in them', async (t) => {
  const files = typescriptFiles('src');
  for (const room of Object.keys(FLOORS))
    t.ok(
      files.some((path) => path.startsWith(`src/${room}/`)),
      room,
    );
  const found = files.flatMap((path) => importsOf(projectFile(path)));
  t.ok(found.length > files.length, `${found.length} imports in ${files.length} files`);
  t.ok(found.includes('../base/errors.js'));
  t.ok(found.includes('node:os'));
});

t.test('an import that goes up, sideways or out of the tree is a violation', async (t) => {
  const cases: [string, string, RegExp][] = [
    ['src/base/a.ts', "import { x } from '../sys/b.js';", /base must not import sys, which is above/],
    ['src/base/a.ts', "import pino from 'pino';", /base imports node:\* only, not pino/],
    ['src/sys/a.ts', "import type { X } from '../packet/b.js';", /sys must not import packet, which is beside/],
    ['src/packet/a.ts', "export { x } from '../sys/b.js';", /packet must not import sys, which is beside/],
    ['src/tunnel/a.ts', "import '../fusefs/b.js';", /tunnel must not import fusefs, which is beside/],
    ['src/fusefs/a.ts', "const x = await import('../tunnel/b.js');", /fusefs must not import tunnel, which is beside/],
    ['src/control/a.ts', "export * from '../forwarder/b.js';", /control must not import forwarder, which is beside/],
    ['src/forwarder/a.ts', "import {\n  type A,\n  B,\n} from '../control/b.js';", /forwarder must not import control/],
    ['src/forwarder/deep/a.ts', "import { x } from '../../cli/b.js';", /forwarder must not import cli, which is above/],
    ['src/tunnel/a.ts', "type X = import('../control/b.js').X;", /tunnel must not import control, which is above/],
    ['src/sys/a.ts', "const b = require('../cli/b.js');", /sys must not import cli, which is above/],
    ['src/cli/a.ts', "import { lab } from '../../test/support/lab.js';", /in no room/],
    ['src/cli/a.ts', 'const x = await import(`../${name}.js`);', /an import whose target cannot be read/],
    ['src/cli/a.ts', 'const x = await import(name);', /an import whose target cannot be read/],
    ['src/main.ts', '', /in no room/],
    ['src/attic/a.ts', '', /in no room/],
  ];
  for (const [path, source, expected] of cases) {
    const found = violationsOf(path, source);
    t.equal(found.length, 1, `${path}: ${source}`);
    t.match(found[0], expected);
  }
});

t.test('an import that goes down, or stays in its room, is none', async (t) => {
  const cases: [string, string][] = [
    ['src/base/a.ts', "import { constants } from 'node:os'; import { C } from './counters.js';"],
    ['src/sys/a.ts', "import koffi from 'koffi'; import { x } from '../base/b.js';"],
    ['src/fusefs/a.ts', "import { x } from '../sys/b.js'; import { y } from '../packet/c.js';"],
    ['src/control/a.ts', "import { x } from '../tunnel/b.js'; import { y } from '../fusefs/c.js';"],
    ['src/cli/a.ts', "import { x } from '../forwarder/b.js'; const y = await import('../control/c.js');"],
  ];
  for (const [path, source] of cases) t.same(violationsOf(path, source), [], source);
});

t.test('what must not stand in a source file is found', async (t) => {
  const bad: [string, string][] = [
    ['export default function f() {}', 'export default'],
    ['const f = 1; export { f as default };', 'export default'],
    ['function f(x: any) {}', 'any'],
    ['const x = y as any;', 'any'],
    ['let x: Record<string, any>;', 'any'],
    ['type X = any;', 'any'],
    ['let x: string | any[];', 'any'],
    ['const m = new Map<any, string>();', 'any'],
    ['const s = `${(x as any).y}`;', 'any'],
    ['// @ts-ignore\nf();', 'a comment that silences the compiler'],
    ['// @ts-expect-error: it is so\nf();', 'a comment that silences the compiler'],
    ['/* TODO: later */', 'TODO or FIXME'],
    ['// FIXME', 'TODO or FIXME'],
    ['x;\n'.repeat(MAX_LINES + 1), `${MAX_LINES + 1} lines, more than ${MAX_LINES}`],
  ];
  for (const [source, what] of bad) t.same(violationsOf('src/cli/a.ts', source), [`src/cli/a.ts: ${what}`], what);
});

t.test('words that only look like it are not found', async (t) => {
  const good = [
    "const kind = 'any'; this.any.get('*'); const { any } = rules;",
    '// any of these, as default: import { x } from "../cli/b.js"',
    'const advice = \'write import { x } from "../cli/b.js"\';',
    'const quote = /[\'"/]/; const text = `any ${f({ a: "}" })} from`;',
    'x;\n'.repeat(MAX_LINES),
  ];
  for (const source of good) t.same(violationsOf('src/base/a.ts', source), [], source.slice(0, 60));
});

t.test('code is read without its comments, strings and regular expressions', async (t) => {
  const { text, strings } = readCode("a('x') /* 'y' */ + `p${b['z']}q` // w\n/ 2 + [/'/g]");
  t.equal(text, 'a("0")   + "1"+(b["2"])+"3" \n/ 2 + [(0)g]');
  t.same(strings, ['x', 'p', 'z', 'q']);
});
