/**
 * Our own backend: the mount, its session on /dev/fuse and their end.
 *
 *   mount() --> serving --+-- unmount(): readers get EOF --> umount, lazily if busy --> serve until the last close
 *                         |                                                                  |        (or the grace time)
 *                         +-- unmounted or aborted from outside --> onEnd                    v
 *                                              \------------------------------------> everything released, descriptor closed
 */
import { constants } from 'node:os';
import { describe, errnoName, errnoOf } from '../base/errors.js';
import { sys } from '../sys/libc.js';
import { readiness, type Source } from '../sys/readiness.js';
import { type FuseBackend, type FuseBackendOptions, UNMOUNT_GRACE_MS } from './backend.js';
import { fuseDevice } from './device.js';
import { mount, type Mounted, realMountPoint, unmount } from './mount.js';
import { requestTimeout, timeoutSettings } from './request-timeout.js';
import { Session } from './session.js';

/** Timers can't wait longer; this one only keeps the process alive, which a signal handler does not. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

interface Serving {
  readonly mounted: Mounted;
  /** Absolute and without symbolic links, so that a later chdir changes nothing. */
  readonly mountPoint: string;
  readonly session: Session;
  readonly source: Source;
  readonly alive: NodeJS.Timeout;
}

export class FuseServer implements FuseBackend {
  onEnd: () => void = () => undefined;
  private readonly options: FuseBackendOptions;
  private serving: Serving | undefined;
  private unmounting: Promise<void> | undefined;
  private ended: (() => void) | undefined;

  constructor(options: FuseBackendOptions) {
    this.options = options;
  }

  get openFiles(): number {
    return this.serving?.session.handles.size ?? 0;
  }

  get waiting(): number {
    return this.serving?.session.handles.waiting ?? 0;
  }

  async mount(): Promise<void> {
    const { root, source, options, log, trace } = this.options;
    if (this.serving !== undefined) return;
    const mountPoint = realMountPoint(this.options.mountPoint);
    const mounted = mount(source, mountPoint, options);
    const session = new Session({
      device: fuseDevice(mounted.fd),
      root,
      owner: options,
      readOnly: options.readOnly,
      requestTimeout: requestTimeout(timeoutSettings(), true),
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
