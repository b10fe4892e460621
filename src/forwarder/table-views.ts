/**
 * The forwarder's tables as text, for control devices, and who is told when one changes.
 *
 *     table-request { watch } -> rows, and the peer is on the table's list
 *     the table changes       -> table-change, once, to each peer on the list, which is empty again
 *
 * A table that is larger than a message is answered in parts, all of one moment but for flows: there may be a million of
 * them, so each part is made when it is asked for.
 *
 * A peer is told at most once for each time that it asked, however fast rules come and go; whoever asks again after that
 * misses nothing, since both go over one ordered channel.
 */
import type { Counters } from '../base/counters.js';
import { FwdfsError } from '../base/errors.js';
import { TABLE_PAGE_BYTES } from '../base/limits.js';
import type { Message } from '../tunnel/messages.js';
import { DISTRIBUTION_COLUMNS, distributionRows, type RowsView } from './distribution-rows.js';
import type { DistributionTable } from './distribution-table.js';
import { FLOW_COLUMNS } from './flow-text.js';
import type { Interfaces } from './interfaces.js';
import type { Peer } from './peer.js';
import { PERMISSION_COLUMNS, type PermissionTable } from './permission-table.js';
import { RECEPTION_COLUMNS, type ReceptionTable } from './reception-table.js';
import type { VipConversion } from './vip-conversion.js';
import { VIP_DISTRIBUTION_COLUMNS, VIP_RECEPTION_COLUMNS } from './vip-rows.js';

export interface TableViewsOptions {
  readonly permissions: PermissionTable;
  readonly distribution: DistributionTable;
  readonly reception: ReceptionTable;
  readonly interfaces: Pick<Interfaces, 'find' | 'flowRows' | 'statistics'>;
  readonly vips: Pick<VipConversion, 'converted' | 'rows'>;
  /** Counts of frames that name no interface. */
  readonly lost: Counters;
  /** Whether the peer may see the interface's statistics; throws what it is refused with. */
  readonly checkUse: (peer: Peer, interfaceName: string) => void;
  readonly send: (peer: Peer, table: string) => void;
}

const WATCHED: readonly string[] = ['distribution', 'reception', 'permission'];
const isWatched = (table: string): boolean => WATCHED.includes(table);

/** Tables whose rows depend on which interfaces and control devices are there. */
const DEPENDENT = ['distribution', 'reception'] as const;

interface Table {
  readonly columns: string[];
  readonly rows: Iterable<string[]>;
}

/** A table that a peer reads. */
interface Reading {
  readonly columns: string[];
  readonly rows: Iterator<string[]>;
  /** What comes next. */
  row: IteratorResult<string[], unknown>;
  given: number;
}

function beginReading({ columns, rows }: Table): Reading {
  const iterator = rows[Symbol.iterator]();
  return { columns, rows: iterator, row: iterator.next(), given: 0 };
}

export class TableViews {
  private readonly options: TableViewsOptions;
  private readonly watchers = new Map<string, Set<Peer>>();
  /** Tables of which a peer has not asked for all rows yet, by name. */
  private readonly unread = new Map<Peer, Map<string, Reading>>();

  constructor(options: TableViewsOptions) {
    this.options = options;
    options.distribution.changes.listen(() => this.changed('distribution'));
    options.reception.changes.listen(() => this.changed('reception'));
  }

  /**
   * The rows as of now, or as many as one message carries; with `from` those that are left of the last answer.
   * @throws FwdfsError no-such-name, not-permitted, bad-message where nothing is left
   */
  async rows(peer: Peer, request: Message<'table-request'>): Promise<Message<'table-rows'>> {
    const { table, from = 0 } = request;
    const unread = this.unread.get(peer);
    const reading = from === 0 ? beginReading(await this.whole(peer, request)) : unread?.get(table);
    if (reading?.given !== from) throw new FwdfsError('bad-message', `nothing is left of the table ${table}`);
    const { columns } = reading;
    const rows: string[][] = [];
    for (let bytes = 0; reading.row.done !== true && bytes < TABLE_PAGE_BYTES; reading.row = reading.rows.next()) {
      rows.push(reading.row.value);
      bytes += reading.row.value.join('\t').length;
    }
    reading.given += rows.length;
    if (reading.row.done === true) {
      unread?.delete(table);
      return { columns, rows };
    }
    if (unread === undefined) this.unread.set(peer, new Map([[table, reading]]));
    else unread.set(table, reading);
    return { columns, rows, next: reading.given };
  }

  private async whole(peer: Peer, { table, interface: name = '', watch }: Message<'table-request'>): Promise<Table> {
    const { distribution, interfaces, lost, permissions, reception } = this.options;
    const isThere = this.isThere;
    if (watch === true && isWatched(table)) this.watchersOf(table).add(peer);
    switch (table) {
      case 'distribution':
        return { columns: [...DISTRIBUTION_COLUMNS], rows: distributionRows(distribution, await this.rowsView()) };
      case 'reception':
        return { columns: [...RECEPTION_COLUMNS], rows: reception.rows(isThere) };
      case 'flow':
        return { columns: [...FLOW_COLUMNS], rows: interfaces.flowRows() };
      case 'permission':
        return { columns: [...PERMISSION_COLUMNS], rows: permissions.rows() };
      case 'vip_distribution':
        return { columns: [...VIP_DISTRIBUTION_COLUMNS], rows: await this.options.vips.rows(table) };
      case 'vip_reception':
        return { columns: [...VIP_RECEPTION_COLUMNS], rows: await this.options.vips.rows(table) };
      case 'statistics':
        this.options.checkUse(peer, name);
        return { columns: ['counter', 'value'], rows: await interfaces.statistics(name, lost) };
      default:
        throw new FwdfsError('no-such-name', `there is no table ${table}`);
    }
  }

  private readonly isThere = (interfaceName: string): boolean =>
    (this.options.interfaces.find(interfaceName)?.present ?? null) !== null;

  private async rowsView(): Promise<RowsView> {
    const { interfaces, vips } = this.options;
    return {
      isThere: this.isThere,
      flowsOf: (rule) => interfaces.find(rule.interface)?.flows.countThrough(rule) ?? 0,
      convertedOf: await vips.converted(),
    };
  }

  private watchersOf(table: string): Set<Peer> {
    let peers = this.watchers.get(table);
    if (peers === undefined) {
      peers = new Set();
      this.watchers.set(table, peers);
    }
    return peers;
  }

  changed(table: string): void {
    const peers = this.watchers.get(table);
    if (peers === undefined) return;
    this.watchers.delete(table);
    for (const peer of peers) this.options.send(peer, table);
  }

  /** Interfaces or control devices came, went or were suspended. */
  statesChanged(): void {
    for (const table of DEPENDENT) this.changed(table);
  }

  /** Its session is over. */
  forget(peer: Peer): void {
    this.unread.delete(peer);
    for (const peers of this.watchers.values()) peers.delete(peer);
  }
}
