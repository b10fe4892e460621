/** `fwdfs vip add|remove|list`: virtual IP addresses, through the forwarder's `.ctl` and the control device's `.tables`. */
import { isIP } from 'node:net';
import type { Command } from 'commander';
import { vipRequest } from '../control/vip-commands.js';
import { parseExpose } from '../control/vif-commands.js';
import { action, UsageError } from './exit.js';
import { FileError, type MountReader } from './mount-reader.js';
import { type MountFlags, mountOption, onMount, type PrintFlags, splitName, withPrintOptions } from './options.js';
import { print, printJson, tableLines } from './output.js';
import { OWN, readTable, requireForwarder, rowsAsObjects, whyNotConnected } from './view.js';

interface VipFlags extends MountFlags {
  readonly address?: string;
  readonly expose?: string;
}

const EXAMPLE = 'fwd1/10.9.0.1';

/** `FORWARDER/ADDRESS`. @throws UsageError */
function splitPath(path: string): { forwarder: string; name: string } {
  const split = splitName(path, EXAMPLE);
  if (isIP(split.name) === 0) {
    throw new UsageError(`expected FORWARDER/ADDRESS, such as ${EXAMPLE}, not ${JSON.stringify(path)}`);
  }
  return split;
}

/** The line for `.ctl`. @throws UsageError; FwdfsError bad-protocol-address */
function vipAddLine(address: string, { address: sender, expose }: VipFlags): string {
  if (sender !== undefined && isIP(sender) !== isIP(address)) {
    throw new UsageError(`--address ${sender}: expected an IPv${isIP(address)} address, as ${address} is`);
  }
  const request = vipRequest(address, sender ?? null, expose === undefined ? null : parseExpose(expose));
  const words = Object.entries({ address: request.sender, expose }).flatMap(([key, value]) =>
    value === null || value === undefined ? [] : [`${key}=${value}`],
  );
  return `${['vip add', request.address, ...words].join(' ')}\n`;
}

/** The line that says why `.ctl` refused; all that it can say is an errno. */
async function explain(reader: MountReader, path: string, flags: VipFlags, error: unknown): Promise<unknown> {
  if (!(error instanceof FileError)) return error;
  const { forwarder, name } = splitName(path, EXAMPLE);
  switch (error.code) {
    case 'ENETDOWN':
      return new Error((await whyNotConnected(reader, forwarder)) || `${path}: ENETDOWN`);
    case 'ENOENT':
      return new Error(`no interface of ${forwarder} has the address ${name}: see fwdfs ls`);
    case 'EEXIST':
      return new Error(`${name} is an address of this host already: see fwdfs vip list, fwdfs vif list and ip address`);
    case 'EACCES':
      return new Error(`${forwarder} does not permit ${name}: add the right vip of its interface to the permissions`);
    case 'EHOSTUNREACH':
      return new Error(
        `${forwarder} is not on a link of this host, which address conversion needs: use a virtual IF, fwdfs vif add`,
      );
    case 'EADDRINUSE':
      return new Error(
        flags.address === undefined
          ? `a forwarder is reached at ${name}, or no sender address is free: use another address, or give one with --address`
          : `${flags.address} is in use, there or here: give another --address, or none`,
      );
    case 'EPROTO':
      return new Error(`${forwarder} does not take ${flags.address ?? name}: no host can have it, give another`);
    case 'EPERM':
      return new Error('the control device may not set addresses: run fwdfs mount as root');
    case 'ENODEV':
      return new Error('this host lacks nftables: fwdfs doctor says how to get it');
    case 'EOPNOTSUPP':
      return new Error(`${forwarder} is of an older version, which knows no virtual IP addresses: update it`);
    default:
      return new Error(`${path}: ${error.code}; the log of fwdfs mount says more`);
  }
}

async function add(path: string, flags: VipFlags): Promise<void> {
  const { forwarder, name } = splitPath(path);
  const line = vipAddLine(name, flags);
  await onMount(flags, async (reader) => {
    await requireForwarder(reader, forwarder);
    try {
      await reader.write(`${forwarder}/.ctl`, line);
    } catch (error) {
      throw await explain(reader, path, flags, error);
    }
  });
}

async function remove(path: string, flags: MountFlags): Promise<void> {
  const { forwarder, name } = splitPath(path);
  const { address } = vipRequest(name, null, null);
  await onMount(flags, async (reader) => {
    await requireForwarder(reader, forwarder);
    try {
      await reader.write(`${forwarder}/.ctl`, `vip remove ${address}\n`);
    } catch (error) {
      if (!(error instanceof FileError) || error.code !== 'ENOENT') throw error;
      throw new Error(`there is no virtual IP address ${path}: see fwdfs vip list`, { cause: error });
    }
  });
}

async function list(flags: PrintFlags): Promise<void> {
  const [vips, rules] = await onMount(flags, (reader) =>
    Promise.all([readTable(reader, OWN, 'vip'), readTable(reader, OWN, 'vip_rules')]),
  );
  if (flags.json === true) {
    const rows = rowsAsObjects(rules);
    printJson(rowsAsObjects(vips).map((vip) => ({ ...vip, rules: rows.filter((rule) => rule['vip'] === vip['vip']) })));
    return;
  }
  print([...tableLines(vips), ...(rules.rows.length === 0 ? [] : ['', ...tableLines(rules)])]);
}

export function addVipCommand(program: Command): void {
  const command = program
    .command('vip')
    .description('virtual IP addresses: addresses of a forwarder on this host, by address conversion')
    .addHelpText(
      'after',
      `
Examples:
  $ fwdfs vip add fwd1/10.9.0.1 && nginx
  $ fwdfs vip list
  $ fwdfs vip remove fwd1/10.9.0.1`,
    );
  command
    .command('add')
    .description('have an address of a forwarder here: sockets bound to it, or to any address, are reachable at it')
    .argument('<forwarder/address>', `an address of one of its interfaces, such as ${EXAMPLE}`)
    .option(
      '--address <address>',
      'what stands for it between the two devices (default: one of 169.254.0.0/16 or fdfd::/16)',
    )
    .option('--expose <list>', 'what sockets may be published, also those open before: tcp:80,udp:5000-5010')
    .addOption(mountOption())
    .addHelpText(
      'after',
      `
Nothing is encapsulated: the kernels of both devices convert addresses, which is fast, for TCP, UDP and SCTP. Both
devices have to be on one link. Sockets that are opened from then on are published, each is logged; those that were open
before only if --expose names them.

Examples:
  $ fwdfs vip add fwd1/10.9.0.1
  $ fwdfs vip add fwd1/2001:db8::1 --expose tcp:80,tcp:443
  $ fwdfs vip add fwd1/10.9.0.1 --address 10.8.0.77`,
    )
    .action(action(add));
  command
    .command('remove')
    .description('give the address back: nothing of it is left')
    .argument('<forwarder/address>', 'the same name')
    .addOption(mountOption())
    .addHelpText('after', '\nExamples:\n  $ fwdfs vip remove fwd1/10.9.0.1')
    .action(action(remove));
  withPrintOptions(command.command('list').description('virtual IP addresses, and what their sockets want'))
    .addHelpText('after', '\nExamples:\n  $ fwdfs vip list\n  $ fwdfs vip list --json')
    .action(action(list));
}
