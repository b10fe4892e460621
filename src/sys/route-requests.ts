/**
 * Changes to links, addresses, routes and rules, by rtnetlink: each call is one request, and has taken effect when it
 * returns. Addresses are 4 or 16 bytes, which says the family.
 *
 * What is made here carries ROUTE_PROTOCOL, where the kernel has a place for it: by that it is known as ours, and found
 * again after a crash.
 */
import { constants } from 'node:os';
import { SystemError } from '../base/errors.js';
import { Netlink } from './netlink.js';
import type { NetlinkMessage } from './rtnetlink.js';
import {
  attribute,
  attributes,
  cString,
  decode,
  encode,
  FIBRULEHDR,
  FRA,
  IFA,
  IFADDRMSG,
  IFINFOMSG,
  IFLA,
  NLM_F,
  RTA,
  RTM,
  RTMSG,
  u32,
} from './rtnetlink.js';

/** The route protocol of all routes and rules of ours; /etc/iproute2/rt_protos has no such number. */
export const ROUTE_PROTOCOL = 110;
export const MAIN_TABLE = 254;

export type Family = 4 | 6;

export interface LinkSettings {
  readonly up?: boolean;
  readonly mtu?: number;
  /** Link layer address. */
  readonly address?: Buffer;
  readonly alias?: string;
  readonly queueLength?: number;
}

export interface InterfaceAddress {
  readonly address: Buffer;
  readonly prefixLength: number;
}

export interface LinkAddress {
  readonly ifindex: number;
  readonly address: Buffer;
  readonly prefixLength: number;
  /** By `addHostAddress`; false too where the kernel has no place for the protocol number, before 5.18. */
  readonly isOurs: boolean;
}

export interface RouteSpec {
  readonly family: Family;
  /** The network, null: default. */
  readonly destination: Buffer | null;
  readonly prefixLength: number;
  readonly gateway: Buffer | null;
  /** The gateway is on the link, whatever the addresses of the link say. */
  readonly onlink: boolean;
  readonly ifindex: number;
  readonly table: number;
  /** 0: the kernel's default. */
  readonly metric: number;
  /** IPv4: the source of what goes by it; null: the kernel chooses. */
  readonly source: Buffer | null;
}

export interface RuleSpec {
  readonly family: Family;
  readonly from: Buffer | null;
  readonly to: Buffer | null;
  /** Name of the device that a socket is bound to; '' any. */
  readonly oif: string;
  /** Lookups with this bit in their mark pass the rule by; 0: none do. */
  readonly exceptMark: number;
  readonly table: number;
  readonly priority: number;
}

export interface Device {
  readonly name: string;
  /** null: it has no Ethernet header. */
  readonly mac: Buffer | null;
}

/** What the kernel answers for a destination. */
export interface RouteAnswer {
  readonly ifindex: number;
  readonly gateway: Buffer | null;
  readonly source: Buffer | null;
  /** It is an address of this host. */
  readonly isLocal: boolean;
  /** It is one host's: no broadcast, multicast or anycast address, nor this host's. */
  readonly isUnicast: boolean;
}

const AF_INET = 2;
const AF_INET6 = 10;
const AF_UNSPEC = 0;
const IFF_UP = 1;
const ARPHRD_ETHER = 1;
const IFA_F_NODAD = 0x02;
const IFA_F_NOPREFIXROUTE = 0x200;
const RTN_UNICAST = 1;
const RTN_LOCAL = 2;
const RTNH_F_ONLINK = 4;
const RT_SCOPE_UNIVERSE = 0;
const RT_SCOPE_LINK = 253;
const RT_SCOPE_HOST = 254;
const LIFETIME_FOREVER = 0xffff_ffff;
const FR_ACT_TO_TBL = 1;

const { EADDRNOTAVAIL, EEXIST, ENOENT, ESRCH, ENODEV } = constants.errno;

const familyNumber = (family: Family): number => (family === 4 ? AF_INET : AF_INET6);
const familyOf = (address: Buffer): Family => (address.length === 4 ? 4 : 6);

export class RouteRequests {
  private readonly netlink: Netlink;

  /** In the network namespace of the thread. @throws SystemError */
  constructor() {
    this.netlink = new Netlink();
  }

