/**
 * All offered interfaces of the forwarder: IF acquisition and transmission section 63 with IF information
 * acquisition section 72.
 *
 *     kernel --netlink--> LinkMonitor --> ForwarderInterface (sockets) --> onSet, onAttributes: told to control devices
 *                                     \--> Discard, Quiet, QuietSets (nftables)
 *     kernel --netlink--> RouteMonitor --> routes through each interface: attributes too
 *
 * Owns the link monitor, the interfaces, and in the kernel the discarding and the quiet about what is claimed.
 */
import type { Counters } from '../base/counters.js';
import { FwdfsError } from '../base/errors.js';
import { DISCARD_COUNTS_MS, FLOW_SWEEP_MS, INTERFACE_CHANGE_DELAY_MS } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import type { LinkType } from '../packet/headers.js';
import { parseProtocolAddress, type ProtocolAddress } from '../packet/protocol-address.js';
import { type Link, LinkMonitor } from '../sys/links.js';
import { type Route, RouteMonitor } from '../sys/routes.js';
import { type ForwarderConfig, interfaceConfig, type ListenAddress } from './config.js';
import { Discard } from './discard.js';
import type { DistributionTable } from './distribution-table.js';
import { ForwarderInterface, type VifKernel } from './interface.js';
import type { TransmitResult } from './interface-transmitter.js';
import { NeighbourTable } from './neighbours.js';
import { Quiet } from './quiet.js';
import { QuietSets } from './quiet-sets.js';

/** Our own port, which discarding always admits. */
function listenPort(address: ListenAddress): ProtocolAddress[] {
  return address.kind === 'tcp' && address.port > 0 ? [parseProtocolAddress(`tcp:${address.port}`)] : [];
}

const RTN_UNICAST = 1;

/** As the attributes have it (messages.ts). */
function routeText({ destination, family, gateway }: Route): string {
  if (gateway !== '') return `${destination} via ${gateway}`;
  return destination === 'default' ? (family === 4 ? '0.0.0.0/0' : '::/0') : destination;
}

export class Interfaces {
  /** The set of interfaces that are there changed. */
  onSet: () => void = () => undefined;
  /** Something about an interface changed. */
  onAttributes: (name: string) => void = () => undefined;
  /** An interface is there, with this link type; no frame of it was received yet. */
  onLinkType: (name: string, linkType: LinkType) => void = () => undefined;
  /** Our own ports: no rule of a virtual IF takes them. */
  readonly listen: readonly ProtocolAddress[];
  private readonly config: ForwarderConfig;
  private readonly distribution: DistributionTable;
  private readonly result: TransmitResult;
  private readonly log: Logger;
  private readonly links: LinkMonitor;
  private readonly routes: RouteMonitor;
  private readonly discard: Discard;
  private readonly quiet: Quiet;
  /** What the kernel keeps quiet about for virtual IFs. */
  readonly vifs: QuietSets;
  readonly neighbours: NeighbourTable;
  private readonly kernel: VifKernel;
  private readonly entries = new Map<string, ForwarderInterface>();
  /** What is to be told when the timer ends. */
  private readonly changed = new Set<string>();
  private setChanged = false;
  private routesChanged = false;
  private changeTimer: NodeJS.Timeout | null = null;
  private sweepTimer: NodeJS.Timeout | undefined;
  private discardCounts: Promise<ReadonlyMap<string, number>> | null = null;

  constructor(config: ForwarderConfig, distribution: DistributionTable, result: TransmitResult, log: Logger) {
    this.config = config;
    this.distribution = distribution;
    this.result = result;
    this.log = log;
    this.links = new LinkMonitor(log);
    this.routes = new RouteMonitor(log);
    const listen = config.listen.flatMap(listenPort);
    this.listen = listen;
    this.discard = new Discard(config.name, listen);
    this.quiet = new Quiet(config.name, listen, () => distribution.claims());
    this.vifs = new QuietSets(config.name, listen, log);
    this.neighbours = new NeighbourTable(log);
    this.kernel = {
      flowChanged: this.vifs.flowChanged,
      neighbours: this.neighbours,
      nextHop: (ifindex, destination) => this.routes.nextHop(ifindex, destination),
    };
  }

  /** Resolves when the interfaces are open and the kernel discards as configured. */
  async start(): Promise<void> {
    this.links.onChange = (kind, link) => this.linkChanged(kind, link);
    this.links.start();
    for (const link of this.links.links().values()) this.linkAppeared(link);
    this.routes.onChange = () => {
      this.routesChanged = true;
      this.changeTimer ??= setTimeout(this.tellChanges, INTERFACE_CHANGE_DELAY_MS);
    };
    this.routes.start();
    this.updateRoutes();
    await this.quiet.sweep();
    await this.vifs.sweep();
    this.sweepTimer = setInterval(() => {
      for (const entry of this.entries.values()) entry.flows.sweep();
    }, FLOW_SWEEP_MS).unref();
    // By name, whether they are there or not: one that appears is discarded for from its first packet.
    await this.discard.apply(Array.from(this.config.interfaces, ([name, config]) => ({ name, ...config })));
  }

