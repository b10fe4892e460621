/**
 * Mounting and unmounting, with system calls alone: no helper program, no libfuse.
 *
 * A mount is bound to the /dev/fuse descriptor that it was made with: when the last copy of that descriptor is closed, the
 * kernel aborts the connection and every request ends. So closing is how a server that must go now goes.
 */
import { readFileSync, realpathSync, statSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { errnoOf, FwdfsError, SystemError } from '../base/errors.js';
import { FUSE_MAX_IO_BYTES } from '../base/limits.js';
import { must, O, sys } from '../sys/libc.js';

const { EBUSY, EINVAL, ENODEV, ENOENT, ENOTCONN, ENOTDIR, ENXIO } = constants.errno;

const MS_RDONLY = 1;
const MS_NOSUID = 2;
const MS_NODEV = 4;
const MNT_DETACH = 2;

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

/**
 * Mounts on a directory that `realMountPoint` gave. The kernel's first request waits on the descriptor afterwards.
 * @throws {SystemError} ENOENT, ENOTDIR, EPERM …, and ENOTCONN where a dead mount is in the way
 * @throws {FwdfsError} host-lacks without /dev/fuse
 */
export function mount(source: string, mountPoint: string, options: MountOptions): Mounted {
  const fd = sys.open('/dev/fuse', O.RDWR | O.NONBLOCK | O.CLOEXEC);
  if (fd === -ENOENT || fd === -ENODEV || fd === -ENXIO) {
    throw new FwdfsError('host-lacks', 'this host has no /dev/fuse (modprobe fuse)');
  }
  must('open', fd, '/dev/fuse');
  const data = [
    `fd=${fd}`,
    'rootmode=40000',
    `user_id=${process.getuid?.() ?? 0}`,
    `group_id=${process.getgid?.() ?? 0}`,
    'default_permissions',
    `max_read=${FUSE_MAX_IO_BYTES}`,
  ];
  if (options.allowOther) data.push('allow_other');
  const flags = MS_NOSUID | MS_NODEV | (options.readOnly ? MS_RDONLY : 0);
  const result = sys.mount(source, mountPoint, MOUNT_TYPE, flags, data.join(','));
  if (result < 0) {
    sys.close(fd);
    if (result === -ENODEV) throw new FwdfsError('host-lacks', 'this kernel has no FUSE (modprobe fuse)');
    throw new SystemError('mount', -result, mountPoint);
  }
  return { fd, connection: connectionOf(mountPoint) };
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
 * somebody uses it (never when lazy); a mount that is not there counts as done.
 */
export function unmount(mountPoint: string, lazy: boolean): boolean {
  const result = sys.umount2(mountPoint, lazy ? MNT_DETACH : 0);
  if (result === -EBUSY) return false;
  if (result === -EINVAL || result === -ENOENT) return true;
  must('umount2', result, mountPoint);
  return true;
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
