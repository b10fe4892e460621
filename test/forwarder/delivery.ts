/** src/forwarder/delivery.ts: who gets a frame, with virtual IFs and files side by side. */
import t from 'tap';
import { Counters } from '../../src/base/counters.js';
import { Delivery } from '../../src/forwarder/delivery.js';
import { FLOWS, InterfaceRules, type Rule, type VifEnd } from '../../src/forwarder/distribution-table.js';
import { FlowTable } from '../../src/forwarder/flow-table.js';
import { compileBpf } from '../../src/packet/bpf-run.js';
import { FrameView } from '../../src/packet/headers.js';
import { Resets } from '../../src/forwarder/resets.js';
import { Balancing } from '../../src/forwarder/socket-groups.js';
import { PKTTYPE } from '../../src/sys/packet-socket.js';
import { makePeer, makeRule, type PeerEnd } from '../support/fake-peer.js';
import { ACK, RST, SYN } from '../support/hand-tcp.js';
import { ethernet, ipv4, IPV6_B, ipv6, MAC_B, tcp, udp } from '../vectors/packet-frames.js';

let lastVif = 0;

class Bench {
  readonly balancing = new Balancing();
  readonly rules = new InterfaceRules(this.balancing);
  matches = 0;
  readonly counters = new Counters();
  readonly flows = new FlowTable(
    () => 0,
    () => undefined,
    this.rules,
  );
  readonly sent: Buffer[] = [];
  readonly resets = new Resets((packet) => {
    this.sent.push(packet);
    return 0;
  }, this.counters);
  readonly ends: PeerEnd[] = [makePeer('ctl1'), makePeer('ctl2')];
  private readonly view = new FrameView();
  private readonly delivery: Delivery;

  constructor() {
    const own = { mac: MAC_B, ip: [Buffer.from([10, 0, 0, 2]), IPV6_B] };
    this.delivery = new Delivery(this.rules, this.flows, this.resets, own, this.counters);
  }

  vif(kind: VifEnd['kind'] = 'tap'): VifEnd {
    lastVif += 1;
    return { id: lastVif, kind, stamp: 0, wayBack: null };
  }

  add(text: string, vif: VifEnd | null, more: Partial<Rule> = {}, index = 0): Rule {
    const rule = makeRule(this.ends[index]!.peer, text, { vif, ...more });
    this.rules.add(rule);
    return rule;
  }

  socket(text: string, vif: VifEnd, index = 0): Rule {
    return this.add(text, vif, { mode: 'socket' }, index);
  }

  /** The socket of a virtual IF of its own. */
  member(text: string, index: number): Rule {
    const vif = this.vif();
    vif.wayBack = makeRule(this.ends[index]!.peer, '*', { mode: 'flow', vif, protocol: FLOWS });
    this.rules.add(vif.wayBack);
    return this.socket(text, vif, index);
  }

  /** Its server accepts the connection of a client. */
  answer(rule: Rule, port: number): void {
    const answer = tcp({ sourcePort: 80, destinationPort: port, flags: SYN | ACK }, Buffer.alloc(0));
    const frame = ethernet(0x0800, ipv4({ protocol: 6, source: '10.0.0.2', destination: '10.0.0.1' }, answer));
    this.view.parse(frame, 0, frame.length);
    this.flows.sent(this.view, frame, rule.vif!.wayBack!);
  }

  /** Up tunnels that got the frame, of both control devices. */
  give(frame: Buffer, pkttype: number = PKTTYPE.HOST): number[] {
    const buffer = Buffer.concat([Buffer.alloc(20, 0), frame]);
    this.view.parse(buffer, 20, frame.length);
    this.matches = this.delivery.frame(this.view, buffer, 20, frame.length, 0, pkttype, 1, 2);
    this.delivery.flush();
    return this.ends
      .flatMap(({ channel }) => channel.takeLines())
      .map((line) => Number(/tunnel=(\d+)/.exec(line)?.[1]));
  }
}

const to = (port: number, destination = '10.0.0.2'): Buffer =>
  ethernet(0x0800, ipv4({ protocol: 17, destination }, udp(4000, port, Buffer.alloc(8))));

t.test('a unicast frame is for the most specific socket', async (t) => {
  const bench = new Bench();
  const any = bench.socket('udp:53', bench.vif());
  bench.socket('udp:53', bench.vif(), 1);
  t.same(bench.give(to(53)), [any.upTunnel]);
  const exact = bench.socket('udp:10.0.0.2:53', bench.vif(), 1);
  t.same(bench.give(to(53)), [exact.upTunnel]);
  bench.rules.remove(exact);
  t.same(bench.give(to(53)), [any.upTunnel]);
  t.same(bench.give(to(54)), []);
});

