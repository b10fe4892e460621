/**
 * The package fuse-native, as far as it is used here: its shape, and how it is loaded.
 *
 * It is an optional dependency with a binary of its own, which needs libfuse 2 of the system: either may be missing. Each
 * operation gets `done` as its last argument, to be called once: libfuse's thread waits for it, and with it whoever asked.
 */
import { createRequire } from 'node:module';
import { describe, FwdfsError } from '../base/errors.js';

/** 0 or a count, or minus the errno. */
export type Done = (result: number) => void;

export interface FuseNativeStat {
  readonly ino: number;
  readonly mode: number;
  readonly size?: number;
  readonly nlink?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly blksize?: number;
  readonly blocks?: number;
  /** Milliseconds since 1970. */
  readonly atime?: number;
  readonly mtime?: number;
  readonly ctime?: number;
}

/** The operations that are served here; whatever is not given is ENOSYS. `fd` is what open() was answered with. */
export interface FuseNativeOperations {
  getattr(path: string, done: (result: number, stat?: FuseNativeStat) => void): void;
  readdir(path: string, done: (result: number, names?: string[], stats?: FuseNativeStat[]) => void): void;
  statfs(
    path: string,
    done: (result: number, statfs?: { bsize: number; frsize: number; namemax: number }) => void,
  ): void;
  open(path: string, flags: number, done: (result: number, fd?: number) => void): void;
  /** The bytes go to the start of `buffer`, which is libfuse's and gone after `done`. */
  read(path: string, fd: number, buffer: Buffer, length: number, position: number, done: Done): void;
  write(path: string, fd: number, buffer: Buffer, length: number, position: number, done: Done): void;
  flush(path: string, fd: number, done: Done): void;
  fsync(path: string, onlyData: number, fd: number, done: Done): void;
  release(path: string, fd: number, done: Done): void;
  truncate(path: string, size: number, done: Done): void;
  ftruncate(path: string, fd: number, size: number, done: Done): void;
  utimens(path: string, atime: number, mtime: number, done: Done): void;
  chown(path: string, uid: number, gid: number, done: Done): void;
  chmod(path: string, mode: number, done: Done): void;
  readlink(path: string, done: Done): void;
  create(path: string, mode: number, done: Done): void;
  mknod(path: string, mode: number, device: number, done: Done): void;
  mkdir(path: string, mode: number, done: Done): void;
  unlink(path: string, done: Done): void;
  rmdir(path: string, done: Done): void;
  rename(path: string, to: string, done: Done): void;
  link(path: string, to: string, done: Done): void;
  symlink(path: string, to: string, done: Done): void;
}

export interface FuseNativeOptions {
  /** First column of /proc/mounts. */
  readonly fsname: string;
  /** Behind `fuse.` in /proc/mounts, and more mount options behind a comma: it goes into their list as it is. */
  readonly subtype: string;
  /** libfuse's own trace on stderr. */
  readonly debug: boolean;
  /** false: an operation may take as long as it takes. */
  readonly timeout: false;
}

export interface FuseNative {
  mount(done: (error: Error | null) => void): void;
}

export type FuseNativeClass = new (
  mountPoint: string,
  operations: FuseNativeOperations,
  options: FuseNativeOptions,
) => FuseNative;

type Load = (name: string) => unknown;

const require: Load = createRequire(import.meta.url);

/** What to do about an error of loading, in one line. */
function whyNotLoaded(error: unknown): string {
  const text = describe(error).split('\n', 1)[0] ?? '';
  if (text.includes('libfuse.so.2')) return 'fuse-native needs libfuse 2 (apt-get install libfuse2)';
  if (text.startsWith("Cannot find module 'fuse-native'")) {
    return 'the package fuse-native is not installed (npm install fuse-native, or use -o fuse_backend=own)';
  }
  return `fuse-native has no binary that works here (use -o fuse_backend=own; ${text})`;
}

/** @throws {FwdfsError} host-lacks */
export function loadFuseNative(load = require): FuseNativeClass {
  try {
    return load('fuse-native') as FuseNativeClass;
  } catch (error) {
    throw new FwdfsError('host-lacks', whyNotLoaded(error), { cause: error });
  }
}

/** What is wrong with fuse-native on this host, in one line, or null. */
export function whyNoFuseNative(load = require): string | null {
  try {
    load('fuse-native');
    return null;
  } catch (error) {
    return whyNotLoaded(error);
  }
}
