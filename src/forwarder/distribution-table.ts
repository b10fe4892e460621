/**
 * Distribution table 342 (Fig. 7), IF socket table 68: (interface, protocol address) -> (up tunnel, control device).
 *
 * Pure data, one table for all interfaces. Per interface the rules stand in an index by what their protocol address pins
 * down, so that a packet meets only the rules that can match it, however many there are:
 *
 *     any      *                         every packet
 *     ether    arp, ether:0x88cc         by EtherType, behind the VLAN tags and before them
 *     protocol icmp, ip:89, tcp          by IP protocol, rules without a port
 *     port     udp:520, tcp:A:80         by IP protocol and local port
 *     socket   the same, of sockets on virtual IFs: the one most specific rule gets a unicast packet
 *
 * The local address of a rule and its scope are compared last. The ways back of virtual IFs stand here too, so that they are
 * shown, have credit and end like rules; they match nothing.
 */
import { Changes } from '../base/changes.js';
import type { BpfProgram } from '../packet/bpf-run.js';
import type { FrameView, LinkType } from '../packet/headers.js';
import { overlaps } from '../packet/overlap.js';
import { ANY_PROTOCOL, type ProtocolAddress } from '../packet/protocol-address.js';
import type { Scope } from '../packet/symbol-name.js';
import type { VifKind } from '../tunnel/messages.js';
import type { Peer } from './peer.js';

/** The forwarder's end of a virtual IF. */
export interface VifEnd {
  /** Its down tunnel. */
  readonly id: number;
  readonly kind: VifKind;
  /** Number of the last frame that was on its way up to it: none goes twice. */
  stamp: number;
}

/**
 * `copy`: whatever others get; `claim`: and the forwarder's own kernel and other claims get nothing; `socket`: of a unicast
 * packet only the most specific rule gets it, and not the kernel; `flow`: what the flows of a virtual IF bring;
 * `vip`: address conversion by the kernel, and no frame is ours.
 */
export type RuleMode = 'copy' | 'claim' | 'socket' | 'flow' | 'vip';

/** What the way back of a virtual IF has for a protocol address: no packet matches it. */
export const FLOWS: ProtocolAddress = { ...ANY_PROTOCOL, kind: 'ip', text: 'flows' };

/** One packet transfer rule. Its counters and its credit are the packet path's. */
export interface Rule {
  readonly peer: Peer;
  readonly interface: string;
  readonly protocol: ProtocolAddress;
  /** What the interface was when the rule was set: its readers take every frame for one of this kind. */
  readonly linkType: LinkType;
  readonly scope: Scope;
  readonly mode: RuleMode;
  /** The virtual IF whose socket it is for; null: a file, or set by hand. */
  readonly vif: VifEnd | null;
  /** The virtual IP address, 4 or 16 bytes, of mode `vip`; null: of another mode. */
  readonly vip: Buffer | null;
  /** What the frame has to pass, of a packet socket; null: nothing. */
  readonly filter: BpfProgram | null;
  readonly upTunnel: number;
  readonly symbol: string;
  /** Payload bytes that the control device allowed at first, and again after a resume. */
  readonly credit: number;
  /** Payload bytes that the control device allows, cumulative since the channel came up. */
  granted: number;
  /** Payload bytes sent since the channel came up: never above `granted`. */
  sent: number;
  /** Over the life of the rule, for the table. */
  frames: number;
  bytes: number;
  dropped: number;
}

/** A rule that nothing went up for yet. */
export function newRule(of: Omit<Rule, 'granted' | 'sent' | 'frames' | 'bytes' | 'dropped'>): Rule {
  return { ...of, granted: of.credit, sent: 0, frames: 0, bytes: 0, dropped: 0 };
}

/** Which end of a frame is the local one of a protocol address. */
export const SIDE = { RECEIVED: 0, SENT: 1 } as const;
export type Side = (typeof SIDE)[keyof typeof SIDE];

/** Where a frame was seen; the bit of each is in SCOPE_BITS of the scopes that show it. */
export const SEEN = { RECEIVED: 1, OTHER_HOST: 2, OUTGOING: 4 } as const;

const SCOPE_BITS: Readonly<Record<Scope, number>> = {
  in: SEEN.RECEIVED,
  out: SEEN.OUTGOING,
  both: SEEN.RECEIVED | SEEN.OUTGOING,
  promisc: SEEN.RECEIVED | SEEN.OTHER_HOST,
};

