/**
 * `fwdfs exec`: a command in a network namespace of its own, whose only interface beside lo is a virtual IF.
 *
 *     new namespace --> vif add … netns=/proc/PID/ns/net hold --> command --> its exit status
 *
 * The virtual IF goes when `.ctl` is closed, which the end of this process does, however it ends.
 */
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import type { Command } from 'commander';
import { FwdfsError } from '../base/errors.js';
import { CLONE_NEWNET, ifNameToIndex, must, sys } from '../sys/libc.js';
import { RouteRequests } from '../sys/route-requests.js';
import { action } from './exit.js';
import { mountOption, onMount, splitName } from './options.js';
import { requireForwarder } from './view.js';
import { explainVif, vifAddLine, type VifFlags, withVifOptions } from './vif-command.js';

/** What a shell says of a command that it can't find, or can't run. */
const STATUS_NOT_FOUND = 127;
const STATUS_NOT_RUN = 126;
const STATUS_SIGNAL = 128;
const FORWARDED = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const;

/** @returns the exit status, as a shell gives it */
function run([command = '', ...args]: readonly string[]): Promise<number> {
  return new Promise((resolve) => {
    const child = spawn(command, args, { stdio: 'inherit' });
    const forward = (signal: NodeJS.Signals): void => void child.kill(signal);
    for (const signal of FORWARDED) process.on(signal, forward);
    child.once('error', (error) => {
      const code = 'code' in error ? String(error.code) : error.message;
      process.stderr.write(`fwdfs: ${command} can't be run (${code}): give a command of the PATH, or a path\n`);
      resolve('code' in error && error.code === 'ENOENT' ? STATUS_NOT_FOUND : STATUS_NOT_RUN);
    });
    child.once('exit', (status, signal) => {
      for (const one of FORWARDED) process.off(one, forward);
      resolve(status ?? STATUS_SIGNAL + (signal === null ? 0 : constants.signals[signal]));
    });
  });
}

async function exec(path: string, words: readonly string[], flags: VifFlags): Promise<void> {
  const { forwarder, name } = splitName(path, 'fwd1/eth0');
  process.exitCode = await onMount(flags, async (reader) => {
    await requireForwarder(reader, forwarder);
    const made = sys.unshare(CLONE_NEWNET);
    if (made === -constants.errno.EPERM)
      throw new FwdfsError('host-lacks', 'exec makes a network namespace: run it as root');
    must('unshare(CLONE_NEWNET)', made);
    new RouteRequests().setLink(ifNameToIndex('lo'), { up: true });
    const netns = `/proc/${process.pid}/ns/net`;
    try {
      await reader.hold(`${forwarder}/.ctl`, vifAddLine(name, { ...flags, netns }, ['hold']));
    } catch (error) {
      throw await explainVif(reader, path, flags, error);
    }
    return run(words);
  });
}

export function addExecCommand(program: Command): void {
  withVifOptions(
    program.command('exec').description('run a command in a network namespace whose only interface is a virtual IF'),
  )
    .argument('<forwarder/interface>', 'such as fwd1/eth0')
    .argument('<command...>', 'the command and its arguments, after --')
    .addOption(mountOption())
    .addHelpText(
      'after',
      `
All that the command sends leaves through the remote interface, and what it listens at is reachable there. Its exit status is
the command's.

Examples:
  $ fwdfs exec fwd1/eth0 -- curl http://192.0.2.80/
  $ fwdfs exec fwd1/eth0 -- bash`,
    )
    .action(action(exec));
}
