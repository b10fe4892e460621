/** src/forwarder/flow-table.ts and flow-key.ts with a clock of the test's own. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual } from 'node:util';
import t from 'tap';
import {
  FLOW_CLOSED_MS,
  FLOW_ECHO_MS,
  FLOW_LEFT_MS,
  FLOW_OTHER_MS,
  FLOW_TCP_MS,
  FLOW_TCP_NEW_MS,
  FLOW_TCP_RESET_MS,
  FLOW_UDP_ANSWERED_MS,
  FLOW_UDP_MS,
  MAX_FLOWS_PER_INTERFACE,
} from '../../src/base/limits.js';
import type { Rule } from '../../src/forwarder/distribution-table.js';
import { identifyEcho } from '../../src/forwarder/flow-key.js';
import { SENT } from '../../src/forwarder/flow-table.js';
import { FragmentTable } from '../../src/forwarder/fragments.js';
import { FrameView } from '../../src/packet/headers.js';
import { FlowBench } from '../support/flow-bench.js';
import { FlowLife } from '../support/flow-life.js';
import { ACK, FIN, RST, SYN } from '../support/hand-tcp.js';
import { fragmentHeader, ipv4, type Ipv4Fields, IPV6_A, IPV6_B, ipv6, tcp, udp } from '../vectors/packet-frames.js';

const OURS = '10.0.0.1';
const THEIRS = '10.0.0.2';

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
  const bench = new FlowBench();
  t.equal(bench.receive(reply(SYN | ACK)), null);
  t.equal(bench.send(ask(SYN)), SENT.OK);
  t.equal(bench.receive(reply(SYN | ACK)), bench.one);
  t.equal(bench.receive(reply(SYN | ACK, 50_001)), null, 'another port');
  t.equal(bench.receive(back(6, tcp({ sourcePort: 80, destinationPort: 50_000 }, none), { source: '10.0.0.3' })), null);
  t.equal(bench.receive(back(17, udp(80, 50_000, none))), null, 'another protocol');
  t.same(bench.changes, ['+6 50000 80']);
});

t.test('IPv6 flows are flows', async (t) => {
  const bench = new FlowBench();
  bench.send(ipv6(17, udp(5000, 53, none)));
  const answer = Buffer.from(ipv6(17, udp(53, 5000, none)));
  IPV6_B.copy(answer, 8);
  IPV6_A.copy(answer, 24);
  t.equal(bench.receive(answer), bench.one);
  t.match([...bench.table.rows()], [['eth0', 'udp', '[2001:db8::1]:5000', '[2001:db8::2]:53', 'ctl1']]);
});

t.test('a TCP flow may be quiet for as long as its state says', async (t) => {
  const bench = new FlowBench();
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
    const bench = new FlowBench();
    bench.send(packet);
    if (answer !== null) t.equal(bench.receive(answer), bench.one, what);
    t.ok(bench.livesFor(ms), what);
  }
});

t.test('what belongs to no flow opens none', async (t) => {
  const bench = new FlowBench();
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
  const bench = new FlowBench();
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
  const bench = new FlowBench();
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
  const bench = new FlowBench();
  bench.send(ask(SYN));
  t.equal(bench.send(ask(SYN), bench.two), SENT.REFUSED);
  t.equal(bench.receive(reply(SYN | ACK)), bench.one);
  bench.one.peer.active = false;
  t.equal(bench.send(ask(SYN), bench.two), SENT.OK);
  t.equal(bench.receive(reply(ACK)), bench.two);
});

t.test('a full table refuses new flows and keeps those it has', async (t) => {
  const bench = new FlowBench(2);
  t.same(
    [1, 2, 3, 1].map((port) => bench.send(ask(SYN, port))),
    [SENT.OK, SENT.OK, SENT.REFUSED, SENT.OK],
  );
  bench.now += FLOW_TCP_NEW_MS;
  bench.sweep();
  t.equal(bench.table.size, 0);
  t.equal(bench.send(ask(SYN, 3)), SENT.OK);
});

t.test('flows are found again while the table grows, and go when they are over', async (t) => {
  const bench = new FlowBench();
  const ports = Array.from({ length: 5000 }, (_, index) => index + 1);
  for (const port of ports) bench.send(ask(SYN, port), port % 2 === 0 ? bench.one : bench.two);
  t.ok(ports.every((port) => bench.receive(reply(ACK, port)) === (port % 2 === 0 ? bench.one : bench.two)));
  for (const port of ports) if (port % 2 === 0) bench.receive(reply(RST, port));
  bench.now += FLOW_TCP_RESET_MS;
  bench.sweep();
  t.equal(bench.table.size, 2500);
  t.ok(ports.every((port) => bench.receive(reply(ACK, port)) === (port % 2 === 0 ? null : bench.two)));
  t.equal(bench.changes.filter((line) => line.startsWith('-')).length, 2500);
});

/** What a server on port 80 says to its client, and hears. */
const serve = (flags: number, port = 50_000): Buffer =>
  out(6, tcp({ sourcePort: 80, destinationPort: port, flags }, none));
