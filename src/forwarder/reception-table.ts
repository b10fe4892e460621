/**
 * Reception table 344 (Fig. 8), IF tunnel table 67: down tunnel -> interface.
 *
 * Pure data. Down tunnel ids are the forwarder's to allocate and are never used twice; one id space serves all control
 * devices, and an entry is found only by the peer that it was made for.
 */
import { Changes } from '../base/changes.js';
import type { LinkType } from '../packet/headers.js';
import type { ProtocolAddress } from '../packet/protocol-address.js';
import type { Rule } from './distribution-table.js';
import type { Peer } from './peer.js';
import { allows, type Grant } from './permission-table.js';

/** `inject`: any frame; `write`: only with our own source addresses; `none`: the right was withdrawn. */
export type SendRight = 'inject' | 'write' | 'none';

/** A virtual IF sends from our own addresses, and any frame only with `inject` too. */
export function rightToSend(grant: Grant, protocol: ProtocolAddress, isVif: boolean): SendRight {
  if (isVif && !grant.rights.has('vif')) return 'none';
  if (allows(grant, 'inject', protocol)) return 'inject';
  return isVif || allows(grant, 'write', protocol) ? 'write' : 'none';
}

export interface DownTunnel {
  readonly id: number;
  readonly peer: Peer;
  readonly interface: string;
  readonly symbol: string;
  /** What may be sent: frames of this protocol address, with the local end as their source. */
  readonly protocol: ProtocolAddress;
  /** What the interface was when the tunnel was made: its frames are of this kind. */
  readonly linkType: LinkType;
  right: SendRight;
  /** Frames of any of these may be sent: its protocol address; for a virtual IF, which sends all kinds, what the right is for. */
  sendable: readonly ProtocolAddress[];
  /** Of a virtual IF: how the answers of its flows go up. Null: the tunnel is that of a file. */
  wayBack: Rule | null;
  /** Bytes of link layer header that its frames get here, before what arrived: of a tun on Ethernet. */
  linkHeaderBytes: number;
  /** Sequence number of the last frame that arrived; each is the one before plus one. */
  received: number;
  /** Every frame up to this one is on the interface, or its error was reported. */
  confirmed: number;
  /** Payload bytes that arrived and are neither on the interface nor reported: never above the window. */
  waiting: number;
  /** `confirmed` moved and the control device has not been told. */
  unreported: boolean;
  /** The control device closed it; it goes when all that arrived is confirmed. */
  closing: boolean;
  bytes: number;
  errors: number;
  /** The newest frame that failed, told again after a resume: the first telling may have been lost. */
  lastErrorSequence: number;
  lastErrno: number;
}

export class ReceptionTable {
  /** Down tunnels came or went. */
  readonly changes = new Changes();
  /** Told of each tunnel that is gone. */
  readonly removed: ((tunnel: DownTunnel) => void)[] = [];
  private readonly tunnels = new Map<number, DownTunnel>();
  private readonly counts = new Map<Peer, number>();
  private lastId = 0;

  /** S805, S806: an unused id, and its entry. */
  add(
    peer: Peer,
    interfaceName: string,
    symbol: string,
    protocol: ProtocolAddress,
    right: SendRight,
    linkType: LinkType,
  ): DownTunnel {
    this.lastId += 1;
    const tunnel: DownTunnel = {
      id: this.lastId,
      peer,
      interface: interfaceName,
      symbol,
      protocol,
      linkType,
      right,
      sendable: [protocol],
      wayBack: null,
      linkHeaderBytes: 0,
      received: 0,
      confirmed: 0,
      waiting: 0,
      unreported: false,
      closing: false,
      bytes: 0,
      errors: 0,
      lastErrorSequence: 0,
      lastErrno: 0,
    };
    this.tunnels.set(tunnel.id, tunnel);
    this.counts.set(peer, this.countOf(peer) + 1);
    this.changes.tell();
    return tunnel;
  }

  get(peer: Peer, id: number): DownTunnel | undefined {
    const tunnel = this.tunnels.get(id);
    return tunnel?.peer === peer ? tunnel : undefined;
  }

  remove(tunnel: DownTunnel): void {
    if (!this.tunnels.delete(tunnel.id)) return;
    const left = this.countOf(tunnel.peer) - 1;
    if (left > 0) this.counts.set(tunnel.peer, left);
    else this.counts.delete(tunnel.peer);
    for (const tell of this.removed) tell(tunnel);
    this.changes.tell();
  }

  countOf(peer: Peer): number {
    return this.counts.get(peer) ?? 0;
  }

  tunnelsOf(peer: Peer): DownTunnel[] {
    return [...this.tunnels.values()].filter((tunnel) => tunnel.peer === peer);
  }

  /** @param isThere whether an interface is there just now */
  rows(isThere: (interfaceName: string) => boolean): string[][] {
    return [...this.tunnels.values()].map((tunnel) => [
      String(tunnel.id),
      tunnel.interface,
      tunnel.protocol.text,
      tunnel.right,
      tunnel.peer.identity,
      tunnel.peer.address,
      !isThere(tunnel.interface) ? 'absent' : tunnel.peer.active ? 'active' : 'suspended',
      String(tunnel.received),
      String(tunnel.bytes),
      String(tunnel.errors),
    ]);
  }
}

export const RECEPTION_COLUMNS = [
  'down_tunnel',
  'interface',
  'protocol',
  'right',
  'control',
  'address',
  'state',
  'frames',
  'bytes',
  'errors',
];
