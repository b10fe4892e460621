/**
 * Who gets a received frame, and its way into their batches: distribution section 350, destination determination section 71.
 *
 *     frame for us --> FlowTable: a flow of a virtual IF?   its way back gets it; a lost one's is answered with an RST
 *                      else the group that serves its port: one member by Maglev, which datagrams open a flow for
 *                                                           (multicast and broadcast: every one that matches)
 *     any frame    --> every matching copy
 *                      each: not yet at this vif? filter? --credit?--> its peer's batch --batchEnd()--> flush
 *
 * Copies of files do not change what flows and sockets get, nor the other way round.
 */
import { C, type Counters } from '../base/counters.js';
import { BpfContext, runBpf } from '../packet/bpf-run.js';
import type { FrameView } from '../packet/headers.js';
import { IPPROTO_ICMPV6, IPPROTO_TCP } from '../packet/protocol-address.js';
import { PKTTYPE } from '../sys/packet-socket.js';
import { DATA_OUTGOING } from '../tunnel/frames.js';
import { type InterfaceRules, type Rule, SEEN, SIDE } from './distribution-table.js';
import { FLOW, FlowKey } from './flow-key.js';
import { isDatagram, isOpening, tcpFlags } from './flow-state.js';
import type { FlowTable } from './flow-table.js';
import { flowHash } from './maglev.js';
import type { Peer } from './peer.js';
import type { Resets } from './resets.js';
import { SERVED } from './socket-groups.js';
import type { OwnAddresses } from './source-check.js';

/** Neighbour solicitation and advertisement, redirect: the forwarder's kernel alone speaks them (RFC 4861). */
const ND_FIRST = 135;
const ND_LAST = 137;

/** Frames are numbered through all interfaces and receivers, for the stamps of vifs. */
let lastFrame = 0;

function isOwnDestination(own: OwnAddresses, view: FrameView, frame: Buffer): boolean {
  for (let i = 0; i < own.ip.length; i++) {
    const address = own.ip[i] as Buffer;
    if (address.length !== view.addressLength) continue;
    let same = true;
    for (let at = 0; same && at < address.length; at++) same = address[at] === frame[view.destinationOffset + at];
    if (same) return true;
  }
  return false;
}

function isNeighbourDiscovery(view: FrameView, frame: Buffer): boolean {
  if (view.protocol !== IPPROTO_ICMPV6 || view.l4Offset === 0 || view.l4Offset >= view.l3End) return false;
  const type = frame[view.l4Offset]!;
  return type >= ND_FIRST && type <= ND_LAST;
}

/** Of a later fragment it can't be told: no. */
const isSyn = (view: FrameView, frame: Buffer): boolean => isOpening(tcpFlags(view, frame));

/** What goes up by the way back of its virtual IF still belongs to the rule that its flow came by. */
function countThrough(rule: Rule, bytes: number): void {
  if (bytes > 0) {
    rule.flowFrames += 1;
    rule.flowBytes += bytes;
    return;
  }
  rule.dropped += 1;
  if (!rule.peer.active) rule.droppedSuspended += 1;
}

export class Delivery {
  /** The addresses of the interface. */
  own: OwnAddresses;
  private readonly rules: InterfaceRules;
  private readonly flows: FlowTable;
  private readonly resets: Resets;
  private readonly counters: Counters;
  private readonly matched: Rule[] = [];
  private readonly touched: Peer[] = [];
  private readonly context = new BpfContext();
  private readonly key = new FlowKey();
  private packetType = 0;
  /** The socket rule by which the flow of the frame came, whose way it goes no more. */
  private through: Rule | null = null;
  private dealt = false;

  constructor(rules: InterfaceRules, flows: FlowTable, resets: Resets, own: OwnAddresses, counters: Counters) {
    this.rules = rules;
    this.flows = flows;
    this.resets = resets;
    this.own = own;
    this.counters = counters;
  }

  /**
   * @param view of the frame; later fragments have their first one's ports
   * @param vnet offset of its virtio_net_hdr @param pkttype of PKTTYPE
   * @returns how many rules it matched
   */
  frame(
    view: FrameView,
    slots: Buffer,
    offset: number,
    length: number,
    vnet: number,
    pkttype: number,
    seconds: number,
    nanoseconds: number,
  ): number {
    const seen =
      pkttype === PKTTYPE.OUTGOING ? SEEN.OUTGOING : pkttype === PKTTYPE.OTHERHOST ? SEEN.OTHER_HOST : SEEN.RECEIVED;
    const outgoing = seen === SEEN.OUTGOING;
    const { rules, matched } = this;
    lastFrame += 1;
    this.packetType = pkttype;
    let first: Rule | null = null;
    let forVifs = false;
    this.dealt = false;
    if (rules.hasVif && seen === SEEN.RECEIVED && view.ipVersion !== 0) {
      const unicast = pkttype === PKTTYPE.HOST;
      // What is forwarded has our MAC address and is none of the sockets' business.
      forVifs = !unicast || isOwnDestination(this.own, view, slots);
      if (unicast && forVifs) first = this.receiver(view, slots);
    }
    let count = rules.match(view, slots, outgoing ? SIDE.SENT : SIDE.RECEIVED, seen, matched);
    if (forVifs && pkttype !== PKTTYPE.HOST) count = rules.matchSockets(view, slots, matched, count);
    const flags = outgoing ? DATA_OUTGOING : 0;
    if (first !== null) {
      const bytes = this.give(first, flags, view, slots, offset, length, vnet, seconds, nanoseconds);
      if (this.through !== null) countThrough(this.through, bytes);
    }
    for (let i = 0; i < count; i++) {
      const rule = matched[i] as Rule;
      if (rule.vif !== null && rule.protocol.kind === 'ip' && (!forVifs || isNeighbourDiscovery(view, slots))) continue;
      this.give(rule, flags, view, slots, offset, length, vnet, seconds, nanoseconds);
    }
    return first !== null || this.dealt ? count + 1 : count;
  }

