/**
 * Who has which virtual IP address, and the ports that its rules ask for (reception table 345 and distribution table 343 as
 * they are to be; the kernel's are in vip-rows.ts). Pure data.
 *
 *     registration  (peer, vip) -> sender address, link         port  (registration, protocol, port) -> rules
 */
import { FwdfsError } from '../base/errors.js';
import { IPV4_ADDRESS_BYTES } from '../packet/ip-address.js';
import type { Rule } from './rule.js';
import type { Peer } from './peer.js';
import type { Grant } from './permission-table.js';
import type { VipWants } from './vip-kernel.js';
import type { VipLink } from './vip-link.js';
import type { VipMember, VipSender } from './vip-ruleset.js';

/** What the rules of one port have in common: several of a control device are one member. */
export interface VipPort {
  /** Names it in the kernel, and no other one after it. */
  readonly id: number;
  readonly protocol: number;
  readonly port: number;
  readonly rules: Set<Rule>;
}

export interface Registration {
  readonly peer: Peer;
  readonly vip: Buffer;
  readonly sender: Buffer;
  /** The control device's address on the link. */
  readonly nextHop: Buffer;
  /** Its link layer address there. */
  readonly mac: Buffer;
  /** The interface that has the address. */
  readonly interface: string;
  readonly link: VipLink;
  /** By protocol and port. */
  readonly ports: Map<string, VipPort>;
}

/** It gets nothing just now; see Peer. */
export const isAway = (peer: Peer): boolean => !peer.active || peer.silent;

const weightOf = ({ peer, interface: name }: Registration): number => (peer.takesFlows(name) ? peer.weight : 0);

/** A rule of mode `vip` has one protocol and one port. */
const portKey = ({ protocol }: Rule): string => `${protocol.protocols[0]} ${protocol.portLow}`;

export class VipRegistrations {
  private readonly all = new Set<Registration>();
  private lastId = 0;

  [Symbol.iterator](): Iterator<Registration> {
    return this.all[Symbol.iterator]();
  }

  add(registration: Registration): void {
    this.all.add(registration);
  }

  has(registration: Registration): boolean {
    return this.all.has(registration);
  }

  delete(registration: Registration): boolean {
    return this.all.delete(registration);
  }

  of(peer: Peer): Registration[] {
    return [...this.all].filter((one) => one.peer === peer);
  }

  find(peer: Peer, vip: Buffer | null): Registration | undefined {
    return vip === null ? undefined : this.of(peer).find((one) => one.vip.equals(vip));
  }

  /** Whether converted packets go to this address, by one way or the other. */
  uses(address: Buffer): boolean {
    return [...this.all].some((one) => one.sender.equals(address) || one.nextHop.equals(address));
  }

  /** @throws FwdfsError no-such-vip */
  addRule(rule: Rule): Registration {
    const registration = this.find(rule.peer, rule.vip);
    if (registration === undefined || registration.interface !== rule.interface) {
      throw new FwdfsError('no-such-vip', `${rule.peer.identity} has no such virtual IP address of ${rule.interface}`);
    }
    const { ports } = registration;
    const key = portKey(rule);
    const port = ports.get(key) ?? {
      id: ++this.lastId,
      protocol: rule.protocol.protocols[0] ?? 0,
      port: rule.protocol.portLow,
      rules: new Set(),
    };
    port.rules.add(rule);
    ports.set(key, port);
    return registration;
  }

  portOf(rule: Rule): VipPort | undefined {
    return this.find(rule.peer, rule.vip)?.ports.get(portKey(rule));
  }

  /** @returns the port that nobody asks for any more, null while another rule does */
  removeRule(rule: Rule): VipPort | null {
    const port = this.portOf(rule);
    if (port === undefined || !port.rules.delete(rule) || port.rules.size > 0) return null;
    this.find(rule.peer, rule.vip)?.ports.delete(portKey(rule));
    return port;
  }

  /** The members of the group of a port, with their weights: 0 takes no new connections. */
  membersOf({ vip, interface: name }: Registration, { protocol, port }: VipPort): Map<Registration, number> {
    const members = new Map<Registration, number>();
    for (const other of this.all) {
      const isMember = other.interface === name && other.vip.equals(vip) && other.ports.has(`${protocol} ${port}`);
      if (isMember) members.set(other, weightOf(other));
    }
    return members;
  }

  /** What the kernel is to do. @param seed of the hash that places connections */
  wants(grantOf: (peer: Peer, interfaceName: string) => Grant, seed: number): VipWants {
    const senders: VipSender[] = [];
    const members: VipMember[] = [];
    const forwarding = { ipv4: new Set<string>(), ipv6: false };
    for (const registration of this.all) {
      const { peer, vip, sender, mac, link, interface: name, ports } = registration;
      const common = { vip, sender, control: peer.identity };
      const { protocols } = grantOf(peer, name);
      senders.push({ ...common, link: link.name, mac, outgoing: isAway(peer) ? null : protocols });
      const weight = weightOf(registration);
      for (const { id, protocol, port } of ports.values()) {
        members.push({ ...common, interface: name, protocol, port, weight, id });
      }
      if (vip.length === IPV4_ADDRESS_BYTES) forwarding.ipv4.add(name).add(link.name);
      else forwarding.ipv6 = true;
    }
    return { senders, members, seed, forwarding };
  }
}
