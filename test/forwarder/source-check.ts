import t from 'tap';
import { isOwnSource, type OwnAddresses } from '../../src/forwarder/source-check.js';
import { FrameView, type LinkType } from '../../src/packet/headers.js';
import { writeNeighbor } from '../../src/packet/neighbour-discovery.js';
import { ethernet, IPV6_A, IPV6_B, ipv4, ipv6, MAC_A, MAC_B, udp } from '../vectors/packet-frames.js';

const own: OwnAddresses = { mac: MAC_A, ip: [Buffer.from([10, 0, 0, 1]), IPV6_A] };

/** Among other bytes, as in a message. */
function isOwn(frame: Buffer, linkType: LinkType = 'ethernet', addresses = own): boolean {
  const message = Buffer.concat([Buffer.alloc(5, 0xff), frame, Buffer.alloc(5, 0xff)]);
  const view = new FrameView();
  view.parse(message, 5, frame.length, linkType);
  return isOwnSource(addresses, view, message, 5, linkType);
}

const body = udp(520, 520, Buffer.alloc(8));
const from4 = (source: string): Buffer => ipv4({ protocol: 17, source }, body);
const fromMac = (frame: Buffer, mac: Buffer): Buffer => Buffer.concat([frame.subarray(0, 6), mac, frame.subarray(12)]);

function arp(mac: Buffer, ip: string): Buffer {
  const packet = Buffer.alloc(28);
  packet.writeUInt16BE(1, 0);
  packet.writeUInt16BE(0x0800, 2);
  packet.set([6, 4, 0, 1], 4);
  mac.copy(packet, 8);
  packet.set(ip.split('.').map(Number), 14);
  return ethernet(0x0806, packet);
}

function spoofed6(): Buffer {
  const packet = ipv6(17, body);
  packet[23] = 99;
  return packet;
}

/** Says it is longer than it is, so that its source cannot be read. */
function overlong(packet: Buffer): Buffer {
  const copy = Buffer.from(packet);
  copy.writeUInt16BE(9000, copy[0]! >> 4 === 4 ? 2 : 4);
  return copy;
}

t.test('frames leave with our own addresses only', async (t) => {
  const good = ethernet(0x0800, from4('10.0.0.1'));
  const cases: [what: string, frame: Buffer, own: boolean][] = [
    ['our IPv4 address', good, true],
    ['our IPv6 address', ethernet(0x86dd, ipv6(17, body)), true],
    ['another IPv4 address', ethernet(0x0800, from4('10.0.0.3')), false],
    ['another IPv6 address', ethernet(0x86dd, spoofed6()), false],
    ['no IPv4 address yet, as DHCP', ethernet(0x0800, from4('0.0.0.0')), true],
    ['another MAC address', fromMac(good, MAC_B), false],
    ['another MAC address without IP', fromMac(ethernet(0x88cc, Buffer.alloc(46)), MAC_B), false],
    ['no IP', ethernet(0x88cc, Buffer.alloc(46)), true],
    ['ARP about us', arp(MAC_A, '10.0.0.1'), true],
    ['an ARP probe', arp(MAC_A, '0.0.0.0'), true],
    ['ARP about another address', arp(MAC_A, '10.0.0.3'), false],
    ['ARP about another MAC address', arp(MAC_B, '10.0.0.1'), false],
    ['our address behind a tag', ethernet(0x0800, from4('10.0.0.1'), [[0x8100, 5]]), true],
    ['another address behind a tag', ethernet(0x0800, from4('10.0.0.3'), [[0x8100, 5]]), false],
    ['IPv4 that cannot be read', ethernet(0x0800, overlong(from4('10.0.0.3'))), false],
    ['IPv6 that cannot be read', ethernet(0x86dd, overlong(spoofed6())), false],
    ['a cut IPv4 header', ethernet(0x0800, from4('10.0.0.3').subarray(0, 19)), false],
    [
      'IPv6 whose extension headers lead beyond its end',
      ethernet(0x86dd, ipv6(17, Buffer.alloc(0), [[60, Buffer.from([0, 9, 0, 0, 0, 0, 0, 0])]])),
      false,
    ],
    [
      'more tags than are read',
      ethernet(0x0800, from4('10.0.0.3'), [
        [0x88a8, 5],
        [0x8100, 5],
        [0x8100, 5],
      ]),
      false,
    ],
  ];
  for (const [what, frame, expected] of cases) t.equal(isOwn(frame), expected, what);
});

/** A message of neighbour discovery from our addresses. */
function nd(type: number, target: Buffer, mac: Buffer | null, more = 0): Buffer {
  const out = Buffer.alloc(200);
  const message = { type: type as 135, flags: 0, source: IPV6_A, destination: IPV6_B, target, mac };
  const length = writeNeighbor(out, 0, MAC_B, MAC_A, message);
  if (more > 0) out.writeUInt16BE(out.readUInt16BE(18) + more, 18);
  return out.subarray(0, length + more);
}

function icmp6(type: number, rest: Buffer): Buffer {
  return ethernet(0x86dd, ipv6(58, Buffer.concat([Buffer.from([type, 0, 0, 0, 0, 0, 0, 0]), rest])));
}

t.test('neighbour discovery tells of ourselves alone', async (t) => {
  const option = (mac: Buffer): Buffer => Buffer.concat([Buffer.from([1, 1]), mac]);
  const cases: [what: string, frame: Buffer, own: boolean][] = [
    ['our address at our MAC', nd(136, IPV6_A, MAC_A), true],
    ['our address, without a MAC', nd(136, IPV6_A, null), true],
    ['our address at another MAC', nd(136, IPV6_A, MAC_B), false],
    ["another's address at our MAC", nd(136, IPV6_B, MAC_A), false],
    ['two options', nd(136, IPV6_A, MAC_A, 8), false],
    ['a question about another address', nd(135, IPV6_B, MAC_A), true],
    ['a question with another MAC', nd(135, IPV6_B, MAC_B), false],
    ['a router solicitation', icmp6(133, option(MAC_A)), true],
    ['a router solicitation without a MAC', icmp6(133, Buffer.alloc(0)), true],
    ['a router solicitation with another MAC', icmp6(133, option(MAC_B)), false],
    ['a router advertisement', icmp6(134, Buffer.alloc(8)), false],
    ['a redirect', icmp6(137, Buffer.alloc(32)), false],
    ['an echo request', icmp6(128, Buffer.alloc(56)), true],
    ['an advertisement that is cut', icmp6(136, Buffer.alloc(4)), false],
  ];
  for (const [what, frame, expected] of cases) t.equal(isOwn(frame), expected, what);
});

t.test('a link without MAC addresses has IP addresses to look at', async (t) => {
  const addresses = { mac: Buffer.alloc(0), ip: own.ip };
  t.equal(isOwn(from4('10.0.0.1'), 'raw', addresses), true);
  t.equal(isOwn(from4('10.0.0.3'), 'raw', addresses), false);
  t.equal(isOwn(ipv6(17, body), 'raw', addresses), true);
  t.equal(isOwn(spoofed6(), 'raw', addresses), false);
});

t.test('an interface without addresses sends from none', async (t) => {
  const addresses = { mac: MAC_A, ip: [] };
  t.equal(isOwn(ethernet(0x0800, from4('10.0.0.1')), 'ethernet', addresses), false);
  t.equal(isOwn(ethernet(0x0800, from4('0.0.0.0')), 'ethernet', addresses), true);
});
