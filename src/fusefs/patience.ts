/**
 * Patience: how long the requests of a handle table may wait, where somebody else would not wait for ever.
 *
 *   held --- one to two ticks of the one timer ---> given up, as if a signal had come
 *
 * Two reasons. Where no signal reaches the server (fuse-native), whoever waits can't be ended until it is answered: EINTR at
 * intervals lets a signal act, and who got none asks again. And where the kernel ends mounts whose requests wait too long
 * (request-timeout.ts), every request has to be answered before.
 */
import { type PendingTable, WAIT } from './pending.js';

export interface Patience {
  /** For reads, and for writes that the file did not take: asked again, they lose nothing. 0: they wait for ever. */
  readonly repeatableMs: number;
  /** For barriers, opens and writes that were taken: what is under way goes on, only its result is not seen. 0: for ever. */
  readonly promisedMs: number;
}

export const ENDLESS: Patience = { repeatableMs: 0, promisedMs: 0 };

/** No request waits longer than this many ticks, nor less than one. */
const TICKS = 2;

export class PatienceTimer<Handle> {
  private readonly pending: PendingTable<Handle>;
  private readonly giveUp: (id: number) => void;
  private readonly timer: NodeJS.Timeout | undefined;
  private readonly repeatableTicks: number;
  private readonly promisedTicks: number;

  /** @param giveUp is to answer the request; it is still pending then */
  constructor(patience: Patience, pending: PendingTable<Handle>, giveUp: (id: number) => void) {
    const { repeatableMs, promisedMs } = patience;
    const tickMs = Math.min(repeatableMs || Infinity, promisedMs || Infinity) / TICKS;
    this.pending = pending;
    this.giveUp = giveUp;
    this.repeatableTicks = repeatableMs === 0 ? Infinity : Math.floor(repeatableMs / tickMs);
    this.promisedTicks = promisedMs === 0 ? Infinity : Math.floor(promisedMs / tickMs);
    this.timer = tickMs === Infinity ? undefined : setInterval(() => this.tick(), tickMs);
    this.timer?.unref();
  }

  stop(): void {
    clearInterval(this.timer);
  }

  private tick(): void {
    const now = ++this.pending.now;
    for (const record of this.pending.all()) {
      const limit = record.kind <= WAIT.WRITE ? this.repeatableTicks : this.promisedTicks;
      if (now - record.since >= limit) this.giveUp(record.id);
    }
  }
}
