/**
 * src/packet/segment.ts: every wire frame is verified and the payloads are put together again by code that shares nothing
 * with it (test/vectors/packet-frames.ts).
 */
import fc from 'fast-check';
import t from 'tap';
import { Segmenter } from '../../src/packet/segment.js';
import { VNET_HEADER_BYTES, writeVnetHeader } from '../../src/packet/virtio.js';
import type { VnetHeader } from '../../src/packet/virtio.js';
import { decodeWireFrame, ethernet, ipv4, ipv6, storePartial, tcp, udp } from '../vectors/packet-frames.js';

const MARGIN = 7;

/** Puts header and frame into a buffer of junk, cuts, and checks that nothing but the frames was written. */
function cut(frame: Buffer, header: Partial<VnetHeader>, linkType?: 'raw'): Buffer[] {
  const buf = Buffer.alloc(MARGIN + VNET_HEADER_BYTES + frame.length + MARGIN, 0xa5);
  writeVnetHeader(buf, MARGIN, header);
  frame.copy(buf, MARGIN + VNET_HEADER_BYTES);
  const before = Buffer.from(buf);
  const segmenter = new Segmenter();
  const count = segmenter.begin(buf, MARGIN + VNET_HEADER_BYTES, frame.length, MARGIN, linkType);
  const frames: Buffer[] = [];
  const out = Buffer.alloc(70_000, 0x5a);
  for (;;) {
    const announced = segmenter.nextBytes;
    const at = frames.length % 3;
    const bytes = segmenter.next(out, at);
    if (bytes !== announced) throw new Error(`announced ${announced}, wrote ${bytes}`);
    if (bytes === 0) break;
    frames.push(Buffer.from(out.subarray(at, at + bytes)));
    out.fill(0x5a, at, at + bytes);
    if (out.some((byte) => byte !== 0x5a)) throw new Error('wrote outside the frame');
  }
  if (frames.length !== count) throw new Error(`announced ${count} frames, gave ${frames.length}`);
  if (!buf.equals(before)) throw new Error('changed the super-frame');
  return frames;
}

const bytes = (length: number): Buffer => Buffer.from(Array.from({ length }, (_, index) => (index * 31 + 7) & 0xff));
const ALL_FLAGS = 0x80 | 0x40 | 0x10 | 0x08 | 0x01;

t.test('a TCPv4 super-frame comes apart as tcp_gso_segment does it', async (t) => {
  const payload = bytes(2500);
  const options = Buffer.from('0101080a0000000100000002', 'hex');
  const packet = ipv4(
    { protocol: 6, id: 0xffff, fragment: 0x4000 },
    tcp({ sequence: 0xfffffc00, flags: ALL_FLAGS, options }, payload),
  );
  const frame = ethernet(0x0800, packet);
  storePartial(frame, 14, 34, 6, 16);
  const frames = cut(frame, { flags: 1, gsoType: 0x81, hdrLen: 66, gsoSize: 1000, csumStart: 34, csumOffset: 16 });
  const decoded = frames.map((wire) => decodeWireFrame(wire, 14));
  t.same(
    decoded.map((part) => part.payload.length),
    [1000, 1000, 500],
  );
  t.same(Buffer.concat(decoded.map((part) => part.payload)), payload);
  t.same(
    decoded.map((part) => part.transport.readUInt32BE(4)),
    [0xfffffc00, 0xffffffe8, 0x3d0],
  );
  t.same(
    decoded.map((part) => part.transport[13]),
    [0xd0, 0x50, 0x59],
    'CWR first, PSH and FIN last',
  );
  t.same(
    decoded.map((part) => part.ip.readUInt16BE(4)),
    [0xffff, 0, 1],
  );
  t.ok(decoded.every((part) => part.ip.readUInt16BE(6) === 0x4000 && part.transport.subarray(20).equals(options)));
  t.ok(decoded.every((part) => part.link.equals(frame.subarray(0, 14))));
});

