/**
 * Virtual IP addresses at the forwarder (second embodiment, Fig. 13): addresses of its interfaces that control devices have
 * too, by conversion in both kernels. Here is who has which, and which rules are members; the packets are the kernel's.
 *
 *     address-conversion-request   register     link, right -> sets and maps -> route to SENDER -> forwarding   (S1804, S1805)
 *     transfer-request with a vip  ruleAdded    a member: new connections are placed on it                      (S2005, S2006)
 *     … deletion request           ruleRemoved, unregister
 *     heartbeats, sessions         peerChanged  away or draining: takes no new ones; away: what has no connection moves
 *                                  peerLost, peerClosed    nothing of it goes on, clients are told: vip-flows.ts
 *     interfaces, rights           interfacesChanged, review -> withdraw
 *
 *     model (vip-ruleset.ts) --changes are gathered--> one run of nft at a time --> kernel --> rows (vip-rows.ts)
 *
 * A sender address is in the kernel's table before its route is made, and until that is gone: so after a crash the table
 * tells which routes are ours. Forwarding is on only while the table lets nothing else through.
 */
import { randomInt } from 'node:crypto';
import { describe, type ErrorCode, FwdfsError, SystemError } from '../base/errors.js';
import { MAX_VIPS_PER_CONTROL, RESUME_TIME_MS, VIP_PLACE_MS } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { addressText, requireIpAddress } from '../packet/ip-address.js';
import { formatMac, parseMac } from '../packet/mac-address.js';
import { IPPROTO_TCP } from '../packet/protocol-address.js';
import { RouteRequests } from '../sys/route-requests.js';
import type { Message } from '../tunnel/messages.js';
import { quoted } from './discard.js';
import type { Converted } from './distribution-rows.js';
import type { ForwarderInterface } from './interface.js';
import type { NeighbourTable } from './neighbours.js';
import type { Peer } from './peer.js';
import type { Grant } from './permission-table.js';
import type { Rule } from './rule.js';
import { VipFlows } from './vip-flows.js';
import { VipKernel } from './vip-kernel.js';
import { VipLeft } from './vip-left.js';
import { VipPlacing } from './vip-placing.js';
import { dropSenderRoutes, findLink, senderRoute } from './vip-link.js';
import { isAway, type Registration, type VipPort, VipRegistrations } from './vip-registrations.js';
import { SenderSearch } from './vip-sender.js';

/** Interfaces with their addresses; see Interfaces. */
export interface AddressedInterfaces {
  readonly names: readonly string[];
  find(name: string): Pick<ForwarderInterface, 'own' | 'present'> | undefined;
}

export interface VipConversionOptions {
  /** Name of the forwarder. */
  readonly name: string;
  readonly interfaces: AddressedInterfaces;
  readonly grantOf: (peer: Peer, interfaceName: string) => Grant;
  readonly neighbours: Pick<NeighbourTable, 'resolve'>;
  /** All that have a session. */
  readonly peers: () => Iterable<Peer>;
  /** The address is not the peer's any more: its rules are to be removed, and it is to be told. */
  readonly withdraw: (peer: Peer, vip: Buffer, reason: string, code: ErrorCode) => void;
  readonly log: Logger;
  /** How long connections that a crash left wait for their control device. Default RESUME_TIME_MS. */
  readonly resumeTime?: number;
  /** How long a link that came back is tried. Default VIP_PLACE_MS. */
  readonly placeTime?: number;
}

export class VipConversion {
  private readonly options: VipConversionOptions;
  private readonly registrations = new VipRegistrations();
  private readonly kernel: VipKernel;
  private readonly flows: VipFlows;
  private readonly left: VipLeft;
  private readonly search: SenderSearch;
  private readonly placing: VipPlacing;
  private readonly seed = randomInt(1, 2 ** 31);
  private requests: RouteRequests | null = null;
  /** Steps under way: all of them end. */
  private readonly pending = new Set<Promise<void>>();

  constructor(options: VipConversionOptions) {
    this.options = options;
    this.kernel = new VipKernel(options.name, () => this.registrations.wants(options.grantOf, this.seed), options.log);
    this.flows = new VipFlows(this.kernel.table, options.log);
    this.search = new SenderSearch(options.neighbours, options.peers);
    this.placing = new VipPlacing(
      options.placeTime ?? VIP_PLACE_MS,
      (registration) => this.registrations.has(registration),
      (registration, reason, code) => this.withdraw(registration, reason, code),
    );
    this.left = new VipLeft(options.resumeTime ?? RESUME_TIME_MS, (sender) => this.flows.giveUp(sender));
  }

