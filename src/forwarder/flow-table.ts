/**
 * The flows of the virtual IFs on one interface: who gets the answers. Pure data, with an injected clock.
 *
 *     packet that leaves a vif --sent()-------> its flow is opened, or lives longer      (before the packet is out)
 *     packet that arrives      --received()---> the way back of the vif whose flow it is, or null: the rules decide
 *                              --sweep()------> what was quiet for too long goes
 *
 * A TCP flow, with the times that it may be quiet (limits.ts), which are those of conntrack:
 *
 *     sent --> new --received--> answered --FIN of either--> closing --FIN of the other--> closed
 *               |                    |                          |                            ^
 *               +--------------------+--------- RST of either --+----------> reset       SYN | sent: new again
 *                                                                                received: no longer this flow
 *
 * Packets that belong to no flow (multicast, RST, ICMP errors, answers to an echo) open none. One object per flow, in a
 * table of chains by hash that doubles as it fills; none per packet.
 */
import {
  FLOW_CLOSED_MS,
  FLOW_ECHO_MS,
  FLOW_OTHER_MS,
  FLOW_SWEEP_STEPS,
  FLOW_TCP_MS,
  FLOW_TCP_NEW_MS,
  FLOW_TCP_RESET_MS,
  FLOW_UDP_ANSWERED_MS,
  FLOW_UDP_MS,
  MAX_FLOWS_PER_INTERFACE,
} from '../base/limits.js';
import type { FrameView } from '../packet/headers.js';
import { formatIpAddress, IPV4_ADDRESS_BYTES } from '../packet/ip-address.js';
import {
  IPPROTO_ICMP,
  IPPROTO_ICMPV6,
  IPPROTO_TCP,
  IPPROTO_UDP,
  IPPROTO_UDPLITE,
  parseProtocolAddress,
} from '../packet/protocol-address.js';
import { type Rule, SIDE } from './distribution-table.js';
import { FLOW, FlowKey } from './flow-key.js';

const ANSWERED = 1;
const LOCAL_FIN = 2;
const REMOTE_FIN = 4;
const BOTH_FIN = LOCAL_FIN | REMOTE_FIN;
const RESET = 8;

const FIN = 0x01;
const SYN = 0x02;
const RST = 0x04;
const ACK = 0x10;
const TCP_FLAGS_OFFSET = 13;

const FIRST_BUCKETS = 64;

/** What `sent` comes to. */
export const SENT = { OK: 0, REFUSED: 1 } as const;

export interface Flow {
  /** The way back of the vif that it belongs to. */
  rule: Rule;
  readonly protocol: number;
  readonly localPort: number;
  readonly remotePort: number;
  /** Local address, then the remote one. */
  readonly addresses: Buffer;
  readonly hash: number;
  state: number;
  expires: number;
  next: Flow | null;
}

/** Told of each flow that came or went. */
export type FlowListener = (flow: Flow, opened: boolean) => void;

/** 224.0.0.0/4, 255.255.255.255, ff00::/8. */
function isGroup(frame: Buffer, at: number, length: number): boolean {
  const first = frame[at]!;
  return length === IPV4_ADDRESS_BYTES ? first >= 224 : first === 0xff;
}

const emptyBuckets = (length: number): (Flow | null)[] => Array.from({ length }, () => null);

export class FlowTable {
  private readonly now: () => number;
  private readonly changed: FlowListener;
  private readonly max: number;
  private readonly key = new FlowKey();
  /** So that nobody can choose ports and addresses that share a chain. */
  private readonly seed = (Math.random() * 0x1_0000_0000) | 0;
  private buckets: (Flow | null)[] = emptyBuckets(FIRST_BUCKETS);
  private count = 0;
  private sweeping = 0;

  constructor(now: () => number, changed: FlowListener, max = MAX_FLOWS_PER_INTERFACE) {
    this.now = now;
    this.changed = changed;
    this.max = max;
  }

  get size(): number {
    return this.count;
  }

