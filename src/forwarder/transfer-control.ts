/**
 * Transfer control section 340 with the service permission determination section 62: what control devices ask for is
 * decided by the permission table, and written to the distribution and reception tables.
 *
 *     interface use request      -> permission?  -> attributes (S212, S213)
 *     tunnel generation request  -> permission?  -> down tunnel in the reception table (S805, S806, S215)
 *     transfer request           -> permission?  -> rule in the distribution table (S1007, S226)
 *     the same with a vif        -> right `vif`: its tunnel with its way back; rules of its sockets
 *     the same with a vip        -> right `vip`: the rule of a socket, for the kernel (vip-conversion.ts)
 *     … deletion request         -> gone (S904), with a vif's tunnel all that is its
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
import { ETHERNET_HEADER_BYTES, type LinkType } from '../packet/headers.js';
import { compileBpf } from '../packet/bpf-run.js';
import { overlaps } from '../packet/overlap.js';
import { parseProtocolAddress, type ProtocolAddress } from '../packet/protocol-address.js';
import type { Message, VifKind } from '../tunnel/messages.js';
import { type DistributionTable, FLOWS, newRule, type Rule, type RuleMode, type VifEnd } from './distribution-table.js';
import { type ForwarderInterface, linkTypeOf } from './interface.js';
import type { Interfaces } from './interfaces.js';
import type { Peer } from './peer.js';
import { allows, type Grant, type PermissionTable } from './permission-table.js';
import { claimRules } from './quiet.js';
import { type DownTunnel, type ReceptionTable, rightToSend } from './reception-table.js';
import type { VipConversion } from './vip-conversion.js';
import { vipRule } from './vip-rule.js';

export interface TransferControlOptions {
  /** Name of the forwarder. */
  readonly name: string;
  readonly permissions: PermissionTable;
  readonly distribution: DistributionTable;
  readonly reception: ReceptionTable;
  readonly interfaces: Pick<Interfaces, 'find' | 'get' | 'listen' | 'quieten' | 'vifs'>;
  readonly vips: Pick<VipConversion, 'ruleAdded' | 'ruleRemoved'>;
  readonly log: Logger;
}

/** Which flows, by the socket rule that they came through; null: by none. */
type Given = (through: Rule | null) => boolean;
type VifRequest = NonNullable<Message<'tunnel-generation-request'>['vif']>;

export class TransferControl {
  /** Whether the other ends of flows that end are told. Not where the forwarder itself stops, for it may be back at once. */
  resetsFlows = true;
  private readonly options: TransferControlOptions;

  constructor(options: TransferControlOptions) {
    this.options = options;
    options.reception.removed.push((tunnel) => this.tunnelGone(tunnel));
  }

