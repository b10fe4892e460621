/**
 * Open files and the requests that wait for them. What blocks, what wakes and what an interrupt does is decided here, for
 * every backend: nothing in this file knows the wire.
 *
 *   backend -- open/read/write/poll/sync/release/interrupt --> HandleTable -- tree contract --> OpenFile
 *      ^                                                           |  ^                            |
 *      +------------------------ Answers --------------------------+  +----------- wake() ---------+
 *
 * A request is answered at once, or it is in `pending` under its id until exactly one of its ends comes: the file's answer,
 * an interrupt, or the end of serving. Reads wait in the order in which they came, one queue a handle; so do writes, with a
 * copy of their data, because the request's buffer is used again at once. Patience, if it has a limit, ends like a signal.
 *
 * wake() only marks the handle. Marked handles are asked once the present work is done (a microtask), so that a batch of
 * packets costs one answer; what is marked meanwhile, or is more than FUSE_DRAIN_COUNT answers, waits for the next turn of
 * the loop, so that a file that wakes itself starves nobody.
 */
import { constants } from 'node:os';
import { describe, errnoOf, FwdfsError, SystemError } from '../base/errors.js';
import { FUSE_DRAIN_COUNT } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { POLL } from '../sys/libc.js';
import { ENDLESS, type Patience, PatienceTimer } from './patience.js';
import { type Pending, PendingTable, WAIT } from './pending.js';
import type { FileNode, OpenFile, SyncReason } from './tree.js';

const { EAGAIN, EBADF, EINTR, EIO, ENODEV } = constants.errno;

/** The owner of a write where no process is known: every close is then a barrier. */
export const ANYBODY = -1;
/** Processes that write to one open file and are told apart; with more of them every close is a barrier. */
const MAX_WRITERS = 64;

/** How results reach whoever asked. `result` is a count or 0, or minus the errno. */
export interface Answers {
  /** Where a read puts its bytes, from `outStart` on; each is answered before the next one is asked. */
  readonly out: Buffer;
  readonly outStart: number;
  /** @param flags of open(2) @returns false if nobody takes the file any more */
  opened(id: number, fh: number, node: FileNode, flags: number): boolean;
  /** `result` bytes are in `out`. */
  read(id: number, result: number): void;
  written(id: number, result: number): void;
  /** The end of a barrier, or of an open that failed. */
  done(id: number, result: number): void;
  /** Something changed for whoever polls under `kh`. */
  changed(kh: number): void;
}

interface Handle {
  readonly fh: number;
  /** O_NONBLOCK means nothing to what is no stream: as in any regular file. */
  readonly stream: boolean;
  /** Undefined before the file arrives and after its release. */
  file: OpenFile | undefined;
  readonly reads: Pending<Handle>[];
  readonly writes: Pending<Handle>[];
  /** Who wrote: of them, each close(2) is a barrier. */
  readonly writers: number[];
  /** The poll handle to tell, 0: nobody. One telling uses it up. */
  kh: number;
  events: number;
  dirty: boolean;
}

export class HandleTable {
  private readonly answers: Answers;
  private readonly log: Logger;
  private readonly handles = new Map<number, Handle>();
  private readonly pending = new PendingTable<Handle>();
  private readonly patience: PatienceTimer<Handle>;
  private dirty: Handle[] = [];
  private served: Handle[] = [];
  private scheduled = false;
  private nextFh = 1;
  private stopping = false;

  constructor(answers: Answers, log: Logger, patience: Patience = ENDLESS) {
    this.answers = answers;
    this.log = log;
    this.patience = new PatienceTimer(patience, this.pending, (id) => this.interrupt(id));
  }

  /** Files that are open. */
  get size(): number {
    return this.handles.size;
  }

  /** Requests that wait. */
  get waiting(): number {
    return this.pending.size;
  }

  open(id: number, node: FileNode, flags: number, pid: number, uid: number, gid: number): void {
    if (this.stopping) return this.answers.done(id, -ENODEV);
    const handle: Handle = {
      fh: this.nextFh++,
      stream: node.stream,
      file: undefined,
      reads: [],
      writes: [],
      writers: [],
      kh: 0,
      events: 0,
      dirty: false,
    };
    let result: OpenFile | Promise<OpenFile>;
    try {
      result = node.open({ flags, pid, uid, gid, wake: () => this.wake(handle) });
    } catch (error) {
      return this.answers.done(id, this.failed(error));
    }
    if (!(result instanceof Promise)) return this.opened(id, handle, result, node, flags);
    const record = this.pending.hold(WAIT.OPEN, id, handle);
    result.then(
      (file) => {
        if (this.pending.settle(record)) this.opened(id, handle, file, node, flags);
        else this.releaseFile(file);
      },
      (error: unknown) => {
        if (this.pending.settle(record)) this.answers.done(id, this.failed(error));
      },
    );
  }

