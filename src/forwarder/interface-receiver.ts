/**
 * The way of a received packet at the forwarder (Fig. 11, S1101 to S1106; Fig. 29, S601, S602, S605 to S609). The way up
 * of distribution section 350 and tunnel transfer section 66, with destination determination section 71.
 *
 *     PacketReceiver --packet()--> FrameView --match--> every matching rule --credit?--> its peer's batch
 *                    --batchEnd()--> every peer that got something flushes
 *
 * Owns the interface's receive socket, its coarse filter and what the scopes of its rules need of the interface: all-multicast,
 * promiscuous mode, outgoing frames. All of that is taken back with the last rule that needs it.
 */
import { C, type Counters } from '../base/counters.js';
import { errnoOf } from '../base/errors.js';
import { COARSE_FILTER_DELAY_MS, MAX_FRAME_BYTES } from '../base/limits.js';
import { coarseFilter } from '../packet/bpf.js';
import { FrameView, type LinkType } from '../packet/headers.js';
import type { ProtocolAddress } from '../packet/protocol-address.js';
import { MEMBERSHIP, PKTTYPE, type PacketSink } from '../sys/packet-socket.js';
import { DATA_OUTGOING } from '../tunnel/frames.js';
import { type InterfaceRules, type Rule, SEEN, SIDE } from './distribution-table.js';
import { FragmentTable } from './fragments.js';
import type { Peer } from './peer.js';

const LATER_FRAGMENT = 2;
const FIRST_FRAGMENT = 1;

/** Where frames come from; PacketReceiver is the one, a test's is told which. */
export interface FrameInlet {
  /** Starts to deliver. Set a filter first. */
  start(): void;
  /** Classic BPF, replaces the one before at once. */
  setFilter(program: Buffer): void;
  setOutgoing(wanted: boolean): void;
  /** @param kind of MEMBERSHIP @param address MAC address for MULTICAST */
  setMembership(kind: number, joined: boolean, address?: Buffer): void;
  /** Frames lost because it was full, since the last call. */
  takeDrops(): number;
  /** Leaves every membership too. */
  close(): void;
}

/** What a rule asks of its interface. */
function multicastOf(protocol: ProtocolAddress): 'none' | 'all' | Buffer {
  if (protocol.address === null) return 'all';
  const first = protocol.address[0] ?? 0;
  if (protocol.address.length === 4) {
    if (first < 224 || first > 239) return 'none';
    // RFC 1112 section 6.4
    return Buffer.from([
      1,
      0,
      0x5e,
      (protocol.address[1] ?? 0) & 0x7f,
      protocol.address[2] ?? 0,
      protocol.address[3] ?? 0,
    ]);
  }
  // RFC 2464 section 7
  return first === 0xff ? Buffer.concat([Buffer.from([0x33, 0x33]), protocol.address.subarray(12, 16)]) : 'none';
}

/** Counts who needs something; tells when the first comes and the last goes. */
class Need {
  private count = 0;
  private readonly change: (needed: boolean) => void;

  constructor(change: (needed: boolean) => void) {
    this.change = change;
  }

  add(): void {
    if (this.count === 0) this.change(true);
    this.count += 1;
  }

  drop(): void {
    this.count -= 1;
    if (this.count === 0) this.change(false);
  }
}

export class InterfaceReceiver implements PacketSink {
  private readonly rules: InterfaceRules;
  private readonly counters: Counters;
  private readonly socket: FrameInlet;
  private readonly linkType: LinkType;
  private readonly view = new FrameView();
  private readonly fragments = new FragmentTable();
  private readonly matched: Rule[] = [];
  private readonly touched: Peer[] = [];
  private readonly allMulticast: Need;
  private readonly promiscuous: Need;
  private readonly outgoing: Need;
  private readonly groups = new Map<string, Need>();
  private readonly needs = new Map<Rule, Need[]>();
  private filterTimer: NodeJS.Timeout | null = null;
  private passesAll = false;
  private readonly onFailed: (errno: number) => void;

  /** @param open makes the inlet, which is owned from there on; what it or the inlet's setting up throws is thrown */
  constructor(
    open: (sink: PacketSink) => FrameInlet,
    linkType: LinkType,
    rules: InterfaceRules,
    counters: Counters,
    onFailed: (errno: number) => void,
  ) {
    this.rules = rules;
    this.counters = counters;
    this.linkType = linkType;
    this.onFailed = onFailed;
    this.socket = open(this);
    this.allMulticast = new Need((needed) => this.socket.setMembership(MEMBERSHIP.ALLMULTI, needed));
    this.promiscuous = new Need((needed) => this.socket.setMembership(MEMBERSHIP.PROMISC, needed));
    this.outgoing = new Need((needed) => this.socket.setOutgoing(needed));
    try {
      for (const rule of rules) this.require(rule);
      this.buildFilter();
      this.socket.start();
    } catch (error) {
      this.socket.close();
      throw error;
    }
  }

  /** A rule came: when this returns, its packets are delivered. If it throws, the rule has to be removed again. */
  ruleAdded(rule: Rule): void {
    this.require(rule);
    this.widen();
  }

  ruleRemoved(rule: Rule): void {
    for (const need of this.needs.get(rule) ?? []) need.drop();
    this.needs.delete(rule);
    this.scheduleFilter();
  }

