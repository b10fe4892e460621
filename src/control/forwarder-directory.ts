/**
 * The directory of one forwarder: its symbols, `.if`, `.tables`, `.state` and `.ctl`. Symbol
 * generation section 220 (S802), and input and output section 21.
 *
 * The names of the interfaces are listed; every other valid name can be opened and is listed while it is open. While the
 * forwarder is not connected its valid names are there too, and open() says ENETDOWN.
 */
import { isCounterName } from '../base/counters.js';
import { FwdfsError } from '../base/errors.js';
import { CommandFile } from '../fusefs/command-file.js';
import { TextFile } from '../fusefs/text-file.js';
import { type DirectoryNode, type Entry, inoOf, type Node, staticDirectory } from '../fusefs/tree.js';
import { parseSymbolName } from '../packet/symbol-name.js';
import type { Attributes } from '../tunnel/messages.js';
import type { ForwarderCommands } from './commands.js';
import type { ForwarderLink } from './forwarder-link.js';
import { SymbolFile, type SymbolUse } from './symbol-file.js';
import { tableText } from './tables.js';

/** The forwarder's tables that its directory shows. */
export const FORWARDER_TABLES = [
  'distribution',
  'reception',
  'permission',
  'flow',
  'vip_distribution',
  'vip_reception',
] as const;

/** IFF_RUNNING, IFF_LOWER_UP, IFF_DORMANT: netlink tells them among the flags, sysfs does not. */
const OPERATIONAL_FLAGS = 0x40 | 0x10000 | 0x20000;

/** Attribute files of `.if/IF`, named as in /sys/class/net. */
const ATTRIBUTES: Readonly<Record<string, (attributes: Attributes) => string>> = {
  address: (attributes) => attributes.address,
  flags: (attributes) => `0x${(attributes.flags & ~OPERATIONAL_FLAGS).toString(16)}`,
  ifindex: (attributes) => String(attributes.index),
  inet: (attributes) => attributes.inet.join('\n'),
  inet6: (attributes) => attributes.inet6.join('\n'),
  linktype: (attributes) => String(attributes.linkType),
  mtu: (attributes) => String(attributes.mtu),
  operstate: (attributes) => attributes.operstate,
  speed: (attributes) => String(attributes.speed),
};

const line = (text: string): string => (text === '' ? '' : `${text}\n`);

export class ForwarderDirectory implements DirectoryNode, SymbolUse {
  readonly kind = 'directory';
  readonly mode = 0o755;
  readonly ino: number;
  private readonly path: string;
  private readonly link: ForwarderLink;
  private readonly fixed: ReadonlyMap<string, Node>;
  private readonly open = new Map<string, number>();

  /** @param commands carries out what is written to `.ctl` */
  constructor(link: ForwarderLink, commands: Pick<ForwarderCommands, 'run'>) {
    this.link = link;
    this.path = `/${link.name}`;
    this.ino = inoOf(this.path);
    this.fixed = new Map<string, Node>([
      ['.if', new InterfacesDirectory(`${this.path}/.if`, link)],
      ['.tables', this.tables()],
      ['.state', new TextFile(inoOf(`${this.path}/.state`), () => stateText(link), { changes: link.changes.state })],
      ['.ctl', new CommandFile(inoOf(`${this.path}/.ctl`), (command, opener) => commands.run(command, opener))],
    ]);
  }

  private tables(): DirectoryNode {
    const path = `${this.path}/.tables`;
    const files = FORWARDER_TABLES.map((table): [string, Node] => {
      const text = async (): Promise<string> => {
        const { columns, rows } = await this.link.tables.read(table);
        return tableText(columns, rows);
      };
      return [table, new TextFile(inoOf(`${path}/${table}`), text, { changes: this.link.changes.table(table) })];
    });
    return staticDirectory(path, new Map(files));
  }

  lookup(name: string): Node {
    const fixed = this.fixed.get(name);
    if (fixed !== undefined) return fixed;
    const symbol = parseSymbolName(name, (whole) => this.link.interfaces.has(whole));
    if (this.link.isConnected) this.link.interfaceOf(symbol.interface);
    return new SymbolFile(inoOf(`${this.path}/${name}`), this.link, symbol, name, this);
  }

  list(): Entry[] {
    const names = new Set([...this.link.interfaces.keys(), ...this.open.keys()]);
    // An interface may have the name of a file of ours, which is what the name opens.
    const others = [...names].filter((name) => !this.fixed.has(name));
    const symbols = others.map((name) => ({ name, directory: false, ino: inoOf(`${this.path}/${name}`) }));
    const fixed = [...this.fixed].map(([name, node]) => ({
      name,
      directory: node.kind === 'directory',
      ino: node.ino,
    }));
    return [...symbols, ...fixed];
  }

