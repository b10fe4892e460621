/**
 * What a mirror of an interface consists of: pure data, from the attributes that the forwarder tells.
 *
 *     attributes --mirrorState--> link: MAC, MTU, up, carrier
 *                                 addresses    10.9.0.1/24
 *                                 rules        from 10.9.0.1 lookup T        oif DEVICE lookup T
 *                                 routes       10.9.0.0/24 dev DEVICE        in main, metric VIF_ROUTE_METRIC, and in T
 *                                              default via 10.9.0.254        in T; in a namespace of its own in main too
 *
 * T is the device's own table. In main are the connected prefixes only, so that next hops resolve and routing daemons can
 * install theirs, behind any route of the control device itself to the same prefix; what else is reached through the
 * interface is chosen by source address or by the device that a socket is bound to. A tun device has no neighbours, so
 * its routes need no gateway.
 */
import { isLinkLocalIpv6, parseIpAddress } from '../packet/ip-address.js';
import { parseMac } from '../packet/mac-address.js';
import type { Family, InterfaceAddress, RouteSpec, RuleSpec } from '../sys/route-requests.js';
import { MAIN_TABLE } from '../sys/route-requests.js';
import type { TunKind } from '../sys/tun.js';
import type { Attributes } from '../tunnel/messages.js';

/** Tables of routes: this one and those that follow, by the index of the device. */
const VIF_TABLE_BASE = 7_440_000;
/** Behind the connected routes of real interfaces and those of DHCP clients and routing daemons. */
export const VIF_ROUTE_METRIC = 4096;
/** Rules of virtual IFs stand before main and after those of pins. */
const VIF_RULE_PRIORITY = 20_410;

const IFF_UP = 1;
/** Without IPv6 below this (RFC 8200, 5); the kernel takes it from the device. */
export const IPV6_MIN_MTU = 1280;
const NEW_DEVICE_MTU = 1500;
/** What the kernel takes for an IPv6 route without one. */
const IPV6_DEFAULT_METRIC = 1024;

export interface VifDevice {
  readonly name: string;
  readonly ifindex: number;
  readonly kind: TunKind;
  /** It is in a namespace that is not the control device's own: all that leaves that may go through it. */
  readonly apart: boolean;
}

/** IPv6 addresses and routes are there only while the device is up: the kernel forgets them when it goes down. */
export interface MirrorState {
  /** null: a tun device has none. */
  mac: Buffer | null;
  mtu: number;
  up: boolean;
  carrier: boolean;
  /** By their spelling, as the others. */
  readonly addresses: Map<string, InterfaceAddress>;
  readonly rules: Map<string, RuleSpec>;
  readonly routes: Map<string, RouteSpec>;
}

/** The number of a device's own table. */
export function tableOf(ifindex: number): number {
  return VIF_TABLE_BASE + ifindex;
}

/** The index of the device whose table it is; 0: no table of a device. */
export function deviceOfTable(table: number): number {
  return table > VIF_TABLE_BASE ? table - VIF_TABLE_BASE : 0;
}

/** The rules that lead sockets bound to the device to its table, whatever its addresses. */
export function deviceRules({ name, ifindex }: Pick<VifDevice, 'name' | 'ifindex'>): Map<string, RuleSpec> {
  const rules = ([4, 6] as const).map((family) => rule(family, null, name, tableOf(ifindex)));
  return byText(rules, ruleText);
}

export function mirrorState(attributes: Attributes, device: VifDevice): MirrorState {
  const { mtu, operstate, flags } = attributes;
  const up = (flags & IFF_UP) !== 0;
  const inet6 = up && mtu >= IPV6_MIN_MTU ? attributes.inet6 : [];
  const addresses = [...attributes.inet, ...inet6].flatMap((text) => {
    const address = parsePrefix(text);
    return address === null ? [] : [address];
  });
  const connected = addresses.flatMap((address) => connectedRoutes(address, device));
  // Of several addresses in one prefix the first one is the source, as it is with the kernel's own routes.
  const onLink = byText(connected, prefixText);
  const routes = [...onLink.values(), ...otherRoutes(attributes.routes ?? [], [...onLink.values()], device)];
  const table = tableOf(device.ifindex);
  const own = addresses.filter(({ address }) => !isLinkLocalIpv6(address));
  return {
    mac: device.kind === 'tap' ? parseMac(attributes.address) : null,
    mtu,
    up,
    carrier: up && (operstate === 'up' || operstate === 'unknown'),
    addresses: byText(addresses, addressText),
    rules: byText(
      own.map(({ address }) => rule(familyOf(address), address, '', table)),
      ruleText,
    ),
    routes: byText(up ? routes : [], routeText),
  };
}

/** What a device has that was just made. */
export function emptyState(): MirrorState {
  const nothing = { addresses: new Map(), rules: new Map(), routes: new Map() };
  return { mac: null, mtu: NEW_DEVICE_MTU, up: false, carrier: false, ...nothing };
}

