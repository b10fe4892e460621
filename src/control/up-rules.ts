/**
 * The packet transfer rules that this control device wants of one forwarder: transfer registration request section 230 and,
 * of the way up, transfer control section 240 (S1003 to S1007, S902 to S905).
 *
 *              acquire                answer                      last release
 *     unset ------------> asked -----------------> set -------------------------------> gone, here and there
 *       ^                   |  |                    |  |
 *       | not connected, or |  | refused            |  | withdrawn, or refused after a new session
 *       | no interface now  |  v                    |  v
 *       +-------------------+  ended                |  ended: readers get the reason, then the end of the file
 *       +-------------------------------------------+ a new session
 *
 * Openers of one rule share it; a claim is its one opener's. A rule that ended is forgotten, so the next open asks anew.
 */
import type { Counters } from '../base/counters.js';
import { describe, FwdfsError, hasCode, isErrorCode } from '../base/errors.js';
import { UP_CREDIT_BYTES } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import type { TunnelClient } from '../tunnel/client.js';
import type { Message } from '../tunnel/messages.js';
import type { ReceptionTable } from './tables.js';
import { type RuleKey, ruleName, type RuleOwner, UpTunnel } from './up-tunnel.js';

export interface UpRulesOptions {
  /** The forwarder's name in the file tree. */
  readonly forwarder: string;
  readonly client: Pick<TunnelClient, 'request' | 'state'>;
  readonly reception: ReceptionTable;
  /** pcap link type of an interface; 0: not known now. */
  readonly linkTypeOf: (interfaceName: string) => number;
  readonly log: Logger;
  /** Told why the readers of a rule get an error, for `.state`. */
  readonly onError: (text: string) => void;
}

export class UpRules {
  private readonly options: UpRulesOptions;
  private readonly rules = new Map<string, UpTunnel>();
  /** Ids of rules that nobody wants, and that may be at the forwarder. */
  private readonly deletions = new Set<number>();

  constructor(options: UpRulesOptions) {
    this.options = options;
  }

  /** S1003 to S1007: when it resolves, the rule is active at the forwarder. */
  async acquire(key: RuleKey, counters: Counters): Promise<UpTunnel> {
    const name = ruleName(key);
    let tunnel = this.rules.get(name);
    if (tunnel === undefined) {
      tunnel = new UpTunnel(key, this.options.forwarder, counters);
      this.rules.set(name, tunnel);
    } else if (key.claim) {
      throw new FwdfsError('claimed', `${this.options.forwarder}/${name} is open here already`);
    }
    if (tunnel.state === 'unset') void this.ask(tunnel);
    tunnel.holders += 1;
    try {
      await tunnel.ready;
    } catch (error) {
      this.release(tunnel);
      throw error;
    }
    return tunnel;
  }

  private ask(tunnel: UpTunnel): Promise<void> {
    const { reception } = this.options;
    reception.remove(tunnel.id);
    tunnel.id = reception.allocate();
    // S1005 before S1006: the first packet may come before the response.
    reception.add(tunnel);
    tunnel.asked();
    tunnel.ready = this.request(tunnel, tunnel.id);
    return tunnel.ready;
  }

  private async request(tunnel: UpTunnel, id: number): Promise<void> {
    const { client, linkTypeOf } = this.options;
    const { owner, filter } = tunnel.key;
    tunnel.linkType ||= linkTypeOf(tunnel.key.interface);
    if (owner?.isKnown === false) {
      tunnel.state = 'unset';
      throw new FwdfsError('not-connected', `the forwarder does not know ${owner.symbol} now`);
    }
    try {
      await client.request('transfer-request', {
        upTunnel: id,
        control: client.state.localAddress,
        protocol: tunnel.key.protocol.text,
        symbol: owner?.symbol ?? tunnel.name,
        interface: tunnel.key.interface,
        scope: tunnel.key.scope,
        claim: tunnel.key.claim,
        credit: UP_CREDIT_BYTES,
        ...(tunnel.linkType !== 0 && { linkType: tunnel.linkType }),
        ...(filter !== undefined && filter !== '' && { filter }),
        ...owner?.ruleFields(),
      });
    } catch (error) {
      tunnel.state = 'unset';
      // Without an answer: the forwarder may have set it.
      if (hasCode(error, 'not-connected', 'timed-out')) void this.delete(id);
      else if (!hasCode(error, 'no-such-interface')) this.end(tunnel, error);
      throw error;
    }
    // Attributes that were on their way came before the answer.
    tunnel.linkType ||= linkTypeOf(tunnel.key.interface);
    if (tunnel.linkType === 0) {
      void this.delete(id);
      this.end(tunnel, new FwdfsError('interface-gone', tunnel.key.interface));
    }
    // The answer and the withdrawal may have come together.
    if (tunnel.failure !== null) throw tunnel.failure;
    tunnel.state = 'set';
    tunnel.active = tunnel.holders > 0;
    this.options.reception.changes.tell();
    if (!tunnel.active) void this.delete(id); // released meanwhile
  }

