/**
 * The second backend: the package fuse-native, on libfuse 2, whose threads read /dev/fuse and bring each request to the
 * event loop. Tables and tree are the same as those of our own server; what is lacking is in fuse-native-lacks.ts.
 *
 *   mount(): libfuse mounts ──► INIT ──► usable
 *   unmount(): readers get EOF ──► umount2, lazily if busy ──► served to the last close, or the grace time
 *   the end: nobody tells; so the descriptor of /dev/fuse is looked at, a duplicate that stays ours to close
 *
 * Unmounting is done here: fuse-native would start fusermount, which may be missing, and may hit what was mounted over it
 * meanwhile. libfuse's own thread sees the same end and closes its descriptor, and fuse-native keeps a handle in the event
 * loop for ever: a process that has served ends by process.exit().
 */
import { readdirSync, readlinkSync } from 'node:fs';
import { constants } from 'node:os';
import { describe, FwdfsError, SystemError } from '../base/errors.js';
import { FUSE_NATIVE_PATIENCE_MS } from '../base/limits.js';
import { F, must, POLL, sys } from '../sys/libc.js';
import { type FuseBackend, type FuseBackendOptions, UNMOUNT_GRACE_MS } from './backend.js';
import type { FuseNative, FuseNativeClass } from './fuse-native-library.js';
import { serveOperations, type Served } from './fuse-native-operations.js';
import { abortConnection, connectionOf, MOUNT_TYPE, realMountPoint, unmount } from './mount.js';
import { requestTimeout, timeoutSettings } from './request-timeout.js';

/** How soon the end of a mount is noticed. */
const WATCH_MS = 100;
/** fuse-native cuts its options off behind 1,023 bytes; the others need less than 300 of them, and an escape doubles a byte. */
const MAX_SOURCE_BYTES = 256;
const FD_CLOEXEC = 1;

interface Serving extends Served {
  readonly mountPoint: string;
  /** Keeps what libfuse's threads refer to. */
  readonly fuse: FuseNative;
  readonly connection: number | undefined;
  /** Our duplicate of libfuse's descriptor of /dev/fuse. */
  readonly fd: number;
  readonly watch: NodeJS.Timeout;
}

/** Mount options in the words of libfuse 2 and the kernel. */
export function optionList({ allowOther, readOnly }: FuseBackendOptions['options']): string {
  const options = ['direct_io', 'use_ino', 'big_writes', 'atomic_o_trunc', 'default_permissions'];
  // Nothing is cached: names, rights and sizes may be others a moment later.
  options.push('entry_timeout=0', 'attr_timeout=0', 'negative_timeout=0', 'ac_attr_timeout=0');
  // Who mounts has looked whether the directory is empty, where that matters. No file of the mount is a program or a device.
  options.push('nonempty', 'nosuid', 'nodev', 'noexec');
  if (allowOther) options.push('allow_other');
  if (readOnly) options.push('ro');
  return options.join(',');
}

/** As libfuse's list of options takes it: commas would end it. */
export function escapedSource(source: string): string {
  const bytes = Buffer.from(source).subarray(0, MAX_SOURCE_BYTES);
  return bytes.toString().replace(/[\\,]/g, '\\$&');
}

/** Descriptors of /dev/fuse that this process has. */
function fuseDescriptors(): number[] {
  return readdirSync('/proc/self/fd').flatMap((name) => {
    try {
      return readlinkSync(`/proc/self/fd/${name}`) === '/dev/fuse' ? [Number(name)] : [];
    } catch {
      return []; // the descriptor of this very listing
    }
  });
}

export class FuseNativeServer implements FuseBackend {
  onEnd: () => void = () => undefined;
  private readonly options: FuseBackendOptions;
  private readonly library: FuseNativeClass;
  private serving: Serving | undefined;
  private unmounting: Promise<void> | undefined;
  private ended: (() => void) | undefined;

  constructor(options: FuseBackendOptions, library: FuseNativeClass) {
    this.options = options;
    this.library = library;
  }

