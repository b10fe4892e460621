/**
 * The command line: argv to one command. Each command stands in a file of its own, and imports what it runs only when it
 * runs, so that `--help` is fast and `doctor` works on a host where the rest can't even be loaded.
 */
import { Command, CommanderError, Option } from 'commander';
import { addDemoCommand } from './demo-command.js';
import { addDoctorCommand } from './doctor-command.js';
import { addDrainCommand } from './drain-command.js';
import { EXIT_USAGE, guardOutput, usageLine } from './exit.js';
import { addExecCommand } from './exec-command.js';
import { addForwarderCommand } from './forwarder-command.js';
import { addLsCommand } from './ls-command.js';
import { addMountCommand } from './mount-command.js';
import { addRuleCommand } from './rule-command.js';
import { addStatCommand } from './stat-command.js';
import { addRulesCommand, addTablesCommand } from './tables-command.js';
import { addUmountCommand } from './umount-command.js';
import { addVifCommand } from './vif-command.js';
import { addVipCommand } from './vip-command.js';
import { packageVersion } from './version.js';

const LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'silent'] as const;

const COMMANDS = [
  addForwarderCommand,
  addMountCommand,
  addUmountCommand,
  addLsCommand,
  addStatCommand,
  addTablesCommand,
  addRulesCommand,
  addRuleCommand,
  addVifCommand,
  addVipCommand,
  addDrainCommand,
  addExecCommand,
  addDoctorCommand,
  addDemoCommand,
] as const;

export function makeProgram(): Command {
  const program = new Command('fwdfs')
    .description('Remote network interfaces as files')
    .version(packageVersion())
    .addOption(new Option('--log-level <level>', 'what is logged on stderr').choices([...LOG_LEVELS]).default('info'))
    .addHelpText(
      'after',
      `
Examples:
  $ fwdfs demo
  $ fwdfs mount fwd1=ws://192.0.2.1:7440 /fwd
  $ cat /fwd/fwd1/eth0 | tcpdump -nr -
  $ fwdfs mount --help`,
    );
  for (const add of COMMANDS) add(program);
  for (const command of allCommands(program)) {
    const outputError = (text: string, write: (line: string) => void): void => write(usageLine(text, pathOf(command)));
    command.configureOutput({ outputError }).exitOverride();
  }
  return program;
}

/** The words that call a command. */
export function pathOf(command: Command): string {
  return command.parent === null ? command.name() : `${pathOf(command.parent)} ${command.name()}`;
}

/** The program and the commands below it. */
export function allCommands(command: Command): Command[] {
  return [command, ...command.commands.flatMap(allCommands)];
}

export async function main(argv: readonly string[]): Promise<void> {
  guardOutput();
  const program = makeProgram();
  try {
    await program.parseAsync([...argv]);
  } catch (error) {
    // Commander has printed what was wrong; help and version end with 0.
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode !== 0) process.exitCode = EXIT_USAGE;
  }
}
