/**
 * Frames for the tests of src/packet, made and verified by code that shares nothing with it: slow, plain, from the RFCs.
 */
import fc from 'fast-check';

export const MAC_A = Buffer.from('020000000001', 'hex');
export const MAC_B = Buffer.from('020000000002', 'hex');

/** An Ethernet frame; `tags` are [ether type, tag control information], the outermost first. */
export function ethernet(type: number, payload: Buffer, tags: readonly (readonly [number, number])[] = []): Buffer {
  const words = [...tags.flat(), type];
  const tail = Buffer.alloc(2 * words.length);
  words.forEach((word, index) => tail.writeUInt16BE(word, 2 * index));
  return Buffer.concat([MAC_B, MAC_A, tail, payload]);
}

export interface Ipv4Fields {
  protocol: number;
  source?: string;
  destination?: string;
  id?: number;
  /** Flags and offset field as it stands. */
  fragment?: number;
  options?: Buffer;
}

export function ipv4(fields: Ipv4Fields, payload: Buffer): Buffer {
  const options = fields.options ?? Buffer.alloc(0);
  const header = Buffer.alloc(20 + options.length);
  header[0] = 0x40 | (header.length / 4);
  header.writeUInt16BE(header.length + payload.length, 2);
  header.writeUInt16BE(fields.id ?? 0, 4);
  header.writeUInt16BE(fields.fragment ?? 0, 6);
  header[8] = 64;
  header[9] = fields.protocol;
  Buffer.from((fields.source ?? '10.0.0.1').split('.').map(Number)).copy(header, 12);
  Buffer.from((fields.destination ?? '10.0.0.2').split('.').map(Number)).copy(header, 16);
  options.copy(header, 20);
  header.writeUInt16BE(slowChecksum(header), 10);
  return Buffer.concat([header, payload]);
}

export const IPV6_A = Buffer.from('20010db8000000000000000000000001', 'hex');
export const IPV6_B = Buffer.from('20010db8000000000000000000000002', 'hex');

/** `extensions` are [type, bytes whose first byte is set to the type of what follows]. */
export function ipv6(
  protocol: number,
  payload: Buffer,
  extensions: readonly (readonly [number, Buffer])[] = [],
  destination = IPV6_B,
): Buffer {
  const header = Buffer.alloc(8);
  const types = [...extensions.map(([type]) => type), protocol];
  const chain = extensions.map(([, bytes], index) => {
    const copy = Buffer.from(bytes);
    copy[0] = types[index + 1]!;
    return copy;
  });
  const rest = Buffer.concat([...chain, payload]);
  header[0] = 0x60;
  header.writeUInt16BE(rest.length, 4);
  header[6] = types[0]!;
  header[7] = 64;
  return Buffer.concat([header, IPV6_A, destination, rest]);
}

/** A fragment header for `ipv6`: offset in units of 8 bytes. */
export function fragmentHeader(offset: number, more: boolean, id: number): readonly [number, Buffer] {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt16BE((offset << 3) | (more ? 1 : 0), 2);
  bytes.writeUInt32BE(id, 4);
  return [44, bytes];
}

export interface TcpFields {
  sourcePort?: number;
  destinationPort?: number;
  sequence?: number;
  flags?: number;
  options?: Buffer;
}

/** TCP with an unfinished checksum. */
export function tcp(fields: TcpFields, payload: Buffer): Buffer {
  const options = fields.options ?? Buffer.alloc(0);
  const header = Buffer.alloc(20 + options.length);
  header.writeUInt16BE(fields.sourcePort ?? 40000, 0);
  header.writeUInt16BE(fields.destinationPort ?? 80, 2);
  header.writeUInt32BE(fields.sequence ?? 0, 4);
  header.writeUInt32BE(0x01020304, 8);
  header[12] = (header.length / 4) << 4;
  header[13] = fields.flags ?? 0x10;
  header.writeUInt16BE(501, 14);
  options.copy(header, 20);
  return Buffer.concat([header, payload]);
}

