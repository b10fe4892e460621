import t from 'tap';
import { z } from 'zod';
import { FwdfsError } from '../../src/base/errors.js';
import { deviceName, isDeviceName, loadYaml, parseYaml } from '../../src/sys/config-file.js';

const SCHEMA = z.strictObject({
  number: z.number(),
  words: z.array(z.string()).default([]),
  map: z.record(deviceName, z.strictObject({ deep: z.boolean() }).nullable()).default({}),
  even: z
    .number()
    .refine((value) => value % 2 === 0, 'expected an even number')
    .default(0),
});

/** What stands before the advice of the error. */
function mistakeOf(text: string): string {
  try {
    parseYaml('f.yaml', text, SCHEMA);
  } catch (error) {
    if (error instanceof FwdfsError && error.code === 'bad-config') return error.what;
    throw error;
  }
  return 'none';
}

t.test('a file is read, with the defaults of the schema', async (t) => {
  const dir = t.testdir({ 'a.yaml': '# a comment\nnumber: 1\nmap:\n  x: { deep: true }\n  y:\n' });
  t.same(loadYaml(`${dir}/a.yaml`, SCHEMA), { number: 1, words: [], map: { x: { deep: true }, y: null }, even: 0 });
});

t.test('a file that can not be read is named', async (t) => {
  const dir = t.testdir({});
  t.throws(() => loadYaml(`${dir}/absent.yaml`, SCHEMA), {
    code: 'bad-config',
    what: /absent\.yaml: expected a file.*ENOENT/,
  });
  t.throws(() => loadYaml(dir, SCHEMA), { code: 'bad-config', what: /EISDIR/ });
});

t.test('every mistake is told with the line and what was expected', async (t) => {
  const mistakes: [text: string, what: string][] = [
    ['', 'f.yaml:1: expected map, received null'],
    ['- a', 'f.yaml:1: expected map, received list'],
    ['number: 1\nnumber: 2', 'f.yaml:2: expected valid YAML (Map keys must be unique)'],
    ['number: 1\n\tx: 2', 'f.yaml:2: expected valid YAML (Tabs are not allowed as indentation)'],
    ['words: []', 'f.yaml:1: expected number, it is missing (number)'],
    ['\n\nnumber: "1"', 'f.yaml:3: expected number, received string (number)'],
    ['number:', 'f.yaml:1: expected number, received null (number)'],
    ['number: 1\nwords: a', 'f.yaml:2: expected list, received string (words)'],
    ['number: 1\nwords:\n  - a\n  - 2\n', 'f.yaml:4: expected string, received number (words[1])'],
    ['number: 1\nwords: [a,\n  2]\n', 'f.yaml:3: expected string, received number (words[1])'],
    ['number: 1\nmap:\n  x:\n    deep: 1', 'f.yaml:4: expected boolean, received number (map.x.deep)'],
    ['number: 1\nmap:\n  x:\n    {}', 'f.yaml:4: expected boolean, it is missing (map.x.deep)'],
    ['number: 1\nmap:\n  1:\n    deep: 1', 'f.yaml:4: expected boolean, received number (map.1.deep)'],
    [
      'number: 1\nmap:\n  x:\n    deep: true\n    depp: 1',
      'f.yaml:5: expected only known keys, unknown key depp (map.x)',
    ],
    ['number: 1\nextra: 2', 'f.yaml:2: expected only known keys, unknown key extra'],
    ['number: 1\neven: 3', 'f.yaml:2: expected an even number (even)'],
    ['number: &n x\neven: 2\nwords: *n', 'f.yaml:1: expected number, received string (number)'],
    ['number: 1\neven: *n', 'f.yaml:2: expected valid YAML (Unresolved alias'],
  ];
  for (const [text, what] of mistakes) t.equal(mistakeOf(text).slice(0, what.length), what, JSON.stringify(text));
  t.match(mistakeOf('number: 1\nmap:\n  .x: {}'), /^f\.yaml:3: expected a name of 1 to 64 .*\(map\.\.x\)$/);
});

t.test('of several mistakes the first line is told', async (t) => {
  t.equal(mistakeOf('words: 1\nextra: 2\nnumber: x'), 'f.yaml:1: expected list, received number (words)');
  t.equal(mistakeOf('extra: 2\nnumber: x\nwords: 1'), 'f.yaml:1: expected only known keys, unknown key extra');
});

t.test('aliases that multiply are refused', async (t) => {
  const lines = ['number: 1', 'words: &a [x, x, x, x, x, x, x, x, x]'];
  for (const [from, to] of ['ab', 'bc', 'cd', 'de', 'ef'].map((pair) => [...pair])) {
    lines.push(`${to}: &${to} [${Array(9).fill(`*${from}`).join(', ')}]`);
  }
  t.match(mistakeOf(lines.join('\n')), /expected valid YAML \(Excessive alias count/);
});

t.test('names of devices are short words that are no hidden file', async (t) => {
  for (const name of ['a', 'fwd1', 'A_b-c.d', '0', '-x', 'x'.repeat(64)]) t.equal(isDeviceName(name), true, name);
  for (const name of ['', '.', '.a', 'a/b', 'a b', 'a:b', 'ä', 'a\n', 'x'.repeat(65)]) {
    t.equal(isDeviceName(name), false, JSON.stringify(name));
  }
});
