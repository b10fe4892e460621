/**
 * The virtual IFs of a control device: symbol generation section 220 (S801, S802), virtual IF reception and setting section
 * 24 (S209 to S214, S217).
 *
 *     add --> may it be used? --> sockets that are there --> device --> tunnel --> sockets from then on --> rules
 *     remove, stop --> rules, tunnel, device: nothing is left
 *     a crash ------> the device is gone by itself, the rest is swept at the next start
 *
 * Owns them, the sockets of their network namespaces, and the addresses at which forwarders are reached.
 */
import { Changes } from '../base/changes.js';
import { describe, FwdfsError } from '../base/errors.js';
import { MAX_VIFS } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { ETHERTYPE_ARP, type ProtocolAddress } from '../packet/protocol-address.js';
import { hasCapability } from '../sys/capabilities.js';
import type { Attributes, VifKind } from '../tunnel/messages.js';
import { addWhenPossible } from './configured.js';
import type { ForwarderLink } from './forwarder-link.js';
import { LinkAddresses } from './link-addresses.js';
import { type NamespaceSockets, namespaceOf } from './namespace-sockets.js';
import type { ReceptionTable } from './tables.js';
import { Vif } from './vif.js';
import { sweepVifs, VifMirror } from './vif-mirror.js';
import { rulesOf } from './socket-rules.js';
import { VifRules } from './vif-rules.js';

const LINKTYPE_ETHERNET = 1;
const IFF_LOOPBACK = 8;

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
  /** Of all symbols that sockets are bound to. */
  readonly sockets: NamespaceSockets;
  readonly log: Logger;
}

interface Entry {
  /** Something about the interface, or about what may be mirrored, is other than before. */
  readonly update: () => void;
  readonly request: VifRequest;
  readonly link: ForwarderLink;
  readonly vif: Vif;
  readonly rules: VifRules;
  /** Undoes what `add` did besides, in order. */
  readonly undo: (() => void)[];
}

export class Vifs {
  /** Rows came, went or are in another state. */
  readonly changes = new Changes();
  private readonly options: VifsOptions;
  private readonly entries = new Map<string, Entry>();
  /** Those that are being made. */
  private readonly adding = new Map<string, Promise<Entry>>();
  /** What is left out of the mirrors, told once. */
  private readonly told = new Set<string>();
  private closed = false;
  /** Of the forwarders. */
  readonly addresses: LinkAddresses;
  private swept: Promise<void> | null = null;

  constructor(options: VifsOptions) {
    this.options = options;
    this.addresses = new LinkAddresses(options.log);
    this.addresses.changes.listen(() => {
      for (const { update } of this.entries.values()) update();
    });
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
    if ((attributes.flags & IFF_LOOPBACK) !== 0) {
      throw new FwdfsError('bad-command', `${link.name}/${request.interface} is a loopback interface`);
    }
    const address = this.isOwn(request.netns) ? this.addresses.among(attributes) : undefined;
    if (address !== undefined) throw new FwdfsError('mirrors-link', `a forwarder is reached at ${address}`);
    if (this.closed) throw new FwdfsError('not-connected', 'the control device stops');
    const making = this.sweep().then(() => this.make(link, request, name, kind));
    this.adding.set(key, making);
    let entry: Entry;
    try {
      entry = await making;
      this.entries.set(key, entry);
    } finally {
      this.adding.delete(key);
    }
    this.changes.tell();
    this.follow(key, entry);
    await entry.rules.settled();
    return name;
  }

  /** Adds it as soon as it can be: tried now, and whenever something about the forwarder's interfaces changes. */
  configure(link: ForwarderLink, request: VifRequest): void {
    const interfaceName = `${link.name}/${request.interface}`;
    addWhenPossible({
      link,
      add: () => this.add(link, request),
      isOver: () => this.closed,
      tell: (reason) => this.options.log.warn({ interface: interfaceName, reason }, 'virtual IF not added yet'),
    });
  }