t.test('a TCPv6 super-frame keeps its VLAN tags and extension headers', async (t) => {
  const payload = bytes(101);
  const packet = ipv6(6, tcp({ sequence: 5 }, payload), [
    [0, Buffer.alloc(8)],
    [60, Buffer.alloc(8)],
  ]);
  const frame = ethernet(0x86dd, packet, [
    [0x88a8, 3],
    [0x8100, 4],
  ]);
  const frames = cut(frame, { flags: 1, gsoType: 4, gsoSize: 50, csumStart: 78, csumOffset: 16 });
  const decoded = frames.map((wire) => decodeWireFrame(wire, 22));
  t.same(
    decoded.map((part) => part.payload.length),
    [50, 50, 1],
  );
  t.same(
    decoded.map((part) => part.transport.readUInt32BE(4)),
    [5, 55, 105],
  );
  t.ok(decoded.every((part) => part.link.equals(frame.subarray(0, 22)) && part.ip.length === 56));
});

t.test('UDP datagrams of one flow become datagrams with their own length and checksum', async (t) => {
  for (const link of [0, 14]) {
    for (const packet of [ipv4({ protocol: 17, id: 7 }, udp(1, 2, bytes(25))), ipv6(17, udp(1, 2, bytes(25)))]) {
      const l4 = packet.length - 33;
      const frame = link === 0 ? packet : ethernet(packet[0] === 0x60 ? 0x86dd : 0x0800, packet);
      storePartial(frame, link, link + l4, 17, 6);
      const header = { flags: 1, gsoType: 5, gsoSize: 10, csumStart: link + l4, csumOffset: 6 };
      const frames = cut(frame, header, link === 0 ? 'raw' : undefined);
      const decoded = frames.map((wire) => decodeWireFrame(wire, link));
      t.same(
        decoded.map((part) => part.transport.readUInt16BE(4)),
        [18, 18, 13],
      );
      t.same(Buffer.concat(decoded.map((part) => part.payload)), bytes(25));
      t.ok(decoded.every((part) => part.transport.readUInt16BE(6) !== 0));
    }
  }
});

t.test('UDP over IPv4 that has no checksum gets none, over IPv6 it gets one', async (t) => {
  const frames = cut(ipv4({ protocol: 17 }, udp(1, 2, bytes(9))), { gsoType: 5, gsoSize: 5 }, 'raw');
  t.same(
    frames.map((wire) => decodeWireFrame(wire, 0).transport.readUInt16BE(6)),
    [0, 0],
  );
  const six = cut(ipv6(17, udp(1, 2, bytes(9))), { gsoType: 5, gsoSize: 5 }, 'raw');
  t.ok(six.every((wire) => decodeWireFrame(wire, 0).transport.readUInt16BE(6) !== 0));
});

t.test('a UDP checksum that comes to zero is sent as ffff', async (t) => {
  const packet = ipv4({ protocol: 17 }, udp(1, 2, Buffer.alloc(2)));
  storePartial(packet, 0, 20, 17, 6);
  // Choose the payload so that the whole sums to ffff.
  const [probe] = cut(packet, { flags: 1, gsoType: 5, gsoSize: 9 }, 'raw');
  packet.writeUInt16BE(probe!.readUInt16BE(26), 28);
  const [wire] = cut(packet, { flags: 1, gsoType: 5, gsoSize: 9 }, 'raw');
  t.equal(wire?.readUInt16BE(26), 0xffff);
  decodeWireFrame(wire!, 0);
});

t.test('a frame that is none comes out as it is', async (t) => {
  for (const length of [1, 14, 60, 1514, 65_000]) {
    t.same(cut(bytes(length), {}), [bytes(length)]);
    t.same(cut(bytes(length), { flags: 2, csumStart: 9, csumOffset: 9, gsoSize: 5, hdrLen: 9 }), [bytes(length)]);
  }
});

