/** src/packet/checksum.ts against the RFCs' own numbers and a slow twin. */
import fc from 'fast-check';
import t from 'tap';
import { checksumFits, crc32c, finishChecksum, fold, invert, pseudoHeaderSum, sum } from '../../src/packet/checksum.js';
import { ethernet, ipv4, slowChecksum, storePartial, tcp, udp } from '../vectors/packet-frames.js';

t.test("RFC 1071's example sums to ddf2", async (t) => {
  const bytes = Buffer.from('0001f203f4f5f6f7', 'hex');
  t.equal(fold(sum(bytes, 0, 8, 0)), 0xddf2);
  t.equal(invert(sum(bytes, 0, 8, 0)), 0x220d);
});

t.test('an IPv4 header with its checksum sums to ffff', async (t) => {
  const header = Buffer.from('45000073000040004011b861c0a80001c0a800c7', 'hex');
  t.equal(fold(sum(header, 0, 20, 0)), 0xffff);
  t.equal(invert(sum(header, 0, 10, 0) + sum(header, 12, 8, 0)), 0xb861);
});

t.test('nothing sums to what there was', async (t) => {
  t.equal(sum(Buffer.alloc(0), 0, 0, 1234), 1234);
  t.equal(fold(0), 0);
  t.equal(fold(0xffff), 0xffff);
  t.equal(fold(0x10000), 1);
  t.equal(fold(0xffff_ffff_ffff), 0xffff);
});

t.test('every short length at every alignment is the slow sum', async (t) => {
  const buf = Buffer.allocUnsafeSlow(256);
  for (let at = 0; at < buf.length; at += 1) buf[at] = (at * 151 + 77) & 0xff;
  let wrong = 0;
  for (let offset = 0; offset < 8; offset += 1) {
    for (let length = 0; length <= 200; length += 1) {
      if (invert(sum(buf, offset, length, 0)) !== slowChecksum(buf.subarray(offset, offset + length))) wrong += 1;
    }
  }
  t.equal(wrong, 0);
});

t.test('any bytes anywhere in any buffer are the slow sum, also in two pieces', async () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), fc.nat(9), fc.nat(200), (bytes, offset, cut) => {
      const own = Buffer.allocUnsafeSlow(bytes.length + offset + 3).fill(0xa5);
      own.set(bytes, offset);
      const first = Math.min(bytes.length, cut) & ~1;
      const whole = sum(own, offset, bytes.length, 0);
      const pieces = sum(own, offset + first, bytes.length - first, sum(own, offset, first, 0));
      const slow = slowChecksum(Buffer.from(bytes));
      return invert(whole) === slow && invert(pieces) === slow;
    }),
  );
});

t.test('the largest frame of ones is still exact', async (t) => {
  const buf = Buffer.alloc(65_664, 0xff);
  t.equal(fold(sum(buf, 0, buf.length, 0)), 0xffff);
  buf[65_663] = 0xfe;
  t.equal(invert(sum(buf, 0, buf.length, 0)), slowChecksum(buf));
});

t.test('a buffer within a larger one, and one shared by threads, are read at their own place', async (t) => {
  const outer = Buffer.alloc(128, 1);
  const inner = outer.subarray(33, 33 + 64);
  inner.fill(7);
  t.equal(invert(sum(inner, 0, 64, 0)), slowChecksum(Buffer.alloc(64, 7)));
  const shared = Buffer.from(new SharedArrayBuffer(70));
  shared.fill(9);
  t.equal(invert(sum(shared, 0, 70, 0)), slowChecksum(Buffer.alloc(70, 9)));
});

t.test('finishing a checksum makes the frame verify, and touches nothing around it', async (t) => {
  const payload = Buffer.from('an odd payload!');
  const packet = ethernet(0x0800, ipv4({ protocol: 6 }, tcp({}, payload)));
  storePartial(packet, 14, 34, 6, 16);
  const buf = Buffer.alloc(packet.length + 10, 0xa5);
  packet.copy(buf, 5);
  t.equal(finishChecksum(buf, 5, packet.length, 34, 16), true);
  const length = packet.length - 34;
  t.equal(fold(sum(buf, 5 + 34, length, pseudoHeaderSum(buf, 5 + 26, 4, 6, length))), 0xffff);
  t.same(
    [...buf.subarray(0, 5), ...buf.subarray(-5)],
    Array.from({ length: 10 }, () => 0xa5),
  );
  const other = Buffer.from(buf.subarray(5, 5 + packet.length));
  packet.copy(other, 50, 50, 52);
  t.same(other, packet, 'only the field differs');
});

t.test('a UDP checksum of zero is stored as ffff, one of TCP stays', async (t) => {
  const frame = udp(0, 0, Buffer.alloc(2));
  // The partial sum plus length and payload make ffff, whose inverse is zero.
  frame.writeUInt16BE(0xffff - frame.length, 6);
  t.equal(finishChecksum(frame, 0, frame.length, 0, 6), true);
  t.equal(frame.readUInt16BE(6), 0xffff);
  const other = Buffer.alloc(20);
  other.writeUInt16BE(0xffff, 16);
  finishChecksum(other, 0, 20, 0, 16);
  t.equal(other.readUInt16BE(16), 0);
});

t.test('a checksum outside the frame is refused and changes nothing', async (t) => {
  const frame = Buffer.alloc(60, 3);
  for (const [start, offset] of [
    [0, 59],
    [60, 0],
    [44, 16],
    [65535, 65535],
    [50, 8],
  ] as const) {
    const fits = start + offset + (offset === 8 ? 4 : 2) <= 60;
    t.equal(checksumFits(60, start, offset), fits, `${start}+${offset}`);
    t.equal(finishChecksum(frame, 0, 60, start, offset), fits);
    if (!fits) t.same(frame, Buffer.alloc(60, 3));
    frame.fill(3);
  }
});

t.test('the CRC32c of the iSCSI examples (RFC 3720, B.4) comes out, and SCTP gets it', async (t) => {
  t.equal(crc32c(Buffer.alloc(32), 0, 32), 0x8a9136aa);
  t.equal(crc32c(Buffer.alloc(32, 0xff), 0, 32), 0x62a8ab43);
  t.equal(crc32c(Buffer.from(Array.from({ length: 32 }, (_, i) => i)), 0, 32), 0x46dd794e);
  t.equal(crc32c(Buffer.from('x123456789'), 1, 9), 0xe3069283);
  const frame = Buffer.alloc(44, 1);
  const clean = Buffer.from(frame);
  clean.writeUInt32BE(0, 28);
  t.equal(finishChecksum(frame, 0, 44, 20, 8), true);
  t.equal(frame.readUInt32LE(28), crc32c(clean, 20, 24));
});
