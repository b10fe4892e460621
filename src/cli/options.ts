/** Options and arguments that several commands have. */
import { type Command, Option } from 'commander';
import { UsageError } from './exit.js';
import { chooseMount } from './mounts.js';
import { MountReader } from './mount-reader.js';

export interface MountFlags {
  readonly mount?: string;
}

export interface PrintFlags extends MountFlags {
  readonly json?: boolean;
}

/** `-m MOUNTPOINT`. */
export function mountOption(): Option {
  return new Option('-m, --mount <mountpoint>', 'which mount; may be left out where there is one');
}

/** `-m MOUNTPOINT` and `--json`. */
export function withPrintOptions(command: Command): Command {
  return command.addOption(mountOption()).option('--json', 'print JSON');
}

/** Runs `work` on the mount that the options name. Throws one line if there is none, or it does not answer. */
export function onMount<T>(flags: MountFlags, work: (reader: MountReader) => Promise<T>): Promise<T> {
  return MountReader.use(chooseMount(flags.mount), work);
}

/** `FORWARDER/NAME`. @throws UsageError */
export function splitName(text: string, example: string): { forwarder: string; name: string } {
  const slash = text.indexOf('/');
  const forwarder = text.slice(0, Math.max(slash, 0));
  const name = text.slice(slash + 1);
  if (forwarder === '' || name === '' || name.includes('/') || forwarder.startsWith('.')) {
    throw new UsageError(`expected FORWARDER/NAME, such as ${example}, not ${JSON.stringify(text)}`);
  }
  return { forwarder, name };
}
