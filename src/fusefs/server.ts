/**
 * A mounted file system: the mount, its session and their end.
 *
 *   mount() --> serving --+-- unmount(): readers get EOF --> umount, lazily if busy --> serve until the last close
 *                         |                                                                  |        (or the grace time)
 *                         +-- unmounted or aborted from outside --> onEnd                    v
 *                                              \------------------------------------> everything released, descriptor closed
 *
 * The process that serves must not use its own mount with blocking calls: it would wait for itself.
 */
import { constants } from 'node:os';
import { describe, errnoName, errnoOf } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { sys } from '../sys/libc.js';
import { readiness, type Source } from '../sys/readiness.js';
import { fuseDevice } from './device.js';
import { mount, type Mounted, type MountOptions, realMountPoint, unmount } from './mount.js';
import { Session } from './session.js';
import type { DirectoryNode, Owner } from './tree.js';

/** How long those who have files open may go on after unmount(). */
export const UNMOUNT_GRACE_MS = 2000;
/** Timers can't wait longer; this one only keeps the process alive, which a signal handler does not. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

export interface FuseServerOptions {
  readonly root: DirectoryNode;
  readonly mountPoint: string;
  /** First column of /proc/mounts. */
  readonly source: string;
  readonly options: MountOptions & Owner;
  readonly log: Logger;
  /** Gets one line per request and reply; see trace.ts. */
  readonly trace?: (line: string) => void;
}

interface Serving {
  readonly mounted: Mounted;
  /** Absolute and without symbolic links, so that a later chdir changes nothing. */
  readonly mountPoint: string;
  readonly session: Session;
  readonly source: Source;
  readonly alive: NodeJS.Timeout;
}

export class FuseServer {
  /** Called when the mount was unmounted or aborted from outside, after every file was released. */
  onEnd: () => void = () => undefined;
  private readonly options: FuseServerOptions;
  private serving: Serving | undefined;
  private unmounting: Promise<void> | undefined;
  private ended: (() => void) | undefined;

  constructor(options: FuseServerOptions) {
    this.options = options;
  }

  /** Files that are open. */
  get openFiles(): number {
    return this.serving?.session.handles.size ?? 0;
  }

  /** Requests that wait. */
  get waiting(): number {
    return this.serving?.session.handles.waiting ?? 0;
  }

  /** Mounts and serves. The mount can be used when this returns. Throws what mount.ts throws. */
  mount(): void {
    const { root, source, options, log, trace } = this.options;
    if (this.serving !== undefined) return;
    const mountPoint = realMountPoint(this.options.mountPoint);
    const mounted = mount(source, mountPoint, options);
    const session = new Session({
      device: fuseDevice(mounted.fd),
      root,
      owner: options,
      readOnly: options.readOnly,
      log,
      ...(trace && { trace }),
      onEnd: (errno) => this.end(errno),
    });
    this.serving = {
      mounted,
      mountPoint,
      session,
      source: { fd: mounted.fd, drain: () => session.drain() },
      alive: setInterval(() => undefined, LONGEST_TIMER_MS),
    };
    readiness.arm(this.serving.source);
  }

  /**
   * Ends the mount: blocked readers get the end of the file, the name is free at once, and what is still open is served
   * until its last close, for UNMOUNT_GRACE_MS at most. Never hangs.
   */
  unmount(): Promise<void> {
    this.unmounting ??= this.leave();
    return this.unmounting;
  }

  private async leave(): Promise<void> {
    const serving = this.serving;
    if (serving === undefined) return;
    serving.session.handles.stop();
    const gone = new Promise<void>((resolve) => {
      this.ended = resolve;
    });
    try {
      if (!unmount(serving.mountPoint, false)) unmount(serving.mountPoint, true);
    } catch (error) {
      // Without a connection the name is still taken, but nobody waits at it any more.
      this.options.log.error({ error: describe(error) }, 'the mount can not be taken down');
      serving.session.end(errnoOf(error));
    }
    const grace = setTimeout(() => {
      this.options.log.warn({ openFiles: this.openFiles }, 'files are still open: the mount ends without them');
      serving.session.end(constants.errno.ETIMEDOUT);
    }, UNMOUNT_GRACE_MS);
    await gone;
    clearTimeout(grace);
  }

  /** From the session: the kernel let go, or the grace time is over. */
  private end(errno: number): void {
    const serving = this.serving;
    if (serving === undefined) return;
    this.serving = undefined;
    clearInterval(serving.alive);
    readiness.disarm(serving.source);
    sys.close(serving.mounted.fd);
    this.options.log.debug({ reason: errnoName(errno) }, 'the FUSE session ended');
    if (this.ended !== undefined) this.ended();
    else this.onEnd();
  }
}
