/**
 * The forwarder: forwarding device 300 (load balancer, Fig. 1) and forwarding device 50 (router, Fig. 24), put together.
 *
 *     control device -- messages --> TransferControl: permission table -> distribution and reception table
 *     interface -----> InterfaceReceiver -> distribution table -> Peer -> tunnel
 *     tunnel --------> DownPath -> reception table -> InterfaceTransmitter -> interface
 *
 * Owns the tables, the sessions' peers and the listening sockets: its TunnelServer is IF 380 and inter-device communication
 * IF 77. What was created in the kernel is removed in `stop`, and swept at the next start.
 */
import { Counters } from '../base/counters.js';
import { describe, FwdfsError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import type { LinkType } from '../packet/headers.js';
import { addressText, requireIpAddress } from '../packet/ip-address.js';
import { holdName } from '../sys/name-lock.js';
import type { Answer, Message, MessageArgs } from '../tunnel/messages.js';
import { TunnelServer } from '../tunnel/server.js';
import type { Session, SessionHandler } from '../tunnel/session.js';
import { authenticate } from './authenticate.js';
import type { ForwarderConfig } from './config.js';
import { DistributionTable } from './distribution-table.js';
import { DownPath } from './down-path.js';
import { Heartbeats } from './heartbeats.js';
import { Interfaces } from './interfaces.js';
import { Peer } from './peer.js';
import { PermissionTable } from './permission-table.js';
import { ReceptionTable } from './reception-table.js';
import { TableViews } from './table-views.js';
import { TransferControl } from './transfer-control.js';
import { VifControl } from './vif-control.js';
import { VipConversion } from './vip-conversion.js';

export class Forwarder implements SessionHandler {
  private readonly config: ForwarderConfig;
  private readonly log: Logger;
  private readonly permissions: PermissionTable;
  private readonly distribution = new DistributionTable();
  private readonly reception = new ReceptionTable();
  private readonly peers = new Map<Session, Peer>();
  /** Counts of frames that name no interface. */
  private readonly lost = new Counters();
  private readonly downPath: DownPath;
  private readonly interfaces: Interfaces;
  private readonly transfer: TransferControl;
  private readonly vifs: VifControl;
  private readonly vips: VipConversion;
  private readonly tables: TableViews;
  private readonly server: TunnelServer;
  private heartbeats: Heartbeats | null = null;
  private releaseName: () => void = () => undefined;

  constructor(config: ForwarderConfig, log: Logger) {
    this.config = config;
    this.log = log;
    this.permissions = new PermissionTable(config.permissions);
    this.downPath = new DownPath(this.distribution, this.reception, (name) => this.interfaces.find(name), this.lost);
    this.interfaces = new Interfaces(config, this.distribution, this.downPath, log);
    this.vips = new VipConversion({
      name: config.name,
      interfaces: this.interfaces,
      grantOf: (peer, name) => this.transfer.grantOf(peer, name),
      neighbours: this.interfaces.neighbours,
      peers: () => this.peers.values(),
      withdraw: (peer, vip, reason, code) => {
        this.transfer.removeVip(peer, vip);
        const text = addressText(vip);
        this.sessionOf(peer)?.send('address-conversion-withdrawal', { vip: text, reason, code });
      },
      log,
    });
    this.transfer = new TransferControl({
      name: config.name,
      permissions: this.permissions,
      distribution: this.distribution,
      reception: this.reception,
      interfaces: this.interfaces,
      vips: this.vips,
      log,
    });
    this.vifs = new VifControl({
      reception: this.reception,
      interfaces: this.interfaces,
      neighbours: this.interfaces.neighbours,
      log,
    });
    this.reception.removed.push((tunnel) => this.vifs.tunnelGone(tunnel));
    this.tables = new TableViews({
      permissions: this.permissions,
      distribution: this.distribution,
      reception: this.reception,
      interfaces: this.interfaces,
      vips: this.vips,
      lost: this.lost,
      checkUse: (peer, name) => void this.transfer.useOrRefuse(peer, name),
      send: (peer, table) => this.sessionOf(peer)?.send('table-change', { table }),
    });
    this.server = new TunnelServer({
      name: config.name,
      log,
      handler: this,
      authenticate: (hello, peer) => authenticate(config, hello, peer),
    });
    this.interfaces.onSet = () => {
      for (const session of this.peers.keys()) this.sendInterfaces(session);
      this.vips.interfacesChanged();
      this.tables.statesChanged();
    };
    this.interfaces.onAttributes = (name) => {
      this.vips.interfacesChanged();
      this.sendAttributes(name);
    };
    this.interfaces.onLinkType = (name, linkType) => {
      this.vifs.interfaceChanged(name);
      this.endOtherKind(name, linkType);
    };
  }

  /** Addresses that it listens at. */
  get urls(): string[] {
    return this.server.urls;
  }

  /**
   * S205 to S208: resolves when control devices can connect. Nothing in the kernel is touched before the name is ours:
   * another forwarder of this name has its table there.
   */
  async start(): Promise<void> {
    const { listen, name, tls } = this.config;
    try {
      this.releaseName = holdName(`fwdfs-forwarder-${name}`);
    } catch (error) {
      throw new FwdfsError('already-running', `a forwarder ${name} runs here already`, { cause: error });
    }
    try {
      await this.interfaces.start();
      await this.vips.sweep();
      this.heartbeats = new Heartbeats({
        interval: this.config.heartbeat,
        peers: this.peers,
        onChange: (peer) => this.peerChanged(peer),
        onLost: (peer) => this.peerLost(peer),
      });
      await this.server.listen(
        listen.map((address) => address.url),
        tls === null ? {} : { tls: { cert: tls.cert, key: tls.key, ...(tls.ca === null ? {} : { ca: tls.ca }) } },
      );
    } catch (error) {
      await this.stop();
      throw error;
    }
    this.log.info({ listen: this.urls, interfaces: this.interfaces.names }, 'forwarder is ready');
  }

  async stop(): Promise<void> {
    this.heartbeats?.stop();
    this.transfer.resetsFlows = false;
    await this.server.close();
    await this.vips.remove();
    await this.interfaces.stop();
    this.releaseName();
  }

  private sessionOf(peer: Peer): Session | undefined {
    for (const [session, other] of this.peers) if (other === peer) return session;
    return undefined;
  }

  /**
   * Another configuration: of it the permissions count, at once; the rest is for the next start. What lost its right is
   * withdrawn, then each control device asks anew what it may use.
   */
  reload({ permissions }: ForwarderConfig): void {
    this.permissions.replace(permissions);
    for (const [session, peer] of this.peers) {
      const reason = `the permissions of ${this.config.name} were changed`;
      for (const upTunnel of this.transfer.review(peer)) session.send('transfer-withdrawal', { upTunnel, reason });
      this.vips.review(peer, reason);
      this.sendInterfaces(session, true);
    }
    this.tables.changed('permission');
    this.log.info({ lines: permissions.length }, 'permissions reloaded');
  }

  /** @param again the rights may be others: each use is asked for anew */
  private sendInterfaces(session: Session, again = false): void {
    session.send('interface-list', { interfaces: this.interfaces.names, ...(again && { again }) });
  }

  private sendAttributes(name: string): void {
    for (const [session, peer] of this.peers) {
      const use = this.transfer.use(peer, name);
      if (use !== null) session.send('interface-attribute-change', use);
    }
  }

  /** Told at once: what control devices open from now on is of the new link type. */
  private endOtherKind(name: string, linkType: LinkType): void {
    const reason = `${name} has another link type now`;
    for (const { peer, upTunnel } of this.transfer.linkTypeIs(name, linkType)) {
      this.sessionOf(peer)?.send('transfer-withdrawal', { upTunnel, reason, code: 'interface-gone' });
    }
    this.sendAttributes(name);
  }

  /** Resolves when the kernel converts no more. */
  private async unregisterVip(
    peer: Peer,
    { vip }: Message<'address-conversion-deletion-request'>,
  ): Promise<Message<'address-conversion-deletion-response'>> {
    const address = requireIpAddress(vip);
    this.transfer.removeVip(peer, address);
    await this.vips.unregister(peer, address);
    return { vip };
  }

  /** Whether it can be given new flows, or how many, is another than before. */
  private peerChanged(peer: Peer): void {
    const { silent, active, identity } = peer;
    this.log.debug({ control: identity, active, silent }, 'the flows that a control device is given are others');
    this.distribution.balancing.changed();
    this.vips.peerChanged(peer);
    this.tables.statesChanged();
  }

  private drain(peer: Peer, { drain, interface: name = '*' }: Message<'drain-request'>): Message<'drain-response'> {
    if (name !== '*') this.transfer.useOrRefuse(peer, name);
    if (drain) peer.drains.add(name);
    // Of all interfaces: also of those that it drains one by one.
    else if (name === '*') peer.drains.clear();
    else peer.drains.delete(name);
    this.log.info({ control: peer.identity, interface: name, drain }, 'a control device takes no new flows, or again');
    this.peerChanged(peer);
    return { drain };
  }

  /** Its flows go to others, or are reset where others serve; whether it comes back is not waited for. */
  private peerLost(peer: Peer): void {
    this.log.info({ control: peer.identity }, 'the flows of a silent control device are given up');
    this.transfer.giveUpFlows(peer);
    this.vips.peerLost(peer);
  }

  // --- SessionHandler ---

  active(session: Session, resumed: boolean): void {
    let peer = this.peers.get(session);
    if (peer === undefined) {
      peer = new Peer(session.identity, session.address, session);
      this.peers.set(session, peer);
    }
    peer.address = session.address;
    peer.weight = session.weight;
    peer.active = true;
    peer.silent = false;
    if (resumed) {
      // What was under way when the channel went is lost on both sides: both count their credit anew.
      for (const rule of this.distribution.rulesOf(peer)) {
        rule.sent = 0;
        rule.granted = rule.credit;
      }
      this.downPath.resumed(peer);
    }
    this.sendInterfaces(session);
    this.peerChanged(peer);
  }

  suspended(session: Session): void {
    const peer = this.peers.get(session);
    if (peer === undefined) return;
    peer.active = false;
    this.peerChanged(peer);
  }

  closed(session: Session, reason: string): void {
    const peer = this.peers.get(session);
    if (peer === undefined) return;
    peer.active = false;
    this.peers.delete(session);
    this.transfer.removeAll(peer);
    void this.vips.peerClosed(peer);
    this.tables.forget(peer);
    this.log.info({ control: session.identity, reason }, 'session closed');
  }

  received(session: Session): { tunnel: number; sequence: number }[] {
    const peer = this.peers.get(session);
    if (peer === undefined) return [];
    return this.reception.tunnelsOf(peer).map((tunnel) => ({ tunnel: tunnel.id, sequence: tunnel.received }));
  }

  sent(session: Session): { tunnel: number; frames: number }[] {
    const peer = this.peers.get(session);
    if (peer === undefined) return [];
    return this.distribution.rulesOf(peer).map((rule) => ({ tunnel: rule.upTunnel, frames: rule.frames }));
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
    const peer = this.peers.get(session);
    if (peer === undefined) throw new FwdfsError('not-connected', 'the session is not active');
    switch (type) {
      case 'interface-use-request':
        return this.transfer.useOrRefuse(peer, fields.interface);
      case 'tunnel-generation-request':
        if (fields.vif !== undefined) return this.transfer.generateVif(peer, fields, fields.vif);
        return this.transfer.generateTunnel(peer, fields);
      case 'tunnel-deletion-request':
        return this.transfer.deleteTunnel(peer, fields);
      case 'transfer-request':
        return this.transfer.addRule(peer, fields);
      case 'transfer-deletion-request':
        return this.transfer.deleteRule(peer, fields);
      case 'group-join':
        return this.vifs.join(peer, fields);
      case 'group-leave':
        return this.vifs.leave(peer, fields);
      case 'neighbour-request':
        return this.vifs.neighbour(peer, fields);
      case 'address-conversion-request':
        return this.vips.register(peer, fields);
      case 'address-conversion-deletion-request':
        return this.unregisterVip(peer, fields);
      case 'drain-request':
        return this.drain(peer, fields);
      case 'table-request':
        return this.tables.rows(peer, fields);
      default:
        return undefined;
    }
  }
}
