/**
 * The operations of fuse-native on a tree and a handle table.
 *
 *   libfuse thread --> operation(path, …, done) --+-- names, attributes: the tree, by path --> done
 *                                                 +-- open files: HandleTable --> FuseNativeAnswers --> done
 *
 * A request gets a number here, under which its `done` waits; each is called exactly once (the binding aborts the process
 * otherwise), at the latest by `abandon`. What an operation throws is its errno.
 */
import { constants } from 'node:os';
import { describe, errnoOf, FwdfsError, SystemError } from '../base/errors.js';
import { FUSE_MAX_IO_BYTES } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { O } from '../sys/libc.js';
import { S_IFDIR, S_IFREG } from './abi.js';
import { isGranted, shownMode, type Wish } from './attributes.js';
import type { Done, FuseNativeOperations, FuseNativeStat } from './fuse-native-library.js';
import { type Answers, HandleTable } from './handles.js';
import type { Patience } from './patience.js';
import { BLOCK_BYTES, NAME_BYTES } from './replies.js';
import type { DirectoryNode, FileNode, Node, Owner } from './tree.js';

const { EINVAL, EISDIR, ENAMETOOLONG, ENODEV, ENOENT, ENOTDIR, EPERM } = constants.errno;

/** What chown(2) says for: as it is. */
const AS_IT_IS = 0xffff_ffff;

interface Waiting {
  readonly done: (result: number, fd?: number) => void;
  /** Where a read puts its bytes. */
  readonly buffer: Buffer | undefined;
}

export class FuseNativeAnswers implements Answers {
  readonly out = Buffer.alloc(FUSE_MAX_IO_BYTES);
  readonly outStart = 0;
  private readonly waiting = new Map<number, Waiting>();
  private nextId = 1;

  /** A number for a request. */
  hold(done: Waiting['done'], buffer?: Buffer): number {
    const id = this.nextId++;
    this.waiting.set(id, { done, buffer });
    return id;
  }

  opened(id: number, fh: number): boolean {
    // libfuse itself releases a file that nobody takes any more.
    this.take(id)?.done(0, fh);
    return true;
  }

  read(id: number, result: number): void {
    const waiting = this.take(id);
    if (waiting?.buffer !== undefined && result > 0) this.out.copy(waiting.buffer, 0, 0, result);
    waiting?.done(result);
  }

  written(id: number, result: number): void {
    this.take(id)?.done(result);
  }

  done(id: number, result: number): void {
    this.take(id)?.done(result);
  }

  changed(): void {
    // There is no poll, so nobody waits for this.
  }

  /** The kernel is gone: the threads that wait are let go. */
  abandon(): void {
    for (const id of [...this.waiting.keys()]) this.take(id)?.done(-ENODEV);
  }

  private take(id: number): Waiting | undefined {
    const waiting = this.waiting.get(id);
    this.waiting.delete(id);
    return waiting;
  }
}

/** The node at an absolute path, and the directory that it is in. Throws ENOENT, ENOTDIR, ENAMETOOLONG. */
export function nodeAt(root: DirectoryNode, path: string): { node: Node; parent: DirectoryNode } {
  let parent = root;
  let node: Node = root;
  for (const name of path.split('/')) {
    if (name === '') continue;
    if (node.kind !== 'directory') throw new SystemError('lookup', ENOTDIR, path);
    if (Buffer.byteLength(name) > NAME_BYTES) throw new SystemError('lookup', ENAMETOOLONG);
    parent = node;
    node = node.lookup(name);
  }
  return { node, parent };
}

export interface Served {
  readonly operations: FuseNativeOperations;
  readonly handles: HandleTable;
  readonly answers: FuseNativeAnswers;
}

