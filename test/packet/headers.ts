/** src/packet/headers.ts against frames made field by field and a slow twin that reads them by slices. */
import fc from 'fast-check';
import t from 'tap';
import { FrameView, matchesProtocol } from '../../src/packet/headers.js';
import type { LinkType } from '../../src/packet/headers.js';
import { parseProtocolAddress } from '../../src/packet/protocol-address.js';
import {
  ethernet,
  ethernetFrames,
  fragmentHeader,
  IPV6_B,
  ipPackets,
  ipv4,
  ipv6,
  protocolAddressTexts,
  tcp,
  udp,
} from '../vectors/packet-frames.js';

const view = new FrameView();
const none = Buffer.alloc(0);

t.test('a golden TCP frame in a buffer of junk is found field by field', async (t) => {
  const frame = Buffer.from(
    '020000000002' +
      '020000000001' +
      '0800' + // Ethernet
      '4500002c123440004006' +
      '9e6e' +
      '0a000001' +
      '0a000002' + // IPv4
      '9c4000501122334455667788' +
      '601801f500000000' +
      '020405b4', // TCP with one option
    'hex',
  );
  const buf = Buffer.alloc(frame.length + 20, 0xa5);
  frame.copy(buf, 7);
  t.equal(view.parse(buf, 7, frame.length), true);
  t.match(view, {
    etherType: 0x0800,
    outerEtherType: 0x0800,
    vlanDepth: 0,
    l3Offset: 7 + 14,
    l3End: 7 + 58,
    ipVersion: 4,
    protocol: 6,
    l4Offset: 7 + 34,
    fragment: 0,
    fragmentId: 0,
    sourcePort: 40000,
    destinationPort: 80,
    sourceOffset: 7 + 26,
    destinationOffset: 7 + 30,
    addressLength: 4,
  });
});

t.test('a golden UDP frame over IPv6 is found field by field', async (t) => {
  const packet = ipv6(17, udp(546, 547, Buffer.from('dhcp')));
  t.equal(view.parse(packet, 0, packet.length, 'raw'), true);
  t.match(view, { etherType: 0x86dd, l3Offset: 0, ipVersion: 6, protocol: 17, l4Offset: 40, addressLength: 16 });
  t.match(view, { sourcePort: 546, destinationPort: 547, sourceOffset: 8, destinationOffset: 24, l3End: 52 });
});

t.test('up to two VLAN tags stand before the ether type, a third is the ether type', async (t) => {
  const packet = ipv4({ protocol: 17 }, udp(1, 2, none));
  const tags: [number, number][] = [
    [0x88a8, 5],
    [0x8100, 6],
    [0x8100, 7],
  ];
  for (let depth = 0; depth <= 2; depth += 1) {
    const frame = ethernet(0x0800, packet, tags.slice(0, depth));
    t.equal(view.parse(frame, 0, frame.length), true);
    t.match(view, { etherType: 0x0800, vlanDepth: depth, l3Offset: 14 + 4 * depth, ipVersion: 4, destinationPort: 2 });
    t.equal(view.outerEtherType, depth === 0 ? 0x0800 : 0x88a8);
  }
  const frame = ethernet(0x0800, packet, tags);
  t.equal(view.parse(frame, 0, frame.length), true);
  t.match(view, { etherType: 0x8100, vlanDepth: 2, ipVersion: 0, protocol: -1 });
});

t.test('a frame without IP has an ether type and nothing else', async (t) => {
  for (const type of [0x0806, 0x88cc, 0x0026]) {
    const frame = ethernet(type, Buffer.alloc(46));
    t.equal(view.parse(frame, 0, frame.length), true);
    t.match(view, { etherType: type, ipVersion: 0, protocol: -1, l4Offset: 0, sourcePort: -1, addressLength: 0 });
  }
});

