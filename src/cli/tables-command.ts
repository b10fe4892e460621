/** `fwdfs tables` and `fwdfs rules`: what both sides know, as their `.tables` show it. */
import type { Command } from 'commander';
import { action } from './exit.js';
import { FileError, type MountReader } from './mount-reader.js';
import { onMount, type PrintFlags, withPrintOptions } from './options.js';
import { print, printJson, printTable, tableLines } from './output.js';
import {
  forwarderNames,
  OWN,
  readTable,
  requireForwarder,
  rowsAsObjects,
  tableNames,
  type TableView,
  whyNotConnected,
} from './view.js';

const DISTRIBUTION = 'distribution';

interface Read {
  readonly tables: readonly TableView[];
  /** One line for each forwarder that could not be asked. */
  readonly failures: readonly string[];
}

async function explain(reader: MountReader, device: string, error: unknown): Promise<string> {
  if (!(error instanceof FileError)) throw error;
  if (device !== OWN && error.code === 'ENETDOWN') return whyNotConnected(reader, device);
  return error.message;
}

/** The tables of some devices; those that can't be asked are named, and don't keep the others. */
async function readTables(reader: MountReader, devices: readonly string[], table?: string): Promise<Read> {
  const failures: string[] = [];
  const ofDevices = await Promise.all(
    devices.map(async (device) => {
      const names = await tableNames(reader, device);
      if (table !== undefined && !names.includes(table)) {
        throw new Error(`${device} has no table ${table}: it has ${names.join(', ')}`);
      }
      try {
        return await Promise.all(
          (table === undefined ? names : [table]).map((name) => readTable(reader, device, name)),
        );
      } catch (error) {
        failures.push(await explain(reader, device, error));
        return [];
      }
    }),
  );
  return { tables: ofDevices.flat(), failures };
}

function tell(failures: readonly string[]): void {
  for (const line of failures) process.stderr.write(`fwdfs: ${line}\n`);
}

async function tables(device: string | undefined, table: string | undefined, flags: PrintFlags): Promise<void> {
  const read = await onMount(flags, async (reader) => {
    if (device !== undefined && device !== OWN) await requireForwarder(reader, device);
    return readTables(reader, device === undefined ? [OWN, ...(await forwarderNames(reader))] : [device], table);
  });
  if (device !== undefined && read.failures[0] !== undefined) throw new Error(read.failures[0]);
  if (flags.json === true) {
    printJson(read.tables.map((one) => ({ device: one.device, table: one.table, rows: rowsAsObjects(one) })));
  } else if (table !== undefined) {
    for (const one of read.tables) printTable(one);
  } else {
    const blocks = read.tables.map((one) => [`# ${one.device}/.tables/${one.table}`, ...tableLines(one)].join('\n'));
    print(blocks.length === 0 ? [] : [blocks.join('\n\n')]);
  }
  tell(read.failures);
}

async function rules(flags: PrintFlags): Promise<void> {
  const read = await onMount(flags, async (reader) => readTables(reader, await forwarderNames(reader), DISTRIBUTION));
  const columns = ['forwarder', ...(read.tables[0]?.columns ?? ['interface', 'protocol'])];
  const rows = read.tables.flatMap((one) => one.rows.map((row) => [one.device, ...row]));
  if (flags.json === true) printJson(rowsAsObjects({ columns, rows }));
  else printTable({ columns, rows });
  tell(read.failures);
}

export function addTablesCommand(program: Command): void {
  withPrintOptions(program.command('tables'))
    .description('the tables of the control device and of the forwarders')
    .argument('[forwarder]', `only of this one; ${OWN} is the control device itself`)
    .argument('[table]', 'only this one, without a heading')
    .addHelpText(
      'after',
      `
Examples:
  $ fwdfs tables
  $ fwdfs tables fwd1
  $ fwdfs tables fwd1 distribution
  $ fwdfs tables . reception --json`,
    )
    .action(action(tables));
}

export function addRulesCommand(program: Command): void {
  withPrintOptions(program.command('rules'))
    .description('the packet transfer rules of all forwarders: their distribution tables')
    .addHelpText(
      'after',
      `
Examples:
  $ fwdfs rules
  $ fwdfs rules --json | jq '.[] | select(.protocol == "udp:520")'`,
    )
    .action(action(rules));
}
