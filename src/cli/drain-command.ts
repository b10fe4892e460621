/** `fwdfs drain`: this control device takes no new flows of balanced rules, and keeps those that it has. */
import type { Command } from 'commander';
import { action, UsageError } from './exit.js';
import { FileError } from './mount-reader.js';
import { type MountFlags, mountOption, onMount } from './options.js';
import { requireForwarder, whyNotConnected } from './view.js';

interface DrainFlags extends MountFlags {
  readonly off?: boolean;
}

async function drain(path: string, flags: DrainFlags): Promise<void> {
  const [forwarder = '', name, ...more] = path.split('/');
  if (forwarder === '' || forwarder.startsWith('.') || name === '' || more.length > 0) {
    throw new UsageError(`expected FORWARDER[/INTERFACE], such as fwd1 or fwd1/eth0, not ${JSON.stringify(path)}`);
  }
  const words = ['drain', ...(name === undefined ? [] : [name]), ...(flags.off === true ? ['off'] : [])];
  await onMount(flags, async (reader) => {
    await requireForwarder(reader, forwarder);
    try {
      await reader.write(`${forwarder}/.ctl`, `${words.join(' ')}\n`);
    } catch (error) {
      if (!(error instanceof FileError)) throw error;
      if (error.code === 'ENETDOWN') {
        throw new Error((await whyNotConnected(reader, forwarder)) || `${path}: ENETDOWN`, { cause: error });
      }
      if (error.code === 'ENOENT') {
        throw new Error(`${forwarder} has no interface ${name ?? ''}: see fwdfs ls`, { cause: error });
      }
      if (error.code === 'EINVAL') {
        throw new Error(`all interfaces of ${forwarder} are drained: fwdfs drain ${forwarder} --off ends that`, {
          cause: error,
        });
      }
      if (error.code === 'EOPNOTSUPP') {
        throw new Error(`${forwarder} is of an older version, which knows no drain: update it`, { cause: error });
      }
      throw error;
    }
  });
}

export function addDrainCommand(program: Command): void {
  program
    .command('drain')
    .description('take no new connections where several control devices share them; those that are there go on')
    .argument('<forwarder[/interface]>', 'one interface, or all of the forwarder: fwd1/eth0, fwd1')
    .option('--off', 'take new ones again')
    .addOption(mountOption())
    .addHelpText(
      'after',
      `
It holds until --off or the end of the mount, also after the forwarder was restarted; .state of the forwarder shows it.

Examples:
  $ fwdfs drain fwd1
  $ fwdfs drain fwd1/eth0
  $ fwdfs drain fwd1 --off`,
    )
    .action(action(drain));
}