t.test('nothing of the frame before is left in the view', async (t) => {
  const first = ethernet(0x86dd, ipv6(6, tcp({}, none), [fragmentHeader(0, true, 77)]), [[0x8100, 1]]);
  view.parse(first, 0, first.length);
  t.match(view, { fragment: 1, fragmentId: 77, vlanDepth: 1, sourcePort: 40000 });
  const arp = ethernet(0x0806, Buffer.alloc(28));
  const fresh = new FrameView();
  view.parse(arp, 0, arp.length);
  fresh.parse(arp, 0, arp.length);
  t.same({ ...view }, { ...fresh });
});

t.test('padding after the IP packet is not part of it', async (t) => {
  const frame = Buffer.concat([
    ethernet(0x0800, ipv4({ protocol: 17 }, udp(1, 2, none).subarray(0, 2))),
    Buffer.alloc(30, 9),
  ]);
  t.equal(view.parse(frame, 0, frame.length), true);
  t.match(view, { l3End: 36, sourcePort: -1, destinationPort: -1, l4Offset: 34 });
});

t.test('only the first fragment has ports, and all have the identification', async (t) => {
  const first = ipv4({ protocol: 17, id: 0x4711, fragment: 0x2000 }, udp(1, 53, Buffer.alloc(8)));
  view.parse(first, 0, first.length, 'raw');
  t.match(view, { fragment: 1, fragmentId: 0x4711, destinationPort: 53, protocol: 17 });
  const later = ipv4({ protocol: 17, id: 0x4711, fragment: 0x2002 }, udp(1, 53, Buffer.alloc(8)));
  view.parse(later, 0, later.length, 'raw');
  t.match(view, { fragment: 2, fragmentId: 0x4711, destinationPort: -1, protocol: 17, l4Offset: 0 });
  const whole = ipv4({ protocol: 17, id: 0x4711, fragment: 0x4000 }, udp(1, 53, none));
  view.parse(whole, 0, whole.length, 'raw');
  t.match(view, { fragment: 0, fragmentId: 0, destinationPort: 53 });
});

t.test('IPv6 extension headers are walked up to a later fragment', async (t) => {
  const datagram = udp(1, 53, Buffer.alloc(8));
  const long = Buffer.concat([Buffer.from([0, 2]), Buffer.alloc(22)]);
  const packet = ipv6(17, datagram, [
    [0, Buffer.alloc(8)],
    [60, long],
    [43, Buffer.alloc(8)],
    fragmentHeader(0, true, 9),
  ]);
  t.equal(view.parse(packet, 0, packet.length, 'raw'), true);
  t.match(view, { protocol: 17, l4Offset: 40 + 8 + 24 + 8 + 8, fragment: 1, fragmentId: 9, destinationPort: 53 });
  const later = ipv6(17, datagram, [[0, Buffer.alloc(8)], fragmentHeader(5, false, 0xfedcba98)]);
  t.equal(view.parse(later, 0, later.length, 'raw'), true);
  t.match(view, { protocol: 17, l4Offset: 0, fragment: 2, fragmentId: 0xfedcba98, destinationPort: -1 });
  const atomic = ipv6(17, datagram, [fragmentHeader(0, false, 9)]);
  view.parse(atomic, 0, atomic.length, 'raw');
  t.match(view, { fragment: 0, fragmentId: 0, destinationPort: 53 });
});

t.test('malformed IP is a frame on Ethernet and nothing on a raw link', async (t) => {
  const good = ipv4({ protocol: 17 }, udp(1, 2, none));
  const change = (at: number, value: number): Buffer => {
    const copy = Buffer.from(good);
    copy[at] = value;
    return copy;
  };
  const cutChain = ipv6(17, Buffer.alloc(4), [[0, Buffer.from([0, 1, 0, 0, 0, 0, 0, 0])]]);
  const packets = [change(0, 0x44), change(0, 0x4f), change(3, 19), change(3, 29), good.subarray(0, 19), cutChain];
  for (const packet of packets) {
    t.equal(view.parse(packet, 0, packet.length, 'raw'), false);
    const frame = ethernet(packet === cutChain ? 0x86dd : 0x0800, packet);
    t.equal(view.parse(frame, 0, frame.length), true);
    t.match(view, { ipVersion: 0, protocol: -1, sourceOffset: 0, fragment: 0, l3End: frame.length });
  }
  t.equal(view.parse(change(0, 0x55), 0, 28, 'raw'), false, 'version 5');
  t.equal(view.parse(none, 0, 0, 'raw'), false);
});