  private opened(id: number, handle: Handle, file: OpenFile, node: FileNode, flags: number): void {
    handle.file = file;
    this.handles.set(handle.fh, handle);
    if (this.answers.opened(id, handle.fh, node, flags)) return;
    this.release(handle.fh);
  }

  read(id: number, fh: number, size: number, position: number, nonBlocking: boolean): void {
    const handle = this.handles.get(fh);
    if (handle?.file === undefined) return this.answers.read(id, -EBADF);
    if (this.stopping) return this.answers.read(id, 0);
    if (handle.reads.length > 0 && handle.dirty) this.serve(handle);
    let result = -EAGAIN;
    if (handle.reads.length === 0) result = this.tryRead(handle.file, size, position);
    if (result !== -EAGAIN || (nonBlocking && handle.stream)) return this.answers.read(id, result);
    handle.reads.push(this.pending.hold(WAIT.READ, id, handle, size, position));
  }

  /**
   * The data is at `offset` of `data` and is looked at only until this returns.
   * @param owner the process that writes, by a number that its close(2) has too; ANYBODY where it is not known
   */
  write(
    id: number,
    fh: number,
    data: Buffer,
    offset: number,
    length: number,
    position: number,
    nonBlocking: boolean,
    owner: number = ANYBODY,
  ): void {
    const handle = this.handles.get(fh);
    if (handle?.file === undefined) return this.answers.written(id, -EBADF);
    if (!handle.writers.includes(owner)) handle.writers.push(handle.writers.length < MAX_WRITERS ? owner : ANYBODY);
    if (length === 0) return this.answers.written(id, 0);
    if (this.stopping) return this.answers.written(id, -ENODEV);
    if (handle.writes.length > 0 && handle.dirty) this.serve(handle);
    let result = -EAGAIN;
    if (handle.writes.length === 0) result = this.tryWrite(handle.file, data, offset, length, position);
    if (result !== -EAGAIN || nonBlocking) return this.took(id, handle, result);
    const copy = Buffer.allocUnsafeSlow(length);
    data.copy(copy, 0, offset, offset + length);
    handle.writes.push(this.pending.hold(WAIT.WRITE, id, handle, length, position, copy));
  }

  /** POLL bits as of now. `kh` not 0: tell under it when one of `events` comes. */
  poll(fh: number, kh: number, events: number): number {
    const handle = this.handles.get(fh);
    if (handle?.file === undefined) return -EBADF;
    if (this.stopping) return POLL.IN | POLL.RDNORM | POLL.HUP;
    if (kh !== 0) {
      handle.kh = kh;
      handle.events |= events;
    }
    return this.tryPoll(handle.file);
  }

  /**
   * fsync(2), and each close(2) of a descriptor. A process that has only inherited the descriptor, as each child does that a
   * writer starts, has nothing to wait for at its close, and must not be told what is the writer's to know.
   */
  sync(id: number, fh: number, reason: SyncReason, owner: number = ANYBODY): void {
    const handle = this.handles.get(fh);
    const file = handle?.file;
    if (handle === undefined || file === undefined) return this.answers.done(id, -EBADF);
    if (reason === 'close' && !handle.writers.includes(owner) && !handle.writers.includes(ANYBODY)) {
      return this.answers.done(id, 0);
    }
    const record = this.pending.hold(WAIT.BARRIER, id, handle);
    this.barrier(file, reason, record).then(
      () => {
        if (this.pending.settle(record)) this.answers.done(id, 0);
      },
      (error: unknown) => {
        if (this.pending.settle(record)) this.answers.done(id, this.failed(error));
      },
    );
  }

  release(fh: number): void {
    const handle = this.handles.get(fh);
    if (handle === undefined) return;
    this.handles.delete(fh);
    const file = handle.file;
    handle.file = undefined;
    while (handle.reads[0] !== undefined) this.answers.read(this.pending.next(handle.reads), -EBADF);
    while (handle.writes[0] !== undefined) this.answers.written(this.pending.next(handle.writes), -EBADF);
    if (file !== undefined) this.releaseFile(file);
  }

  /**
   * A signal came for whoever waits. Whatever was not done ends with EINTR; a write that the file took already says so,
   * or it would be done again. An id that is not pending was answered already.
   */
  interrupt(id: number): void {
    const record = this.pending.get(id);
    if (record === undefined) return;
    switch (record.kind) {
      case WAIT.READ:
        this.pending.remove(record.handle.reads, record);
        this.answers.read(id, -EINTR);
        break;
      case WAIT.WRITE:
        this.pending.remove(record.handle.writes, record);
        this.answers.written(id, -EINTR);
        break;
      default:
        // A promise that is kept already says so first: its end is in the queue of microtasks.
        setImmediate(() => {
          if (!this.pending.settle(record)) return;
          record.abandon?.();
          if (record.kind === WAIT.TAKEN) this.answers.written(id, record.size);
          else this.answers.done(id, -EINTR);
        });
    }
  }

