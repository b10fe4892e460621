/**
 * What virtual IP address 223 (Fig. 13) is in the kernel of the control device, in the network namespace of the process:
 *
 *     name `fwdfs vip ADDRESS`         held: no other control device of this namespace has it
 *     nft tables                       vip-ruleset.ts: nothing is converted until it is admitted
 *     address on lo                    for this host alone: sockets can be bound to it, packets to it are for us
 *     rule from ADDRESS lookup T       T: default via the forwarder on the link between the devices
 *
 * The forwarder's answer makes it (`apply`); another answer makes it anew, with what was admitted. When the link was down
 * its route comes back with it.
 */
import { constants } from 'node:os';
import { describe, FwdfsError, SystemError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { parseIpAddress } from '../packet/ip-address.js';
import type { ProtocolAddress } from '../packet/protocol-address.js';
import { deleteEntries, listEntries } from '../sys/conntrack.js';
import { ifNameToIndex } from '../sys/libc.js';
import { LinkWatch } from '../sys/link-watch.js';
import { NftSets, portPart, setKey } from '../sys/nft-sets.js';
import { applyRuleset, dropTable } from '../sys/nftables.js';
import { RouteRequests, type RouteSpec, type RuleSpec } from '../sys/route-requests.js';
import { holdTable, tryHoldName } from './table-number.js';
import { hasVifAlias } from './vif-alias.js';
import {
  type Conversion,
  OTHERS_MARK,
  RECEPTION_MAP,
  VIP_ARP_FAMILY,
  VIP_TABLE_FAMILY,
  vipRuleset,
  vipTable,
} from './vip-ruleset.js';

/** Tables of routes, one for each virtual IP address. */
export const VIP_TABLES = { name: 'fwdfs vip table', first: 7_431_000, count: 4096 };
/** After the rules of pins, before those of virtual IFs and main. */
const VIP_RULE_PRIORITY = 20_405;
const LABEL = 'lo:fwdfs';

/** The name that says whose a virtual IP address is. */
export const vipLockName = (vip: string): string => `fwdfs vip ${vip}`;

/** All that the kernel needs to know. */
export interface VipPath extends Conversion {
  readonly ifindex: number;
  /** The forwarder's address on the link, of the same family. */
  readonly nextHop: string;
}

/** @throws FwdfsError bad-command */
export function addressBytes(text: string): Buffer {
  const bytes = parseIpAddress(text);
  if (bytes === null) throw new FwdfsError('bad-command', `${JSON.stringify(text)} is no IPv4 or IPv6 address`);
  return bytes;
}

export class VipKernel {
  readonly requests = new RouteRequests();
  private readonly vip: string;
  private readonly address: Buffer;
  private readonly table: string;
  private readonly log: Logger;
  private readonly giveBack: (() => void)[] = [];
  private readonly routingTable: number;
  private path: VipPath | null = null;
  private sets: NftSets | null = null;
  private watch: LinkWatch | null = null;
  /** Tables that somebody took away are being made. */
  private remaking: Promise<void> | null = null;
  private route: RouteSpec | null = null;
  /** How many rules want a port, by `PROTOCOL . PORT`. */
  private readonly holders = new Map<string, number>();

  /** Holds the address; nothing is in the kernel yet. @throws FwdfsError already-there; SystemError */
  constructor(control: string, vip: string, log: Logger) {
    this.vip = vip;
    this.address = addressBytes(vip);
    this.table = vipTable(control, vip);
    this.log = log;
    try {
      const free = tryHoldName(vipLockName(vip));
      if (free === null) throw new FwdfsError('already-there', `virtual IP address ${vip} of another control device`);
      this.giveBack.push(free);
      if (this.isTaken()) throw new FwdfsError('already-there', `${vip} is an address of this host`);
      const [table, freeTable] = holdTable(VIP_TABLES);
      this.routingTable = table;
      this.giveBack.push(freeTable);
    } catch (error) {
      this.release();
      throw error;
    }
  }

  /** A virtual IF may have it too: the flows of both stay apart. */
  private isTaken(): boolean {
    return this.requests
      .addresses(0)
      .some(({ address, ifindex }) => address.equals(this.address) && !hasVifAlias(this.requests, ifindex));
  }

  /** Makes it, or makes it anew where something is other than before. @throws FwdfsError host-lacks without nft; SystemError */
  async apply(path: VipPath): Promise<void> {
    await this.remaking;
    const before = this.path;
    const isSame = before !== null && JSON.stringify(before) === JSON.stringify(path);
    if (!isSame) {
      this.path = path;
      await this.makeTables(path);
    }
    if (before === null) {
      this.requests.addHostAddress(ifNameToIndex('lo'), this.address, LABEL);
      this.requests.addRule(this.rule);
    }
    if (before?.ifindex !== path.ifindex) {
      this.watch?.close();
      this.watch = new LinkWatch(path.ifindex, (up) => {
        if (up) this.placeRoute();
      });
    }
    this.placeRoute();
  }

  private get drops(): string {
    return [VIP_TABLE_FAMILY, VIP_ARP_FAMILY].map((family) => dropTable(family, this.table)).join('');
  }

  private async makeTables(path: VipPath): Promise<void> {
    const ports = [...this.holders.keys()];
    const elements = ports.map((port) => `${path.sender} . ${port} : ${this.vip}`);
    await applyRuleset(this.drops + vipRuleset(this.table, path, elements));
    this.sets ??= new NftSets(VIP_TABLE_FAMILY, this.table);
    // What changed while nft ran.
    for (const port of ports) if (!this.holders.has(port)) this.change('remove', port);
    for (const port of this.holders.keys()) this.change('add', port);
  }

  /** Somebody took the tables away, as a firewall does that begins with "flush ruleset". */
  private remake(path: VipPath): void {
    this.remaking ??= this.makeTables(path)
      .catch((error: unknown) =>
        this.log.warn({ vip: this.vip, error: describe(error) }, 'the tables of a virtual IP address are not there'),
      )
      .finally(() => {
        this.remaking = null;
      });
  }

  private get rule(): RuleSpec {
    const family = this.address.length === 4 ? 4 : 6;
    const table = this.routingTable;
    return {
      family,
      from: this.address,
      to: null,
      oif: '',
      exceptMark: OTHERS_MARK,
      table,
      priority: VIP_RULE_PRIORITY,
    };
  }

  private placeRoute(): void {
    const { path } = this;
    if (path === null) return;
    const route: RouteSpec = {
      family: this.address.length === 4 ? 4 : 6,
      destination: null,
      prefixLength: 0,
      gateway: addressBytes(path.nextHop),
      onlink: true,
      ifindex: path.ifindex,
      table: this.routingTable,
      metric: 0,
      source: null,
    };
    try {
      if (this.route !== null) this.requests.removeRoute(this.route);
      this.requests.addRoute(route);
      this.route = route;
    } catch (error) {
      // A link that is down: its route comes with it.
      this.log.warn({ vip: this.vip, error: describe(error) }, 'answers have no way to the forwarder now');
    }
  }

  /** Lets in what is for a port of the address, until it was refused as often. */
  admit(protocol: ProtocolAddress): void {
    for (const port of portsOf(protocol)) {
      const count = this.holders.get(port) ?? 0;
      this.holders.set(port, count + 1);
      if (count === 0) this.change('add', port);
    }
  }

  refuse(protocol: ProtocolAddress): void {
    for (const port of portsOf(protocol)) {
      const count = this.holders.get(port) ?? 0;
      if (count > 1) this.holders.set(port, count - 1);
      else if (this.holders.delete(port)) this.change('remove', port);
    }
  }

  private change(verb: 'add' | 'remove', port: string): void {
    const { path, sets } = this;
    if (path === null || sets === null) return;
    const [protocol = 0, number = 0] = port.split(' . ').map(Number);
    const key = setKey(addressBytes(path.sender), Buffer.from([protocol]), portPart(number));
    try {
      if (verb === 'add') sets.add(RECEPTION_MAP, key, this.address);
      else sets.remove(RECEPTION_MAP, key);
    } catch (error) {
      if (error instanceof SystemError && error.errno === constants.errno.ENOENT) return this.remake(path);
      this.log.warn({ vip: this.vip, port, error: describe(error) }, 'the kernel refused a setting');
    }
  }

  /** Nothing is left in the kernel. @throws as apply */
  async remove(): Promise<void> {
    const { path } = this;
    this.path = null;
    this.watch?.close();
    await this.remaking;
    this.sets?.close();
    if (path !== null) {
      removeVip(this.requests, this.address, this.routingTable);
      await applyRuleset(this.drops);
      await forgetConverted(this.address, this.log);
    }
    this.release();
  }

  private release(): void {
    this.requests.close();
    for (const free of this.giveBack.splice(0)) free();
  }
}

/** `PROTOCOL . PORT` of each, as nft spells them. */
function portsOf({ protocols, portLow }: ProtocolAddress): string[] {
  return protocols.map((protocol) => `${protocol} . ${portLow}`);
}

/** Address, rule and route of a virtual IP address, whatever of them there is. @throws SystemError */
export function removeVip(requests: RouteRequests, address: Buffer, table: number): void {
  for (const rule of requests.rules()) if (rule.table === table) requests.removeRule(rule);
  requests.flushTable(table);
  requests.removeAddress(ifNameToIndex('lo'), { address, prefixLength: 8 * address.length });
}

/**
 * Has the kernel forget what it converted for a virtual IP address. It would drop a connection of the same ends that comes
 * otherwise, by a virtual IF, for as long as it remembers the one before: two minutes, or days.
 */
export async function forgetConverted(address: Buffer, log: Logger): Promise<void> {
  try {
    const came = (await listEntries('reply', address)).filter(({ original }) => !original.destination.equals(address));
    const went = (await listEntries('original', address)).filter(({ reply }) => !reply.destination.equals(address));
    await deleteEntries([...came, ...went]);
  } catch (error) {
    log.warn({ error: describe(error) }, 'connections of a virtual IP address could not be forgotten');
  }
}
