/**
 * The forwarder: forwarding device 300 (load balancer) and 50 (router), put together.
 *
 *     control device -- messages --> transfer control section 340: permission table -> distribution and reception table
 *     interface -----> InterfaceReceiver -> distribution table -> Peer -> tunnel
 *     tunnel --------> DownPath -> reception table -> InterfaceTransmitter -> interface
 *
 * Owns the tables, the interfaces, the sessions' peers, the discarding in the kernel and the listening sockets. What it
 * created in the kernel it removes in `stop`, and sweeps at the next start.
 */
import { Counters } from '../base/counters.js';
import { describe, FwdfsError } from '../base/errors.js';
import {
  ATTRIBUTE_DELAY_MS,
  DOWN_WINDOW_BYTES,
  MAX_DOWN_TUNNELS_PER_CONTROL,
  MAX_RULES_PER_CONTROL,
} from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { parseProtocolAddress, type ProtocolAddress } from '../packet/protocol-address.js';
import { type Link, LinkMonitor } from '../sys/links.js';
import type { Answer, Message, MessageArgs } from '../tunnel/messages.js';
import { TunnelServer } from '../tunnel/server.js';
import type { Session, SessionHandler } from '../tunnel/session.js';
import { authenticate } from './authenticate.js';
import { type ForwarderConfig, interfaceConfig, type ListenAddress } from './config.js';
import { Discard, type DiscardInterface } from './discard.js';
import { DISTRIBUTION_COLUMNS, DistributionTable, type Rule } from './distribution-table.js';
import { DownPath } from './down-path.js';
import { ForwarderInterface } from './interface.js';
import { Peer } from './peer.js';
import { allows, type Grant, PERMISSION_COLUMNS, PermissionTable } from './permission-table.js';
import { RECEPTION_COLUMNS, ReceptionTable } from './reception-table.js';

/** Our own port, which discarding always admits. */
function listenPort(address: ListenAddress): ProtocolAddress[] {
  return address.kind === 'tcp' ? [parseProtocolAddress(`tcp:${address.port}`)] : [];
}

export class Forwarder implements SessionHandler {
  private readonly config: ForwarderConfig;
  private readonly log: Logger;
  private readonly permissions: PermissionTable;
  private readonly distribution = new DistributionTable();
  private readonly reception = new ReceptionTable();
  private readonly interfaces = new Map<string, ForwarderInterface>();
  private readonly peers = new Map<Session, Peer>();
  private readonly lost = new Counters();
  private readonly downPath: DownPath;
  private readonly links: LinkMonitor;
  private readonly server: TunnelServer;
  private readonly discard: Discard;
  private readonly changed = new Set<string>();
  private attributeTimer: NodeJS.Timeout | null = null;

  constructor(config: ForwarderConfig, log: Logger) {
    this.config = config;
    this.log = log;
    this.permissions = new PermissionTable(config.permissions);
    this.downPath = new DownPath(this.distribution, this.reception, (name) => this.interfaces.get(name), this.lost);
    this.links = new LinkMonitor(log);
    this.discard = new Discard(config.name, config.listen.flatMap(listenPort));
    this.server = new TunnelServer({
      name: config.name,
      log,
      handler: this,
      authenticate: (hello, peer) => authenticate(config, hello, peer),
    });
  }

  /** Addresses that it listens at. */
  get urls(): string[] {
    return this.server.urls;
  }

  /** Resolves when control devices can connect. */
  async start(): Promise<void> {
    this.links.onChange = (kind, link) => this.linkChanged(kind, link);
    this.links.start();
    for (const link of this.links.links().values()) this.linkAppeared(link);
    try {
      await this.applyDiscard();
      const { tls } = this.config;
      await this.server.listen(
        this.config.listen.map((address) => address.url),
        tls === null ? {} : { tls: { cert: tls.cert, key: tls.key, ...(tls.ca === null ? {} : { ca: tls.ca }) } },
      );
    } catch (error) {
      await this.stop();
      throw error;
    }
    this.log.info({ listen: this.urls, interfaces: [...this.interfaces.keys()] }, 'forwarder is ready');
  }

  async stop(): Promise<void> {
    await this.server.close();
    this.links.close();
    if (this.attributeTimer !== null) clearTimeout(this.attributeTimer);
    for (const entry of this.interfaces.values()) entry.gone();
    await this.discard.remove();
  }

  // --- interfaces ---

  private linkAppeared(link: Link): void {
    if (interfaceConfig(this.config, link.name) === null) return;
    let entry = this.interfaces.get(link.name);
    if (entry === undefined) {
      entry = new ForwarderInterface(link.name, this.distribution.of(link.name), this.downPath, this.log);
      this.interfaces.set(link.name, entry);
    }
    entry.update(link);
  }