  grantOf(peer: Peer, interfaceName: string): Grant {
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

  /** S805, S806, S215. For a virtual IF, `generateVif` adds what makes it one. */
  generateTunnel(peer: Peer, fields: Message<'tunnel-generation-request'>): Message<'tunnel-generation-response'> {
    const { interfaces, reception, name } = this.options;
    const { vif } = fields;
    const entry = interfaces.get(fields.interface);
    this.requireKind(entry, vif?.kind, fields.linkType);
    const protocol = parseProtocolAddress(fields.protocol);
    const grant = this.grantOf(peer, fields.interface);
    const right = rightToSend(grant, protocol, vif !== undefined);
    if (right === 'none') {
      const what = vif === undefined ? `write ${protocol.text} to` : 'have a virtual IF of';
      throw new FwdfsError('not-permitted', `${peer.identity} may not ${what} ${fields.interface}`);
    }
    if (reception.countOf(peer) >= MAX_DOWN_TUNNELS_PER_CONTROL) {
      throw new FwdfsError('too-many', `${peer.identity} has ${MAX_DOWN_TUNNELS_PER_CONTROL} down tunnels`);
    }
    const tunnel = reception.add(peer, fields.interface, fields.symbol, protocol, right, entry.linkType);
    if (vif !== undefined) tunnel.sendable = grant.protocols;
    return {
      downTunnel: tunnel.id,
      forwarder: name,
      symbol: fields.symbol,
      interface: fields.interface,
      window: DOWN_WINDOW_BYTES,
    };
  }

  /** A tunnel with a way back for the answers of its flows; resolves when the kernel has the sets of virtual IFs. */
  async generateVif(
    peer: Peer,
    fields: Message<'tunnel-generation-request'>,
    { kind, upTunnel, credit }: VifRequest,
  ): Promise<Message<'tunnel-generation-response'>> {
    const { distribution, interfaces, log, reception } = this.options;
    this.requireRoom(peer, upTunnel);
    const response = this.generateTunnel(peer, fields);
    const tunnel = reception.get(peer, response.downTunnel);
    if (tunnel === undefined) throw new FwdfsError('internal', 'a new tunnel is not there');
    const { symbol, linkType } = tunnel;
    const vif: VifEnd = { id: tunnel.id, kind, stamp: 0, wayBack: null };
    const rule = newRule({
      peer,
      interface: tunnel.interface,
      protocol: FLOWS,
      linkType,
      scope: 'in',
      mode: 'flow',
      vif,
      vip: null,
      filter: null,
      upTunnel,
      symbol,
      credit,
    });
    tunnel.wayBack = rule;
    vif.wayBack = rule;
    if (kind === 'tun' && linkType === 'ethernet') tunnel.linkHeaderBytes = ETHERNET_HEADER_BYTES;
    distribution.add(rule);
    try {
      interfaces.find(tunnel.interface)?.ruleAdded(rule);
      await interfaces.vifs.vifAdded(rule);
    } catch (error) {
      reception.remove(tunnel);
      throw error;
    }
    log.debug({ control: peer.identity, interface: tunnel.interface, symbol, kind }, 'virtual IF added');
    return response;
  }

  deleteTunnel(peer: Peer, fields: Message<'tunnel-deletion-request'>): Message<'tunnel-deletion-response'> {
    const tunnel = this.options.reception.get(peer, fields.downTunnel);
    if (tunnel !== undefined) this.options.reception.remove(tunnel);
    return { downTunnel: fields.downTunnel };
  }

  /** S1007, S226, S2006: when this returns, the rule's packets are on their way. */
  async addRule(peer: Peer, fields: Message<'transfer-request'>): Promise<Message<'transfer-response'>> {
    const { distribution, interfaces, log, vips } = this.options;
    const entry = interfaces.get(fields.interface);
    const isVip = fields.vip !== undefined;
    const rule = isVip ? vipRule(peer, fields, entry.linkType) : this.ruleOf(peer, fields, entry);
    const { vif, protocol, mode } = rule;
    const isSocket = mode === 'socket';
    this.requireRight(rule);
    this.requireRoom(peer, fields.upTunnel);
    if (mode === 'claim') this.requireClaimable(entry, protocol);
    if (vif !== null || isVip) this.requireForeignPort(fields.interface, protocol);
    if (isSocket || isVip) this.requireUnclaimed(rule, 'claim');
    distribution.add(rule);
    try {
      if (isVip) await vips.ruleAdded(rule);
      else entry.ruleAdded(rule);
      if (vif !== null) interfaces.vifs.ruleAdded(rule);
      if (isSocket) interfaces.vifs.together(() => entry.flows.join(rule));
      if (mode === 'claim') await this.quieten(rule);
    } catch (error) {
      this.removeRule(rule);
      throw error;
    }
    log.debug({ control: peer.identity, interface: rule.interface, protocol: protocol.text }, 'rule added');
    return { upTunnel: fields.upTunnel };
  }

  /** What a request asks for that is not for a virtual IP address. */
  private ruleOf(peer: Peer, fields: Message<'transfer-request'>, entry: ForwarderInterface): Rule {
    const vif = fields.vif === undefined ? null : this.vifOf(peer, fields.vif, fields.interface);
    this.requireKind(entry, vif?.kind, fields.linkType);
    const protocol = parseProtocolAddress(fields.protocol);
    const isSocket = vif !== null && protocol.portLow >= 0;
    return newRule({
      peer,
      interface: fields.interface,
      protocol,
      linkType: entry.linkType,
      scope: fields.scope,
      mode: isSocket ? 'socket' : fields.claim && vif === null ? 'claim' : 'copy',
      vif,
      vip: null,
      // One that can't be run here is left to the kernel there, which runs it again anyway.
      filter: vif === null || fields.filter === undefined ? null : compileBpf(Buffer.from(fields.filter, 'hex')),
      upTunnel: fields.upTunnel,
      symbol: fields.symbol,
      credit: fields.credit,
    });
  }

  /** The rules of a virtual IP address that is taken back. */
  removeVip(peer: Peer, vip: Buffer): void {
    for (const rule of this.options.distribution.rulesOf(peer)) if (rule.vip?.equals(vip)) this.removeRule(rule);
  }

  /** @throws FwdfsError no-such-vif */
  private vifOf(peer: Peer, downTunnel: number, interfaceName: string): VifEnd {
    const tunnel = this.options.reception.get(peer, downTunnel);
    const vif = tunnel?.interface === interfaceName ? tunnel.wayBack?.vif : undefined;
    if (!vif) throw new FwdfsError('no-such-vif', `${interfaceName} has no virtual IF ${downTunnel}`);
    return vif;
  }

  private requireRoom(peer: Peer, upTunnel: number): void {
    const { distribution } = this.options;
    if (distribution.get(peer, upTunnel) !== undefined) {
      throw new FwdfsError('bad-message', `up tunnel ${upTunnel} is in use`);
    }
    if (distribution.countOf(peer) >= MAX_RULES_PER_CONTROL) {
      throw new FwdfsError('too-many', `${peer.identity} has ${MAX_RULES_PER_CONTROL} rules`);
    }
  }

  /** Whoever has an open file of another link type would take its frames for what they are not; a tun takes packets of any. */
  private requireKind({ name, linkType }: ForwarderInterface, kind?: VifKind, asked?: number): void {
    if (kind === 'tun') return;
    if (kind === 'tap' && linkType !== 'ethernet') {
      throw new FwdfsError('bad-option', `${name} has no Ethernet frames, so its virtual IF is a tun`);
    }
    if (asked === undefined || linkTypeOf(asked) === linkType) return;
    throw new FwdfsError('interface-gone', `${name} has another link type now`);
  }

  private hasRight({ peer, interface: name, protocol, mode, vif }: Rule): boolean {
    const grant = this.grantOf(peer, name);
    if (mode === 'vip') return allows(grant, 'vip', protocol);
    if (vif !== null) return mode === 'flow' ? grant.rights.has('vif') : allows(grant, 'vif', protocol);
    if (!allows(grant, 'read', protocol)) return false;
    // Who silences the forwarder's kernel has to be able to answer instead.
    return mode !== 'claim' || allows(grant, 'write', protocol) || allows(grant, 'inject', protocol);
  }

  private requireRight(rule: Rule): void {
    if (this.hasRight(rule)) return;
    const verb = rule.mode === 'vip' ? 'have a virtual IP address with' : rule.mode === 'claim' ? 'claim' : 'read';
    const what = rule.vif !== null ? 'have a virtual IF with' : verb;
    throw new FwdfsError(
      'not-permitted',
      `${rule.peer.identity} may not ${what} ${rule.protocol.text} of ${rule.interface}`,
    );
  }

  /** Two that both answer can't be: a claim meets no other claim and no socket. */
  private requireUnclaimed({ interface: name, protocol }: Pick<Rule, 'interface' | 'protocol'>, by: RuleMode): void {
    const other = this.options.distribution.ruleThatMeets(by, name, protocol);
    if (other === undefined) return;
    const holder = `${other.peer.identity} (${other.protocol.text})`;
    throw new FwdfsError('claimed', `${name}:${protocol.text} is claimed by ${holder}`);
  }

  /** Control devices come to our own ports: a virtual IF that answered there would cut them off. */
  private requireForeignPort(interfaceName: string, protocol: ProtocolAddress): void {
    const own = this.options.interfaces.listen.find((port) => overlaps(port, protocol));
    if (own === undefined || protocol.kind !== 'ip') return;
    throw new FwdfsError('claimed', `${interfaceName}:${protocol.text}: the forwarder itself listens at ${own.text}`);
  }

  private requireClaimable({ name: interfaceName, present }: ForwarderInterface, protocol: ProtocolAddress): void {
    const { distribution } = this.options;
    // The hooks of the kernel see the interface that it is a port of.
    if (present !== null && present.master !== 0) {
      throw new FwdfsError('not-claimable', `${interfaceName} is a port of another interface`);
    }
    for (const mode of ['claim', 'socket', 'vip'] as const)
      this.requireUnclaimed({ interface: interfaceName, protocol }, mode);
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
    // A way back goes with its tunnel.
    if (rule !== undefined && rule.mode !== 'flow') this.removeRule(rule);
    return { upTunnel: fields.upTunnel };
  }

  private removeRule(rule: Rule): void {
    const { distribution, interfaces, log } = this.options;
    if (distribution.get(rule.peer, rule.upTunnel) !== rule) return;
    const entry = interfaces.find(rule.interface);
    const othersServe = rule.mode === 'socket' && this.isServedWithout(rule);
    distribution.remove(rule);
    if (rule.mode === 'vip') this.options.vips.ruleRemoved(rule);
    else entry?.ruleRemoved(rule);
    // Before the kernel is no longer quiet for the rule.
    if (rule.mode === 'socket') interfaces.vifs.together(() => entry?.flows.leave(rule, othersServe));
    if (rule.vif !== null) interfaces.vifs.ruleRemoved(rule);
    if (rule.mode === 'flow' && entry !== undefined) this.endFlows(entry, rule, () => true);
    if (rule.mode === 'claim') {
      // The next change of the claims tries again.
      interfaces
        .quieten()
        .catch((error: unknown) => log.error({ error: describe(error) }, 'the kernel was not told that a claim ended'));
    }
    log.debug({ control: rule.peer.identity, interface: rule.interface, protocol: rule.protocol.text }, 'rule removed');
  }

  private isServedWithout(rule: Rule): boolean {
    return this.options.distribution.of(rule.interface).sockets.groupOf(rule)?.servedWithout(rule) ?? false;
  }

  private endFlows({ flows, resets }: ForwarderInterface, wayBack: Rule, given: Given): void {
    this.options.interfaces.vifs.together(() =>
      flows.lose(wayBack, given, (flow) => {
        if (this.resetsFlows) resets.flow(flows, flow);
      }),
    );
  }

  /** The control device is lost: what others can serve goes to them. Files and what nobody else serves waits for a resume. */
  giveUpFlows(peer: Peer): void {
    const { distribution, interfaces } = this.options;
    for (const rule of distribution.rulesOf(peer)) {
      const entry = rule.mode === 'flow' ? interfaces.find(rule.interface) : undefined;
      if (entry === undefined) continue;
      this.endFlows(entry, rule, (through) => through !== null && this.isServedWithout(through));
    }
  }

  /** What belongs to a virtual IF goes with its tunnel. */
  private tunnelGone({ peer, wayBack }: DownTunnel): void {
    if (wayBack === null) return;
    for (const rule of this.options.distribution.rulesOf(peer)) if (rule.vif === wayBack.vif) this.removeRule(rule);
    this.options.interfaces.vifs.vifRemoved(wayBack);
  }

  /**
   * The permission table is another one: rules that it does not allow are removed, down tunnels get the right that it gives.
   * @returns the up tunnels of the rules that were removed
   */
  review(peer: Peer): number[] {
    const { distribution, reception } = this.options;
    for (const tunnel of reception.tunnelsOf(peer)) {
      const grant = this.grantOf(peer, tunnel.interface);
      tunnel.right = rightToSend(grant, tunnel.protocol, tunnel.wayBack !== null);
      if (tunnel.wayBack !== null) tunnel.sendable = grant.protocols;
    }
    const withdrawn = distribution.rulesOf(peer).filter((rule) => !this.hasRight(rule));
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
