/**
 * Entries of the kernel's connection tracking (linux/netfilter/nfnetlink_conntrack.h): those of one address are listed, and
 * single ones are deleted.
 *
 *     CT_GET, dump     nfgenmsg, TUPLE_REPLY { IP { SRC } }, FILTER { REPLY_FLAGS }   the kernel compares IPv4; one before
 *                                                                                     5.8 tells all, so we compare too
 *     CT_NEW           nfgenmsg, TUPLE_ORIG, TUPLE_REPLY, STATUS, PROTOINFO, ID …     an entry
 *     CT_DELETE        nfgenmsg, TUPLE_ORIG, ID                                       that entry, and no later one
 *
 *     TUPLE  { IP { SRC, DST }, PROTO { NUM u8, SRC_PORT, DST_PORT u16 in network order } }
 *
 * A table may have hundreds of thousands of entries, so listing lets others have their turn. Addresses are 4 or 16 bytes.
 */
import { constants } from 'node:os';
import { SystemError } from '../base/errors.js';
import { Netlink, NETLINK_NETFILTER, nfgenmsg } from './netlink.js';
import { attribute, attributes } from './rtnetlink.js';

const CTNETLINK = 1 << 8;
const CT_GET = CTNETLINK | 1;
const CT_DELETE = CTNETLINK | 2;
const AF_INET = 2;
const AF_INET6 = 10;
const NFGENMSG_BYTES = 4;
const NLA_F_NESTED = 0x8000;

const CTA = { TUPLE_ORIG: 1, TUPLE_REPLY: 2, STATUS: 3, PROTOINFO: 4, ID: 12, FILTER: 25 } as const;
const CTA_TUPLE = { IP: 1, PROTO: 2 } as const;
const CTA_IP = { V4_SRC: 1, V4_DST: 2, V6_SRC: 3, V6_DST: 4 } as const;
const CTA_PROTO = { NUM: 1, SRC_PORT: 2, DST_PORT: 3 } as const;
const CTA_PROTOINFO = { TCP: 1, SCTP: 3 } as const;
const CTA_PROTOINFO_STATE = 1;
const CTA_FILTER = { ORIG_FLAGS: 1, REPLY_FLAGS: 2 } as const;
const CTA_FILTER_F_IP_SRC = 1;
/** Then others get their turn. */
const DELETIONS_PER_TURN = 256;

/** Bits of an entry's status, IPS_*. */
export const CT_STATUS = { SEEN_REPLY: 0x02, ASSURED: 0x04, SRC_NAT: 0x10, DST_NAT: 0x20 } as const;

/** States of a TCP connection, TCP_CONNTRACK_*. */
export const CT_TCP = {
  SYN_SENT: 1,
  SYN_RECV: 2,
  ESTABLISHED: 3,
  FIN_WAIT: 4,
  CLOSE_WAIT: 5,
  LAST_ACK: 6,
  TIME_WAIT: 7,
  CLOSE: 8,
} as const;

/** States of an SCTP association, SCTP_CONNTRACK_*. */
export const CT_SCTP = { ESTABLISHED: 4 } as const;

/** One direction of an entry: what its packets have when they arrive. */
export interface ConntrackTuple {
  readonly source: Buffer;
  readonly destination: Buffer;
  /** 0 for protocols without ports. */
  readonly sourcePort: number;
  readonly destinationPort: number;
}

export interface ConntrackEntry {
  readonly protocol: number;
  readonly original: ConntrackTuple;
  readonly reply: ConntrackTuple;
  /** Of CT_STATUS. */
  readonly status: number;
  /** Of CT_TCP or CT_SCTP; 0 for other protocols. */
  readonly state: number;
  /** What names it to the kernel. */
  readonly name: Buffer;
}

/** `original`: those that began with packets from the address; `reply`: those whose answers come from it. */
export type ConntrackSide = 'original' | 'reply';

/** The entry that a message of a dump tells of; null for one without addresses. */
export function parseEntry(body: Buffer): ConntrackEntry | null {
  const found = attributes(body, NFGENMSG_BYTES);
  const [originalBytes, replyBytes, id] = [CTA.TUPLE_ORIG, CTA.TUPLE_REPLY, CTA.ID].map((key) => found.get(key));
  if (originalBytes === undefined || replyBytes === undefined) return null;
  const original = parseTuple(originalBytes);
  const reply = parseTuple(replyBytes);
  if (original === null || reply === null) return null;
  const name = [nfgenmsg(body[0] ?? 0, 0), nested(CTA.TUPLE_ORIG, originalBytes)];
  if (id !== undefined) name.push(attribute(CTA.ID, id));
  return {
    protocol: original.protocol,
    original: original.tuple,
    reply: reply.tuple,
    status: found.get(CTA.STATUS)?.readUInt32BE(0) ?? 0,
    state: stateOf(found.get(CTA.PROTOINFO)),
    name: Buffer.concat(name),
  };
}

