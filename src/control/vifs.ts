/**
 * The virtual IFs of a control device: symbol generation section 220 (S801, S802), virtual IF reception and setting section
 * 24 (S209 to S214, S217).
 *
 *     add --> may it be used? --> sockets that are there --> device --> tunnel --> sockets from then on --> rules
 *     remove, stop --> rules, tunnel, device: nothing is left
 *     a crash ------> the device is gone by itself, the rest is swept at the next start
 *
 * Owns them, the watchers of their sockets (one per network namespace), and what pins the link to a forwarder.
 */
import { readlinkSync } from 'node:fs';
import { Changes } from '../base/changes.js';
import { describe, FwdfsError, hasCode } from '../base/errors.js';
import { MAX_VIFS } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { ETHERTYPE_ARP, type ProtocolAddress } from '../packet/protocol-address.js';
import { hasCapability } from '../sys/capabilities.js';
import { inNetns } from '../sys/netns.js';
import type { Attributes, VifKind } from '../tunnel/messages.js';
import type { ForwarderLink } from './forwarder-link.js';
import { LinkPin } from './pin.js';
import { SocketWatcher, type WatchedSocket } from './socket-watcher.js';
import type { ReceptionTable } from './tables.js';
import { Vif } from './vif.js';
import { sweepVifs, VifMirror } from './vif-mirror.js';
import { VifRules } from './vif-rules.js';

const LINKTYPE_ETHERNET = 1;

export interface VifRequest {
  readonly interface: string;
  /** null: `FORWARDER-INTERFACE`. */
  readonly name: string | null;
  /** null: tap for Ethernet interfaces, tun for others. */
  readonly kind: VifKind | null;
  /** A name in /run/netns or a path; '': that of the process. */
  readonly netns: string;
  /** What may become a rule, also of sockets that were there before; null: all that are opened from now on. */
  readonly expose: readonly ProtocolAddress[] | null;
}

export interface VifsOptions {
  /** Name of this control device. */
  readonly control: string;
  readonly reception: ReceptionTable;
  readonly log: Logger;
}

interface Entry {
  readonly request: VifRequest;
  readonly link: ForwarderLink;
  readonly vif: Vif;
  readonly rules: VifRules;
  /** Undoes what `add` did besides, in order. */
  readonly undo: (() => void)[];
}

/** Watches the sockets of one network namespace for all virtual IFs in it. */
interface Watched {
  readonly watcher: SocketWatcher;
  readonly sockets: Map<string, WatchedSocket>;
  readonly users: Set<VifRules>;
}

export class Vifs {
  /** Rows came, went or are in another state. */
  readonly changes = new Changes();
  private readonly options: VifsOptions;
  private readonly entries = new Map<string, Entry>();
  /** Keys of those that are being made. */
  private readonly adding = new Set<string>();
  private readonly watched = new Map<string, Watched>();
  private readonly pins: LinkPin;
  private swept: Promise<void> | null = null;

  constructor(options: VifsOptions) {
    this.options = options;
    this.pins = new LinkPin(options.log);
  }

  /** Removes what a crash left. Once; later calls wait for the first. Who may not make devices left none. */
  async sweep(): Promise<void> {
    if (!hasCapability('CAP_NET_ADMIN')) return;
    const swept = this.swept ?? sweepVifs(this.options.log);
    this.swept = swept;
    await swept;
  }

  /**
   * Resolves with the name of the device, when it can be used and the sockets that are there are rules.
   * @throws FwdfsError, SystemError
   */
  async add(link: ForwarderLink, request: VifRequest): Promise<string> {
    const remote = link.interfaceOf(request.interface);
    const { attributes } = remote;
    if (attributes === null || !remote.rights.has('vif')) {
      throw new FwdfsError('not-permitted', `${link.name}/${request.interface} as a virtual IF`);
    }
    const kind = kindOf(request, attributes);
    const name = request.name ?? `${link.name}-${request.interface}`;
    const key = this.keyOf(name, request.netns);
    if (this.entries.has(key) || this.adding.has(key)) throw new FwdfsError('already-there', `virtual IF ${name}`);
    if (this.entries.size >= MAX_VIFS) throw new FwdfsError('too-many', `there are ${MAX_VIFS} virtual IFs`);
    if (this.isOwn(request.netns)) requireOther(link, attributes);
    this.adding.add(key);
    let entry: Entry;
    try {
      await this.sweep();
      entry = await this.make(link, request, name, kind);
      this.entries.set(key, entry);
    } finally {
      this.adding.delete(key);
    }
    this.changes.tell();
    this.follow(entry);
    await entry.rules.settled();
    return name;
  }