export function serveOperations(
  root: DirectoryNode,
  owner: Owner,
  readOnly: boolean,
  log: Logger,
  patience: Patience,
): Served {
  const answers = new FuseNativeAnswers();
  const handles = new HandleTable(answers, log, patience);
  /** Handles that were opened with O_NONBLOCK, and those of streams, whose position means nothing. */
  const nonBlocking = new Set<number>();
  const streams = new Set<number>();
  const since = Date.now();

  const statOf = (node: Node): FuseNativeStat => ({
    ino: node.ino,
    mode: (node.kind === 'directory' ? S_IFDIR : S_IFREG) | shownMode(node, owner),
    size: node.kind === 'directory' ? 0 : node.size,
    nlink: 1,
    ...owner,
    blksize: BLOCK_BYTES,
    atime: since,
    mtime: since,
    ctime: since,
  });

  /** Does the work; what it throws goes to `done`. */
  const guard = (done: Done, work: () => void): void => {
    try {
      work();
    } catch (error) {
      const known = error instanceof FwdfsError || error instanceof SystemError;
      if (known) log.debug({ error: describe(error) }, 'a FUSE request failed');
      else log.error({ error }, 'a FUSE request failed unexpectedly');
      done(-errnoOf(error));
    }
  };

  const grant = (path: string, wish: Wish, done: Done): void =>
    guard(done, () => done(isGranted(nodeAt(root, path).node, owner, wish) ? 0 : -EPERM));

  const opened = (node: FileNode, flags: number, done: (result: number, fd?: number) => void): number =>
    answers.hold((result, fd) => {
      if (fd !== undefined) {
        if ((flags & O.NONBLOCK) !== 0) nonBlocking.add(fd);
        if (node.stream) streams.add(fd);
      }
      done(result, fd);
    });

  const positionOf = (fd: number, position: number): number => (streams.has(fd) ? 0 : position);
  // Names are the forwarder's: they can't be made, moved or taken away.
  const refuse = (_path: string, _second: number | string, done: Done): void => done(-EPERM);

  const operations: FuseNativeOperations = {
    getattr: (path, done) => guard(done, () => done(0, statOf(nodeAt(root, path).node))),
    readdir: (path, done) =>
      guard(done, () => {
        const { node, parent } = nodeAt(root, path);
        if (node.kind !== 'directory') throw new SystemError('readdir', ENOTDIR, path);
        const dots = [
          { name: '.', directory: true, ino: node.ino },
          { name: '..', directory: true, ino: parent.ino },
        ];
        const entries = [...dots, ...node.list()];
        const stats = entries.map(({ directory, ino }) => ({ ino, mode: directory ? S_IFDIR : S_IFREG }));
        done(
          0,
          entries.map(({ name }) => name),
          stats,
        );
      }),
    statfs: (_path, done) => done(0, { bsize: 4096, frsize: 4096, namemax: NAME_BYTES }),
    open: (path, flags, done) =>
      guard(done, () => {
        const { node } = nodeAt(root, path);
        if (node.kind !== 'file') throw new SystemError('open', EISDIR, path);
        if (readOnly && (flags & O.ACCMODE) !== O.RDONLY) throw new FwdfsError('read-only', 'open');
        handles.open(opened(node, flags, done), node, flags, 0, 0, 0);
      }),
    read: (_path, fd, buffer, length, position, done) =>
      handles.read(answers.hold(done, buffer), fd, length, positionOf(fd, position), nonBlocking.has(fd)),
    write: (_path, fd, buffer, length, position, done) =>
      handles.write(answers.hold(done), fd, buffer, 0, length, positionOf(fd, position), nonBlocking.has(fd)),
    flush: (_path, fd, done) => handles.sync(answers.hold(done), fd, 'close'),
    fsync: (_path, _onlyData, fd, done) => handles.sync(answers.hold(done), fd, 'fsync'),
    release: (_path, fd, done) => {
      nonBlocking.delete(fd);
      streams.delete(fd);
      handles.release(fd);
      done(0);
    },
    truncate: (path, _size, done) => grant(path, {}, done),
    ftruncate: (path, _fd, _size, done) => grant(path, {}, done),
    utimens: (path, _atime, _mtime, done) => grant(path, {}, done),
    chown: (path, uid, gid, done) =>
      grant(path, { uid: uid === AS_IT_IS ? undefined : uid, gid: gid === AS_IT_IS ? undefined : gid }, done),
    chmod: (path, mode, done) => grant(path, { mode: mode & 0o7777 }, done),
    readlink: (_path, done) => done(-EINVAL),
    // The name was looked up before and is not there: what `>` should say of a file that nobody can make.
    create: (_path, _mode, done) => done(-ENOENT),
    mknod: (_path, _mode, _device, done) => done(-EPERM),
    mkdir: refuse,
    unlink: (_path, done) => done(-EPERM),
    rmdir: (_path, done) => done(-EPERM),
    rename: refuse,
    link: refuse,
    symlink: refuse,
  };
  return { operations, handles, answers };
}
