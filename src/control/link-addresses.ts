/**
 * The addresses at which a control device reaches its forwarders. In its own network namespace no virtual IF may have one of
 * them, for it would be an address of this host then; and while there is a virtual IF, the way to each is pinned.
 *
 *     URL, connection --> address --> pinned while virtual IFs are there
 *                                 \-> left out of what they mirror
 */
import { isIP } from 'node:net';
import { Changes } from '../base/changes.js';
import type { Logger } from '../base/log.js';
import type { Attributes } from '../tunnel/messages.js';
import type { ForwarderLink } from './forwarder-link.js';
import { LinkPin } from './pin.js';

const addressOf = (prefix: string): string => prefix.split('/')[0] ?? '';

/** The host of a URL where it is an address. */
function literal(url: string): string[] {
  if (!URL.canParse(url)) return [];
  const host = new URL(url).hostname.replace(/^\[|\]$/g, '');
  return isIP(host) === 0 ? [] : [host];
}

interface Followed {
  readonly addresses: Set<string>;
  readonly stop: () => void;
}

export class LinkAddresses {
  /** There is one more. */
  readonly changes = new Changes();
  private readonly links = new Map<ForwarderLink, Followed>();
  private readonly pin: LinkPin;
  private readonly pinned = new Map<string, () => void>();
  private users = 0;

  constructor(log: Logger) {
    this.pin = new LinkPin(log);
  }

  follow(link: ForwarderLink, url: string): void {
    const learn = (): void => this.learn(link, link.state.remoteAddress);
    this.links.set(link, { addresses: new Set(literal(url)), stop: link.changes.state.listen(learn) });
    learn();
  }

  forget(link: ForwarderLink): void {
    this.links.get(link)?.stop();
    this.links.delete(link);
    this.update();
  }

  private learn(link: ForwarderLink, address: string): void {
    const known = this.links.get(link)?.addresses;
    if (known === undefined || isIP(address) === 0 || known.has(address)) return;
    known.add(address);
    this.update();
    this.changes.tell();
  }

  private all(): Set<string> {
    return new Set(Array.from(this.links.values(), ({ addresses }) => [...addresses]).flat());
  }

  /** Pins what is to be pinned now. */
  private update(): void {
    const wanted = this.users > 0 ? this.all() : new Set<string>();
    for (const [address, release] of this.pinned) {
      if (wanted.has(address)) continue;
      this.pinned.delete(address);
      release();
    }
    for (const address of wanted) if (!this.pinned.has(address)) this.pinned.set(address, this.pin.pin(address));
  }

  /** A virtual IF comes into our namespace. @returns when it is gone */
  hold(): () => void {
    this.users += 1;
    this.update();
    return () => {
      this.users -= 1;
      this.update();
    };
  }

  /** Whether a forwarder is reached at this address. */
  has(address: string): boolean {
    return this.all().has(address);
  }

  /** Which of the interface's addresses a forwarder is reached at; undefined: none. */
  among({ inet, inet6 }: Attributes): string | undefined {
    const all = this.all();
    return [...inet, ...inet6].map(addressOf).find((address) => all.has(address));
  }

  /** What may be mirrored in our namespace. */
  without(attributes: Attributes): Attributes {
    const all = this.all();
    const isOther = (prefix: string): boolean => !all.has(addressOf(prefix));
    return { ...attributes, inet: attributes.inet.filter(isOther), inet6: attributes.inet6.filter(isOther) };
  }
}