  /** Removes what a crash left, but for connections: vip-left.ts. @throws FwdfsError host-lacks without nft; SystemError */
  async sweep(): Promise<void> {
    const { senders, reception } = await this.kernel.sweep();
    for (const text of senders) dropSenderRoutes(this.routes, requireIpAddress(text));
    this.left.keep(senders, reception, async () => {
      await this.track(this.left.giveUpAll());
      this.afterwards(() => Promise.resolve());
    });
  }

  /**
   * S1804, S1805: resolves when the kernel would convert. The same request again is answered again.
   * @throws FwdfsError bad-message, no-such-interface, not-permitted, not-on-link, address-in-use, too-many, host-lacks
   */
  async register(
    peer: Peer,
    fields: Message<'address-conversion-request'>,
  ): Promise<Message<'address-conversion-response'>> {
    const [vip, sender, nextHop] = [fields.vip, fields.sender, fields.nextHop].map(requireIpAddress) as [
      Buffer,
      Buffer,
      Buffer,
    ];
    const mac = parseMac(fields.link);
    if (sender.length !== vip.length || nextHop.length !== vip.length || mac === null) {
      throw new FwdfsError('bad-message', `the addresses for ${fields.vip} are not of one family on an Ethernet link`);
    }
    const name = this.permittedInterface(peer, vip);
    const link = findLink(this.routes, peer.address, nextHop);
    // A name that nft can't take would fail the addresses of all others with this one.
    for (const one of [name, link.name]) quoted(one);
    const response = {
      vip: fields.vip,
      interface: name,
      nextHop: addressText(link.address),
      link: formatMac(link.mac),
    };
    const known = this.registrations.find(peer, vip);
    if (known?.sender.equals(sender) === true && known.nextHop.equals(nextHop) && known.mac.equals(mac))
      return response;
    if (known !== undefined)
      throw new FwdfsError('already-there', `${peer.identity} has ${fields.vip} by another address`);
    await this.search.requireNobodys({ peer, vip, sender }, this.routes);
    this.requireFree(peer, vip, sender, nextHop);
    if (this.registrations.of(peer).length >= MAX_VIPS_PER_CONTROL) {
      throw new FwdfsError('too-many', `${peer.identity} has ${MAX_VIPS_PER_CONTROL} virtual IP addresses`);
    }
    const registration: Registration = { peer, vip, sender, nextHop, mac, interface: name, link, ports: new Map() };
    this.registrations.add(registration);
    try {
      await this.left.take({ sender, vip, control: peer.identity });
      await this.convert(registration);
      this.routes.addRoute(senderRoute(sender, nextHop, link));
    } catch (error) {
      await this.drop(registration);
      throw hostLacks(error, `${fields.vip} can't be converted`);
    }
    this.options.log.info(
      { control: peer.identity, vip: fields.vip, interface: name, sender: fields.sender },
      'virtual IP address added',
    );
    return response;
  }

  /** No error for one that is not there. The rules of the address are the caller's to remove. */
  async unregister(peer: Peer, address: Buffer): Promise<void> {
    this.search.end(peer, address);
    const registration = this.registrations.find(peer, address);
    if (registration !== undefined) await this.drop(registration);
  }

  /** Resolves when the kernel converts. @throws FwdfsError no-such-vip, host-lacks; `ruleRemoved` has to follow */
  async ruleAdded(rule: Rule): Promise<void> {
    const registration = this.registrations.addRule(rule);
    const port = this.registrations.portOf(rule);
    if (port !== undefined) this.refuse(registration, [port], !rule.peer.takesFlows(rule.interface));
    try {
      await this.convert(registration);
      // Datagrams that came before, and had the host for their end, have a connection in its eyes.
      const [protocol = 0] = rule.protocol.protocols;
      if (protocol !== IPPROTO_TCP) await this.flows.forget(registration.vip, protocol, rule.protocol.portLow);
    } catch (error) {
      throw hostLacks(error, `${rule.protocol.text} can't be converted`);
    }
  }