  private async make(link: ForwarderLink, request: VifRequest, name: string, kind: VifKind): Promise<Entry> {
    const { control, log, reception, sockets } = this.options;
    const { counters } = link.interfaceOf(request.interface);
    const undo: (() => void)[] = [];
    let mirror: VifMirror | null = null;
    let vif: Vif | null = null;
    try {
      // Sockets that are open before the device is there are old.
      const watched = sockets.watch(request.netns);
      const isOwn = this.isOwn(request.netns);
      const old = isOwn ? [...watched.sockets.values()] : [];
      if (isOwn) undo.push(this.addresses.hold());
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
          interface: () => request.interface,
          owner: made,
          gate: mirror,
          wants: () => {
            const view = { ifindexes: new Set([device.ifindex]), addresses: there.receiving, kind };
            return (socket) => rulesOf(socket, view);
          },
          expose: request.expose,
          reader: made,
          onChange: () => {
            made.neighbours.arpCrosses = rules.seesEther(ETHERTYPE_ARP);
            made.rulesChanged();
            this.changes.tell();
          },
          log,
        },
        old,
      );
      made.isServed = (port) => rules.isServed(port);
      made.onEstablished = () => {
        made.interfaceIs(this.attributesOf(link, request));
        rules.retry();
      };
      await made.start();
      watched.users.add(rules);
      undo.push(() => sockets.unwatch(rules));
      rules.changed([...watched.sockets.values()], []);
      log.info({ vif: name, interface: symbol, kind }, 'virtual IF added');
      return { request, link, vif: made, rules, undo, update: this.follower(link, request, made, rules) };
    } catch (error) {
      for (const step of undo.reverse()) step();
      sockets.unwatchUnused();
      await (vif ?? mirror)?.remove();
      throw error;
    }
  }

  /** What the device is to be like; null: nobody knows, or the interface is not there. */
  private attributesOf(link: ForwarderLink, { interface: name, netns }: VifRequest): Attributes | null {
    const attributes = link.interfaces.get(name)?.attributes ?? null;
    if (attributes === null || !this.isOwn(netns)) return attributes;
    const address = this.addresses.among(attributes);
    if (address === undefined) return attributes;
    const symbol = `${link.name}/${name}`;
    if (!this.told.has(`${symbol} ${address}`)) {
      this.told.add(`${symbol} ${address}`);
      this.options.log.warn({ interface: symbol, address }, 'a forwarder is reached there: not mirrored, use --netns');
    }
    return this.addresses.without(attributes);
  }

  /** What has the device be what the forwarder's interface is now. */
  private follower(link: ForwarderLink, request: VifRequest, vif: Vif, rules: VifRules): () => void {
    const { log } = this.options;
    let isRenewed = false;
    const renew = async (): Promise<void> => {
      if (isRenewed || !vif.isWithdrawn || link.interfaces.get(request.interface)?.rights.has('vif') !== true) return;
      isRenewed = true;
      try {
        await vif.renew();
      } catch (error) {
        // Asked again when the rights are others.
        log.debug({ vif: vif.symbol, reason: describe(error) }, 'a virtual IF that was withdrawn stays so');
      }
      isRenewed = false;
    };
    return () => {
      void renew();
      try {
        vif.interfaceIs(this.attributesOf(link, request));
      } catch (error) {
        log.warn({ vif: vif.symbol, reason: describe(error) }, 'a virtual IF does not follow its interface');
      }
      rules.review();
      rules.retry();
      this.changes.tell();
    };
  }

  private follow(key: string, entry: Entry): void {
    const { link, vif, undo, update } = entry;
    undo.push(link.changes.interfaces.listen(update));
    undo.push(
      link.changes.state.listen(() => {
        if (!link.isConnected) vif.disconnected();
      }),
    );
    vif.onFailed = () => void this.end(key, entry);
    update();
  }

  /**
   * @param name of the device, or of the interface where it has one virtual IF only
   * @param netns where it is; null: wherever
   * @throws FwdfsError no-such-vif, bad-command
   */
  async remove(link: ForwarderLink, name: string, netns: string | null = null): Promise<void> {
    const place = netns === null ? '' : namespaceOf(netns);
    const own = [...this.entries].filter(([key, entry]) => entry.link === link && key.startsWith(place));
    const named = own.filter(([, { vif }]) => vif.symbol === name);
    const found = named.length > 0 ? named : own.filter(([, { request }]) => request.interface === name);
    const [one] = found;
    if (one === undefined) throw new FwdfsError('no-such-vif', `${link.name} has no virtual IF ${name}`);
    if (found.length > 1) {
      const names = found.map(([, { vif }]) => vif.symbol).join(', ');
      throw new FwdfsError('bad-command', `${link.name}/${name} has several virtual IFs: ${names}`);
    }
    await this.end(...one);
  }

  private async end(key: string, entry: Entry): Promise<void> {
    if (!this.entries.delete(key)) return;
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
    this.closed = true;
    await Promise.allSettled(this.adding.values());
    for (const [key, entry] of [...this.entries]) await this.end(key, entry);
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
      stateOf(link, request, vif),
      String(rules.count),
      String(vif.framesIn),
      String(vif.framesOut),
      [...vif.groups.joined].join(',') || '-',
    ]);
  }

  /** In the order of VIF_RULES_COLUMNS. */
  ruleRows(): string[][] {
    return [...this.entries.values()].flatMap(({ rules, vif }) =>
      rules
        .rows()
        .map(({ protocol, state, sockets, hasFilter, frames, reason }) => [
          vif.symbol,
          protocol,
          state,
          String(sockets),
          hasFilter ? 'yes' : 'no',
          String(frames),
          reason,
        ]),
    );
  }
}

function stateOf(link: ForwarderLink, request: VifRequest, vif: Vif): string {
  if (vif.isWithdrawn) return 'withdrawn';
  if (vif.id === 0) return 'lost';
  if (!link.isConnected) return 'suspended';
  return link.interfaces.has(request.interface) ? 'active' : 'absent';
}

export const VIF_COLUMNS = ['vif', 'interface', 'kind', 'netns', 'state', 'rules', 'frames_in', 'frames_out', 'groups'];
export const VIF_RULES_COLUMNS = ['vif', 'protocol', 'state', 'sockets', 'filter', 'frames', 'reason'];

function kindOf({ kind, interface: name }: VifRequest, { linkType }: Attributes): VifKind {
  const isEthernet = linkType === LINKTYPE_ETHERNET;
  if (kind === 'tap' && !isEthernet) throw new FwdfsError('bad-command', `${name} is no Ethernet interface: use tun`);
  return kind ?? (isEthernet ? 'tap' : 'tun');
}
