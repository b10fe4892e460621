/**
 * One FUSE session: requests from the device are taken apart and handed to the node table, the handle table and the open
 * directories; whatever can be answered now is answered from here.
 *
 *   device.read --> dispatch --+-- names, attributes: NodeTable, DirectoryTable --> Replies --> device.write
 *                              +-- open files:        HandleTable (may hold the request) --^
 *
 * `drain` is the only entrance. It never throws and never waits; a request too short for its opcode, or one whose node
 * throws, is answered with an errno and nothing else happens.
 */
import { constants } from 'node:os';
import { describe, errnoOf, FwdfsError, SystemError } from '../base/errors.js';
import { FUSE_DRAIN_COUNT, FUSE_MAX_IO_BYTES } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { O } from '../sys/libc.js';
import {
  BATCH_FORGET_IN,
  BY_NUMBER,
  FATTR,
  FLUSH_IN,
  FORGET_IN,
  FORGET_ONE,
  FSYNC_IN,
  getName,
  IN_HEADER,
  INIT_BIT,
  INIT_IN,
  INTERRUPT_IN,
  minimalLength,
  OPCODES,
  OPEN_IN,
  POLL_IN,
  POLL_SCHEDULE_NOTIFY,
  READ_IN,
  RELEASE_IN,
  SETATTR_IN,
  WRITE_IN,
  WRITE_LOCKOWNER,
} from './abi.js';
import { isGranted } from './attributes.js';
import { type Device, REQUEST_BYTES } from './device.js';
import { DirectoryTable } from './directories.js';
import { ANYBODY, HandleTable } from './handles.js';
import { NodeTable } from './nodes.js';
import { NAME_BYTES, Replies } from './replies.js';
import type { RequestTimeout } from './request-timeout.js';
import { getU64 } from './struct.js';
import { Trace } from './trace.js';
import type { DirectoryNode, Owner } from './tree.js';

const { EAGAIN, EINTR, EINVAL, EIO, ENAMETOOLONG, ENOENT, ENOSYS, ENOTTY, EPERM, EPROTO, EROFS } = constants.errno;

const MAJOR = 7;
/** Spoken with every kernel that has it; younger kernels step down to it. */
const MINOR = 31;
const PAGE_BYTES = 4096;
const HEADER = IN_HEADER.bytes;
/** RELEASEs that the kernel has under way at once, and from how many on it slows closers down. */
const MAX_BACKGROUND = 64;
const CONGESTION_THRESHOLD = 48;

const WANTED: readonly number[] = Object.values(INIT_BIT);
const MINIMAL = new Map([...BY_NUMBER.values()].map((opcode) => [opcode.number, minimalLength(opcode)]));

/** Names can't be made, moved or taken away: they are the forwarder's. */
const NAME_CHANGES: ReadonlySet<number> = new Set(
  (['SYMLINK', 'MKNOD', 'MKDIR', 'UNLINK', 'RMDIR', 'RENAME', 'RENAME2', 'LINK'] as const).map(
    (name) => OPCODES[name].number,
  ),
);

const OP = Object.fromEntries(Object.entries(OPCODES).map(([name, entry]) => [name, entry.number])) as {
  readonly [name in keyof typeof OPCODES]: (typeof OPCODES)[name]['number'];
};

export interface SessionOptions {
  readonly device: Device;
  readonly root: DirectoryNode;
  /** Owner of every file. */
  readonly owner: Owner;
  readonly readOnly: boolean;
  /** What the kernel's own time-out asks of this session; see request-timeout.ts. */
  readonly requestTimeout: RequestTimeout;
  readonly log: Logger;
  /** Gets one line per request and reply; see trace.ts. */
  readonly trace?: (line: string) => void;
  /** The mount is gone; `errno` says how. Called once, from within drain. */
  readonly onEnd: (errno: number) => void;
}

