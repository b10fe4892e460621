/** src/packet/ip-address.ts against Node's own notion of addresses. */
import { SocketAddress } from 'node:net';
import fc from 'fast-check';
import t from 'tap';
import {
  addressText,
  formatIpAddress,
  isLinkLocalIpv6,
  parseIpAddress,
  parseIpv4,
  parseIpv6,
  requireIpAddress,
} from '../../src/packet/ip-address.js';

t.test('an IPv4 address goes to bytes and back', async (t) => {
  t.same([...(parseIpv4('192.0.2.255') ?? [])], [192, 0, 2, 255]);
  t.equal(formatIpAddress(Buffer.from([9, 192, 0, 2, 255, 9]), 1, 4), '192.0.2.255');
});

t.test('what is no dotted quad is refused', async (t) => {
  for (const text of ['', '1.2.3', '1.2.3.4.5', '1.2.3.256', '01.2.3.4', '1.2.3.4 ', '0x1.2.3.4', '::1']) {
    t.equal(parseIpv4(text), null, JSON.stringify(text));
  }
});

const RFC_5952 = [
  ['2001:0db8:0000:0000:0001:0000:0000:0001', '2001:db8::1:0:0:1'],
  ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
  ['2001:DB8::ABCD', '2001:db8::abcd'],
  ['0:0:0:0:0:0:0:0', '::'],
  ['0:0:0:0:0:0:0:1', '::1'],
  ['1:0:0:0:0:0:0:0', '1::'],
  ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'],
  ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
  ['fe80::1:2:3:4', 'fe80::1:2:3:4'],
  ['::2:3:4:5:6:7:8', '0:2:3:4:5:6:7:8'],
] as const;

t.test('an IPv6 address has the one spelling of RFC 5952', async (t) => {
  for (const [written, spelling] of RFC_5952) {
    const bytes = parseIpv6(written);
    t.equal(formatIpAddress(bytes ?? Buffer.alloc(16), 0, 16), spelling, written);
  }
});

t.test('a mapped address is the IPv4 address that it maps', async (t) => {
  t.same([...(parseIpv6('::ffff:10.0.0.1') ?? [])], [10, 0, 0, 1]);
  t.same([...(parseIpv6('0:0:0:0:0:FFFF:0a00:0001') ?? [])], [10, 0, 0, 1]);
  t.equal(parseIpv6('::fffe:10.0.0.1')?.length, 16);
});

t.test('what is no IPv6 address is refused, a zone included', async (t) => {
  for (const text of ['', ':', ':::', '1::2::3', '12345::', 'fe80::1%eth0', '10.0.0.1', '1:2:3:4:5:6:7', '[::1]']) {
    t.equal(parseIpv6(text), null, JSON.stringify(text));
  }
});

t.test('any 16 bytes survive text and back, and Node reads the text as the same address', async () => {
  const word = fc.oneof({ weight: 2, arbitrary: fc.constant(0) }, fc.integer({ min: 0, max: 0xffff }));
  fc.assert(
    fc.property(fc.array(word, { minLength: 8, maxLength: 8 }), (words) => {
      const bytes = Buffer.alloc(16);
      words.forEach((value, index) => bytes.writeUInt16BE(value, 2 * index));
      const text = formatIpAddress(bytes, 0, 16);
      const back = parseIpv6(text);
      const mapped = bytes.subarray(0, 12).equals(Buffer.from('00000000000000000000ffff', 'hex'));
      const slow = new SocketAddress({ family: 'ipv6', address: text }).address;
      const same = parseIpv6(slow);
      return back !== null && same !== null && back.equals(mapped ? bytes.subarray(12) : bytes) && same.equals(back);
    }),
  );
});

t.test('an address of either family, whole, and what is none', async (t) => {
  for (const text of ['10.0.0.1', 'fe80::1', '2001:db8::']) t.equal(addressText(parseIpAddress(text)!), text);
  t.equal(parseIpAddress('eth0'), null);
  t.equal(parseIpAddress('fe80::1%eth0'), null);
  t.same(requireIpAddress('10.0.0.1'), Buffer.from([10, 0, 0, 1]));
  t.throws(() => requireIpAddress('eth0'), { code: 'bad-message' });
});

t.test('link-local are fe80 to febf, and nothing of IPv4', async (t) => {
  const are = ['fe80::1', 'febf::1', 'fec0::1', 'ff80::1', '169.254.0.1'].map((text) =>
    isLinkLocalIpv6(parseIpAddress(text)!),
  );
  t.same(are, [true, true, false, false, false]);
});
