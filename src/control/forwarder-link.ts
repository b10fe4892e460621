/**
 * One forwarder as the control device knows it: transfer control section 240.
 *
 *     connected -> interface-list -> for each: interface use (S211) -> tunnel generation (S803, S804) -> symbol is there
 *     open()  -> acquireUp: transfer request (UpRules) / acquireDown: the symbol's tunnel, or one more
 *     close() -> releaseUp: transfer deletion request / releaseDown
 *
 * In Fig. 24 and 31: virtual IF reception and setting section 24, table generation sections 25 and 27, deletion section
 * 47; in Fig. 1 also transfer deletion request section 232. Its TunnelClient is IF 280, inter-device communication logical
 * IF 46. Both channels are there before any symbol is, so of Fig. 25 to 27 the steps S202 to S204, S210 and S218 to S221
 * come first, once for all symbols; then S209, S211, S214, S216 and S217 for each, and S224 and S225 with each open(). Fig. 32
 * is releaseUp.
 *
 * Owns the forwarder's interfaces, rules and down tunnels. When the connection is lost they stay; a session that
 * resumes goes on with them, any other gets new ids for them and what was not confirmed counts as not sent.
 */
import { constants } from 'node:os';
import type { Counters } from '../base/counters.js';
import { describe, FwdfsError, hasCode } from '../base/errors.js';
import { RESUME_TIME_MS } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import type { ProtocolAddress } from '../packet/protocol-address.js';
import {
  type ClientHandler,
  type ClientState,
  type Connected,
  TunnelClient,
  type TunnelClientOptions,
} from '../tunnel/client.js';
import type { Answer, Attributes, Message, MessageArgs, Right } from '../tunnel/messages.js';
import { DownTunnel } from './down-tunnel.js';
import { LinkChanges } from './link-changes.js';
import type { OnDisconnect } from './on-disconnect.js';
import { linkTypeOf, mayWrite, newInterface, type RemoteInterface, setUse } from './remote-interface.js';
import { RemoteTables } from './remote-tables.js';
import { UpPath } from './up-path.js';
import { UpRules } from './up-rules.js';
import type { ReceptionTable, TransmissionTable } from './tables.js';
import type { RuleKey, UpTunnel } from './up-tunnel.js';

const { ENETDOWN } = constants.errno;

export interface ForwarderLinkOptions extends Pick<TunnelClientOptions, 'url' | 'token' | 'tls' | 'log'> {
  /** The forwarder's name in the file tree. */
  readonly name: string;
  /** Name of this control device. */
  readonly control: string;
  /** Default: they wait. */
  readonly onDisconnect?: OnDisconnect;
  readonly reception: ReceptionTable;
  readonly transmission: TransmissionTable;
}

export class ForwarderLink implements ClientHandler {
  readonly name: string;
  readonly interfaces = new Map<string, RemoteInterface>();
  readonly changes = new LinkChanges();
  readonly tables: RemoteTables;
  private readonly options: ForwarderLinkOptions;
  private readonly log: Logger;
  private readonly client: TunnelClient;
  private readonly rules: UpRules;
  private readonly downs = new Map<number, DownTunnel>();
  /** Down tunnels whose writers are gone; they end when all is confirmed. */
  private readonly closing = new Set<DownTunnel>();
  /** All tunnels of writers and symbols, also those that the forwarder does not know just now. */
  private readonly tunnels = new Set<DownTunnel>();
  private readonly upPath: UpPath;
  private sendError = '';
  private resumeTime = RESUME_TIME_MS;
  private expiry: NodeJS.Timeout | undefined;
  /** Resolves when the first try to connect came to an end, either way. */
  readonly settled: Promise<void>;
  private settle: () => void = () => undefined;

  constructor(options: ForwarderLinkOptions) {
    this.options = options;
    this.name = options.name;
    this.log = options.log;
    this.settled = new Promise((resolve) => {
      this.settle = resolve;
    });
    this.upPath = new UpPath(options.name, options.reception, this.downs, (buffer, length) => {
      this.client.sendFrames(buffer, length, () => undefined);
    });
    this.client = new TunnelClient({ ...options, name: options.control, handler: this });
    this.tables = new RemoteTables(this.client);
    this.rules = new UpRules({
      forwarder: options.name,
      client: this.client,
      reception: options.reception,
      linkTypeOf: (name) => linkTypeOf(this.interfaces.get(name)),
      log: options.log,
      onError: (text) => this.tellError(text),
    });
  }

  private tellError(text: string): void {
    this.sendError = text;
    this.changes.state.tell();
  }

  get state(): ClientState {
    const { state } = this.client;
    return this.sendError === '' ? state : { ...state, lastError: this.sendError };
  }

  /** Counts of frames that belong to no symbol. */
  get stray(): Counters {
    return this.upPath.lost;
  }

  get isConnected(): boolean {
    return this.client.isConnected;
  }

  /** @param reason why, one line for those who still write and for the forwarder's log */
  close(reason = 'the control device stops'): void {
    for (const tunnel of this.tunnels) tunnel.lost(reason);
    this.client.close(reason);
    clearTimeout(this.expiry);
    this.rules.close();
  }

