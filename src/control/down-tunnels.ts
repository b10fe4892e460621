/**
 * The down tunnels of one forwarder: table generation section 25 and, of the way down, transfer control section 240 (S803
 * to S807).
 *
 *              generate           response                 last frame confirmed
 *     wanted ------------> asked ----------> established ----- close ----------> gone, here and there
 *       ^                                     |       |
 *       +-------- a new session --------------+       +-- acquire / release: from writer to writer (`spare`)
 *
 * One is made for each interface at its registration (Fig. 9) and is handed from writer to writer; who finds it taken gets
 * one of its own. A session that resumes goes on with all of them; in any other they get new ids, and what was not
 * confirmed counts as not sent.
 */
import { describe } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import type { ProtocolAddress } from '../packet/protocol-address.js';
import type { Connected, TunnelClient } from '../tunnel/client.js';
import { DownTunnel, type VifEnd } from './down-tunnel.js';
import { linkTypeOf, mayWrite, type RemoteInterface } from './remote-interface.js';
import type { TransmissionTable } from './tables.js';

export interface DownTunnelsOptions {
  /** The forwarder's name in the file tree. */
  readonly forwarder: string;
  readonly client: Pick<TunnelClient, 'request' | 'state' | 'sendFrames'>;
  readonly transmission: TransmissionTable;
  readonly interfaces: ReadonlyMap<string, RemoteInterface>;
  readonly log: Logger;
  /** Told why a written frame was not sent, for `.state`. */
  readonly onError: (text: string) => void;
}

export class DownTunnels {
  /** By id, as the forwarder knows them. */
  readonly byId = new Map<number, DownTunnel>();
  private readonly options: DownTunnelsOptions;
  /** Of writers, symbols and virtual IFs, also those that the forwarder does not know just now. */
  private readonly all = new Set<DownTunnel>();
  /** Those whose writers are gone; they end when all is confirmed. */
  private readonly closing = new Set<DownTunnel>();

  constructor(options: DownTunnelsOptions) {
    this.options = options;
  }

  /** S803 to S807, or the symbol's tunnel if no other writer has it. */
  async acquire(remote: RemoteInterface, symbol: string, protocol: ProtocolAddress): Promise<DownTunnel> {
    const { spare } = remote;
    if (protocol.kind === 'any' && spare !== null && spare.id !== 0) {
      remote.spare = null;
      return spare.reuse();
    }
    return this.generate(remote.name, symbol, protocol.text);
  }

  /** The symbol's own tunnel, made at registration (Fig. 9), where the rights allow one. */
  async register(remote: RemoteInterface): Promise<void> {
    if (!mayWrite(remote.rights) || remote.spare !== null) return;
    const { grant } = remote;
    // Refused where only some protocol addresses may be written: writers get tunnels of their own.
    const tunnel = await this.generate(remote.name, remote.name, '*').catch(() => null);
    if (tunnel === null) return;
    if (remote.spare === null && remote.grant === grant && this.options.interfaces.get(remote.name) === remote) {
      tunnel.isOfSymbol = true;
      remote.spare = tunnel;
    } else this.release(tunnel);
  }

  /** One for a symbol. @param vif the symbol is a virtual IF */
  async generate(interfaceName: string, symbol: string, protocol: string, vif?: VifEnd): Promise<DownTunnel> {
    const { client, forwarder, log, onError, transmission } = this.options;
    const onLost = (text: string): void => {
      onError(text);
      log.warn({ forwarder, reason: text }, 'a written frame was not sent');
    };
    const tunnel = new DownTunnel(client, forwarder, interfaceName, symbol, protocol, onLost, vif);
    this.all.add(tunnel);
    try {
      await this.establish(tunnel);
    } catch (error) {
      this.all.delete(tunnel);
      throw error;
    }
    transmission.add(tunnel);
    return tunnel;
  }

  private async establish(tunnel: DownTunnel): Promise<void> {
    const { client, interfaces, transmission } = this.options;
    tunnel.linkType ||= linkTypeOf(interfaces.get(tunnel.interface));
    const response = await client.request('tunnel-generation-request', {
      control: client.state.localAddress,
      symbol: tunnel.symbol,
      interface: tunnel.interface,
      protocol: tunnel.protocol,
      ...(tunnel.linkType !== 0 && { linkType: tunnel.linkType }),
      ...(tunnel.vif !== undefined && { vif: tunnel.vif.request() }),
    });
    if (!this.all.has(tunnel)) return this.delete(response.downTunnel);
    tunnel.established(response.downTunnel, response.window);
    this.byId.set(tunnel.id, tunnel);
    transmission.changes.tell();
    tunnel.vif?.established();
    tunnel.wake();
  }