  /** @throws SystemError */
  setLink(ifindex: number, { up, mtu, address, alias, queueLength }: LinkSettings): void {
    const parts = [
      encode(IFINFOMSG, { index: ifindex, flags: up === true ? IFF_UP : 0, change: up === undefined ? 0 : IFF_UP }),
    ];
    if (mtu !== undefined) parts.push(attribute(IFLA.MTU, u32(mtu)));
    if (address !== undefined) parts.push(attribute(IFLA.ADDRESS, address));
    if (alias !== undefined) parts.push(attribute(IFLA.IFALIAS, Buffer.from(alias)));
    if (queueLength !== undefined) parts.push(attribute(IFLA.TXQLEN, u32(queueLength)));
    this.netlink.request(RTM.SETLINK, 0, Buffer.concat(parts));
  }

  /** The alias of a link, '' where it has none; null: there is no such link. @throws SystemError */
  alias(ifindex: number): string | null {
    let alias = '';
    try {
      this.netlink.query(RTM.GETLINK, 0, encode(IFINFOMSG, { index: ifindex }), ({ body }) => {
        const value = attributes(body, IFINFOMSG.bytes).get(IFLA.IFALIAS);
        if (value !== undefined) alias = cString(value);
      });
    } catch (error) {
      if (error instanceof SystemError && error.errno === ENODEV) return null;
      throw error;
    }
    return alias;
  }

  /**
   * Gives a link an address, without a route to its prefix and without asking whether another has it.
   *
   * @throws SystemError, not where it is there already
   */
  addAddress(ifindex: number, address: InterfaceAddress): void {
    const flags = attribute(IFA.FLAGS, u32(IFA_F_NODAD | IFA_F_NOPREFIXROUTE));
    const body = Buffer.concat([addressBody(ifindex, address), flags]);
    this.tolerating(EEXIST, () => this.netlink.request(RTM.NEWADDR, NLM_F.CREATE | NLM_F.EXCL, body));
  }

  /** @throws SystemError, not where it is not there */
  removeAddress(ifindex: number, address: InterfaceAddress): void {
    this.tolerating(EADDRNOTAVAIL, () => this.netlink.request(RTM.DELADDR, 0, addressBody(ifindex, address)));
  }

  /**
   * Gives a link an address for itself alone: no packet gets it as its source by the kernel's choice, and by our protocol
   * number, where the kernel has a place for it, it is known as ours.
   *
   * @param label of an IPv4 address: the link's name, a colon and more @throws SystemError, EEXIST where it is there already
   */
  addHostAddress(ifindex: number, address: Buffer, label: string): void {
    const isIpv4 = address.length === 4;
    const fixed = encode(IFADDRMSG, {
      family: familyNumber(familyOf(address)),
      prefixLength: 8 * address.length,
      scope: isIpv4 ? RT_SCOPE_HOST : RT_SCOPE_UNIVERSE,
      index: ifindex,
    });
    // struct ifa_cacheinfo: preferred, valid, two time stamps.
    const deprecated = Buffer.concat([u32(0), u32(LIFETIME_FOREVER), u32(0), u32(0)]);
    const body = Buffer.concat([
      fixed,
      attribute(IFA.LOCAL, address),
      attribute(IFA.ADDRESS, address),
      attribute(IFA.FLAGS, u32(IFA_F_NODAD | IFA_F_NOPREFIXROUTE)),
      attribute(IFA.PROTO, Buffer.from([ROUTE_PROTOCOL])),
      isIpv4 ? attribute(IFA.LABEL, Buffer.from(`${label}\0`)) : attribute(IFA.CACHEINFO, deprecated),
    ]);
    this.netlink.request(RTM.NEWADDR, NLM_F.CREATE | NLM_F.EXCL, body);
  }

  /** Addresses of a link; 0: of all. @throws SystemError */
  addresses(ifindex: number): LinkAddress[] {
    let found: LinkAddress[] = [];
    const take = ({ type, body }: NetlinkMessage): void => {
      const header = type === RTM.NEWADDR ? decode(IFADDRMSG, body) : null;
      if (header === null || (ifindex !== 0 && header.index !== ifindex)) return;
      const known = attributes(body, IFADDRMSG.bytes);
      const address = known.get(IFA.LOCAL) ?? known.get(IFA.ADDRESS);
      if (address === undefined) return;
      const isOurs = known.get(IFA.PROTO)?.[0] === ROUTE_PROTOCOL;
      const { index, prefixLength } = header;
      found.push({ ifindex: index, address: Buffer.from(address), prefixLength, isOurs });
    };
    this.netlink.query(RTM.GETADDR, NLM_F.DUMP, encode(IFADDRMSG, { family: AF_UNSPEC }), take, () => {
      found = [];
    });
    return found;
  }

