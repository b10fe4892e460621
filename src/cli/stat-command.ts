/** `fwdfs stat`: attributes and statistics of one interface. */
import type { Command } from 'commander';
import { action, UsageError } from './exit.js';
import { FileError, type MountReader } from './mount-reader.js';
import { onMount, type PrintFlags, splitName, withPrintOptions } from './options.js';
import { numberOf, printJson, printTable } from './output.js';
import { requireForwarder, whyNotConnected } from './view.js';

const STATISTICS = 'statistics';
const NUMBERS = new Set(['ifindex', 'linktype', 'mtu', 'speed']);
const LISTS = new Set(['inet', 'inet6']);

interface StatFlags extends PrintFlags {
  readonly all?: boolean;
}

interface InterfaceStat {
  readonly forwarder: string;
  readonly interface: string;
  readonly attributes: Record<string, string>;
  readonly statistics: Record<string, number>;
}

/** Every file of a directory, by its name. */
async function readAll(reader: MountReader, folder: string, names: readonly string[]): Promise<[string, string][]> {
  return Promise.all(
    names.map(async (name): Promise<[string, string]> => [name, (await reader.read(`${folder}/${name}`)).trimEnd()]),
  );
}

/** As JSON has it. */
function valueOf([name, text]: [string, string]): [string, string | number | null | string[]] {
  if (NUMBERS.has(name)) return [name, numberOf(text)];
  return [name, LISTS.has(name) ? text.split('\n').filter((line) => line !== '') : text];
}

async function explain(reader: MountReader, forwarder: string, name: string, error: unknown): Promise<unknown> {
  if (!(error instanceof FileError)) return error;
  if (error.code === 'ENETDOWN') return new Error(await whyNotConnected(reader, forwarder));
  if (error.code === 'ENOENT') return new Error(`${forwarder} has no interface ${name}: see fwdfs ls`);
  if (error.code === 'EACCES') {
    return new Error(`${forwarder} does not permit the use of ${name}: add a line to its permissions`);
  }
  return error;
}

async function statOf(reader: MountReader, forwarder: string, name: string): Promise<InterfaceStat> {
  const folder = `${forwarder}/.if/${name}`;
  try {
    const [names, counters] = await Promise.all([reader.list(folder), reader.list(`${folder}/${STATISTICS}`)]);
    const [attributes, statistics] = await Promise.all([
      readAll(
        reader,
        folder,
        names.filter((file) => file !== STATISTICS),
      ),
      readAll(reader, `${folder}/${STATISTICS}`, counters),
    ]);
    return {
      forwarder,
      interface: name,
      attributes: Object.fromEntries(attributes),
      statistics: Object.fromEntries(statistics.map(([counter, value]) => [counter, Number(value)])),
    };
  } catch (error) {
    throw await explain(reader, forwarder, name, error);
  }
}

export function addStatCommand(program: Command): void {
  withPrintOptions(program.command('stat'))
    .description('attributes and statistics of an interface')
    .argument('<forwarder/interface>', 'such as fwd1/eth0')
    .option('-a, --all', 'counters that are zero too')
    .addHelpText(
      'after',
      `
Examples:
  $ fwdfs stat fwd1/eth0
  $ fwdfs stat --all fwd1/eth0
  $ fwdfs stat --json fwd1/eth0 | jq .statistics.rx_packets`,
    )
    .action(
      action(async (argument: string, flags: StatFlags) => {
        const { forwarder, name } = splitName(argument, 'fwd1/eth0');
        if (name.includes(':')) throw new UsageError(`expected an interface, such as ${name.split(':', 1)[0] ?? ''}`);
        const stat = await onMount(flags, async (reader) => {
          await requireForwarder(reader, forwarder);
          return statOf(reader, forwarder, name);
        });
        if (flags.json === true) {
          printJson({ ...stat, attributes: Object.fromEntries(Object.entries(stat.attributes).map(valueOf)) });
          return;
        }
        const counters = Object.entries(stat.statistics).filter(([, value]) => flags.all === true || value !== 0);
        const attributes = Object.entries(stat.attributes).map(([key, value]) => [key, value.replaceAll('\n', ',')]);
        printTable({
          columns: ['name', 'value'],
          rows: [...attributes, ...counters.map(([key, value]) => [`${STATISTICS}/${key}`, String(value)])],
        });
      }),
    );
}