const call = (flags: number, port = 50_000, acknowledged = 0): Buffer => {
  const segment = tcp({ sourcePort: port, destinationPort: 80, flags }, none);
  segment.writeUInt32BE(acknowledged, 8);
  return back(6, segment);
};
const query = (port = 50_000): Buffer => back(17, udp(port, 53, none));
const answer = (port = 50_000): Buffer => out(17, udp(53, port, none));
const sctp = (sourcePort: number, destinationPort: number): Buffer => {
  const packet = Buffer.alloc(12);
  packet.writeUInt16BE(sourcePort, 0);
  packet.writeUInt16BE(destinationPort, 2);
  return packet;
};

/** A connection to port 80 that is established. */
function connect(bench: FlowBench, port = 50_000, wayBack = bench.one): void {
  bench.send(serve(SYN | ACK, port), wayBack);
  bench.receive(call(ACK, port, 1));
}

t.test('a flow knows what it came through, and the kernel is not told of it', async (t) => {
  const bench = new FlowBench();
  const web = bench.socket('tcp:80');
  bench.socket('tcp:80', bench.two);
  connect(bench);
  connect(bench, 50_001);
  bench.send(ask(SYN));
  t.same(bench.rows.map((row) => row.split(' ')[2]).sort(), ['-', 'tcp:80', 'tcp:80']);
  t.equal(bench.table.countThrough(web), 2);
  t.equal(bench.table.throughOf(bench.flow(call(ACK))), web);
  t.equal(bench.table.throughOf(bench.flow(reply(ACK))), null);
  t.same(bench.takeChanges(), ['+6 50000 80'], 'only of what the vif began');
  bench.expire();
  t.equal(bench.table.countThrough(web), 0);
  t.same(bench.takeChanges(), ['-6 50000 80']);
});

t.test('a flow tells its ends', async (t) => {
  const bench = new FlowBench();
  const { table } = bench;
  bench.send(serve(SYN | ACK, 65_535));
  const four = bench.flow(call(ACK, 65_535));
  t.same([table.protocol(four), table.localPort(four), table.remotePort(four)], [6, 80, 65_535]);
  t.same([table.copyLocal(four), table.copyRemote(four)], [Buffer.from([10, 0, 0, 1]), Buffer.from([10, 0, 0, 2])]);
  bench.send(ipv6(17, udp(5000, 53, none)));
  const six = Buffer.from(ipv6(17, udp(53, 5000, none)));
  IPV6_B.copy(six, 8);
  IPV6_A.copy(six, 24);
  t.same([table.copyLocal(bench.flow(six)), table.copyRemote(bench.flow(six))], [IPV6_A, IPV6_B]);
});

t.test('an IPv4 flow is not the IPv6 flow with the same words', async (t) => {
  const bench = new FlowBench();
  const six = Buffer.from(ipv6(17, udp(5000, 53, none)));
  six.fill(0, 8, 40);
  six.set([10, 0, 0, 1], 8);
  six.set([10, 0, 0, 2], 24);
  bench.send(six);
  t.equal(bench.receive(back(17, udp(53, 5000, none))), null);
  t.equal(bench.send(out(17, udp(5000, 53, none)), bench.two), SENT.OK);
  t.equal(bench.table.size, 2);
});

