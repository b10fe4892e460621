/** src/packet/overlap.ts against a slow twin: frames for every pair of addresses, and whether one of them matches both. */
import fc from 'fast-check';
import t from 'tap';
import { FrameView, matchesProtocol, SIDE_DESTINATION } from '../../src/packet/headers.js';
import { covers, overlaps } from '../../src/packet/overlap.js';
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

t.test('a protocol address covers those that match nothing else', async (t) => {
  const cases: [outer: string, inner: string, covered: boolean][] = [
    ['*', '*', true],
    ['*', 'arp', true],
    ['*', 'tcp:10.0.0.1:80', true],
    ['arp', '*', false],
    ['arp', 'arp', true],
    ['arp', 'ether:0x0806', true],
    ['arp', 'ether:0x88cc', false],
    ['ether:0x0800', 'udp', false],
    ['udp', '*', false],
    ['udp', 'arp', false],
    ['udp', 'udp', true],
    ['udp', 'tcp', false],
    ['udp', 'udplite', false],
    ['udp', 'udp:520', true],
    ['udp', 'udp:10.0.0.1:520', true],
    ['udp', 'udp:1-65535', true],
    ['udp:520', 'udp', false],
    ['udp:520', 'udp:520', true],
    ['udp:520', 'udp:521', false],
    ['udp:520', 'udp:520-521', false],
    ['udp:520', 'udp:[2001:db8::1]:520', true],
    ['udp:100-200', 'udp:100', true],
    ['udp:100-200', 'udp:200', true],
    ['udp:100-200', 'udp:99', false],
    ['udp:100-200', 'udp:201', false],
    ['udp:100-200', 'udp:120-180', true],
    ['udp:100-200', 'udp:100-200', true],
    ['udp:100-200', 'udp:150-250', false],
    ['udp:1-65535', 'udp', false],
    ['udp:10.0.0.1', 'udp', false],
    ['udp:10.0.0.1', 'udp:520', false],
    ['udp:10.0.0.1', 'udp:10.0.0.1:520', true],
    ['udp:10.0.0.1', 'udp:10.0.0.2:520', false],
    ['udp:10.0.0.1', 'udp:[2001:db8::1]', false],
    ['udp:[2001:db8::1]:1-9', 'udp:[2001:DB8:0::1]:7', true],
    ['ip:17', 'udp:520', true],
    ['ip:89', 'ip:89', true],
    ['ip:89', 'ip:88', false],
    ['icmp', 'icmp', true],
    ['icmp', 'icmp6', true],
    ['icmp', 'ip:1', true],
    ['icmp', 'ip:58', true],
    ['icmp', 'icmp:10.0.0.1', true],
    ['icmp6', 'icmp', false],
    ['ip:1', 'icmp', false],
    ['ip:1', 'icmp:10.0.0.1', true],
    ['ip:1', 'icmp:[2001:db8::1]', false],
    ['icmp6', 'icmp:[2001:db8::1]', true],
    ['icmp6', 'icmp:10.0.0.1', false],
  ];
  for (const [outer, inner, covered] of cases) {
    t.equal(covers(parse(outer), parse(inner)), covered, `${outer} covers ${inner}`);
  }
});
