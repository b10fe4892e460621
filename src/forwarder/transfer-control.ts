/**
 * Transfer control section 340 with the service permission determination section 62: what control devices ask for is
 * decided by the permission table, and written to the distribution and reception tables.
 *
 *     interface use request      -> permission?  -> attributes (S212, S213)
 *     tunnel generation request  -> permission?  -> down tunnel in the reception table (S805, S806, S215)
 *     transfer request           -> permission?  -> rule in the distribution table (S1007, S226)
 *     … deletion request         -> gone (S904)
 *     new permissions            -> what lost its right is gone, or refuses its frames
 *     another link type          -> rules for the one before are gone, and down tunnels refuse their frames
 *
 * A claim is a rule that the forwarder's own kernel has to keep quiet about: it is set when the kernel does, and no other
 * one that meets it is. It stands in the distribution table from the start, so that of two only the first is tried.
 *
 * So it is table generation sections 64 and 65 and, in Fig. 31, deletion section 75.
 */
import { describe, FwdfsError, SystemError } from '../base/errors.js';
import { DOWN_WINDOW_BYTES, MAX_CLAIMS, MAX_DOWN_TUNNELS_PER_CONTROL, MAX_RULES_PER_CONTROL } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import type { LinkType } from '../packet/headers.js';
import { parseProtocolAddress, type ProtocolAddress } from '../packet/protocol-address.js';
import type { Message } from '../tunnel/messages.js';
import type { DistributionTable, Rule } from './distribution-table.js';
import { type ForwarderInterface, linkTypeOf } from './interface.js';
import type { Interfaces } from './interfaces.js';
import type { Peer } from './peer.js';
import { allows, type Grant, type PermissionTable } from './permission-table.js';
import { claimRules } from './quiet.js';
import type { ReceptionTable, SendRight } from './reception-table.js';

export interface TransferControlOptions {
  /** Name of the forwarder. */
  readonly name: string;
  readonly permissions: PermissionTable;
  readonly distribution: DistributionTable;
  readonly reception: ReceptionTable;
  readonly interfaces: Pick<Interfaces, 'find' | 'get' | 'quieten'>;
  readonly log: Logger;
}

