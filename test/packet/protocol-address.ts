/** src/packet/protocol-address.ts: one address, one spelling; everything else is refused. */
import fc from 'fast-check';
import t from 'tap';
import { hasPorts, parseProtocolAddress, splitAtColons } from '../../src/packet/protocol-address.js';

/** Spellings and their canonical text. */
const SPELLINGS = [
  ['*', '*'],
  ['arp', 'arp'],
  ['ARP', 'arp'],
  ['ether:0x0806', 'arp'],
  ['ether:0x806', 'arp'],
  ['ether:2054', 'arp'],
  ['ether:0x88CC', 'ether:0x88cc'],
  ['ETHER:0X88cc', 'ether:0x88cc'],
  ['ether:35020', 'ether:0x88cc'],
  ['ether:0x0600', 'ether:0x0600'],
  ['ether:1536', 'ether:0x0600'],
  ['ether:0xffff', 'ether:0xffff'],
  ['tcp', 'tcp'],
  ['TCP:80', 'tcp:80'],
  ['ip:6', 'tcp'],
  ['ip:17', 'udp'],
  ['ip:136', 'udplite'],
  ['ip:132', 'sctp'],
  ['ip:17:53', 'udp:53'],
  ['ip:17:10.0.0.1:53', 'udp:10.0.0.1:53'],
  ['ip:1', 'ip:1'],
  ['ip:58', 'icmp6'],
  ['ip:0', 'ip:0'],
  ['ip:89', 'ip:89'],
  ['ip:89:10.0.0.1', 'ip:89:10.0.0.1'],
  ['ip:255', 'ip:255'],
  ['icmp', 'icmp'],
  ['icmp:10.0.0.1', 'icmp:10.0.0.1'],
  ['icmp6:[FE80::1]', 'icmp6:[fe80::1]'],
  ['udp:520', 'udp:520'],
  ['udp:1', 'udp:1'],
  ['udp:65535', 'udp:65535'],
  ['tcp:10.0.0.1', 'tcp:10.0.0.1'],
  ['tcp:10.0.0.1:80', 'tcp:10.0.0.1:80'],
  ['tcp:[2001:db8::1]:80', 'tcp:[2001:db8::1]:80'],
  ['tcp:[2001:0DB8:0:0:0:0:0:1]:80', 'tcp:[2001:db8::1]:80'],
  ['tcp:[::ffff:10.0.0.1]:80', 'tcp:10.0.0.1:80'],
  ['tcp:[::ffff:a00:1]', 'tcp:10.0.0.1'],
  ['tcp:0.0.0.0:80', 'tcp:80'],
  ['tcp:[::]:80', 'tcp:80'],
  ['sctp:[::1]', 'sctp:[::1]'],
  ['udplite:7', 'udplite:7'],
] as const;

/** What is no protocol address. */
const REFUSED = [
  ['', ':', '**', '*:80', 'arp:1', 'arp:10.0.0.1', 'ip', 'ip:', 'ip:256', 'ip:-1', 'ip:0x11', 'ip:06', 'ip4', 'ip4:6'],
  ['ether', 'ether:', 'ether:0x05ff', 'ether:1535', 'ether:65536', 'ether:0x10000', 'ether:88cc', 'ether:0x88cc:1'],
  ['tcp:', 'tcp:0', 'tcp:65536', 'tcp:080', 'tcp:-1', 'tcp:80:81', 'tcp:80:10.0.0.1', 'tcp:10.0.0.1:', 'tcp:http'],
  ['tcp:10.0.0', 'tcp:10.0.0.256', 'tcp:010.0.0.1', 'tcp:2001:db8::1:80', 'tcp:[2001:db8::1', 'tcp:[::1', 'tcp:::1]'],
  ['tcp:[::1]80', 'tcp:[10.0.0.1]:80', 'tcp:[fe80::1%eth0]:80', 'tcp:[]', 'tcp:[', 'tcp:]'],
  ['icmp:80', 'icmp:10.0.0.1:80', 'icmp6:10.0.0.1', 'ip:58:10.0.0.1', 'icmp6:80', 'ip:89:80', 'ip:89:10.0.0.1:1'],
  ['udp:33434-33534', 'udp 520', ' udp:520', 'udp:520 ', 'udp:5e2', 'udp:+5', 'any', 'raw', 'eth0'],
].flat();