t.test('a datagram that a socket was given opens its flow, which is new until it was answered', async (t) => {
  const bench = new FlowBench(2);
  const dns = bench.socket('udp:53');
  const flow = bench.open(query(), dns);
  t.equal(bench.table.throughOf(flow), dns);
  t.equal(bench.table.ruleOf(flow), bench.one);
  t.ok(bench.livesFor(FLOW_UDP_MS));
  t.equal(bench.flow(query()), flow);
  t.equal(bench.state, 'new', 'it only speaks');
  t.ok(bench.livesFor(FLOW_UDP_MS));
  bench.send(answer());
  bench.receive(query());
  t.equal(bench.state, 'answered');
  t.ok(bench.livesFor(FLOW_UDP_ANSWERED_MS));
  t.equal(bench.open(query(), dns), flow, 'no second one');
  for (const [what, packet] of [
    ['TCP', call(SYN)],
    ['SCTP', back(132, sctp(50_000, 80))],
    ['an echo', back(1, echo(8, 77))],
    ['an error', back(1, Buffer.concat([Buffer.from([3, 1, 0, 0, 0, 0, 0, 0]), answer(1)]))],
  ] as const) {
    t.equal(bench.open(packet, dns), -1, what);
  }
  t.ok(bench.open(back(136, udp(50_000, 53, none)), dns) >= 0, 'UDP-Lite is as UDP');
  t.equal(bench.open(query(3), dns), -1, 'full');
  t.same(bench.changes, []);
});

t.test('when a socket closes, its connections go on and the kernel is told, its datagrams are homeless', async (t) => {
  const bench = new FlowBench();
  const [web, dns] = [bench.socket('tcp:80'), bench.socket('udp:53')];
  connect(bench);
  bench.open(query(), dns);
  bench.close(web);
  bench.close(dns);
  t.same(bench.takeChanges(), ['+6 80 50000']);
  t.equal(bench.receive(call(ACK)), bench.one);
  t.equal(bench.send(serve(FIN | ACK)), SENT.OK);
  t.notOk(bench.table.isHomeless(bench.flow(call(ACK))));
  t.ok(bench.table.isHomeless(bench.flow(query())));
  t.equal(bench.table.countThrough(web), 1, 'it is still one of them');
});

t.test('what a closed socket leaves may be quiet for a minute where others serve its port', async (t) => {
  for (const [othersServe, ms, state] of [
    [true, FLOW_LEFT_MS, 'leaving'],
    [false, FLOW_TCP_MS, 'established'],
  ] as const) {
    const bench = new FlowBench();
    const web = bench.socket('tcp:80');
    connect(bench);
    bench.close(web, othersServe);
    t.ok(bench.livesFor(ms));
    bench.now += FLOW_LEFT_MS - 1000;
    bench.receive(call(ACK));
    t.ok(bench.livesFor(ms), 'as long again after each packet');
    t.equal(bench.state, state);
    bench.send(serve(FIN | ACK));
    t.equal(bench.state, 'closing');
    t.ok(bench.livesFor(othersServe ? FLOW_LEFT_MS : FLOW_CLOSED_MS));
    bench.receive(call(RST));
    t.ok(bench.livesFor(FLOW_TCP_RESET_MS));
  }
});

t.test('a flow that has less than the minute left keeps what it has', async (t) => {
  const bench = new FlowBench();
  const web = bench.socket('tcp:80');
  connect(bench);
  bench.receive(call(RST));
  bench.close(web, true);
  t.ok(bench.livesFor(FLOW_TCP_RESET_MS));
});

