/**
 * The flows of the virtual IFs on one interface: who gets what belongs to them, also when other control devices serve the
 * same port. Pure data, with an injected clock.
 *
 *     packet that leaves a vif --sent()-------> its flow is opened, or lives longer      (before the packet is out)
 *     packet that arrives      --received()---> its flow, or none: the rules decide, and a datagram's `open` what they said
 *                              --sweep()------> what was quiet for too long goes
 *
 *     socket rule deleted      --leave()--+---> TCP goes on where it is, UDP is homeless: whoever gets the next datagram
 *     there again              --join()---+     takes it by rehome()
 *     control device lost      --lose()-------> TCP is reset and lost, UDP homeless
 *
 * flow-state.ts has the states and their times, flow-store.ts what there is to know of a flow.
 *
 * The listener is told of flows that no socket rule keeps the kernel quiet for: those of clients, and live ones whose rule is
 * deleted. So a connection to a published port costs no call of the kernel. Packets that belong to no flow (multicast, RST,
 * ICMP errors, answers to an echo) open none.
 */
import { FLOW_LEFT_MS, FLOW_SWEEP_STEPS, MAX_FLOWS_PER_INTERFACE } from '../base/limits.js';
import type { FrameView } from '../packet/headers.js';
import { IPV4_ADDRESS_BYTES } from '../packet/ip-address.js';
import { IPPROTO_TCP } from '../packet/protocol-address.js';
import { TCP_FLAG } from '../packet/tcp-segment.js';
import { type Rule, SIDE, type Side, type VifEnd } from './distribution-table.js';
import { FLOW, FlowKey } from './flow-key.js';
import { NONE } from './flow-rows.js';
import { isDatagram, isEnded, isOpening, isOver, STATE, tcpAck, tcpFlags } from './flow-state.js';
import { type FlowListener, FlowStore } from './flow-store.js';

/** What `sent` comes to. */
export const SENT = { OK: 0, REFUSED: 1 } as const;

/** Finds what a flow comes through. */
export interface Throughs {
  /** The socket rule of this virtual IF that covers the frame's local end; null: none. @param side which end is ours */
  throughOf(view: FrameView, frame: Buffer, side: Side, vif: VifEnd): Rule | null;
}

/** What stays of a flow that another virtual IF takes over. */
const TAKEN_OVER =
  STATE.SENT | STATE.ANSWERED | STATE.LOCAL_FIN | STATE.REMOTE_FIN | STATE.RESET | STATE.HAS_ACK | STATE.TOLD;

/** 224.0.0.0/4, 255.255.255.255, ff00::/8. */
function isGroup(frame: Buffer, at: number, length: number): boolean {
  const first = frame[at]!;
  return length === IPV4_ADDRESS_BYTES ? first >= 224 : first === 0xff;
}

export class FlowTable extends FlowStore {
  /** Whether the last frame given to `received` was an ICMP error. */
  isError = false;
  private readonly throughs: Throughs;
  private readonly max: number;
  private readonly key = new FlowKey();
  private sweeping = 0;

  constructor(now: () => number, changed: FlowListener, throughs: Throughs, max = MAX_FLOWS_PER_INTERFACE) {
    super(now, changed);
    this.throughs = throughs;
    this.max = max;
  }

  /** A frame is about to leave through the vif whose way back this rule is. @returns one of SENT */
  sent(view: FrameView, frame: Buffer, wayBack: Rule): number {
    const { key, flows } = this;
    if (key.read(view, frame, SIDE.SENT) !== FLOW.OWN || isGroup(frame, key.remote, key.addressLength)) return SENT.OK;
    const flags = tcpFlags(view, frame);
    const now = this.clock();
    let flow = this.find(key, now);
    if (flow === NONE) {
      if ((flags & TCP_FLAG.RST) !== 0) return SENT.OK;
      const through = this.coverOf(view, frame, wayBack);
      // What its socket rule brings needs no flow as long as its group stays the same: a full table stops no service.
      if (flows.size >= this.max) return through === null ? SENT.REFUSED : SENT.OK;
      flow = this.begin(key, wayBack, through);
    } else {
      const owner = this.ruleOf(flow);
      const before = flows.state(flow);
      const over = isOver(before);
      const again = over && (flags & TCP_FLAG.SYN) !== 0;
      // Last words of who no longer has the flow; they are not to bind the remote end to it again.
      if (!again && (before & STATE.LOST) !== 0) return SENT.OK;
      if (owner === wayBack && (before & STATE.HOMELESS) !== 0) return SENT.OK;
      if (owner !== wayBack && !over && (before & STATE.HOMELESS) === 0 && owner.peer.active) return SENT.REFUSED;
      if (owner !== wayBack || again) {
        const stays = again ? STATE.TOLD : TAKEN_OVER;
        this.assign(flow, wayBack, this.coverOf(view, frame, wayBack), before & stays);
      }
    }
    let state = flows.state(flow) | STATE.SENT;
    if ((flags & TCP_FLAG.FIN) !== 0) state |= STATE.LOCAL_FIN;
    if ((flags & TCP_FLAG.RST) !== 0) state |= STATE.RESET;
    this.renew(flow, state, now);
    return SENT.OK;
  }

