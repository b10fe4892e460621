/** `fwdfs rule add|remove`: a rule without an open file, through the forwarder's `.ctl`. */
import type { Command } from 'commander';
import { parseSymbolName } from '../packet/symbol-name.js';
import { action } from './exit.js';
import { FileError, type MountReader } from './mount-reader.js';
import { type MountFlags, mountOption, onMount, splitName } from './options.js';
import { requireForwarder, whyNotConnected } from './view.js';

/** The line that says why `.ctl` refused; all that it can say is an errno. */
async function explain(reader: MountReader, verb: string, path: string, error: unknown): Promise<unknown> {
  if (!(error instanceof FileError)) return error;
  const { forwarder, name } = splitName(path, '');
  const [interfaceName = ''] = name.split(':');
  switch (error.code) {
    case 'ENETDOWN':
      return new Error((await whyNotConnected(reader, forwarder)) || `${path}: ENETDOWN`);
    case 'ENOENT':
      return new Error(
        verb === 'add'
          ? `${forwarder} has no interface ${interfaceName}: see fwdfs ls`
          : `${path} was not added by hand: rules of open files go when they are closed`,
      );
    case 'EEXIST':
      return new Error(`${path} was added already: fwdfs rule remove ${path} takes it back`);
    case 'EACCES':
      return new Error(`${forwarder} does not permit ${name}: add a line to its permissions`);
    case 'EINVAL':
      return new Error(`${path}: a rule has an interface, a protocol address and a scope, and nothing more`);
    default:
      return new Error(`${path}: ${error.code}`);
  }
}

function rule(verb: 'add' | 'remove') {
  return async (path: string, flags: MountFlags): Promise<void> => {
    const { forwarder, name } = splitName(path, 'fwd1/eth0:udp:520');
    parseSymbolName(name);
    await onMount(flags, async (reader) => {
      await requireForwarder(reader, forwarder);
      try {
        await reader.write(`${forwarder}/.ctl`, `rule ${verb} ${name}\n`);
      } catch (error) {
        throw await explain(reader, verb, path, error);
      }
    });
  };
}

export function addRuleCommand(program: Command): void {
  const command = program
    .command('rule')
    .description('packet transfer rules that are set by hand, without an open file')
    .addHelpText(
      'after',
      `
Examples:
  $ fwdfs rule add fwd1/eth0:udp:520
  $ fwdfs rules
  $ fwdfs rule remove fwd1/eth0:udp:520`,
    );
  command
    .command('add')
    .description('set a rule')
    .argument('<forwarder/name>', 'a name as one opens it, such as fwd1/eth0:udp:520')
    .addOption(mountOption())
    .addHelpText('after', '\nExamples:\n  $ fwdfs rule add fwd1/eth0:udp:520\n  $ fwdfs rule add fwd1/eth0:arp:both')
    .action(action(rule('add')));
  command
    .command('remove')
    .description('take a rule back that was set with rule add')
    .argument('<forwarder/name>', 'the same name')
    .addOption(mountOption())
    .addHelpText('after', '\nExamples:\n  $ fwdfs rule remove fwd1/eth0:udp:520')
    .action(action(rule('remove')));
}