  /** The interface of that name. @throws FwdfsError not-connected, no-such-interface */
  interfaceOf(name: string): RemoteInterface {
    if (!this.isConnected)
      throw new FwdfsError('not-connected', `${this.name}: ${this.state.lastError || 'connecting'}`);
    const found = this.interfaces.get(name);
    if (found === undefined) throw new FwdfsError('no-such-interface', `${this.name} has no interface ${name}`);
    return found;
  }

  // --- up: rules ---

  /** S1003 to S1007: when it resolves, the rule is active at the forwarder. */
  async acquireUp(key: RuleKey): Promise<UpTunnel> {
    return this.rules.acquire(key, this.interfaceOf(key.interface).counters);
  }

  /** S902, S903: the last holder takes the rule back. */
  releaseUp(tunnel: UpTunnel): void {
    this.rules.release(tunnel);
  }

  // --- down: tunnels ---

  /** S803 to S807, or the symbol's tunnel if no other writer has it. */
  async acquireDown(interfaceName: string, symbol: string, protocol: ProtocolAddress): Promise<DownTunnel> {
    const remote = this.interfaceOf(interfaceName);
    const spare = remote.spare;
    if (protocol.kind === 'any' && spare !== null && spare.id !== 0) {
      remote.spare = null;
      return spare.reuse();
    }
    return this.generate(interfaceName, symbol, protocol.text);
  }

  private async generate(interfaceName: string, symbol: string, protocol: string): Promise<DownTunnel> {
    const tunnel = new DownTunnel(this.client, this.name, interfaceName, symbol, protocol, (text) => {
      this.tellError(text);
      this.log.warn({ forwarder: this.name, reason: text }, 'a written frame was not sent');
    });
    this.tunnels.add(tunnel);
    try {
      await this.establish(tunnel);
    } catch (error) {
      this.tunnels.delete(tunnel);
      throw error;
    }
    this.options.transmission.add(tunnel);
    return tunnel;
  }

  private async establish(tunnel: DownTunnel): Promise<void> {
    tunnel.linkType ||= linkTypeOf(this.interfaces.get(tunnel.interface));
    const response = await this.client.request('tunnel-generation-request', {
      control: this.client.state.localAddress,
      symbol: tunnel.symbol,
      interface: tunnel.interface,
      protocol: tunnel.protocol,
      ...(tunnel.linkType !== 0 && { linkType: tunnel.linkType }),
    });
    if (!this.tunnels.has(tunnel)) return this.deleteTunnel(response.downTunnel);
    tunnel.established(response.downTunnel, response.window);
    this.downs.set(tunnel.id, tunnel);
    this.options.transmission.changes.tell();
    tunnel.wake();
  }

  /** One that nobody here has. */
  private deleteTunnel(id: number): void {
    this.client.request('tunnel-deletion-request', { downTunnel: id }).catch((error: unknown) => {
      this.log.debug({ forwarder: this.name, error: describe(error) }, 'tunnel not deleted yet');
    });
  }

