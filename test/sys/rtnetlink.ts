import t from 'tap';
import {
  attribute,
  attributes,
  cString,
  decode,
  encode,
  encodeMessage,
  IFADDRMSG,
  IFINFOMSG,
  IFLA,
  messages,
  NLM_F,
  printMessage,
  RTM,
  RTMSG,
} from '../../src/sys/rtnetlink.js';

/** RTM_NEWLINK of eth0 (index 3, up), MTU 1500, as `strace ip link` shows it. */
const NEWLINK = Buffer.from(
  [
    '34000000 1000 0200 07000000 2a000000', // 52 bytes, NEWLINK, MULTI, sequence 7
    '00 00 0100 03000000 01000000 00000000', // ifinfomsg: ETHER, index 3, IFF_UP
    '0900 0300 6574683000 000000', // IFNAME "eth0" and padding
    '0800 0400 dc050000', // MTU 1500
  ]
    .join('')
    .replaceAll(' ', ''),
  'hex',
);

t.test('a message is encoded to the golden bytes', async (t) => {
  const mtu = Buffer.from('dc050000', 'hex');
  const body = Buffer.concat([
    encode(IFINFOMSG, { type: 1, index: 3, flags: 1 }),
    attribute(IFLA.IFNAME, Buffer.from('eth0\0')),
    attribute(IFLA.MTU, mtu),
  ]);
  const message = encodeMessage(RTM.NEWLINK, 2, 7, body);
  message.writeUInt32LE(42, 12);
  t.same(message, NEWLINK);
});

t.test('a message is decoded out of a datagram', async (t) => {
  const [message, ...more] = [...messages(Buffer.concat([NEWLINK, Buffer.from([1, 2, 3])]))];
  t.same(more, []);
  t.equal(message?.type, RTM.NEWLINK);
  t.equal(message?.sequence, 7);
  const body = message?.body ?? Buffer.alloc(0);
  t.same(decode(IFINFOMSG, body), { family: 0, padding: 0, type: 1, index: 3, flags: 1, change: 0 });
  const found = attributes(body, IFINFOMSG.bytes);
  t.equal(cString(found.get(IFLA.IFNAME) ?? Buffer.alloc(0)), 'eth0');
  t.equal(found.get(IFLA.MTU)?.readUInt32LE(0), 1500);
});

t.test('several messages of a datagram come in order', async (t) => {
  const types = [...messages(Buffer.concat([NEWLINK, encodeMessage(RTM.DELLINK, 0, 8, Buffer.alloc(0)), NEWLINK]))];
  t.same(
    types.map(({ type }) => type),
    [RTM.NEWLINK, RTM.DELLINK, RTM.NEWLINK],
  );
});

t.test('a datagram cut short anywhere gives no message, and no error', async (t) => {
  for (let length = 0; length < NEWLINK.length; length++) t.same([...messages(NEWLINK.subarray(0, length))], []);
});

t.test('a body cut short anywhere gives the attributes that are whole', async (t) => {
  const body = NEWLINK.subarray(16);
  for (let length = 0; length < body.length; length++) {
    const cut = body.subarray(0, length);
    t.equal(decode(IFINFOMSG, cut) === null, length < 16);
    t.equal(attributes(cut, IFINFOMSG.bytes).size, length >= 25 ? 1 : 0, `${length} bytes`);
  }
});

t.test('an impossible length ends the list instead of looping', async (t) => {
  for (const length of [0, 1, 3, 200]) {
    const bad = Buffer.from(NEWLINK);
    bad.writeUInt32LE(length, 0);
    t.same([...messages(bad)], []);
    const attributesOf = Buffer.from(NEWLINK.subarray(32));
    attributesOf.writeUInt16LE(length, 0);
    t.equal(attributes(attributesOf, 0).size, 0);
  }
});

t.test('the bits beside the type of an attribute are not part of it', async (t) => {
  const nested = attribute(IFLA.IFNAME | 0x8000, Buffer.from('x'));
  t.ok(attributes(nested, 0).has(IFLA.IFNAME));
});

t.test('fixed parts have the sizes of the structures in linux/*.h', async (t) => {
  t.same([IFINFOMSG.bytes, IFADDRMSG.bytes, RTMSG.bytes], [16, 8, 12]);
  t.same(encode(IFADDRMSG, { family: 2, prefixLength: 24, scope: 253, index: 3 }).toString('hex'), '021800fd03000000');
  t.same(encode(IFINFOMSG, { index: -1 }).readInt32LE(4), -1);
});

t.test('a message is printed in one line', async (t) => {
  const [message] = [...messages(NEWLINK)];
  if (message === undefined) throw new Error('no message');
  t.equal(
    printMessage(message),
    'NEWLINK flags=0x2 family=0 padding=0 type=1 index=3 flags=1 change=0 3:6574683000 4:dc050000',
  );
  t.equal(printMessage({ type: 99, flags: NLM_F.ACK, sequence: 1, body: Buffer.alloc(3) }), 'type 99 flags=0x4');
  t.match(printMessage({ ...message, body: Buffer.alloc(3) }), /^NEWLINK flags=0x2$/);
});

t.test('what is encoded is decoded again, at any offset and with values at their bounds', async (t) => {
  const bounds = { family: 0xff, padding: 0xff, type: 0xffff, index: -0x8000_0000, flags: 0xffff_ffff, change: 1 };
  const junk = Buffer.alloc(64, 0xa5);
  for (const offset of [0, 1, 7, 48]) {
    encode(IFINFOMSG, bounds).copy(junk, offset);
    t.same(decode(IFINFOMSG, junk, offset), bounds);
  }
  t.equal(decode(IFINFOMSG, junk, 49), null);
  t.same(decode(RTMSG, encode(RTMSG, { table: 254, type: 1, flags: 7 })), {
    family: 0,
    destinationLength: 0,
    sourceLength: 0,
    tos: 0,
    table: 254,
    protocol: 0,
    scope: 0,
    type: 1,
    flags: 7,
  });
});

t.test('attributes are padded to four bytes, and their length is without the padding', async (t) => {
  const golden: [value: string, bytes: string][] = [
    ['', '04000900'],
    ['aa', '05000900aa000000'],
    ['aabbcc', '07000900aabbcc00'],
    ['aabbccdd', '08000900aabbccdd'],
    ['aabbccddee', '09000900aabbccddee000000'],
  ];
  for (const [value, bytes] of golden) {
    const encoded = attribute(9, Buffer.from(value, 'hex'));
    t.equal(encoded.toString('hex'), bytes);
    t.equal(
      attributes(Buffer.concat([encoded, encoded]), 0)
        .get(9)
        ?.toString('hex'),
      value,
    );
  }
});

t.test('a string ends at its zero, or with its bytes', async (t) => {
  for (const [bytes, text] of [
    ['61620063', 'ab'],
    ['6162', 'ab'],
    ['00', ''],
    ['', ''],
  ] as const) {
    t.equal(cString(Buffer.from(bytes, 'hex')), text);
  }
});
