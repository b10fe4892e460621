import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { parseMountOptions } from '../src/cli/mount-options.js';
import { isShortForm, loadControlConfig, parseSource } from '../src/control/config.js';
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

const hasSystemd = spawnSync('systemd-analyze', ['--version']).error === undefined;

t.test('systemd finds nothing wrong with the units', { skip: hasSystemd ? false : 'no systemd-analyze' }, (t) => {
  const fwdfs = fileURLToPath(new URL('../../bin/fwdfs', import.meta.url));
  const units = readdirSync(folder).filter((file) => file.endsWith('.service'));
  t.equal(units.length, 2);
  for (const unit of units) {
    const text = readFileSync(folder + unit, 'utf8');
    t.match(text, '/usr/local/bin/fwdfs ');
    const file = join(t.testdir({}), unit);
    const verify = (content: string): string => {
      writeFileSync(file, content);
      const { stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', file], { encoding: 'utf8' });
      // Units of the host are looked at as well, and may have flaws of their own.
      return stderr
        .split('\n')
        .filter((line) => line.includes(unit))
        .join('\n');
    };
    t.equal(verify(text.replaceAll('/usr/local/bin/fwdfs', fwdfs)), '', unit);
    t.match(verify(text.replaceAll('/usr/local/bin/fwdfs', '/no/such/fwdfs')), /no\/such\/fwdfs is not executable/);
  }
  t.end();
});

t.test('the lines of fstab have options and sources that are known', (t) => {
  const lines = readFileSync(`${folder}fstab`, 'utf8')
    .split('\n')
    .filter((line) => /^[^#]/.test(line));
  t.equal(lines.length, 3);
  for (const line of lines) {
    const [source = '', , type, options = '', ...rest] = line.split(/\s+/);
    t.same([type, ...rest], ['fwdfs', '0', '0'], line);
    t.doesNotThrow(() => parseMountOptions(options), line);
    if (isShortForm(source)) t.equal(parseSource(source).forwarders.size, 1);
  }
  t.end();
});
