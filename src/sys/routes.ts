/**
 * Routes of the main table of a network namespace, followed as they change.
 *
 *     NEWROUTE, DELROUTE             --> the list is changed
 *     links and addresses change,    --> the list is asked for anew when it is next wanted: the kernel takes IPv4 routes
 *     or events were lost                away with them without a word
 *
 * The sockets belong to the network namespace of the thread that creates it.
 */
import { constants } from 'node:os';
import { describe } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { ipText } from './link.js';
import { Netlink } from './netlink.js';
import { readiness, type Source } from './readiness.js';
import {
  attribute,
  attributes,
  decode,
  encode,
  type NetlinkMessage,
  NLM_F,
  RTA,
  RTM,
  RTMGRP,
  RTMSG,
  RTNEXTHOP,
} from './rtnetlink.js';

const RT_TABLE_MAIN = 254;
const RTM_F_CLONED = 0x200;
const RTN_BROADCAST = 3;
const AF_INET = 2;
const AF_INET6 = 10;
/** Datagrams that one drain takes before timers and other descriptors get their turn. */
const DRAIN_DATAGRAMS = 64;
const { EAGAIN, EINTR } = constants.errno;

export interface Route {
  readonly family: 4 | 6;
  /** `10.2.0.0/16`, or `default`. */
  readonly destination: string;
  /** '': the destination is on the link. */
  readonly gateway: string;
  /** Index of the interface; 0: none. */
  readonly oif: number;
  /** Who set it: RTPROT_*. */
  readonly protocol: number;
  readonly metric: number;
  /** RTN_*; 1 is unicast. */
  readonly type: number;
}

/** The routes that a message is about, one per next hop; none for other tables and for what the kernel only remembers. */
function routesOf({ body }: NetlinkMessage): Route[] {
  const header = decode(RTMSG, body);
  if (header === null || (header.flags & RTM_F_CLONED) !== 0) return [];
  const family = header.family === AF_INET ? 4 : header.family === AF_INET6 ? 6 : 0;
  const found = attributes(body, RTMSG.bytes);
  if (family === 0 || (found.get(RTA.TABLE)?.readUInt32LE(0) ?? header.table) !== RT_TABLE_MAIN) return [];
  const target = found.get(RTA.DST);
  const route = {
    family,
    destination: target === undefined ? 'default' : `${ipText(target)}/${header.destinationLength}`,
    protocol: header.protocol,
    metric: found.get(RTA.PRIORITY)?.readUInt32LE(0) ?? 0,
    type: header.type,
  } as const;
  const several = found.get(RTA.MULTIPATH);
  if (several !== undefined) return nextHops(several).map((hop) => ({ ...route, ...hop }));
  return [{ ...route, gateway: gatewayOf(found), oif: found.get(RTA.OIF)?.readInt32LE(0) ?? 0 }];
}

function nextHops(bytes: Buffer): { gateway: string; oif: number }[] {
  const hops: { gateway: string; oif: number }[] = [];
  for (let at = 0; ;) {
    const header = decode(RTNEXTHOP, bytes, at);
    if (header === null || header.length < RTNEXTHOP.bytes || at + header.length > bytes.length) return hops;
    const found = attributes(bytes.subarray(at, at + header.length), RTNEXTHOP.bytes);
    hops.push({ gateway: gatewayOf(found), oif: header.index });
    at += (header.length + 3) & ~3;
  }
}

function gatewayOf(found: ReadonlyMap<number, Buffer>): string {
  // A gateway of the other family stands behind its family, u16.
  const gateway = found.get(RTA.GATEWAY) ?? found.get(RTA.VIA)?.subarray(2);
  return gateway === undefined ? '' : ipText(gateway);
}

const sameTarget = (a: Route, b: Route): boolean =>
  a.family === b.family && a.destination === b.destination && a.metric === b.metric;
const same = (a: Route, b: Route): boolean =>
  sameTarget(a, b) && a.gateway === b.gateway && a.oif === b.oif && a.type === b.type;

export class RouteMonitor {
  /** Told after `start` that `routes()` may be others. Must not throw. */
  onChange: () => void = () => undefined;
  private readonly log: Logger;
  private readonly asking: Netlink;
  private readonly events: Netlink;
  private readonly source: Source;
  private known: Route[] = [];
  private stale = true;
  private closed = false;

  /** @throws SystemError */
  constructor(log: Logger) {
    this.log = log;
    this.asking = new Netlink();
    const { IPV4_IFADDR, IPV4_ROUTE, IPV6_ROUTE, LINK } = RTMGRP;
    this.events = new Netlink({ groups: LINK | IPV4_IFADDR | IPV4_ROUTE | IPV6_ROUTE });
    this.source = { fd: this.events.fd, drain: () => this.drain() };
  }

  /** Follows the routes from now on. */
  start(): void {
    readiness.arm(this.source);
  }

  routes(): readonly Route[] {
    if (this.stale) this.dump();
    return this.known;
  }

  /**
   * Where the kernel would send a packet that has to leave through this interface.
   * @returns the address of the next hop: the destination's own on the link; empty: it is a broadcast address
   * @throws SystemError
   */
  nextHop(oif: number, destination: Buffer): Buffer {
    const index = Buffer.alloc(4);
    index.writeInt32LE(oif, 0);
    const family = destination.length === 4 ? AF_INET : AF_INET6;
    const header = encode(RTMSG, { family, destinationLength: 8 * destination.length });
    let hop = destination;
    const body = Buffer.concat([header, attribute(RTA.DST, destination), attribute(RTA.OIF, index)]);
    this.asking.query(RTM.GETROUTE, 0, body, (answer) => {
      if (decode(RTMSG, answer.body)?.type === RTN_BROADCAST) hop = Buffer.alloc(0);
      const gateway = attributes(answer.body, RTMSG.bytes).get(RTA.GATEWAY);
      if (gateway !== undefined) hop = Buffer.from(gateway);
    });
    return hop;
  }

  private dump(): void {
    const found: Route[] = [];
    try {
      this.asking.query(
        RTM.GETROUTE,
        NLM_F.DUMP,
        encode(RTMSG, {}),
        (message) => void found.push(...routesOf(message)),
        () => void (found.length = 0),
      );
      this.known = found;
      this.stale = false;
    } catch (error) {
      // Asked again the next time.
      this.log.error({ error: describe(error) }, 'routes could not be listed');
    }
  }

  private drain(): boolean {
    let changed = false;
    let more = true;
    for (let count = 0; more && count < DRAIN_DATAGRAMS && !this.closed; count++) {
      const result = this.events.receive((message) => this.apply(message));
      if (result === -EAGAIN) more = false;
      else changed = true;
      if (result < 0 && result !== -EAGAIN && result !== -EINTR) this.stale = true;
    }
    if (changed && !this.closed) this.onChange();
    return more && !this.closed;
  }

  private apply(message: NetlinkMessage): void {
    if (message.type !== RTM.NEWROUTE && message.type !== RTM.DELROUTE) {
      this.stale = true;
      return;
    }
    if (this.stale) return;
    for (const route of routesOf(message)) {
      const replaces = message.type === RTM.NEWROUTE && (message.flags & NLM_F.REPLACE) !== 0;
      this.known = this.known.filter((other) => !(replaces ? sameTarget(other, route) : same(other, route)));
      if (message.type === RTM.NEWROUTE) this.known.push(route);
    }
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    readiness.disarm(this.source);
    this.events.close();
    this.asking.close();
  }
}
