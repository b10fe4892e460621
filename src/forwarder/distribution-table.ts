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
 *     socket   the same, of sockets on virtual IFs, in groups: one rule of one group gets a unicast packet
 *
 * The local address of a rule and its scope are compared last. The ways back of virtual IFs stand here too, so that they are
 * shown, have credit and end like rules; they match nothing.
 */
import { Changes } from '../base/changes.js';
import type { FrameView, LinkType } from '../packet/headers.js';
import { overlaps } from '../packet/overlap.js';
import type { ProtocolAddress } from '../packet/protocol-address.js';
import type { Scope } from '../packet/symbol-name.js';
import type { Peer } from './peer.js';
import { type Rule, type RuleMode, SEEN, SIDE, type Side, type VifEnd } from './rule.js';
import { Balancing, SocketGroups } from './socket-groups.js';

export { FLOWS, newRule, type Rule, type RuleMode, SEEN, SIDE, type Side, type VifEnd } from './rule.js';

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
  /** The rules of sockets, and of virtual IP addresses. */
  readonly sockets: SocketGroups;
  private readonly all = new Set<Rule>();
  private vifRules = 0;

  constructor(balancing = new Balancing()) {
    this.sockets = new SocketGroups(balancing);
  }

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
    if (rule.mode === 'socket' || rule.mode === 'vip') this.sockets.add(rule);
    this.eachKey(rule, insert);
  }

  remove(rule: Rule): boolean {
    if (!this.all.delete(rule)) return false;
    if (rule.vif !== null) this.vifRules -= 1;
    if (rule.mode === 'socket' || rule.mode === 'vip') this.sockets.remove(rule);
    this.eachKey(rule, remove);
    return true;
  }

  private eachKey(rule: Rule, act: <K>(map: Map<K, Rule[]>, key: K, rule: Rule) => void): void {
    // Those of sockets are in their groups.
    if (rule.mode === 'socket' || rule.mode === 'vip') return;
    const address = rule.protocol;
    if (address.kind === 'any') act(this.any, '*', rule);
    else if (address.kind === 'ether') act(this.ether, address.etherType, rule);
    else {
      for (const protocol of address.protocols) {
        if (address.portLow < 0) act(this.protocol, protocol, rule);
        else act(this.port, (protocol << 16) | address.portLow, rule);
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

  /** The socket rule of this virtual IF that covers the frame's local end; null: none. */
  throughOf(view: FrameView, frame: Buffer, side: Side, vif: VifEnd): Rule | null {
    const received = side === SIDE.RECEIVED;
    const port = received ? view.destinationPort : view.sourcePort;
    if (this.sockets.size === 0 || port < 0) return null;
    const at = received ? view.destinationOffset : view.sourceOffset;
    return this.sockets.throughOf(view.protocol, port, frame, at, view.addressLength, vif);
  }

  /** Every socket rule that a multicast or broadcast frame matches, written to `matched` from `count` on. @returns how many */
  matchSockets(view: FrameView, frame: Buffer, matched: Rule[], count: number): number {
    if (this.sockets.size === 0 || view.destinationPort < 0) return count;
    const groups = this.sockets.groupsAt(view.protocol, view.destinationPort);
    for (let i = 0; i < groups.length; i++) {
      count = this.take(groups[i]!.rules, view, frame, SIDE.RECEIVED, SEEN.RECEIVED, matched, count);
    }
    return count;
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

const bringsFlows = ({ mode }: Rule): boolean => mode === 'flow' || mode === 'socket' || mode === 'vip';

export class DistributionTable {
  /** Rules came or went. */
  readonly changes = new Changes();
  readonly balancing = new Balancing();
  private readonly interfaces = new Map<string, InterfaceRules>();
  private readonly byTunnel = new Map<Peer, Map<number, Rule>>();

  /** The rules of an interface; the same object for ever, also while it is empty. */
  of(name: string): InterfaceRules {
    let rules = this.interfaces.get(name);
    if (rules === undefined) {
      rules = new InterfaceRules(this.balancing);
      this.interfaces.set(name, rules);
    }
    return rules;
  }

  /** S1007. The caller made sure that the peer has no such up tunnel. */
  add(rule: Rule): void {
    this.of(rule.interface).add(rule);
    if (bringsFlows(rule)) rule.peer.flowRules += 1;
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
    if (this.of(rule.interface).remove(rule) && bringsFlows(rule)) rule.peer.flowRules -= 1;
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

  /** All rules. */
  *rules(): Generator<Rule> {
    for (const tunnels of this.byTunnel.values()) yield* tunnels.values();
  }
}
