/**
 * The flows of one interface, as they are: whose each is, what it came through, its state, and who is told of it. What
 * happens to them, and when, is in flow-table.ts. flow-rows.ts has the storage, flow-rules.ts what leads from a rule to its
 * flows, flow-state.ts the states and their times.
 *
 * A flow is a number, good until the next call that may change the table.
 */
import type { Rule } from './distribution-table.js';
import { addressBytesOfKind, type FlowKey, protocolOfKind } from './flow-key.js';
import { FlowRows, NONE } from './flow-rows.js';
import { FlowRules } from './flow-rules.js';
import { patience, STATE } from './flow-state.js';
import { flowRow } from './flow-text.js';

/** What the listener may ask of a flow. */
export type FlowEnds = Pick<FlowStore, 'ruleOf' | 'protocol' | 'localPort' | 'remotePort' | 'copyLocal' | 'copyRemote'>;

/** Told of each flow that begins or ceases to need the kernel's quiet. */
export type FlowListener = (flows: FlowEnds, flow: number, opened: boolean) => void;

export class FlowStore {
  /** The first flow that the listener knows is there, or the last one went. */
  onTold: (any: boolean) => void = () => undefined;
  private toldCount = 0;
  protected readonly flows = new FlowRows();
  protected readonly rules = new FlowRules();
  private readonly now: () => number;
  private readonly changed: FlowListener;

  constructor(now: () => number, changed: FlowListener) {
    this.now = now;
    this.changed = changed;
  }

  get size(): number {
    return this.flows.size;
  }

  /** Flows that the listener knows: no rule covers what they bring. */
  get told(): number {
    return this.toldCount;
  }

  /** Flows that came through this socket rule. */
  countThrough(rule: Rule): number {
    return this.rules.count(rule);
  }

  /** The way back of the vif that it belongs to. */
  ruleOf(flow: number): Rule {
    return this.rules.of(this.flows.wayBack(flow));
  }

  /** The socket rule that it came through; null: it was begun by the vif. */
  throughOf(flow: number): Rule | null {
    return this.rules.through(flow);
  }

  /** A flow of datagrams whose socket or control device is gone: pick another, and `rehome`. */
  isHomeless(flow: number): boolean {
    return (this.flows.state(flow) & STATE.HOMELESS) !== 0;
  }

  /** TCP that was reset for its lost control device: answer each segment with an RST. */
  isLost(flow: number): boolean {
    return (this.flows.state(flow) & STATE.LOST) !== 0;
  }

  hasAck(flow: number): boolean {
    return (this.flows.state(flow) & STATE.HAS_ACK) !== 0;
  }

  /** The last acknowledgment number of the remote end: what it expects next. 0 without one. */
  lastAck(flow: number): number {
    return this.flows.ack(flow);
  }

  protocol(flow: number): number {
    return protocolOfKind(this.flows.kind(flow));
  }

  localPort(flow: number): number {
    return this.flows.ports(flow) >>> 16;
  }

  remotePort(flow: number): number {
    return this.flows.ports(flow) & 0xffff;
  }

  /** 4 or 16 bytes. */
  copyLocal(flow: number): Buffer {
    return this.flows.copyLocal(flow, addressBytesOfKind(this.flows.kind(flow)));
  }

  copyRemote(flow: number): Buffer {
    return this.flows.copyRemote(flow, addressBytesOfKind(this.flows.kind(flow)));
  }

  /** As FLOW_COLUMNS says. One at a time, so that whoever reads a million of them can pause. */
  *rows(): Generator<string[]> {
    const { flows } = this;
    for (let flow = 0; flow < flows.end; flow++) {
      if (!flows.isUsed(flow)) continue;
      yield flowRow({
        wayBack: this.ruleOf(flow),
        through: this.throughOf(flow),
        protocol: this.protocol(flow),
        local: this.copyLocal(flow),
        localPort: this.localPort(flow),
        remote: this.copyRemote(flow),
        remotePort: this.remotePort(flow),
        state: flows.state(flow),
        msLeft: (flows.expires(flow) - this.clock()) | 0,
      });
    }
  }

  /** Milliseconds in 32 bits, see FlowRows.expires. */
  protected clock(): number {
    return this.now() | 0;
  }

  /** @returns the flow that is not over yet, or NONE */
  protected find(key: FlowKey, now: number): number {
    const flow = this.flows.find(key);
    if (flow === NONE || ((this.flows.expires(flow) - now) | 0) > 0) return flow;
    this.remove(flow);
    return NONE;
  }

  protected begin(key: FlowKey, wayBack: Rule, through: Rule | null): number {
    const { flows, rules } = this;
    const flow = flows.add(key);
    flows.setWayBack(flow, rules.refer(wayBack));
    rules.link(flow, through);
    this.tell(flow, through === null);
    return flow;
  }

  protected assign(flow: number, wayBack: Rule, through: Rule | null, state: number): void {
    const { flows, rules } = this;
    const former = flows.wayBack(flow);
    flows.setWayBack(flow, rules.refer(wayBack));
    rules.release(former);
    rules.unlink(flow);
    rules.link(flow, through);
    flows.setState(flow, state);
    this.tell(flow, through === null);
  }

  protected remove(flow: number): void {
    const { flows, rules } = this;
    this.tell(flow, false);
    rules.unlink(flow);
    rules.release(flows.wayBack(flow));
    flows.remove(flow);
  }

  protected renew(flow: number, state: number, now: number): void {
    this.flows.setState(flow, state);
    this.flows.setExpires(flow, now + patience(this.protocol(flow), state));
  }

  /** What it brings meets what the host does with it until somebody has it again. */
  protected makeHomeless(flow: number): void {
    this.tell(flow, false);
    this.flows.setState(flow, this.flows.state(flow) | STATE.HOMELESS);
  }

  protected tell(flow: number, needsQuiet: boolean): void {
    const state = this.flows.state(flow);
    if (((state & STATE.TOLD) !== 0) === needsQuiet) return;
    this.flows.setState(flow, state ^ STATE.TOLD);
    this.toldCount += needsQuiet ? 1 : -1;
    this.changed(this, flow, needsQuiet);
    if (this.toldCount === (needsQuiet ? 1 : 0)) this.onTold(needsQuiet);
  }
}
