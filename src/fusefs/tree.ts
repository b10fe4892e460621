/**
 * The contract between a FUSE server and whoever offers files.
 *
 *   kernel -- requests --> server (pending requests, wake, interrupts) -- this contract --> nodes and open files
 *
 * Driver style: a file never blocks and never sees a request. It answers what it can now, -EAGAIN otherwise, and calls
 * `wake` when that may have changed; the server keeps the blocked request and asks again. Nothing here knows the FUSE wire
 * format, so any backend that serves files can stand behind the same tree.
 */
import { createHash } from 'node:crypto';
import { FwdfsError } from '../base/errors.js';

/** Whose the files are, and who else may use them. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
  /** The rights of the owner are group's and others' too, but for these bits. Without it: the bits that each node has. */
  readonly umask?: number | undefined;
}

/** One line of a directory listing. */
export interface Entry {
  readonly name: string;
  readonly directory: boolean;
  readonly ino: number;
}

export interface DirectoryNode {
  readonly kind: 'directory';
  /** Constant for the life of the name, below 2^53; see `inoOf`. */
  readonly ino: number;
  /** Permission bits. */
  readonly mode: number;
  /** The node of a name. Throws a FwdfsError, `no-such-name` for a name that is not there. */
  lookup(name: string): Node;
  /** The names as of now, without `.` and `..`. */
  list(): Entry[];
}

export interface FileNode {
  readonly kind: 'file';
  /** Constant for the life of the name, below 2^53; see `inoOf`. */
  readonly ino: number;
  /** Permission bits as of now. */
  readonly mode: number;
  /**
   * A stream of packets: no file position, and a kernel inode of its own for every opener, so that no opener's held write
   * makes another's wait.
   */
  readonly stream: boolean;
  /** Bytes that stat(2) shows. */
  readonly size: number;
  /** One open(2). What it throws or rejects with is what open(2) fails with. */
  open(request: OpenRequest): OpenFile | Promise<OpenFile>;
}

export type Node = DirectoryNode | FileNode;

export interface OpenRequest {
  /** open(2) flags as FUSE gives them. */
  readonly flags: number;
  /** Thread id of the opener. */
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
  /** To be called whenever read, write or poll may answer otherwise than before. Cheap; may be called at any time. */
  readonly wake: () => void;
}

/** Who asks for a barrier: a synchronous write, fsync(2), or a close(2) of one of the descriptors. */
export type SyncReason = 'write' | 'fsync' | 'close';

export interface OpenFile {
  /**
   * Puts up to `size` bytes at `offset` of `out`. Returns their number, 0 at the end of the file, or minus the errno;
   * -EAGAIN: nothing now, ask again after wake(). `position` is the file position (0 for streams).
   */
  read(out: Buffer, offset: number, size: number, position: number): number;
  /**
   * Takes `length` bytes at `offset` of `data`, which is valid during the call only. Returns how many were taken (>= 1), or
   * minus the errno; -EAGAIN as for read: the same bytes are then offered again. A length of 0 is never offered.
   */
  write(data: Buffer, offset: number, length: number, position: number): number;
  /** POLL.* bits as of now. */
  poll(): number;
  /** True: a write is answered only after sync() (hex, O_SYNC). */
  readonly synchronous: boolean;
  /**
   * Barrier of fsync, of each close, and of each write if `synchronous`. Rejects with the error to be seen. `abandoned`: a
   * signal ended the wait, and nobody will see how this ends: an error is the next barrier's to tell.
   */
  sync(reason: SyncReason, abandoned?: AbortSignal): Promise<void>;
  /** The last close. Called once; nothing is called after it. */
  release(): void;
}

/** A number below 2^53 for a path, the same in every run: what stat(2) shows as inode. Never 0 or 1. */
export function inoOf(path: string): number {
  const digest = createHash('sha256').update(path).digest();
  return digest.readUIntBE(0, 6) * 32 + ((digest[6] ?? 0) >> 3) + 2;
}

/** A directory with fixed names. `path` is its place in the tree, for its inode number. */
export function staticDirectory(path: string, children: ReadonlyMap<string, Node>, mode = 0o755): DirectoryNode {
  return {
    kind: 'directory',
    ino: inoOf(path),
    mode,
    lookup(name) {
      const node = children.get(name);
      if (node === undefined) throw new FwdfsError('no-such-name', `${path}/${name}`);
      return node;
    },
    list: () => Array.from(children, ([name, node]) => ({ name, directory: node.kind === 'directory', ino: node.ino })),
  };
}
