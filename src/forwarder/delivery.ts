/**
 * Who gets a received frame, and its way into their batches: distribution section 350, destination determination section 71.
 *
 *     frame for us --> FlowTable: a flow of a virtual IF?   its way back gets it
 *                      else the one socket rule             (multicast and broadcast: every one that matches)
 *     any frame    --> every matching copy
 *                      each: not yet at this vif? filter? --credit?--> its peer's batch --batchEnd()--> flush
 *
 * Copies of files do not change what flows and sockets get, nor the other way round.
 */
import { C, type Counters } from '../base/counters.js';
import { BpfContext, runBpf } from '../packet/bpf-run.js';
import type { FrameView } from '../packet/headers.js';
import { IPPROTO_ICMPV6 } from '../packet/protocol-address.js';
import { PKTTYPE } from '../sys/packet-socket.js';
import { DATA_OUTGOING } from '../tunnel/frames.js';
import { type InterfaceRules, type Rule, SEEN, SIDE } from './distribution-table.js';
import type { FlowTable } from './flow-table.js';
import type { Peer } from './peer.js';
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

export class Delivery {
  /** The addresses of the interface. */
  own: OwnAddresses;
  private readonly rules: InterfaceRules;
  private readonly flows: FlowTable;
  private readonly counters: Counters;
  private readonly matched: Rule[] = [];
  private readonly touched: Peer[] = [];
  private readonly context = new BpfContext();
  private packetType = 0;

  constructor(rules: InterfaceRules, flows: FlowTable, own: OwnAddresses, counters: Counters) {
    this.rules = rules;
    this.flows = flows;
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
    if (rules.hasVif && seen === SEEN.RECEIVED && view.ipVersion !== 0) {
      const unicast = pkttype === PKTTYPE.HOST;
      // What is forwarded has our MAC address and is none of the sockets' business.
      forVifs = !unicast || isOwnDestination(this.own, view, slots);
      if (unicast && forVifs) first = this.ofFlow(view, slots) ?? rules.matchSocket(view, slots);
    }
    let count = rules.match(view, slots, outgoing ? SIDE.SENT : SIDE.RECEIVED, seen, matched);
    if (forVifs && pkttype !== PKTTYPE.HOST) count = rules.matchSockets(view, slots, matched, count);
    const flags = outgoing ? DATA_OUTGOING : 0;
    if (first !== null) this.give(first, flags, view, slots, offset, length, vnet, seconds, nanoseconds);
    for (let i = 0; i < count; i++) {
      const rule = matched[i] as Rule;
      if (rule.vif !== null && rule.protocol.kind === 'ip' && (!forVifs || isNeighbourDiscovery(view, slots))) continue;
      this.give(rule, flags, view, slots, offset, length, vnet, seconds, nanoseconds);
    }
    return first === null ? count : count + 1;
  }

  private ofFlow(view: FrameView, slots: Buffer): Rule | null {
    const flow = this.flows.received(view, slots);
    return flow < 0 || this.flows.isHomeless(flow) ? null : this.flows.ruleOf(flow);
  }

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
  ): void {
    const { counters } = this;
    const { peer, vif } = rule;
    let cut = 0;
    if (vif !== null) {
      if (vif.stamp === lastFrame) return;
      if (vif.kind === 'tun') {
        if (view.ipVersion === 0) return;
        cut = view.l3Offset - offset;
      }
      if (rule.filter !== null) {
        this.context.fill(view, slots, offset, cut, this.packetType);
        if (runBpf(rule.filter, slots, offset + cut, length - cut, this.context) === 0) return;
      }
      vif.stamp = lastFrame;
    }
    const bytes = cut === 0 ? length : view.l3End - view.l3Offset;
    if (!peer.active) {
      rule.dropped += 1;
      counters.add(C.drop_suspended, 1);
      return;
    }
    if (rule.sent + bytes > rule.granted) {
      rule.dropped += 1;
      counters.add(C.drop_no_credit, 1);
      return;
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
