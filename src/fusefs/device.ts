/**
 * /dev/fuse: whole requests come in, whole replies and notifications go out, one system call each.
 *
 * One request is read at a time, so that an INTERRUPT never overtakes the request it is about (FUSE protocol: with two
 * readers it can, and the interrupted process would stay unkillable).
 */
import { FUSE_MAX_IO_BYTES } from '../base/limits.js';
import { sys } from '../sys/libc.js';

/** Room for the largest WRITE with its headers; the kernel refuses reads into less. */
export const REQUEST_BYTES = FUSE_MAX_IO_BYTES + 4096;

export interface Device {
  /**
   * Puts one request at the start of `buffer`, which has REQUEST_BYTES. Returns its length, or minus the errno: -EAGAIN
   * when there is none now, -ENODEV or -ECONNABORTED when the mount is gone.
   */
  read(buffer: Buffer): number;
  /**
   * Sends the first `length` bytes as one message. Returns their number, or minus the errno: -ENOENT when nobody waits
   * for this reply any more.
   */
  write(buffer: Buffer, length: number): number;
}

/** A device on an open descriptor of /dev/fuse, which stays the caller's to close. */
export function fuseDevice(fd: number): Device {
  return {
    read: (buffer) => sys.read(fd, buffer, buffer.length),
    write: (buffer, length) => sys.write(fd, buffer, length),
  };
}