/** UDP with an unfinished checksum. */
export function udp(sourcePort: number, destinationPort: number, payload: Buffer): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt16BE(sourcePort, 0);
  header.writeUInt16BE(destinationPort, 2);
  header.writeUInt16BE(8 + payload.length, 4);
  return Buffer.concat([header, payload]);
}

/** RFC 1071 word by word, the carry added at once. */
export function slowChecksum(...ranges: readonly Buffer[]): number {
  const bytes = Buffer.concat(ranges);
  let total = 0;
  for (let at = 0; at < bytes.length; at += 2) {
    total += bytes[at]! * 256 + (at + 1 < bytes.length ? bytes[at + 1]! : 0);
    if (total > 0xffff) total -= 0xffff;
  }
  return 0xffff - total;
}

export interface Decoded {
  /** Bytes before the IP header. */
  link: Buffer;
  ip: Buffer;
  /** The transport header with its options. */
  transport: Buffer;
  payload: Buffer;
  protocol: number;
}

/** Takes a whole TCP or UDP frame apart and verifies every length and checksum of it; throws what is wrong. */
export function decodeWireFrame(frame: Buffer, link: number): Decoded {
  const at = link;
  const version = frame[at]! >> 4;
  let l4 = at + 40;
  let protocol = frame[at + 6]!;
  if (version === 4) {
    l4 = at + (frame[at]! & 15) * 4;
    protocol = frame[at + 9]!;
    if (frame.readUInt16BE(at + 2) !== frame.length - at) throw new Error('IPv4 total length');
    if (slowChecksum(frame.subarray(at, l4)) !== 0) throw new Error('IPv4 header checksum');
  } else {
    if (frame.readUInt16BE(at + 4) !== frame.length - at - 40) throw new Error('IPv6 payload length');
    while (protocol === 0 || protocol === 43 || protocol === 60) {
      protocol = frame[l4]!;
      l4 += 8 * (frame[l4 + 1]! + 1);
    }
  }
  const segment = frame.subarray(l4);
  const addresses = version === 4 ? frame.subarray(at + 12, at + 20) : frame.subarray(at + 8, at + 40);
  const pseudo = Buffer.from([0, protocol, segment.length >> 8, segment.length & 255]);
  if (protocol === 17 && segment.readUInt16BE(4) !== segment.length) throw new Error('UDP length');
  const unchecked = protocol === 17 && version === 4 && segment.readUInt16BE(6) === 0;
  if (protocol === 17 && version === 6 && segment.readUInt16BE(6) === 0) throw new Error('UDP over IPv6 unchecked');
  if (!unchecked && slowChecksum(addresses, pseudo, segment) !== 0) throw new Error('transport checksum');
  const headerBytes = protocol === 6 ? (segment[12]! >> 4) * 4 : 8;
  return {
    link: frame.subarray(0, at),
    ip: frame.subarray(at, l4),
    transport: segment.subarray(0, headerBytes),
    payload: segment.subarray(headerBytes),
    protocol,
  };
}

/** Puts the partial sum of the pseudo header into the checksum field, as Linux leaves it with VNET_F_NEEDS_CSUM. */
export function storePartial(frame: Buffer, l3: number, l4: number, protocol: number, field: number): void {
  const version = frame[l3]! >> 4;
  const addresses = version === 4 ? frame.subarray(l3 + 12, l3 + 20) : frame.subarray(l3 + 8, l3 + 40);
  const length = frame.length - l4;
  const pseudo = Buffer.from([0, protocol, length >> 8, length & 255]);
  frame.writeUInt16BE(0xffff - slowChecksum(addresses, pseudo), l4 + field);
}

const port = fc.constantFrom(53, 80, 520, 33434, 40000);
const body = fc.uint8Array({ maxLength: 24 }).map((bytes) => Buffer.from(bytes));
const ports = fc.tuple(port, port, body).map(([source, destination, rest]) => udp(source, destination, rest));
const protocolNumber = fc.constantFrom(0, 1, 6, 17, 43, 44, 51, 58, 60, 89, 132, 136);
const lastByte = fc.constantFrom(1, 2, 3);

