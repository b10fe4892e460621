/** src/forwarder/down-path.ts: from messages of control devices to interfaces, and the confirmations back. */
import { constants } from 'node:os';
import t from 'tap';
import { Counters } from '../../src/base/counters.js';
import { DOWN_WINDOW_BYTES } from '../../src/base/limits.js';
import { DistributionTable } from '../../src/forwarder/distribution-table.js';
import { DownPath, type Outlet } from '../../src/forwarder/down-path.js';
import { FlowTable } from '../../src/forwarder/flow-table.js';
import { InterfaceTransmitter } from '../../src/forwarder/interface-transmitter.js';
import type { Peer } from '../../src/forwarder/peer.js';
import { type DownTunnel, ReceptionTable, type SendRight } from '../../src/forwarder/reception-table.js';
import type { LinkType } from '../../src/packet/headers.js';
import { parseProtocolAddress } from '../../src/packet/protocol-address.js';
import * as messages from '../support/fake-messages.js';
import { FakeOutlet } from '../support/fake-outlet.js';
import { makePeer, makeRule, type PeerEnd } from '../support/fake-peer.js';
import { ethernet, ipv4, MAC_A, udp } from '../vectors/packet-frames.js';

const { EACCES, EINVAL, EMSGSIZE, ENETDOWN } = constants.errno;
const frame = (number: number): Buffer => Buffer.alloc(60, number);

/** A forwarder with eth0 and eth1, and one control device. */
class Bench {
  readonly distribution = new DistributionTable();
  readonly reception = new ReceptionTable();
  readonly lost = new Counters();
  readonly outlets = new Map<string, FakeOutlet>();
  readonly interfaces = new Map<string, Outlet & { linkType: LinkType; transmitter: InterfaceTransmitter | null }>();
  readonly path: DownPath;
  readonly one: PeerEnd = makePeer('ctl1');

  constructor() {
    this.path = new DownPath(this.distribution, this.reception, (name) => this.interfaces.get(name), this.lost);
    for (const name of ['eth0', 'eth1']) {
      const outlet = new FakeOutlet();
      const counters = new Counters();
      this.outlets.set(name, outlet);
      this.interfaces.set(name, {
        linkType: 'ethernet',
        counters,
        own: { mac: MAC_A, ip: [Buffer.from([10, 0, 0, 1])] },
        tun: null,
        flows: new FlowTable(
          () => 0,
          () => undefined,
          this.distribution.of(name),
        ),
        transmitter: new InterfaceTransmitter(outlet, counters, this.path),
      });
    }
  }

  get eth0(): FakeOutlet {
    return this.outlets.get('eth0')!;
  }

  get counters(): Counters {
    return this.interfaces.get('eth0')!.counters;
  }

  tunnel(more: { peer?: Peer; interface?: string; protocol?: string; right?: SendRight } = {}): DownTunnel {
    const protocol = parseProtocolAddress(more.protocol ?? '*');
    return this.reception.add(
      more.peer ?? this.one.peer,
      more.interface ?? 'eth0',
      's',
      protocol,
      more.right ?? 'inject',
      'ethernet',
    );
  }

  /** One message of a control device, and what it gets back, without the word `up`. */
  give(frames: readonly Buffer[], from: PeerEnd = this.one): string[] {
    const message = Buffer.concat(frames);
    this.path.frames(from.peer, message, message.length);
    return this.answers(from);
  }

  answers(to: PeerEnd = this.one): string[] {
    return to.channel.takeLines().map((line) => line.replace('up confirm ', ''));
  }
}

t.test('frames go out of the interface of their tunnel and are confirmed once a message', async (t) => {
  const bench = new Bench();
  const one = bench.tunnel();
  const two = bench.tunnel({ interface: 'eth1' });
  const sent = [
    messages.data(one.id, 1, frame(1)),
    messages.data(two.id, 1, frame(2)),
    messages.data(one.id, 2, frame(3)),
  ];
  t.same(bench.give(sent), [`tunnel=${one.id} sequence=2`, `tunnel=${two.id} sequence=1`]);
  t.equal(bench.one.channel.messages.length, 1, 'all in one message');
  t.same(bench.eth0.frames, [frame(1), frame(3)]);
  t.same(bench.outlets.get('eth1')?.frames, [frame(2)]);
  t.same([one.received, one.confirmed, one.bytes], [2, 2, 120]);
});

