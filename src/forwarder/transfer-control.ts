/**
 * Transfer control section 340 with the service permission determination section 62: what control devices ask for is
 * decided by the permission table, and written to the distribution and reception tables.
 *
 *     interface use request      -> permission?  -> attributes (S212, S213)
 *     tunnel generation request  -> permission?  -> down tunnel in the reception table (S805, S806, S215)
 *     transfer request           -> permission?  -> rule in the distribution table (S1007, S226)
 *     … deletion request         -> gone (S904)
 *
 * So it is table generation sections 64 and 65 and, in Fig. 31, deletion section 75.
 */
import { FwdfsError } from '../base/errors.js';
import { DOWN_WINDOW_BYTES, MAX_DOWN_TUNNELS_PER_CONTROL, MAX_RULES_PER_CONTROL } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { parseProtocolAddress } from '../packet/protocol-address.js';
import type { Message } from '../tunnel/messages.js';
import type { DistributionTable, Rule } from './distribution-table.js';
import type { Interfaces } from './interfaces.js';
import type { Peer } from './peer.js';
import { allows, type Grant, type PermissionTable } from './permission-table.js';
import type { ReceptionTable } from './reception-table.js';

export interface TransferControlOptions {
  /** Name of the forwarder. */
  readonly name: string;
  readonly permissions: PermissionTable;
  readonly distribution: DistributionTable;
  readonly reception: ReceptionTable;
  readonly interfaces: Interfaces;
  readonly log: Logger;
}

export class TransferControl {
  private readonly options: TransferControlOptions;

  constructor(options: TransferControlOptions) {
    this.options = options;
  }

  private grantOf(peer: Peer, interfaceName: string): Grant {
    return this.options.permissions.rightsOf({ name: peer.identity, address: peer.address, uid: null }, interfaceName);
  }

  /** null: not permitted, or not there. */
  use(peer: Peer, name: string): Message<'interface-use-response'> | null {
    const attributes = this.options.interfaces.find(name)?.attributes ?? null;
    const grant = this.grantOf(peer, name);
    if (attributes === null || grant.rights.size === 0) return null;
    return {
      interface: name,
      attributes,
      rights: [...grant.rights],
      protocols: grant.protocols.map((protocol) => protocol.text),
    };
  }

  /** S212, S213. */
  useOrRefuse(peer: Peer, name: string): Message<'interface-use-response'> {
    this.options.interfaces.get(name);
    const use = this.use(peer, name);
    if (use === null) throw new FwdfsError('not-permitted', `${peer.identity} may not use ${name}`);
    return use;
  }

  /** S805, S806, S215. */
  generateTunnel(peer: Peer, fields: Message<'tunnel-generation-request'>): Message<'tunnel-generation-response'> {
    const { interfaces, reception, name } = this.options;
    interfaces.get(fields.interface);
    const protocol = parseProtocolAddress(fields.protocol);
    const grant = this.grantOf(peer, fields.interface);
    const inject = allows(grant, 'inject', protocol);
    if (!inject && !allows(grant, 'write', protocol)) {
      throw new FwdfsError('not-permitted', `${peer.identity} may not write ${protocol.text} to ${fields.interface}`);
    }
    if (reception.countOf(peer) >= MAX_DOWN_TUNNELS_PER_CONTROL) {
      throw new FwdfsError('too-many', `${peer.identity} has ${MAX_DOWN_TUNNELS_PER_CONTROL} down tunnels`);
    }
    const tunnel = reception.add(peer, fields.interface, fields.symbol, protocol, inject);
    return {
      downTunnel: tunnel.id,
      forwarder: name,
      symbol: fields.symbol,
      interface: fields.interface,
      window: DOWN_WINDOW_BYTES,
    };
  }

  deleteTunnel(peer: Peer, fields: Message<'tunnel-deletion-request'>): Message<'tunnel-deletion-response'> {
    const tunnel = this.options.reception.get(peer, fields.downTunnel);
    if (tunnel !== undefined) this.options.reception.remove(tunnel);
    return { downTunnel: fields.downTunnel };
  }

  /** S1007, S226: when this returns, the rule's packets are on their way. */
  addRule(peer: Peer, fields: Message<'transfer-request'>): Message<'transfer-response'> {
    const { distribution, interfaces, log } = this.options;
    const entry = interfaces.get(fields.interface);
    const protocol = parseProtocolAddress(fields.protocol);
    if (!allows(this.grantOf(peer, fields.interface), 'read', protocol)) {
      throw new FwdfsError('not-permitted', `${peer.identity} may not read ${protocol.text} of ${fields.interface}`);
    }
    if (distribution.get(peer, fields.upTunnel) !== undefined) {
      throw new FwdfsError('bad-message', `up tunnel ${fields.upTunnel} is in use`);
    }
    if (distribution.countOf(peer) >= MAX_RULES_PER_CONTROL) {
      throw new FwdfsError('too-many', `${peer.identity} has ${MAX_RULES_PER_CONTROL} rules`);
    }
    if (fields.claim) throw new FwdfsError('unknown-message', 'claims are not served');
    const rule: Rule = {
      peer,
      interface: fields.interface,
      protocol,
      scope: fields.scope,
      upTunnel: fields.upTunnel,
      symbol: fields.symbol,
      credit: fields.credit,
      granted: fields.credit,
      sent: 0,
      frames: 0,
      bytes: 0,
      dropped: 0,
    };
    distribution.add(rule);
    try {
      entry.ruleAdded(rule);
    } catch (error) {
      this.removeRule(rule);
      throw error;
    }
    log.debug({ control: peer.identity, interface: rule.interface, protocol: protocol.text }, 'rule added');
    return { upTunnel: fields.upTunnel };
  }

  /** S904. */
  deleteRule(peer: Peer, fields: Message<'transfer-deletion-request'>): Message<'transfer-deletion-response'> {
    const rule = this.options.distribution.get(peer, fields.upTunnel);
    if (rule !== undefined) this.removeRule(rule);
    return { upTunnel: fields.upTunnel };
  }

  private removeRule(rule: Rule): void {
    const { distribution, interfaces, log } = this.options;
    distribution.remove(rule);
    interfaces.find(rule.interface)?.ruleRemoved(rule);
    log.debug({ control: rule.peer.identity, interface: rule.interface, protocol: rule.protocol.text }, 'rule removed');
  }

  /** The session is over: everything it set goes. */
  removeAll(peer: Peer): void {
    const { distribution, reception } = this.options;
    for (const rule of distribution.rulesOf(peer)) this.removeRule(rule);
    for (const tunnel of reception.tunnelsOf(peer)) reception.remove(tunnel);
  }
}
