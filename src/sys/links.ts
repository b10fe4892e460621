/**
 * The interfaces of a network namespace and their addresses, followed as they change.
 *
 *     start:   join the groups, then dump links and addresses: what changes in between comes as an event
 *     events:  readiness --drain--> NEWLINK, DELLINK, NEWADDR, DELADDR --apply--> links --> onChange
 *     ENOBUFS: events were lost. Those that are still queued are older than the loss, so the queue is emptied first and
 *              the dump taken after it; the difference to what was known goes to onChange.
 *
 * A rename keeps the index, but names are what users hold, so it is told as 'removed' with the old name and then 'added'
 * with the new one. `start` itself tells nothing. The map that `links` gives is the one of that moment: ask again.
 * The monitor owns two sockets of the network namespace of the thread that creates it.
 */
import { constants } from 'node:os';
import { describe, FwdfsError, SystemError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { linkSpeed } from './ethtool.js';
import { linkAfter, removedIndex, statisticsOf } from './link.js';
import type { Link } from './link.js';
import { Netlink } from './netlink.js';
import type { Source } from './readiness.js';
import { readiness } from './readiness.js';
import type { NetlinkMessage } from './rtnetlink.js';
import { encode, IFADDRMSG, IFINFOMSG, NLM_F, printMessage, RTM, RTMGRP } from './rtnetlink.js';

export { ARPHRD, pcapLinkType } from './link.js';
export type { Link, OperationalState } from './link.js';

export type LinkChange = 'added' | 'changed' | 'removed';

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
  private readonly speedOf = (name: string): number => linkSpeed(this.asking.fd, name);
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
    let counters = new Map<string, number>();
    const read = (message: NetlinkMessage): void => {
      counters = statisticsOf(message);
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
      const link = linkAfter(message, found, this.speedOf);
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
    const removed = this.known.get(removedIndex(message) ?? 0);
    if (removed !== undefined) {
      this.known.delete(removed.index);
      this.tell('removed', removed);
      return;
    }
    const link = linkAfter(message, this.known, this.speedOf);
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
}
