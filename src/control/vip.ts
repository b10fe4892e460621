/**
 * A virtual IP address: virtual IP address 223 (Fig. 13), an address of the forwarder that sockets here are bound to.
 *
 *     register: link between the devices --> sender address --> address-conversion-request (S1804) --> kernel (S2004)
 *                                               ^  address-in-use: the next one |
 *                                               +-------------------------------+
 *
 *     unknown --register--> active --withdrawn--> withdrawn      asked again when the forwarder's interfaces or rights are others
 *        ^                    | a new session         |
 *        +--------------------+-----------------------+
 *
 * VifRules owns what its sockets want. A lost connection changes nothing: the kernels convert without us. What is in the
 * kernel stays until `remove`, also when the forwarder never comes back.
 */
import { isIP } from 'node:net';
import { describe, FwdfsError, hasCode } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { formatMac, parseMac } from '../packet/mac-address.js';
import type { ProtocolAddress } from '../packet/protocol-address.js';
import type { Message } from '../tunnel/messages.js';
import type { ConversionEnd } from './conversions.js';
import type { ForwarderLink } from './forwarder-link.js';
import type { OwnerFields, RuleOwner } from './up-tunnel.js';
import { VipKernel } from './vip-kernel.js';
import { vipLink } from './vip-link.js';
import { senderCandidates } from './vip-sender.js';

export interface VipOptions {
  /** Name of this control device. */
  readonly control: string;
  readonly link: ForwarderLink;
  /** Canonical. */
  readonly address: string;
  /** null: one of our choice. */
  readonly sender: string | null;
  /** Sender addresses of others here. */
  readonly isTaken: (sender: string) => boolean;
  readonly log: Logger;
}

export type VipState = 'active' | 'lost' | 'withdrawn';

export class Vip implements RuleOwner, ConversionEnd {
  readonly mode = 'vip';
  readonly symbol: string;
  readonly options: VipOptions;
  state: VipState = 'lost';
  /** Why it is not active, one line. */
  reason = '';
  /** The forwarder's interface that has the address. */
  interface = '';
  /** What stands for it between the devices; '' before the first registration. */
  sender = '';
  /** Name of the device that leads to the forwarder. */
  device = '';
  /** The forwarder has it, or has it anew: its rules can be set. */
  onKnown: () => void = () => undefined;
  /** It is in another state. */
  onChange: () => void = () => undefined;
  private readonly kernel: VipKernel;
  /** Counts what ends registrations. */
  private registration = 0;
  private registering: Promise<void> | null = null;
  private isMissed = false;
  private closed = false;

  /** Holds the address; nothing else is done before `start`. @throws FwdfsError already-there; SystemError */
  constructor(options: VipOptions) {
    this.options = options;
    this.symbol = `vip:${options.address}`;
    this.kernel = new VipKernel(options.control, options.address, options.log);
  }

  get family(): 4 | 6 {
    return this.options.address.includes(':') ? 6 : 4;
  }

  get isKnown(): boolean {
    return this.state === 'active';
  }

  ruleFields(): OwnerFields {
    return { vip: this.options.address, control: this.sender, credit: 0 };
  }

  /** Resolves when the forwarder converts and the kernel is ready; else nothing is left of it. @throws FwdfsError, SystemError */
  async start(): Promise<void> {
    try {
      await this.register();
    } catch (error) {
      await this.remove();
      throw error;
    }
  }

  /** Asks the forwarder to convert, with the sender address that it had, if it had one. */
  private async register(): Promise<void> {
    const { address, link } = this.options;
    const place = vipLink(this.kernel.requests, link.state, this.family);
    const fields = { vip: address, nextHop: place.address, link: place.mac };
    const senders = this.senders();
    const { registration } = this;
    for (const [index, sender] of senders.entries()) {
      try {
        const answer = await link.conversions.register({ ...fields, sender }, this);
        const { mac, nextHop } = checked(answer, this.family);
        const { address: ownAddress, device, ifindex } = place;
        await this.kernel.apply({ vip: address, sender, device, ifindex, ownAddress, nextHop, forwarderMac: mac });
        if (registration !== this.registration) throw new FwdfsError('not-connected', 'the session ended meanwhile');
        this.sender = sender;
        this.device = place.device;
        this.interface = answer.interface;
        this.state = 'active';
        this.reason = '';
        return;
      } catch (error) {
        if (!hasCode(error, 'address-in-use') || index + 1 >= senders.length) throw error;
      }
    }
  }

  private senders(): string[] {
    const { address, control, isTaken, link, sender } = this.options;
    if (sender !== null) return [sender];
    const candidates = senderCandidates(control, link.name, address).filter((one) => !isTaken(one));
    return this.sender === '' ? candidates : [this.sender, ...candidates.filter((one) => one !== this.sender)];
  }

  /** Something about the forwarder is other than before: registers if it is not. */
  retry(): void {
    this.isMissed = this.registering !== null;
    if (this.registering !== null || this.closed || this.isKnown || !this.options.link.isConnected) return;
    this.registering = this.again().finally(() => {
      this.registering = null;
      if (this.isMissed) this.retry();
    });
  }

  private async again(): Promise<void> {
    const { address, link, log } = this.options;
    try {
      await this.register();
    } catch (error) {
      const reason = describe(error);
      if (!hasCode(error, 'not-connected', 'timed-out')) this.state = 'withdrawn';
      if (reason !== this.reason) log.warn({ vip: address, reason }, 'a virtual IP address is not converted now');
      this.reason = reason;
      this.onChange();
      return;
    }
    log.info({ vip: address, sender: this.sender }, 'a virtual IP address is converted again');
    link.ownerFound(this);
    this.onKnown();
    this.onChange();
  }

  // --- ConversionEnd ---

  sessionBegan(): void {
    this.state = 'lost';
    this.registration += 1;
    // Its rules learn first that they have to wait.
    setImmediate(() => this.retry());
    this.onChange();
  }

  withdrawn(error: FwdfsError): void {
    this.state = 'withdrawn';
    this.registration += 1;
    this.reason = describe(error);
    this.options.log.warn({ vip: this.options.address, reason: this.reason }, 'a virtual IP address was withdrawn');
    this.options.link.ownerLost(this, error);
    this.onChange();
  }

  // --- Gate ---

  admit(protocol: ProtocolAddress): void {
    this.kernel.admit(protocol);
  }

  refuse(protocol: ProtocolAddress): void {
    this.kernel.refuse(protocol);
  }

  /** Nothing of it is left, here and at the forwarder. */
  async remove(): Promise<void> {
    this.closed = true;
    await this.registering?.catch(() => undefined);
    await this.options.link.conversions.remove(this.options.address);
    await this.kernel.remove();
  }
}

/** What comes from the other device goes into rule sets and routes. @throws FwdfsError bad-message */
function checked(answer: Message<'address-conversion-response'>, family: 4 | 6): { mac: string; nextHop: string } {
  const mac = parseMac(answer.link);
  if (mac === null || isIP(answer.nextHop) !== family) {
    throw new FwdfsError('bad-message', `address-conversion-response with ${answer.nextHop} at ${answer.link}`);
  }
  return { mac: formatMac(mac), nextHop: answer.nextHop };
}
