/**
 * The forwarder's tables as text, for control devices, and who is told when one changes.
 *
 *     table-request { watch } -> rows, and the peer is on the table's list
 *     the table changes       -> table-change, once, to each peer on the list, which is empty again
 *
 * So a peer is told at most once for each time that it asked, however fast rules come and go; whoever asks again after that
 * misses nothing, since both go over one ordered channel.
 */
import type { Counters } from '../base/counters.js';
import { FwdfsError } from '../base/errors.js';
import type { Message } from '../tunnel/messages.js';
import { DISTRIBUTION_COLUMNS, type DistributionTable } from './distribution-table.js';
import type { Interfaces } from './interfaces.js';
import type { Peer } from './peer.js';
import { PERMISSION_COLUMNS, type PermissionTable } from './permission-table.js';
import { RECEPTION_COLUMNS, type ReceptionTable } from './reception-table.js';

export interface TableViewsOptions {
  readonly permissions: PermissionTable;
  readonly distribution: DistributionTable;
  readonly reception: ReceptionTable;
  readonly interfaces: Pick<Interfaces, 'find' | 'statistics'>;
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

export class TableViews {
  private readonly options: TableViewsOptions;
  private readonly watchers = new Map<string, Set<Peer>>();

  constructor(options: TableViewsOptions) {
    this.options = options;
    options.distribution.changes.listen(() => this.changed('distribution'));
    options.reception.changes.listen(() => this.changed('reception'));
  }

  /** @throws FwdfsError no-such-name, not-permitted */
  async rows(
    peer: Peer,
    { table, interface: name = '', watch }: Message<'table-request'>,
  ): Promise<Message<'table-rows'>> {
    const { distribution, interfaces, lost, permissions, reception } = this.options;
    const isThere = (interfaceName: string): boolean => (interfaces.find(interfaceName)?.present ?? null) !== null;
    if (watch === true && isWatched(table)) this.watchersOf(table).add(peer);
    switch (table) {
      case 'distribution':
        return { columns: [...DISTRIBUTION_COLUMNS], rows: distribution.rows(isThere) };
      case 'reception':
        return { columns: [...RECEPTION_COLUMNS], rows: reception.rows(isThere) };
      case 'permission':
        return { columns: [...PERMISSION_COLUMNS], rows: permissions.rows() };
      case 'statistics':
        this.options.checkUse(peer, name);
        return { columns: ['counter', 'value'], rows: await interfaces.statistics(name, lost) };
      default:
        throw new FwdfsError('no-such-name', `there is no table ${table}`);
    }
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
    for (const peers of this.watchers.values()) peers.delete(peer);
  }
}
