/** `fwdfs vif add|remove|list`: virtual IFs, through the forwarder's `.ctl` and the control device's `.tables`. */
import { type Command, Option } from 'commander';
import { parseExpose } from '../control/vif-commands.js';
import { VIF_KINDS } from '../tunnel/messages.js';
import { action, UsageError } from './exit.js';
import { FileError, type MountReader } from './mount-reader.js';
import { type MountFlags, mountOption, onMount, type PrintFlags, splitName, withPrintOptions } from './options.js';
import { print, printJson, tableLines } from './output.js';
import { OWN, readTable, requireForwarder, rowsAsObjects, whyNotConnected } from './view.js';

export interface VifFlags extends MountFlags {
  readonly name?: string;
  readonly kind?: string;
  readonly netns?: string;
  readonly expose?: string;
}

/** The line for `.ctl`. @throws FwdfsError bad-protocol-address for what `expose` can't be */
export function vifAddLine(interfaceName: string, flags: VifFlags, more: readonly string[] = []): string {
  if (flags.expose !== undefined) parseExpose(flags.expose);
  const { name, kind, netns, expose } = flags;
  const words = Object.entries({ name, kind, netns, expose }).flatMap(([key, value]) => {
    if (value === undefined) return [];
    if (/\s/.test(value) || value === '')
      throw new UsageError(`--${key} ${JSON.stringify(value)} has a blank or nothing`);
    return [`${key}=${value}`];
  });
  return `${['vif add', interfaceName, ...words, ...more].join(' ')}\n`;
}

/** The line that says why `.ctl` refused; all that it can say is an errno. */
export async function explainVif(reader: MountReader, path: string, flags: VifFlags, error: unknown): Promise<unknown> {
  if (!(error instanceof FileError)) return error;
  const { forwarder, name } = splitName(path, '');
  const device = flags.name ?? `${forwarder}-${name}`;
  switch (error.code) {
    case 'ENETDOWN':
      return new Error((await whyNotConnected(reader, forwarder)) || `${path}: ENETDOWN`);
    case 'ENOENT': {
      const names = await reader.list(`${forwarder}/.if`);
      if (!names.includes(name)) return new Error(`${forwarder} has no interface ${name}: see fwdfs ls`);
      return new Error(`there is no network namespace ${flags.netns ?? ''}: ip netns add ${flags.netns ?? ''}`);
    }
    case 'EEXIST':
    case 'EBUSY':
      return new Error(`a device ${device} is there already: give another --name, or fwdfs vif remove ${path}`);
    case 'EACCES':
      return new Error(`${forwarder} does not permit ${name} as a virtual IF: add the right vif to its permissions`);
    case 'EADDRINUSE':
      return new Error(
        `${forwarder} is reached at an address of ${name}, which would become one of this host: use --netns`,
      );
    case 'EPERM':
      return new Error('the control device may not make devices: run fwdfs mount as root');
    case 'EINVAL':
      return new Error(
        `${device} of ${path} can't be made: a name has 1 to 15 characters without / : % and quotes, tap is for Ethernet, lo can't be mirrored`,
      );
    default:
      return new Error(`${path}: ${error.code}; the log of fwdfs mount says more`);
  }
}

async function add(path: string, flags: VifFlags): Promise<void> {
  const { forwarder, name } = splitName(path, 'fwd1/eth0');
  const line = vifAddLine(name, flags);
  await onMount(flags, async (reader) => {
    await requireForwarder(reader, forwarder);
    try {
      await reader.write(`${forwarder}/.ctl`, line);
    } catch (error) {
      throw await explainVif(reader, path, flags, error);
    }
  });
}

async function remove(path: string, flags: VifFlags): Promise<void> {
  const { forwarder, name } = splitName(path, 'fwd1/eth0');
  await onMount(flags, async (reader) => {
    await requireForwarder(reader, forwarder);
    try {
      const where = flags.netns === undefined ? '' : ` netns=${flags.netns}`;
      await reader.write(`${forwarder}/.ctl`, `vif remove ${name}${where}\n`);
    } catch (error) {
      if (!(error instanceof FileError)) throw error;
      if (error.code === 'ENOENT') throw new Error(`there is no virtual IF of ${path}: see fwdfs vif list`);
      if (error.code === 'EINVAL')
        throw new Error(`${path} has several virtual IFs: name the device, see fwdfs vif list`);
      throw error;
    }
  });
}

async function list(flags: PrintFlags): Promise<void> {
  const [vifs, rules] = await onMount(flags, (reader) =>
    Promise.all([readTable(reader, OWN, 'vif'), readTable(reader, OWN, 'vif_rules')]),
  );
  if (flags.json === true) {
    const rows = rowsAsObjects(rules);
    printJson(rowsAsObjects(vifs).map((vif) => ({ ...vif, rules: rows.filter((rule) => rule['vif'] === vif['vif']) })));
    return;
  }
  print([...tableLines(vifs), ...(rules.rows.length === 0 ? [] : ['', ...tableLines(rules)])]);
}

/** The options of a virtual IF. */
export function withVifOptions(command: Command): Command {
  return command
    .option('--name <name>', 'name of the device, at most 15 characters (default: FORWARDER-INTERFACE)')
    .addOption(
      new Option('--kind <kind>', 'default: tap for Ethernet interfaces, tun for others').choices([...VIF_KINDS]),
    )
    .option('--expose <list>', 'what sockets may be published, also those open before: tcp:80,udp:5000-5010');
}

export function addVifCommand(program: Command): void {
  const command = program
    .command('vif')
    .description('virtual IFs: devices that mirror remote interfaces, for programs with sockets')
    .addHelpText(
      'after',
      `
Examples:
  $ fwdfs vif add fwd1/eth0 && nginx
  $ fwdfs vif list
  $ fwdfs vif remove fwd1/eth0`,
    );
  withVifOptions(command.command('add').description('make a device that mirrors an interface'))
    .argument('<forwarder/interface>', 'such as fwd1/eth0')
    .option('--netns <netns>', 'in which network namespace: a name in /run/netns or a path; there all sockets count')
    .addOption(mountOption())
    .addHelpText(
      'after',
      `
Sockets that are opened from then on are reachable at the interface's addresses, each is logged; those that were open before
only if --expose names them. Programs that don't bind to its address reach what is off the link by the host's own routes: for
them there are --netns and fwdfs exec.

Examples:
  $ fwdfs vif add fwd1/eth0
  $ fwdfs vif add fwd1/eth0 --netns web
  $ fwdfs vif add fwd1/eth0 --expose tcp:80,tcp:443`,
    )
    .action(action(add));
  command
    .command('remove')
    .description('take a virtual IF down: nothing of it is left')
    .argument('<forwarder/interface>', 'the interface, or the name of the device: fwd1/eth0, fwd1/fwd1-eth0')
    .option('--netns <netns>', 'in which network namespace, where one name is in several')
    .addOption(mountOption())
    .addHelpText('after', '\nExamples:\n  $ fwdfs vif remove fwd1/eth0')
    .action(action(remove));
  withPrintOptions(command.command('list').description('virtual IFs, and what their sockets want'))
    .addHelpText('after', '\nExamples:\n  $ fwdfs vif list\n  $ fwdfs vif list --json')
    .action(action(list));
}