/** A client's datagram or segment; each number is another client. */
const from = (client: number, payload = 8): Buffer =>
  ethernet(0x0800, ipv4({ protocol: 17 }, udp(1024 + client, 53, Buffer.alloc(payload))));
const segment = (flags: number, sourcePort = 4000): Buffer =>
  ethernet(0x0800, ipv4({ protocol: 6 }, tcp({ sourcePort, destinationPort: 80, flags }, Buffer.alloc(0))));

t.test(
  'new flows are shared by the members of a group, and each datagram of one goes where its first one went',
  async (t) => {
    const bench = new Bench();
    const [one, two] = [bench.member('udp:53', 0), bench.member('udp:53', 1)];
    const first = new Map<number, number>();
    for (let client = 0; client < 100; client++) first.set(client, bench.give(from(client))[0]!);
    const ofOne = [...first.values()].filter((tunnel) => tunnel === one.upTunnel).length;
    t.ok(ofOne > 25 && ofOne < 75, `${ofOne} of 100`);
    bench.ends[0]!.peer.drains.add('eth0');
    bench.balancing.changed();
    for (const [client, tunnel] of first) {
      const wayBack = (tunnel === one.upTunnel ? one : two).vif!.wayBack!;
      t.same(bench.give(from(client)), [wayBack.upTunnel], `client ${client}, though one drains`);
    }
    t.equal(one.frames + one.flowFrames, 2 * ofOne, 'its rule counts what its flows bring');
    t.equal(one.frames, ofOne, 'and apart from it what went up its own tunnel');
    for (let client = 100; client < 120; client++) t.same(bench.give(from(client)), [two.upTunnel]);
  },
);

t.test('datagrams of who is away go to another for good, TCP does not', async (t) => {
  const bench = new Bench();
  const [one, two] = [bench.member('udp:53', 0), bench.member('udp:53', 1)];
  const clients = Array.from({ length: 40 }, (_, client) => client);
  const ofOne = clients.filter((client) => bench.give(from(client))[0] === one.upTunnel);
  bench.member('tcp:80', 0);
  const web = bench.rules.sockets.groupsAt(6, 80)[0]!.rules[0]!;
  bench.answer(web, 4000);
  bench.ends[0]!.peer.silent = true;
  bench.balancing.changed();
  for (const client of ofOne) t.same(bench.give(from(client)), [two.upTunnel]);
  t.same(bench.give(segment(ACK)), [web.vif!.wayBack!.upTunnel], 'TCP waits for who has it');
  bench.ends[0]!.peer.silent = false;
  bench.balancing.changed();
  for (const client of ofOne) t.same(bench.give(from(client)), [two.vif!.wayBack!.upTunnel]);
});

t.test('where nobody takes new flows they are dropped and counted', async (t) => {
  const bench = new Bench();
  bench.member('udp:53', 0);
  bench.ends[0]!.peer.drains.add('*');
  bench.balancing.changed();
  t.same(bench.give(from(1)), []);
  t.equal(bench.counters.get('drop_no_member'), 1);
});

t.test('segments of a lost flow are answered with an RST, and a SYN begins anew elsewhere', async (t) => {
  const bench = new Bench();
  const [one, two] = [bench.member('tcp:80', 0), bench.member('tcp:80', 1)];
  bench.answer(one, 4000);
  t.same(bench.give(segment(ACK)), [one.vif!.wayBack!.upTunnel]);
  bench.flows.lose(
    one.vif!.wayBack!,
    () => true,
    (flow) => bench.resets.flow(bench.flows, flow),
  );
  bench.ends[0]!.peer.active = false;
  bench.balancing.changed();
  t.same(bench.give(segment(ACK)), []);
  await new Promise((resolve) => void setImmediate(resolve));
  t.equal(bench.sent.length, 2, 'the flow, and its segment');
  for (const packet of bench.sent) {
    t.same([packet.readUInt32BE(24), packet[33]], [0x01020304, RST], 'at what the client acknowledged');
    t.same([packet.readUInt16BE(20), packet.readUInt16BE(22)], [80, 4000]);
  }
  t.equal(bench.counters.get('forwarder_resets'), 2);
  t.same(bench.give(segment(SYN)), [two.upTunnel]);
});

t.test('what the kernel converts is left to it, and is no frame without a rule', async (t) => {
  const bench = new Bench();
  const member = bench.member('tcp:80', 0);
  bench.answer(member, 4000);
  const vip = bench.add('tcp:10.0.0.2:80', null, { mode: 'vip', vip: Buffer.from([10, 0, 0, 2]) }, 1);
  t.same(bench.give(segment(SYN, 5000)), []);
  t.equal(bench.matches, 1);
  t.same(bench.give(segment(ACK)), [member.vif!.wayBack!.upTunnel], 'a live connection stays');
  bench.rules.remove(vip);
  t.same(bench.give(segment(SYN, 5001)), [member.upTunnel]);
  t.same(bench.give(segment(ACK, 5000)), [], 'the kernel may still have it');
});

