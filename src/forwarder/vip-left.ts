/**
 * Sender addresses that a crash left in the kernel, with their connections: these go on if the same control device registers
 * the same one again for the same virtual IP address.
 *
 *     keep --take by its owner--> its connections go on
 *          --take by another one--> given up first
 *          --RESUME_TIME_MS--> given up: its control device did not come back
 */
import { addressText, parseIpAddress } from '../packet/ip-address.js';
import type { Registration } from './vip-registrations.js';
import { comment } from './vip-ruleset.js';

/** By whom an address was registered. */
type Owner = Pick<Registration, 'sender' | 'vip'> & { readonly control: string };

const ownerText = (vip: string, control: string): string => `${vip} ${control}`;

export class VipLeft {
  private readonly resumeTime: number;
  private readonly giveUp: (sender: Buffer) => Promise<void>;
  /** By sender address; the owner, '' where the kernel did not tell it. */
  private readonly owners = new Map<string, string>();
  private timer: NodeJS.Timeout | null = null;

  /** @param giveUp ends connections of a sender address, and never fails */
  constructor(resumeTime: number, giveUp: (sender: Buffer) => Promise<void>) {
    this.resumeTime = resumeTime;
    this.giveUp = giveUp;
  }

  get senders(): Buffer[] {
    return [...this.owners.keys()].flatMap((text) => parseIpAddress(text) ?? []);
  }

  /** @param reception rows of vip_reception: sender, virtual IP address, control device, … @param late ran out of time */
  keep(senders: readonly string[], reception: readonly (readonly string[])[], late: () => Promise<void>): void {
    for (const sender of senders) {
      const [, vip = '', control = ''] = reception.find(([one]) => one === sender) ?? [];
      this.owners.set(sender, vip === '' ? '' : ownerText(vip, comment(control)));
    }
    if (this.owners.size > 0) this.timer = setTimeout(() => void late(), this.resumeTime);
  }

  /** It stands for a control device again. */
  async take({ sender, vip, control }: Owner): Promise<void> {
    const text = addressText(sender);
    const owner = this.owners.get(text);
    if (owner === undefined) return;
    this.owners.delete(text);
    if (owner !== ownerText(addressText(vip), comment(control))) await this.giveUp(sender);
  }

  /** All that nobody took. */
  async giveUpAll(): Promise<void> {
    this.close();
    const { senders } = this;
    this.owners.clear();
    for (const sender of senders) await this.giveUp(sender);
  }

  close(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
  }
}