const ipv4Packet = fc
  .record({
    protocol: protocolNumber,
    source: lastByte.map((byte) => `10.0.0.${byte}`),
    destination: lastByte.map((byte) => `10.0.0.${byte}`),
    fragment: fc.constantFrom(0, 0, 0, 0x4000, 0x2000, 0x2001, 0x0010),
    options: fc.constantFrom(0, 0, 4, 40).map((length) => Buffer.alloc(length, 1)),
    payload: ports,
  })
  .map(({ payload, ...fields }) => ipv4(fields, payload));

const extension = fc.oneof(
  fc.constantFrom(0, 43, 60).map((type) => [type, Buffer.alloc(8)] as const),
  fc.constantFrom(0, 43, 60).map((type) => [type, Buffer.concat([Buffer.from([0, 1]), Buffer.alloc(14)])] as const),
  fc
    .constantFrom([0, true], [0, false], [7, true], [7, false])
    .map((f) => fragmentHeader(Number(f[0]), f[1] === true, 9)),
);
const ipv6Packet = fc
  .tuple(protocolNumber, ports, fc.array(extension, { maxLength: 3 }), lastByte)
  .map(([protocol, payload, extensions, last]) => {
    const destination = Buffer.from(IPV6_B);
    destination[15] = last;
    return ipv6(protocol, payload, extensions, destination);
  });

/** IP packets that mostly are whole, sometimes cut, sometimes with a byte changed. */
export const ipPackets: fc.Arbitrary<Buffer> = fc
  .tuple(fc.oneof(ipv4Packet, ipv6Packet), fc.nat(), fc.nat(255), fc.integer({ min: 0, max: 9 }))
  .map(([packet, place, byte, what]) => {
    if (what === 0) return packet.subarray(0, 1 + (place % packet.length));
    if (what === 1) packet[place % packet.length] = byte;
    return packet;
  });

const tag = fc.tuple(fc.constantFrom(0x8100, 0x88a8), fc.nat(0xffff));

/** Ethernet frames, mostly IP, tagged and not, sometimes cut. */
export const ethernetFrames: fc.Arbitrary<Buffer> = fc
  .tuple(
    ipPackets,
    fc.constantFrom(0, 0, 0, 0, 0, 0, 0x0806, 0x88cc, 0x0026, 0x8100),
    fc.oneof({ weight: 3, arbitrary: fc.constant([]) }, fc.array(tag, { maxLength: 3 })),
    fc.oneof({ weight: 8, arbitrary: fc.constant(0) }, fc.integer({ min: 1, max: 30 })),
  )
  .map(([packet, type, tags, cut]) => {
    const own = packet[0]! >> 4 === 6 ? 0x86dd : 0x0800;
    const frame = ethernet(type === 0 ? own : type, packet, tags);
    return cut === 0 ? frame : frame.subarray(0, cut);
  });

/** Spellings of protocol addresses that often fit `ethernetFrames`. */
export const protocolAddressTexts: fc.Arbitrary<string> = fc
  .tuple(
    fc.constantFrom('tcp', 'udp', 'udplite', 'sctp', 'icmp', 'icmp6', 'ip:89', 'ip:0', 'ip:51', 'arp', 'ether:0x88cc'),
    fc.constantFrom('', '', ':10.0.0.1', ':10.0.0.2', ':[2001:db8::1]', ':[2001:db8::2]'),
    fc.constantFrom('', ':53', ':80', ':33434-33534', ':1-65535'),
    fc.constantFrom('ether:0x0800', 'ether:0x86dd', 'ether:0x8100', 'ether:0x88a8', '', '', '', '', '', '', '', ''),
  )
  .map(([head, address, ofPort, ether]) => {
    if (ether !== '') return ether;
    if (head === 'arp' || head.startsWith('ether')) return head;
    const withPorts = ['tcp', 'udp', 'udplite', 'sctp'].includes(head);
    return `${head}${head === 'icmp6' && !address.includes('[') ? '' : address}${withPorts ? ofPort : ''}`;
  });