t.test('a listener that closes during a handshake leaves nothing in the way of the next SYN', async (t) => {
  const bench = new FlowBench();
  const web = bench.socket('tcp:80');
  bench.socket('tcp:80', bench.two);
  bench.send(serve(SYN | ACK));
  bench.receive(call(SYN));
  t.equal(bench.state, 'new', 'a SYN that is sent again is no answer');
  t.ok(bench.livesFor(FLOW_TCP_NEW_MS));
  bench.close(web, true);
  t.equal(bench.receive(call(SYN)), null);
  t.equal(bench.send(serve(SYN | ACK), bench.two), SENT.OK);
  t.equal(bench.receive(call(ACK)), bench.two);
  t.equal(bench.state, 'established');
  t.same(bench.changes, []);
});

t.test('what is over when its socket closes is nothing that the kernel is told', async (t) => {
  const bench = new FlowBench();
  const web = bench.socket('tcp:80');
  connect(bench);
  bench.send(serve(FIN | ACK));
  bench.receive(call(FIN | ACK));
  connect(bench, 50_001);
  bench.receive(call(RST, 50_001));
  bench.close(web);
  t.same(bench.changes, []);
  t.equal(bench.receive(call(ACK)), bench.one, 'the last ACK passes');
});

t.test('a socket that is there again has its flows back', async (t) => {
  const bench = new FlowBench();
  const rules = [bench.socket('tcp:80'), bench.socket('tcp:10.0.0.1:80', bench.two), bench.socket('udp:53')] as const;
  connect(bench);
  connect(bench, 50_001, bench.two);
  bench.open(query(), rules[2]);
  for (const rule of rules) bench.close(rule, true);
  t.same(bench.takeChanges(), ['+6 80 50000', '+6 80 50001']);
  bench.socket('tcp:80', bench.two);
  bench.socket('tcp:81');
  t.same(bench.takeChanges(), [], 'of another vif, of another port');
  const [web, dns] = [bench.socket('tcp:80'), bench.socket('udp:53')];
  t.same(bench.takeChanges(), ['-6 80 50000']);
  t.same(
    [web, dns, ...rules].map((rule) => bench.table.countThrough(rule)),
    [1, 1, 0, 1, 0],
  );
  t.notOk(bench.table.isHomeless(bench.flow(query())));
  bench.receive(call(ACK));
  t.ok(bench.livesFor(FLOW_TCP_MS));
  t.equal(bench.state, 'established');
  bench.close(web);
  t.same(bench.takeChanges(), ['+6 80 50000'], 'and may leave again');
  bench.table.join(web);
  t.same(bench.takeChanges(), ['-6 80 50000'], 'and be there with the same rule');
});

t.test('a homeless flow is of whoever it is given to', async (t) => {
  const bench = new FlowBench();
  const [first, second] = [bench.socket('udp:53'), bench.socket('udp:53', bench.two)];
  bench.open(query(), first);
  bench.send(answer());
  bench.receive(query());
  bench.close(first, true);
  bench.now += 1000;
  t.equal(bench.send(answer()), SENT.OK, 'last words go out');
  t.ok(bench.table.isHomeless(bench.flow(query())));
  bench.table.rehome(bench.flow(query()), bench.two, second);
  t.equal(bench.receive(query()), bench.two);
  t.same(bench.rows, ['ctl2 v2 udp:53 new 30']);
  t.same(
    [first, second].map((rule) => bench.table.countThrough(rule)),
    [0, 1],
  );
  t.equal(bench.send(answer()), SENT.REFUSED, 'they come too late now');
  bench.close(second);
  const third = bench.socket('udp:53');
  t.equal(bench.send(answer()), SENT.OK, 'or is taken by another vif that speaks');
  t.equal(bench.receive(query()), bench.one);
  t.equal(bench.table.countThrough(third), 1);
  t.same(bench.changes, []);
});

t.test('a homeless flow that nobody takes is over after its time, whatever comes', async (t) => {
  const bench = new FlowBench();
  const dns = bench.socket('udp:53');
  bench.open(query(), dns);
  bench.close(dns);
  bench.now += FLOW_UDP_MS - 1;
  bench.send(answer());
  t.ok(bench.table.isHomeless(bench.flow(query())));
  bench.now += 1;
  t.equal(bench.flow(query()), -1);
  t.equal(bench.table.size, 0);
});