  /** A frame is about to leave through the vif whose way back this rule is. @returns one of SENT */
  sent(view: FrameView, frame: Buffer, rule: Rule): number {
    const key = this.key;
    if (key.read(view, frame, SIDE.SENT) !== FLOW.OWN || isGroup(frame, key.remote, key.addressLength)) return SENT.OK;
    const flags = tcpFlags(view, frame);
    const hash = this.hash(frame);
    const now = this.now();
    let flow = this.find(frame, hash, now);
    if (flow === null) {
      if ((flags & RST) !== 0) return SENT.OK;
      if (this.count >= this.max) return SENT.REFUSED;
      flow = this.open(frame, hash, rule);
    } else {
      const over = (flow.state & RESET) !== 0 || (flow.state & BOTH_FIN) === BOTH_FIN;
      if (flow.rule !== rule) {
        if (!over && flow.rule.peer.active) return SENT.REFUSED;
        flow.rule = rule;
      }
      if (over && (flags & SYN) !== 0) flow.state = 0;
    }
    if ((flags & FIN) !== 0) flow.state |= LOCAL_FIN;
    if ((flags & RST) !== 0) flow.state |= RESET;
    flow.expires = now + patience(flow);
    return SENT.OK;
  }

  /** A frame for one of our addresses arrived. @returns the way back of the vif whose flow, or whose flow's error, it is */
  received(view: FrameView, frame: Buffer): Rule | null {
    if (this.count === 0) return null;
    const kind = this.key.read(view, frame, SIDE.RECEIVED);
    if (kind === FLOW.NONE) return null;
    const now = this.now();
    const flow = this.find(frame, this.hash(frame), now);
    if (flow === null || kind === FLOW.ERROR) return flow === null ? null : flow.rule;
    const flags = tcpFlags(view, frame);
    if ((flags & (SYN | ACK)) === SYN && ((flow.state & RESET) !== 0 || (flow.state & BOTH_FIN) === BOTH_FIN)) {
      return null;
    }
    flow.state |= ANSWERED;
    if ((flags & FIN) !== 0) flow.state |= REMOTE_FIN;
    if ((flags & RST) !== 0) flow.state |= RESET;
    flow.expires = now + patience(flow);
    return flow.rule;
  }

  /** Call FLOW_SWEEP_STEPS times for a look at every flow. */
  sweep(): void {
    const share = Math.ceil(this.buckets.length / FLOW_SWEEP_STEPS);
    const now = this.now();
    for (let i = 0; i < share; i++) {
      this.sweeping = (this.sweeping + 1) & (this.buckets.length - 1);
      this.filter(this.sweeping, (flow) => flow.expires > now);
    }
  }

  /** The vif with this way back is gone. */
  removeOf(rule: Rule): void {
    for (let i = 0; i < this.buckets.length; i++) this.filter(i, (flow) => flow.rule !== rule);
  }

  /** As FLOW_COLUMNS says. */
  rows(): string[][] {
    const now = this.now();
    return Array.from(this, (flow) => flowRow(flow, now));
  }

  *[Symbol.iterator](): Generator<Flow> {
    for (const first of this.buckets) for (let flow = first; flow !== null; flow = flow.next) yield flow;
  }

  private filter(index: number, stays: (flow: Flow) => boolean): void {
    let flow = this.buckets[index] ?? null;
    let before: Flow | null = null;
    while (flow !== null) {
      const next: Flow | null = flow.next;
      if (stays(flow)) before = flow;
      else {
        if (before === null) this.buckets[index] = next;
        else before.next = next;
        this.count -= 1;
        this.changed(flow, false);
      }
      flow = next;
    }
  }

  private find(frame: Buffer, hash: number, now: number): Flow | null {
    const { protocol, localPort, remotePort, local, remote, addressLength } = this.key;
    for (let flow = this.buckets[hash & (this.buckets.length - 1)] ?? null; flow !== null; flow = flow.next) {
      if (flow.hash !== hash || flow.localPort !== localPort || flow.remotePort !== remotePort) continue;
      if (flow.protocol !== protocol || flow.addresses.length !== 2 * addressLength) continue;
      let same = true;
      for (let i = 0; same && i < addressLength; i++) {
        same = flow.addresses[i] === frame[local + i] && flow.addresses[addressLength + i] === frame[remote + i];
      }
      if (!same) continue;
      if (flow.expires > now) return flow;
      this.filter(hash & (this.buckets.length - 1), (other) => other !== flow);
      return null;
    }
    return null;
  }

