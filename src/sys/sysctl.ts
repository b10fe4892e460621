/**
 * /proc/sys, which shows the network namespace of the thread that opens a file there: calls are synchronous, so that they
 * mean the namespace that `inNetns` moved it to.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { SystemError } from '../base/errors.js';

const { EIO, ENOENT } = constants.errno;

/** @param path below /proc/sys, `net/ipv4/conf/all/rp_filter` @returns its value; null: this kernel has none */
export function readSysctl(path: string): string | null {
  return ofProc('read', path, (file) => readFileSync(file, 'latin1').trim());
}

/** @returns false: this kernel has none @throws SystemError EROFS or EACCES where it must not be set */
export function writeSysctl(path: string, value: string | number): boolean {
  return ofProc('write', path, (file) => (writeFileSync(file, String(value)), true)) ?? false;
}

/** The names below a path: those of the interfaces below `net/ipv6/conf`. Empty: this kernel has none. */
export function listSysctls(path: string): string[] {
  return ofProc('list', path, (folder) => readdirSync(folder)) ?? [];
}

function ofProc<T>(what: string, path: string, step: (file: string) => T): T | null {
  const file = `/proc/sys/${path}`;
  try {
    return step(file);
  } catch (error) {
    const errno = error instanceof Error && 'errno' in error ? -Number(error.errno) : EIO;
    if (errno === ENOENT) return null;
    throw new SystemError(what, errno, file);
  }
}
