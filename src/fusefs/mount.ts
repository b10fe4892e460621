/**
 * Mounting and unmounting, with system calls alone where this process may mount(2), and by fusermount3 (fusermount.ts) where
 * it may not: no libfuse in either case.
 *
 * A mount is bound to the /dev/fuse descriptor that it was made with: when the last copy of that descriptor is closed, the
 * kernel aborts the connection and every request ends. So closing is how a server that must go now goes.
 */
import { readFileSync, realpathSync, statSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { errnoOf, FwdfsError, SystemError } from '../base/errors.js';
import { FUSE_MAX_IO_BYTES } from '../base/limits.js';
import { hasCapability } from '../sys/capabilities.js';
import { must, O, sys } from '../sys/libc.js';
import { mountByHelper, unmountByHelper } from './fusermount.js';

const { EACCES, EBUSY, EINVAL, ENODEV, ENOENT, ENOTCONN, ENOTDIR, ENXIO, EPERM } = constants.errno;

const MS_RDONLY = 1;
const MS_NOSUID = 2;
const MS_NODEV = 4;
const MS_NOEXEC = 8;
const MNT_FORCE = 1;
const MNT_DETACH = 2;
const UMOUNT_NOFOLLOW = 8;

/** Shown in /proc/mounts; the part behind the dot is the subtype. */
export const MOUNT_TYPE = 'fuse.fwdfs';

export interface MountOptions {
  /** Others than the user who mounts may use the files, as their rights allow. */
  readonly allowOther: boolean;
  readonly readOnly: boolean;
}

export interface Mounted {
  /** /dev/fuse, non-blocking, close-on-exec; the caller's to close. */
  readonly fd: number;
  /** Names the connection under /sys/fs/fuse/connections; undefined if the kernel does not show the mount. */
  readonly connection: number | undefined;
}

/** Root is never helped: where it may not mount, for instance in a container, the helper of others may not either. */
const mayMount = (): boolean => process.geteuid?.() === 0 || hasCapability('CAP_SYS_ADMIN');

/**
 * Mounts on a directory that `realMountPoint` gave. The kernel's first request waits on the descriptor afterwards. No file
 * of the mount is a program or a device.
 * @throws {SystemError} ENOENT, ENOTDIR, EACCES …, and ENOTCONN where a dead mount is in the way
 * @throws {FwdfsError} host-lacks: no /dev/fuse, no right to mount, no fusermount3
 */
export function mount(source: string, mountPoint: string, options: MountOptions): Mounted {
  const shared = ['default_permissions', `max_read=${FUSE_MAX_IO_BYTES}`];
  if (options.allowOther) shared.push('allow_other');
  const fd = mayMount()
    ? mountDirectly(source, mountPoint, shared, options.readOnly)
    : mountByHelper(source, mountPoint, [...shared, 'noexec', options.readOnly ? 'ro' : 'rw']);
  return { fd, connection: connectionOf(mountPoint) };
}

function mountDirectly(source: string, mountPoint: string, options: readonly string[], readOnly: boolean): number {
  const fd = sys.open('/dev/fuse', O.RDWR | O.NONBLOCK | O.CLOEXEC);
  if (fd === -ENOENT || fd === -ENODEV || fd === -ENXIO) {
    throw new FwdfsError('host-lacks', 'this host has no /dev/fuse (modprobe fuse)');
  }
  if (fd === -EPERM || fd === -EACCES) throw mayNot();
  must('open', fd, '/dev/fuse');
  const ids = [`user_id=${process.getuid?.() ?? 0}`, `group_id=${process.getgid?.() ?? 0}`];
  const data = [`fd=${fd}`, 'rootmode=40000', ...ids, ...options].join(',');
  const flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | (readOnly ? MS_RDONLY : 0);
  const result = sys.mount(source, mountPoint, MOUNT_TYPE, flags, data);
  if (result >= 0) return fd;
  sys.close(fd);
  if (result === -EPERM) throw mayNot();
  if (result === -ENODEV) throw new FwdfsError('host-lacks', 'this kernel has no FUSE (modprobe fuse)');
  throw new SystemError('mount', -result, mountPoint);
}

function mayNot(): Error {
  return new FwdfsError('host-lacks', 'this process may not mount, which needs CAP_SYS_ADMIN and /dev/fuse');
}

/** The directory to mount on, absolute and without symbolic links. Throws as `mount` does. */
export function realMountPoint(mountPoint: string): string {
  try {
    const path = realpathSync(mountPoint);
    if (!statSync(path).isDirectory()) throw new SystemError('mount', ENOTDIR, mountPoint);
    return path;
  } catch (error) {
    const errno = errnoOf(error);
    const about =
      errno === ENOTCONN ? `${mountPoint} (a dead mount is in the way: fwdfs umount ${mountPoint})` : mountPoint;
    throw new SystemError('mount', errno, about);
  }
}

/**
 * Takes the mount out of the tree of names. `lazy`: at once, while those who still have it open go on. Returns false if
 * somebody uses it (never when lazy); a mount that is not there counts as done. Does not wait for its server.
 * @throws {SystemError} EPERM: the mount is somebody else's
 */
export function unmount(mountPoint: string, lazy: boolean): boolean {
  const result = mayMount()
    ? sys.umount2(mountPoint, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0))
    : unmountByHelper(mountPoint, lazy);
  if (result === -EBUSY) return false;
  if (result === -EINVAL || result === -ENOENT) {
    // To the helper the mounts of others are not there.
    if (!mayMount() && connectionOf(mountPoint) !== undefined) throw new SystemError('umount2', EPERM, mountPoint);
    return true;
  }
  must('umount2', result, mountPoint);
  return true;
}

/**
 * Ends the connection of a mount whose server does not answer any more: every blocked call ends with ECONNABORTED. Returns
 * false if this user can't: others than root need fusectl mounted.
 */
export function breakConnection(mountPoint: string): boolean {
  if (mayMount()) {
    // Busy is what it says of a mount that is in use; the connection is ended all the same.
    const result = sys.umount2(mountPoint, UMOUNT_NOFOLLOW | MNT_FORCE);
    return result >= 0 || result === -EBUSY;
  }
  const connection = connectionOf(mountPoint);
  return connection !== undefined && abortConnection(connection);
}

const octal = (escaped: string): string =>
  escaped.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));

/** Number of the FUSE connection behind a mount point, without touching the mount. */
export function connectionOf(
  mountPoint: string,
  mountinfo = readFileSync('/proc/self/mountinfo', 'latin1'),
): number | undefined {
  const wanted = Buffer.from(mountPoint)
    .toString('latin1')
    .replace(/(?<=.)\/+$/, '');
  let connection: number | undefined;
  // The last line of a mount point is the mount on top.
  for (const line of mountinfo.split('\n')) {
    const [, , device, , place] = line.split(' ');
    if (device !== undefined && place !== undefined && octal(place) === wanted)
      connection = Number(device.split(':')[1]);
  }
  return connection;
}

/**
 * Ends a connection whose server does not answer any more: every blocked call ends with ECONNABORTED. Returns false if
 * fusectl is not mounted or the connection is gone.
 */
export function abortConnection(connection: number): boolean {
  try {
    writeFileSync(`/sys/fs/fuse/connections/${connection}/abort`, '1');
    return true;
  } catch {
    return false;
  }
}
