/**
 * Readiness of descriptors that Node's own loop can't watch: /dev/fuse, TUN devices, packet and netlink sockets.
 *
 *   kernel: data arrives --SIGIO--> libuv's self-pipe --> onSignal --> poll(2) over all armed --> drain those that are ready
 *                                                            ^                                        |
 *                                                            +--- setImmediate, if one stopped early -+
 *
 * SIGIO is an edge and shared by all descriptors, so this registry alone owns it. The rules that make
 * sure that nothing is forgotten and nothing starves:
 *  - a source is drained once right after it is armed, for what came before;
 *  - `drain` reads until EAGAIN or until it used up its bound; then it returns true and is called again in the next turn of
 *    the loop, after timers and other descriptors;
 *  - while draining goes on over several turns the signal is blocked, so that packets don't interrupt their own processing;
 *    a signal that came meanwhile stays pending and is delivered when it is unblocked;
 *  - a signal costs as much as a hundred packets, so a source that can wait is left alone for a while when it is ready again
 *    and again (`restMs`): it raises no signal, and is looked at when the while is over;
 *  - the handler comes before the first O_ASYNC and never goes: the default action of SIGIO ends the process, and one may
 *    still be pending when the last source was disarmed. It does not keep the process alive.
 */
import koffi from 'koffi';
import { F, must, O, POLL, sys } from './libc.js';

export interface Source {
  /** A non-blocking descriptor. */
  readonly fd: number;
  /** Events that wake the source; POLL.IN when absent. */
  readonly events?: number;
  /** More descriptors that raise the signal; `fd` is ready when one of them is. */
  readonly also?: readonly number[];
  /** For what comes by the thousand and can wait: how long at most it is left alone when it is ready again soon. */
  readonly restMs?: number;
  /**
   * Takes what is there. Contract: returns false only after EAGAIN (or when the source was disarmed), true when it stopped
   * early because its bound was used up. Must not throw.
   */
  drain(): boolean;
}

const POLLFD_BYTES = 8;
const SIG_BLOCK = 0;
const SIG_UNBLOCK = 1;
const SIGIO = 29;
const F_OWNER_TID = 0;

const libc = koffi.load('libc.so.6');
const sigmask = libc.func('int pthread_sigmask(int how, const void *set, void *old)');
const sigset = Buffer.alloc(128);
sigset[(SIGIO - 1) >> 3] = 1 << ((SIGIO - 1) & 7);

/** Whether the descriptors of a source raise SIGIO. They are armed, so nothing else is set that F_SETFL can change. */
function setSignals(source: Source, on: boolean): void {
  const flags = on ? O.ASYNC | O.NONBLOCK : O.NONBLOCK;
  sys.fcntl(source.fd, F.SETFL, flags);
  for (const fd of source.also ?? []) sys.fcntl(fd, F.SETFL, flags);
}

class Readiness {
  private readonly sources: Source[] = [];
  private pollfds = Buffer.alloc(POLLFD_BYTES * 16);
  /** When sources with `restMs` were drained last. */
  private readonly drained = new WeakMap<Source, number>();
  private readonly resting = new Map<Source, NodeJS.Timeout>();
  private handled = false;
  private scheduled = false;
  private blocked = false;
  private running = false;

  /** Starts to watch a source and drains it once. */
  arm(source: Source): void {
    if (!this.handled) {
      this.handled = true;
      process.on('SIGIO', this.onSignal);
    }
    this.sources.push(source);
    this.layOut();
    // Owned by the main thread, not the process: the signal mask of `run` then holds for it.
    const owner = Buffer.alloc(8);
    owner.writeInt32LE(F_OWNER_TID, 0);
    owner.writeInt32LE(process.pid, 4);
    for (const fd of [source.fd, ...(source.also ?? [])]) {
      must('fcntl(F_SETOWN_EX)', sys.fcntlBuffer(fd, F.SETOWN_EX, owner));
      const flags = must('fcntl(F_GETFL)', sys.fcntl(fd, F.GETFL, 0));
      must('fcntl(F_SETFL)', sys.fcntl(fd, F.SETFL, flags | O.ASYNC | O.NONBLOCK));
    }
    this.schedule();
  }

  /** Stops watching. The descriptor is still the caller's to close. */
  disarm(source: Source): void {
    const index = this.sources.indexOf(source);
    if (index < 0) return;
    clearTimeout(this.resting.get(source));
    this.resting.delete(source);
    setSignals(source, false);
    this.sources.splice(index, 1);
    this.layOut();
  }

  /** Leaves a source alone for its `restMs` if it was drained a moment ago. */
  private restIfBusy(source: Source, restMs: number): void {
    const now = performance.now();
    const isBusy = now - (this.drained.get(source) ?? 0) < 2 * restMs;
    this.drained.set(source, now);
    const index = this.sources.indexOf(source);
    if (!isBusy || index < 0) return;
    setSignals(source, false);
    this.pollfds.writeInt32LE(-1, index * POLLFD_BYTES);
    const wake = (): void => {
      this.resting.delete(source);
      setSignals(source, true);
      this.pollfds.writeInt32LE(source.fd, this.sources.indexOf(source) * POLLFD_BYTES);
      this.schedule();
    };
    // To the next multiple: sources that rest wake up together, as each time the process wakes up costs, too.
    this.resting.set(source, setTimeout(wake, restMs - (now % restMs)).unref());
  }

  private layOut(): void {
    const bytes = this.sources.length * POLLFD_BYTES;
    if (this.pollfds.length < bytes) this.pollfds = Buffer.alloc(bytes * 2);
    for (const [index, source] of this.sources.entries()) {
      // poll(2) skips a descriptor below 0.
      this.pollfds.writeInt32LE(this.resting.has(source) ? -1 : source.fd, index * POLLFD_BYTES);
      this.pollfds.writeInt16LE(source.events ?? POLL.IN, index * POLLFD_BYTES + 4);
      this.pollfds.writeInt16LE(0, index * POLLFD_BYTES + 6);
    }
  }

  private readonly onSignal = (): void => {
    if (!this.scheduled) this.run();
  };

  private schedule(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    setImmediate(this.run);
  }

  private readonly run = (): void => {
    this.scheduled = false;
    if (this.running) return;
    this.running = true;
    let again = false;
    const ready = sys.poll(this.pollfds, this.sources.length, 0);
    if (ready > 0) {
      // A drain may arm or disarm sources; whatever moves is found by the poll of the next turn.
      const before = this.sources.length;
      for (let index = 0; index < this.sources.length; index++) {
        if (this.pollfds.readInt16LE(index * POLLFD_BYTES + 6) === 0) continue;
        const source = this.sources[index];
        if (source?.drain() === true) again = true;
        else if (source?.restMs !== undefined) this.restIfBusy(source, source.restMs);
        if (this.sources.length !== before) {
          again = true;
          break;
        }
      }
    } else if (ready < 0) {
      again = true;
    }
    this.running = false;
    if (again) {
      this.mask(true);
      this.schedule();
    } else {
      this.mask(false);
    }
  };

  private mask(block: boolean): void {
    if (this.blocked === block) return;
    this.blocked = block;
    sigmask(block ? SIG_BLOCK : SIG_UNBLOCK, sigset, null);
  }
}

/** The one registry of the process. */
export const readiness = new Readiness();
