/**
 * The virtual IP addresses of a control device: symbol generation section 220 (S1801, S1802) and virtual IP address access
 * determination section 235; registration (Fig. 18) and rules (Fig. 20).
 *
 *     add --> sockets that are there --> the forwarder converts --> kernel --> sockets from then on (S2001, S2002) --> rules (S2003 to S2005)
 *     remove, stop --> rules, conversion, kernel: nothing is left
 *     a crash ------> swept at the next start
 *
 * All are in the network namespace of the process. `.tables/vip_reception` and `vip_transmission` are what the kernel says.
 */
import { Changes } from '../base/changes.js';
import { FwdfsError } from '../base/errors.js';
import { MAX_VIPS } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import type { ProtocolAddress } from '../packet/protocol-address.js';
import { hasCapability } from '../sys/capabilities.js';
import { listMaps, type MapElement } from '../sys/nftables.js';
import { addWhenPossible } from './configured.js';
import type { ForwarderLink } from './forwarder-link.js';
import type { LinkAddresses } from './link-addresses.js';
import type { NamespaceSockets } from './namespace-sockets.js';
import { rulesOfVip } from './socket-rules.js';
import { VifRules } from './vif-rules.js';
import { Vip } from './vip.js';
import { addressBytes } from './vip-kernel.js';
import { RECEPTION_MAP, TRANSMISSION_MAP, VIP_TABLE_FAMILY, vipTable } from './vip-ruleset.js';
import { sweepVips } from './vip-sweep.js';

export interface VipRequest {
  /** Canonical. */
  readonly address: string;
  /** Canonical; null: one of our choice. */
  readonly sender: string | null;
  /** What may become a rule, also of sockets that were there before; null: all that are opened from now on. */
  readonly expose: readonly ProtocolAddress[] | null;
}

export interface VipsOptions {
  /** Name of this control device. */
  readonly control: string;
  readonly sockets: NamespaceSockets;
  /** Where forwarders are reached. */
  readonly addresses: Pick<LinkAddresses, 'has'>;
  readonly log: Logger;
}

interface Entry {
  readonly link: ForwarderLink;
  readonly vip: Vip;
  readonly rules: VifRules;
  /** Undoes what `add` did besides. */
  readonly undo: readonly (() => void)[];
}

export class Vips {
  /** Rows came, went or are in another state. */
  readonly changes = new Changes();
  private readonly options: VipsOptions;
  private readonly entries = new Map<string, Entry>();
  /** Those that are being made. */
  private readonly adding = new Map<string, Promise<Entry>>();
  private closed = false;
  private swept: Promise<void> | null = null;

  constructor(options: VipsOptions) {
    this.options = options;
  }

  /** Removes what a crash left. Once; later calls wait for the first. Who may not set addresses left none. */
  async sweep(): Promise<void> {
    if (!hasCapability('CAP_NET_ADMIN')) return;
    const swept = this.swept ?? sweepVips(this.options.log);
    this.swept = swept;
    await swept;
  }

  /** Resolves when the address can be used and the sockets that are there are rules. @throws FwdfsError, SystemError */
  async add(link: ForwarderLink, request: VipRequest): Promise<void> {
    const { address } = request;
    if (this.entries.has(address) || this.adding.has(address)) {
      throw new FwdfsError('already-there', `virtual IP address ${address}`);
    }
    if (this.entries.size + this.adding.size >= MAX_VIPS) {
      throw new FwdfsError('too-many', `there are ${MAX_VIPS} virtual IP addresses`);
    }
    if (this.closed) throw new FwdfsError('not-connected', 'the control device stops');
    if (!link.isConnected)
      throw new FwdfsError('not-connected', `${link.name}: ${link.state.lastError || 'connecting'}`);
    if (this.options.addresses.has(address))
      throw new FwdfsError('mirrors-link', `a forwarder is reached at ${address}`);
    const making = this.sweep().then(() => this.make(link, request));
    this.adding.set(address, making);
    let entry: Entry;
    try {
      entry = await making;
      this.entries.set(address, entry);
    } finally {
      this.adding.delete(address);
    }
    this.changes.tell();
    await entry.rules.settled();
  }

  /** Adds it as soon as it can be. */
  configure(link: ForwarderLink, request: VipRequest): void {
    addWhenPossible({
      link,
      add: () => this.add(link, request),
      isOver: () => this.closed,
      tell: (reason) =>
        this.options.log.warn({ vip: `${link.name}/${request.address}`, reason }, 'virtual IP address not added yet'),
    });
  }

