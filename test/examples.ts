import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { loadControlConfig } from '../src/control/config.js';
import { loadForwarderConfig } from '../src/forwarder/config.js';

const folder = fileURLToPath(new URL('../../examples/', import.meta.url));
const MOST_LINES = 60;

t.test('every example has at most 60 lines and begins with what it is', (t) => {
  const files = readdirSync(folder);
  t.ok(files.length > 0);
  for (const file of files) {
    const lines = readFileSync(folder + file, 'utf8')
      .trimEnd()
      .split('\n');
    t.ok(lines.length <= MOST_LINES, `${file}: ${lines.length} lines`);
    t.match(lines.slice(0, 2).join('\n'), /# [A-Z]|"""[A-Z]/, file);
  }
  t.end();
});

t.test('the configurations of the examples are valid', (t) => {
  t.equal(loadForwarderConfig(`${folder}forwarder.yaml`).name, 'fwd1');
  t.equal(loadControlConfig(`${folder}control.yaml`).name, 'ctl1');
  t.end();
});
