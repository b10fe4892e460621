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
 * Owns the forwarder's interfaces, rules (UpRules) and down tunnels (DownTunnels). When the connection is lost they stay; a session that
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
import { Conversions } from './conversions.js';
import type { DownTunnel, VifEnd } from './down-tunnel.js';
import { Drains } from './drains.js';
import { DownTunnels } from './down-tunnels.js';
import { LinkChanges } from './link-changes.js';
import type { OnDisconnect } from './on-disconnect.js';
import { linkTypeOf, newInterface, type RemoteInterface, setUse } from './remote-interface.js';
import { RemoteTables } from './remote-tables.js';
import { UpPath } from './up-path.js';
import { UpRules } from './up-rules.js';
import type { ReceptionTable, TransmissionTable } from './tables.js';
import type { RuleKey, RuleOwner, UpTunnel } from './up-tunnel.js';
import type { GroupVerb } from './vif-groups.js';

const { ENETDOWN } = constants.errno;

export interface ForwarderLinkOptions extends Pick<TunnelClientOptions, 'url' | 'token' | 'tls' | 'weight' | 'log'> {
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
  readonly drains: Drains;
  readonly conversions: Conversions;
  private readonly options: ForwarderLinkOptions;
  private readonly log: Logger;
  private readonly client: TunnelClient;
  private readonly rules: UpRules;
  private readonly downs: DownTunnels;
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
    this.client = new TunnelClient({ ...options, name: options.control, handler: this });
    this.tables = new RemoteTables(this.client);
    this.conversions = new Conversions(this.client, options.log);
    this.drains = new Drains(this.client, options.log);
    this.drains.changes.listen(() => this.changes.state.tell());
    this.downs = new DownTunnels({
      forwarder: options.name,
      client: this.client,
      transmission: options.transmission,
      interfaces: this.interfaces,
      log: options.log,
      onError: (text) => this.tellError(text),
    });
    this.upPath = new UpPath(options.name, options.reception, this.downs.byId, (buffer, length) => {
      this.client.sendFrames(buffer, length, () => undefined);
    });
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
    this.downs.close(reason);
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
    return this.downs.acquire(this.interfaceOf(interfaceName), symbol, protocol);
  }

  /** S803 to S807 for a virtual IF. */
  async acquireVif(interfaceName: string, symbol: string, vif: VifEnd): Promise<DownTunnel> {
    return this.downs.generate(this.interfaceOf(interfaceName).name, symbol, '*', vif);
  }

  /** The forwarder knows a virtual IF or a virtual IP address: the rules of its sockets can be set. */
  ownerFound(owner: RuleOwner): void {
    this.rules.ownerFound(owner);
  }

  /** The forwarder took it away, and the rules of its sockets with it. */
  ownerLost(owner: RuleOwner, error: FwdfsError): void {
    this.rules.ownerLost(owner, error);
  }

  /** What the forwarder's kernel knows as a neighbour, or finds out. @returns its MAC address; '': it does not answer */
  async neighbour(interfaceName: string, address: string): Promise<string> {
    return (await this.client.request('neighbour-request', { interface: interfaceName, address })).link;
  }

  /** @param downTunnel of the virtual IF */
  async group(verb: GroupVerb, downTunnel: number, group: string): Promise<void> {
    await this.client.request(verb === 'join' ? 'group-join' : 'group-leave', { downTunnel, group });
  }

  releaseDown(tunnel: DownTunnel): void {
    this.downs.release(tunnel);
  }

  // --- ClientHandler ---

  connected(connected: Connected): void {
    this.sendError = '';
    clearTimeout(this.expiry);
    this.resumeTime = connected.resumeTime;
    this.askAgain();
    if (connected.resumed) this.resume(connected);
    else this.beginAnew(connected.sameEpoch ? 'the session was not resumed in time' : 'the forwarder was restarted');
    this.drains.askAgain();
    this.tellConnection();
  }

  private resume(connected: Connected): void {
    const sent = new Map(connected.upTunnels.map(({ tunnel, frames }) => [tunnel, frames]));
    this.conversions.resume();
    this.rules.resume(sent);
    this.downs.resume(connected.tunnels, sent);
  }

  /** A new session: rules and tunnels are asked for again, under new ids. */
  private beginAnew(reason: string): void {
    this.downs.loseAll(reason);
    this.conversions.beginAnew();
    this.rules.beginAnew();
    this.downs.establishAll();
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
    else if (type === 'address-conversion-withdrawal') this.conversions.withdrawn(fields);
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
    await this.downs.register(remote);
  }

  private update(fields: Message<'interface-use-response'>): void {
    const remote = this.interfaces.get(fields.interface);
    if (remote === undefined) return;
    this.granted(remote, fields.attributes, fields.rights, fields.protocols);
  }

  private granted(remote: RemoteInterface, ...use: [Attributes | null, readonly Right[], readonly string[]]): void {
    const changed = setUse(remote, ...use);
    this.changes.interfaces.tell();
    this.downs.interfaceIs(remote, changed);
  }

  private unregister(name: string): void {
    const remote = this.interfaces.get(name);
    this.interfaces.delete(name);
    if (remote !== undefined) this.downs.dropSpare(remote);
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
      this.downs.endWriters(ENETDOWN);
      this.downs.loseAll('the connection was lost');
      return;
    }
    // From then on the forwarder has no session of ours: who waits for a confirmation must not wait for ever.
    if (orderly) this.downs.loseAll('the forwarder said goodbye');
    else
      this.expiry = setTimeout(() => this.downs.loseAll('the connection did not come back in time'), this.resumeTime);
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
