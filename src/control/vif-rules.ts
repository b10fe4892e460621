/**
 * What the sockets on a virtual IF want, as packet transfer rules: virtual IF access determination section 234 with
 * transfer registration request section 230, virtual IF socket table generation section 27 and deletion section 47.
 *
 *     socket opened --rulesOf--> wanted by its first socket --> admitted here --> asked for at the forwarder (S223, S1002 to S1005)
 *     socket closed -----------> wanted by none ------------> deleted there ---> refused here               (S901 to S905)
 *
 *              ask                  answer                     last socket closed
 *     waiting -----> asked -----------------------> active ----------------------> gone
 *        ^             |  not connected, no such      |
 *        +-------------+  interface                   |  withdrawn
 *     refused <--------+------------------------------+   by the permission table, or not in --expose: told once, shown in
 *                                                         `.tables/vif_rules`; asked again when the rights change
 *
 * Sockets that were open before the virtual IF become rules only if --expose names them.
 */
import { describe, hasCode } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { covers } from '../packet/overlap.js';
import { IPPROTO_UDP, type ProtocolAddress } from '../packet/protocol-address.js';
import type { ForwarderLink } from './forwarder-link.js';
import type { WatchedSocket } from './socket-watcher.js';
import type { FrameReader, RuleOwner, UpTunnel } from './up-tunnel.js';

/** Lets in what is for a protocol address, until it was refused as often. */
export interface Gate {
  admit(protocol: ProtocolAddress): void;
  refuse(protocol: ProtocolAddress): void;
}

export interface VifRulesOptions {
  readonly link: Pick<ForwarderLink, 'acquireUp' | 'releaseUp'>;
  /** The forwarder's, as of now. */
  readonly interface: () => string;
  readonly owner: RuleOwner;
  readonly gate: Gate;
  /** As of now: what each socket wants. */
  readonly wants: () => (socket: WatchedSocket) => readonly ProtocolAddress[];
  /** What may become a rule; null: everything. */
  readonly expose: readonly ProtocolAddress[] | null;
  /** Takes the frames of all its rules. */
  readonly reader: Pick<FrameReader, 'deliver'>;
  /** Rules came, went or are in another state. */
  readonly onChange: () => void;
  readonly log: Logger;
}

type State = 'waiting' | 'asked' | 'active' | 'refused';

interface Rule {
  readonly protocol: ProtocolAddress;
  /** A packet socket's own; empty: none. */
  readonly filter: string;
}

const keyOf = ({ protocol, filter }: Rule): string => `${protocol.text} ${filter}`;

interface Wanted extends Rule {
  /** Ids of the sockets that want it. */
  readonly sockets: Set<string>;
  state: State;
  /** Why it is refused, one line. */
  reason: string;
  tunnel: UpTunnel | null;
}

/** A rule as tables show it. */
export interface RuleRow {
  readonly protocol: string;
  readonly state: string;
  readonly sockets: number;
  readonly hasFilter: boolean;
  readonly frames: number;
  readonly reason: string;
}

export class VifRules {
  private readonly options: VifRulesOptions;
  private readonly sockets = new Map<string, WatchedSocket>();
  /** Sockets that were there before the virtual IF. */
  private readonly old = new Set<string>();
  private readonly wanted = new Map<string, Wanted>();
  /** What each socket wants, by its id. */
  private readonly keys = new Map<string, readonly string[]>();
  private closed = false;

  /** @param old sockets that were there before; they are rules only if `expose` names them */
  constructor(options: VifRulesOptions, old: readonly WatchedSocket[]) {
    this.options = options;
    for (const socket of old) this.old.add(socket.id);
  }

  changed(opened: readonly WatchedSocket[], closed: readonly WatchedSocket[]): void {
    if (this.closed) return;
    // One that is another than before is in both, and is as old as it was.
    const stay = new Set(opened.map(({ id }) => id));
    for (const { id } of closed) {
      if (stay.has(id)) continue;
      this.want(id, []);
      this.sockets.delete(id);
      this.old.delete(id);
    }
    const wants = this.options.wants();
    for (const socket of opened) {
      this.sockets.set(socket.id, socket);
      this.want(socket.id, this.rulesOf(socket, wants(socket)));
    }
  }

  /** Addresses or devices are others: every socket is looked at anew. */
  review(): void {
    if (this.closed) return;
    const wants = this.options.wants();
    for (const socket of this.sockets.values()) this.want(socket.id, this.rulesOf(socket, wants(socket)));
  }

  private rulesOf(socket: WatchedSocket, protocols: readonly ProtocolAddress[]): readonly Rule[] {
    const isOld = this.old.has(socket.id);
    return protocols
      .filter((protocol) => !isOld || this.isExposed(protocol))
      .map((protocol) => ({ protocol, filter: socket.filter }));
  }

  /** A socket wants these rules, and no other ones. */
  private want(id: string, rules: readonly Rule[]): void {
    const before = this.keys.get(id) ?? [];
    const keys = rules.map(keyOf);
    for (const [index, key] of keys.entries()) {
      const rule = rules[index];
      if (rule === undefined || before.includes(key)) continue;
      const known = this.wanted.get(key);
      if (known !== undefined) known.sockets.add(id);
      else this.add(key, rule, id);
    }
    for (const key of before) if (!keys.includes(key)) this.unwant(key, id);
    if (keys.length > 0) this.keys.set(id, keys);
    else this.keys.delete(id);
  }