function parseTuple(bytes: Buffer): { tuple: ConntrackTuple; protocol: number } | null {
  const parts = attributes(bytes, 0);
  const ip = attributes(parts.get(CTA_TUPLE.IP) ?? Buffer.alloc(0), 0);
  const proto = attributes(parts.get(CTA_TUPLE.PROTO) ?? Buffer.alloc(0), 0);
  const source = ip.get(CTA_IP.V4_SRC) ?? ip.get(CTA_IP.V6_SRC);
  const destination = ip.get(CTA_IP.V4_DST) ?? ip.get(CTA_IP.V6_DST);
  if (source === undefined || destination === undefined) return null;
  const tuple = {
    source: Buffer.from(source),
    destination: Buffer.from(destination),
    sourcePort: proto.get(CTA_PROTO.SRC_PORT)?.readUInt16BE(0) ?? 0,
    destinationPort: proto.get(CTA_PROTO.DST_PORT)?.readUInt16BE(0) ?? 0,
  };
  return { tuple, protocol: proto.get(CTA_PROTO.NUM)?.[0] ?? 0 };
}

function stateOf(info: Buffer | undefined): number {
  if (info === undefined) return 0;
  const kinds = attributes(info, 0);
  const kind = kinds.get(CTA_PROTOINFO.TCP) ?? kinds.get(CTA_PROTOINFO.SCTP);
  return kind === undefined ? 0 : (attributes(kind, 0).get(CTA_PROTOINFO_STATE)?.[0] ?? 0);
}

/**
 * The entries of one address, in no order. Those that come or go meanwhile may be among them or not.
 *
 * @throws SystemError EOPNOTSUPP, EINVAL … where the kernel has no ctnetlink
 */
export async function listEntries(side: ConntrackSide, source: Buffer): Promise<ConntrackEntry[]> {
  const found: ConntrackEntry[] = [];
  // A socket of its own: while a dump goes on, nothing else can be asked.
  const netlink = new Netlink({ protocol: NETLINK_NETFILTER });
  try {
    await netlink.dumpInTurns(CT_GET, dumpRequest(side, source), ({ body }) => {
      const entry = parseEntry(body);
      if (entry?.[side].source.equals(source) === true) found.push(entry);
    });
  } finally {
    netlink.close();
  }
  return found;
}

export function dumpRequest(side: ConntrackSide, source: Buffer): Buffer {
  // Linux 6.18 leaves out just those whose IPv6 address is the one that was asked for.
  if (source.length !== 4) return nfgenmsg(AF_INET6, 0);
  const flags = Buffer.alloc(4);
  flags.writeUInt32LE(CTA_FILTER_F_IP_SRC);
  const ip = nested(CTA_TUPLE.IP, attribute(CTA_IP.V4_SRC, source));
  return Buffer.concat([
    nfgenmsg(AF_INET, 0),
    nested(side === 'original' ? CTA.TUPLE_ORIG : CTA.TUPLE_REPLY, ip),
    nested(CTA.FILTER, attribute(side === 'original' ? CTA_FILTER.ORIG_FLAGS : CTA_FILTER.REPLY_FLAGS, flags)),
  ]);
}

/** Deletes entries, a few at a time. No error for one that is gone. @throws SystemError */
export async function deleteEntries(entries: readonly ConntrackEntry[]): Promise<void> {
  if (entries.length === 0) return;
  const netlink = new Netlink({ protocol: NETLINK_NETFILTER });
  try {
    for (const [index, { name }] of entries.entries()) {
      try {
        netlink.request(CT_DELETE, 0, name);
      } catch (error) {
        if (!(error instanceof SystemError) || error.errno !== constants.errno.ENOENT) throw error;
      }
      if (index % DELETIONS_PER_TURN === DELETIONS_PER_TURN - 1) await new Promise((resolve) => setImmediate(resolve));
    }
  } finally {
    netlink.close();
  }
}

function nested(type: number, value: Buffer): Buffer {
  return attribute(type | NLA_F_NESTED, value);
}