function remove<K>(map: Map<K, Rule[]>, key: K, rule: Rule): void {
  const rest = map.get(key)?.filter((other) => other !== rule);
  if (rest === undefined || rest.length === 0) map.delete(key);
  else map.set(key, rest);
}

function insert<K>(map: Map<K, Rule[]>, key: K, rule: Rule): void {
  const rules = map.get(key);
  if (rules === undefined) map.set(key, [rule]);
  else rules.push(rule);
}

/** Protocol and port are the index's; what is left to compare is the local address. */
function isLocal(address: Buffer, view: FrameView, frame: Buffer, side: Side): boolean {
  if (view.addressLength !== address.length) return false;
  const offset = side === SIDE.RECEIVED ? view.destinationOffset : view.sourceOffset;
  for (let i = 0; i < address.length; i++) if (frame[offset + i] !== address[i]) return false;
  return true;
}

/** The rules of one interface. */
export class InterfaceRules {
  private readonly any = new Map<'*', Rule[]>();
  private readonly ether = new Map<number, Rule[]>();
  private readonly protocol = new Map<number, Rule[]>();
  private readonly port = new Map<number, Rule[]>();
  private readonly socket = new Map<number, Rule[]>();
  private readonly all = new Set<Rule>();
  private vifRules = 0;

  get size(): number {
    return this.all.size;
  }

  [Symbol.iterator](): Iterator<Rule> {
    return this.all[Symbol.iterator]();
  }

  /** Whether rules or flows of a virtual IF may want what arrives. */
  get hasVif(): boolean {
    return this.vifRules > 0;
  }

  add(rule: Rule): void {
    this.all.add(rule);
    if (rule.vif !== null) this.vifRules += 1;
    this.eachKey(rule, insert);
  }

  remove(rule: Rule): boolean {
    if (!this.all.delete(rule)) return false;
    if (rule.vif !== null) this.vifRules -= 1;
    this.eachKey(rule, remove);
    return true;
  }

  private eachKey(rule: Rule, act: <K>(map: Map<K, Rule[]>, key: K, rule: Rule) => void): void {
    const address = rule.protocol;
    if (rule.mode === 'vip') return;
    if (address.kind === 'any') act(this.any, '*', rule);
    else if (address.kind === 'ether') act(this.ether, address.etherType, rule);
    else {
      for (const protocol of address.protocols) {
        if (address.portLow < 0) act(this.protocol, protocol, rule);
        else act(rule.mode === 'socket' ? this.socket : this.port, (protocol << 16) | address.portLow, rule);
      }
    }
  }

  /**
   * Every rule but those of sockets that a frame matches, written to `matched` from its start.
   * @param seen one bit of SEEN @returns how many
   */
  match(view: FrameView, frame: Buffer, side: Side, seen: number, matched: Rule[]): number {
    let count = 0;
    count = this.take(this.any.get('*'), view, frame, side, seen, matched, count);
    if (this.ether.size > 0) {
      const { etherType, outerEtherType } = view;
      count = this.take(this.ether.get(etherType), view, frame, side, seen, matched, count);
      if (outerEtherType !== etherType) {
        count = this.take(this.ether.get(outerEtherType), view, frame, side, seen, matched, count);
      }
    }
    if (view.protocol < 0) return count;
    if (this.protocol.size > 0) {
      count = this.take(this.protocol.get(view.protocol), view, frame, side, seen, matched, count);
    }
    if (this.port.size > 0) {
      const port = side === SIDE.RECEIVED ? view.destinationPort : view.sourcePort;
      if (port >= 0) {
        count = this.take(this.port.get((view.protocol << 16) | port), view, frame, side, seen, matched, count);
      }
    }
    return count;
  }

  /** The one socket rule that gets a unicast frame: with a local address before without, of equal ones the oldest. */
  matchSocket(view: FrameView, frame: Buffer): Rule | null {
    if (this.socket.size === 0 || view.destinationPort < 0) return null;
    const rules = this.socket.get((view.protocol << 16) | view.destinationPort);
    if (rules === undefined) return null;
    let best: Rule | null = null;
    let most = -1;
    for (let i = 0; i < rules.length; i++) {
      const rule = rules[i] as Rule;
      const { address } = rule.protocol;
      if (address !== null && !isLocal(address, view, frame, SIDE.RECEIVED)) continue;
      // A control device that is away gets nothing while another one is there.
      const weight = (address === null ? 0 : 2) + (rule.peer.active ? 1 : 0);
      if (weight <= most) continue;
      best = rule;
      most = weight;
    }
    return best;
  }

