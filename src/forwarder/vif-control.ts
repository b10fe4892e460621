/**
 * What a virtual IF asks for besides its tunnel and its rules: multicast groups and neighbours. The forwarder's kernel alone
 * speaks IGMP, MLD, ARP and neighbour discovery on the wire.
 */
import { FwdfsError, SystemError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { requireIpAddress } from '../packet/ip-address.js';
import type { Message } from '../tunnel/messages.js';
import { Groups } from './groups.js';
import type { Interfaces } from './interfaces.js';
import type { NeighbourTable } from './neighbours.js';
import type { Peer } from './peer.js';
import type { DownTunnel, ReceptionTable } from './reception-table.js';

export interface VifControlOptions {
  readonly reception: ReceptionTable;
  readonly interfaces: Pick<Interfaces, 'find' | 'get'>;
  readonly neighbours: Pick<NeighbourTable, 'resolve'>;
  readonly log: Logger;
}

export class VifControl {
  private readonly options: VifControlOptions;
  private readonly groups: Groups;

  constructor(options: VifControlOptions) {
    this.options = options;
    const { interfaces, log } = options;
    this.groups = new Groups((name) => interfaces.find(name)?.present?.index ?? 0, log);
  }

  /** @throws FwdfsError no-such-vif */
  private tunnelOf(peer: Peer, downTunnel: number): DownTunnel {
    const tunnel = this.options.reception.get(peer, downTunnel);
    if (!tunnel?.wayBack) throw new FwdfsError('no-such-vif', `${peer.identity} has no virtual IF ${downTunnel}`);
    return tunnel;
  }

  join(peer: Peer, { downTunnel, group }: Message<'group-join'>): Message<'group-response'> {
    const { interface: name, wayBack } = this.tunnelOf(peer, downTunnel);
    try {
      if (wayBack?.vif) this.groups.join(wayBack.vif, name, group);
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      throw new FwdfsError('host-lacks', `${group} can't be joined on ${name}: ${error.message}`, { cause: error });
    }
    return { group };
  }

  leave(peer: Peer, { downTunnel, group }: Message<'group-leave'>): Message<'group-response'> {
    const { interface: name, wayBack } = this.tunnelOf(peer, downTunnel);
    if (wayBack?.vif) this.groups.leave(wayBack.vif, name, group);
    return { group };
  }

  /** Only for who has a virtual IF there: others have no use for it. */
  async neighbour(
    peer: Peer,
    { interface: name, address: text }: Message<'neighbour-request'>,
  ): Promise<Message<'neighbour-response'>> {
    const { interfaces, neighbours, reception } = this.options;
    const index = interfaces.get(name).present?.index ?? 0;
    const address = requireIpAddress(text);
    if (!reception.tunnelsOf(peer).some((tunnel) => tunnel.interface === name && tunnel.wayBack !== null)) {
      throw new FwdfsError('no-such-vif', `${peer.identity} has no virtual IF of ${name}`);
    }
    const link = await neighbours.resolve(index, address);
    return { address: text, link: link === null ? '' : Array.from(link, hexByte).join(':') };
  }

  tunnelGone({ wayBack }: DownTunnel): void {
    if (wayBack?.vif) this.groups.leaveAll(wayBack.vif);
  }

  interfaceChanged(name: string): void {
    this.groups.interfaceChanged(name);
  }
}

const hexByte = (byte: number): string => byte.toString(16).padStart(2, '0');
