import t from 'tap';
import { formatIpAddress } from '../../src/packet/ip-address.js';
import { FrameView } from '../../src/packet/headers.js';
import { membershipOf } from '../../src/packet/membership.js';

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/\s/g, ''), 'hex');
const view = new FrameView();

/** What is told of a frame: `+group` joined, `-group` left; and whether it is one. */
function told(frame: Buffer, offset = 0, length = frame.length): [boolean, string[]] {
  const groups: string[] = [];
  view.parse(frame, offset, length);
  const is = membershipOf(frame, view, (joined, group) => {
    groups.push(`${joined ? '+' : '-'}${formatIpAddress(group, 0, group.length)}`);
  });
  return [is, groups];
}

/** With the router alert option, as all such messages have it. */
function igmp(message: string): Buffer {
  const body = hex(message);
  const header = hex('01005e000016 020000000009 0800 46c0 0000 0000 4000 01 02 0000 0a090001 e0000016 94040000');
  header.writeUInt16BE(24 + body.length, 16);
  return Buffer.concat([header, body]);
}

/** Behind a hop-by-hop header with the router alert. */
function mld(message: string): Buffer {
  const body = hex(message);
  const header = hex(`3333 00000016 020000000009 86dd 60000000 0000 00 01
    fe800000000000000000000000000009 ff020000000000000000000000000016 3a00 05020000 0100`);
  header.writeUInt16BE(8 + body.length, 18);
  return Buffer.concat([header, body]);
}

const ALLOWED = 'efff0001';
const ff0e = (last: string): string => `ff0e00000000000000000000000000${last}`;

t.test('IGMPv1 and v2 reports join, leaves leave, queries tell nothing', async (t) => {
  t.same(told(igmp(`12 00 0000 ${ALLOWED}`)), [true, ['+239.255.0.1']]);
  t.same(told(igmp(`16 00 0000 ${ALLOWED}`)), [true, ['+239.255.0.1']]);
  t.same(told(igmp(`17 00 0000 ${ALLOWED}`)), [true, ['-239.255.0.1']]);
  t.same(told(igmp(`11 64 0000 ${ALLOWED}`)), [true, []]);
  t.same(told(igmp('30 00 0000 00000000')), [true, []]);
  t.same(told(igmp('16 00 0000 0a090001')), [true, []]);
});

t.test('an IGMPv3 report tells each record: including no source is leaving, blocking some is neither', async (t) => {
  const record = (type: number, sources: number, last: number): string =>
    `${type.toString(16).padStart(2, '0')} 00 ${sources.toString(16).padStart(4, '0')} efff00${last.toString(16).padStart(2, '0')}
     ${'0a090063'.repeat(sources)}`;
  const records = [
    record(1, 1, 1),
    record(2, 0, 2),
    record(3, 0, 3),
    record(3, 2, 4),
    record(4, 0, 5),
    record(5, 1, 6),
    record(6, 1, 7),
    record(9, 0, 8),
    record(1, 0, 9),
  ];
  const frame = igmp(`22 00 0000 0000 ${records.length.toString(16).padStart(4, '0')} ${records.join(' ')}`);
  t.same(told(frame), [
    true,
    ['+239.255.0.1', '+239.255.0.2', '-239.255.0.3', '+239.255.0.4', '+239.255.0.5', '+239.255.0.6', '-239.255.0.9'],
  ]);
});

t.test('auxiliary data of a record is passed over', async (t) => {
  const frame = igmp(`22 00 0000 0000 0002  04 02 0000 efff0001 1111111122222222  04 00 0000 efff0002`);
  t.same(told(frame), [true, ['+239.255.0.1', '+239.255.0.2']]);
});

t.test('MLDv1 reports join, dones leave, queries tell nothing', async (t) => {
  t.same(told(mld(`83 00 0000 0000 0000 ${ff0e('01')}`)), [true, ['+ff0e::1']]);
  t.same(told(mld(`84 00 0000 0000 0000 ${ff0e('01')}`)), [true, ['-ff0e::1']]);
  t.same(told(mld(`82 00 0000 2710 0000 ${ff0e('01')}`)), [true, []]);
});

t.test('an MLDv2 report tells each record', async (t) => {
  const frame = mld(`8f 00 0000 0000 0003
    04 00 0000 ${ff0e('01')}
    03 00 0000 ${ff0e('02')}
    05 01 0001 ${ff0e('03')} fd090000000000000000000000000063 00000000`);
  t.same(told(frame), [true, ['+ff0e::1', '-ff0e::2', '+ff0e::3']]);
});

t.test('groups of neighbour discovery are left out', async (t) => {
  t.same(told(mld('83 00 0000 0000 0000 ff0200000000000000000001ff000009')), [true, []]);
  t.same(told(mld('83 00 0000 0000 0000 ff020000000000000000000100000009')), [true, ['+ff02::1:0:9']]);
});

t.test('other frames are neither', async (t) => {
  t.same(told(mld('87 00 0000 00000000 fd090000000000000000000000000002')), [false, []]);
  t.same(told(hex('ffffffffffff 020000000001 0806 0001080006040001 020000000001 0a090001 000000000000 0a090002')), [
    false,
    [],
  ]);
  const udp = igmp('1234 0035 0008 0000');
  udp[23] = 17;
  t.same(told(udp), [false, []]);
});

t.test('a report that is cut off anywhere tells only whole records, and never reads beyond its end', async (t) => {
  const whole = [
    igmp(`22 00 0000 0000 0002  04 00 0001 efff0001 0a090063  04 00 0000 efff0002`),
    mld(`8f 00 0000 0000 0002 04 00 0000 ${ff0e('01')} 04 00 0000 ${ff0e('02')}`),
  ];
  for (const frame of whole) {
    const all = told(frame)[1];
    t.equal(all.length, 2);
    const lengthAt = frame[14]! >> 4 === 4 ? 16 : 18;
    const length = frame.readUInt16BE(lengthAt);
    for (let less = 1; less < length; less++) {
      const cut = Buffer.concat([frame.subarray(0, frame.length - less), Buffer.alloc(less, 0xff)]);
      cut.writeUInt16BE(length - less, lengthAt);
      const groups = told(cut)[1];
      t.ok(groups.length < 2 && groups.every((group, index) => group === all[index]), `${less} bytes less`);
    }
  }
});

t.test('a group that is told does not change with the buffer', async (t) => {
  const frame = igmp(`16 00 0000 ${ALLOWED}`);
  let kept: Buffer = Buffer.alloc(0);
  view.parse(frame, 0, frame.length);
  membershipOf(frame, view, (_, group) => {
    kept = group;
  });
  frame.fill(0);
  t.equal(kept.toString('hex'), ALLOWED);
});
