/**
 * The way of a received packet at the forwarder (Fig. 11, S1101 to S1106; Fig. 29, S601, S602, S605 to S609). The way up
 * of distribution section 350 and tunnel transfer section 66, with destination determination section 71.
 *
 *     PacketReceiver --packet()--> FrameView --ports of fragments--> Delivery: flow, socket rule, copies --> peers' batches
 *                    --batchEnd()--> every peer that got something flushes
 *
 * Owns the interface's receive socket, its coarse filter and, through InterfaceNeeds, what its rules need of the interface.
 */
import { C, type Counters } from '../base/counters.js';
import { errnoOf } from '../base/errors.js';
import { COARSE_FILTER_DELAY_MS, MAX_FRAME_BYTES } from '../base/limits.js';
import { coarseFilter } from '../packet/bpf.js';
import { FrameView, type LinkType } from '../packet/headers.js';
import { parseProtocolAddress, type ProtocolAddress } from '../packet/protocol-address.js';
import type { PacketSink } from '../sys/packet-socket.js';
import { Delivery } from './delivery.js';
import type { InterfaceRules, Rule } from './distribution-table.js';
import { identifyEcho } from './flow-key.js';
import type { FlowTable } from './flow-table.js';
import { FragmentTable } from './fragments.js';
import { InterfaceNeeds, type Memberships } from './interface-needs.js';
import type { Resets } from './resets.js';
import type { OwnAddresses } from './source-check.js';

const ICMP = parseProtocolAddress('icmp');
const LATER_FRAGMENT = 2;
const FIRST_FRAGMENT = 1;

/** Where frames come from; PacketReceiver is the one, a test's is told which. */
export interface FrameInlet extends Memberships {
  /** Starts to deliver. Set a filter first. */
  start(): void;
  /** Classic BPF, replaces the one before at once. */
  setFilter(program: Buffer): void;
  /** Frames lost because it was full, since the last call. */
  takeDrops(): number;
  /** Leaves every membership too. */
  close(): void;
}

export interface InterfaceReceiverOptions {
  /** Makes the inlet, which is owned from there on. */
  readonly open: (sink: PacketSink) => FrameInlet;
  readonly linkType: LinkType;
  readonly rules: InterfaceRules;
  readonly flows: FlowTable;
  /** Answers what comes for flows that were given up. */
  readonly resets: Resets;
  /** The addresses of the interface; `setOwn` changes them. */
  readonly own: OwnAddresses;
  readonly counters: Counters;
  readonly onFailed: (errno: number) => void;
}

export class InterfaceReceiver implements PacketSink {
  private readonly rules: InterfaceRules;
  private readonly counters: Counters;
  private readonly socket: FrameInlet;
  private readonly linkType: LinkType;
  private readonly view = new FrameView();
  private readonly fragments = new FragmentTable();
  private readonly delivery: Delivery;
  private readonly flows: FlowTable;
  private readonly needs: InterfaceNeeds;
  private filterTimer: NodeJS.Timeout | null = null;
  private filterDirty = false;
  private passesAll = false;
  private readonly onFailed: (errno: number) => void;

  /** What `open` or the inlet's setting up throws is thrown. */
  constructor(options: InterfaceReceiverOptions) {
    const { open, linkType, rules, flows, resets, own, counters, onFailed } = options;
    this.rules = rules;
    this.counters = counters;
    this.linkType = linkType;
    this.onFailed = onFailed;
    this.flows = flows;
    this.delivery = new Delivery(rules, flows, resets, own, counters);
    this.socket = open(this);
    this.needs = new InterfaceNeeds(this.socket, linkType);
    try {
      for (const rule of rules) this.needs.add(rule);
      this.buildFilter();
      this.socket.start();
    } catch (error) {
      this.socket.close();
      throw error;
    }
  }

  /** A rule came: when this returns, its packets are delivered. If it throws, the rule has to be removed again. */
  ruleAdded(rule: Rule): void {
    this.needs.add(rule);
    this.widen();
  }

  ruleRemoved(rule: Rule): void {
    this.needs.drop(rule);
    this.scheduleFilter();
  }

  /** The interface has other addresses now. */
  setOwn(own: OwnAddresses): void {
    this.delivery.own = own;
    if (this.flows.told > 0) this.widen();
  }

  /** The first flow that no rule covers is about to be used, or the last one is over. */
  flowsChanged(opened: boolean): void {
    try {
      if (opened) this.widen();
      else this.scheduleFilter();
    } catch (error) {
      this.onFailed(errnoOf(error));
    }
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
      // The kernel's: none of its packets is to come here.
      if (rule.mode === 'vip') continue;
      addresses.set(rule.protocol.text, rule.protocol);
      // Errors about what its flows sent.
      if (rule.mode === 'socket') addresses.set(ICMP.text, ICMP);
      if (rule.scope !== 'out') received = true;
      if (rule.scope === 'out' || rule.scope === 'both') sent = true;
    }
    const local = received && sent ? 'both' : sent ? 'source' : 'destination';
    // The answers of flows come to ports that no rule names, and a flow must not wait for a filter: so while there is
    // one, all that is for the interface's own addresses comes in. It costs a look at the host's own packets. Flows that came
    // through a rule come in by that.
    const own = this.flows.told > 0 ? this.delivery.own.ip : [];
    const program = coarseFilter([...addresses.values()], { local, linkType: this.linkType, own });
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
    let complete = true;
    if (view.fragment === FIRST_FRAGMENT) {
      identifyEcho(view, slots);
      this.fragments.remember(view, slots, seconds);
    } else if (view.fragment === LATER_FRAGMENT) complete = this.fragments.recall(view, slots, seconds);
    const count = this.delivery.frame(view, slots, offset, length, vnet, pkttype, seconds, nanoseconds);
    if (count === 0) counters.add(complete ? C.drop_no_rule : C.drop_fragment_unknown, 1);
  }

  truncated(): void {
    this.counters.add(C.drop_truncated, 1);
  }

  batchEnd(): void {
    this.delivery.flush();
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
