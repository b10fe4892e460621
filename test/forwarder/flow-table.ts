/** src/forwarder/flow-table.ts and flow-key.ts with a clock of the test's own. */
import t from 'tap';
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
} from '../../src/base/limits.js';
import { InterfaceRules, type Rule, type VifEnd } from '../../src/forwarder/distribution-table.js';
import { identifyEcho } from '../../src/forwarder/flow-key.js';
import { FlowTable, SENT } from '../../src/forwarder/flow-table.js';
import { FragmentTable } from '../../src/forwarder/fragments.js';
import { FrameView } from '../../src/packet/headers.js';
import { makePeer, makeRule } from '../support/fake-peer.js';
import { ACK, FIN, RST, SYN } from '../support/hand-tcp.js';
import { fragmentHeader, ipv4, type Ipv4Fields, IPV6_A, IPV6_B, ipv6, tcp, udp } from '../vectors/packet-frames.js';

const OURS = '10.0.0.1';
const THEIRS = '10.0.0.2';
const vif = (id: number): VifEnd => ({ id, kind: 'tap', stamp: 0, wayBack: null });

class Bench {
  now = 1000;
  /** `+` or `-` with protocol and ports. */
  readonly changes: string[] = [];
  readonly table: FlowTable;
  readonly one: Rule = makeRule(makePeer('ctl1').peer, '*', { mode: 'flow', vif: vif(1) });
  readonly two: Rule = makeRule(makePeer('ctl2').peer, '*', { mode: 'flow', vif: vif(2) });
  readonly rules = new InterfaceRules();
  readonly view = new FrameView();

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

  /** A socket rule of the vif with this way back. */
  socket(text: string, wayBack = this.one): Rule {
    const rule = makeRule(wayBack.peer, text, { mode: 'socket', vif: wayBack.vif });
    this.rules.add(rule);
    return rule;
  }

  /** The socket is closed. */
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

  /** Of the first flow. */
  get state(): string {
    return this.table.rows()[0]?.[7] ?? 'none';
  }

  /** Whether the first flow may be quiet for this long. */
  livesFor(ms: number): boolean {
    return this.table.rows()[0]?.[8] === String(ms / 1000);
  }

  takeChanges(): string[] {
    return this.changes.splice(0);
  }
}

const out = (protocol: number, payload: Buffer, more: Partial<Ipv4Fields> = {}): Buffer =>
  ipv4({ protocol, source: OURS, destination: THEIRS, ...more }, payload);
const back = (protocol: number, payload: Buffer, more: Partial<Ipv4Fields> = {}): Buffer =>
  ipv4({ protocol, source: THEIRS, destination: OURS, ...more }, payload);
const none = Buffer.alloc(0);
const ask = (flags: number, port = 50_000): Buffer =>
  out(6, tcp({ sourcePort: port, destinationPort: 80, flags }, none));
const reply = (flags: number, port = 50_000): Buffer =>
  back(6, tcp({ sourcePort: 80, destinationPort: port, flags }, none));
const echo = (type: number, id: number): Buffer => Buffer.from([type, 0, 0, 0, id >> 8, id & 255, 0, 1]);

t.test('an answer finds the vif that asked, and nothing else does', async (t) => {
  const bench = new Bench();
  t.equal(bench.receive(reply(SYN | ACK)), null);
  t.equal(bench.send(ask(SYN)), SENT.OK);
  t.equal(bench.receive(reply(SYN | ACK)), bench.one);
  t.equal(bench.receive(reply(SYN | ACK, 50_001)), null, 'another port');
  t.equal(bench.receive(back(6, tcp({ sourcePort: 80, destinationPort: 50_000 }, none), { source: '10.0.0.3' })), null);
  t.equal(bench.receive(back(17, udp(80, 50_000, none))), null, 'another protocol');
  t.same(bench.changes, ['+6 50000 80']);
});

t.test('IPv6 flows are flows', async (t) => {
  const bench = new Bench();
  bench.send(ipv6(17, udp(5000, 53, none)));
  const answer = Buffer.from(ipv6(17, udp(53, 5000, none)));
  IPV6_B.copy(answer, 8);
  IPV6_A.copy(answer, 24);
  t.equal(bench.receive(answer), bench.one);
  t.match(bench.table.rows(), [['eth0', 'udp', '[2001:db8::1]:5000', '[2001:db8::2]:53', 'ctl1']]);
});

t.test('a TCP flow may be quiet for as long as its state says', async (t) => {
  const bench = new Bench();
  bench.send(ask(SYN));
  t.ok(bench.livesFor(FLOW_TCP_NEW_MS));
  bench.receive(reply(SYN | ACK));
  t.ok(bench.livesFor(FLOW_TCP_MS));
  bench.send(ask(FIN | ACK));
  t.ok(bench.livesFor(FLOW_CLOSED_MS));
  t.equal(bench.state, 'closing');
  bench.receive(reply(FIN | ACK));
  t.equal(bench.state, 'closed');
  t.equal(bench.receive(reply(ACK)), bench.one, 'late segments');
  t.equal(bench.receive(reply(SYN)), null, 'a new connection is for the rules');
  bench.send(ask(SYN));
  t.equal(bench.state, 'new', 'or for the vif that begins it');
  bench.receive(reply(RST | ACK));
  t.ok(bench.livesFor(FLOW_TCP_RESET_MS));
  bench.now += FLOW_TCP_RESET_MS;
  t.equal(bench.receive(reply(ACK)), null);
  t.same(bench.changes, ['+6 50000 80', '-6 50000 80']);
});