  private require(rule: Rule): void {
    const needs: Need[] = [];
    if (rule.scope === 'out' || rule.scope === 'both') needs.push(this.outgoing);
    if (rule.scope === 'promisc') needs.push(this.promiscuous);
    if (rule.scope !== 'out' && this.linkType === 'ethernet') {
      const multicast = multicastOf(rule.protocol);
      if (multicast === 'all') needs.push(this.allMulticast);
      else if (multicast !== 'none') needs.push(this.group(multicast));
    }
    const held: Need[] = [];
    this.needs.set(rule, held);
    for (const need of needs) {
      need.add();
      held.push(need);
    }
  }

  private group(address: Buffer): Need {
    const key = address.toString('hex');
    let need = this.groups.get(key);
    if (need === undefined) {
      need = new Need((needed) => {
        this.socket.setMembership(MEMBERSHIP.MULTICAST, needed, address);
        if (!needed) this.groups.delete(key);
      });
      this.groups.set(key, need);
    }
    return need;
  }

  /** The filter must pass the new rule before the rule counts as active; an exact one follows within the delay. */
  private widen(): void {
    if (this.filterTimer === null) {
      this.buildFilter();
      this.filterTimer = setTimeout(this.onFilterTimer, COARSE_FILTER_DELAY_MS);
      return;
    }
    if (!this.passesAll) {
      this.socket.setFilter(PASS_ALL);
      this.passesAll = true;
    }
    this.filterDirty = true;
  }

  private filterDirty = false;

  private scheduleFilter(): void {
    this.filterDirty = true;
    this.filterTimer ??= setTimeout(this.onFilterTimer, COARSE_FILTER_DELAY_MS);
  }

  private readonly onFilterTimer = (): void => {
    this.filterTimer = null;
    if (!this.filterDirty) return;
    this.filterTimer = setTimeout(this.onFilterTimer, COARSE_FILTER_DELAY_MS);
    try {
      this.buildFilter();
    } catch (error) {
      // The filter that stays lets more through; the next change of the rules tries again.
      this.onFailed(errnoOf(error));
    }
  };

  private buildFilter(): void {
    this.filterDirty = false;
    const addresses = new Map<string, ProtocolAddress>();
    let received = false;
    let sent = false;
    for (const rule of this.rules) {
      addresses.set(rule.protocol.text, rule.protocol);
      if (rule.scope !== 'out') received = true;
      if (rule.scope === 'out' || rule.scope === 'both') sent = true;
    }
    const local = received && sent ? 'both' : sent ? 'source' : 'destination';
    const program = coarseFilter([...addresses.values()], { local, linkType: this.linkType });
    this.passesAll = false;
    this.socket.setFilter(program);
  }

  packet(
    slots: Buffer,
    offset: number,
    length: number,
    vnet: number,
    pkttype: number,
    seconds: number,
    nanoseconds: number,
  ): void {
    const counters = this.counters;
    // A tag that was put back can make a frame longer than the tunnel takes.
    if (length > MAX_FRAME_BYTES) {
      counters.add(C.drop_truncated, 1);
      return;
    }
    counters.add(C.forwarder_rx_frames, 1);
    counters.add(C.forwarder_rx_bytes, length);
    const view = this.view;
    if (!view.parse(slots, offset, length, this.linkType)) {
      counters.add(C.drop_malformed, 1);
      return;
    }
    let seen: number = SEEN.RECEIVED;
    let flags = 0;
    if (pkttype === PKTTYPE.OUTGOING) {
      seen = SEEN.OUTGOING;
      flags = DATA_OUTGOING;
    } else if (pkttype === PKTTYPE.OTHERHOST) seen = SEEN.OTHER_HOST;
    let complete = true;
    if (view.fragment === FIRST_FRAGMENT) this.fragments.remember(view, slots, seconds);
    else if (view.fragment === LATER_FRAGMENT) complete = this.fragments.recall(view, slots, seconds);
    const side = seen === SEEN.OUTGOING ? SIDE.SENT : SIDE.RECEIVED;
    const count = this.rules.match(view, slots, side, seen, this.matched);
    if (count === 0) {
      counters.add(complete ? C.drop_no_rule : C.drop_fragment_unknown, 1);
      return;
    }
    for (let i = 0; i < count; i++) {
      const rule = this.matched[i] as Rule;
      const peer = rule.peer;
      if (!peer.active) {
        rule.dropped += 1;
        counters.add(C.drop_suspended, 1);
        continue;
      }
      if (rule.sent + length > rule.granted) {
        rule.dropped += 1;
        counters.add(C.drop_no_credit, 1);
        continue;
      }
      rule.sent += length;
      rule.frames += 1;
      rule.bytes += length;
      counters.add(C.forwarder_up_frames, 1);
      counters.add(C.forwarder_up_bytes, length);
      if (!peer.touched) {
        peer.touched = true;
        this.touched.push(peer);
      }
      peer.appendData(rule.upTunnel, flags, slots, offset, length, vnet, seconds, nanoseconds);
    }
  }

  truncated(): void {
    this.counters.add(C.drop_truncated, 1);
  }

  batchEnd(): void {
    const touched = this.touched;
    for (let i = 0; i < touched.length; i++) {
      const peer = touched[i] as Peer;
      peer.touched = false;
      peer.flush();
    }
    touched.length = 0;
  }

  failed(errno: number): void {
    this.onFailed(errno);
  }

  /** Reads the kernel's own count of what it dropped at this socket into the counters. */
  collectDrops(): void {
    this.counters.add(C.drop_socket_full, this.socket.takeDrops());
  }

  close(): void {
    if (this.filterTimer !== null) clearTimeout(this.filterTimer);
    this.collectDrops();
    this.socket.close();
  }
}

/** BPF_RET | BPF_K with the largest length. */
const PASS_ALL = Buffer.from([0x06, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f]);