  private linkChanged(kind: 'added' | 'changed' | 'removed', link: Link): void {
    const known = this.interfaces.get(link.name)?.present ?? null;
    if (kind === 'removed') this.interfaces.get(link.name)?.gone();
    else this.linkAppeared(link);
    const now = this.interfaces.get(link.name)?.present ?? null;
    if ((known === null) !== (now === null)) {
      for (const session of this.peers.keys()) this.sendInterfaces(session);
      this.applyDiscard().catch((error: unknown) => this.log.error({ error: describe(error) }, 'discarding not set'));
    } else if (now !== null) {
      this.changed.add(link.name);
      this.attributeTimer ??= setTimeout(this.sendChanges, ATTRIBUTE_DELAY_MS);
    }
  }

  /** Gathered, since every rule that comes or goes may change the interface's own flags and back. */
  private readonly sendChanges = (): void => {
    this.attributeTimer = null;
    for (const name of this.changed) {
      for (const session of this.peers.keys()) this.sendAttributes(session, name);
    }
    this.changed.clear();
  };

  private async applyDiscard(): Promise<void> {
    const interfaces: DiscardInterface[] = [];
    for (const entry of this.interfaces.values()) {
      const config = interfaceConfig(this.config, entry.name);
      if (entry.present !== null && config !== null) interfaces.push({ name: entry.name, ...config });
    }
    await this.discard.apply(interfaces);
  }

  private sendInterfaces(session: Session): void {
    const present = [...this.interfaces.values()].filter((entry) => entry.present !== null);
    session.send('interface-list', { interfaces: present.map((entry) => entry.name) });
  }

  private sendAttributes(session: Session, name: string): void {
    const use = this.use(session, name);
    if (use !== null) session.send('interface-attribute-change', use);
  }

  // --- sessions ---

  active(session: Session, resumed: boolean): void {
    let peer = this.peers.get(session);
    if (peer === undefined) {
      peer = new Peer(session.identity, session.address, session);
      this.peers.set(session, peer);
    }
    peer.address = session.address;
    peer.active = true;
    if (resumed) {
      // What was under way when the channel went is lost on both sides: both count their credit anew.
      for (const rule of this.distribution.rulesOf(peer)) {
        rule.sent = 0;
        rule.granted = rule.credit;
      }
      this.downPath.resumed(peer);
    }
    this.sendInterfaces(session);
  }

  suspended(session: Session): void {
    const peer = this.peers.get(session);
    if (peer !== undefined) peer.active = false;
  }

  closed(session: Session, reason: string): void {
    const peer = this.peers.get(session);
    if (peer === undefined) return;
    peer.active = false;
    this.peers.delete(session);
    for (const rule of this.distribution.rulesOf(peer)) this.removeRule(rule);
    for (const tunnel of this.reception.tunnelsOf(peer)) this.reception.remove(tunnel);
    this.log.info({ control: session.identity, reason }, 'session closed');
  }

  received(session: Session): { tunnel: number; sequence: number }[] {
    const peer = this.peers.get(session);
    if (peer === undefined) return [];
    return this.reception.tunnelsOf(peer).map((tunnel) => ({ tunnel: tunnel.id, sequence: tunnel.received }));
  }

  frames(session: Session, message: Buffer, end: number): void {
    const peer = this.peers.get(session);
    if (peer === undefined) return;
    try {
      this.downPath.frames(peer, message, end);
    } catch (error) {
      this.log.warn({ control: session.identity, reason: describe(error) }, 'session ended');
      session.end(describe(error));
    }
  }

  message(session: Session, ...[type, fields]: MessageArgs): Answer | Promise<Answer> {
    switch (type) {
      case 'interface-use-request':
        return this.useOrRefuse(session, fields.interface);
      case 'tunnel-generation-request':
        return this.generateTunnel(session, fields);
      case 'tunnel-deletion-request':
        return this.deleteTunnel(session, fields);
      case 'transfer-request':
        return this.addRule(session, fields);
      case 'transfer-deletion-request':
        return this.deleteRule(session, fields);
      case 'table-request':
        return this.table(session, fields);
      default:
        return undefined;
    }
  }

  // --- permission: service permission determination section 62 ---

  private peerOf(session: Session): Peer {
    const peer = this.peers.get(session);
    if (peer === undefined) throw new FwdfsError('not-connected', 'the session is not active');
    return peer;
  }

  private grantOf(session: Session, interfaceName: string): Grant {
    return this.permissions.rightsOf({ name: session.identity, address: session.address, uid: null }, interfaceName);
  }

  private interfaceOf(name: string): ForwarderInterface {
    const entry = this.interfaces.get(name);
    if (entry === undefined || entry.present === null) {
      throw new FwdfsError('no-such-interface', `${this.config.name} offers no interface ${name}`);
    }
    return entry;
  }

  /** S212, S213. null: not permitted, or not there */
  private use(session: Session, name: string): Message<'interface-use-response'> | null {
    const attributes = this.interfaces.get(name)?.attributes ?? null;
    const grant = this.grantOf(session, name);
    if (attributes === null || grant.rights.size === 0) return null;
    return {
      interface: name,
      attributes,
      rights: [...grant.rights],
      protocols: grant.protocols.map((protocol) => protocol.text),
    };
  }

