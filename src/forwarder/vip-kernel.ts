/**
 * What virtual IP addresses need of the forwarder's kernel besides routes: the table of vip-ruleset.ts, and forwarding.
 *
 *     update --changes that come while nft runs share the next run--> settings that nobody wants: back
 *                                                                     table: replaced in one transaction
 *                                                                     settings that are wanted: set
 *
 *     refuse --element of a set, at once--> new connections pass a member by that the next run leaves out
 *
 * Forwarding is switched on where it was off only behind a table that lets nothing else through, and off before that goes.
 * The table outlives the last address by VIP_RESET_MS: so long it tells clients that their connection was given up.
 */
import { constants } from 'node:os';
import { describe, SystemError } from '../base/errors.js';
import { VIP_COUNTS_MS, VIP_RESET_MS } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { applyRuleset, deleteTable, listTable, listTables } from '../sys/nftables.js';
import { NftSets, portPart, setKey } from '../sys/nft-sets.js';
import { listSysctls, readSysctl } from '../sys/sysctl.js';
import { SysctlHold } from '../sys/sysctl-hold.js';
import { tableName } from './discard.js';
import { readListing, type VipListing } from './vip-rows.js';
import type { VipPort } from './vip-registrations.js';
import { awaySet, replaceScript, type VipModel, type VipRuleset, vipRuleset } from './vip-ruleset.js';

const FAMILY = 'inet';
const IPV6_FORWARDING = 'net/ipv6/conf/all/forwarding';

export interface VipWants extends Omit<VipModel, 'closed4' | 'closed6'> {
  /** Where packets are to be forwarded: by interface, and with IPv6 everywhere or nowhere. */
  readonly forwarding: { readonly ipv4: ReadonlySet<string>; readonly ipv6: boolean };
}

const ipv4Forwarding = (interfaceName: string): string => `net/ipv4/conf/${interfaceName}/forwarding`;

/** In the order in which they are set: a router takes no router's advertisements unless told so before. */
function settingsOf({ forwarding }: VipWants): Map<string, string> {
  const settings = new Map<string, string>();
  for (const name of forwarding.ipv4) settings.set(ipv4Forwarding(name), '1');
  if (!forwarding.ipv6) return settings;
  for (const name of listSysctls('net/ipv6/conf')) {
    const path = `net/ipv6/conf/${name}/accept_ra`;
    if (name !== 'all' && name !== 'default' && readSysctl(path) !== '0') settings.set(path, '2');
  }
  return settings.set(IPV6_FORWARDING, '1');
}

export class VipKernel {
  readonly table: string;
  private readonly wants: () => VipWants;
  private readonly hold: SysctlHold;
  private readonly log: Logger;
  private last: Promise<unknown> = Promise.resolve();
  private waiting: Promise<void> | null = null;
  /** What the table has; null: it is not there. */
  private applied: VipRuleset | null = null;
  /** There with the table. */
  private sets: NftSets | null = null;
  private goneTimer: NodeJS.Timeout | null = null;
  private listed: Promise<VipListing> | null = null;

  /** @param wants what there is to be, at the time of each run */
  constructor(forwarder: string, wants: () => VipWants, log: Logger) {
    this.table = `${tableName(forwarder)}/vip`;
    this.wants = wants;
    this.hold = new SysctlHold(tableName(forwarder), log);
    this.log = log;
  }

  /**
   * Puts back what a crash left, and empties its table: while that is there, connections stay converted, though none is
   * forwarded, and the host does not answer for them.
   *
   * @returns what the table had @throws as listTables
   */
  sweep(): Promise<Pick<VipListing, 'senders' | 'reception'>> {
    return this.next(async () => {
      this.hold.sweep();
      const left = (await listTables()).some(({ family, name }) => family === FAMILY && name === this.table);
      if (!left) return { senders: [], reception: [] };
      const listing = await this.read();
      await this.replace(vipRuleset(this.table, { senders: [], members: [], closed4: [], closed6: false, seed: 1 }));
      return listing;
    });
  }

