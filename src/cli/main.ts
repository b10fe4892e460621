/** The command line: argv to one command. Each command stands in a file of its own. */
import { Command, CommanderError, Option } from 'commander';
import { EXIT_USAGE } from './exit.js';
import { addForwarderCommand } from './forwarder-command.js';
import { LOG_LEVELS } from './log.js';
import { addMountCommand } from './mount-command.js';
import { packageVersion } from './version.js';

export function makeProgram(): Command {
  const program = new Command('fwdfs')
    .description('Remote network interfaces as files')
    .version(packageVersion())
    .addOption(new Option('--log-level <level>', 'what is logged on stderr').choices([...LOG_LEVELS]).default('info'))
    .showHelpAfterError('(fwdfs --help shows the commands)');
  addForwarderCommand(program);
  addMountCommand(program);
  return program;
}

export async function main(argv: readonly string[]): Promise<void> {
  const program = makeProgram();
  for (const command of [program, ...program.commands]) command.exitOverride();
  try {
    await program.parseAsync([...argv]);
  } catch (error) {
    // Commander has printed what was wrong; help and version end with 0.
    if (!(error instanceof CommanderError)) throw error;
    process.exitCode = error.exitCode === 0 ? 0 : EXIT_USAGE;
  }
}