  releaseDown(tunnel: DownTunnel): void {
    const remote = this.interfaces.get(tunnel.interface);
    if (tunnel.isOfSymbol && tunnel.id !== 0 && remote?.spare === null) {
      // What a killed writer left under way goes first.
      if (!tunnel.isDrained) tunnel.wake = () => this.releaseDown(tunnel);
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
    this.downs.delete(tunnel.id);
    this.tunnels.delete(tunnel);
    this.options.transmission.remove(tunnel);
  }

  // --- ClientHandler ---

  connected(connected: Connected): void {
    this.sendError = '';
    clearTimeout(this.expiry);
    this.resumeTime = connected.resumeTime;
    this.askAgain();
    if (connected.resumed) this.resume(connected);
    else this.beginAnew(connected.sameEpoch ? 'the session was not resumed in time' : 'the forwarder was restarted');
    this.tellConnection();
  }

  private resume(connected: Connected): void {
    this.rules.resume(new Map(connected.upTunnels.map(({ tunnel, frames }) => [tunnel, frames])));
    const sequences = new Map(connected.tunnels.map((entry) => [entry.tunnel, entry.sequence]));
    for (const id of sequences.keys()) if (!this.downs.has(id)) this.deleteTunnel(id);
    for (const tunnel of [...this.downs.values()]) {
      const sequence = sequences.get(tunnel.id);
      if (sequence === undefined) {
        // What we closed ended after its last frame.
        if (this.closing.has(tunnel)) tunnel.confirm(tunnel.frames, 0);
        else this.lose(tunnel, 'the forwarder closed its tunnel');
      } else {
        tunnel.resume(sequence);
        if (this.closing.has(tunnel)) tunnel.close();
      }
    }
    this.establishAll();
  }

  /** A new session: rules and tunnels are asked for again, under new ids. */
  private beginAnew(reason: string): void {
    this.loseAll(reason);
    this.rules.beginAnew();
    this.establishAll();
  }

  private establishAll(): void {
    for (const tunnel of this.tunnels) {
      if (tunnel.id === 0 && tunnel.ended === 0) this.restore(this.establish(tunnel), tunnel.symbol);
    }
  }

  private lose(tunnel: DownTunnel, reason: string): void {
    this.downs.delete(tunnel.id);
    tunnel.lost(reason);
    const remote = this.interfaces.get(tunnel.interface);
    if (remote?.spare === tunnel) remote.spare = null;
    else if (!this.closing.delete(tunnel)) return;
    this.forget(tunnel);
  }

  private restore(request: Promise<void>, symbol: string): void {
    request.catch((error: unknown) =>
      this.log.warn({ forwarder: this.name, symbol, reason: describe(error) }, 'not restored'),
    );
  }

  message(...[type, fields]: MessageArgs): Answer {
    if (type === 'interface-list') {
      if (fields.again === true) this.askAgain();
      this.register(fields.interfaces);
    } else if (type === 'interface-attribute-change') {
      this.update(fields);
      // It may have gone and come back so fast that no list told of it.
      this.rules.interfaceFound(fields.interface);
    } else if (type === 'table-change') this.changes.table(fields.table).tell();
    else if (type === 'transfer-withdrawal') this.rules.withdrawn(fields);
  }

  private askAgain(): void {
    for (const remote of this.interfaces.values()) remote.asked = false;
  }

  /** The interfaces that the forwarder has now: registration of the symbols (Fig. 9), then open() (Fig. 10). */
  private register(names: string[]): void {
    for (const name of this.interfaces.keys()) if (!names.includes(name)) this.unregister(name);
    const uses = names.map(async (name) => {
      let remote = this.interfaces.get(name);
      if (remote === undefined) {
        remote = newInterface(name);
        this.interfaces.set(name, remote);
      }
      if (!remote.asked) await this.use(remote);
    });
    this.changes.interfaces.tell();
    void Promise.allSettled(uses).then(() => this.settle());
  }

  private async use(remote: RemoteInterface): Promise<void> {
    remote.asked = true;
    try {
      this.update(await this.client.request('interface-use-request', { interface: remote.name }));
    } catch (error) {
      // No right to it (S212): the symbol is there, and open() says why it can't be used.
      if (hasCode(error, 'not-permitted')) this.granted(remote, null, [], []);
      this.log.debug({ forwarder: this.name, interface: remote.name, reason: describe(error) }, 'interface not used');
      return;
    }
    this.rules.interfaceFound(remote.name);
    if (!mayWrite(remote.rights) || remote.spare !== null) return;
    // Refused where only some protocol addresses may be written: writers get tunnels of their own.
    const { grant } = remote;
    const tunnel = await this.generate(remote.name, remote.name, '*').catch(() => null);
    if (tunnel === null) return;
    if (remote.spare === null && remote.grant === grant && this.interfaces.get(remote.name) === remote) {
      tunnel.isOfSymbol = true;
      remote.spare = tunnel;
    } else this.releaseDown(tunnel);
  }

  private update(fields: Message<'interface-use-response'>): void {
    const remote = this.interfaces.get(fields.interface);
    if (remote === undefined) return;
    this.granted(remote, fields.attributes, fields.rights, fields.protocols);
  }

  private granted(remote: RemoteInterface, ...use: [Attributes | null, readonly Right[], readonly string[]]): void {
    const changed = setUse(remote, ...use);
    this.changes.interfaces.tell();
    for (const tunnel of this.tunnels) {
      if (tunnel.interface !== remote.name) continue;
      // What the symbol's own tunnel was made for may not be allowed any more: the next writer asks.
      if (changed) tunnel.isOfSymbol = false;
      tunnel.interfaceIs(linkTypeOf(remote));
    }
    if (remote.spare?.isOfSymbol === false) this.dropSpare(remote);
  }

  private unregister(name: string): void {
    const remote = this.interfaces.get(name);
    this.interfaces.delete(name);
    if (remote !== undefined) this.dropSpare(remote);
  }

  private dropSpare(remote: RemoteInterface): void {
    const { spare } = remote;
    if (spare === null) return;
    remote.spare = null;
    spare.close();
    this.forget(spare);
  }

  frames(message: Buffer, end: number): void {
    this.upPath.frames(message, end);
  }

  disconnected(_error: FwdfsError, orderly: boolean): void {
    this.sendError = ''; // why it is not connected matters more now
    this.rules.disconnected();
    this.tellConnection();
    if (this.options.onDisconnect === 'error') {
      this.rules.endReaders(ENETDOWN);
      for (const tunnel of this.tunnels) tunnel.ended = ENETDOWN;
      this.loseAll('the connection was lost');
      return;
    }
    // From then on the forwarder has no session of ours: who waits for a confirmation must not wait for ever.
    if (orderly) this.loseAll('the forwarder said goodbye');
    else this.expiry = setTimeout(() => this.loseAll('the connection did not come back in time'), this.resumeTime);
  }

  private loseAll(reason: string): void {
    for (const tunnel of [...this.tunnels]) this.lose(tunnel, reason);
  }

  private tellConnection(): void {
    this.changes.connection();
    this.options.reception.changes.tell();
  }

  failed(): void {
    this.changes.state.tell();
    this.settle();
  }
}