  /** Adds it as soon as it can be: tried now, and whenever something about the forwarder's interfaces changes. */
  configure(link: ForwarderLink, request: VifRequest): void {
    const { log } = this.options;
    let trying = false;
    let told = '';
    const attempt = async (): Promise<void> => {
      if (trying) return;
      trying = true;
      try {
        await this.add(link, request);
        stop();
      } catch (error) {
        const reason = describe(error);
        const isEarly = hasCode(error, 'not-connected', 'no-such-interface') || reason === told;
        if (!isEarly) log.warn({ interface: `${link.name}/${request.interface}`, reason }, 'virtual IF not added yet');
        told = isEarly ? told : reason;
      }
      trying = false;
    };
    const stop = link.changes.interfaces.listen(() => void attempt());
    void attempt();
  }

  private async make(link: ForwarderLink, request: VifRequest, name: string, kind: VifKind): Promise<Entry> {
    const { control, log, reception } = this.options;
    const { counters } = link.interfaceOf(request.interface);
    const undo: (() => void)[] = [];
    let mirror: VifMirror | null = null;
    let vif: Vif | null = null;
    try {
      // Sockets that are open before the device is there are old.
      const watched = this.watch(request.netns);
      const isOwn = this.isOwn(request.netns);
      const old = isOwn ? [...watched.sockets.values()] : [];
      if (isOwn) undo.push(this.pins.pin(link.state.remoteAddress));
      const symbol = `${link.name}/${request.interface}`;
      const { netns } = request;
      mirror = await VifMirror.create({ control, symbol, name, kind, netns, apart: !isOwn, log });
      const made = new Vif({ link, interface: request.interface, kind, mirror, reception, counters, log });
      vif = made;
      const { device } = mirror;
      const there = mirror;
      const rules: VifRules = new VifRules(
        {
          link,
          interface: request.interface,
          vif: made,
          mirror,
          view: () => ({ ifindexes: new Set([device.ifindex]), addresses: there.addresses, kind }),
          expose: request.expose,
          reader: made,
          onChange: () => {
            made.neighbours.arpCrosses = rules.seesEther(ETHERTYPE_ARP);
            this.changes.tell();
          },
          log,
        },
        old,
      );
      made.onEstablished = () => {
        made.interfaceIs(this.attributesOf(link, request.interface));
        rules.retry();
      };
      await made.start();
      watched.users.add(rules);
      undo.push(() => this.unwatch(rules));
      rules.changed([...watched.sockets.values()], []);
      log.info({ vif: name, interface: symbol, kind }, 'virtual IF added');
      return { request, link, vif: made, rules, undo };
    } catch (error) {
      for (const step of undo.reverse()) step();
      this.unwatchUnused();
      await (vif ?? mirror)?.remove();
      throw error;
    }
  }

  private attributesOf(link: ForwarderLink, interfaceName: string): Attributes | null {
    return link.interfaces.get(interfaceName)?.attributes ?? null;
  }

  /** From now on the device is what the forwarder's interface is. */
  private follow(entry: Entry): void {
    const { link, request, rules, vif, undo } = entry;
    let isRenewed = false;
    const renew = async (): Promise<void> => {
      if (isRenewed || !vif.isWithdrawn || link.interfaces.get(request.interface)?.rights.has('vif') !== true) return;
      isRenewed = true;
      try {
        await vif.renew();
      } catch (error) {
        this.options.log.warn({ vif: vif.symbol, reason: describe(error) }, 'a virtual IF that was withdrawn stays so');
      }
      isRenewed = false;
    };
    const update = (): void => {
      void renew();
      try {
        vif.interfaceIs(this.attributesOf(link, request.interface));
      } catch (error) {
        this.options.log.warn(
          { vif: vif.symbol, reason: describe(error) },
          'a virtual IF does not follow its interface',
        );
      }
      rules.review();
      rules.retry();
      this.changes.tell();
    };
    undo.push(link.changes.interfaces.listen(update));
    undo.push(
      link.changes.state.listen(() => {
        if (!link.isConnected) vif.disconnected();
      }),
    );
  }

