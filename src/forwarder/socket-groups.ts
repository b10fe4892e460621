/**
 * Groups of balanced rules: the sockets on virtual IFs, of whatever control devices, that have the same protocol, port and
 * local address (or any) at one interface. The most specific group gives a packet to exactly one of its members.
 *
 *     protocol, port --> group of the local address, else that of any address --five-tuple, Maglev--> the rule
 *                        members: whose control device takes flows now; made anew after any of them changed
 *     a virtual IP address is served at the same address and port --> none: the kernel converts its new flows
 *
 * Pure data.
 */
import type { ProtocolAddress } from '../packet/protocol-address.js';
import { type MaglevMember, MaglevTables } from './maglev.js';
import type { Peer } from './peer.js';
import type { Rule, VifEnd } from './rule.js';

/** What all groups of a forwarder share. */
export class Balancing {
  readonly tables = new MaglevTables();
  private count = 0;

  /** Another one after each change of a control device: groups that have members of an older one look again. */
  get version(): number {
    return this.count;
  }

  /** A control device was suspended, is back, drains, or has another weight. */
  changed(): void {
    this.count += 1;
  }
}

/** A control device, with a rule for each of its virtual IFs. */
interface Member extends MaglevMember {
  readonly peer: Peer;
  readonly rules: readonly Rule[];
}

/** Members, and who of them has which slot; null while there are not at least two. */
interface Placement {
  readonly members: readonly Member[];
  readonly table: Uint16Array | null;
}

const NOBODY: Placement = { members: [], table: null };

export class SocketGroup {
  readonly protocol: ProtocolAddress;
  /** Those of suspended control devices too. */
  readonly rules: Rule[] = [];
  private readonly balancing: Balancing;
  /** Those that take new flows. */
  private taking = NOBODY;
  /** Those that are there, also if they drain. */
  private present = NOBODY;
  private version = -1;

  constructor(protocol: ProtocolAddress, balancing: Balancing) {
    this.protocol = protocol;
    this.balancing = balancing;
  }

  add(rule: Rule): void {
    this.rules.push(rule);
    this.version = -1;
  }

  remove(rule: Rule): void {
    this.rules.splice(this.rules.indexOf(rule), 1);
    this.version = -1;
  }

  private look(): void {
    if (this.version === this.balancing.version) return;
    this.version = this.balancing.version;
    this.taking = this.placementOf(this.rules.filter((rule) => rule.peer.takesFlows(rule.interface)));
    this.present = this.placementOf(this.rules.filter(({ peer }) => peer.active && !peer.silent));
  }

  private placementOf(rules: readonly Rule[]): Placement {
    const members = membersOf(rules);
    return { members, table: members.length < 2 ? null : this.balancing.tables.of(members) };
  }

  /**
   * @param hash of the five-tuple, 32 bits
   * @param opens false: of a connection that we do not know, as after a restart: who drains may have it
   * @returns null: nobody takes new flows
   */
  pick(hash: number, opens = true): Rule | null {
    this.look();
    const { members, table } = opens ? this.taking : this.present;
    const member = table === null ? members[0] : members[table[hash % table.length]!];
    if (member === undefined) return null;
    // The high bits: the low ones chose the slot.
    return member.rules[member.rules.length === 1 ? 0 : (hash >>> 16) % member.rules.length]!;
  }

  /** Whether others than this one take new flows. */
  servedWithout(rule: Rule): boolean {
    this.look();
    return this.taking.members.some(({ peer }) => peer !== rule.peer);
  }

  /** Of new flows, 0 to 1. */
  shareOf(rule: Rule): number {
    this.look();
    const { members, table } = this.taking;
    const index = members.findIndex(({ rules }) => rules.includes(rule));
    if (index < 0) return 0;
    const ofMember =
      table === null ? 1 : table.reduce((sum, owner) => (owner === index ? sum + 1 : sum), 0) / table.length;
    return ofMember / members[index]!.rules.length;
  }
}

