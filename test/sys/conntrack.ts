import t from 'tap';
import { execFileSync } from 'node:child_process';
import { CT_STATUS, CT_TCP, deleteEntries, dumpRequest, listEntries, parseEntry } from '../../src/sys/conntrack.js';
import { Netns, withoutRoot } from '../support/netns.js';
import { nft } from '../support/vip-lab.js';

// What Linux 6.18 told of a connection from 10.9.0.2 to 10.9.0.1:80, which was converted to 169.254.7.1.
const TUPLE_ORIG =
  '340001801400018008000100' +
  '0a090002' +
  '08000200' +
  '0a090001' +
  '1c000280050001000600000006000200' +
  '9fd20000' +
  '06000300' +
  '00500000';
const TUPLE_REPLY =
  '340002801400018008000100' +
  'a9fe0701' +
  '08000200' +
  '0a090002' +
  '1c000280050001000600000006000200' +
  '00500000' +
  '06000300' +
  '9fd20000';
const ID = '08000c0054382472';
const TCP =
  '02000000' +
  TUPLE_ORIG +
  TUPLE_REPLY +
  '08000300000001ae' +
  '0800080000000000' +
  ID +
  '08000b0000000001' +
  '080007000006977f' +
  '300004802c0001800500010003000000050002000a000000050003000a00000006000400230000000600050023000000';
// Of datagrams from there to port 80.
const UDP =
  '02000000340001801400018008000100' +
  '0a090002' +
  '08000200' +
  '0a090001' +
  '1c000280050001001100000006000200ab73000006000300' +
  '00500000' +
  '340002801400018008000100' +
  'a9fe0701' +
  '08000200' +
  '0a090002' +
  '1c00028005000100110000000600020000500000' +
  '06000300ab730000' +
  '08000300000001aa' +
  '080007000000001d';
// Of a connection from fd09::2 to [fd09::1]:80.
const TCP6 =
  '0a000000' +
  '4c0001802c00018014000300fd090000000000000000000000000002' +
  '14000400fd090000000000000000000000000001' +
  '1c0002800500010006000000' +
  '06000200b7140000' +
  '0600030000500000' +
  '4c0002802c00018014000300fdfd0000000000000000000000070001' +
  '14000400fd090000000000000000000000000002' +
  '1c0002800500010006000000' +
  '0600020000500000' +
  '06000300b7140000' +
  '08000300000001ae';

const bytes = (hex: string): Buffer => Buffer.from(hex, 'hex');
const ip = (text: string): Buffer => Buffer.from(text.split('.').map(Number));

t.test('an entry is read as the kernel tells it', (t) => {
  const entry = parseEntry(bytes(TCP));
  t.same(entry, {
    protocol: 6,
    original: { source: ip('10.9.0.2'), destination: ip('10.9.0.1'), sourcePort: 40914, destinationPort: 80 },
    reply: { source: ip('169.254.7.1'), destination: ip('10.9.0.2'), sourcePort: 80, destinationPort: 40914 },
    status: 0x1ae,
    state: CT_TCP.ESTABLISHED,
    name: bytes('02000000' + TUPLE_ORIG + ID),
  });
  t.equal(
    (entry?.status ?? 0) & (CT_STATUS.SEEN_REPLY | CT_STATUS.DST_NAT | CT_STATUS.SRC_NAT),
    CT_STATUS.SEEN_REPLY | CT_STATUS.DST_NAT,
  );
  t.match(parseEntry(bytes(UDP)), { protocol: 17, state: 0, reply: { sourcePort: 80 } });
  t.match(parseEntry(bytes(TCP6)), {
    protocol: 6,
    state: 0,
    original: { source: bytes('fd090000000000000000000000000002') },
    reply: { source: bytes('fdfd0000000000000000000000070001'), destinationPort: 46868 },
  });
  t.end();
});

