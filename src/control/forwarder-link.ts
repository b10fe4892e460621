/**
 * One forwarder as the control device knows it: transfer control section 240 and transfer registration request section 230.
 *
 *     connected -> interface-list -> for each: interface use (S211) -> tunnel generation (S803, S804) -> symbol is there
 *     open()  -> acquireUp: transfer request (S1003 to S1006) / acquireDown: the symbol's tunnel, or one more
 *     close() -> releaseUp: transfer deletion request (S902 to S905) / releaseDown
 *
 * In Fig. 24 and 31: virtual IF reception and setting section 24, table generation sections 25 and 27, deletion section
 * 47; in Fig. 1 also transfer deletion request section 232. Its TunnelClient is IF 280, inter-device communication logical
 * IF 46. Both channels are there before any symbol is, so of Fig. 25 to 27 the steps S202 to S204, S210 and S218 to S221
 * come first, once for all symbols; then S209, S211, S214, S216 and S217 for each, and S224 and S225 with each open(). Fig. 32
 * is releaseUp.
 *
 * Owns the forwarder's interfaces, up tunnels and down tunnels. When the connection is lost they stay; a session that
 * resumes goes on with them, any other gets new ids for them and what was not confirmed counts as not sent.
 */
import type { Counters } from '../base/counters.js';
import { describe, FwdfsError, hasCode } from '../base/errors.js';
import { RESUME_TIME_MS, UP_CREDIT_BYTES } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import type { ProtocolAddress } from '../packet/protocol-address.js';
import {
  type ClientHandler,
  type ClientState,
  type Connected,
  TunnelClient,
  type TunnelClientOptions,
} from '../tunnel/client.js';
import type { Answer, Message, MessageArgs } from '../tunnel/messages.js';
import { DownTunnel } from './down-tunnel.js';
import { mayWrite, newInterface, type RemoteInterface, setUse } from './remote-interface.js';
import { UpPath } from './up-path.js';
import type { ReceptionTable, TransmissionTable } from './tables.js';
import { type RuleKey, ruleName, UpTunnel } from './up-tunnel.js';

export interface ForwarderLinkOptions extends Pick<TunnelClientOptions, 'url' | 'token' | 'tls' | 'log'> {
  /** The forwarder's name in the file tree. */
  readonly name: string;
  /** Name of this control device. */
  readonly control: string;
  readonly reception: ReceptionTable;
  readonly transmission: TransmissionTable;
}

export class ForwarderLink implements ClientHandler {
  readonly name: string;
  readonly interfaces = new Map<string, RemoteInterface>();
  private readonly options: ForwarderLinkOptions;
  private readonly log: Logger;
  private readonly client: TunnelClient;
  private readonly rules = new Map<string, UpTunnel>();
  private readonly downs = new Map<number, DownTunnel>();
  /** Down tunnels whose writers are gone; they end when all is confirmed. */
  private readonly closing = new Set<DownTunnel>();
  /** All tunnels of writers and symbols, also those that the forwarder does not know just now. */
  private readonly tunnels = new Set<DownTunnel>();
  /** Ids of rules that nobody wants, and that may be at the forwarder. */
  private readonly deletions = new Set<number>();
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

  close(): void {
    this.client.close();
    clearTimeout(this.expiry);
    for (const tunnel of this.tunnels) tunnel.lost('the control device stops');
    for (const rule of this.rules.values()) {
      this.options.reception.remove(rule.id);
      rule.endReaders();
    }
  }

  /** The interface of that name. @throws FwdfsError not-connected, no-such-interface */
  interfaceOf(name: string): RemoteInterface {
    if (!this.isConnected)
      throw new FwdfsError('not-connected', `${this.name}: ${this.state.lastError || 'connecting'}`);
    const found = this.interfaces.get(name);
    if (found === undefined) throw new FwdfsError('no-such-interface', `${this.name} has no interface ${name}`);
    return found;
  }

  async table(table: string, interfaceName?: string): Promise<Message<'table-rows'>> {
    const only = interfaceName === undefined ? {} : { interface: interfaceName };
    return this.client.request('table-request', { table, ...only });
  }

  // --- up: rules ---

  /** S1003 to S1007: when it resolves, the rule is active at the forwarder. */
  async acquireUp(key: RuleKey): Promise<UpTunnel> {
    const remote = this.interfaceOf(key.interface);
    const name = ruleName(key);
    let tunnel = this.rules.get(name);
    if (tunnel === undefined) {
      tunnel = new UpTunnel(key, this.name, remote.counters);
      this.rules.set(name, tunnel);
    }
    if (tunnel.state === 'unset') void this.setRule(tunnel);
    tunnel.holders += 1;
    try {
      await tunnel.ready;
    } catch (error) {
      this.releaseUp(tunnel);
      throw error;
    }
    return tunnel;
  }

  private setRule(tunnel: UpTunnel): Promise<void> {
    const { reception } = this.options;
    reception.remove(tunnel.id);
    tunnel.id = reception.allocate();
    // S1005 before S1006: the first packet may come before the response.
    reception.add(tunnel);
    tunnel.asked();
    tunnel.ready = this.requestTransfer(tunnel, tunnel.id);
    return tunnel.ready;
  }