t.test('a frame that only lacks its checksum gets it', async (t) => {
  const frame = ethernet(0x86dd, ipv6(6, tcp({}, bytes(33))));
  storePartial(frame, 14, 54, 6, 16);
  const frames = cut(frame, { flags: 1, csumStart: 54, csumOffset: 16 });
  t.equal(frames.length, 1);
  t.same(decodeWireFrame(frames[0]!, 14).payload, bytes(33));
});

t.test('a super-frame that fits one segment is one', async (t) => {
  const frame = ipv4({ protocol: 6 }, tcp({ flags: ALL_FLAGS }, bytes(5)));
  for (const gsoSize of [5, 6, 65535]) {
    const frames = cut(frame, { flags: 1, gsoType: 1, gsoSize }, 'raw');
    t.equal(frames.length, 1);
    t.equal(decodeWireFrame(frames[0]!, 0).transport[13], ALL_FLAGS);
  }
  const empty = cut(ipv4({ protocol: 6 }, tcp({}, Buffer.alloc(0))), { gsoType: 1, gsoSize: 5 }, 'raw');
  t.equal(empty.length, 1);
});

t.test('padding behind the IP packet does not become payload', async (t) => {
  const frame = Buffer.concat([ethernet(0x0800, ipv4({ protocol: 6 }, tcp({}, bytes(7)))), Buffer.alloc(9, 0xee)]);
  const frames = cut(frame, { flags: 1, gsoType: 1, gsoSize: 4 });
  t.same(Buffer.concat(frames.map((wire) => decodeWireFrame(wire, 14).payload)), bytes(7));
});

t.test('headers that do not fit together give no frame', async (t) => {
  const four = ipv4({ protocol: 6 }, tcp({}, bytes(50)));
  const six = ipv6(6, tcp({}, bytes(50)));
  const datagram = ipv4({ protocol: 17 }, udp(1, 2, bytes(50)));
  const dataOffset = (value: number): Buffer => {
    const copy = Buffer.from(four);
    copy[32] = value << 4;
    return copy;
  };
  const fragment = ipv4({ protocol: 6, fragment: 0x2000 }, tcp({}, bytes(50)));
  const cases: [string, Buffer, Partial<VnetHeader>][] = [
    ['gso_size 0', four, { gsoType: 1 }],
    ['TCPv6 over IPv4', four, { gsoType: 4, gsoSize: 9 }],
    ['TCPv4 over IPv6', six, { gsoType: 1, gsoSize: 9 }],
    ['UDP that is TCP', four, { gsoType: 5, gsoSize: 9 }],
    ['TCP that is UDP', datagram, { gsoType: 1, gsoSize: 9 }],
    ['UDP fragmentation', datagram, { gsoType: 3, gsoSize: 9 }],
    ['an unknown kind', four, { gsoType: 9, gsoSize: 9 }],
    ['a data offset below 5', dataOffset(4), { gsoType: 1, gsoSize: 9 }],
    ['a data offset beyond the packet', shorten(dataOffset(15)), { gsoType: 1, gsoSize: 9 }],
    ['a fragment', fragment, { gsoType: 1, gsoSize: 9 }],
    ['a cut packet', four.subarray(0, 69), { gsoType: 1, gsoSize: 9 }],
    ['no packet', Buffer.alloc(0), { gsoType: 1, gsoSize: 9 }],
    ['a checksum outside', four, { flags: 1, csumStart: 90, csumOffset: 0 }],
    ['an SCTP checksum half outside', four, { flags: 1, csumStart: 80, csumOffset: 8 }],
  ];
  for (const [what, frame, header] of cases) {
    t.same(cut(frame, header, 'raw'), [], what);
  }
});

/** The packet with its TCP payload taken away and its lengths right. */
function shorten(packet: Buffer): Buffer {
  const copy = Buffer.from(packet.subarray(0, 45));
  copy.writeUInt16BE(45, 2);
  return copy;
}

t.test('every cut of a super-frame gives no frame, and throws nothing', async (t) => {
  const frame = ethernet(0x86dd, ipv6(6, tcp({ options: Buffer.alloc(8) }, bytes(20))), [[0x8100, 1]]);
  for (let length = 0; length < frame.length; length += 1) {
    t.same(cut(frame.subarray(0, length), { flags: 1, gsoType: 4, gsoSize: 9 }), [], `${length} bytes`);
  }
});

