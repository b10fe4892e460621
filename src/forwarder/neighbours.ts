/**
 * Neighbours for virtual IFs: the forwarder's own kernel knows them or finds them, and is the only one that asks on the wire.
 *
 *     neighbour-request --resolve--> kernel: known?  its link layer address
 *                                            else it asks (ARP, ND) --event, or NEIGHBOUR_TIMEOUT_MS--> address or ''
 *
 * Followed from the first question on.
 */
import { describe } from '../base/errors.js';
import { NEIGHBOUR_TIMEOUT_MS } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { type Neighbour, Neighbours } from '../sys/neighbours.js';

type Waiter = (link: Buffer | null) => void;

const keyOf = (ifindex: number, address: Buffer): string => `${ifindex} ${address.toString('hex')}`;

export class NeighbourTable {
  private readonly log: Logger;
  private kernel: Neighbours | null = null;
  private readonly waiters = new Map<string, Waiter[]>();
  private readonly listeners = new Set<(neighbour: Neighbour) => void>();

  constructor(log: Logger) {
    this.log = log;
  }

  /** Tells of every neighbour that changes. @returns takes the listener back */
  listen(listener: (neighbour: Neighbour) => void): () => void {
    this.listeners.add(listener);
    return () => {
      this.listeners.delete(listener);
    };
  }

  /** What the kernel has now, null if it has none; it is asked to find it, or to make sure of it. */
  use(ifindex: number, address: Buffer): Buffer | null {
    try {
      const kernel = (this.kernel ??= this.open());
      const link = kernel.find(ifindex, address);
      kernel.use(ifindex, address);
      return link;
    } catch (error) {
      // The interface went away.
      this.log.debug({ ifindex, error: describe(error) }, 'a neighbour could not be asked for');
      return null;
    }
  }

  /** @returns null: it did not answer */
  resolve(ifindex: number, address: Buffer): Promise<Buffer | null> {
    const known = this.use(ifindex, address);
    if (known !== null) return Promise.resolve(known);
    const key = keyOf(ifindex, address);
    return new Promise((resolve) => {
      const finish: Waiter = (link) => {
        clearTimeout(late);
        const others = this.waiters.get(key)?.filter((other) => other !== finish) ?? [];
        if (others.length > 0) this.waiters.set(key, others);
        else this.waiters.delete(key);
        resolve(link);
      };
      const late = setTimeout(() => finish(null), NEIGHBOUR_TIMEOUT_MS);
      this.waiters.set(key, [...(this.waiters.get(key) ?? []), finish]);
    });
  }

  private open(): Neighbours {
    const kernel = new Neighbours();
    kernel.onChange = (neighbour) => this.changed(neighbour);
    return kernel;
  }

  private changed(neighbour: Neighbour): void {
    for (const listener of this.listeners) listener(neighbour);
    if (neighbour.link === null && !neighbour.failed) return;
    for (const finish of this.waiters.get(keyOf(neighbour.ifindex, neighbour.address)) ?? []) finish(neighbour.link);
  }

  close(): void {
    this.kernel?.close();
    for (const waiters of [...this.waiters.values()]) for (const finish of waiters) finish(null);
  }
}