t.test('a frame shorter than its link layer header is none', async (t) => {
  const frame = ethernet(0x0800, ipv4({ protocol: 17 }, udp(1, 2, none)), [[0x8100, 1]]);
  for (let length = 0; length < frame.length; length += 1) {
    t.equal(view.parse(frame, 0, length), length >= 14, `${length} bytes`);
    t.equal(view.ipVersion, 0);
  }
});

const matches = (text: string, frame: Buffer, side: 0 | 1, linkType: LinkType = 'ethernet'): boolean => {
  view.parse(frame, 0, frame.length, linkType);
  return matchesProtocol(parseProtocolAddress(text, { ranges: true }), view, frame, side);
};

t.test('a received frame matches by its destination, a sent one by its source', async (t) => {
  const frame = ethernet(
    0x0800,
    ipv4({ protocol: 17, source: '10.0.0.1', destination: '10.0.0.2' }, udp(1000, 53, none)),
  );
  for (const text of ['*', 'ether:0x0800', 'udp', 'udp:53', 'udp:50-60', 'udp:10.0.0.2', 'udp:10.0.0.2:53']) {
    t.equal(matches(text, frame, 0), true, text);
  }
  for (const text of ['udp:1000', 'udp:10.0.0.1', 'udp:10.0.0.1:1000', 'udp'])
    t.equal(matches(text, frame, 1), true, text);
  for (const text of [
    'arp',
    'tcp',
    'icmp',
    'udp:54',
    'udp:54-60',
    'udp:10.0.0.1',
    'udp:[2001:db8::2]',
    'ip:4',
    'udp:1000',
  ]) {
    t.equal(matches(text, frame, 0), false, text);
  }
});

t.test('icmp is both ICMPs, ip:1 and icmp6 are one each', async (t) => {
  const echo = ipv4({ protocol: 1 }, Buffer.from('0800000000000000', 'hex'));
  const echo6 = ipv6(58, Buffer.from('8000000000000000', 'hex'));
  t.same(
    ['icmp', 'ip:1', 'icmp6'].map((text) => matches(text, echo, 0, 'raw')),
    [true, true, false],
  );
  t.same(
    ['icmp', 'ip:1', 'icmp6'].map((text) => matches(text, echo6, 0, 'raw')),
    [true, false, true],
  );
  t.equal(matches('icmp6:[2001:db8::2]', echo6, 0, 'raw'), true);
  t.equal(matches('icmp6:[2001:db8::1]', echo6, 0, 'raw'), false);
});

t.test('ether:0x8100 is every frame with that tag, other ether types are found behind it', async (t) => {
  const frame = ethernet(0x88cc, Buffer.alloc(46), [[0x8100, 1]]);
  t.equal(matches('ether:0x8100', frame, 0), true);
  t.equal(matches('ether:0x88cc', frame, 0), true);
  t.equal(matches('ether:0x88a8', frame, 0), false);
});

t.test('a later fragment matches its protocol and address, and no port', async (t) => {
  const frame = ethernet(0x0800, ipv4({ protocol: 17, fragment: 5 }, Buffer.alloc(8)));
  t.equal(matches('udp', frame, 0), true);
  t.equal(matches('udp:10.0.0.2', frame, 0), true);
  t.equal(matches('udp:1-65535', frame, 0), false);
});