  private async requestTransfer(tunnel: UpTunnel, id: number): Promise<void> {
    try {
      await this.client.request('transfer-request', {
        upTunnel: id,
        control: this.client.state.localAddress,
        protocol: tunnel.key.protocol.text,
        symbol: tunnel.name,
        interface: tunnel.key.interface,
        scope: tunnel.key.scope,
        claim: false,
        credit: UP_CREDIT_BYTES,
      });
    } catch (error) {
      tunnel.state = 'unset';
      // Without an answer: the forwarder may have set it.
      if (hasCode(error, 'not-connected', 'timed-out')) void this.deleteRule(id);
      throw error;
    }
    tunnel.state = 'set';
    tunnel.active = tunnel.holders > 0;
    if (!tunnel.active) void this.deleteRule(id); // released meanwhile
  }

  /** S902, S903: the last holder takes the rule back. */
  releaseUp(tunnel: UpTunnel): void {
    tunnel.holders -= 1;
    if (tunnel.holders > 0) return;
    if (this.rules.get(tunnel.name) === tunnel) this.rules.delete(tunnel.name);
    this.options.reception.remove(tunnel.id);
    tunnel.active = false;
    if (tunnel.state === 'set') void this.deleteRule(tunnel.id);
  }

  private async deleteRule(id: number): Promise<void> {
    this.deletions.add(id);
    try {
      await this.client.request('transfer-deletion-request', { upTunnel: id });
      this.deletions.delete(id);
    } catch (error) {
      // Not connected: a session that resumes deletes it then, any other has no such rule.
      this.log.debug({ forwarder: this.name, error: describe(error) }, 'rule not deleted yet');
    }
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
      this.sendError = text;
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
    const response = await this.client.request('tunnel-generation-request', {
      control: this.client.state.localAddress,
      symbol: tunnel.symbol,
      interface: tunnel.interface,
      protocol: tunnel.protocol,
    });
    if (!this.tunnels.has(tunnel)) return this.deleteTunnel(response.downTunnel);
    tunnel.established(response.downTunnel, response.window);
    this.downs.set(tunnel.id, tunnel);
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
    if (connected.resumed) this.resume(connected);
    else this.beginAnew(connected.sameEpoch ? 'the session was not resumed in time' : 'the forwarder was restarted');
  }

  private resume(connected: Connected): void {
    const sent = new Map(connected.upTunnels.map(({ tunnel, frames }) => [tunnel, frames]));
    for (const id of [...this.deletions]) void this.deleteRule(id);
    for (const rule of this.rules.values()) {
      rule.resumed(sent.get(rule.id) ?? 0);
      rule.active = rule.state === 'set';
      if (!rule.active) this.restore(this.setRule(rule), rule.name);
    }
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
    for (const tunnel of this.tunnels) if (tunnel.id === 0) this.restore(this.establish(tunnel), tunnel.symbol);
  }

  /** A new session: rules and tunnels are asked for again, under new ids. */
  private beginAnew(reason: string): void {
    this.deletions.clear();
    this.loseAll(reason);
    for (const rule of this.rules.values()) this.restore(this.setRule(rule), rule.name);
    for (const tunnel of this.tunnels) this.restore(this.establish(tunnel), tunnel.symbol);
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
    if (type === 'interface-list') this.register(fields.interfaces);
    else if (type === 'interface-attribute-change') this.update(fields);
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
      await this.use(remote);
    });
    void Promise.allSettled(uses).then(() => this.settle());
  }

  private async use(remote: RemoteInterface): Promise<void> {
    try {
      this.update(await this.client.request('interface-use-request', { interface: remote.name }));
    } catch (error) {
      // No right to it (S212): the symbol is there, and open() says why it can't be used.
      if (hasCode(error, 'not-permitted')) setUse(remote, null, []);
      this.log.debug({ forwarder: this.name, interface: remote.name, reason: describe(error) }, 'interface not used');
      return;
    }
    // A new session may be older than the interface.
    for (const rule of this.rules.values()) {
      if (rule.key.interface === remote.name && rule.state === 'unset') this.restore(this.setRule(rule), rule.name);
    }
    if (!mayWrite(remote.rights) || remote.spare !== null) return;
    // Refused where only some protocol addresses may be written: writers get tunnels of their own.
    const tunnel = await this.generate(remote.name, remote.name, '*').catch(() => null);
    if (tunnel === null) return;
    tunnel.isOfSymbol = true;
    if (remote.spare === null && this.interfaces.get(remote.name) === remote) remote.spare = tunnel;
    else this.releaseDown(tunnel);
  }

  private update(fields: Message<'interface-use-response'>): void {
    const remote = this.interfaces.get(fields.interface);
    if (remote !== undefined) setUse(remote, fields.attributes, fields.rights);
  }

  private unregister(name: string): void {
    const remote = this.interfaces.get(name);
    this.interfaces.delete(name);
    if (remote === undefined || remote.spare === null) return;
    remote.spare.close();
    this.forget(remote.spare);
  }

  frames(message: Buffer, end: number): void {
    this.upPath.frames(message, end);
  }

  disconnected(_error: FwdfsError, orderly: boolean): void {
    this.sendError = ''; // why it is not connected matters more now
    for (const rule of this.rules.values()) rule.active = false;
    // From then on the forwarder has no session of ours: who waits for a confirmation must not wait for ever.
    if (orderly) this.loseAll('the forwarder said goodbye');
    else this.expiry = setTimeout(() => this.loseAll('the connection did not come back in time'), this.resumeTime);
  }

  private loseAll(reason: string): void {
    for (const tunnel of [...this.tunnels]) this.lose(tunnel, reason);
  }

  failed(): void {
    this.settle();
  }
}