  /**
   * Who gets a frame for one of our addresses: the flow that it is of, else a member of the group that serves its port.
   * Sets `through`, and `dealt` where the frame is somebody's, but of none of ours.
   */
  private receiver(view: FrameView, frame: Buffer): Rule | null {
    const { counters, flows, key } = this;
    const { sockets } = this.rules;
    this.through = null;
    const handle = flows.received(view, frame);
    if (handle >= 0 && flows.isLost(handle)) {
      if (!flows.isError) this.resets.segment(view, frame);
      this.dealt = true;
      return null;
    }
    const owner = handle < 0 || flows.isHomeless(handle) ? null : flows.ruleOf(handle);
    if (owner !== null) {
      this.through = flows.throughOf(handle);
      // TCP stays where it is. Datagrams go where they are served now.
      const stays = this.through === null || flows.protocol(handle) === IPPROTO_TCP;
      if (stays || (owner.peer.active && !owner.peer.silent && !sockets.hasVips)) return owner;
    }
    const kind = sockets.size === 0 ? FLOW.NONE : key.read(view, frame, SIDE.RECEIVED);
    if (kind === FLOW.NONE) return owner;
    const isError = kind === FLOW.ERROR;
    const opens = !isError && (key.protocol !== IPPROTO_TCP || isSyn(view, frame));
    const served = sockets.find(key.protocol, key.localPort, frame, key.local, key.addressLength, opens);
    if (served === SERVED.BY_KERNEL) {
      this.dealt = true;
      return null;
    }
    const isAway = owner !== null && (!owner.peer.active || owner.peer.silent);
    if (served !== SERVED.BY_GROUP || (owner !== null && !isAway)) return owner;
    const rule = sockets.found?.pick(flowHash(key, frame), opens) ?? null;
    if (rule === null) {
      if (owner === null) {
        counters.add(C.drop_no_member, 1);
        this.dealt = true;
      }
      return owner;
    }
    this.through = null;
    if (rule.vif?.wayBack && !isError) {
      if (handle >= 0) flows.rehome(handle, rule.vif.wayBack, rule);
      else if (isDatagram(key.protocol)) flows.open(view, frame, rule.vif.wayBack, rule);
    }
    return rule;
  }

  /** @returns bytes that went up; 0: it did not */
  private give(
    rule: Rule,
    flags: number,
    view: FrameView,
    slots: Buffer,
    offset: number,
    length: number,
    vnet: number,
    seconds: number,
    nanoseconds: number,
  ): number {
    const { counters } = this;
    const { peer, vif } = rule;
    let cut = 0;
    if (vif !== null) {
      if (vif.stamp === lastFrame) return 0;
      if (vif.kind === 'tun') {
        if (view.ipVersion === 0) return 0;
        cut = view.l3Offset - offset;
      }
      if (rule.filter !== null) {
        this.context.fill(view, slots, offset, cut, this.packetType);
        if (runBpf(rule.filter, slots, offset + cut, length - cut, this.context) === 0) return 0;
      }
      vif.stamp = lastFrame;
    }
    const bytes = cut === 0 ? length : view.l3End - view.l3Offset;
    if (!peer.active) {
      rule.dropped += 1;
      rule.droppedSuspended += 1;
      counters.add(C.drop_suspended, 1);
      return 0;
    }
    if (rule.sent + bytes > rule.granted) {
      rule.dropped += 1;
      counters.add(C.drop_no_credit, 1);
      return 0;
    }
    rule.sent += bytes;
    rule.frames += 1;
    rule.bytes += bytes;
    counters.add(C.forwarder_up_frames, 1);
    counters.add(C.forwarder_up_bytes, bytes);
    if (!peer.touched) {
      peer.touched = true;
      this.touched.push(peer);
    }
    peer.appendData(rule.upTunnel, flags, slots, offset + cut, bytes, vnet, seconds, nanoseconds, cut);
    return bytes;
  }

  /** The receive batch is over. */
  flush(): void {
    const { touched } = this;
    for (let i = 0; i < touched.length; i++) {
      const peer = touched[i] as Peer;
      peer.touched = false;
      peer.flush();
    }
    touched.length = 0;
  }
}