  async stop(): Promise<void> {
    this.links.close();
    this.routes.close();
    this.neighbours.close();
    if (this.changeTimer !== null) clearTimeout(this.changeTimer);
    clearInterval(this.sweepTimer);
    for (const entry of this.entries.values()) entry.gone();
    await this.vifs.remove();
    await this.quiet.remove();
    await this.discard.remove();
  }

  /** Resolves when the kernel keeps quiet about what the distribution table has as claimed, and only about that. */
  quieten(): Promise<void> {
    return this.quiet.update();
  }

  /** Also one that is not there just now, once it was. */
  find(name: string): ForwarderInterface | undefined {
    return this.entries.get(name);
  }

  /** @throws FwdfsError no-such-interface for one that is not offered or not there */
  get(name: string): ForwarderInterface {
    const entry = this.entries.get(name);
    if (entry === undefined || entry.present === null) {
      throw new FwdfsError('no-such-interface', `${this.config.name} offers no interface ${name}`);
    }
    return entry;
  }

  /** Names of the interfaces that are there. */
  get names(): string[] {
    return [...this.entries.values()].filter((entry) => entry.present !== null).map((entry) => entry.name);
  }

  private updateRoutes(): void {
    const all = this.routes.routes().filter(({ type }) => type === RTN_UNICAST);
    for (const entry of this.entries.values()) {
      entry.tun?.clear();
      const routes = all
        .filter(({ oif }) => oif === entry.present?.index)
        .map(routeText)
        .sort();
      if (routes.join() === entry.routes.join()) continue;
      entry.routes = routes;
      this.changed.add(entry.name);
    }
  }

  private linkAppeared(link: Link): void {
    if (interfaceConfig(this.config, link.name) === null) return;
    let entry = this.entries.get(link.name);
    if (entry === undefined) {
      entry = new ForwarderInterface(link.name, this.distribution.of(link.name), this.result, this.kernel, this.log);
      entry.onLinkType = (linkType) => this.onLinkType(link.name, linkType);
      this.entries.set(link.name, entry);
    }
    entry.update(link);
  }

  private linkChanged(kind: 'added' | 'changed' | 'removed', link: Link): void {
    const wasThere = (this.entries.get(link.name)?.present ?? null) !== null;
    if (kind === 'removed') this.entries.get(link.name)?.gone();
    else this.linkAppeared(link);
    const isThere = (this.entries.get(link.name)?.present ?? null) !== null;
    if (wasThere !== isThere) this.setChanged = true;
    if (!wasThere && !isThere) return;
    this.changed.add(link.name);
    this.changeTimer ??= setTimeout(this.tellChanges, INTERFACE_CHANGE_DELAY_MS);
  }

  /**
   * Gathered: a hundred interfaces may come or go at once, and every rule that comes or goes may change the interface's own
   * flags and back. One that went and came back meanwhile has other attributes.
   */
  private readonly tellChanges = (): void => {
    this.changeTimer = null;
    if (this.routesChanged) this.updateRoutes();
    this.routesChanged = false;
    if (this.setChanged) this.onSet();
    this.setChanged = false;
    for (const name of this.changed) if (this.find(name)?.present) this.onAttributes(name);
    this.changed.clear();
  };

  /**
   * Name and value of each counter of an interface: the kernel's, then ours.
   * @param lost counts of frames that name no interface, shown at every one
   */
  async statistics(name: string, lost: Counters): Promise<string[][]> {
    const entry = this.get(name);
    entry.collectDrops();
    const rows = [...this.links.statistics(entry.attributes?.index ?? 0)].map(([counter, value]) => [
      counter,
      String(value),
    ]);
    // Interfaces under `*` have one count together.
    const discarded = (await this.discarded()).get(this.config.interfaces.has(name) ? name : '*') ?? 0;
    for (const [counter, value] of entry.counters.snapshot()) {
      rows.push([counter, String(counter === 'drop_discarded' ? discarded : value + lost.get(counter))]);
    }
    return rows;
  }

  /** The flows of all virtual IFs. */
  *flowRows(): Generator<string[]> {
    for (const entry of this.entries.values()) yield* entry.flows.rows();
  }

  /** One look into the kernel serves all who ask within a moment: a listing reads every counter, one file each. */
  private discarded(): Promise<ReadonlyMap<string, number>> {
    if (this.discardCounts === null) {
      this.discardCounts = this.discard.counts();
      setTimeout(() => {
        this.discardCounts = null;
      }, DISCARD_COUNTS_MS).unref();
    }
    return this.discardCounts;
  }
}
