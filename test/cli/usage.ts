import type { Command } from 'commander';
import t from 'tap';
import { FwdfsError } from '../../src/base/errors.js';
import { errorLine, EXIT_FAILED, EXIT_USAGE, exitStatusOf, UsageError } from '../../src/cli/exit.js';
import { allCommands, makeProgram, pathOf } from '../../src/cli/main.js';
import { FWDFS, shell } from '../support/lab.js';

function helpOf(command: Command): string {
  let text = '';
  command.configureOutput({ writeOut: (part) => (text += part) }).outputHelp();
  return text;
}

t.test('every command has a help with examples that call it', async (t) => {
  const commands = allCommands(makeProgram());
  t.ok(commands.length > 10);
  for (const command of commands) {
    const help = helpOf(command);
    const [, examples = ''] = help.split('Examples:\n');
    t.ok(examples.includes('fwdfs'), `${pathOf(command)}: examples`);
    t.match(help, new RegExp(`Usage: ${pathOf(command)} `), pathOf(command));
    if (command.commands.length === 0) t.match(examples, new RegExp(pathOf(command)), pathOf(command));
  }
});

const NAMES = allCommands(makeProgram()).map((command) => pathOf(command).replace(/^fwdfs ?/, ''));

for (const name of NAMES) {
  t.test(`fwdfs ${name} --help ends with 0`, async (t) => {
    const { status, stdout, stderr } = await shell(`${process.execPath} ${FWDFS} ${name} --help`);
    t.same([status, stderr], [0, '']);
    t.match(stdout.toString(), /Examples:/);
  });
}

const WRONG: readonly (readonly [line: string, said: RegExp])[] = [
  ['bogus', /unknown command 'bogus'/],
  ['unmount', /unknown command 'unmount' \(Did you mean umount\?\) \(fwdfs --help shows how\)/],
  ['ls --bogus', /unknown option '--bogus'/],
  ['ls one', /too many arguments/],
  ['stat', /missing required argument/],
  ['stat eth0', /expected FORWARDER\/NAME, such as fwd1\/eth0, not "eth0"/],
  ['stat fwd1/eth0:udp:5', /expected an interface, such as eth0/],
  ['stat fwd1/a/b', /expected FORWARDER\/NAME/],
  ['rule add', /missing required argument/],
  ['rule add eth0', /expected FORWARDER\/NAME, such as fwd1\/eth0:udp:520/],
  ['vip add', /missing required argument/],
  ['vip add fwd1/eth0', /expected FORWARDER\/ADDRESS, such as fwd1\/10\.9\.0\.1/],
  ['vip add fwd1/10.9.0.1 --address fd00::1', /expected an IPv4 address/],
  ['drain', /missing required argument/],
  ['drain fwd1/eth0/1', /expected FORWARDER\[\/INTERFACE\]/],
  ['rule bogus', /unknown command 'bogus'/],
  ['umount', /missing required argument/],
  ['mount a=ws://h:1', /missing required argument 'mountpoint' \(fwdfs mount --help shows how\)/],
  ['mount -o bogus a=ws://h:1 /', /unknown mount option bogus: see fwdfs mount --help/],
  ['mount -o name a=ws://h:1 /', /mount option name takes a value/],
  ['mount -o name= a=ws://h:1 /', /mount option name takes a value/],
  ['mount -o ro=1 a=ws://h:1 /', /mount option ro takes no value/],
  ['mount -f -o name=a/b a=ws://h:1 /', /-o name=a\/b: expected letters/],
  ['mount ws://h:1 /', /expected NAME=URL .* fwd1=ws:\/\/h:1/],
  ['forwarder', /required option '--config <file>' not specified/],
  ['--log-level loud ls', /Allowed choices are debug/],
];

for (const [line, said] of WRONG) {
  t.test(`a wrong command line ends with 2 and says what was expected: fwdfs ${line}`, async (t) => {
    const { status, stdout, stderr } = await shell(`${process.execPath} ${FWDFS} ${line}`);
    t.equal(status, EXIT_USAGE);
    t.equal(stdout.toString(), '');
    t.match(stderr, said);
    t.match(stderr, /^fwdfs: [^\n]+\n$/, 'one line');
  });
}

t.test('output that nobody reads is not missed', async (t) => {
  const { stdout, stderr } = await shell(`set -o pipefail; ${process.execPath} ${FWDFS} --help | true; echo $?`);
  t.same([stdout.toString(), stderr], ['0\n', '']);
});

t.test('output that can not be written is an error of one line', async (t) => {
  const { status, stderr } = await shell(`${process.execPath} ${FWDFS} --help > /dev/full`);
  t.equal(status, EXIT_FAILED);
  t.match(stderr, /^fwdfs: the output can't be written \(ENOSPC\)[^\n]*\n$/);
  t.equal((await shell(`${process.execPath} ${FWDFS} bogus 2> /dev/full`)).status, EXIT_USAGE);
});

t.test('--version prints the version', async (t) => {
  const { status, stdout } = await shell(`${process.execPath} ${FWDFS} --version`);
  t.equal(status, 0);
  t.match(stdout.toString(), /^\d+\.\d+\.\d+\n$/);
});

t.test('an error is one line, and its kind decides the exit status', async (t) => {
  t.equal(errorLine(new Error('one\n  two\n')), 'fwdfs: one; two\n');
  t.equal(exitStatusOf(new UsageError('x')), EXIT_USAGE);
  t.equal(exitStatusOf(new FwdfsError('bad-option', 'x')), EXIT_USAGE);
  t.equal(exitStatusOf(new FwdfsError('bad-config', 'x')), EXIT_FAILED);
  t.equal(exitStatusOf('text'), EXIT_FAILED);
});
