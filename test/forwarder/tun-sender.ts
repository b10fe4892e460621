/** src/forwarder/tun-sender.ts on neighbours and a transmitter that the test plays. */
import t from 'tap';
import { Counters } from '../../src/base/counters.js';
import { MAX_WAITING_PER_HOP, NEIGHBOUR_REFRESH_MS } from '../../src/base/limits.js';
import { ReceptionTable } from '../../src/forwarder/reception-table.js';
import { TUN, TunSender } from '../../src/forwarder/tun-sender.js';
import { FrameView } from '../../src/packet/headers.js';
import { ANY_PROTOCOL } from '../../src/packet/protocol-address.js';
import type { Neighbour } from '../../src/sys/neighbours.js';
import { FRAME_HEADER_BYTES } from '../../src/tunnel/frames.js';
import * as messages from '../support/fake-messages.js';
import { makePeer } from '../support/fake-peer.js';
import { keepLog } from '../support/log.js';
import { ipv4, IPV6_A, ipv6, MAC_A, udp } from '../vectors/packet-frames.js';

const MAC = Buffer.from('0200000000aa', 'hex');
const GATEWAY = Buffer.from([10, 0, 0, 254]);

class Bench {
  now = 0;
  /** What the kernel knows. */
  known: Buffer | null = null;
  asked = 0;
  /** Ethernet headers of what was queued, as hex. */
  readonly headers: string[] = [];
  flushes = 0;
  tell: (neighbour: Neighbour) => void = () => undefined;
  readonly counters = new Counters();
  readonly sender: TunSender;
  private readonly view = new FrameView();
  private readonly tunnel = new ReceptionTable().add(makePeer().peer, 'eth0', 's', ANY_PROTOCOL, 'write', 'ethernet');

  constructor(nextHop: (destination: Buffer) => Buffer = () => GATEWAY) {
    this.sender = new TunSender({
      ifindex: 3,
      transmitter: {
        queue: (block, at) => {
          this.headers.push(block.toString('hex', at + FRAME_HEADER_BYTES, at + FRAME_HEADER_BYTES + 14));
        },
        flush: () => {
          this.flushes += 1;
        },
      },
      counters: this.counters,
      neighbours: {
        listen: (listener) => {
          this.tell = listener;
          return () => undefined;
        },
        use: () => {
          this.asked += 1;
          return this.known;
        },
      },
      nextHop: (_ifindex, destination) => nextHop(destination),
      now: () => this.now,
      log: keepLog(),
    });
  }

  send(packet: Buffer): number {
    const message = messages.data(1, 1, packet);
    this.view.parse(message, FRAME_HEADER_BYTES, packet.length, 'raw');
    return this.sender.send(this.tunnel, message, 0, this.view, MAC_A);
  }
}

const to = (destination: string): Buffer => ipv4({ protocol: 17, destination }, udp(1, 2, Buffer.alloc(4)));
const header = (mac: Buffer, type = '0800'): string => mac.toString('hex') + MAC_A.toString('hex') + type;

t.test('a packet to a neighbour that is known leaves at once', async (t) => {
  const bench = new Bench();
  bench.known = MAC;
  t.same([bench.send(to('10.1.1.1')), bench.send(to('10.1.1.1'))], [TUN.QUEUED, TUN.QUEUED]);
  t.same(bench.headers, [header(MAC), header(MAC)]);
  t.equal(bench.asked, 1);
  bench.now = NEIGHBOUR_REFRESH_MS + 1;
  bench.send(to('10.1.1.1'));
  t.equal(bench.asked, 2, 'the kernel is told that it is in use');
});

t.test('packets wait for the neighbour, in order and not too many', async (t) => {
  const bench = new Bench();
  const results = Array.from({ length: MAX_WAITING_PER_HOP + 1 }, () => bench.send(to('10.1.1.1')));
  t.equal(results.filter((result) => result === TUN.WAITS).length, MAX_WAITING_PER_HOP);
  t.equal(results.at(-1), TUN.DROPPED);
  t.equal(bench.counters.get('drop_tx_no_neighbour'), 1);
  bench.tell({ ifindex: 4, address: GATEWAY, link: MAC, failed: false });
  t.same(bench.headers, [], 'that was another interface');
  bench.tell({ ifindex: 3, address: GATEWAY, link: MAC, failed: false });
  t.equal(bench.headers.length, MAX_WAITING_PER_HOP);
  t.ok(bench.headers.every((one) => one === header(MAC)));
  t.equal(bench.flushes, 1);
  t.equal(bench.send(to('10.1.1.1')), TUN.QUEUED);
});

t.test('a neighbour that does not answer costs what waited, and is asked again', async (t) => {
  const bench = new Bench();
  bench.send(to('10.1.1.1'));
  bench.tell({ ifindex: 3, address: GATEWAY, link: null, failed: true });
  t.equal(bench.counters.get('drop_tx_no_neighbour'), 1);
  t.equal(bench.send(to('10.1.1.1')), TUN.WAITS);
  t.equal(bench.asked, 2);
  bench.tell({ ifindex: 3, address: GATEWAY, link: null, failed: true });
  bench.known = MAC;
  t.equal(bench.send(to('10.1.1.1')), TUN.QUEUED, 'there again, without an event');
});

t.test('multicast and broadcast need no neighbour', async (t) => {
  const bench = new Bench(() => Buffer.alloc(0));
  const cases: [packet: Buffer, expected: string][] = [
    [to('224.0.0.5'), header(Buffer.from('01005e000005', 'hex'))],
    [to('239.255.1.2'), header(Buffer.from('01005e7f0102', 'hex'))],
    [to('255.255.255.255'), header(Buffer.alloc(6, 0xff))],
    [to('10.0.0.255'), header(Buffer.alloc(6, 0xff))],
  ];
  const group = Buffer.concat([Buffer.from([0xff, 2]), Buffer.alloc(13), Buffer.from([5])]);
  cases.push([ipv6(17, udp(1, 2, Buffer.alloc(4)), [], group), header(Buffer.from('333300000005', 'hex'), '86dd')]);
  for (const [packet, expected] of cases) {
    t.equal(bench.send(packet), TUN.QUEUED);
    t.equal(bench.headers.pop(), expected);
  }
  t.equal(bench.asked, 0);
});

t.test('without a route a packet is dropped and counted, and routes that change are looked up again', async (t) => {
  let isThere = false;
  const bench = new Bench(() => {
    if (!isThere) throw new Error('unreachable');
    return IPV6_A;
  });
  bench.known = MAC;
  t.equal(bench.send(to('10.1.1.1')), TUN.DROPPED);
  t.equal(bench.counters.get('drop_tx_no_neighbour'), 1);
  isThere = true;
  bench.sender.clear();
  t.equal(bench.send(to('10.1.1.1')), TUN.QUEUED);
});
