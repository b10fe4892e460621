/**
 * The address conversions of this control device at one forwarder, as its messages have them: virtual IP address access
 * determination section 235 with transfer control section 240 (S1803, S1804).
 *
 *     register --> address-conversion-request (Fig. 19) --> the forwarder converts
 *     new session, withdrawal --> the virtual IP address is told, and registers again when it can
 *     remove ----> address-conversion-deletion-request; one that could not be sent is sent when the session resumes
 */
import { describe, FwdfsError, isErrorCode } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import type { TunnelClient } from '../tunnel/client.js';
import type { Message } from '../tunnel/messages.js';

/** A virtual IP address, as far as the session concerns it. */
export interface ConversionEnd {
  /** The forwarder has forgotten it. Told before anything is asked for in the new session. */
  sessionBegan(): void;
  /** The forwarder took it away, with the rules of its sockets. */
  withdrawn(error: FwdfsError): void;
}

export class Conversions {
  private readonly client: Pick<TunnelClient, 'request'>;
  private readonly log: Logger;
  private readonly ends = new Map<string, ConversionEnd>();
  /** Addresses that nobody wants, and that may be at the forwarder. */
  private readonly deletions = new Set<string>();

  constructor(client: Pick<TunnelClient, 'request'>, log: Logger) {
    this.client = client;
    this.log = log;
  }

  /** S1803, S1804. @throws FwdfsError */
  async register(
    fields: Message<'address-conversion-request'>,
    end: ConversionEnd,
  ): Promise<Message<'address-conversion-response'>> {
    this.ends.set(fields.vip, end);
    this.deletions.delete(fields.vip);
    return this.client.request('address-conversion-request', fields);
  }

  /** Resolves when the forwarder has it no more, or can't be asked now. */
  async remove(vip: string): Promise<void> {
    this.ends.delete(vip);
    this.deletions.add(vip);
    await this.delete(vip);
  }

  private async delete(vip: string): Promise<void> {
    try {
      await this.client.request('address-conversion-deletion-request', { vip });
      if (!this.ends.has(vip)) this.deletions.delete(vip);
    } catch (error) {
      // Not connected: a session that resumes deletes it then, any other has none.
      this.log.debug({ vip, error: describe(error) }, 'address conversion not deleted yet');
    }
  }

  resume(): void {
    for (const vip of [...this.deletions]) void this.delete(vip);
  }

  beginAnew(): void {
    this.deletions.clear();
    for (const end of [...this.ends.values()]) end.sessionBegan();
  }

  withdrawn({ vip, reason, code = 'not-permitted' }: Message<'address-conversion-withdrawal'>): void {
    this.ends.get(vip)?.withdrawn(new FwdfsError(isErrorCode(code) ? code : 'internal', reason));
  }
}