  /** @param name of the device, or of the interface @throws FwdfsError no-such-vif */
  async remove(link: ForwarderLink, name: string): Promise<void> {
    for (const [key, entry] of this.entries) {
      if (entry.link !== link || (entry.vif.symbol !== name && entry.request.interface !== name)) continue;
      await this.end(key, entry);
      return;
    }
    throw new FwdfsError('no-such-vif', `${link.name} has no virtual IF ${name}`);
  }

  private async end(key: string, entry: Entry): Promise<void> {
    this.entries.delete(key);
    entry.rules.close();
    for (const step of entry.undo.reverse()) step();
    await entry.vif.remove();
    this.changes.tell();
    this.options.log.info({ vif: entry.vif.symbol }, 'virtual IF removed');
  }

  /** All of a forwarder. */
  async removeOf(link: ForwarderLink): Promise<void> {
    for (const [key, entry] of [...this.entries]) if (entry.link === link) await this.end(key, entry);
  }

  /** Nothing is left in the kernel. */
  async close(): Promise<void> {
    for (const [key, entry] of [...this.entries]) await this.end(key, entry);
  }

  // --- sockets ---

  private watch(netns: string): Watched {
    const key = namespaceOf(netns);
    let watched = this.watched.get(key);
    if (watched !== undefined) return watched;
    const watcher = new SocketWatcher(netns, this.options.log);
    const made: Watched = { watcher, sockets: new Map(), users: new Set() };
    const there = watcher.start((opened, closed) => {
      for (const { id } of closed) made.sockets.delete(id);
      for (const socket of opened) made.sockets.set(socket.id, socket);
      for (const rules of made.users) rules.changed(opened, closed);
    });
    for (const socket of there) made.sockets.set(socket.id, socket);
    watched = made;
    this.watched.set(key, watched);
    return watched;
  }

  private unwatch(rules: VifRules): void {
    for (const watched of this.watched.values()) watched.users.delete(rules);
    this.unwatchUnused();
  }

  /** All are looked at: the name of a namespace may stand for another one by now. */
  private unwatchUnused(): void {
    for (const [key, { users, watcher }] of this.watched) {
      if (users.size > 0) continue;
      watcher.close();
      this.watched.delete(key);
    }
  }

  private isOwn(netns: string): boolean {
    return namespaceOf(netns) === namespaceOf('');
  }

  private keyOf(name: string, netns: string): string {
    return `${namespaceOf(netns)} ${name}`;
  }

  // --- tables ---

  /** One row a virtual IF, in the order of VIF_COLUMNS. */
  rows(): string[][] {
    return [...this.entries.values()].map(({ link, request, vif, rules }) => [
      vif.symbol,
      `${link.name}/${request.interface}`,
      vif.options.kind,
      request.netns === '' ? '-' : request.netns,
      vif.isWithdrawn ? 'withdrawn' : vif.id === 0 ? 'lost' : link.isConnected ? 'active' : 'suspended',
      String(rules.count),
      String(vif.framesIn),
      String(vif.framesOut),
      [...vif.groups.joined].join(',') || '-',
    ]);
  }

  ruleRows(): string[][] {
    return [...this.entries.values()].flatMap(({ rules }) => rules.rows());
  }
}

export const VIF_COLUMNS = ['vif', 'interface', 'kind', 'netns', 'state', 'rules', 'frames_in', 'frames_out', 'groups'];

/** Identity of a network namespace, whatever it is called by. @throws FwdfsError no-such-name */
function namespaceOf(netns: string): string {
  try {
    return inNetns(netns, () => readlinkSync('/proc/thread-self/ns/net'));
  } catch (error) {
    throw new FwdfsError('no-such-name', `network namespace ${netns}: ${describe(error)}`, { cause: error });
  }
}

function kindOf({ kind, interface: name }: VifRequest, { linkType }: Attributes): VifKind {
  const isEthernet = linkType === LINKTYPE_ETHERNET;
  if (kind === 'tap' && !isEthernet) throw new FwdfsError('bad-command', `${name} is no Ethernet interface: use tun`);
  return kind ?? (isEthernet ? 'tap' : 'tun');
}

/** The address at which the forwarder is reached would become one of this host's own. */
function requireOther(link: ForwarderLink, { inet, inet6 }: Attributes): void {
  const { remoteAddress } = link.state;
  if (![...inet, ...inet6].some((prefix) => prefix.split('/')[0] === remoteAddress)) return;
  throw new FwdfsError('mirrors-link', `${link.name} is reached at ${remoteAddress}`);
}