t.test('an error is told for its very frame, in order with the confirmations', async (t) => {
  const bench = new Bench();
  const { id } = bench.tunnel();
  bench.eth0.refuse = (bytes) => (bytes[0] === 2 ? EMSGSIZE : 0);
  const sent = [1, 2, 3].map((number) => messages.data(id, number, frame(number)));
  t.same(bench.give(sent), [`tunnel=${id} sequence=2 errno=${EMSGSIZE}`, `tunnel=${id} sequence=3`]);
  t.same(bench.eth0.frames, [frame(1), frame(3)]);
});

t.test('frames for an interface that came back with another link type are refused, one by one', async (t) => {
  const bench = new Bench();
  const { id } = bench.tunnel();
  bench.give([messages.data(id, 1, frame(1))]);
  bench.interfaces.get('eth0')!.linkType = 'raw';
  const sent = [2, 3].map((number) => messages.data(id, number, frame(number)));
  t.same(bench.give(sent), [
    `tunnel=${id} sequence=2 errno=${ENETDOWN}`,
    `tunnel=${id} sequence=3 errno=${ENETDOWN}`,
    `tunnel=${id} sequence=3`,
  ]);
  t.same(bench.eth0.frames, [frame(1)]);
  t.equal(bench.counters.get('drop_tx_error'), 2);
});

t.test('what comes again after a resume is confirmed again and put out once', async (t) => {
  const bench = new Bench();
  const tunnel = bench.tunnel();
  bench.give([1, 2].map((number) => messages.data(tunnel.id, number, frame(number))));
  const again = [2, 3].map((number) => messages.data(tunnel.id, number, frame(number)));
  t.same(bench.give(again), [`tunnel=${tunnel.id} sequence=3`]);
  t.same(bench.give([messages.data(tunnel.id, 1, frame(1))]), [`tunnel=${tunnel.id} sequence=3`]);
  t.same(bench.eth0.frames, [frame(1), frame(2), frame(3)]);
  t.equal(bench.counters.get('drop_tx_duplicate'), 2);
});

t.test('a gap is a defect of the other side: it throws, after what came before it is out and confirmed', async (t) => {
  const bench = new Bench();
  const tunnel = bench.tunnel();
  const gap = [1, 3].map((number) => messages.data(tunnel.id, number, frame(number)));
  t.throws(() => bench.give(gap), { code: 'bad-message' });
  t.same(bench.eth0.frames, [frame(1)]);
  t.same(bench.answers(), [`tunnel=${tunnel.id} sequence=1`]);
  t.throws(() => bench.give([messages.data(tunnel.id, Number.MAX_SAFE_INTEGER, frame(1))]), { code: 'bad-message' });
});

t.test('a tunnel that is unknown, closed or of another control device is counted and not answered', async (t) => {
  const bench = new Bench();
  const two = makePeer('ctl2');
  const tunnel = bench.tunnel();
  t.same(bench.give([messages.data(tunnel.id + 1, 1, frame(1))]), []);
  t.same(bench.give([messages.data(tunnel.id, 1, frame(1))], two), []);
  t.same(bench.give([messages.close(tunnel.id, 0)], two), []);
  t.equal(bench.reception.get(bench.one.peer, tunnel.id), tunnel, 'nor can another close it');
  t.same(bench.give([messages.close(tunnel.id, 0), messages.data(tunnel.id, 1, frame(1))]), []);
  t.equal(bench.lost.get('drop_tx_unknown_tunnel'), 3);
  t.same(bench.eth0.frames, []);
});

t.test('a tunnel ends in order with its data, also when they have to wait', async (t) => {
  const bench = new Bench();
  const tunnel = bench.tunnel();
  const two = bench.tunnel();
  t.same(bench.give([messages.data(two.id, 1, frame(9)), messages.close(two.id, 1)]), [`tunnel=${two.id} sequence=1`]);
  t.equal(bench.reception.get(bench.one.peer, two.id), undefined);
  bench.eth0.free = 1;
  const sent = [1, 2].map((number) => messages.data(tunnel.id, number, frame(number)));
  t.same(bench.give([...sent, messages.close(tunnel.id, 2)]), [`tunnel=${tunnel.id} sequence=1`]);
  t.equal(bench.reception.get(bench.one.peer, tunnel.id), tunnel, 'the second frame waits');
  bench.interfaces.get('eth0')?.transmitter?.close(ENETDOWN);
  t.same(bench.answers(), [`tunnel=${tunnel.id} sequence=2 errno=${ENETDOWN}`, `tunnel=${tunnel.id} sequence=2`]);
  t.equal(bench.reception.get(bench.one.peer, tunnel.id), undefined);
});