  private useOrRefuse(session: Session, name: string): Message<'interface-use-response'> {
    this.interfaceOf(name);
    const use = this.use(session, name);
    if (use === null) throw new FwdfsError('not-permitted', `${session.identity} may not use ${name}`);
    return use;
  }

  // --- tunnels and rules: transfer control section 340 ---

  /** S805, S806. */
  private generateTunnel(
    session: Session,
    fields: Message<'tunnel-generation-request'>,
  ): Message<'tunnel-generation-response'> {
    const peer = this.peerOf(session);
    this.interfaceOf(fields.interface);
    const protocol = parseProtocolAddress(fields.protocol);
    const grant = this.grantOf(session, fields.interface);
    const inject = allows(grant, 'inject', protocol);
    if (!inject && !allows(grant, 'write', protocol)) {
      throw new FwdfsError(
        'not-permitted',
        `${session.identity} may not write ${protocol.text} to ${fields.interface}`,
      );
    }
    if (this.reception.countOf(peer) >= MAX_DOWN_TUNNELS_PER_CONTROL) {
      throw new FwdfsError('too-many', `${session.identity} has ${MAX_DOWN_TUNNELS_PER_CONTROL} down tunnels`);
    }
    const tunnel = this.reception.add(peer, fields.interface, fields.symbol, protocol, inject);
    return {
      downTunnel: tunnel.id,
      forwarder: this.config.name,
      symbol: fields.symbol,
      interface: fields.interface,
      window: DOWN_WINDOW_BYTES,
    };
  }

  private deleteTunnel(
    session: Session,
    fields: Message<'tunnel-deletion-request'>,
  ): Message<'tunnel-deletion-response'> {
    const tunnel = this.reception.get(this.peerOf(session), fields.downTunnel);
    if (tunnel !== undefined) this.reception.remove(tunnel);
    return { downTunnel: fields.downTunnel };
  }

  /** S1007, S226. */
  private addRule(session: Session, fields: Message<'transfer-request'>): Message<'transfer-response'> {
    const peer = this.peerOf(session);
    const entry = this.interfaceOf(fields.interface);
    const protocol = parseProtocolAddress(fields.protocol);
    if (!allows(this.grantOf(session, fields.interface), 'read', protocol)) {
      throw new FwdfsError('not-permitted', `${session.identity} may not read ${protocol.text} of ${fields.interface}`);
    }
    if (this.distribution.get(peer, fields.upTunnel) !== undefined) {
      throw new FwdfsError('bad-message', `up tunnel ${fields.upTunnel} is in use`);
    }
    if (this.distribution.countOf(peer) >= MAX_RULES_PER_CONTROL) {
      throw new FwdfsError('too-many', `${session.identity} has ${MAX_RULES_PER_CONTROL} rules`);
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
    this.distribution.add(rule);
    entry.ruleAdded(rule);
    this.log.debug({ control: peer.identity, interface: rule.interface, protocol: protocol.text }, 'rule added');
    return { upTunnel: fields.upTunnel };
  }

  /** S904. */
  private deleteRule(
    session: Session,
    fields: Message<'transfer-deletion-request'>,
  ): Message<'transfer-deletion-response'> {
    const rule = this.distribution.get(this.peerOf(session), fields.upTunnel);
    if (rule !== undefined) this.removeRule(rule);
    return { upTunnel: fields.upTunnel };
  }

  private removeRule(rule: Rule): void {
    this.distribution.remove(rule);
    this.interfaces.get(rule.interface)?.ruleRemoved(rule);
    this.log.debug(
      { control: rule.peer.identity, interface: rule.interface, protocol: rule.protocol.text },
      'rule removed',
    );
  }

  // --- tables as text ---

  private table(session: Session, fields: Message<'table-request'>): Message<'table-rows'> {
    switch (fields.table) {
      case 'distribution':
        return { columns: [...DISTRIBUTION_COLUMNS], rows: this.distribution.rows() };
      case 'reception':
        return { columns: [...RECEPTION_COLUMNS], rows: this.reception.rows() };
      case 'permission':
        return { columns: [...PERMISSION_COLUMNS], rows: this.permissions.rows() };
      case 'statistics':
        return this.statistics(session, fields.interface ?? '');
      default:
        throw new FwdfsError('no-such-name', `there is no table ${fields.table}`);
    }
  }

  private statistics(session: Session, name: string): Message<'table-rows'> {
    const entry = this.interfaceOf(name);
    this.useOrRefuse(session, name);
    entry.collectDrops();
    const rows: string[][] = [];
    for (const [counter, value] of this.links.statistics(entry.attributes?.index ?? 0)) {
      rows.push([counter, String(value)]);
    }
    for (const [counter, value] of entry.counters.snapshot()) rows.push([counter, String(value)]);
    return { columns: ['counter', 'value'], rows };
  }
}