  get openFiles(): number {
    return this.serving?.handles.size ?? 0;
  }

  get waiting(): number {
    return this.serving?.handles.waiting ?? 0;
  }

  async mount(): Promise<void> {
    const { root, source, options, log, trace } = this.options;
    if (this.serving !== undefined) return;
    const mountPoint = realMountPoint(this.options.mountPoint);
    const { patienceMs } = requestTimeout(timeoutSettings(), false);
    const repeatableMs = Math.min(FUSE_NATIVE_PATIENCE_MS, patienceMs || Infinity);
    const served = serveOperations(root, options, options.readOnly, log, { repeatableMs, promisedMs: patienceMs });
    const fuse = new this.library(mountPoint, served.operations, {
      fsname: escapedSource(source),
      subtype: `${MOUNT_TYPE.replace('fuse.', '')},${optionList(options)}`,
      // libfuse's own trace: it goes to stderr, whatever `trace` would do with a line.
      debug: trace !== undefined,
      timeout: false,
    });
    const before = new Set(fuseDescriptors());
    await new Promise<void>((resolve, reject) => {
      fuse.mount((error) => (error === null ? resolve() : reject(this.refused(error, mountPoint))));
    });
    const [theirs] = fuseDescriptors().filter((fd) => !before.has(fd));
    if (theirs === undefined) throw new FwdfsError('internal', 'fuse-native mounted without /dev/fuse');
    // No child may inherit it: it would keep the mount when this process is gone.
    must('fcntl', sys.fcntl(theirs, F.SETFD, FD_CLOEXEC));
    const fd = must('fcntl', sys.fcntl(theirs, F.DUPFD_CLOEXEC, 0));
    const watch = setInterval(() => this.look(), WATCH_MS);
    this.serving = { ...served, mountPoint, fuse, connection: connectionOf(mountPoint), fd, watch };
  }

  private refused(error: Error, mountPoint: string): Error {
    if (describe(error) === 'Mountpoint in use') {
      const about = `${mountPoint} (it is a mount point already: use another directory, or -o fuse_backend=own)`;
      return new SystemError('mount', constants.errno.EBUSY, about);
    }
    if (process.getuid?.() !== 0) return new SystemError('mount', constants.errno.EPERM, mountPoint);
    return new FwdfsError('host-lacks', `fuse-native could not mount on ${mountPoint}`, { cause: error });
  }

  unmount(): Promise<void> {
    this.unmounting ??= this.leave();
    return this.unmounting;
  }

  private async leave(): Promise<void> {
    const serving = this.serving;
    if (serving === undefined) return;
    serving.handles.stop();
    const gone = new Promise<void>((resolve) => {
      this.ended = resolve;
    });
    if (!unmount(serving.mountPoint, false)) unmount(serving.mountPoint, true);
    const grace = setTimeout(() => {
      this.options.log.warn({ openFiles: this.openFiles }, 'files are still open: the mount ends without them');
      // Without fusectl the connection ends with the process.
      if (serving.connection !== undefined) abortConnection(serving.connection);
      this.end();
    }, UNMOUNT_GRACE_MS);
    this.look();
    await gone;
    clearTimeout(grace);
  }

  /** A descriptor of /dev/fuse whose connection is gone is in error. */
  private look(): void {
    const serving = this.serving;
    if (serving === undefined) return;
    const poll = Buffer.alloc(8);
    poll.writeInt32LE(serving.fd, 0);
    if (sys.poll(poll, 1, 0) === 1 && (poll.readInt16LE(6) & POLL.ERR) !== 0) this.end();
  }

  private end(): void {
    const serving = this.serving;
    if (serving === undefined) return;
    this.serving = undefined;
    clearInterval(serving.watch);
    serving.handles.end();
    serving.answers.abandon();
    sys.close(serving.fd);
    if (this.ended !== undefined) this.ended();
    else this.onEnd();
  }
}
