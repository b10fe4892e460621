/**
 * What this control device wants no new flows of: one interface of a forwarder, or all of them. Flows that it has go on, and
 * so do copies.
 *
 *     set --> drain-request --> it counts          a forwarder that forgot it, with the session, is asked again
 */
import { Changes } from '../base/changes.js';
import { describe, FwdfsError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import type { TunnelClient } from '../tunnel/client.js';

/** Stands for all interfaces; no interface has this name. */
const ALL = '*';

export class Drains {
  readonly changes = new Changes();
  private readonly client: Pick<TunnelClient, 'request'>;
  private readonly log: Logger;
  private readonly wanted = new Set<string>();

  constructor(client: Pick<TunnelClient, 'request'>, log: Logger) {
    this.client = client;
    this.log = log;
  }

  /**
   * Resolves when it counts. What fails changes nothing.
   * @param interfaceName absent: of all @throws FwdfsError
   */
  async set(interfaceName: string | undefined, drain: boolean): Promise<void> {
    const name = interfaceName ?? ALL;
    if (!drain && name !== ALL && this.wanted.has(ALL)) {
      throw new FwdfsError('bad-command', `drain ${name} off: all interfaces are drained, which \`drain off\` ends`);
    }
    await this.ask(name, drain);
    if (drain) this.wanted.add(name);
    // Of all interfaces: also of those that are drained one by one.
    else if (name === ALL) this.wanted.clear();
    else this.wanted.delete(name);
    this.changes.tell();
  }

  private async ask(name: string, drain: boolean): Promise<void> {
    await this.client.request('drain-request', { drain, ...(name === ALL ? {} : { interface: name }) });
  }

  /** There is a connection again: the forwarder may not know. */
  askAgain(): void {
    for (const name of this.wanted) {
      this.ask(name, true).catch((error: unknown) =>
        this.log.warn({ interface: name, reason: describe(error) }, 'new flows come until the next connection'),
      );
    }
  }

  /** `all`, or the interfaces with commas between them; '' for none. */
  get text(): string {
    return this.wanted.has(ALL) ? 'all' : [...this.wanted].sort().join(',');
  }
}