export class Session {
  readonly handles: HandleTable;
  readonly nodes: NodeTable;
  private readonly directories = new DirectoryTable();
  private readonly options: SessionOptions;
  private readonly replies: Replies;
  private readonly trace: Trace | undefined;
  private readonly buffer = Buffer.alloc(REQUEST_BYTES);
  private ended = false;

  constructor(options: SessionOptions) {
    this.options = options;
    this.trace = options.trace && new Trace(options.trace);
    this.replies = new Replies(options.device, options.owner, options.log, this.trace);
    const { patienceMs } = options.requestTimeout;
    this.handles = new HandleTable(this.replies, options.log, { repeatableMs: patienceMs, promisedMs: patienceMs });
    this.nodes = new NodeTable(options.root);
  }

  /** As readiness.Source wants it: true if requests may be left. */
  drain(): boolean {
    for (let count = 0; count < FUSE_DRAIN_COUNT && !this.ended; count++) {
      const length = this.options.device.read(this.buffer);
      if (length === -EAGAIN) return false;
      // Interrupted, or a request that was taken back while it was read.
      if (length === -EINTR || length === -ENOENT) continue;
      if (length < 0) {
        this.end(-length);
        return false;
      }
      this.take(length);
    }
    return !this.ended;
  }

  /** Every open file is released. The device must not be drained again. */
  end(errno: number): void {
    if (this.ended) return;
    this.ended = true;
    this.handles.end();
    this.options.onEnd(errno);
  }

  private take(length: number): void {
    const { buffer } = this;
    if (length < HEADER) {
      this.options.log.error({ length }, 'a FUSE request without a whole header');
      return;
    }
    const opcode = buffer.readUInt32LE(IN_HEADER.at.opcode);
    const unique = getU64(buffer, IN_HEADER.at.unique);
    const quiet = opcode === OP.FORGET || opcode === OP.BATCH_FORGET || opcode === OP.INTERRUPT;
    try {
      this.trace?.request(buffer, length);
      const malformed = buffer.readUInt32LE(IN_HEADER.at.len) !== length || length < (MINIMAL.get(opcode) ?? HEADER);
      if (!malformed) this.dispatch(opcode, unique, length);
      else if (!quiet) this.replies.empty(unique, -EIO);
    } catch (error) {
      const known = error instanceof FwdfsError || error instanceof SystemError;
      if (!known) this.options.log.error({ error, opcode }, 'a FUSE request failed unexpectedly');
      else this.options.log.debug({ error: describe(error), opcode }, 'a FUSE request failed');
      if (!quiet) this.replies.empty(unique, -errnoOf(error));
    }
  }