function rightToSend(grant: Grant, protocol: ProtocolAddress): SendRight {
  if (allows(grant, 'inject', protocol)) return 'inject';
  return allows(grant, 'write', protocol) ? 'write' : 'none';
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
    const entry = interfaces.get(fields.interface);
    this.requireLinkType(entry, fields.linkType);
    const protocol = parseProtocolAddress(fields.protocol);
    const right = rightToSend(this.grantOf(peer, fields.interface), protocol);
    if (right === 'none') {
      throw new FwdfsError('not-permitted', `${peer.identity} may not write ${protocol.text} to ${fields.interface}`);
    }
    if (reception.countOf(peer) >= MAX_DOWN_TUNNELS_PER_CONTROL) {
      throw new FwdfsError('too-many', `${peer.identity} has ${MAX_DOWN_TUNNELS_PER_CONTROL} down tunnels`);
    }
    const tunnel = reception.add(peer, fields.interface, fields.symbol, protocol, right, entry.linkType);
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
  async addRule(peer: Peer, fields: Message<'transfer-request'>): Promise<Message<'transfer-response'>> {
    const { distribution, interfaces, log } = this.options;
    const entry = interfaces.get(fields.interface);
    this.requireLinkType(entry, fields.linkType);
    const protocol = parseProtocolAddress(fields.protocol);
    this.requireReading(peer, fields.interface, protocol, fields.claim);
    if (distribution.get(peer, fields.upTunnel) !== undefined) {
      throw new FwdfsError('bad-message', `up tunnel ${fields.upTunnel} is in use`);
    }
    if (distribution.countOf(peer) >= MAX_RULES_PER_CONTROL) {
      throw new FwdfsError('too-many', `${peer.identity} has ${MAX_RULES_PER_CONTROL} rules`);
    }
    if (fields.claim) this.requireClaimable(entry, protocol);
    const rule: Rule = {
      peer,
      interface: fields.interface,
      protocol,
      linkType: entry.linkType,
      scope: fields.scope,
      claim: fields.claim,
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
      if (rule.claim) await this.quieten(rule);
    } catch (error) {
      this.removeRule(rule);
      throw error;
    }
    log.debug({ control: peer.identity, interface: rule.interface, protocol: protocol.text }, 'rule added');
    return { upTunnel: fields.upTunnel };
  }

  /** Whoever has an open file of another link type would take its frames for what they are not. */
  private requireLinkType({ name, linkType }: ForwarderInterface, asked: number | undefined): void {
    if (asked === undefined || linkTypeOf(asked) === linkType) return;
    throw new FwdfsError('interface-gone', `${name} has another link type now`);
  }

  private mayRead(peer: Peer, interfaceName: string, protocol: ProtocolAddress, claim: boolean): boolean {
    const grant = this.grantOf(peer, interfaceName);
    if (!allows(grant, 'read', protocol)) return false;
    // Who silences the forwarder's kernel has to be able to answer instead.
    return !claim || allows(grant, 'write', protocol) || allows(grant, 'inject', protocol);
  }

  private requireReading(peer: Peer, interfaceName: string, protocol: ProtocolAddress, claim: boolean): void {
    if (this.mayRead(peer, interfaceName, protocol, claim)) return;
    const what = claim ? 'claim' : 'read';
    throw new FwdfsError('not-permitted', `${peer.identity} may not ${what} ${protocol.text} of ${interfaceName}`);
  }

  private requireClaimable({ name: interfaceName, present }: ForwarderInterface, protocol: ProtocolAddress): void {
    const { distribution } = this.options;
    // The hooks of the kernel see the interface that it is a port of.
    if (present !== null && present.master !== 0) {
      throw new FwdfsError('not-claimable', `${interfaceName} is a port of another interface`);
    }
    const other = distribution.claimThatMeets(interfaceName, protocol);
    if (other !== undefined) {
      const holder = `${other.peer.identity} (${other.protocol.text})`;
      throw new FwdfsError('claimed', `${interfaceName}:${protocol.text} is claimed by ${holder}`);
    }
    if (distribution.claims().length >= MAX_CLAIMS) throw new FwdfsError('too-many', `there are ${MAX_CLAIMS} claims`);
    // A name that nft can't take would fail every other claim with this one.
    claimRules('inet', { interface: interfaceName, protocol });
  }

  private async quieten(rule: Rule): Promise<void> {
    const { distribution, interfaces } = this.options;
    try {
      await interfaces.quieten();
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      throw new FwdfsError('host-lacks', `${rule.interface}:${rule.protocol.text} can't be claimed: ${error.message}`, {
        cause: error,
      });
    }
    if (distribution.get(rule.peer, rule.upTunnel) === rule) return;
    throw new FwdfsError('not-permitted', `the claim of ${rule.protocol.text} was withdrawn`);
  }

  /** S904. */
  deleteRule(peer: Peer, fields: Message<'transfer-deletion-request'>): Message<'transfer-deletion-response'> {
    const rule = this.options.distribution.get(peer, fields.upTunnel);
    if (rule !== undefined) this.removeRule(rule);
    return { upTunnel: fields.upTunnel };
  }

  private removeRule(rule: Rule): void {
    const { distribution, interfaces, log } = this.options;
    if (distribution.get(rule.peer, rule.upTunnel) !== rule) return;
    distribution.remove(rule);
    interfaces.find(rule.interface)?.ruleRemoved(rule);
    if (rule.claim) {
      // The next change of the claims tries again.
      interfaces
        .quieten()
        .catch((error: unknown) => log.error({ error: describe(error) }, 'the kernel was not told that a claim ended'));
    }
    log.debug({ control: rule.peer.identity, interface: rule.interface, protocol: rule.protocol.text }, 'rule removed');
  }

  /**
   * The permission table is another one: rules that it does not allow are removed, down tunnels get the right that it gives.
   * @returns the up tunnels of the rules that were removed
   */
  review(peer: Peer): number[] {
    const { distribution, reception } = this.options;
    for (const tunnel of reception.tunnelsOf(peer)) {
      tunnel.right = rightToSend(this.grantOf(peer, tunnel.interface), tunnel.protocol);
    }
    const withdrawn = distribution
      .rulesOf(peer)
      .filter((rule) => !this.mayRead(peer, rule.interface, rule.protocol, rule.claim));
    for (const rule of withdrawn) this.removeRule(rule);
    return withdrawn.map((rule) => rule.upTunnel);
  }

  /**
   * An interface is there with this link type: rules that were set for another one are removed. Down tunnels stay, for what
   * is under way in them is to be refused frame by frame.
   * @returns the rules that were removed
   */
  linkTypeIs(interfaceName: string, linkType: LinkType): Rule[] {
    const ended = this.options.distribution.rulesOfOtherKind(interfaceName, linkType);
    for (const rule of ended) this.removeRule(rule);
    return ended;
  }

  /** The session is over: everything it set goes. */
  removeAll(peer: Peer): void {
    const { distribution, reception } = this.options;
    for (const rule of distribution.rulesOf(peer)) this.removeRule(rule);
    for (const tunnel of reception.tunnelsOf(peer)) reception.remove(tunnel);
  }
}