  private add(key: string, rule: Rule, id: string): void {
    const wanted: Wanted = { ...rule, sockets: new Set([id]), state: 'waiting', reason: '', tunnel: null };
    this.wanted.set(key, wanted);
    void this.ask(wanted);
    this.options.onChange();
  }

  private unwant(key: string, id: string): void {
    const wanted = this.wanted.get(key);
    if (wanted?.sockets.delete(id) !== true || wanted.sockets.size > 0) return;
    this.wanted.delete(key);
    this.drop(wanted);
    this.options.onChange();
  }

  private isExposed(protocol: ProtocolAddress): boolean {
    return this.options.expose?.some((exposed) => covers(exposed, protocol)) === true;
  }

  /** The forwarder has the virtual IF, or its rights are others: what is not set may be now. */
  retry(): void {
    for (const wanted of this.wanted.values()) {
      if (wanted.state === 'waiting' || wanted.state === 'refused') void this.ask(wanted);
    }
  }

  /** Resolves when all that is wanted now was asked for, and answered. */
  async settled(): Promise<void> {
    while ([...this.wanted.values()].some(({ state }) => state === 'asked')) {
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  private async ask(wanted: Wanted): Promise<void> {
    const { expose, gate, link, log, owner } = this.options;
    const { filter, protocol } = wanted;
    if (expose !== null && !this.isExposed(protocol)) {
      this.refused(wanted, `--expose does not name ${protocol.text}`);
      return;
    }
    if (!owner.isKnown) {
      // One that was refused shows why until it is asked for again.
      if (wanted.state !== 'refused') wanted.state = 'waiting';
      return;
    }
    wanted.state = 'asked';
    // Before the first frame comes.
    gate.admit(protocol);
    try {
      const tunnel = await link.acquireUp({
        interface: this.options.interface(),
        protocol,
        scope: 'in',
        claim: false,
        owner,
        filter,
      });
      if (!this.isWanted(wanted)) {
        gate.refuse(protocol);
        link.releaseUp(tunnel);
        return;
      }
      wanted.tunnel = tunnel;
      wanted.state = 'active';
      wanted.reason = '';
      tunnel.addReader(this.readerOf(wanted));
      log.info(
        { symbol: owner.symbol, protocol: protocol.text, sockets: wanted.sockets.size },
        'a socket is published',
      );
    } catch (error) {
      gate.refuse(protocol);
      if (!this.isWanted(wanted)) return;
      if (hasCode(error, 'not-connected', 'timed-out', 'no-such-interface')) wanted.state = 'waiting';
      else this.refused(wanted, describe(error));
    }
    this.options.onChange();
  }

  private isWanted(wanted: Wanted): boolean {
    return this.wanted.get(keyOf(wanted)) === wanted;
  }

  private readerOf(wanted: Wanted): FrameReader {
    const { reader } = this.options;
    return {
      deliver: (buf, offset, length, vnet, seconds, nanoseconds) =>
        reader.deliver(buf, offset, length, vnet, seconds, nanoseconds),
      end: () => {
        const { tunnel } = wanted;
        if (tunnel === null || !this.isWanted(wanted)) return;
        wanted.tunnel = null;
        this.options.gate.refuse(wanted.protocol);
        this.options.link.releaseUp(tunnel);
        this.refused(wanted, tunnel.failure === null ? 'the forwarder ended it' : describe(tunnel.failure));
        this.options.onChange();
      },
    };
  }

  /** Told once for each reason. */
  private refused(wanted: Wanted, reason: string): void {
    const { log, owner } = this.options;
    wanted.state = 'refused';
    if (wanted.reason === reason) return;
    wanted.reason = reason;
    log.warn({ symbol: owner.symbol, protocol: wanted.protocol.text, reason }, 'a socket is not published');
  }

  /** S902, S903: nobody wants it any more. */
  private drop(wanted: Wanted): void {
    const { gate, link, log, owner } = this.options;
    const { protocol, tunnel } = wanted;
    wanted.tunnel = null;
    if (tunnel === null) return;
    link.releaseUp(tunnel);
    gate.refuse(protocol);
    log.debug({ symbol: owner.symbol, protocol: protocol.text }, 'a socket is not published any more');
  }

  /** Whether a packet socket gets frames of this ether type. */
  seesEther(etherType: number): boolean {
    for (const { protocol, state } of this.wanted.values()) {
      if (state !== 'active') continue;
      if (protocol.kind === 'any' || (protocol.kind === 'ether' && protocol.etherType === etherType)) return true;
    }
    return false;
  }

  /** Whether a rule brings what comes to this UDP port. */
  isServed(port: number): boolean {
    for (const { protocol, state } of this.wanted.values()) {
      if (state === 'active' && protocol.portLow === port && protocol.protocols[0] === IPPROTO_UDP) return true;
    }
    return false;
  }

  get count(): number {
    return this.wanted.size;
  }

  rows(): RuleRow[] {
    return [...this.wanted.values()].map(({ protocol, sockets, state, reason, filter, tunnel }) => ({
      protocol: protocol.text,
      state: tunnel !== null && !tunnel.active ? 'suspended' : state,
      sockets: sockets.size,
      hasFilter: filter !== '',
      frames: tunnel?.frames ?? 0,
      reason: reason === '' ? '-' : reason,
    }));
  }

  close(): void {
    this.closed = true;
    for (const wanted of this.wanted.values()) this.drop(wanted);
    this.wanted.clear();
  }
}