  /** The mount is about to go: readers get the end of the file, nothing is written or opened any more, closes still work. */
  stop(): void {
    this.stopping = true;
    for (const handle of this.handles.values()) {
      while (handle.reads[0] !== undefined) this.answers.read(this.pending.next(handle.reads), 0);
      while (handle.writes[0] !== undefined) this.answers.written(this.pending.next(handle.writes), -ENODEV);
      this.tell(handle);
    }
    for (const record of this.pending.all()) {
      if (record.kind === WAIT.OPEN && this.pending.settle(record)) this.answers.done(record.id, -ENODEV);
    }
  }

  /** The kernel is gone: every file is released, nobody is answered. */
  end(): void {
    this.stopping = true;
    this.patience.stop();
    this.pending.clear();
    const handles = [...this.handles.values()];
    this.handles.clear();
    for (const handle of handles) {
      const file = handle.file;
      handle.file = undefined;
      handle.reads.length = 0;
      handle.writes.length = 0;
      if (file !== undefined) this.releaseFile(file);
    }
  }

  private wake(handle: Handle): void {
    if (handle.dirty || handle.file === undefined) return;
    handle.dirty = true;
    this.dirty.push(handle);
    if (this.scheduled) return;
    this.scheduled = true;
    queueMicrotask(this.serveDirty);
  }

  private readonly serveDirty = (): void => {
    const list = this.dirty;
    this.dirty = this.served;
    this.served = list;
    let answered = 0;
    for (const handle of list) {
      if (answered < FUSE_DRAIN_COUNT) {
        handle.dirty = false;
        answered += this.serve(handle);
      } else {
        this.dirty.push(handle);
      }
    }
    list.length = 0;
    this.scheduled = this.dirty.length > 0;
    if (this.scheduled) setImmediate(this.serveDirty);
  };

  /** Asks the file again for all that waits. Returns how many were answered. */
  private serve(handle: Handle): number {
    let answered = 0;
    for (let head = handle.reads[0]; head !== undefined && handle.file !== undefined; head = handle.reads[0]) {
      const result = this.tryRead(handle.file, head.size, head.position);
      if (result === -EAGAIN) break;
      this.answers.read(this.pending.next(handle.reads), result);
      answered++;
    }
    for (let head = handle.writes[0]; head !== undefined && handle.file !== undefined; head = handle.writes[0]) {
      const result = this.tryWrite(handle.file, head.data, 0, head.size, head.position);
      if (result === -EAGAIN) break;
      this.took(this.pending.next(handle.writes), handle, result);
      answered++;
    }
    if (handle.kh !== 0 && handle.file !== undefined) {
      if ((this.tryPoll(handle.file) & (handle.events | POLL.ERR | POLL.HUP)) !== 0) this.tell(handle);
    }
    return answered;
  }

  private tell(handle: Handle): void {
    const kh = handle.kh;
    if (kh === 0) return;
    handle.kh = 0;
    handle.events = 0;
    this.answers.changed(kh);
  }

  private took(id: number, handle: Handle, result: number): void {
    const file = handle.file;
    if (result <= 0 || file === undefined || !file.synchronous) return this.answers.written(id, result);
    const record = this.pending.hold(WAIT.TAKEN, id, handle, result);
    this.barrier(file, 'write', record).then(
      () => {
        if (this.pending.settle(record)) this.answers.written(id, result);
      },
      (error: unknown) => {
        if (this.pending.settle(record)) this.answers.written(id, this.failed(error));
      },
    );
  }

  private tryRead(file: OpenFile, size: number, position: number): number {
    const { out, outStart } = this.answers;
    const room = Math.min(size, out.length - outStart);
    try {
      const result = file.read(out, outStart, room, position);
      return result <= room ? result : -EIO;
    } catch (error) {
      return this.failed(error);
    }
  }

  private tryWrite(file: OpenFile, data: Buffer, offset: number, length: number, position: number): number {
    try {
      const result = file.write(data, offset, length, position);
      return result !== 0 && result <= length ? result : -EIO;
    } catch (error) {
      return this.failed(error);
    }
  }

  private tryPoll(file: OpenFile): number {
    try {
      return file.poll();
    } catch (error) {
      this.failed(error);
      return POLL.ERR;
    }
  }

  private async barrier(file: OpenFile, reason: SyncReason, record: Pending<Handle>): Promise<void> {
    const abandoned = new AbortController();
    record.abandon = () => abandoned.abort();
    await file.sync(reason, abandoned.signal);
  }

  private releaseFile(file: OpenFile): void {
    try {
      file.release();
    } catch (error) {
      this.failed(error);
    }
  }

  /** Minus the errno of what a file threw. What has no errno of its own is a defect and goes to the log. */
  private failed(error: unknown): number {
    const known = error instanceof FwdfsError || error instanceof SystemError;
    if (known) this.log.debug({ error: describe(error) }, 'a file operation failed');
    else this.log.error({ error }, 'a file operation failed unexpectedly');
    return -errnoOf(error);
  }
}