  ruleRemoved(rule: Rule): void {
    const registration = this.registrations.find(rule.peer, rule.vip);
    const port = this.registrations.removeRule(rule);
    if (registration === undefined || port === null) return;
    this.leave(registration, [port]);
  }

  /** It went away or is back, drains, or has another weight. */
  peerChanged(peer: Peer): void {
    for (const registration of this.registrations.of(peer)) {
      const ports = [...registration.ports.values()];
      if (!isAway(peer)) this.placing.place(registration, this.routes);
      if (!this.registrations.has(registration)) continue;
      if (isAway(peer)) this.leave(registration, ports);
      else this.refuse(registration, ports, !peer.takesFlows(registration.interface));
    }
    if (this.registrations.of(peer).length > 0) this.afterwards(() => Promise.resolve());
  }

  /** Its connections are given up where others serve; it may come back. */
  peerLost(peer: Peer): void {
    this.afterwards(async () => {
      for (const registration of this.registrations.of(peer)) {
        const isServed = (port: VipPort): boolean =>
          [...this.registrations.membersOf(registration, port).values()].some((weight) => weight > 0);
        const served = [...registration.ports.values()].filter(isServed);
        if (served.length > 0) await this.flows.giveUp(registration.sender, { ports: served });
      }
    });
  }

  /** Its session is over. */
  async peerClosed(peer: Peer): Promise<void> {
    this.search.end(peer);
    await Promise.all(this.registrations.of(peer).map((registration) => this.drop(registration)));
  }

  /** Interfaces came or went, or have other addresses. */
  interfacesChanged(): void {
    for (const registration of this.registrations) {
      if (this.hasAddress(registration.interface, registration.vip)) continue;
      const reason = `${registration.interface} has no address ${addressText(registration.vip)} any more`;
      this.withdraw(registration, reason, 'interface-gone');
    }
  }

  /** The permissions are others. */
  review(peer: Peer, reason: string): void {
    for (const registration of this.registrations.of(peer)) {
      if (this.isPermitted(peer, registration.interface)) continue;
      this.withdraw(registration, reason, 'not-permitted');
    }
    this.afterwards(() => Promise.resolve());
  }

  /** From the kernel. @throws as sweep */
  async rows(table: 'vip_distribution' | 'vip_reception'): Promise<string[][]> {
    const listing = await this.kernel.listing();
    return table === 'vip_distribution' ? listing.distribution : listing.reception;
  }

  /** What the kernel has of rules just now; nothing of one that it does not know. @throws as sweep */
  async converted(): Promise<(rule: Rule) => Converted | undefined> {
    const known = [...this.registrations].filter(({ ports }) => ports.size > 0);
    if (known.length === 0) return () => undefined;
    const { counts } = await this.kernel.listing();
    const flows = new Map<Registration, (protocol: number, port: number) => number>();
    for (const registration of known) flows.set(registration, await this.flows.counts(registration.sender));
    return (rule) => {
      const registration = this.registrations.find(rule.peer, rule.vip);
      const port = this.registrations.portOf(rule);
      if (registration === undefined || port === undefined) return undefined;
      const members = this.registrations.membersOf(registration, port);
      const total = [...members.values()].reduce((sum, weight) => sum + weight, 0);
      return {
        ...(counts.get(port.id) ?? { packets: 0, bytes: 0 }),
        flows: flows.get(registration)?.(port.protocol, port.port) ?? 0,
        share: total === 0 ? 0 : (members.get(registration) ?? 0) / total,
        members: members.size,
      };
    };
  }

  /** Leaves nothing behind. @throws as sweep */
  async remove(): Promise<void> {
    for (const one of [this.placing, this.left, this.search]) one.close();
    const all = [...this.registrations];
    for (const registration of all) this.registrations.delete(registration);
    await Promise.all(this.pending);
    for (const { sender } of all) this.dropRoute(sender);
    const senders = [...all.map(({ sender }) => sender), ...this.left.senders];
    for (const sender of senders) await this.flows.giveUp(sender, { tells: false });
    await this.kernel.remove();
    this.requests?.close();
    this.requests = null;
  }

  private get routes(): RouteRequests {
    this.requests ??= new RouteRequests();
    return this.requests;
  }

  private isPermitted(peer: Peer, interfaceName: string): boolean {
    return this.options.grantOf(peer, interfaceName).rights.has('vip');
  }

