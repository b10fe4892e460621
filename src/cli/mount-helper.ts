/**
 * `mount.fwdfs`: what mount(8) runs for `mount -t fwdfs`, `mount -t fuse.fwdfs` and lines of /etc/fstab, as root or as the
 * user, with any working directory and hardly an environment.
 *
 *     mount -t fwdfs SOURCE DIR -o OPTS --> /sbin/mount.fwdfs SOURCE DIR -o rw,OPTS --> fwdfs mount -o rw,OPTS SOURCE DIR
 *
 * It returns when the mount can be used, with a status of mount(8).
 */
import { Command, CommanderError } from 'commander';
import { action, EXIT_USAGE, guardOutput, UsageError, usageLine } from './exit.js';
import { runMount } from './mount-command.js';
import { mountOptionsHelp, parseMountOptions } from './mount-options.js';

/** "mount failure", mount(8): whatever it was. */
export const EXIT_MOUNT_FAILED = 32;
const LOG_LEVEL = 'info';

interface HelperFlags {
  readonly s?: boolean;
  readonly f?: boolean;
  readonly N?: string;
  readonly o: string[];
}

async function mount(source: string, mountPoint: string, flags: HelperFlags): Promise<void> {
  if (flags.N !== undefined) throw new UsageError('mount -N is not served: nsenter --mount=FILE mount …');
  const values = parseMountOptions(flags.o.join(','), flags.s === true);
  if (flags.f === true) return;
  await runMount({ source, mountPoint, values, foreground: false, traceFuse: false, logLevel: LOG_LEVEL });
}

export function makeMountHelper(): Command {
  return new Command('mount.fwdfs')
    .description('what mount(8) runs for a file system of the type fwdfs or fuse.fwdfs')
    .argument('<source>', 'a configuration file, or NAME=URL[,NAME=URL…]')
    .argument('<dir>', 'an empty directory')
    .option('-o <list>', 'mount options, see below', (list: string, before: string[]) => [...before, list], [])
    .option('-f', 'fake: check the options, mount nothing')
    .option('-s', 'ignore options that are unknown')
    .option('-n', 'has no effect')
    .option('-v', 'has no effect')
    .option('-t <type>', 'has no effect')
    .option('-N <namespace>', 'is refused')
    .addHelpText(
      'after',
      `${mountOptionsHelp()}

Examples:
  $ mount -t fwdfs fwd1=ws://192.0.2.1:7440 /fwd -o name=ctl1,token_file=/etc/fwdfs/token
  $ grep fwdfs /etc/fstab
  /etc/fwdfs/control.yaml  /fwd  fwdfs  _netdev,nofail,allow_other  0  0`,
    )
    .configureOutput({ outputError: (text, write) => write(usageLine(text, 'mount.fwdfs')) })
    .exitOverride()
    .action(action(mount));
}

export async function mountHelper(argv: readonly string[]): Promise<void> {
  guardOutput();
  try {
    await makeMountHelper().parseAsync([...argv]);
  } catch (error) {
    // Commander has printed what was wrong; help ends with 0.
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode !== 0) process.exitCode = EXIT_USAGE;
  }
  if (process.exitCode !== undefined && process.exitCode !== 0) process.exitCode = EXIT_MOUNT_FAILED;
}