  /** Adds a route beside others to the same destination. @throws SystemError, not where it is there already */
  addRoute(route: RouteSpec): void {
    const flags = NLM_F.CREATE | NLM_F.APPEND;
    this.tolerating(EEXIST, () => this.netlink.request(RTM.NEWROUTE, flags, routeBody(route)));
  }

  /** @throws SystemError, not where it is not there */
  removeRoute(route: RouteSpec): void {
    this.tolerating(ESRCH, () => this.netlink.request(RTM.DELROUTE, 0, routeBody(route)));
  }

  /** @throws SystemError, not where it is there already */
  addRule(rule: RuleSpec): void {
    this.tolerating(EEXIST, () => this.netlink.request(RTM.NEWRULE, NLM_F.CREATE | NLM_F.EXCL, ruleBody(rule)));
  }

  /** @throws SystemError, not where it is not there */
  removeRule(rule: RuleSpec): void {
    this.tolerating(ENOENT, () => this.netlink.request(RTM.DELRULE, 0, ruleBody(rule)));
  }

  /** The rules with ROUTE_PROTOCOL. @throws SystemError */
  rules(): RuleSpec[] {
    let found: RuleSpec[] = [];
    const take = (message: NetlinkMessage): void => {
      const rule = ruleOf(message);
      if (rule !== null) found.push(rule);
    };
    this.netlink.query(RTM.GETRULE, NLM_F.DUMP, encode(FIBRULEHDR, { family: AF_UNSPEC }), take, () => {
      found = [];
    });
    return found;
  }

  /** The device that has this index; null: none has. @throws SystemError */
  device(ifindex: number): Device | null {
    let device: Device | null = null;
    try {
      this.netlink.query(RTM.GETLINK, 0, encode(IFINFOMSG, { index: ifindex }), ({ body }) => {
        const found = attributes(body, IFINFOMSG.bytes);
        const name = found.get(IFLA.IFNAME);
        const isEthernet = decode(IFINFOMSG, body)?.type === ARPHRD_ETHER;
        const address = isEthernet ? (found.get(IFLA.ADDRESS) ?? null) : null;
        if (name !== undefined) device = { name: cString(name), mac: address === null ? null : Buffer.from(address) };
      });
    } catch (error) {
      if (error instanceof SystemError && error.errno === ENODEV) return null;
      throw error;
    }
    return device;
  }

  /** Takes away all routes of one table that have ROUTE_PROTOCOL. @param to only those to this host @throws SystemError */
  flushTable(table: number, to: Buffer | null = null): void {
    let bodies: Buffer[] = [];
    const take = ({ type, body }: NetlinkMessage): void => {
      const header = type === RTM.NEWROUTE ? decode(RTMSG, body) : null;
      if (header === null || header.protocol !== ROUTE_PROTOCOL) return;
      const found = attributes(body, RTMSG.bytes);
      if (found.get(RTA.TABLE)?.readUInt32LE(0) !== table) return;
      if (to !== null && found.get(RTA.DST)?.equals(to) !== true) return;
      if (to !== null && header.destinationLength !== 8 * to.length) return;
      bodies.push(Buffer.from(body));
    };
    this.netlink.query(RTM.GETROUTE, NLM_F.DUMP, encode(RTMSG, { family: AF_UNSPEC }), take, () => {
      bodies = [];
    });
    // A route as the kernel tells it is what it takes for a route to remove.
    for (const body of bodies) this.tolerating(ESRCH, () => this.netlink.request(RTM.DELROUTE, 0, body));
  }

  /**
   * What the kernel would do with a packet to this address now.
   *
   * @param mark of the packet @param through it has to leave by this device; 0: by any
   * @throws SystemError ENETUNREACH, EHOSTUNREACH …
   */
  routeTo(address: Buffer, mark: number, through = 0): RouteAnswer {
    let answer: RouteAnswer = { ifindex: 0, gateway: null, source: null, isLocal: false, isUnicast: false };
    const body = Buffer.concat([
      encode(RTMSG, { family: familyNumber(familyOf(address)), destinationLength: 8 * address.length }),
      attribute(RTA.DST, address),
      attribute(RTA.MARK, u32(mark)),
      ...(through === 0 ? [] : [attribute(RTA.OIF, u32(through))]),
    ]);
    this.netlink.query(RTM.GETROUTE, 0, body, ({ type, body: said }) => {
      if (type !== RTM.NEWROUTE) return;
      const found = attributes(said, RTMSG.bytes);
      const copied = (bytes: Buffer | undefined): Buffer | null => (bytes === undefined ? null : Buffer.from(bytes));
      answer = {
        ifindex: found.get(RTA.OIF)?.readUInt32LE(0) ?? 0,
        gateway: copied(found.get(RTA.GATEWAY)),
        source: copied(found.get(RTA.PREFSRC)),
        isLocal: decode(RTMSG, said)?.type === RTN_LOCAL,
        isUnicast: decode(RTMSG, said)?.type === RTN_UNICAST,
      };
    });
    return answer;
  }