  private hasAddress(interfaceName: string, address: Buffer): boolean {
    const entry = this.options.interfaces.find(interfaceName);
    return entry !== undefined && entry.present !== null && entry.own.ip.some((own) => own.equals(address));
  }

  /** @throws FwdfsError no-such-interface, not-permitted */
  private permittedInterface(peer: Peer, vip: Buffer): string {
    const having = this.options.interfaces.names.filter((name) => this.hasAddress(name, vip));
    if (having.length === 0) {
      throw new FwdfsError(
        'no-such-interface',
        `${this.options.name} has no interface with the address ${addressText(vip)}`,
      );
    }
    const permitted = having.find((name) => this.isPermitted(peer, name));
    if (permitted !== undefined) return permitted;
    throw new FwdfsError('not-permitted', `${peer.identity} may not have the address of ${having.join(', ')}`);
  }

  /** @throws FwdfsError already-there, address-in-use */
  private requireFree(peer: Peer, vip: Buffer, sender: Buffer, nextHop: Buffer): void {
    if (this.registrations.find(peer, vip) !== undefined)
      throw new FwdfsError('already-there', `${peer.identity} has ${addressText(vip)} since a moment ago`);
    if (sender.equals(nextHop) || this.registrations.uses(sender))
      throw new FwdfsError('address-in-use', `${addressText(sender)} stands for something else already`);
  }

  /** Resolves when the kernel has what is registered now. @throws also when the registration went meanwhile */
  private async convert(registration: Registration): Promise<void> {
    await this.kernel.update();
    if (this.registrations.has(registration)) return;
    throw new FwdfsError('no-such-vip', `${addressText(registration.vip)} was taken back`);
  }

  private refuse({ sender, vip }: Registration, ports: readonly VipPort[], isRefused: boolean): boolean {
    return this.kernel.refuse(sender, vip, ports, isRefused);
  }

  /** Ports of a member that takes nothing any more: what has no connection is placed anew. */
  private leave(registration: Registration, ports: readonly VipPort[]): void {
    const { sender } = registration;
    const forget = async (): Promise<void> => {
      for (const { protocol, port } of ports) await this.flows.forget(sender, protocol, port);
    };
    // Once nothing new comes: at once, if an element of a set can say so.
    if (!this.refuse(registration, ports, true)) return this.afterwards(forget);
    void this.track(forget());
    this.afterwards(() => Promise.resolve());
  }

  private withdraw(registration: Registration, reason: string, code: ErrorCode): void {
    this.options.withdraw(registration.peer, registration.vip, reason, code);
    void this.drop(registration);
  }

  /** What fails is logged. */
  private drop(registration: Registration): Promise<void> {
    if (!this.registrations.delete(registration)) return Promise.resolve();
    this.dropRoute(registration.sender);
    return this.track(this.dropped(registration));
  }

  private async dropped(registration: Registration): Promise<void> {
    try {
      await this.kernel.update();
    } catch (error) {
      this.options.log.error(
        { vip: addressText(registration.vip), error: describe(error) },
        'the kernel still converts',
      );
    }
    await this.flows.giveUp(registration.sender);
    this.options.log.info(
      { control: registration.peer.identity, vip: addressText(registration.vip) },
      'virtual IP address removed',
    );
  }

  private dropRoute(sender: Buffer): void {
    try {
      dropSenderRoutes(this.routes, sender);
    } catch (error) {
      this.options.log.error({ sender: addressText(sender), error: describe(error) }, 'a route could not be removed');
    }
  }

  /** The kernel is told of what changed, and then something is done. */
  private afterwards(step: () => Promise<void>): void {
    const done = this.kernel
      .update()
      .then(step)
      // The next change tries again.
      .catch((error: unknown) => this.options.log.error({ error: describe(error) }, 'the kernel converts as before'));
    void this.track(done);
  }

  private async track(step: Promise<void>): Promise<void> {
    this.pending.add(step);
    await step;
    this.pending.delete(step);
  }
}

function hostLacks(error: unknown, what: string): unknown {
  // A file system's errors have an errno too: where /proc/sys or /run can't be written.
  if (!(error instanceof SystemError) && !(error instanceof Error && 'errno' in error)) return error;
  if (error instanceof FwdfsError) return error;
  return new FwdfsError('host-lacks', `${what}: ${error.message}`, { cause: error });
}
