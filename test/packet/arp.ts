import t from 'tap';
import {
  ARP_BYTES,
  ARP_FRAME_BYTES,
  ARP_REPLY,
  ARP_REQUEST,
  formatArp,
  readArp,
  writeArp,
  writeArpReply,
} from '../../src/packet/arp.js';

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/\s/g, ''), 'hex');

/** As arping sends it: who has 10.9.0.2, tell 10.9.0.1. */
const REQUEST = hex('0001 0800 06 04 0001 020000000001 0a090001 000000000000 0a090002');
const MESSAGE = {
  operation: ARP_REQUEST,
  senderMac: hex('020000000001'),
  senderIp: hex('0a090001'),
  targetMac: hex('000000000000'),
  targetIp: hex('0a090002'),
};

t.test('a message is read and written as the same bytes, anywhere in a buffer', async (t) => {
  const junk = Buffer.alloc(100, 0xee);
  REQUEST.copy(junk, 33);
  t.same(readArp(junk, 33, ARP_BYTES), MESSAGE);
  const out = Buffer.alloc(100, 0xee);
  writeArp(out, 33, MESSAGE);
  t.same(out, junk);
});

t.test('what is read does not change with the buffer', async (t) => {
  const buf = Buffer.from(REQUEST);
  const message = readArp(buf, 0, buf.length);
  buf.fill(0xff);
  t.same(message, MESSAGE);
});

t.test('every shorter length, and what is not IPv4 on Ethernet, is no message', async (t) => {
  for (let length = 0; length < ARP_BYTES; length++) t.equal(readArp(REQUEST, 0, length), null);
  for (const offset of [0, 1, 2, 3, 4, 5]) {
    const other = Buffer.from(REQUEST);
    other[offset] = 0x77;
    t.equal(readArp(other, 0, other.length), null, `byte ${offset}`);
  }
});

t.test('the answer is a frame from the target to who asked', async (t) => {
  const out = Buffer.alloc(ARP_FRAME_BYTES + 4, 0xee);
  writeArpReply(out, 2, MESSAGE, hex('0200000000ff'));
  t.equal(
    out.toString('hex'),
    'eeee' +
      '0200000000010200000000ff0806' +
      '0001080006040002' +
      '0200000000ff0a090002' +
      '0200000000010a090001' +
      'eeee',
  );
});

t.test('a message in words', async (t) => {
  t.equal(formatArp(MESSAGE), 'arp request 10.9.0.2 from 10.9.0.1 02:00:00:00:00:01');
  t.equal(formatArp({ ...MESSAGE, operation: ARP_REPLY }), 'arp reply 10.9.0.1 02:00:00:00:00:01');
  t.equal(formatArp({ ...MESSAGE, operation: 8 }), 'arp operation 8 from 10.9.0.1 02:00:00:00:00:01');
});