  private hash(frame: Buffer): number {
    const { protocol, localPort, remotePort, local, remote, addressLength } = this.key;
    let hash = this.seed ^ protocol;
    hash = Math.imul(hash ^ ((localPort << 16) | remotePort), 0x85ebca6b);
    for (let i = 0; i < addressLength; i++) {
      hash = Math.imul(hash ^ frame[remote + i]! ^ (frame[local + i]! << 8), 0x01000193);
      hash ^= hash >>> 15;
    }
    return hash ^ (hash >>> 13);
  }

  private open(frame: Buffer, hash: number, rule: Rule): Flow {
    if (this.count >= this.buckets.length) this.grow();
    const { protocol, localPort, remotePort, local, remote, addressLength } = this.key;
    const addresses = Buffer.allocUnsafe(2 * addressLength);
    frame.copy(addresses, 0, local, local + addressLength);
    frame.copy(addresses, addressLength, remote, remote + addressLength);
    const index = hash & (this.buckets.length - 1);
    const next = this.buckets[index] ?? null;
    const flow: Flow = { rule, protocol, localPort, remotePort, addresses, hash, state: 0, expires: 0, next };
    this.buckets[index] = flow;
    this.count += 1;
    this.changed(flow, true);
    return flow;
  }

  private grow(): void {
    const flows = [...this];
    this.buckets = emptyBuckets(2 * this.buckets.length);
    for (const flow of flows) {
      const index = flow.hash & (this.buckets.length - 1);
      flow.next = this.buckets[index] ?? null;
      this.buckets[index] = flow;
    }
  }
}

/** 0: no TCP header is there. */
function tcpFlags(view: FrameView, frame: Buffer): number {
  const at = view.l4Offset + TCP_FLAGS_OFFSET;
  return view.protocol === IPPROTO_TCP && view.l4Offset > 0 && at < view.l3End ? frame[at]! : 0;
}

/** How long the flow may be quiet, in ms. */
function patience({ protocol, state }: Flow): number {
  switch (protocol) {
    case IPPROTO_TCP:
      if ((state & RESET) !== 0) return FLOW_TCP_RESET_MS;
      if ((state & BOTH_FIN) !== 0) return FLOW_CLOSED_MS;
      return (state & ANSWERED) !== 0 ? FLOW_TCP_MS : FLOW_TCP_NEW_MS;
    case IPPROTO_UDP:
    case IPPROTO_UDPLITE:
      return (state & ANSWERED) !== 0 ? FLOW_UDP_ANSWERED_MS : FLOW_UDP_MS;
    case IPPROTO_ICMP:
    case IPPROTO_ICMPV6:
      return FLOW_ECHO_MS;
    default:
      return FLOW_OTHER_MS;
  }
}

function stateText({ protocol, state }: Flow): string {
  if ((state & RESET) !== 0) return 'reset';
  if ((state & BOTH_FIN) === BOTH_FIN) return 'closed';
  if ((state & BOTH_FIN) !== 0) return 'closing';
  if ((state & ANSWERED) !== 0) return protocol === IPPROTO_TCP ? 'established' : 'answered';
  return 'new';
}

export const FLOW_COLUMNS = ['interface', 'protocol', 'local', 'remote', 'control', 'vif', 'state', 'seconds_left'];

function flowRow(flow: Flow, now: number): string[] {
  const bytes = flow.addresses.length / 2;
  const end = (at: number, port: number): string => {
    const address = formatIpAddress(flow.addresses, at, bytes);
    if (port === 0) return address;
    return bytes === IPV4_ADDRESS_BYTES ? `${address}:${port}` : `[${address}]:${port}`;
  };
  return [
    flow.rule.interface,
    parseProtocolAddress(`ip:${flow.protocol}`).text,
    end(0, flow.localPort),
    end(bytes, flow.remotePort),
    flow.rule.peer.identity,
    flow.rule.symbol,
    stateText(flow),
    String(Math.max(0, Math.ceil((flow.expires - now) / 1000))),
  ];
}