  close(): void {
    this.netlink.close();
  }

  private tolerating(errno: number, request: () => void): void {
    try {
      request();
    } catch (error) {
      if (!(error instanceof SystemError) || error.errno !== errno) throw error;
    }
  }
}

function addressBody(ifindex: number, { address, prefixLength }: InterfaceAddress): Buffer {
  return Buffer.concat([
    encode(IFADDRMSG, { family: familyNumber(familyOf(address)), prefixLength, index: ifindex }),
    attribute(IFA.LOCAL, address),
    attribute(IFA.ADDRESS, address),
  ]);
}

function routeBody(route: RouteSpec): Buffer {
  const fixed = encode(RTMSG, {
    family: familyNumber(route.family),
    destinationLength: route.prefixLength,
    protocol: ROUTE_PROTOCOL,
    // IPv6 knows no scopes of routes.
    scope: route.family === 4 && route.gateway === null ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE,
    type: RTN_UNICAST,
    flags: route.onlink ? RTNH_F_ONLINK : 0,
  });
  const parts = [fixed, attribute(RTA.TABLE, u32(route.table)), attribute(RTA.OIF, u32(route.ifindex))];
  if (route.destination !== null) parts.push(attribute(RTA.DST, route.destination));
  if (route.gateway !== null) parts.push(attribute(RTA.GATEWAY, route.gateway));
  if (route.metric > 0) parts.push(attribute(RTA.PRIORITY, u32(route.metric)));
  if (route.source !== null) parts.push(attribute(RTA.PREFSRC, route.source));
  return Buffer.concat(parts);
}

function ruleBody(rule: RuleSpec): Buffer {
  const bits = (address: Buffer | null): number => (address === null ? 0 : 8 * address.length);
  const parts = [
    encode(FIBRULEHDR, {
      family: familyNumber(rule.family),
      destinationLength: bits(rule.to),
      sourceLength: bits(rule.from),
      action: FR_ACT_TO_TBL,
    }),
    attribute(FRA.TABLE, u32(rule.table)),
    attribute(FRA.PRIORITY, u32(rule.priority)),
    attribute(FRA.PROTOCOL, Buffer.from([ROUTE_PROTOCOL])),
  ];
  if (rule.to !== null) parts.push(attribute(FRA.DST, rule.to));
  if (rule.from !== null) parts.push(attribute(FRA.SRC, rule.from));
  if (rule.oif !== '') parts.push(attribute(FRA.OIFNAME, Buffer.from(`${rule.oif}\0`)));
  if (rule.exceptMark !== 0) {
    parts.push(attribute(FRA.FWMARK, u32(0)), attribute(FRA.FWMASK, u32(rule.exceptMark)));
  }
  return Buffer.concat(parts);
}

/** Null for a rule that is not ours. */
function ruleOf({ type, body }: NetlinkMessage): RuleSpec | null {
  const header = type === RTM.NEWRULE ? decode(FIBRULEHDR, body) : null;
  if (header === null || (header.family !== AF_INET && header.family !== AF_INET6)) return null;
  const found = attributes(body, FIBRULEHDR.bytes);
  if (found.get(FRA.PROTOCOL)?.[0] !== ROUTE_PROTOCOL) return null;
  const [to, from, oif] = [FRA.DST, FRA.SRC, FRA.OIFNAME].map((key) => found.get(key));
  return {
    family: header.family === AF_INET ? 4 : 6,
    from: from === undefined ? null : Buffer.from(from),
    to: to === undefined ? null : Buffer.from(to),
    oif: oif === undefined ? '' : cString(oif),
    exceptMark: found.get(FRA.FWMASK)?.readUInt32LE(0) ?? 0,
    table: found.get(FRA.TABLE)?.readUInt32LE(0) ?? header.table,
    priority: found.get(FRA.PRIORITY)?.readUInt32LE(0) ?? 0,
  };
}