t.test('other protocols have their times', async (t) => {
  const cases: [what: string, packet: Buffer, answer: Buffer | null, ms: number][] = [
    ['UDP', out(17, udp(5000, 53, none)), null, FLOW_UDP_MS],
    ['UDP that was answered', out(17, udp(5000, 53, none)), back(17, udp(53, 5000, none)), FLOW_UDP_ANSWERED_MS],
    ['echo', out(1, echo(8, 77)), back(1, echo(0, 77)), FLOW_ECHO_MS],
    ['OSPF', out(89, Buffer.alloc(24)), back(89, Buffer.alloc(24)), FLOW_OTHER_MS],
  ];
  for (const [what, packet, answer, ms] of cases) {
    const bench = new Bench();
    bench.send(packet);
    if (answer !== null) t.equal(bench.receive(answer), bench.one, what);
    t.ok(bench.livesFor(ms), what);
  }
});

t.test('what belongs to no flow opens none', async (t) => {
  const bench = new Bench();
  const packets = [
    ask(RST),
    out(17, udp(5000, 5353, none), { destination: '224.0.0.251' }),
    out(17, udp(5000, 67, none), { destination: '255.255.255.255' }),
    out(1, echo(0, 77)),
    out(1, Buffer.concat([Buffer.from([3, 3, 0, 0, 0, 0, 0, 0]), back(17, udp(9, 9, none))])),
    out(17, Buffer.alloc(16), { fragment: 10, id: 4 }),
  ];
  for (const packet of packets) t.equal(bench.send(packet), SENT.OK);
  t.equal(bench.table.size, 0);
});

t.test('an ICMP error follows the flow that it is about', async (t) => {
  const bench = new Bench();
  bench.send(ask(SYN));
  const error = (inner: Buffer): Buffer =>
    back(1, Buffer.concat([Buffer.from([3, 1, 0, 0, 0, 0, 0, 0]), inner]), { source: '10.0.0.254' });
  t.equal(bench.receive(error(ask(SYN).subarray(0, 28))), bench.one, 'only its first 8 bytes are there');
  t.equal(bench.receive(error(ask(SYN, 50_001))), null);
  for (let length = 0; length < 24; length += 1) t.equal(bench.receive(error(ask(SYN).subarray(0, length))), null);
  t.equal(bench.state, 'new', 'it is no answer');
  bench.send(out(1, echo(8, 77)));
  t.equal(bench.receive(error(out(1, echo(8, 77)))), bench.one);
});

t.test('later fragments of an answer follow their first one', async (t) => {
  const bench = new Bench();
  const fragments = new FragmentTable();
  const view = new FrameView();
  bench.send(out(1, echo(8, 77)));
  const first = back(1, Buffer.concat([echo(0, 77), Buffer.alloc(16)]), { id: 5, fragment: 0x2000 });
  view.parse(first, 0, first.length, 'raw');
  identifyEcho(view, first);
  fragments.remember(view, first, 1);
  t.equal(bench.table.ruleOf(bench.table.received(view, first)), bench.one);
  const later = back(1, Buffer.alloc(24), { id: 5, fragment: 3 });
  view.parse(later, 0, later.length, 'raw');
  t.ok(fragments.recall(view, later, 1));
  t.equal(bench.table.ruleOf(bench.table.received(view, later)), bench.one);
  const whole = ipv6(17, udp(53, 5000, Buffer.alloc(8)), [fragmentHeader(0, true, 9)]);
  view.parse(whole, 0, whole.length, 'raw');
  t.equal(bench.table.received(view, whole), -1);
});

t.test('the flow of another vif is not taken while its control device is there', async (t) => {
  const bench = new Bench();
  bench.send(ask(SYN));
  t.equal(bench.send(ask(SYN), bench.two), SENT.REFUSED);
  t.equal(bench.receive(reply(SYN | ACK)), bench.one);
  bench.one.peer.active = false;
  t.equal(bench.send(ask(SYN), bench.two), SENT.OK);
  t.equal(bench.receive(reply(ACK)), bench.two);
});

t.test('a full table refuses new flows and keeps those it has', async (t) => {
  const bench = new Bench(2);
  t.same(
    [1, 2, 3, 1].map((port) => bench.send(ask(SYN, port))),
    [SENT.OK, SENT.OK, SENT.REFUSED, SENT.OK],
  );
  bench.now += FLOW_TCP_NEW_MS;
  for (let i = 0; i < FLOW_SWEEP_STEPS; i += 1) bench.table.sweep();
  t.equal(bench.table.size, 0);
  t.equal(bench.send(ask(SYN, 3)), SENT.OK);
});

t.test('flows are found again while the table grows, and go with their vif', async (t) => {
  const bench = new Bench();
  const ports = Array.from({ length: 5000 }, (_, index) => index + 1);
  for (const port of ports) bench.send(ask(SYN, port), port % 2 === 0 ? bench.one : bench.two);
  t.ok(ports.every((port) => bench.receive(reply(ACK, port)) === (port % 2 === 0 ? bench.one : bench.two)));
  bench.table.removeOf(bench.one);
  t.equal(bench.table.size, 2500);
  t.ok(ports.every((port) => bench.receive(reply(ACK, port)) === (port % 2 === 0 ? null : bench.two)));
  t.equal(bench.changes.filter((line) => line.startsWith('-')).length, 2500);
});
