/**
 * The two tables of the control device, one of each for all forwarders. Pure data.
 *
 * Reception table 242 (Fig. 5), virtual IF socket table 30: up tunnel -> symbol. Up tunnel ids are allocated here and are
 * never used twice in the life of the process.
 * Transmission table 244 (Fig. 6), virtual IF tunnel table 29: symbol -> (down tunnel, forwarder).
 */
import { Changes } from '../base/changes.js';
import type { DownTunnel } from './down-tunnel.js';
import type { UpTunnel } from './up-tunnel.js';

export class ReceptionTable {
  /** Rows came, went or changed their state; counts don't count. */
  readonly changes = new Changes();
  private readonly tunnels = new Map<number, UpTunnel>();
  private lastId = 0;

  /** S1005: an unused up tunnel id. */
  allocate(): number {
    this.lastId += 1;
    return this.lastId;
  }

  /** S1005: associates the up tunnel with its symbol. */
  add(tunnel: UpTunnel): void {
    this.tunnels.set(tunnel.id, tunnel);
    this.changes.tell();
  }

  /** S1108: the symbol of a frame's up tunnel. */
  get(id: number): UpTunnel | undefined {
    return this.tunnels.get(id);
  }

  /** S905. */
  remove(id: number): void {
    if (this.tunnels.delete(id)) this.changes.tell();
  }

  rows(): string[][] {
    return [...this.tunnels.values()].map((tunnel) => [
      String(tunnel.id),
      tunnel.symbol,
      tunnel.key.protocol.text,
      tunnel.key.scope,
      tunnel.active ? 'active' : 'suspended',
      String(tunnel.readerCount),
      String(tunnel.frames),
      String(tunnel.bytes),
      tunnel.mode,
    ]);
  }
}

export const RECEPTION_COLUMNS = [
  'up_tunnel',
  'symbol',
  'protocol',
  'scope',
  'state',
  'readers',
  'frames',
  'bytes',
  'mode',
];

export class TransmissionTable {
  /** Rows came or went, or have another down tunnel. */
  readonly changes = new Changes();
  private readonly tunnels = new Set<DownTunnel>();

  /** S807: associates the symbol with the down tunnel of a tunnel generation response. */
  add(tunnel: DownTunnel): void {
    this.tunnels.add(tunnel);
    this.changes.tell();
  }

  remove(tunnel: DownTunnel): void {
    if (this.tunnels.delete(tunnel)) this.changes.tell();
  }

  rows(): string[][] {
    return [...this.tunnels].map((tunnel) => [
      tunnel.vif === undefined ? `${tunnel.forwarder}/${tunnel.symbol}` : tunnel.symbol,
      tunnel.id === 0 ? '-' : String(tunnel.id),
      tunnel.forwarder,
      tunnel.interface,
      String(tunnel.frames),
      String(tunnel.bytes),
    ]);
  }
}

export const TRANSMISSION_COLUMNS = ['symbol', 'down_tunnel', 'forwarder', 'interface', 'frames', 'bytes'];

/** A table as text: a header line, one row a line, tab-separated. */
export function tableText(columns: readonly string[], rows: readonly (readonly string[])[]): string {
  return [columns, ...rows].map((row) => `${row.join('\t')}\n`).join('');
}