  private async make(link: ForwarderLink, { address, sender, expose }: VipRequest): Promise<Entry> {
    const { control, log, sockets } = this.options;
    if (sender !== null && this.isTaken(sender)) throw new FwdfsError('address-in-use', sender);
    const isTaken = (one: string): boolean => this.isTaken(one);
    const vip = new Vip({ control, link, address, sender, isTaken, log });
    let rules: VifRules | null = null;
    try {
      // Sockets that are open before the address is there are old.
      const watched = sockets.watch('');
      const old = [...watched.sockets.values()];
      await vip.start();
      const bytes = addressBytes(address);
      const made = (rules = new VifRules(
        {
          link,
          interface: () => vip.interface,
          owner: vip,
          gate: vip,
          wants: () => (socket) => rulesOfVip(socket, bytes),
          expose,
          reader: { deliver: () => undefined },
          onChange: () => this.changes.tell(),
          log,
        },
        old,
      ));
      const stop = link.changes.interfaces.listen(() => {
        vip.retry();
        made.retry();
        this.changes.tell();
      });
      vip.onKnown = () => made.retry();
      vip.onChange = () => this.changes.tell();
      watched.users.add(made);
      made.changed([...watched.sockets.values()], []);
      log.info({ vip: address, forwarder: link.name, sender: vip.sender }, 'virtual IP address added');
      return { link, vip, rules: made, undo: [stop, (): void => sockets.unwatch(made)] };
    } catch (error) {
      if (rules !== null) sockets.unwatch(rules);
      sockets.unwatchUnused();
      throw error;
    }
  }

  private isTaken(sender: string): boolean {
    return [...this.entries.values()].some(({ vip }) => vip.sender === sender);
  }

  /** @param address canonical @throws FwdfsError no-such-vip */
  async remove(link: ForwarderLink, address: string): Promise<void> {
    const entry = this.entries.get(address);
    if (entry === undefined || entry.link !== link) {
      throw new FwdfsError('no-such-vip', `${link.name} has no virtual IP address ${address} here`);
    }
    await this.end(address, entry);
  }

  private async end(address: string, entry: Entry): Promise<void> {
    if (!this.entries.delete(address)) return;
    entry.rules.close();
    for (const step of entry.undo) step();
    await entry.vip.remove();
    this.changes.tell();
    this.options.log.info({ vip: address }, 'virtual IP address removed');
  }

  /** All of a forwarder. */
  async removeOf(link: ForwarderLink): Promise<void> {
    for (const [address, entry] of [...this.entries]) if (entry.link === link) await this.end(address, entry);
  }

  /** Nothing is left in the kernel. */
  async close(): Promise<void> {
    this.closed = true;
    await Promise.allSettled(this.adding.values());
    for (const [address, entry] of [...this.entries]) await this.end(address, entry);
  }

  // --- tables ---

  /** One row an address, in the order of VIP_COLUMNS. */
  rows(): string[][] {
    return [...this.entries.values()].map(({ link, rules, vip }) => [
      vip.options.address,
      `${link.name}/${vip.interface}`,
      vip.sender,
      vip.device,
      vip.state === 'active' && !link.isConnected ? 'suspended' : vip.state,
      String(rules.count),
      vip.reason === '' ? '-' : vip.reason,
    ]);
  }

  /** In the order of VIP_RULES_COLUMNS. */
  ruleRows(): string[][] {
    return [...this.entries].flatMap(([address, { rules }]) =>
      rules.rows().map(({ protocol, state, sockets, reason }) => [address, protocol, state, String(sockets), reason]),
    );
  }

  /** Reception table 243 (Fig. 14), in the order of VIP_RECEPTION_COLUMNS. */
  receptionRows(): Promise<string[][]> {
    return this.kernelRows(RECEPTION_MAP);
  }

  /** Transmission table 245 (Fig. 15), in the order of VIP_TRANSMISSION_COLUMNS. */
  transmissionRows(): Promise<string[][]> {
    return this.kernelRows(TRANSMISSION_MAP);
  }

  private async kernelRows(map: string): Promise<string[][]> {
    const listings = await Promise.all(
      Array.from(this.entries.keys(), (address) => listMaps(VIP_TABLE_FAMILY, vipTable(this.options.control, address))),
    );
    const elements = listings.flatMap((maps): readonly MapElement[] => maps.get(map) ?? []);
    return elements.map(({ key, value }) => [...key, value]);
  }
}

export const VIP_COLUMNS = ['vip', 'interface', 'sender', 'link', 'state', 'rules', 'reason'];
export const VIP_RULES_COLUMNS = ['vip', 'protocol', 'state', 'sockets', 'reason'];
export const VIP_RECEPTION_COLUMNS = ['destination', 'protocol', 'port', 'vip'];
export const VIP_TRANSMISSION_COLUMNS = ['vip', 'sender'];