  /** Every socket rule that a multicast or broadcast frame matches, written to `matched` from `count` on. @returns how many */
  matchSockets(view: FrameView, frame: Buffer, matched: Rule[], count: number): number {
    if (this.socket.size === 0 || view.destinationPort < 0) return count;
    const rules = this.socket.get((view.protocol << 16) | view.destinationPort);
    return this.take(rules, view, frame, SIDE.RECEIVED, SEEN.RECEIVED, matched, count);
  }

  private take(
    rules: Rule[] | undefined,
    view: FrameView,
    frame: Buffer,
    side: Side,
    seen: number,
    matched: Rule[],
    count: number,
  ): number {
    if (rules === undefined) return count;
    for (let i = 0; i < rules.length; i++) {
      const rule = rules[i] as Rule;
      if ((SCOPE_BITS[rule.scope] & seen) === 0) continue;
      if (rule.protocol.address !== null && !isLocal(rule.protocol.address, view, frame, side)) continue;
      matched[count++] = rule;
    }
    return count;
  }
}

export class DistributionTable {
  /** Rules came or went. */
  readonly changes = new Changes();
  private readonly interfaces = new Map<string, InterfaceRules>();
  private readonly byTunnel = new Map<Peer, Map<number, Rule>>();

  /** The rules of an interface; the same object for ever, also while it is empty. */
  of(name: string): InterfaceRules {
    let rules = this.interfaces.get(name);
    if (rules === undefined) {
      rules = new InterfaceRules();
      this.interfaces.set(name, rules);
    }
    return rules;
  }

  /** S1007. The caller made sure that the peer has no such up tunnel. */
  add(rule: Rule): void {
    this.of(rule.interface).add(rule);
    let tunnels = this.byTunnel.get(rule.peer);
    if (tunnels === undefined) {
      tunnels = new Map();
      this.byTunnel.set(rule.peer, tunnels);
    }
    tunnels.set(rule.upTunnel, rule);
    this.changes.tell();
  }

  get(peer: Peer, upTunnel: number): Rule | undefined {
    return this.byTunnel.get(peer)?.get(upTunnel);
  }

  /** S904. */
  remove(rule: Rule): void {
    this.of(rule.interface).remove(rule);
    const tunnels = this.byTunnel.get(rule.peer);
    tunnels?.delete(rule.upTunnel);
    if (tunnels?.size === 0) this.byTunnel.delete(rule.peer);
    this.changes.tell();
  }

  rulesOf(peer: Peer): Rule[] {
    return [...(this.byTunnel.get(peer)?.values() ?? [])];
  }

  /** The rules of an interface that were set for another kind of frames. */
  rulesOfOtherKind(interfaceName: string, linkType: LinkType): Rule[] {
    return [...this.of(interfaceName)].filter((rule) => rule.linkType !== linkType);
  }

  countOf(peer: Peer): number {
    return this.byTunnel.get(peer)?.size ?? 0;
  }

  /** All claims, those of suspended control devices and absent interfaces too. */
  claims(): Rule[] {
    return [...this.interfaces.values()].flatMap((rules) => [...rules].filter((rule) => rule.mode === 'claim'));
  }

  /** The rule of a mode at an interface with which this protocol address has packets in common. */
  ruleThatMeets(mode: RuleMode, interfaceName: string, protocol: ProtocolAddress): Rule | undefined {
    return [...this.of(interfaceName)].find((rule) => rule.mode === mode && overlaps(rule.protocol, protocol));
  }

  /** @param isThere whether an interface is there just now */
  rows(isThere: (interfaceName: string) => boolean): string[][] {
    const rows: string[][] = [];
    for (const tunnels of this.byTunnel.values()) {
      for (const rule of tunnels.values()) {
        rows.push([
          rule.interface,
          rule.protocol.text,
          rule.scope,
          String(rule.upTunnel),
          rule.peer.identity,
          rule.peer.address,
          !isThere(rule.interface) ? 'absent' : rule.peer.active ? 'active' : 'suspended',
          String(rule.frames),
          String(rule.bytes),
          String(rule.dropped),
          rule.mode,
        ]);
      }
    }
    return rows.sort((a, b) => a.join('\t').localeCompare(b.join('\t')));
  }
}

export const DISTRIBUTION_COLUMNS = [
  'interface',
  'protocol',
  'scope',
  'up_tunnel',
  'control',
  'address',
  'state',
  'frames',
  'bytes',
  'dropped',
  'mode',
];
