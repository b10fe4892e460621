/**
 * Pins: the way to a forwarder stays what it was before its interface was mirrored here, whatever routes its mirror brings.
 *
 *     pin(ADDRESS)     rule `to ADDRESS lookup T`, before those of virtual IFs;  route ADDRESS via … dev … in T,
 *                      as the kernel says now
 *     routes change    asked again, with a mark that the rule lets pass by: the answer is what the kernel would do
 *                      without the pin. One through a virtual IF is none: what was stays
 *
 * T belongs to one process: it holds the table's number as a name (abstract Unix address), which the kernel gives back
 * however the process ends. A table whose number nobody holds is swept at the next start of any control device.
 */
import { constants } from 'node:os';
import { describe, SystemError } from '../base/errors.js';
import { PIN_DELAY_MS } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { addressText, isLinkLocalIpv6, parseIpAddress } from '../packet/ip-address.js';
import { Netlink } from '../sys/netlink.js';
import { readiness, type Source } from '../sys/readiness.js';
import { type RouteAnswer, RouteRequests, type RouteSpec, type RuleSpec } from '../sys/route-requests.js';
import { RTMGRP } from '../sys/rtnetlink.js';
import { holdTable, isInRange, tryHoldTable } from './table-number.js';
import { hasVifAlias } from './vif-alias.js';

/** One for each process that has any. */
const PIN_TABLES = { name: 'fwdfs pins', first: 7_430_000, count: 256 };
const PIN_RULE_PRIORITY = 20_400;
/** A bit that marks our own lookups. */
const LOOKUP_MARK = 0x4000_0000;

const { EAGAIN } = constants.errno;

interface Pin {
  readonly address: Buffer;
  holders: number;
  /** null: the kernel knew no way. */
  route: RouteSpec | null;
}

export class LinkPin {
  private readonly log: Logger;
  private readonly pins = new Map<string, Pin>();
  /** There while there is a pin. */
  private kernel: PinKernel | null = null;

  /** Works in the network namespace of the process. */
  constructor(log: Logger) {
    this.log = log;
  }

  /**
   * Keeps the way to this address. No failure of the kernel is thrown: without a pin everything works but for a forwarder
   * that is reached through its own mirror; it is logged.
   *
   * @param address IPv4 or IPv6; loopback and link-local ones need no pin
   * @returns what takes this pin back
   */
  pin(address: string): () => void {
    const bytes = parseIpAddress(address);
    if (bytes === null || isLocal(bytes)) return () => undefined;
    const key = bytes.toString('hex');
    try {
      this.hold(key, bytes);
    } catch (error) {
      this.log.warn({ address, error: describe(error) }, 'the way to a forwarder could not be pinned');
      return () => undefined;
    }
    let isHeld = true;
    return () => {
      if (isHeld) this.release(key);
      isHeld = false;
    };
  }

  private hold(key: string, address: Buffer): void {
    const there = this.pins.get(key);
    if (there !== undefined) {
      there.holders += 1;
      return;
    }
    const kernel = (this.kernel ??= new PinKernel(() => this.follow()));
    const pin = { address, holders: 1, route: null };
    this.pins.set(key, pin);
    try {
      this.place(kernel, pin);
      kernel.addRule(address);
    } catch (error) {
      this.release(key);
      throw error;
    }
  }

  private release(key: string): void {
    const pin = this.pins.get(key);
    if (pin === undefined || this.kernel === null) return;
    pin.holders -= 1;
    if (pin.holders > 0) return;
    this.pins.delete(key);
    try {
      this.kernel.remove(pin.address, pin.route);
    } catch (error) {
      this.log.warn({ error: describe(error) }, 'a pin could not be removed');
    }
    if (this.pins.size > 0) return;
    this.kernel.close();
    this.kernel = null;
  }

  /** Routes changed. */
  private follow(): void {
    const { kernel } = this;
    if (kernel === null) return;
    for (const pin of this.pins.values()) {
      try {
        this.place(kernel, pin);
      } catch (error) {
        this.log.warn({ error: describe(error) }, 'the way to a forwarder could not be pinned');
      }
    }
  }

  private place(kernel: PinKernel, pin: Pin): void {
    const route = kernel.wayTo(pin.address);
    if (route === null) return;
    // A link that went down took its route along, so it is put again also if it is the same.
    kernel.addRoute(route);
    if (pin.route !== null && !isSame(pin.route, route)) kernel.removeRoute(pin.route);
    const where = addressText(pin.address);
    if (pin.route === null || !isSame(pin.route, route)) {
      this.log.debug({ address: where, ifindex: route.ifindex }, 'pinned the way to a forwarder');
    }
    pin.route = route;
  }
}