  private dispatch(opcode: number, unique: number, length: number): void {
    const { buffer, replies } = this;
    const nodeid = getU64(buffer, IN_HEADER.at.nodeid);
    switch (opcode) {
      case OP.READ:
        return this.handles.read(
          unique,
          getU64(buffer, READ_IN.at.fh),
          buffer.readUInt32LE(READ_IN.at.size),
          getU64(buffer, READ_IN.at.offset),
          (buffer.readUInt32LE(READ_IN.at.flags) & O.NONBLOCK) !== 0,
        );
      case OP.WRITE:
        return this.write(unique, length);
      case OP.POLL:
        return this.poll(unique);
      case OP.INTERRUPT:
        return this.handles.interrupt(getU64(buffer, INTERRUPT_IN.at.unique));
      case OP.LOOKUP:
        return this.lookup(unique, nodeid, length);
      case OP.FORGET:
        return this.nodes.forget(nodeid, getU64(buffer, FORGET_IN.at.nlookup));
      case OP.BATCH_FORGET:
        return this.batchForget(length);
      case OP.GETATTR:
        return void replies.attr(unique, this.nodes.get(nodeid));
      case OP.SETATTR:
        return this.setattr(unique, nodeid);
      case OP.OPEN:
        return this.open(unique, nodeid);
      case OP.FLUSH:
        return this.handles.sync(
          unique,
          getU64(buffer, FLUSH_IN.at.fh),
          'close',
          getU64(buffer, FLUSH_IN.at.lock_owner),
        );
      case OP.FSYNC:
        return this.handles.sync(unique, getU64(buffer, FSYNC_IN.at.fh), 'fsync');
      case OP.RELEASE:
        this.handles.release(getU64(buffer, RELEASE_IN.at.fh));
        return void replies.empty(unique, 0);
      case OP.OPENDIR:
        this.nodes.directory(nodeid);
        return void replies.openedDirectory(unique, this.directories.open());
      case OP.READDIR:
        return this.readdir(unique, nodeid);
      case OP.RELEASEDIR:
        this.directories.release(getU64(buffer, RELEASE_IN.at.fh));
        return void replies.empty(unique, 0);
      case OP.STATFS:
        return void replies.statfs(unique);
      case OP.INIT:
        return this.init(unique, length);
      case OP.CREATE:
        // The name was looked up before and is not there: what `>` should say of a file that nobody can make.
        return void replies.empty(unique, this.options.readOnly ? -EROFS : -ENOENT);
      case OP.DESTROY:
        return void replies.empty(unique, 0);
      case OP.IOCTL:
        return void replies.empty(unique, -ENOTTY);
      case OP.READLINK:
        return void replies.empty(unique, -EINVAL);
      default:
        if (!NAME_CHANGES.has(opcode)) return void replies.empty(unique, -ENOSYS);
        return void replies.empty(unique, this.options.readOnly ? -EROFS : -EPERM);
    }
  }

  private init(unique: number, length: number): void {
    const { buffer } = this;
    const { at } = INIT_IN;
    const major = buffer.readUInt32LE(at.major);
    const minor = buffer.readUInt32LE(at.minor);
    if (major < MAJOR || (major === MAJOR && minor < MINOR)) {
      this.options.log.error({ major, minor }, `the kernel's FUSE protocol is older than ${MAJOR}.${MINOR}`);
      return void this.replies.empty(unique, -EPROTO);
    }
    // A kernel of a later major version takes the number alone and asks again.
    if (major > MAJOR) return void this.replies.init(unique, { major: MAJOR, minor: MINOR });
    const offered = buffer.readUInt32LE(at.flags);
    const extended = (offered & (1 << INIT_BIT.INIT_EXT)) !== 0 && length >= at.flags2 + 4;
    const offered2 = extended ? buffer.readUInt32LE(at.flags2) : 0;
    let flags = 0;
    let flags2 = 0;
    const { askS } = this.options.requestTimeout;
    for (const bit of WANTED) {
      if (bit === INIT_BIT.REQUEST_TIMEOUT && askS === 0) continue;
      if (bit < 32) flags |= offered & (1 << bit);
      else flags2 |= offered2 & (1 << (bit - 32));
    }
    this.replies.init(unique, {
      major: MAJOR,
      minor: MINOR,
      max_readahead: buffer.readUInt32LE(at.max_readahead),
      flags,
      flags2,
      max_background: MAX_BACKGROUND,
      congestion_threshold: CONGESTION_THRESHOLD,
      max_write: FUSE_MAX_IO_BYTES,
      time_gran: 1,
      max_pages: FUSE_MAX_IO_BYTES / PAGE_BYTES,
      request_timeout: (flags2 & (1 << (INIT_BIT.REQUEST_TIMEOUT - 32))) !== 0 ? askS : 0,
    });
  }

  private lookup(unique: number, parent: number, length: number): void {
    const name = getName(this.buffer, HEADER, length);
    if (name === undefined) return void this.replies.empty(unique, -EINVAL);
    if (length - HEADER - 1 > NAME_BYTES) return void this.replies.empty(unique, -ENAMETOOLONG);
    const node = this.nodes.directory(parent).lookup(name);
    const nodeid = this.nodes.looked(parent, name, node);
    if (!this.replies.entry(unique, nodeid, node)) this.nodes.forget(nodeid, 1);
  }

