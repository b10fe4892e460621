/**
 * The interfaces of a network namespace and their addresses, followed as they change.
 *
 *     start:   join the groups, then dump links and addresses: what changes in between comes as an event
 *     events:  readiness --drain--> NEWLINK, DELLINK, NEWADDR, DELADDR --apply--> links --> onChange
 *     ENOBUFS: events were lost. Those that are still queued are older than the loss, so the queue is emptied first and
 *              the dump taken after it; the difference to what was known goes to onChange.
 *
 * A `Link` never changes: a change puts another in its place. A rename keeps the index, but names are what users hold,
 * so it is told as 'removed' with the old name and then 'added' with the new one. `start` itself tells nothing.
 * The monitor owns two sockets of the network namespace of the thread that creates it.
 */
import { SocketAddress } from 'node:net';
import { constants } from 'node:os';
import { describe, FwdfsError, SystemError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { linkSpeed } from './ethtool.js';
import { Netlink } from './netlink.js';
import type { Source } from './readiness.js';
import { readiness } from './readiness.js';
import type { NetlinkMessage } from './rtnetlink.js';
import {
  attributes,
  cString,
  decode,
  encode,
  IFA,
  IFADDRMSG,
  IFINFOMSG,
  IFLA,
  NLM_F,
  printMessage,
  RTM,
  RTMGRP,
} from './rtnetlink.js';

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
  /** Mbit/s, -1 where the driver does not say. Asked from the driver, as /sys may show another network namespace. */
  readonly speed: number;
  /** Addresses with their prefix lengths, `10.0.0.1/24`, in the order in which they appeared. */
  readonly inet: readonly string[];
  readonly inet6: readonly string[];
}

export type LinkChange = 'added' | 'changed' | 'removed';

/** RFC 2863, by the number that IFLA_OPERSTATE carries. */
const OPERATIONAL_STATES = ['unknown', 'notpresent', 'down', 'lowerlayerdown', 'testing', 'dormant', 'up'] as const;

export type OperationalState = (typeof OPERATIONAL_STATES)[number];

/** struct rtnl_link_stats64: u64 each, in this order, by the names of /sys/class/net/IF/statistics. */
const STATISTICS = [
  ...['rx_packets', 'tx_packets', 'rx_bytes', 'tx_bytes', 'rx_errors', 'tx_errors', 'rx_dropped', 'tx_dropped'],
  ...['multicast', 'collisions'],
  ...['rx_length_errors', 'rx_over_errors', 'rx_crc_errors', 'rx_frame_errors', 'rx_fifo_errors', 'rx_missed_errors'],
  ...['tx_aborted_errors', 'tx_carrier_errors', 'tx_fifo_errors', 'tx_heartbeat_errors', 'tx_window_errors'],
  ...['rx_compressed', 'tx_compressed', 'rx_nohandler'],
];

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
/** Datagrams that one drain takes before others get their turn. */
const DRAIN_DATAGRAMS = 64;
const { EAGAIN, EINTR, ENODEV } = constants.errno;

export class LinkMonitor {
  /** Told of every change after `start`; `links()` already shows it. What it throws is logged. */
  onChange: (kind: LinkChange, link: Link) => void = () => undefined;
  private readonly log: Logger;
  private readonly asking: Netlink;
  private readonly events: Netlink;
  private readonly source: Source;
  private known = new Map<number, Link>();
  private lost = false;
  private closed = false;

  /** @throws SystemError */
  constructor(log: Logger) {
    this.log = log;
    this.asking = new Netlink();
    this.events = new Netlink({ groups: RTMGRP.LINK | RTMGRP.IPV4_IFADDR | RTMGRP.IPV6_IFADDR });
    this.source = { fd: this.events.fd, drain: () => this.drain() };
  }

  /** Learns what is there, and follows it from then on. Returns when `links()` is complete. @throws SystemError */
  start(): void {
    this.known = this.dump();
    readiness.arm(this.source);
  }

  links(): ReadonlyMap<number, Link> {
    return this.known;
  }

  byName(name: string): Link | undefined {
    for (const link of this.known.values()) if (link.name === name) return link;
    return undefined;
  }

  /**
   * The kernel's counters of an interface, asked for now.
   *
   * @returns names as in /sys/class/net/IF/statistics
   * @throws FwdfsError interface-gone
   */
  statistics(ifindex: number): Map<string, number> {
    const counters = new Map<string, number>();
    const read = ({ body }: NetlinkMessage): void => {
      const values = attributes(body, IFINFOMSG.bytes).get(IFLA.STATS64);
      if (values === undefined) return;
      for (const [index, name] of STATISTICS.entries()) {
        if (8 * index + 8 <= values.length) counters.set(name, Number(values.readBigUInt64LE(8 * index)));
      }
    };
    try {
      this.asking.query(RTM.GETLINK, 0, encode(IFINFOMSG, { index: ifindex }), read);
    } catch (error) {
      if (!(error instanceof SystemError) || error.errno !== ENODEV) throw error;
      throw new FwdfsError('interface-gone', `there is no interface with index ${ifindex}`, { cause: error });
    }
    return counters;
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    readiness.disarm(this.source);
    this.events.close();
    this.asking.close();
  }