/** Sorted by name, so that the order of coming does not count. */
function membersOf(rules: readonly Rule[]): Member[] {
  const ofPeers = new Map<Peer, Rule[]>();
  for (const rule of rules) ofPeers.set(rule.peer, [...(ofPeers.get(rule.peer) ?? []), rule]);
  const names = new Set<string>();
  return [...ofPeers]
    .map(([peer, own]) => {
      // A control device that came back under its name, while its old session is not over.
      let name = peer.identity;
      while (names.has(name)) name += '+';
      names.add(name);
      own.sort((a, b) => (a.symbol < b.symbol ? -1 : 1));
      return { peer, name, weight: peer.weight, rules: own };
    })
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** What serves one protocol and port. */
class PortGroups {
  readonly groups: SocketGroup[] = [];
  readonly vips: Rule[] = [];
  /** Virtual IP addresses that were served here: their connections may live on in the kernel. */
  readonly converted: Buffer[] = [];
}

const isAt = (address: Buffer, frame: Buffer, offset: number, length: number): boolean => {
  if (address.length !== length) return false;
  for (let i = 0; i < length; i++) if (frame[offset + i] !== address[i]) return false;
  return true;
};

/** Who gets a packet by its local end. */
export const SERVED = { BY_NOBODY: 0, BY_GROUP: 1, BY_KERNEL: 2 } as const;

export class SocketGroups {
  /** What `find` found, where it said BY_GROUP. */
  found: SocketGroup | null = null;
  private readonly balancing: Balancing;
  private readonly ports = new Map<number, PortGroups>();
  private vipRules = 0;

  constructor(balancing: Balancing) {
    this.balancing = balancing;
  }

  /** Whether `find` may say BY_KERNEL for what opens a flow. */
  get hasVips(): boolean {
    return this.vipRules > 0;
  }

  get size(): number {
    return this.ports.size;
  }

  add(rule: Rule): void {
    if (rule.mode === 'vip') this.vipRules += 1;
    for (const key of keysOf(rule)) {
      let port = this.ports.get(key);
      if (port === undefined) this.ports.set(key, (port = new PortGroups()));
      if (rule.mode === 'vip') {
        const { vip } = rule;
        port.vips.push(rule);
        if (vip !== null && !port.converted.some((address) => address.equals(vip))) port.converted.push(vip);
        continue;
      }
      let group = port.groups.find(({ protocol }) => protocol.text === rule.protocol.text);
      if (group === undefined) {
        group = new SocketGroup(rule.protocol, this.balancing);
        port.groups.push(group);
        // The most specific first.
        port.groups.sort((a, b) => Number(a.protocol.address === null) - Number(b.protocol.address === null));
      }
      group.add(rule);
    }
  }

  remove(rule: Rule): void {
    if (rule.mode === 'vip') this.vipRules -= 1;
    for (const key of keysOf(rule)) {
      const port = this.ports.get(key);
      if (port === undefined) continue;
      if (rule.mode === 'vip') port.vips.splice(port.vips.indexOf(rule), 1);
      else {
        const group = port.groups.find(({ rules }) => rules.includes(rule));
        group?.remove(rule);
        if (group?.rules.length === 0) port.groups.splice(port.groups.indexOf(group), 1);
      }
      if (port.groups.length === 0 && port.vips.length === 0 && port.converted.length === 0) this.ports.delete(key);
    }
  }

  /** The group that a rule is in. */
  groupOf(rule: Rule): SocketGroup | null {
    for (const key of keysOf(rule)) {
      const group = this.ports.get(key)?.groups.find(({ rules }) => rules.includes(rule));
      if (group !== undefined) return group;
    }
    return null;
  }

  /**
   * @param at where the local address stands in the frame @param opens the packet may begin a flow: of TCP, a SYN
   * @returns one of SERVED
   */
  find(protocol: number, localPort: number, frame: Buffer, at: number, addressLength: number, opens: boolean): number {
    const port = this.ports.get((protocol << 16) | localPort);
    if (port === undefined) return SERVED.BY_NOBODY;
    if (port.converted.length > 0 && isConverted(port, frame, at, addressLength, opens)) return SERVED.BY_KERNEL;
    for (let i = 0; i < port.groups.length; i++) {
      const group = port.groups[i] as SocketGroup;
      const { address } = group.protocol;
      if (address !== null && !isAt(address, frame, at, addressLength)) continue;
      this.found = group;
      return SERVED.BY_GROUP;
    }
    return SERVED.BY_NOBODY;
  }

  /** The rule of this virtual IF for a local end. */
  throughOf(
    protocol: number,
    localPort: number,
    frame: Buffer,
    at: number,
    addressLength: number,
    vif: VifEnd,
  ): Rule | null {
    const port = this.ports.get((protocol << 16) | localPort);
    if (port === undefined) return null;
    for (const { protocol: of, rules } of port.groups) {
      if (of.address !== null && !isAt(of.address, frame, at, addressLength)) continue;
      for (const rule of rules) if (rule.vif === vif) return rule;
    }
    return null;
  }

  /** All groups of a port, for what is not balanced. */
  groupsAt(protocol: number, localPort: number): readonly SocketGroup[] {
    return this.ports.get((protocol << 16) | localPort)?.groups ?? NONE;
  }
}

const NONE: readonly SocketGroup[] = [];

/**
 * Whether the kernel has it: a new flow while a virtual IP address is served there, and what comes without a flow of ours
 * where one was, for it may be of a connection that the kernel still converts.
 */
function isConverted(port: PortGroups, frame: Buffer, at: number, addressLength: number, opens: boolean): boolean {
  if (!opens) return port.converted.some((address) => isAt(address, frame, at, addressLength));
  return port.vips.some(
    (rule) => rule.vip !== null && isAt(rule.vip, frame, at, addressLength) && rule.peer.takesFlows(rule.interface),
  );
}

function keysOf({ protocol }: Rule): number[] {
  return protocol.portLow < 0 ? [] : protocol.protocols.map((number) => (number << 16) | protocol.portLow);
}