/** The table of this process, and what goes into it. */
class PinKernel implements Source {
  readonly fd: number;
  private readonly requests = new RouteRequests();
  private readonly changes = new Netlink({ groups: RTMGRP.LINK | RTMGRP.IPV4_ROUTE | RTMGRP.IPV6_ROUTE });
  private readonly table: number;
  private readonly giveBack: () => void;
  private readonly onChange: () => void;
  private timer: NodeJS.Timeout | null = null;
  private closed = false;

  constructor(onChange: () => void) {
    this.onChange = onChange;
    [this.table, this.giveBack] = holdTable(PIN_TABLES);
    flush(this.requests, this.table);
    this.fd = this.changes.fd;
    readiness.arm(this);
  }

  drain(): boolean {
    let result: number;
    do result = this.closed ? -EAGAIN : this.changes.receive(() => undefined);
    while (result !== -EAGAIN);
    if (!this.closed) {
      this.timer ??= setTimeout(() => {
        this.timer = null;
        this.onChange();
      }, PIN_DELAY_MS).unref();
    }
    return false;
  }

  /** What the kernel would do without pins; null: it knows no way, or only one through a virtual IF. */
  wayTo(address: Buffer): RouteSpec | null {
    let answer: RouteAnswer;
    try {
      answer = this.requests.routeTo(address, LOOKUP_MARK);
    } catch (error) {
      if (error instanceof SystemError) return null;
      throw error;
    }
    const { ifindex, gateway } = answer;
    if (ifindex === 0 || hasVifAlias(this.requests, ifindex)) return null;
    return {
      family: address.length === 4 ? 4 : 6,
      destination: address,
      prefixLength: 8 * address.length,
      gateway,
      // It may stand on a route of the control device's own.
      onlink: gateway !== null,
      ifindex,
      table: this.table,
      metric: 0,
      source: address.length === 4 ? answer.source : null,
    };
  }

  addRoute(route: RouteSpec): void {
    this.requests.addRoute(route);
  }

  removeRoute(route: RouteSpec): void {
    this.requests.removeRoute(route);
  }

  addRule(address: Buffer): void {
    this.requests.addRule(ruleTo(address, this.table));
  }

  remove(address: Buffer, route: RouteSpec | null): void {
    this.requests.removeRule(ruleTo(address, this.table));
    if (route !== null) this.requests.removeRoute(route);
  }

  close(): void {
    this.closed = true;
    if (this.timer !== null) clearTimeout(this.timer);
    readiness.disarm(this);
    this.changes.close();
    this.requests.close();
    this.giveBack();
  }
}

/** Takes away what processes that ended left, in the network namespace of `requests` and of the thread. @throws SystemError */
export function sweepPins(requests: RouteRequests, log: Logger): void {
  const tables = new Set(requests.rules().map(({ table }) => table));
  for (const table of tables) {
    if (!isInRange(PIN_TABLES, table)) continue;
    const giveBack = tryHoldTable(PIN_TABLES, table);
    if (giveBack === null) continue;
    flush(requests, table);
    giveBack();
    log.info({ table }, 'swept the pins of a process that is gone');
  }
}

/** Rules and routes of a table. A rule tells the address that it and its route are for. */
function flush(requests: RouteRequests, table: number): void {
  for (const rule of requests.rules()) if (rule.table === table) requests.removeRule(rule);
  requests.flushTable(table);
}

function ruleTo(address: Buffer, table: number): RuleSpec {
  return {
    family: address.length === 4 ? 4 : 6,
    from: null,
    to: address,
    oif: '',
    exceptMark: LOOKUP_MARK,
    table,
    priority: PIN_RULE_PRIORITY,
  };
}

function isSame(a: RouteSpec, b: RouteSpec): boolean {
  const equal = (x: Buffer | null, y: Buffer | null): boolean => (x === null ? y === null : y !== null && x.equals(y));
  return a.ifindex === b.ifindex && equal(a.gateway, b.gateway) && equal(a.source, b.source);
}

/** 127.0.0.0/8, ::1, 169.254.0.0/16, fe80::/10: no route of a mirror leads there. */
function isLocal(address: Buffer): boolean {
  if (address.length === 4) return address[0] === 127 || (address[0] === 169 && address[1] === 254);
  const isLoopback = address.subarray(0, 15).every((byte) => byte === 0) && address[15] === 1;
  return isLoopback || isLinkLocalIpv6(address);
}