t.test('without room nothing is written, and the frame is there afterwards', async (t) => {
  const frame = ipv4({ protocol: 6 }, tcp({}, bytes(20)));
  const buf = Buffer.concat([Buffer.alloc(VNET_HEADER_BYTES), frame]);
  writeVnetHeader(buf, 0, { gsoType: 1, gsoSize: 10 });
  const segmenter = new Segmenter();
  t.equal(segmenter.begin(buf, VNET_HEADER_BYTES, frame.length, 0, 'raw'), 2);
  const out = Buffer.alloc(55, 1);
  t.equal(segmenter.next(out, 6), -1);
  t.same(out, Buffer.alloc(55, 1));
  t.equal(segmenter.next(out, 5), 50);
  t.equal(segmenter.next(out, 5), 50);
  t.equal(segmenter.next(out, 5), 0);
  t.equal(segmenter.begin(frame, 0, 0, 0), 0, 'used again');
});

t.test('any super-frame is its segments: valid, none too long, together the payload', async () => {
  fc.assert(
    fc.property(
      fc.record({
        length: fc.oneof(fc.nat(300), fc.nat(60_000)),
        gsoSize: fc.oneof(fc.integer({ min: 1, max: 1460 }), fc.constantFrom(1448, 1400, 9000)),
        version: fc.constantFrom(4, 6),
        isTcp: fc.boolean(),
        tags: fc.constantFrom(0, 1, 2, -1),
        options: fc.constantFrom(0, 4, 12, 40),
        sequence: fc.nat(0xffffffff),
        flags: fc.nat(255),
        id: fc.nat(0xffff),
      }),
      (pick) => {
        const gsoSize = Math.max(pick.gsoSize, Math.ceil(pick.length / 100));
        const payload = bytes(pick.length);
        const options = Buffer.alloc(pick.options, 1);
        const segment = pick.isTcp ? tcp({ ...pick, options }, payload) : udp(9, 10, payload);
        const protocol = pick.isTcp ? 6 : 17;
        const packet = pick.version === 4 ? ipv4({ protocol, id: pick.id }, segment) : ipv6(protocol, segment);
        const tags = [
          [0x88a8, 1],
          [0x8100, 2],
        ].slice(0, Math.max(0, pick.tags)) as [number, number][];
        const frame = pick.tags < 0 ? packet : ethernet(pick.version === 4 ? 0x0800 : 0x86dd, packet, tags);
        const link = frame.length - packet.length;
        const l4 = frame.length - segment.length;
        storePartial(frame, link, l4, protocol, pick.isTcp ? 16 : 6);
        const gsoType = pick.isTcp ? (pick.version === 4 ? 1 : 4) : 5;
        const frames = cut(
          frame,
          { flags: 1, gsoType, gsoSize, csumStart: l4, csumOffset: 16 },
          pick.tags < 0 ? 'raw' : undefined,
        );
        const decoded = frames.map((wire) => decodeWireFrame(wire, link));
        return (
          decoded.length === Math.max(1, Math.ceil(pick.length / gsoSize)) &&
          Buffer.concat(decoded.map((part) => part.payload)).equals(payload) &&
          decoded.every((part, index) => {
            const last = index === decoded.length - 1;
            const keep = 0xff & ~(index > 0 ? 0x80 : 0) & ~(last ? 0 : 9);
            return (
              part.payload.length <= gsoSize &&
              part.link.equals(frame.subarray(0, link)) &&
              (!pick.isTcp || part.transport[13] === (pick.flags & keep)) &&
              (!pick.isTcp || part.transport.readUInt32BE(4) === (pick.sequence + index * gsoSize) % 2 ** 32) &&
              (pick.version === 6 || part.ip.readUInt16BE(4) === (pick.id + index) % 65_536)
            );
          })
        );
      },
    ),
    { numRuns: 300 },
  );
});