  opened(name: string): void {
    this.open.set(name, (this.open.get(name) ?? 0) + 1);
  }

  closed(name: string): void {
    const left = (this.open.get(name) ?? 0) - 1;
    if (left > 0) this.open.set(name, left);
    else this.open.delete(name);
  }
}

/** `.if`: one directory per interface. */
class InterfacesDirectory implements DirectoryNode {
  readonly kind = 'directory';
  readonly mode = 0o755;
  readonly ino: number;
  private readonly path: string;
  private readonly link: ForwarderLink;

  constructor(path: string, link: ForwarderLink) {
    this.path = path;
    this.ino = inoOf(path);
    this.link = link;
  }

  lookup(name: string): Node {
    this.link.interfaceOf(name);
    const path = `${this.path}/${name}`;
    const changes = this.link.changes.interfaces;
    const files = Object.entries(ATTRIBUTES).map(([attribute, show]): [string, Node] => {
      const value = (): string => {
        const { attributes } = this.link.interfaceOf(name);
        if (attributes === null) throw new FwdfsError('not-permitted', `${this.link.name}/${name}`);
        return line(show(attributes));
      };
      return [attribute, new TextFile(inoOf(`${path}/${attribute}`), value, { changes, exact: true })];
    });
    return staticDirectory(
      path,
      new Map([...files, ['statistics', new StatisticsDirectory(`${path}/statistics`, this.link, name)]]),
    );
  }

  list(): Entry[] {
    return [...this.link.interfaces.keys()].map((name) => ({
      name,
      directory: true,
      ino: inoOf(`${this.path}/${name}`),
    }));
  }
}

/** `.if/IF/statistics`: the kernel's counters of the interface, the forwarder's and ours, one a file. */
class StatisticsDirectory implements DirectoryNode {
  readonly kind = 'directory';
  readonly mode = 0o755;
  readonly ino: number;
  private readonly path: string;
  private readonly link: ForwarderLink;
  private readonly interface: string;

  constructor(path: string, link: ForwarderLink, interfaceName: string) {
    this.path = path;
    this.ino = inoOf(path);
    this.link = link;
    this.interface = interfaceName;
  }

  lookup(name: string): Node {
    if (!this.names().includes(name)) throw new FwdfsError('no-such-name', `${this.path}/${name}`);
    return new TextFile(inoOf(`${this.path}/${name}`), () => this.value(name));
  }

  list(): Entry[] {
    return this.names().map((name) => ({ name, directory: false, ino: inoOf(`${this.path}/${name}`) }));
  }

  private names(): string[] {
    return [...KERNEL_STATISTICS, ...this.link.interfaceOf(this.interface).counters.snapshot().keys()];
  }

  private async value(name: string): Promise<string> {
    const { rows } = await this.link.tables.statistics(this.interface);
    const remote = rows.find(([counter]) => counter === name)?.[1] ?? '0';
    const local = this.link.interfaceOf(this.interface).counters.snapshot();
    const own = [...local].find(([counter]) => counter === name)?.[1] ?? 0;
    const stray = isCounterName(name) ? this.link.stray.get(name) : 0;
    return `${Number(remote) + own + stray}\n`;
  }
}

/** Names of /sys/class/net/IF/statistics, struct rtnl_link_stats64. */
const KERNEL_STATISTICS = [
  'rx_packets',
  'tx_packets',
  'rx_bytes',
  'tx_bytes',
  'rx_errors',
  'tx_errors',
  'rx_dropped',
  'tx_dropped',
  'multicast',
  'collisions',
  'rx_length_errors',
  'rx_over_errors',
  'rx_crc_errors',
  'rx_frame_errors',
  'rx_fifo_errors',
  'rx_missed_errors',
  'tx_aborted_errors',
  'tx_carrier_errors',
  'tx_fifo_errors',
  'tx_heartbeat_errors',
  'tx_window_errors',
  'rx_compressed',
  'tx_compressed',
  'rx_nohandler',
];

function stateText(link: ForwarderLink): string {
  const state = link.state;
  const rows: [string, string][] = [
    ['state', state.connected ? 'connected' : 'not connected'],
    ['since', new Date(state.since).toISOString()],
    ['forwarder', state.forwarder],
    ['address', state.remoteAddress],
    ['round_trip_ms', state.roundTripMs.toFixed(3)],
    ['version', String(state.version)],
    ['resumed', String(state.resumedCount)],
    ['draining', link.drains.text],
    ['last_error', state.lastError],
  ];
  return rows.map(([key, value]) => `${key}\t${value === '' ? '-' : value}\n`).join('');
}
