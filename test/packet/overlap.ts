/** src/packet/overlap.ts against a slow twin: frames for every pair of addresses, and whether one of them matches both. */
import fc from 'fast-check';
import t from 'tap';
import { FrameView, matchesProtocol, SIDE_DESTINATION } from '../../src/packet/headers.js';
import { overlaps } from '../../src/packet/overlap.js';
import { parseProtocolAddress, type ProtocolAddress } from '../../src/packet/protocol-address.js';
import {
  ethernet,
  ethernetFrames,
  ipv4,
  IPV6_A,
  IPV6_B,
  ipv6,
  protocolAddressTexts,
  udp,
} from '../vectors/packet-frames.js';

const parse = (text: string): ProtocolAddress => parseProtocolAddress(text, { ranges: true });

const ADDRESSES_4 = ['10.0.0.1', '10.0.0.2'];
const ADDRESSES_6 = ['2001:db8::1', '2001:db8::2'];
const PROTOCOLS = [1, 6, 17, 58, 89];
const PORTS = [53, 60, 80];
/** Of the addresses below: one for each ether type, protocol, address and port, and one that is none of them. */
const texts = fc.oneof(
  fc.constantFrom('*', 'arp', 'ether:0x88cc', 'ether:0x0800', 'ether:0x86dd', 'ether:0x8100', 'ether:0x88a8'),
  fc
    .record({
      head: fc.constantFrom('tcp', 'udp', 'icmp', 'icmp6', 'ip:1', 'ip:89'),
      address: fc.constantFrom(
        '',
        '',
        ...ADDRESSES_4.map((one) => `:${one}`),
        ...ADDRESSES_6.map((one) => `:[${one}]`),
      ),
      port: fc.constantFrom('', ':53', ':80', ':50-60', ':60-90'),
    })
    .map(({ head, address, port }) => {
      const bare = head === 'icmp6' && address.includes('.') ? '' : address;
      return `${head}${bare}${head === 'tcp' || head === 'udp' ? port : ''}`;
    }),
);

function* framesOfUniverse(): Generator<Buffer> {
  const payloads: [number, Buffer][] = [
    [0x0806, Buffer.alloc(46)],
    [0x88cc, Buffer.alloc(46)],
    [0x88b5, Buffer.alloc(46)],
  ];
  for (const protocol of PROTOCOLS) {
    for (const port of PORTS) {
      const segment = udp(9, port, Buffer.alloc(8));
      for (const destination of ADDRESSES_4) payloads.push([0x0800, ipv4({ protocol, destination }, segment)]);
      for (const [index] of ADDRESSES_6.entries()) {
        const destination = index === 0 ? IPV6_A : IPV6_B;
        payloads.push([0x86dd, ipv6(protocol, segment, [], destination)]);
      }
    }
  }
  for (const [type, payload] of payloads) {
    for (const tags of [
      [],
      [[0x8100, 7]],
      [[0x88a8, 7]],
      [
        [0x88a8, 7],
        [0x8100, 8],
        [0x8100, 9],
      ],
    ] as const) {
      yield ethernet(type, payload, tags);
    }
  }
}

const universe = [...framesOfUniverse()].map((frame) => {
  const view = new FrameView();
  if (!view.parse(frame, 0, frame.length)) throw new Error('no frame');
  return { view, frame };
});

const matchesBoth = (one: ProtocolAddress, other: ProtocolAddress, view: FrameView, frame: Buffer): boolean =>
  matchesProtocol(one, view, frame, SIDE_DESTINATION) && matchesProtocol(other, view, frame, SIDE_DESTINATION);

t.test('two addresses overlap exactly if some frame of a small world matches both', async () => {
  fc.assert(
    fc.property(texts, texts, (a, b) => {
      const [one, other] = [parse(a), parse(b)];
      const twin = universe.some(({ view, frame }) => matchesBoth(one, other, view, frame));
      if (overlaps(one, other) !== twin)
        throw new Error(`${a} and ${b}: a frame ${twin ? 'matches' : 'never matches'} both`);
    }),
    { numRuns: 5000 },
  );
});

t.test('whatever frame matches two addresses, they overlap, whichever comes first', async () => {
  fc.assert(
    fc.property(protocolAddressTexts, protocolAddressTexts, ethernetFrames, (a, b, frame) => {
      const [one, other] = [parse(a), parse(b)];
      if (overlaps(one, other) !== overlaps(other, one)) return false;
      const view = new FrameView();
      if (!view.parse(frame, 0, frame.length)) return true;
      return !matchesBoth(one, other, view, frame) || overlaps(one, other);
    }),
    { numRuns: 20_000 },
  );
});

t.test('an address overlaps itself, `*` overlaps all', async (t) => {
  for (const text of ['*', 'arp', 'ether:0x8100', 'udp', 'udp:53', 'udp:10.0.0.1:53', 'icmp6:[2001:db8::1]']) {
    t.ok(overlaps(parse(text), parse(text)), text);
    t.ok(overlaps(parse('*'), parse(text)), text);
  }
});
