import t from 'tap';
import { FrameView } from '../../src/packet/headers.js';
import {
  formatNeighbor,
  ICMPV6_NEIGHBOR_ADVERTISEMENT,
  ICMPV6_NEIGHBOR_SOLICITATION,
  ND_FRAME_BYTES,
  type NeighborMessage,
  readNeighbor,
  writeAdvertisement,
  writeNeighbor,
} from '../../src/packet/neighbour-discovery.js';

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/\s/g, ''), 'hex');

const FD09_1 = 'fd090000000000000000000000000001';
const FD09_2 = 'fd090000000000000000000000000002';
const SOLICITED_NODE = 'ff0200000000000000000001ff000002';

/** Sent by the kernel for `ping fd09::2`: fd09::1 asks for fd09::2. */
const SOLICITATION = hex(`
  3333ff000002 020000000009 86dd
  60000000 0020 3a ff ${FD09_1} ${SOLICITED_NODE}
  87 00 7d7d 00000000 ${FD09_2} 01 01 020000000009`);
const MESSAGE: NeighborMessage = {
  type: ICMPV6_NEIGHBOR_SOLICITATION,
  flags: 0,
  source: hex(FD09_1),
  destination: hex(SOLICITED_NODE),
  target: hex(FD09_2),
  mac: hex('020000000009'),
};

const view = new FrameView();
function read(frame: Buffer, offset = 0, length = frame.length): NeighborMessage | null {
  view.parse(frame, offset, length);
  return readNeighbor(frame, view);
}

t.test('a solicitation of the kernel is read and written as the same bytes, anywhere in a buffer', async (t) => {
  const junk = Buffer.alloc(200, 0xee);
  SOLICITATION.copy(junk, 35);
  t.same(read(junk, 35, ND_FRAME_BYTES), MESSAGE);
  const out = Buffer.alloc(200, 0xee);
  t.equal(writeNeighbor(out, 35, hex('3333ff000002'), hex('020000000009'), MESSAGE), ND_FRAME_BYTES);
  t.equal(out.toString('hex'), junk.toString('hex'));
});

t.test('a message without a MAC is 8 bytes shorter', async (t) => {
  const out = Buffer.alloc(200, 0xee);
  const message = { ...MESSAGE, mac: null };
  const length = writeNeighbor(out, 0, hex('3333ff000002'), hex('020000000009'), message);
  t.equal(length, ND_FRAME_BYTES - 8);
  t.same(read(out, 0, length), message);
});

t.test('the answer comes from the target, solicited, with its MAC', async (t) => {
  const out = Buffer.alloc(ND_FRAME_BYTES);
  t.equal(writeAdvertisement(out, 0, hex('020000000009'), MESSAGE, hex('0200000000ff')), ND_FRAME_BYTES);
  t.equal(out.toString('hex', 0, 14), '0200000000090200000000ff86dd');
  t.same(read(out), {
    type: ICMPV6_NEIGHBOR_ADVERTISEMENT,
    flags: 0x60,
    source: hex(FD09_2),
    destination: hex(FD09_1),
    target: hex(FD09_2),
    mac: hex('0200000000ff'),
  });
});

t.test('who has no address yet is answered at all nodes, unsolicited', async (t) => {
  const out = Buffer.alloc(ND_FRAME_BYTES);
  writeAdvertisement(
    out,
    0,
    hex('020000000009'),
    { ...MESSAGE, source: Buffer.alloc(16), mac: null },
    hex('0200000000ff'),
  );
  t.equal(out.toString('hex', 0, 6), '333300000001');
  t.match(read(out), { flags: 0x20, destination: hex('ff020000000000000000000000000001') });
});

t.test('what RFC 4861 drops is no message', async (t) => {
  const spoiled = (offset: number, value: number): NeighborMessage | null => {
    const frame = Buffer.from(SOLICITATION);
    frame[offset] = value;
    return read(frame);
  };
  t.equal(spoiled(21, 254), null, 'hop limit');
  t.equal(spoiled(55, 1), null, 'code');
  t.equal(spoiled(62, 0xff), null, 'multicast target');
  t.equal(spoiled(79, 0), null, 'option of no length');
  t.equal(spoiled(54, 128), null, 'echo request');
  t.match(spoiled(78, 9), { mac: null }, 'another option');
});

t.test('every shorter frame is no message, or one without its MAC', async (t) => {
  for (let length = 0; length < ND_FRAME_BYTES; length++) t.equal(read(SOLICITATION, 0, length), null, `${length}`);
  for (let payload = 0; payload < 32; payload++) {
    const frame = Buffer.from(SOLICITATION);
    frame.writeUInt16BE(payload, 18);
    const message = read(frame);
    if (payload < 24) t.equal(message, null, `${payload}`);
    else t.same(message, { ...MESSAGE, mac: null }, `${payload}`);
  }
});

t.test('a message in words', async (t) => {
  t.equal(formatNeighbor(MESSAGE), 'neighbor solicitation fd09::2 from fd09::1 02:00:00:00:00:09');
});