function rule(family: Family, from: Buffer | null, oif: string, table: number): RuleSpec {
  return { family, from, to: null, oif, exceptMark: 0, table, priority: VIF_RULE_PRIORITY };
}

function connectedRoutes({ address, prefixLength }: InterfaceAddress, { ifindex }: VifDevice): RouteSpec[] {
  if (prefixLength === 8 * address.length) return [];
  const family = familyOf(address);
  const route = {
    family,
    destination: networkOf(address, prefixLength),
    prefixLength,
    gateway: null,
    onlink: false,
    ifindex,
    source: family === 4 ? address : null,
  };
  return [
    { ...route, table: MAIN_TABLE, metric: VIF_ROUTE_METRIC },
    { ...route, table: tableOf(ifindex), metric: 0 },
  ];
}

/**
 * Of several routes to one destination the first one comes first here too, by its metric. What is on the link is in main
 * too, as connected prefixes are.
 * @param connected prefixes that are there already
 */
function otherRoutes(texts: readonly string[], connected: readonly RouteSpec[], device: VifDevice): RouteSpec[] {
  const { apart, ifindex, kind } = device;
  const prefixes = new Set(connected.map(prefixText));
  const before = new Map<string, number>();
  return texts.flatMap((text) => {
    const parsed = parseRoute(text);
    if (parsed === null) return [];
    const { family, gateway, network } = parsed;
    const route: RouteSpec = {
      family,
      destination: network?.address ?? null,
      prefixLength: network?.prefixLength ?? 0,
      gateway: kind === 'tap' ? gateway : null,
      // One that no prefix of ours covers is said to be on the link there.
      onlink: kind === 'tap' && gateway !== null && !connected.some((prefix) => covers(prefix, gateway)),
      ifindex,
      table: tableOf(ifindex),
      metric: family === 4 ? 0 : IPV6_DEFAULT_METRIC,
      source: null,
    };
    const prefix = prefixText(route);
    if (prefixes.has(prefix)) return [];
    const count = before.get(prefix) ?? 0;
    before.set(prefix, count + 1);
    const own = { ...route, metric: route.metric + count };
    const isOnLink = gateway === null && network !== null;
    return apart || isOnLink ? [own, { ...route, table: MAIN_TABLE, metric: VIF_ROUTE_METRIC + count }] : [own];
  });
}

/** As the attributes have them (messages.ts); null for what another version may say. */
function parseRoute(text: string): { family: Family; gateway: Buffer | null; network: InterfaceAddress | null } | null {
  const [to = '', via, hop = ''] = text.split(' ');
  const gateway = parseIpAddress(hop);
  if (to === 'default') return gateway === null ? null : { family: familyOf(gateway), gateway, network: null };
  const network = parsePrefix(to);
  if (network === null || (via !== undefined && (via !== 'via' || gateway === null))) return null;
  const family = familyOf(network.address);
  if (gateway !== null && familyOf(gateway) !== family) return null;
  return { family, gateway, network: network.prefixLength === 0 ? null : network };
}

function covers({ destination, prefixLength }: RouteSpec, address: Buffer): boolean {
  if (destination?.length !== address.length) return false;
  return networkOf(address, prefixLength).equals(destination);
}

function familyOf(address: Buffer): Family {
  return address.length === 4 ? 4 : 6;
}

function parsePrefix(text: string): InterfaceAddress | null {
  const [ip = '', length = ''] = text.split('/');
  const address = parseIpAddress(ip);
  const prefixLength = /^\d{1,3}$/.test(length) ? Number(length) : -1;
  return address === null || prefixLength < 0 || prefixLength > 8 * address.length ? null : { address, prefixLength };
}

function networkOf(address: Buffer, prefixLength: number): Buffer {
  return Buffer.from(
    address.map((byte, index) => byte & (0xff00 >> Math.min(8, Math.max(0, prefixLength - 8 * index)))),
  );
}

/** The broadcast address of an IPv4 prefix; null where there is none. */
export function broadcastOf({ address, prefixLength }: InterfaceAddress): Buffer | null {
  if (address.length !== 4 || prefixLength > 30) return null;
  return Buffer.from(address.map((byte, index) => byte | (0xff >> Math.min(8, Math.max(0, prefixLength - 8 * index)))));
}

function byText<T>(items: readonly T[], textOf: (item: T) => string): Map<string, T> {
  const found = new Map<string, T>();
  for (const item of items) if (!found.has(textOf(item))) found.set(textOf(item), item);
  return found;
}

const hex = (address: Buffer | null): string => address?.toString('hex') ?? '';

function addressText({ address, prefixLength }: InterfaceAddress): string {
  return `${hex(address)}/${prefixLength}`;
}

function ruleText({ family, from, oif }: RuleSpec): string {
  return `${family} ${hex(from)} ${oif}`;
}

function prefixText({ family, destination, prefixLength, table }: RouteSpec): string {
  return `${family} ${hex(destination)}/${prefixLength} ${table}`;
}

function routeText(route: RouteSpec): string {
  return `${prefixText(route)} ${hex(route.gateway)} ${hex(route.source)} ${route.metric}`;
}
