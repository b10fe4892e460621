/**
 * Reports of multicast groups: who joins and who leaves.
 *
 *     IGMPv1 (RFC 1112), v2 (RFC 2236)      | type | time | checksum | group 4 |                     12, 16 report; 17 leave
 *     IGMPv3 (RFC 3376)                     | 22 | - | checksum | - | records 2 | record …
 *     MLDv1 (RFC 2710)                      | type | code | checksum | delay 2 | - | group 16 |      131 report; 132 done
 *     MLDv2 (RFC 3810)                      | 143 | - | checksum | - | records 2 | record …
 *     record                                | type | aux words | sources 2 | group 4 or 16 | source … | aux … |
 *
 * Sources are not told apart: a member that wants some of them is a member of the group, and what it does not want is
 * dropped by its own kernel. A record that only blocks sources therefore changes nothing.
 */
import type { FrameView } from './headers.js';
import { IPV4_ADDRESS_BYTES, IPV6_ADDRESS_BYTES } from './ip-address.js';
import { IPPROTO_ICMPV6 } from './protocol-address.js';

export const IPPROTO_IGMP = 2;

const IGMPV1_REPORT = 0x12;
const IGMPV2_REPORT = 0x16;
const IGMPV2_LEAVE = 0x17;
const IGMPV3_REPORT = 0x22;
const MLD_QUERY = 130;
const MLDV1_REPORT = 131;
const MLDV1_DONE = 132;
const MLDV2_REPORT = 143;

/** RFC 3376, 4.2.12, and RFC 3810, 5.2.12 */
const MODE_IS_INCLUDE = 1;
const CHANGE_TO_INCLUDE = 3;
const BLOCK_OLD_SOURCES = 6;

/** Offsets from the begin of the message: where its one group, or its count of records, stands. */
const IGMP_GROUP = 4;
const MLD_GROUP = 8;
const RECORD_COUNT = 6;
const RECORDS = 8;
/** Offsets within a record. */
const RECORD = { type: 0, auxWords: 1, sources: 2, group: 4 } as const;

/** ff02::1:ff00:0/104, the groups of neighbour discovery (RFC 4291, 2.7.1). */
const SOLICITED_NODE = Buffer.from('ff0200000000000000000001ff', 'hex');

export type EachGroup = (joined: boolean, group: Buffer) => void;

/**
 * Calls back once per group record of the frame that `view` was filled from. Groups of neighbour discovery are left out:
 * its solicitations are answered elsewhere. `group` is a copy.
 *
 * @returns whether the frame is IGMP or MLD, of whatever type
 */
export function membershipOf(buf: Buffer, view: FrameView, each: EachGroup): boolean {
  const at = view.l4Offset;
  if (view.protocol === IPPROTO_IGMP && view.ipVersion === 4) {
    if (at === 0 || at >= view.l3End) return true;
    const type = buf[at]!;
    if (type === IGMPV3_REPORT) records(buf, view, IPV4_ADDRESS_BYTES, each);
    else if (type === IGMPV1_REPORT || type === IGMPV2_REPORT || type === IGMPV2_LEAVE) {
      tell(buf, at + IGMP_GROUP, IPV4_ADDRESS_BYTES, view.l3End, type !== IGMPV2_LEAVE, each);
    }
    return true;
  }
  if (view.protocol !== IPPROTO_ICMPV6 || at === 0 || at >= view.l3End) return false;
  const type = buf[at]!;
  if (type === MLDV2_REPORT) records(buf, view, IPV6_ADDRESS_BYTES, each);
  else if (type === MLDV1_REPORT || type === MLDV1_DONE) {
    tell(buf, at + MLD_GROUP, IPV6_ADDRESS_BYTES, view.l3End, type === MLDV1_REPORT, each);
  } else if (type !== MLD_QUERY) return false;
  return true;
}

function records(buf: Buffer, view: FrameView, addressBytes: number, each: EachGroup): void {
  const begin = view.l4Offset;
  const end = view.l3End;
  if (begin + RECORDS > end) return;
  let at = begin + RECORDS;
  for (let left = buf.readUInt16BE(begin + RECORD_COUNT); left > 0; left--) {
    if (at + RECORD.group + addressBytes > end) return;
    const type = buf[at + RECORD.type]!;
    const sources = buf.readUInt16BE(at + RECORD.sources);
    if (type >= MODE_IS_INCLUDE && type < BLOCK_OLD_SOURCES) {
      // Including no source at all is what leaving is.
      const joined = sources > 0 || (type !== MODE_IS_INCLUDE && type !== CHANGE_TO_INCLUDE);
      tell(buf, at + RECORD.group, addressBytes, end, joined, each);
    }
    at += RECORD.group + addressBytes * (1 + sources) + 4 * buf[at + RECORD.auxWords]!;
  }
}

function tell(buf: Buffer, at: number, bytes: number, end: number, joined: boolean, each: EachGroup): void {
  if (at + bytes > end) return;
  const group = Buffer.from(buf.subarray(at, at + bytes));
  const isMulticast = bytes === IPV4_ADDRESS_BYTES ? group[0]! >> 4 === 14 : group[0] === 0xff;
  if (isMulticast && !group.subarray(0, SOLICITED_NODE.length).equals(SOLICITED_NODE)) each(joined, group);
}