t.test('what is cut short is no entry, or one with less, and never throws', (t) => {
  for (const whole of [bytes(TCP), bytes(UDP), bytes(TCP6)]) {
    for (let length = 0; length < whole.length; length++) {
      const entry = parseEntry(whole.subarray(0, length));
      if (entry !== null) t.equal(entry.original.sourcePort, parseEntry(whole)?.original.sourcePort);
    }
  }
  t.equal(parseEntry(bytes(TCP).subarray(0, 20)), null);
  t.end();
});

t.test('a list is asked for by the IPv4 address of its side; of IPv6 all are', (t) => {
  t.equal(
    dumpRequest('reply', ip('169.254.7.1')).toString('hex'),
    '02000000' + '10000280' + '0c000180' + '08000100a9fe0701' + '0c001980' + '0800020001000000',
  );
  t.equal(
    dumpRequest('original', ip('10.9.0.2')).toString('hex'),
    '02000000' + '10000180' + '0c000180' + '080001000a090002' + '0c001980' + '0800010001000000',
  );
  t.equal(dumpRequest('reply', bytes('fdfd0000000000000000000000070001')).toString('hex'), '0a000000');
  t.end();
});

t.test('entries of one address are listed and deleted, those of others are not', { skip: withoutRoot }, async (t) => {
  const netns = new Netns('-vf-ct');
  t.teardown(() => netns.remove());
  netns.run('ip link set lo up');
  netns.run('ip addr add fd09::1/128 dev lo nodad');
  // Connection tracking begins with the first rule that asks for it.
  nft(netns, 'table inet watch { chain out { type filter hook output priority 0; ct state new accept; }; }');
  for (const to of ['127.0.0.2', '127.0.0.3']) netns.run(`socat -u OPEN:/etc/hostname UDP:${to}:9`);
  netns.run('socat -u OPEN:/etc/hostname UDP6:[fd09::1]:9');
  await netns.within(async () => {
    const two = await listEntries('reply', ip('127.0.0.2'));
    t.match(two, [
      { protocol: 17, original: { destination: ip('127.0.0.2'), destinationPort: 9 }, reply: { sourcePort: 9 } },
    ]);
    t.equal((await listEntries('original', ip('127.0.0.1'))).length, 2);
    const six = await listEntries('reply', bytes('fd090000000000000000000000000001'));
    t.equal(six.length, 1);
    await deleteEntries([...two, ...six]);
    t.same(await listEntries('reply', ip('127.0.0.2')), []);
    t.same(await listEntries('reply', bytes('fd090000000000000000000000000001')), []);
    t.equal((await listEntries('reply', ip('127.0.0.3'))).length, 1);
    await deleteEntries(two);
    t.pass('one that is gone is no error');
  });
});

t.test('of ten thousand entries others get their turn', { skip: withoutRoot }, async (t) => {
  const netns = new Netns('-vf-ct');
  t.teardown(() => netns.remove());
  netns.run('ip link set lo up');
  nft(netns, 'table inet watch { chain out { type filter hook output priority 0; ct state new accept; }; }');
  const script = `const s = require('node:dgram').createSocket('udp4'); let n = 0;
    s.bind(0, () => { const next = () => n === 10000 ? s.close() : s.send('x', 1 + n % 5000, '127.0.' + (1 + (n++ > 4999)) + '.1', next); next(); });`;
  execFileSync('env', ['-u', 'NODE_OPTIONS', ...netns.prefix, process.execPath, '-e', script]);
  await netns.within(async () => {
    let turns = 0;
    const turn = (): void => {
      turns += 1;
      handle = setImmediate(turn);
    };
    let handle = setImmediate(turn);
    const entries = await listEntries('original', ip('127.0.0.1'));
    t.equal(entries.length, 10_000);
    await deleteEntries(entries);
    clearImmediate(handle);
    t.ok(turns > 2, `${turns} turns`);
    t.same(await listEntries('original', ip('127.0.0.1')), []);
  });
});