  /**
   * A frame for one of our addresses arrived.
   * @returns the flow that it, or the packet that an ICMP error speaks of, belongs to; -1: none
   */
  received(view: FrameView, frame: Buffer): number {
    this.isError = false;
    const { key, flows } = this;
    if (flows.size === 0) return NONE;
    const kind = key.read(view, frame, SIDE.RECEIVED);
    if (kind === FLOW.NONE) return NONE;
    this.isError = kind === FLOW.ERROR;
    const now = this.clock();
    const flow = this.find(key, now);
    if (flow === NONE || this.isError) return flow;
    let state = flows.state(flow);
    if ((state & STATE.HOMELESS) !== 0) return flow;
    const flags = tcpFlags(view, frame);
    if (isOpening(flags)) {
      if (isOver(state)) return NONE;
      // Sent again, or by somebody else in its name: no handshake is done by that.
    } else if ((state & STATE.SENT) !== 0) state |= STATE.ANSWERED;
    if ((flags & TCP_FLAG.FIN) !== 0) state |= STATE.REMOTE_FIN;
    if ((flags & TCP_FLAG.RST) !== 0) state |= STATE.RESET;
    if ((flags & TCP_FLAG.ACK) !== 0) {
      state |= STATE.HAS_ACK;
      flows.setAck(flow, tcpAck(view, frame));
    }
    this.renew(flow, state, now);
    return flow;
  }

  /**
   * A datagram that `received` knows no flow of is for this vif: what follows it is too.
   * @returns its flow; -1: the table is full, or the protocol has a handshake, which opens the flow when it is answered
   */
  open(view: FrameView, frame: Buffer, wayBack: Rule, through: Rule): number {
    const { key, flows } = this;
    if (key.read(view, frame, SIDE.RECEIVED) !== FLOW.OWN || !isDatagram(key.protocol)) return NONE;
    const now = this.clock();
    const found = this.find(key, now);
    if (found !== NONE || flows.size >= this.max) return found;
    const flow = this.begin(key, wayBack, through);
    this.renew(flow, flows.state(flow), now);
    return flow;
  }

  /** Another socket gets what a homeless flow brings. */
  rehome(flow: number, wayBack: Rule, through: Rule): void {
    const { flows } = this;
    this.assign(flow, wayBack, through, flows.state(flow) & STATE.TOLD);
    this.renew(flow, flows.state(flow), this.clock());
  }

  /** The socket rule is deleted. @param othersServe its port: what stays may then be quiet for FLOW_LEFT_MS at most */
  leave(through: Rule, othersServe: boolean): void {
    const { flows, rules } = this;
    let flow = rules.first(through);
    if (flow === NONE) return;
    rules.mark(through);
    const latest = this.clock() + FLOW_LEFT_MS;
    for (; flow !== NONE; flow = rules.after(flow)) {
      if (isDatagram(this.protocol(flow))) {
        this.makeHomeless(flow);
        continue;
      }
      const state = (flows.state(flow) & ~STATE.BRIEF) | STATE.LEFT | (othersServe ? STATE.BRIEF : 0);
      flows.setState(flow, state);
      if (othersServe && ((flows.expires(flow) - latest) | 0) > 0) flows.setExpires(flow, latest);
      // What is over is not told of: a server may have very many of these. What is lost is, and stays so.
      this.tell(flow, !isOver(state) || (state & STATE.LOST) !== 0);
    }
  }

  /** A rule of the same vif and protocol address is there, again or still: its flows are as they were before `leave`. */
  join(through: Rule): void {
    const { flows, rules } = this;
    const now = this.clock();
    for (const rule of rules.takeLeft(through)) {
      let after = NONE;
      for (let flow = rules.first(rule); flow !== NONE; flow = after) {
        after = rules.after(flow);
        if (rule !== through) {
          rules.unlink(flow);
          rules.link(flow, through);
        }
        this.tell(flow, false);
        const state = flows.state(flow) & ~(STATE.LEFT | STATE.BRIEF | STATE.HOMELESS);
        if (isOver(state)) flows.setState(flow, state);
        else this.renew(flow, state, now);
      }
    }
  }

  /**
   * The control device of this vif is lost, and so is what came through the rules that `given` says (null: what it began
   * itself): TCP that lives is reset, datagrams are homeless. Of other protocols there is no flow any more: who gets their
   * next packet answers that it knows nothing of it.
   * @param given asked once for each rule @param reset called for each that needs an RST; the table is not to be changed by it
   */
  lose(wayBack: Rule, given: (through: Rule | null) => boolean, reset: (flow: number) => void): void {
    const { flows, rules } = this;
    const now = this.clock();
    const known = new Map<Rule | null, boolean>();
    for (let flow = 0; flow < flows.end; flow++) {
      if (!flows.isUsed(flow) || this.ruleOf(flow) !== wayBack) continue;
      const through = rules.through(flow);
      let isGiven = known.get(through);
      if (isGiven === undefined) known.set(through, (isGiven = given(through)));
      if (!isGiven) continue;
      const state = flows.state(flow);
      if (isDatagram(this.protocol(flow))) this.makeHomeless(flow);
      else if (this.protocol(flow) !== IPPROTO_TCP) this.remove(flow);
      else if (!isEnded(state)) {
        this.renew(flow, state | STATE.LOST, now);
        // Its segments are to be answered, also when its rule is gone.
        this.tell(flow, true);
        reset(flow);
      }
    }
  }

  /** Call FLOW_SWEEP_STEPS times for a look at every flow. */
  sweep(): void {
    const { flows } = this;
    const share = Math.ceil(flows.end / FLOW_SWEEP_STEPS);
    const now = this.clock();
    for (let i = 0; i < share; i++) {
      if (this.sweeping >= flows.end) this.sweeping = 0;
      const flow = this.sweeping++;
      if (flows.isUsed(flow) && ((flows.expires(flow) - now) | 0) <= 0) this.remove(flow);
    }
    if (flows.size > 0) return;
    flows.shrink();
    this.rules.shrink();
  }

  private coverOf(view: FrameView, frame: Buffer, { vif }: Rule): Rule | null {
    return vif === null ? null : this.throughs.throughOf(view, frame, SIDE.SENT, vif);
  }
}