  private batchForget(length: number): void {
    const { buffer } = this;
    let at = HEADER + BATCH_FORGET_IN.bytes;
    for (let left = buffer.readUInt32LE(BATCH_FORGET_IN.at.count); left > 0; left--) {
      if (at + FORGET_ONE.bytes > length) return;
      this.nodes.forget(getU64(buffer, at + FORGET_ONE.at.nodeid), getU64(buffer, at + FORGET_ONE.at.nlookup));
      at += FORGET_ONE.bytes;
    }
  }

  private setattr(unique: number, nodeid: number): void {
    const { buffer } = this;
    const { at } = SETATTR_IN;
    const node = this.nodes.get(nodeid);
    const valid = buffer.readUInt32LE(at.valid);
    const field = (flag: number, offset: number): number | undefined =>
      (valid & flag) === 0 ? undefined : buffer.readUInt32LE(offset);
    const mode = field(FATTR.MODE, at.mode);
    const wish = {
      mode: mode === undefined ? undefined : mode & 0o7777,
      uid: field(FATTR.UID, at.uid),
      gid: field(FATTR.GID, at.gid),
    };
    if (isGranted(node, this.options.owner, wish)) this.replies.attr(unique, node);
    else this.replies.empty(unique, -EPERM);
  }

  private open(unique: number, nodeid: number): void {
    const { buffer } = this;
    const node = this.nodes.get(nodeid);
    if (node.kind !== 'file') throw new SystemError('open', constants.errno.EISDIR);
    const flags = buffer.readUInt32LE(OPEN_IN.at.flags);
    if (this.options.readOnly && (flags & O.ACCMODE) !== O.RDONLY) throw new FwdfsError('read-only', 'open');
    const pid = buffer.readUInt32LE(IN_HEADER.at.pid);
    const uid = buffer.readUInt32LE(IN_HEADER.at.uid);
    const gid = buffer.readUInt32LE(IN_HEADER.at.gid);
    this.handles.open(unique, node, flags, pid, uid, gid);
  }

  private write(unique: number, length: number): void {
    const { buffer } = this;
    const { at } = WRITE_IN;
    const start = HEADER + WRITE_IN.bytes;
    const size = buffer.readUInt32LE(at.size);
    if (start + size > length) return void this.replies.empty(unique, -EIO);
    const nonBlocking = (buffer.readUInt32LE(at.flags) & O.NONBLOCK) !== 0;
    const known = (buffer.readUInt32LE(at.write_flags) & WRITE_LOCKOWNER) !== 0;
    const owner = known ? getU64(buffer, at.lock_owner) : ANYBODY;
    const position = getU64(buffer, at.offset);
    this.handles.write(unique, getU64(buffer, at.fh), buffer, start, size, position, nonBlocking, owner);
  }

  private poll(unique: number): void {
    const { buffer } = this;
    const { at } = POLL_IN;
    const schedule = (buffer.readUInt32LE(at.flags) & POLL_SCHEDULE_NOTIFY) !== 0;
    const kh = schedule ? getU64(buffer, at.kh) : 0;
    this.replies.polled(unique, this.handles.poll(getU64(buffer, at.fh), kh, buffer.readUInt32LE(at.events)));
  }

  private readdir(unique: number, nodeid: number): void {
    const { buffer, replies } = this;
    const { at } = READ_IN;
    const room = Math.min(buffer.readUInt32LE(at.size), replies.out.length - replies.outStart);
    const bytes = this.directories.read(
      getU64(buffer, at.fh),
      getU64(buffer, at.offset),
      this.nodes.directory(nodeid),
      this.nodes.parentIno(nodeid),
      replies.out,
      replies.outStart,
      room,
    );
    replies.read(unique, bytes);
  }
}
