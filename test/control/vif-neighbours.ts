import t from 'tap';
import { VifNeighbours } from '../../src/control/vif-neighbours.js';
import { MAX_NEIGHBOUR_QUESTIONS } from '../../src/base/limits.js';
import { ARP_REPLY, ARP_REQUEST, readArp, writeArp } from '../../src/packet/arp.js';
import { FrameView } from '../../src/packet/headers.js';
import { parseIpv4, parseIpv6 } from '../../src/packet/ip-address.js';
import { writeEthernetHeader } from '../../src/packet/mac-address.js';
import {
  ICMPV6_NEIGHBOR_ADVERTISEMENT,
  ICMPV6_NEIGHBOR_SOLICITATION,
  readNeighbor,
  writeNeighbor,
} from '../../src/packet/neighbour-discovery.js';
import { VNET_HEADER_BYTES } from '../../src/packet/virtio.js';
import { until } from '../support/lab.js';
import { DEVICE, ETH0, type MirrorLab, mirrorLab } from '../support/mirror.js';
import { withoutRoot } from '../support/netns.js';

const OWN_MAC = Buffer.from('020000000009', 'hex');
const BROADCAST = Buffer.alloc(6, 0xff);
const NEIGHBOUR = '02:00:00:00:00:03';
const NEIGHBOUR_MAC = Buffer.from('020000000003', 'hex');
const bytes = (text: string): Buffer => parseIpv4(text) ?? parseIpv6(text) ?? Buffer.alloc(0);

/** A question of 10.9.0.1 by ARP. */
function arpFrame(target: string, operation: number = ARP_REQUEST, sender = '10.9.0.1'): Buffer {
  const frame = Buffer.alloc(42);
  writeEthernetHeader(frame, 0, BROADCAST, OWN_MAC, 0x0806);
  writeArp(frame, 14, {
    operation,
    senderMac: OWN_MAC,
    senderIp: bytes(sender),
    targetMac: Buffer.alloc(6),
    targetIp: bytes(target),
  });
  return frame;
}

/** A question of fd09::1, or an answer, by neighbour discovery. */
function neighborFrame(target: string, type: 135 | 136 = ICMPV6_NEIGHBOR_SOLICITATION): Buffer {
  const frame = Buffer.alloc(86);
  const [source, destination] = [bytes('fd09::1'), bytes('ff02::1:ff00:3')];
  const message = { type, flags: 0, source, destination, target: bytes(target), mac: OWN_MAC };
  writeNeighbor(frame, 0, Buffer.from('3333ff000003', 'hex'), OWN_MAC, message);
  return frame;
}

class Scene {
  readonly written: Buffer[] = [];
  readonly asked: string[] = [];
  /** Answers the oldest question. */
  readonly answers: ((link: string) => void)[] = [];
  readonly neighbours = new VifNeighbours(
    {
      write: (buf, vnet, offset, length) => {
        this.written.push(Buffer.from(buf.subarray(offset, offset + length)));
        return buf.subarray(vnet, vnet + VNET_HEADER_BYTES).every((byte) => byte === 0) ? 0 : -1;
      },
    },
    (address) => {
      this.asked.push(address);
      return new Promise((resolve) => this.answers.push(resolve));
    },
  );
  private readonly view = new FrameView();

  handle(frame: Buffer): boolean {
    const buf = Buffer.concat([Buffer.alloc(30, 0xee), frame, Buffer.alloc(5, 0xee)]);
    this.view.parse(buf, 30, frame.length);
    const taken = this.neighbours.handle(buf, 30, frame.length, this.view);
    // Nobody may go by the frame after the call.
    buf.fill(0);
    return taken;
  }