/** What a frame says, read by slices. null: not IP. */
function slowRead(packet: Buffer): { protocol: number; ends: [Buffer, Buffer]; ports: [number, number] } | null {
  const version = packet.length > 0 ? packet[0]! >> 4 : 0;
  let ends: [Buffer, Buffer];
  let protocol: number;
  let rest: Buffer;
  let later = false;
  if (version === 4) {
    const header = packet.subarray(0, (packet[0]! & 15) * 4);
    if (header.length < 20 || header.length !== (packet[0]! & 15) * 4) return null;
    const total = header.readUInt16BE(2);
    if (total > packet.length || total < header.length) return null;
    rest = packet.subarray(header.length, total);
    protocol = header[9]!;
    ends = [header.subarray(16, 20), header.subarray(12, 16)];
    later = header.readUInt16BE(6) % 8192 > 0;
  } else {
    if (version !== 6 || packet.length < 40 || packet.readUInt16BE(4) > packet.length - 40) return null;
    rest = packet.subarray(40, 40 + packet.readUInt16BE(4));
    protocol = packet[6]!;
    ends = [packet.subarray(24, 40), packet.subarray(8, 24)];
    while ([0, 43, 44, 60].includes(protocol) && !later) {
      const bytes = protocol === 44 ? 8 : 8 + 8 * (rest[1] ?? 0);
      if (rest.length < Math.max(8, bytes)) return null;
      later = protocol === 44 && rest.readUInt16BE(2) >= 8;
      protocol = rest[0]!;
      rest = rest.subarray(bytes);
    }
  }
  const withPorts = [6, 17, 132, 136].includes(protocol) && !later && rest.length >= 4;
  return { protocol, ends, ports: withPorts ? [rest.readUInt16BE(2), rest.readUInt16BE(0)] : [-1, -1] };
}

t.test('any frame matches what the slow reading says', async () => {
  const local = Buffer.from(IPV6_B);
  fc.assert(
    fc.property(ethernetFrames, protocolAddressTexts, fc.constantFrom(0, 1), fc.nat(9), (frame, text, side, shift) => {
      const address = parseProtocolAddress(text, { ranges: true });
      const buf = Buffer.concat([local.subarray(0, shift), frame, local]);
      const parsed = view.parse(buf, shift, frame.length);
      if (!parsed) return frame.length < 14;
      if (address.kind === 'ether') {
        const types = [view.etherType, view.outerEtherType];
        return matchesProtocol(address, view, buf, side === 0 ? 0 : 1) === types.includes(address.etherType);
      }
      let at = 12;
      for (let depth = 0; depth < 2 && at + 6 <= frame.length; depth += 1) {
        if ([0x8100, 0x88a8].includes(frame.readUInt16BE(at))) at += 4;
      }
      const type = frame.readUInt16BE(at);
      const packet = frame.subarray(at + 2);
      const wanted = type === 0x0800 ? 4 : type === 0x86dd ? 6 : -1;
      const slow = packet.length > 0 && packet[0]! >> 4 === wanted ? slowRead(packet) : null;
      const expected =
        slow !== null &&
        address.protocols.includes(slow.protocol) &&
        (address.address === null || address.address.equals(slow.ends[side]!)) &&
        (address.portLow < 0 || (slow.ports[side]! >= address.portLow && slow.ports[side]! <= address.portHigh));
      return matchesProtocol(address, view, buf, side === 0 ? 0 : 1) === expected;
    }),
    { numRuns: 20_000 },
  );
});

t.test('whatever the bytes, reading stays within the frame', async () => {
  fc.assert(
    fc.property(ipPackets, fc.uint8Array({ maxLength: 4 }), (packet, junk) => {
      const buf = Buffer.concat([packet, Buffer.from(junk)]);
      const alone = view.parse(packet, 0, packet.length, 'raw');
      const before = JSON.stringify(view);
      const within = view.parse(buf, 0, packet.length, 'raw');
      return alone === within && JSON.stringify(view) === before && view.l3End <= packet.length;
    }),
    { numRuns: 5000 },
  );
});
