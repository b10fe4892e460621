/**
 * What serves a tree of files: the contract of a FUSE backend, and the names of those there are.
 *
 *   mount() --> serving --+-- unmount(): readers get EOF, the name is free at once --> what is open is served to its close
 *                         +-- unmounted or aborted from outside --> every file released --> onEnd
 *
 * A backend brings requests to a HandleTable and a tree (tree.ts), which decide what they mean; so all backends mean the
 * same. What one cannot do at all stands in a table of its own (fuse-native-lacks.ts).
 *
 * The process that serves must not use its own mount with blocking calls: it would wait for itself.
 */
import type { Logger } from '../base/log.js';
import type { MountOptions } from './mount.js';
import type { DirectoryNode, Owner } from './tree.js';

/** `own` speaks the protocol of the kernel itself; `fuse-native` is the package of that name on libfuse 2. */
export const BACKENDS = ['own', 'fuse-native'] as const;
export type BackendName = (typeof BACKENDS)[number];

export interface FuseBackendOptions {
  readonly root: DirectoryNode;
  readonly mountPoint: string;
  /** First column of /proc/mounts. */
  readonly source: string;
  readonly options: MountOptions & Owner;
  readonly log: Logger;
  /** Gets one line per request and reply. */
  readonly trace?: (line: string) => void;
}

export interface FuseBackend {
  /** Called once when the mount was unmounted or aborted from outside, after every file was released. */
  onEnd: () => void;
  /** Files that are open. */
  readonly openFiles: number;
  /** Requests that wait. */
  readonly waiting: number;
  /**
   * Mounts and serves; the mount can be used when this resolves. A second call does nothing.
   * @throws {SystemError} ENOENT, ENOTDIR, EPERM …, and ENOTCONN where a dead mount is in the way
   * @throws {FwdfsError} host-lacks where the host has no FUSE, or not what the backend stands on
   */
  mount(): Promise<void>;
  /**
   * Ends the mount: blocked readers get the end of the file, the name is free at once, and what is still open is served
   * until its last close, for UNMOUNT_GRACE_MS at most. Never hangs. `onEnd` is not called.
   */
  unmount(): Promise<void>;
}

/** How long those who have files open may go on after unmount(). */
export const UNMOUNT_GRACE_MS = 2000;
