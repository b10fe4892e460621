/**
 * What rtnetlink tells of an interface, as a value: one `Link` and its successors.
 *
 *     NEWLINK, NEWADDR, DELADDR --linkAfter--> the Link with that change      DELLINK --removedIndex--> its index
 *
 * A `Link` never changes: a change puts another in its place. Pure functions of the kernel's bytes.
 */
import { SocketAddress } from 'node:net';
import type { NetlinkMessage } from './rtnetlink.js';
import { attributes, cString, decode, IFA, IFADDRMSG, IFINFOMSG, IFLA, RTM } from './rtnetlink.js';

export interface Link {
  readonly index: number;
  readonly name: string;
  /** ARPHRD_*. */
  readonly type: number;
  /** Link layer address as `02:00:00:00:00:01`; '' where there is none. */
  readonly address: string;
  readonly mtu: number;
  /** IFF_*. */
  readonly flags: number;
  readonly operstate: OperationalState;
  /** Index of the bridge, bond or VRF whose port it is; 0: of none. */
  readonly master: number;
  /** Mbit/s, -1 where the driver does not say. Asked from the driver, as /sys may show another network namespace. */
  readonly speed: number;
  /** Addresses with their prefix lengths, `10.0.0.1/24`, in the order in which they appeared. */
  readonly inet: readonly string[];
  readonly inet6: readonly string[];
}

/** RFC 2863, by the number that IFLA_OPERSTATE carries. */
const OPERATIONAL_STATES = ['unknown', 'notpresent', 'down', 'lowerlayerdown', 'testing', 'dormant', 'up'] as const;

export type OperationalState = (typeof OPERATIONAL_STATES)[number];

/** struct rtnl_link_stats64: u64 each, in this order, by the names of /sys/class/net/IF/statistics. */
const STATISTICS = `
  rx_packets tx_packets rx_bytes tx_bytes rx_errors tx_errors rx_dropped tx_dropped multicast collisions
  rx_length_errors rx_over_errors rx_crc_errors rx_frame_errors rx_fifo_errors rx_missed_errors
  tx_aborted_errors tx_carrier_errors tx_fifo_errors tx_heartbeat_errors tx_window_errors
  rx_compressed tx_compressed rx_nohandler`
  .trim()
  .split(/\s+/);

export const ARPHRD = { ETHER: 1, PPP: 512, RAWIP: 519, LOOPBACK: 772, NONE: 0xfffe } as const;

const LINKTYPE_ETHERNET = 1;
const LINKTYPE_RAW = 101;

/** The link type of an interface's pcap streams; null for interfaces that are not offered. */
export function pcapLinkType(link: Pick<Link, 'type'>): number | null {
  switch (link.type) {
    case ARPHRD.ETHER:
    case ARPHRD.LOOPBACK:
      return LINKTYPE_ETHERNET;
    case ARPHRD.NONE:
    case ARPHRD.PPP:
    case ARPHRD.RAWIP:
      return LINKTYPE_RAW;
    default:
      return null;
  }
}

const AF_UNSPEC = 0;
const AF_INET = 2;
const AF_INET6 = 10;

/**
 * What a NEWLINK, NEWADDR or DELADDR makes of the link that it names; null when it concerns none of `links`.
 *
 * @param speedOf asks for what the message does not carry
 */
export function linkAfter(
  message: NetlinkMessage,
  links: ReadonlyMap<number, Link>,
  speedOf: (name: string) => number,
): Link | null {
  const { type, body } = message;
  if (type === RTM.NEWLINK) return afterLink(body, links, speedOf);
  return type === RTM.NEWADDR || type === RTM.DELADDR ? afterAddress(type, body, links) : null;
}

function afterLink(body: Buffer, links: ReadonlyMap<number, Link>, speedOf: (name: string) => number): Link | null {
  const header = decode(IFINFOMSG, body);
  if (header === null || header.family !== AF_UNSPEC) return null;
  // Wireless events carry hardly an attribute; what is missing stays as it was.
  const before = links.get(header.index);
  const found = attributes(body, IFINFOMSG.bytes);
  const [name, address, mtu, state, master] = [IFLA.IFNAME, IFLA.ADDRESS, IFLA.MTU, IFLA.OPERSTATE, IFLA.MASTER].map(
    (a) => found.get(a),
  );
  const ifname = name === undefined ? (before?.name ?? '') : cString(name);
  return {
    index: header.index,
    name: ifname,
    type: header.type,
    address: address === undefined ? (before?.address ?? '') : macText(address),
    mtu: mtu === undefined ? (before?.mtu ?? 0) : mtu.readUInt32LE(0),
    flags: header.flags,
    operstate:
      state === undefined ? (before?.operstate ?? 'unknown') : (OPERATIONAL_STATES[state[0] ?? 0] ?? 'unknown'),
    // A port of none has no such attribute, in a message that has all others.
    master: master?.readUInt32LE(0) ?? (mtu === undefined ? (before?.master ?? 0) : 0),
    speed: speedOf(ifname),
    inet: before?.inet ?? [],
    inet6: before?.inet6 ?? [],
  };
}

function afterAddress(type: number, body: Buffer, links: ReadonlyMap<number, Link>): Link | null {
  const header = decode(IFADDRMSG, body);
  const link = header === null ? undefined : links.get(header.index);
  if (header === null || link === undefined) return null;
  const found = attributes(body, IFADDRMSG.bytes);
  // With a peer, IFA_ADDRESS is the peer's.
  const address = found.get(IFA.LOCAL) ?? found.get(IFA.ADDRESS);
  if (address === undefined || (header.family !== AF_INET && header.family !== AF_INET6)) return null;
  const text = `${ipText(address)}/${header.prefixLength}`;
  const key = header.family === AF_INET ? 'inet' : 'inet6';
  const others = link[key].filter((other) => other !== text);
  if (type === RTM.DELADDR) return { ...link, [key]: others };
  return link[key].includes(text) ? link : { ...link, [key]: [...others, text] };
}

/** The index of the link that a DELLINK takes away; null for other messages, and for a bridge that loses a port. */
export function removedIndex({ type, body }: NetlinkMessage): number | null {
  const header = type === RTM.DELLINK ? decode(IFINFOMSG, body) : null;
  return header !== null && header.family === AF_UNSPEC ? header.index : null;
}

/** The counters of a NEWLINK, by the names of /sys/class/net/IF/statistics; empty where it carries none. */
export function statisticsOf({ body }: NetlinkMessage): Map<string, number> {
  const values = attributes(body, IFINFOMSG.bytes).get(IFLA.STATS64) ?? Buffer.alloc(0);
  const counters = new Map<string, number>();
  for (const [index, name] of STATISTICS.entries()) {
    if (8 * index + 8 <= values.length) counters.set(name, Number(values.readBigUInt64LE(8 * index)));
  }
  return counters;
}

function macText(address: Buffer): string {
  return Array.from(address, (byte) => byte.toString(16).padStart(2, '0')).join(':');
}

/** The kernel's 4 or 16 bytes, spelled as inet_ntop does. */
export function ipText(address: Buffer): string {
  if (address.length === 4) return address.join('.');
  const groups = Array.from({ length: 8 }, (_, index) => address.readUInt16BE(2 * index).toString(16));
  return new SocketAddress({ address: groups.join(':'), family: 'ipv6' }).address;
}