t.test('frames that wait are confirmed when they leave', async (t) => {
  const bench = new Bench();
  const tunnel = bench.tunnel();
  bench.eth0.free = 0;
  t.same(bench.give([1, 2].map((number) => messages.data(tunnel.id, number, frame(number)))), []);
  bench.eth0.free = Infinity;
  while (bench.eth0.frames.length < 2) await new Promise((resolve) => setImmediate(resolve));
  t.same(bench.answers(), [`tunnel=${tunnel.id} sequence=2`]);
});

t.test('while the interface is away every frame fails, and its tunnel lives on', async (t) => {
  const bench = new Bench();
  const tunnel = bench.tunnel();
  const elsewhere = bench.tunnel({ interface: 'gone0' });
  const eth0 = bench.interfaces.get('eth0')!;
  const { transmitter } = eth0;
  eth0.transmitter = null;
  t.same(bench.give([messages.data(tunnel.id, 1, frame(1)), messages.data(elsewhere.id, 1, frame(1))]), [
    `tunnel=${tunnel.id} sequence=1 errno=${ENETDOWN}`,
    `tunnel=${elsewhere.id} sequence=1 errno=${ENETDOWN}`,
    `tunnel=${tunnel.id} sequence=1`,
    `tunnel=${elsewhere.id} sequence=1`,
  ]);
  t.equal(bench.counters.get('drop_tx_error'), 1);
  t.equal(bench.lost.get('drop_tx_error'), 1);
  eth0.transmitter = transmitter;
  t.same(bench.give([messages.data(tunnel.id, 2, frame(2))]), [`tunnel=${tunnel.id} sequence=2`]);
});

t.test('only frames that the tunnel is for leave, with the rights that it has', async (t) => {
  const own = ethernet(0x0800, ipv4({ protocol: 17, source: '10.0.0.1' }, udp(520, 520, Buffer.alloc(20))));
  const foreign = ethernet(0x0800, ipv4({ protocol: 17, source: '10.0.0.7' }, udp(520, 520, Buffer.alloc(20))));
  const otherPort = ethernet(0x0800, ipv4({ protocol: 17, source: '10.0.0.1' }, udp(521, 520, Buffer.alloc(20))));
  const short = Buffer.alloc(13);
  const cases: [what: string, tunnel: { protocol?: string; right: SendRight }, frame: Buffer, errno: number][] = [
    ['inject: any source', { right: 'inject' }, foreign, 0],
    ['inject: whatever the interface takes', { right: 'inject' }, short, 0],
    ['write: our source', { right: 'write' }, own, 0],
    ['write: another source', { right: 'write' }, foreign, EACCES],
    ['write: not even a frame', { right: 'write' }, short, EINVAL],
    ['the local end is the source', { right: 'inject', protocol: 'udp:520' }, own, 0],
    ['another port', { right: 'inject', protocol: 'udp:520' }, otherPort, EINVAL],
    ['another port, before the source is looked at', { right: 'write', protocol: 'udp:520' }, otherPort, EINVAL],
    ['another address', { right: 'inject', protocol: 'udp:10.0.0.1:520' }, foreign, EINVAL],
    ['our address', { right: 'write', protocol: 'udp:10.0.0.1:520' }, own, 0],
  ];
  const bench = new Bench();
  for (const [what, options, bytes, errno] of cases) {
    const { id } = bench.tunnel(options);
    const told = errno === 0 ? [] : [`tunnel=${id} sequence=1 errno=${errno}`];
    t.same(bench.give([messages.data(id, 1, bytes)]), [...told, `tunnel=${id} sequence=1`], what);
  }
  const { counters } = bench;
  t.same(
    [counters.get('drop_malformed'), counters.get('drop_tx_mismatch'), counters.get('drop_tx_not_permitted')],
    [1, 3, 1],
  );
  t.same(bench.eth0.frames, [foreign, short, own, own, own]);
});

