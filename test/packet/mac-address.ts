import t from 'tap';
import { formatMac, parseMac, writeEthernetHeader } from '../../src/packet/mac-address.js';

t.test('a MAC is six pairs of hex digits, and spelled in lower case', async (t) => {
  t.same(parseMac('02:00:00:00:AB:01'), Buffer.from('02000000ab01', 'hex'));
  t.equal(formatMac(Buffer.from('02000000ab01', 'hex')), '02:00:00:00:ab:01');
  for (const text of [
    '',
    '02:00:00:00:ab',
    '02:00:00:00:ab:01:02',
    '2:0:0:0:ab:1',
    '02-00-00-00-ab-01',
    '02:00:00:00:ab:0g',
  ]) {
    t.equal(parseMac(text), null, text);
  }
});

t.test('an Ethernet header is destination, source and type', async (t) => {
  const out = Buffer.alloc(18, 0xee);
  t.equal(
    writeEthernetHeader(out, 2, Buffer.from('010203040506', 'hex'), Buffer.from('0a0b0c0d0e0f', 'hex'), 0x86dd),
    16,
  );
  t.equal(out.toString('hex'), 'eeee0102030405060a0b0c0d0e0f86ddeeee');
});