  /** All links with their addresses. */
  private dump(): Map<number, Link> {
    const found = new Map<number, Link>();
    const take = (message: NetlinkMessage): void => {
      const link = this.after(message, found);
      if (link !== null) found.set(link.index, link);
    };
    const linksComplete = this.asking.query(RTM.GETLINK, NLM_F.DUMP, encode(IFINFOMSG, {}), take, () => found.clear());
    // Forgetting is not needed here: an address that went meanwhile is told of by an event.
    const addressesComplete = this.asking.query(RTM.GETADDR, NLM_F.DUMP, encode(IFADDRMSG, {}), take);
    if (!linksComplete || !addressesComplete) {
      this.log.warn({ links: found.size }, 'interfaces change faster than they can be listed; following the changes');
    }
    return found;
  }

  private drain(): boolean {
    for (let count = 0; count < DRAIN_DATAGRAMS; count++) {
      if (this.closed) return false;
      const result = this.events.receive((message) => this.apply(message));
      if (result === -EAGAIN) {
        if (this.lost) this.recover();
        return false;
      }
      if (result < 0 && result !== -EINTR) this.lost = true;
    }
    return true;
  }

  private apply(message: NetlinkMessage): void {
    this.log.debug({ event: printMessage(message) }, 'netlink');
    if (message.type === RTM.DELLINK) {
      const header = decode(IFINFOMSG, message.body);
      // A bridge that loses a port says DELLINK too, with a family of its own.
      if (header === null || header.family !== AF_UNSPEC) return;
      const link = this.known.get(header.index);
      if (link === undefined) return;
      this.known.delete(link.index);
      this.tell('removed', link);
      return;
    }
    const link = this.after(message, this.known);
    if (link === null) return;
    const before = this.known.get(link.index);
    this.known.set(link.index, link);
    if (before !== undefined && before.name !== link.name) this.tell('removed', before);
    this.tellDifference(before, link);
  }

  /** Events were lost: finds out what is there, and tells the difference. Names are given up before they are taken. */
  private recover(): void {
    const before = this.known;
    try {
      this.known = this.dump();
      this.lost = false;
    } catch (error) {
      // Asked again with the next event.
      this.log.error({ error: describe(error) }, 'interfaces could not be listed');
      return;
    }
    this.log.info({ links: this.known.size }, 'events of interfaces were lost; listed them again');
    for (const link of before.values()) if (this.known.get(link.index)?.name !== link.name) this.tell('removed', link);
    for (const link of this.known.values()) this.tellDifference(before.get(link.index), link);
  }

  private tellDifference(before: Link | undefined, link: Link): void {
    if (before === undefined || before.name !== link.name) this.tell('added', link);
    else if (JSON.stringify(before) !== JSON.stringify(link)) this.tell('changed', link);
  }

  private tell(kind: LinkChange, link: Link): void {
    try {
      this.onChange(kind, link);
    } catch (error) {
      this.log.error({ interface: link.name, error: describe(error) }, 'a change of an interface was not handled');
    }
  }

  /** What a NEWLINK, NEWADDR or DELADDR makes of the link that it names; null when it concerns none of `links`. */
  private after(message: NetlinkMessage, links: ReadonlyMap<number, Link>): Link | null {
    const { type, body } = message;
    if (type === RTM.NEWLINK) return this.afterLink(body, links);
    if (type !== RTM.NEWADDR && type !== RTM.DELADDR) return null;
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

  private afterLink(body: Buffer, links: ReadonlyMap<number, Link>): Link | null {
    const header = decode(IFINFOMSG, body);
    if (header === null || header.family !== AF_UNSPEC) return null;
    // Wireless events carry hardly an attribute; what is missing stays as it was.
    const before = links.get(header.index);
    const found = attributes(body, IFINFOMSG.bytes);
    const [name, address, mtu, state] = [IFLA.IFNAME, IFLA.ADDRESS, IFLA.MTU, IFLA.OPERSTATE].map((a) => found.get(a));
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
      speed: linkSpeed(this.asking.fd, ifname),
      inet: before?.inet ?? [],
      inet6: before?.inet6 ?? [],
    };
  }
}

function macText(address: Buffer): string {
  return Array.from(address, (byte) => byte.toString(16).padStart(2, '0')).join(':');
}

/** The kernel's 4 or 16 bytes, spelled as inet_ntop does. */
function ipText(address: Buffer): string {
  if (address.length === 4) return address.join('.');
  const groups = Array.from({ length: 8 }, (_, index) => address.readUInt16BE(2 * index).toString(16));
  return new SocketAddress({ address: groups.join(':'), family: 'ipv6' }).address;
}