  /** S902, S903: the last holder takes the rule back. */
  release(tunnel: UpTunnel): void {
    tunnel.holders -= 1;
    if (tunnel.holders > 0) return;
    this.forget(tunnel);
    tunnel.active = false;
    if (tunnel.state === 'set') void this.delete(tunnel.id);
  }

  private forget(tunnel: UpTunnel): void {
    if (this.rules.get(tunnel.name) === tunnel) this.rules.delete(tunnel.name);
    this.options.reception.remove(tunnel.id);
  }

  private async delete(id: number): Promise<void> {
    const { client, forwarder, log } = this.options;
    this.deletions.add(id);
    try {
      await client.request('transfer-deletion-request', { upTunnel: id });
      this.deletions.delete(id);
    } catch (error) {
      // Not connected: a session that resumes deletes it then, any other has no such rule.
      log.debug({ forwarder, error: describe(error) }, 'rule not deleted yet');
    }
  }

  /** The forwarder does not do it, and will not by itself. */
  private end(tunnel: UpTunnel, error: unknown): void {
    const { forwarder, log, onError } = this.options;
    this.forget(tunnel);
    if (!tunnel.fail(error instanceof FwdfsError ? error : new FwdfsError('internal', describe(error)))) return;
    onError(`${tunnel.name}: ${describe(error)}`);
    log.warn({ forwarder, symbol: tunnel.name, reason: describe(error) }, 'a rule in use ended');
  }

  /** The forwarder took a rule away. */
  withdrawn({ upTunnel, reason, code = 'not-permitted' }: Message<'transfer-withdrawal'>): void {
    const tunnel = this.options.reception.get(upTunnel);
    if (tunnel === undefined || tunnel.forwarder !== this.options.forwarder) return;
    this.end(tunnel, new FwdfsError(isErrorCode(code) ? code : 'internal', reason));
  }

  // --- connections ---

  /** The session goes on. @param sent rules that the forwarder has, and the frames sent for each so far */
  resume(sent: ReadonlyMap<number, number>): void {
    for (const id of [...this.deletions]) void this.delete(id);
    for (const tunnel of [...this.rules.values()]) {
      const frames = sent.get(tunnel.id);
      tunnel.resumed(frames ?? 0);
      // One that was withdrawn meanwhile is asked for again, and the refusal says why.
      tunnel.active = tunnel.state === 'set' && frames !== undefined;
      if (!tunnel.active) this.restore(tunnel);
    }
  }

  /** A new session: everything is asked for again, under new ids. */
  beginAnew(): void {
    this.deletions.clear();
    for (const tunnel of [...this.rules.values()]) this.restore(tunnel);
  }

  /** An interface is there: it may be younger than the session. */
  interfaceFound(name: string): void {
    for (const tunnel of [...this.rules.values()]) {
      if (tunnel.key.interface === name && tunnel.state === 'unset') this.restore(tunnel);
    }
  }

  /** The forwarder knows a virtual IF or a virtual IP address: the rules of its sockets can be set. */
  ownerFound(owner: RuleOwner): void {
    for (const tunnel of [...this.rules.values()]) {
      if (tunnel.key.owner === owner && tunnel.state === 'unset') this.restore(tunnel);
    }
  }

  /** The forwarder took it away, and the rules of its sockets with it. */
  ownerLost(owner: RuleOwner, error: FwdfsError): void {
    for (const tunnel of [...this.rules.values()]) if (tunnel.key.owner === owner) this.end(tunnel, error);
  }

  private restore(tunnel: UpTunnel): void {
    const { forwarder, log } = this.options;
    // `ownerFound` comes when it can be set.
    if (tunnel.key.owner?.isKnown === false) {
      tunnel.state = 'unset';
      return;
    }
    this.ask(tunnel).catch((error: unknown) =>
      log.warn({ forwarder, symbol: tunnel.name, reason: describe(error) }, 'not restored'),
    );
  }

  disconnected(): void {
    for (const tunnel of this.rules.values()) tunnel.active = false;
  }

  /** Whoever reads now gets this, then the end of the file. The rules stay for those who open again, until the last close. */
  endReaders(errno: number): void {
    for (const tunnel of this.rules.values()) tunnel.endReaders(errno);
  }

  close(): void {
    for (const tunnel of this.rules.values()) {
      this.options.reception.remove(tunnel.id);
      tunnel.endReaders();
    }
  }
}
