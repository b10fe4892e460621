/** A flow table with a clock and rules of a test's own, and two virtual IFs of two control devices. */
import { FLOW_SWEEP_STEPS, FLOW_TCP_MS } from '../../src/base/limits.js';
import { InterfaceRules, type Rule, type VifEnd } from '../../src/forwarder/distribution-table.js';
import { FlowTable } from '../../src/forwarder/flow-table.js';
import { FrameView } from '../../src/packet/headers.js';
import { makePeer, makeRule } from './fake-peer.js';

const vif = (id: number): VifEnd => ({ id, kind: 'tap', stamp: 0, wayBack: null });

export class FlowBench {
  now = 1000;
  /** `+` or `-` with protocol and ports. */
  readonly changes: string[] = [];
  readonly table: FlowTable;
  readonly one: Rule = makeRule(makePeer('ctl1').peer, '*', { mode: 'flow', vif: vif(1), symbol: 'v1' });
  readonly two: Rule = makeRule(makePeer('ctl2').peer, '*', { mode: 'flow', vif: vif(2), symbol: 'v2' });
  readonly rules = new InterfaceRules();
  private readonly view = new FrameView();

  constructor(max?: number) {
    this.table = new FlowTable(
      () => this.now,
      (flows, flow, opened) => {
        const text = `${flows.protocol(flow)} ${flows.localPort(flow)} ${flows.remotePort(flow)}`;
        this.changes.push(`${opened ? '+' : '-'}${text}`);
      },
      this.rules,
      max,
    );
  }

  /** A socket on the vif with this way back is there, perhaps again. */
  socket(text: string, wayBack = this.one): Rule {
    const rule = makeRule(wayBack.peer, text, { mode: 'socket', vif: wayBack.vif });
    this.rules.add(rule);
    this.table.join(rule);
    return rule;
  }

  close(rule: Rule, othersServe = false): void {
    this.rules.remove(rule);
    this.table.leave(rule, othersServe);
  }

  /** Packets as they are, so that offsets begin at 0; a test of the whole has junk before them. */
  send(packet: Buffer, rule = this.one): number {
    this.view.parse(packet, 0, packet.length, 'raw');
    return this.table.sent(this.view, packet, rule);
  }

  flow(packet: Buffer): number {
    this.view.parse(packet, 0, packet.length, 'raw');
    return this.table.received(this.view, packet);
  }

  receive(packet: Buffer): Rule | null {
    const flow = this.flow(packet);
    return flow < 0 ? null : this.table.ruleOf(flow);
  }

  open(packet: Buffer, through: Rule, wayBack = this.one): number {
    this.view.parse(packet, 0, packet.length, 'raw');
    return this.table.open(this.view, packet, wayBack, through);
  }

  /** Rows of the table, by their words from `control` on. */
  get rows(): string[] {
    return [...this.table.rows()].map((row) => row.slice(4).join(' '));
  }

  /** Of the first flow. */
  get state(): string {
    return this.rows[0]?.split(' ')[3] ?? 'none';
  }

  /** Whether the first flow may be quiet for this long. */
  livesFor(ms: number): boolean {
    return this.rows[0]?.split(' ')[4] === String(ms / 1000);
  }

  /** A look at every flow. */
  sweep(): void {
    for (let i = 0; i < FLOW_SWEEP_STEPS; i += 1) this.table.sweep();
  }

  /** So late that no flow is left. */
  expire(): void {
    this.now += FLOW_TCP_MS;
    this.sweep();
  }

  takeChanges(): string[] {
    return this.changes.splice(0);
  }
}