/** Loses what came through some rules of the first vif. @returns the remote ports of the connections that were reset */
function lose(bench: FlowBench, given: (through: Rule | null) => boolean = () => true): number[] {
  const reset: number[] = [];
  bench.table.lose(bench.one, given, (flow) => {
    t.ok(bench.table.isLost(flow));
    reset.push(bench.table.remotePort(flow));
  });
  return reset.sort();
}

t.test('the connections of a lost control device are reset, its datagrams homeless', async (t) => {
  const bench = new FlowBench();
  const [web, dns] = [bench.socket('tcp:80'), bench.socket('udp:53')];
  bench.socket('tcp:80', bench.two);
  connect(bench, 1);
  connect(bench, 2, bench.two);
  connect(bench, 3);
  bench.receive(call(RST, 3));
  bench.open(query(), dns);
  bench.send(out(17, udp(4000, 5000, none)));
  bench.send(out(132, sctp(4000, 5000)));
  t.same(bench.takeChanges(), ['+17 4000 5000', '+132 4000 5000']);
  t.same(lose(bench), [1], 'not what is reset already, nor those of others');
  t.same(
    bench.takeChanges(),
    ['+6 80 1', '-17 4000 5000', '-132 4000 5000'],
    'segments of a lost one are to be answered',
  );
  t.ok(bench.table.isLost(bench.flow(call(ACK, 1))));
  t.notOk(bench.table.isLost(bench.flow(call(ACK, 2))));
  t.ok(bench.table.isHomeless(bench.flow(query())));
  t.ok(bench.table.isHomeless(bench.flow(back(17, udp(5000, 4000, none)))));
  t.equal(bench.flow(back(132, sctp(5000, 4000))), -1, 'of other protocols nothing is left');
  t.match(bench.rows, [/ lost 10$/, / established /, / reset /, / homeless /, / homeless /]);
  t.same(lose(bench), [], 'once');
  bench.close(web);
  t.same(bench.changes, [], 'that its rule goes changes nothing');
});

t.test('only what came through the rules that are given is lost', async (t) => {
  const bench = new FlowBench();
  const web = bench.socket('tcp:80');
  connect(bench);
  bench.send(ask(SYN));
  t.same(
    lose(bench, (through) => through === null),
    [80],
  );
  t.equal(bench.state, 'established');
  t.same(
    lose(bench, (through) => through === web),
    [50_000],
  );
});

t.test('a lost connection is over when nothing comes, and a SYN begins another one', async (t) => {
  const bench = new FlowBench();
  bench.socket('tcp:80');
  connect(bench);
  lose(bench);
  bench.now += FLOW_TCP_RESET_MS - 1000;
  t.equal(bench.send(serve(ACK)), SENT.OK, 'what its vif still says goes out');
  t.equal(bench.send(serve(ACK), bench.two), SENT.OK);
  t.ok(bench.livesFor(1000), 'and changes nothing');
  t.equal(bench.receive(call(ACK)), bench.one);
  t.ok(bench.livesFor(FLOW_TCP_RESET_MS));
  t.equal(bench.receive(call(SYN)), null);
  const web = bench.socket('tcp:80', bench.two);
  t.equal(bench.send(serve(SYN | ACK), bench.two), SENT.OK);
  const flow = bench.flow(call(ACK));
  t.notOk(bench.table.isLost(flow));
  t.equal(bench.table.throughOf(flow), web);
  t.equal(bench.state, 'established');
});

t.test('the last acknowledgment of the remote end is known', async (t) => {
  const bench = new FlowBench();
  const { table } = bench;
  bench.send(serve(SYN | ACK));
  const flow = bench.flow(call(SYN, 50_000, 5));
  t.same([table.hasAck(flow), table.lastAck(flow)], [false, 0]);
  for (const acknowledged of [1, 0x7fff_ffff, 0xffff_fffe, 3]) {
    bench.receive(call(ACK, 50_000, acknowledged));
    t.same([table.hasAck(flow), table.lastAck(flow)], [true, acknowledged]);
  }
  bench.send(serve(ACK));
  t.equal(table.lastAck(flow), 3, 'not what is sent');
  bench.receive(call(RST));
  bench.send(serve(SYN | ACK));
  t.notOk(table.hasAck(bench.flow(call(SYN))), 'another connection has none yet');
});

