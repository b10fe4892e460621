/** `fwdfs ls`: the forwarders of a mount and their interfaces. */
import type { Command } from 'commander';
import { action } from './exit.js';
import { onMount, type PrintFlags, withPrintOptions } from './options.js';
import { printJson, printTable } from './output.js';
import { allForwarders, type ForwarderView } from './view.js';

const COLUMNS = ['forwarder', 'state', 'interface', 'rights', 'operstate', 'mtu', 'address', 'addresses'];

function rowsOf({ forwarder, connected, interfaces }: ForwarderView): string[][] {
  const state = connected ? 'connected' : 'not-connected';
  if (interfaces.length === 0) return [[forwarder, state]];
  return interfaces.map((one) => [
    forwarder,
    state,
    one.interface,
    one.rights,
    one.operstate,
    one.mtu === null ? '' : String(one.mtu),
    one.address,
    one.addresses.join(','),
  ]);
}

export function addLsCommand(program: Command): void {
  withPrintOptions(program.command('ls'))
    .description('forwarders and their interfaces: state, rights, addresses')
    .addHelpText(
      'after',
      `
Rights are those that this control device has: r to read frames, w to write them.

Examples:
  $ fwdfs ls
  $ fwdfs ls -m /fwd
  $ fwdfs ls --json | jq '.[].interfaces[].addresses'`,
    )
    .action(
      action(async (flags: PrintFlags) => {
        const forwarders = await onMount(flags, allForwarders);
        if (flags.json === true) {
          printJson(forwarders);
          return;
        }
        printTable({ columns: COLUMNS, rows: forwarders.flatMap(rowsOf) });
        for (const { forwarder, connected, lastError } of forwarders) {
          if (!connected)
            process.stderr.write(`fwdfs: ${forwarder} is not connected: ${lastError || 'still trying'}\n`);
        }
      }),
    );
}
