/**
 * Requests that are not answered yet, by id. Each leaves exactly once: whoever takes it out answers it, and for everybody
 * who comes later it is not there any more.
 *
 *           hold                    next, remove            READ, WRITE: in their handle's queue, asked again on wake
 *   request ----> pending ----+---> settle, take            TAKEN, BARRIER, OPEN: a promise is on its way
 */
import { FUSE_DRAIN_COUNT } from '../base/limits.js';

/** READ and WRITE: not taken by the file yet. TAKEN: a write that waits for its sync. BARRIER: fsync and close. */
export const WAIT = { READ: 0, WRITE: 1, TAKEN: 2, BARRIER: 3, OPEN: 4 } as const;

export interface Pending<Handle> {
  id: number;
  kind: number;
  handle: Handle;
  /** Bytes asked for, offered, or (TAKEN) taken. */
  size: number;
  position: number;
  data: Buffer;
  /** Of a barrier: nobody waits for it any more. */
  abandon?: () => void;
  /** `now` of the table when it came. */
  since: number;
}

export const NO_DATA = Buffer.alloc(0);

export class PendingTable<Handle> {
  /** Counts up as time goes by, where somebody cares; see patience.ts. */
  now = 0;
  private readonly records = new Map<number, Pending<Handle>>();
  /** Records of answered reads and writes, for the next ones. */
  private readonly spare: Pending<Handle>[] = [];

  get size(): number {
    return this.records.size;
  }

  get(id: number): Pending<Handle> | undefined {
    return this.records.get(id);
  }

  hold(kind: number, id: number, handle: Handle, size = 0, position = 0, data = NO_DATA): Pending<Handle> {
    // A record that a promise refers to is never used again: `settle` tells records apart by identity.
    let record = kind <= WAIT.WRITE ? this.spare.pop() : undefined;
    if (record === undefined) {
      record = { id, kind, handle, size, position, data, since: this.now };
    } else {
      record.id = id;
      record.kind = kind;
      record.handle = handle;
      record.size = size;
      record.position = position;
      record.data = data;
      record.since = this.now;
    }
    this.records.set(id, record);
    return record;
  }

  /** True if the record was still to be answered. */
  settle(record: Pending<Handle>): boolean {
    return this.records.get(record.id) === record && this.records.delete(record.id);
  }

  /** Takes the first record of a queue that is not empty out and returns its id. */
  next(queue: Pending<Handle>[]): number {
    const record = queue.shift();
    if (record === undefined) return 0;
    this.forget(record);
    return record.id;
  }

  /** Takes a record out of its queue. */
  remove(queue: Pending<Handle>[], record: Pending<Handle>): void {
    queue.splice(queue.indexOf(record), 1);
    this.forget(record);
  }

  /** The records as of now: they may be answered meanwhile. */
  all(): Pending<Handle>[] {
    return [...this.records.values()];
  }

  clear(): void {
    this.records.clear();
  }

  private forget(record: Pending<Handle>): void {
    this.records.delete(record.id);
    record.data = NO_DATA;
    if (this.spare.length < FUSE_DRAIN_COUNT) this.spare.push(record);
  }
}