t.test('a full table lets out what a socket rule covers, without a flow', async (t) => {
  const bench = new FlowBench(1);
  bench.socket('tcp:80');
  bench.send(ask(SYN));
  t.equal(bench.send(ask(SYN, 50_001)), SENT.REFUSED);
  t.equal(bench.send(serve(SYN | ACK)), SENT.OK);
  t.equal(bench.receive(call(ACK)), null, 'the rules decide');
  t.equal(bench.table.size, 1);
});

t.test('it is told when there is a flow that no rule covers', async (t) => {
  const bench = new FlowBench();
  const told: boolean[] = [];
  bench.table.onTold = (any) => told.push(any);
  const web = bench.socket('tcp:80');
  connect(bench);
  connect(bench, 50_001);
  t.same([told, bench.table.told], [[], 0]);
  bench.close(web);
  t.same([told, bench.table.told], [[true], 2]);
  bench.expire();
  t.same([told, bench.table.told], [[true, false], 0]);
});

t.test('it is known whether the last frame was an error', async (t) => {
  const bench = new FlowBench();
  bench.send(ask(SYN));
  const error = back(1, Buffer.concat([Buffer.from([3, 1, 0, 0, 0, 0, 0, 0]), ask(SYN)]));
  t.ok(bench.flow(error) >= 0);
  t.ok(bench.table.isError);
  bench.flow(reply(ACK));
  t.notOk(bench.table.isError);
});

t.test('the clock may go round', async (t) => {
  const bench = new FlowBench();
  bench.now = 2 ** 31 - 1000;
  bench.send(ask(SYN));
  bench.now += FLOW_TCP_NEW_MS - 1;
  t.equal(bench.receive(reply(SYN | ACK)), bench.one);
  bench.now = 2 ** 32 - 1000;
  bench.send(ask(SYN));
  bench.receive(reply(SYN | ACK));
  bench.now += FLOW_TCP_MS - 1;
  bench.sweep();
  t.equal(bench.table.size, 1);
  bench.now += 1;
  bench.sweep();
  t.equal(bench.table.size, 0);
});

t.test('whatever happens in whatever order, the table does what its slow twin does', async (t) => {
  const seen = new Set<string>();
  for (let seed = 1; seed <= 60; seed += 1) {
    const life = new FlowLife(seed);
    for (let step = 0; step < 400; step += 1) {
      const [event, said, expected] = life.step();
      const lines = life.lines();
      for (const line of lines) seen.add(line.split(' ')[7] ?? '');
      const [counted, there] = life.counts();
      const same =
        isDeepStrictEqual(said, expected) &&
        isDeepStrictEqual(counted, there) &&
        isDeepStrictEqual(lines, life.twin.lines()) &&
        isDeepStrictEqual(life.told(), life.twin.told());
      if (same) continue;
      const [told, twins] = [life.told(), [life.twin.lines(), life.twin.told()]];
      t.same([said, counted, lines, told], [expected, there, ...twins], `${seed}.${step}: ${event}`);
      return;
    }
  }
  const states = ['answered', 'closed', 'closing', 'established', 'homeless', 'leaving', 'lost', 'new', 'reset'];
  t.same([...seen].sort(), states, 'they have seen it all');
});

t.test('as many flows as are allowed fit into 200 MB, and none of them is an object', async (t) => {
  const script = fileURLToPath(new URL('../support/flow-million.js', import.meta.url));
  // The heap has no room for objects: 100 bytes a flow would be twice as much.
  const child = spawnSync(process.execPath, ['--max-old-space-size=48', script], {
    encoding: 'utf8',
    timeout: 120_000,
  });
  t.equal(child.status, 0, child.stderr);
  const { size, bytes, found } = JSON.parse(child.stdout) as { size: number; bytes: number; found: number };
  t.equal(size, MAX_FLOWS_PER_INTERFACE);
  t.equal(found, size);
  t.ok(bytes < 150_000_000, `${bytes} bytes`);
});