  /** One that nobody here has. */
  private delete(id: number): void {
    const { client, forwarder, log } = this.options;
    client.request('tunnel-deletion-request', { downTunnel: id }).catch((error: unknown) => {
      log.debug({ forwarder, error: describe(error) }, 'tunnel not deleted yet');
    });
  }

  release(tunnel: DownTunnel): void {
    const remote = this.options.interfaces.get(tunnel.interface);
    if (tunnel.isOfSymbol && tunnel.id !== 0 && remote?.spare === null) {
      // What a killed writer left under way goes first.
      if (!tunnel.isDrained) tunnel.wake = () => this.release(tunnel);
      else remote.spare = tunnel.reuse();
      return;
    }
    tunnel.close();
    this.closing.add(tunnel);
    tunnel.wake = () => this.finishClosing(tunnel);
    this.finishClosing(tunnel);
  }

  private finishClosing(tunnel: DownTunnel): void {
    if (!tunnel.isDrained) return;
    this.closing.delete(tunnel);
    this.forget(tunnel);
  }

  private forget(tunnel: DownTunnel): void {
    this.byId.delete(tunnel.id);
    this.all.delete(tunnel);
    this.options.transmission.remove(tunnel);
  }

  /** Something about the interface is other than before. @param changed the rights, or what they are for */
  interfaceIs(remote: RemoteInterface, changed: boolean): void {
    for (const tunnel of this.all) {
      if (tunnel.interface !== remote.name) continue;
      // What the symbol's own tunnel was made for may not be allowed any more: the next writer asks.
      if (changed) tunnel.isOfSymbol = false;
      tunnel.interfaceIs(linkTypeOf(remote));
    }
    if (remote.spare?.isOfSymbol === false) this.dropSpare(remote);
  }

  dropSpare(remote: RemoteInterface): void {
    const { spare } = remote;
    if (spare === null) return;
    remote.spare = null;
    spare.close();
    this.forget(spare);
  }

  // --- connections ---

  /** The session goes on. @param tunnels those that the forwarder has @param sent frames that it sent on each up tunnel */
  resume(tunnels: Connected['tunnels'], sent: ReadonlyMap<number, number>): void {
    const sequences = new Map(tunnels.map((entry) => [entry.tunnel, entry.sequence]));
    for (const id of sequences.keys()) if (!this.byId.has(id)) this.delete(id);
    for (const tunnel of [...this.byId.values()]) {
      const sequence = sequences.get(tunnel.id);
      if (sequence === undefined) {
        // What we closed ended after its last frame.
        if (this.closing.has(tunnel)) tunnel.confirm(tunnel.frames, 0);
        else this.lose(tunnel, 'the forwarder closed its tunnel');
      } else {
        tunnel.vif?.resumed(sent);
        tunnel.resume(sequence);
        if (this.closing.has(tunnel)) tunnel.close();
      }
    }
    this.establishAll();
  }

  /** Those that the forwarder does not have are asked for, under new ids. */
  establishAll(): void {
    const { forwarder, log } = this.options;
    for (const tunnel of this.all) {
      if (tunnel.id !== 0 || tunnel.ended !== 0) continue;
      this.establish(tunnel).catch((error: unknown) =>
        log.warn({ forwarder, symbol: tunnel.symbol, reason: describe(error) }, 'not restored'),
      );
    }
  }

  private lose(tunnel: DownTunnel, reason: string): void {
    this.byId.delete(tunnel.id);
    tunnel.lost(reason);
    const remote = this.options.interfaces.get(tunnel.interface);
    if (remote?.spare === tunnel) remote.spare = null;
    else if (!this.closing.delete(tunnel)) return;
    this.forget(tunnel);
  }

  loseAll(reason: string): void {
    for (const tunnel of [...this.all]) this.lose(tunnel, reason);
  }

  /** Further writes give this errno. */
  endWriters(errno: number): void {
    for (const tunnel of this.all) if (tunnel.vif === undefined) tunnel.ended = errno;
  }

  close(reason: string): void {
    for (const tunnel of this.all) tunnel.lost(reason);
  }
}
