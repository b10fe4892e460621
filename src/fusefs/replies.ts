/**
 * Replies: the values of an answer, laid out in the one reply buffer and sent at once. A file's read() has put its bytes
 * behind the header already, so they are not copied again.
 */
import { constants } from 'node:os';
import { FUSE_MAX_IO_BYTES, NAME_VALID_MS } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { O } from '../sys/libc.js';
import {
  ATTR_OUT,
  ENTRY_OUT,
  FOPEN,
  INIT_OUT,
  NOTIFY,
  NOTIFY_POLL_OUT,
  OPEN_OUT,
  OUT_HEADER,
  POLL_OUT,
  putOutHeader,
  S_IFDIR,
  S_IFREG,
  STATFS_OUT,
  WRITE_OUT,
} from './abi.js';
import { shownMode } from './attributes.js';
import type { Device } from './device.js';
import type { Answers } from './handles.js';
import { encode, putU64, type Struct } from './struct.js';
import type { Trace } from './trace.js';
import type { FileNode, Node, Owner } from './tree.js';

const { ENOENT, ENODEV, ECONNABORTED } = constants.errno;

const HEADER = OUT_HEADER.bytes;
/** What stat(2) recommends for reads and writes; Python's buffered files go by it. */
export const BLOCK_BYTES = 128 << 10;
/** Bytes of a name, limits.h. */
export const NAME_BYTES = 255;

const STREAM_FLAGS = FOPEN.DIRECT_IO | FOPEN.NONSEEKABLE | FOPEN.STREAM;

export class Replies implements Answers {
  /** Header and data of one reply. */
  readonly out = Buffer.alloc(HEADER + FUSE_MAX_IO_BYTES);
  readonly outStart = HEADER;
  private readonly device: Device;
  private readonly owner: Owner;
  private readonly trace: Trace | undefined;
  private readonly log: Logger;
  /** Seconds since 1970: all times that stat(2) shows. */
  private readonly since = Math.floor(Date.now() / 1000);

  constructor(device: Device, owner: Owner, log: Logger, trace: Trace | undefined) {
    this.device = device;
    this.owner = owner;
    this.log = log;
    this.trace = trace;
  }

  /** Sends what is in `out` as the reply to `unique`. Returns false if nobody waits for it any more. */
  send(unique: number, error: number, length: number): boolean {
    putOutHeader(this.out, length, error, unique);
    this.trace?.reply(this.out, length);
    const result = this.device.write(this.out, length);
    if (result >= 0) return true;
    if (result !== -ENOENT && result !== -ENODEV && result !== -ECONNABORTED) {
      this.log.error({ errno: -result, unique, error, length }, 'the kernel refused a FUSE reply');
    }
    return false;
  }

  /** A reply without a body; `error` is 0 or minus the errno. */
  empty(unique: number, error: number): boolean {
    return this.send(unique, error, HEADER);
  }

  struct<Name extends string>(
    unique: number,
    layout: Struct<Name>,
    values: { readonly [field in Name]?: number },
  ): boolean {
    return this.send(unique, 0, encode(layout, this.out, values));
  }

  private attributes(node: Node): Partial<Record<keyof typeof ATTR_OUT.at, number>> {
    const directory = node.kind === 'directory';
    const size = directory ? 0 : node.size;
    return {
      ino: node.ino,
      size,
      blocks: Math.ceil(size / 512),
      atime: this.since,
      mtime: this.since,
      ctime: this.since,
      mode: (directory ? S_IFDIR : S_IFREG) | shownMode(node, this.owner),
      // 1 also for directories: find(1) takes it for "unknown" and looks into each.
      nlink: 1,
      uid: this.owner.uid,
      gid: this.owner.gid,
      blksize: BLOCK_BYTES,
    };
  }

  /**
   * How long the kernel may go by what it was told: a listing asks for each directory above a name again and again. A
   * stream is looked up for every open, and its rights may be others a moment later.
   */
  private validity(node: Node): number {
    return node.kind === 'file' && node.stream ? 0 : NAME_VALID_MS * 1e6;
  }

  entry(unique: number, nodeid: number, node: Node): boolean {
    const valid = this.validity(node);
    return this.struct(unique, ENTRY_OUT, {
      nodeid,
      entry_valid_nsec: valid,
      attr_valid_nsec: valid,
      ...this.attributes(node),
    });
  }

  attr(unique: number, node: Node): boolean {
    return this.struct(unique, ATTR_OUT, { attr_valid_nsec: this.validity(node), ...this.attributes(node) });
  }

  openedDirectory(unique: number, fh: number): boolean {
    return this.struct(unique, OPEN_OUT, { fh });
  }

  statfs(unique: number): boolean {
    return this.struct(unique, STATFS_OUT, { bsize: 4096, namelen: NAME_BYTES, frsize: 4096 });
  }

  init(unique: number, values: { readonly [field in keyof typeof INIT_OUT.at]?: number }): boolean {
    return this.struct(unique, INIT_OUT, values);
  }

  polled(unique: number, result: number): boolean {
    return result < 0 ? this.empty(unique, result) : this.struct(unique, POLL_OUT, { revents: result });
  }

  opened(unique: number, fh: number, node: FileNode, flags: number): boolean {
    // Who only reads has nothing to be told at its close, and a killed reader's rule is gone the sooner.
    const close = (flags & O.ACCMODE) === O.RDONLY ? FOPEN.NOFLUSH : 0;
    return this.struct(unique, OPEN_OUT, { fh, open_flags: (node.stream ? STREAM_FLAGS : FOPEN.DIRECT_IO) | close });
  }

  read(unique: number, result: number): void {
    this.send(unique, result < 0 ? result : 0, result < 0 ? HEADER : HEADER + result);
  }

  written(unique: number, result: number): void {
    if (result < 0) {
      this.empty(unique, result);
      return;
    }
    putU64(this.out, WRITE_OUT.at.size, result);
    this.send(unique, 0, HEADER + WRITE_OUT.bytes);
  }

  done(unique: number, result: number): void {
    this.empty(unique, result);
  }

  changed(kh: number): void {
    putU64(this.out, NOTIFY_POLL_OUT.at.kh, kh);
    this.send(0, NOTIFY.POLL, HEADER + NOTIFY_POLL_OUT.bytes);
  }
}