t.test('a control device that is away is passed over', async (t) => {
  const bench = new Bench();
  bench.socket('udp:53', bench.vif());
  const second = bench.socket('udp:53', bench.vif(), 1);
  bench.ends[0]!.peer.active = false;
  t.same(bench.give(to(53)), [second.upTunnel]);
});

t.test('what is forwarded is none of the sockets, and still the files', async (t) => {
  const bench = new Bench();
  const vif = bench.vif();
  bench.socket('udp:53', vif);
  bench.add('ip:17', vif);
  const file = bench.add('udp:53', null);
  t.same(bench.give(to(53, '10.7.7.7')), [file.upTunnel]);
});

t.test('multicast and broadcast go to every socket, once to each vif', async (t) => {
  const bench = new Bench();
  const vif = bench.vif();
  const sockets = [
    bench.socket('udp:5353', vif),
    bench.socket('udp:5353', vif),
    bench.socket('udp:5353', bench.vif(), 1),
  ];
  bench.socket('udp:10.0.0.2:5353', bench.vif());
  const expected = [sockets[0]?.upTunnel, sockets[2]?.upTunnel];
  t.same(bench.give(to(5353, '224.0.0.251'), PKTTYPE.MULTICAST), expected);
  t.same(bench.give(to(5353, '255.255.255.255'), PKTTYPE.BROADCAST), expected);
  t.same(bench.give(to(5353), PKTTYPE.OTHERHOST), [], 'for another host');
});

t.test('flows come before sockets, both before copies of the same vif, and files get theirs', async (t) => {
  const bench = new Bench();
  const vif = bench.vif();
  const wayBack = bench.add('ip:253', vif, { mode: 'flow' });
  const copy = bench.add('*', vif);
  const other = bench.socket('tcp:50000', bench.vif(), 1);
  const file = bench.add('*', null);
  const answer = ethernet(
    0x0800,
    ipv4({ protocol: 6 }, tcp({ sourcePort: 80, destinationPort: 50_000 }, Buffer.alloc(0))),
  );
  t.same(bench.give(answer), [copy.upTunnel, file.upTunnel, other.upTunnel], 'no flow yet');
  const view = new FrameView();
  const sent = ethernet(
    0x0800,
    ipv4(
      { protocol: 6, source: '10.0.0.2', destination: '10.0.0.1' },
      tcp({ sourcePort: 50_000, destinationPort: 80 }, Buffer.alloc(0)),
    ),
  );
  view.parse(sent, 0, sent.length);
  bench.flows.sent(view, sent, wayBack);
  t.same(bench.give(answer), [wayBack.upTunnel, file.upTunnel]);
});

t.test('neighbour discovery does not go to raw sockets, router discovery does', async (t) => {
  const bench = new Bench();
  const raw = bench.add('icmp6', bench.vif());
  const packet = (type: number): Buffer =>
    ethernet(0x86dd, ipv6(58, Buffer.concat([Buffer.from([type]), Buffer.alloc(23)])));
  for (const type of [135, 136, 137]) t.same(bench.give(packet(type)), [], String(type));
  for (const type of [133, 134, 128]) t.same(bench.give(packet(type)), [raw.upTunnel], String(type));
});

t.test('a filter keeps from a packet socket what it does not take', async (t) => {
  const bench = new Bench();
  // ldh [36]; jeq 53 ? ret 1 : ret 0
  const filter = compileBpf(
    Buffer.from('28000000240000001500000135000000060000000100000006000000' + '00000000', 'hex'),
  );
  const rule = bench.add('*', bench.vif(), { filter });
  t.not(filter, null);
  t.same(bench.give(to(53)), [rule.upTunnel]);
  t.same(bench.give(to(54)), []);
  t.equal(rule.dropped, 0, 'that is no loss');
});

t.test('a tun gets packets without their link layer, tags and padding', async (t) => {
  const bench = new Bench();
  const rule = bench.add('*', bench.vif('tun'));
  const packet = ipv4({ protocol: 17 }, udp(4000, 53, Buffer.alloc(8)));
  const frame = Buffer.concat([ethernet(0x0800, packet, [[0x8100, 7]]), Buffer.alloc(6)]);
  t.same(bench.give(frame), [rule.upTunnel]);
  t.equal(rule.bytes, packet.length);
  t.same(bench.give(ethernet(0x0806, Buffer.alloc(46))), []);
});