t.test('two spellings of one address give one text, and the text gives itself', async (t) => {
  for (const [written, text] of SPELLINGS) {
    t.equal(parseProtocolAddress(written).text, text, written);
    t.same(parseProtocolAddress(text), parseProtocolAddress(written), `${text} means the same`);
  }
});

t.test('what is no protocol address is refused with its text in the error', async (t) => {
  for (const text of REFUSED) {
    t.throws(() => parseProtocolAddress(text), { code: 'bad-protocol-address' }, JSON.stringify(text));
  }
  t.throws(() => parseProtocolAddress('tcp:70000'), { message: /"tcp:70000".*1 to 65535/ });
});

t.test('the fields say what a frame must have', async (t) => {
  t.same(parseProtocolAddress('*'), {
    kind: 'any',
    etherType: 0,
    protocols: [],
    address: null,
    portLow: -1,
    portHigh: -1,
    text: '*',
  });
  t.match(parseProtocolAddress('arp'), { kind: 'ether', etherType: 0x0806, protocols: [] });
  t.same(parseProtocolAddress('udp:10.0.0.1:53'), {
    kind: 'ip',
    etherType: 0,
    protocols: [17],
    address: Buffer.from([10, 0, 0, 1]),
    portLow: 53,
    portHigh: 53,
    text: 'udp:10.0.0.1:53',
  });
  t.same(parseProtocolAddress('icmp').protocols, [1, 58]);
  t.same(parseProtocolAddress('ip:1').protocols, [1]);
  t.equal(parseProtocolAddress('tcp:[::1]').address?.length, 16);
  t.equal(parseProtocolAddress('tcp').portLow, -1);
});

t.test('a range of ports is taken only where it is asked for', async (t) => {
  const ranges = { ranges: true };
  t.match(parseProtocolAddress('udp:33434-33534', ranges), {
    portLow: 33434,
    portHigh: 33534,
    text: 'udp:33434-33534',
  });
  t.match(parseProtocolAddress('udp:[::1]:1-65535', ranges), { portLow: 1, portHigh: 65535 });
  t.equal(parseProtocolAddress('udp:7-7', ranges).text, 'udp:7');
  t.equal(parseProtocolAddress('udp:7', ranges).text, 'udp:7');
  for (const text of ['udp:8-7', 'udp:0-7', 'udp:7-', 'udp:-7', 'udp:1-2-3', 'udp:1-65536', 'icmp:1-2', 'udp:7-08']) {
    t.throws(() => parseProtocolAddress(text, ranges), { code: 'bad-protocol-address' }, text);
  }
  t.throws(() => parseProtocolAddress('udp:1-2', { ranges: false }), { code: 'bad-protocol-address' });
});

t.test('TCP, UDP, UDP-Lite and SCTP have ports, nothing else has', async (t) => {
  const numbers = Array.from({ length: 256 }, (_, number) => number).filter(hasPorts);
  t.same(numbers, [6, 17, 132, 136]);
});

t.test('colons within brackets do not separate', async (t) => {
  t.same(splitAtColons('a:[b:c]:d'), ['a', '[b:c]', 'd']);
  t.same(splitAtColons(''), ['']);
  t.same(splitAtColons(':a:'), ['', 'a', '']);
  t.same(splitAtColons('[a:b'), ['[a:b']);
});

t.test('no text makes it throw anything else, and what it takes is canonical after one step', async () => {
  const piece = fc.constantFrom(
    'tcp',
    'udp',
    'ip',
    'ether',
    'icmp',
    'arp',
    '*',
    ':',
    '[',
    ']',
    '::',
    '.',
    '-',
    '0x',
    'fF',
  );
  const text = fc.array(fc.oneof(piece, piece, fc.nat(70000).map(String), fc.string({ maxLength: 3 })), {
    maxLength: 9,
  });
  fc.assert(
    fc.property(text, fc.boolean(), (pieces, ranges) => {
      try {
        const parsed = parseProtocolAddress(pieces.join(''), { ranges });
        return parseProtocolAddress(parsed.text, { ranges }).text === parsed.text;
      } catch (error) {
        return error instanceof Error && 'code' in error && error.code === 'bad-protocol-address';
      }
    }),
    { numRuns: 3000 },
  );
});