t.test('a tunnel that lost its right refuses each further frame, and sends again when it has it back', async (t) => {
  const bench = new Bench();
  const tunnel = bench.tunnel();
  const { id } = tunnel;
  bench.give([messages.data(id, 1, frame(1))]);
  tunnel.right = 'none';
  t.same(bench.give([messages.data(id, 2, frame(2)), messages.data(id, 3, frame(3))]), [
    `tunnel=${id} sequence=2 errno=${EACCES}`,
    `tunnel=${id} sequence=3 errno=${EACCES}`,
    `tunnel=${id} sequence=3`,
  ]);
  t.equal(bench.counters.get('drop_tx_not_permitted'), 2);
  tunnel.right = 'inject';
  t.same(bench.give([messages.data(id, 4, frame(4))]), [`tunnel=${id} sequence=4`]);
  t.same(bench.eth0.frames, [frame(1), frame(4)]);
});

t.test('a super-frame that the kernel would cut into fragments leaves only where any frame may', async (t) => {
  const own = ethernet(0x0800, ipv4({ protocol: 17, source: '10.0.0.1' }, udp(520, 520, Buffer.alloc(2000))));
  const ufo = (id: number): Buffer => {
    const bytes = messages.data(id, 1, own);
    bytes[3] = 3; // virtio_net_hdr: gso_type UDP
    return bytes;
  };
  const bench = new Bench();
  const cases: [options: { protocol?: string; right: SendRight }, errno: number][] = [
    [{ right: 'inject' }, 0],
    [{ right: 'write' }, EINVAL],
    [{ right: 'inject', protocol: 'udp:520' }, EINVAL],
  ];
  for (const [options, errno] of cases) {
    const { id } = bench.tunnel(options);
    const told = errno === 0 ? [] : [`tunnel=${id} sequence=1 errno=${errno}`];
    t.same(bench.give([ufo(id)]), [...told, `tunnel=${id} sequence=1`]);
  }
  t.equal(bench.eth0.frames.length, 1);
});

t.test('a control device that ignores its window is ended, before it fills the memory', async (t) => {
  const bench = new Bench();
  const { id } = bench.tunnel();
  bench.eth0.free = 0;
  const big = Buffer.alloc(60_000, 1);
  const give = (from: number, count: number): void => {
    bench.give(Array.from({ length: count }, (_, i) => messages.data(id, from + i, big)));
  };
  give(1, Math.floor(DOWN_WINDOW_BYTES / big.length));
  t.throws(() => give(1 + Math.floor(DOWN_WINDOW_BYTES / big.length), 3), { code: 'bad-message' });
  bench.eth0.free = Infinity;
});

t.test('credit only grows, and only for a rule of the one who grants it', async (t) => {
  const bench = new Bench();
  const rule = makeRule(bench.one.peer, '*', { granted: 1000 });
  bench.distribution.add(rule);
  const steps: [granted: number, expected: number][] = [
    [1500, 1500],
    [1200, 1500],
    [0, 1500],
    [2 ** 40, 2 ** 40],
  ];
  for (const [granted, expected] of steps) {
    t.same(bench.give([messages.credit(rule.upTunnel, granted)]), []);
    t.equal(rule.granted, expected);
  }
  bench.give([messages.credit(rule.upTunnel, 2 ** 50)], makePeer('ctl2'));
  bench.give([messages.credit(rule.upTunnel + 1, 2 ** 50)]);
  t.equal(rule.granted, 2 ** 40);
});

t.test('after a resume every confirmation and the newest error are told again', async (t) => {
  const bench = new Bench();
  const good = bench.tunnel();
  const bad = bench.tunnel();
  bench.eth0.refuse = (bytes) => (bytes[0] === 2 ? EMSGSIZE : 0);
  bench.one.peer.active = false;
  bench.one.channel.connected = false;
  bench.give([
    messages.data(good.id, 1, frame(1)),
    ...[1, 2, 3].map((number) => messages.data(bad.id, number, frame(number))),
  ]);
  t.same(bench.answers(), [], 'nobody was there');
  bench.one.channel.connected = true;
  bench.path.resumed(bench.one.peer);
  t.same(bench.answers(), [
    `tunnel=${bad.id} sequence=2 errno=${EMSGSIZE}`,
    `tunnel=${good.id} sequence=1`,
    `tunnel=${bad.id} sequence=3`,
  ]);
});