  /** Resolves when the kernel has what is wanted at the time of the call. @throws FwdfsError host-lacks; SystemError */
  update(): Promise<void> {
    this.waiting ??= this.next(() => {
      this.waiting = null;
      return this.write();
    });
    return this.waiting;
  }

  /**
   * New connections to these ports go to other members from now on, or do again.
   * @returns false: the kernel has no such table just now; the next run has it right
   */
  refuse(sender: Buffer, vip: Buffer, ports: readonly VipPort[], isRefused: boolean): boolean {
    const keys = ports.map(({ protocol, port }) => setKey(vip, Buffer.from([protocol]), portPart(port)));
    if (this.sets === null || this.applied?.sets.includes(awaySet(sender)) !== true) return false;
    try {
      if (isRefused) this.sets.addAll(awaySet(sender), keys);
      else for (const key of keys) this.sets.remove(awaySet(sender), key);
      return true;
    } catch (error) {
      this.log.debug({ error: describe(error) }, 'a member is left out by nft only');
      return false;
    }
  }

  /** At most VIP_COUNTS_MS old: a listing of many rules asks for each. @throws as update */
  listing(): Promise<VipListing> {
    if (this.listed === null) {
      this.listed = this.next(() => this.read());
      setTimeout(() => {
        this.listed = null;
      }, VIP_COUNTS_MS).unref();
    }
    return this.listed;
  }

  /** Leaves nothing behind. @throws as update */
  remove(): Promise<void> {
    return this.next(async () => {
      this.hold.retain(new Set());
      await this.removeTable();
    });
  }

  private async read(): Promise<VipListing> {
    return readListing((await listTable(FAMILY, this.table)) ?? '{}');
  }

  private async write(): Promise<void> {
    const wants = this.wants();
    const settings = settingsOf(wants);
    this.hold.retain(new Set(settings.keys()));
    const isEmpty = wants.senders.length === 0;
    if (isEmpty && this.applied === null) return;
    const after = vipRuleset(this.table, {
      ...wants,
      closed4: [...wants.forwarding.ipv4].filter((name) => this.hold.before(ipv4Forwarding(name)) === '0'),
      closed6: wants.forwarding.ipv6 && this.hold.before(IPV6_FORWARDING) === '0',
    });
    if (after.body !== this.applied?.body) await this.replace(after);
    this.listed = null;
    this.hold.apply(settings);
    if (this.goneTimer !== null) clearTimeout(this.goneTimer);
    this.goneTimer = isEmpty ? setTimeout(() => this.expire(), VIP_RESET_MS).unref() : null;
  }

  private async replace(after: VipRuleset): Promise<void> {
    try {
      await applyRuleset(replaceScript(this.table, this.applied, after));
    } catch (error) {
      // Somebody took the table away, as a firewall does that begins with "flush ruleset".
      if (this.applied === null || !(error instanceof SystemError) || error.errno !== constants.errno.ENOENT)
        throw error;
      await applyRuleset(replaceScript(this.table, null, after));
    }
    this.applied = after;
    this.sets ??= new NftSets(FAMILY, this.table);
  }

  /** Nobody had an address for a while. */
  private expire(): void {
    this.next(async () => {
      if (this.wants().senders.length === 0) await this.removeTable();
    }).catch((error: unknown) =>
      this.log.error({ error: describe(error) }, 'a table of nftables could not be removed'),
    );
  }

  private async removeTable(): Promise<void> {
    if (this.goneTimer !== null) clearTimeout(this.goneTimer);
    this.goneTimer = null;
    if (this.applied !== null) await deleteTable(FAMILY, this.table);
    this.applied = null;
    this.sets?.close();
    this.sets = null;
  }

  private next<T>(step: () => Promise<T>): Promise<T> {
    const done = this.last.then(step);
    this.last = done.catch(() => undefined);
    return done;
  }
}