  async answer(link: string): Promise<void> {
    this.answers.shift()?.(link);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

t.test('an ARP request is answered by the neighbour that the forwarder knows', async (t) => {
  const scene = new Scene();
  t.equal(scene.handle(arpFrame('10.9.0.3')), true);
  t.same(scene.asked, ['10.9.0.3']);
  t.same(scene.written, []);
  await scene.answer(NEIGHBOUR);
  t.equal(scene.written.length, 1);
  const reply = scene.written[0] ?? Buffer.alloc(0);
  t.equal(reply.toString('hex', 0, 14), '0200000000090200000000030806');
  t.match(readArp(reply, 14, 28), {
    operation: ARP_REPLY,
    senderMac: NEIGHBOUR_MAC,
    senderIp: bytes('10.9.0.3'),
    targetMac: OWN_MAC,
    targetIp: bytes('10.9.0.1'),
  });
});

t.test('a neighbor solicitation is answered by an advertisement', async (t) => {
  const scene = new Scene();
  t.equal(scene.handle(neighborFrame('fd09::3')), true);
  t.same(scene.asked, ['fd09::3']);
  await scene.answer(NEIGHBOUR);
  const reply = scene.written[0] ?? Buffer.alloc(0);
  const view = new FrameView();
  view.parse(reply, 0, reply.length);
  t.match(readNeighbor(reply, view), {
    type: 136,
    source: bytes('fd09::3'),
    destination: bytes('fd09::1'),
    mac: NEIGHBOUR_MAC,
  });
});

t.test('who does not answer is not answered for, nor is anyone while the session is lost', async (t) => {
  const scene = new Scene();
  scene.handle(arpFrame('10.9.0.3'));
  await scene.answer('');
  scene.handle(arpFrame('10.9.0.3'));
  await scene.answer('not a MAC');
  t.same(scene.asked, ['10.9.0.3', '10.9.0.3']);
  t.same(scene.written, []);
  const lost = new VifNeighbours({ write: () => t.fail('written') as never }, () => Promise.reject(new Error('lost')));
  const view = new FrameView();
  const frame = arpFrame('10.9.0.3');
  view.parse(frame, 0, frame.length);
  t.equal(lost.handle(frame, 0, frame.length, view), true);
  await new Promise((resolve) => setImmediate(resolve));
});

t.test('who asks again meanwhile gets one answer, and the question goes out once', async (t) => {
  const scene = new Scene();
  for (let count = 0; count < 3; count++) scene.handle(arpFrame('10.9.0.3'));
  t.equal(scene.asked.length, 1);
  await scene.answer(NEIGHBOUR);
  t.equal(scene.written.length, 1);
  scene.handle(arpFrame('10.9.0.3'));
  t.equal(scene.asked.length, 2);
});

t.test('questions are bounded: those beyond wait until the kernel asks again', async (t) => {
  const scene = new Scene();
  for (let host = 0; host < MAX_NEIGHBOUR_QUESTIONS + 10; host++) {
    t.equal(scene.handle(arpFrame(`10.9.${host >> 8}.${host & 255}`, ARP_REQUEST, '10.8.0.1')), true);
  }
  t.equal(scene.asked.length, MAX_NEIGHBOUR_QUESTIONS);
  await scene.answer('');
  t.equal(scene.handle(arpFrame('10.9.9.9')), true);
  t.equal(scene.asked.at(-1), '10.9.9.9');
});

t.test('an announcement is taken and asks nobody', async (t) => {
  const scene = new Scene();
  t.equal(scene.handle(arpFrame('10.9.0.1')), true);
  t.same(scene.asked, []);
});

t.test('while a packet socket covers ARP its requests cross; neighbour discovery is answered as before', async (t) => {
  const scene = new Scene();
  scene.handle(arpFrame('10.9.0.3'));
  scene.neighbours.arpCrosses = true;
  t.equal(scene.handle(arpFrame('10.9.0.3')), false);
  await scene.answer(NEIGHBOUR);
  t.same(scene.written, [], 'the wire answers');
  t.equal(scene.handle(neighborFrame('fd09::3')), true);
});

t.test('other frames are not taken', async (t) => {
  const scene = new Scene();
  t.equal(scene.handle(arpFrame('10.9.0.3', ARP_REPLY)), false);
  t.equal(scene.handle(neighborFrame('fd09::3', ICMPV6_NEIGHBOR_ADVERTISEMENT)), false);
  const other = Buffer.alloc(60);
  writeEthernetHeader(other, 0, BROADCAST, OWN_MAC, 0x88b5);
  t.equal(scene.handle(other), false);
  t.equal(scene.handle(arpFrame('10.9.0.3').subarray(0, 30)), false);
  t.same(scene.asked, []);
});

/** A mirror whose neighbours are answered for: those whose address ends with a 3 are there. */
async function answered(t: { teardown(undo: () => unknown): void }): Promise<MirrorLab> {
  const lab = await mirrorLab(t);
  const resolve = (address: string): Promise<string> => Promise.resolve(address.endsWith('3') ? NEIGHBOUR : '');
  const neighbours = new VifNeighbours(lab.mirror.device, resolve);
  const view = new FrameView();
  lab.frames.onFrame = (frame) => {
    view.parse(frame, 0, frame.length);
    neighbours.handle(frame, 0, frame.length, view);
  };
  lab.mirror.apply(ETH0);
  return lab;
}

t.test('the kernel of a mirror takes the answers for those of the neighbours', { skip: withoutRoot }, async (t) => {
  const { netns } = await answered(t);
  // Whoever sends to a neighbour makes the kernel ask for it; there is nothing at the other end.
  netns.run('bash -c echo>/dev/udp/10.9.0.3/9');
  netns.run('bash -c echo>/dev/udp/10.9.0.4/9');
  netns.run('bash -c echo>/dev/udp/fd09::3/9');
  const neighbours = (): string => netns.run(`ip neigh show dev ${DEVICE}`);
  await until(() => /10\.9\.0\.3 lladdr 02:00:00:00:00:03 REACHABLE/.test(neighbours()));
  await until(() => /fd09::3 lladdr 02:00:00:00:00:03 (router )?REACHABLE/.test(neighbours()));
  t.notMatch(neighbours(), /10\.9\.0\.4 lladdr/);
  // Asked three times a second apart, then given up.
  await until(() => /10\.9\.0\.4 +FAILED/.test(neighbours()));
  t.pass();
});
