/**
 * The FUSE wire format, kernel protocol 7.31: the only table of its opcodes, structures and flags. The codec, the length
 * check, the trace and the tests all read it.
 *
 *   request  0       4        8        16       24    28    32    36        38   40
 *            | len   | opcode | unique | nodeid | uid | gid | pid | extlen  | pad | structure, then names or data
 *   reply    0       4        8        16
 *            | len   | error  | unique | structure or data          error: 0 or minus the errno; unique as in the request
 *   notify   | len   | code   | 0      | structure
 *
 * Every offset below counts from the start of the message. `unique` is even; an INTERRUPT's is its target's plus one.
 */
import { decode, getU64, print, putU64, struct, type Struct } from './struct.js';

export const IN_HEADER = struct(0, {
  len: 'u32',
  opcode: 'u32',
  unique: 'u64',
  nodeid: 'u64',
  uid: 'u32',
  gid: 'u32',
  /** The calling thread's id; 0 for RELEASE, INTERRUPT, FORGET and INIT. */
  pid: 'u32',
  total_extlen: 'u16',
  padding: 'u16',
});
export const OUT_HEADER = struct(0, { len: 'u32', error: 'i32', unique: 'u64' });

const IN = IN_HEADER.bytes;
const OUT = OUT_HEADER.bytes;

const ATTR = {
  ino: 'u64',
  size: 'u64',
  blocks: 'u64',
  atime: 'u64',
  mtime: 'u64',
  ctime: 'u64',
  atimensec: 'u32',
  mtimensec: 'u32',
  ctimensec: 'u32',
  mode: 'u32',
  nlink: 'u32',
  uid: 'u32',
  gid: 'u32',
  rdev: 'u32',
  blksize: 'u32',
  flags: 'u32',
} as const;

// Requests.
export const GETATTR_IN = struct(IN, { getattr_flags: 'u32', padding: 'u32', fh: 'u64' });
export const SETATTR_IN = struct(IN, {
  valid: 'u32',
  padding: 'u32',
  fh: 'u64',
  size: 'u64',
  lock_owner: 'u64',
  atime: 'u64',
  mtime: 'u64',
  ctime: 'u64',
  atimensec: 'u32',
  mtimensec: 'u32',
  ctimensec: 'u32',
  mode: 'u32',
  padding2: 'u32',
  uid: 'u32',
  gid: 'u32',
  padding3: 'u32',
});
export const FORGET_IN = struct(IN, { nlookup: 'u64' });
export const BATCH_FORGET_IN = struct(IN, { count: 'u32', padding: 'u32' });
/** One of the `count` records behind BATCH_FORGET_IN, relative to itself. */
export const FORGET_ONE = struct(0, { nodeid: 'u64', nlookup: 'u64' });
export const OPEN_IN = struct(IN, { flags: 'u32', open_flags: 'u32' });
/** READ and READDIR. `flags` are the file's flags as of now, O_NONBLOCK included. */
export const READ_IN = struct(IN, {
  fh: 'u64',
  offset: 'u64',
  size: 'u32',
  read_flags: 'u32',
  lock_owner: 'u64',
  flags: 'u32',
  padding: 'u32',
});
export const WRITE_IN = struct(IN, {
  fh: 'u64',
  offset: 'u64',
  size: 'u32',
  write_flags: 'u32',
  lock_owner: 'u64',
  flags: 'u32',
  padding: 'u32',
});
export const RELEASE_IN = struct(IN, { fh: 'u64', flags: 'u32', release_flags: 'u32', lock_owner: 'u64' });
export const FLUSH_IN = struct(IN, { fh: 'u64', padding: 'u64', lock_owner: 'u64' });
export const FSYNC_IN = struct(IN, { fh: 'u64', fsync_flags: 'u32', padding: 'u32' });
/** `flags` 1: tell by NOTIFY_POLL with `kh` when something changes. */
export const POLL_IN = struct(IN, { fh: 'u64', kh: 'u64', flags: 'u32', events: 'u32' });
export const INTERRUPT_IN = struct(IN, { unique: 'u64' });
/** Without `flags2` before 7.36. */
export const INIT_IN = struct(IN, { major: 'u32', minor: 'u32', max_readahead: 'u32', flags: 'u32', flags2: 'u32' });
export const IOCTL_IN = struct(IN, {
  fh: 'u64',
  flags: 'u32',
  cmd: 'u32',
  arg: 'u64',
  in_size: 'u32',
  out_size: 'u32',
});
const MKNOD_IN = struct(IN, { mode: 'u32', rdev: 'u32', umask: 'u32', padding: 'u32' });
const MKDIR_IN = struct(IN, { mode: 'u32', umask: 'u32' });
const RENAME_IN = struct(IN, { newdir: 'u64' });
const RENAME2_IN = struct(IN, { newdir: 'u64', flags: 'u32', padding: 'u32' });
const LINK_IN = struct(IN, { oldnodeid: 'u64' });
const CREATE_IN = struct(IN, { flags: 'u32', mode: 'u32', umask: 'u32', open_flags: 'u32' });
const ACCESS_IN = struct(IN, { mask: 'u32', padding: 'u32' });
const XATTR_IN = struct(IN, { size: 'u32', flags: 'u32' });
const FALLOCATE_IN = struct(IN, { fh: 'u64', offset: 'u64', length: 'u64', mode: 'u32', padding: 'u32' });
const LSEEK_IN = struct(IN, { fh: 'u64', offset: 'u64', whence: 'u32', padding: 'u32' });
const NOTHING = struct(IN, {});

// Replies.
export const ENTRY_OUT = struct(OUT, {
  nodeid: 'u64',
  generation: 'u64',
  entry_valid: 'u64',
  attr_valid: 'u64',
  entry_valid_nsec: 'u32',
  attr_valid_nsec: 'u32',
  ...ATTR,
});
export const ATTR_OUT = struct(OUT, { attr_valid: 'u64', attr_valid_nsec: 'u32', padding: 'u32', ...ATTR });
export const OPEN_OUT = struct(OUT, { fh: 'u64', open_flags: 'u32', backing_id: 'u32' });
/** The padding has to be sent: a shorter reply is EIO to the writer. */
export const WRITE_OUT = struct(OUT, { size: 'u32', padding: 'u32' });
export const POLL_OUT = struct(OUT, { revents: 'u32', padding: 'u32' });
export const STATFS_OUT = struct(OUT, {
  blocks: 'u64',
  bfree: 'u64',
  bavail: 'u64',
  files: 'u64',
  ffree: 'u64',
  bsize: 'u32',
  namelen: 'u32',
  frsize: 'u32',
  padding: 'u32',
  spare0: 'u64',
  spare1: 'u64',
  spare2: 'u64',
});
export const INIT_OUT = struct(OUT, {
  major: 'u32',
  minor: 'u32',
  max_readahead: 'u32',
  flags: 'u32',
  max_background: 'u16',
  congestion_threshold: 'u16',
  max_write: 'u32',
  time_gran: 'u32',
  max_pages: 'u16',
  map_alignment: 'u16',
  flags2: 'u32',
  max_stack_depth: 'u32',
  request_timeout: 'u16',
  unused0: 'u16',
  unused1: 'u32',
  unused2: 'u64',
  unused3: 'u64',
});
export const NOTIFY_POLL_OUT = struct(OUT, { kh: 'u64' });
/** Before each name of a READDIR, relative to itself; the name follows, padded to 8 bytes. */
export const DIRENT = struct(0, { ino: 'u64', off: 'u64', namelen: 'u32', type: 'u32' });

/** What a successful reply carries behind its header; `never`: the kernel wants no reply, or none is ever successful. */
export type ReplyLayout = Struct | 'empty' | 'data' | 'never';

export interface Opcode {
  readonly number: number;
  /** Minor protocol version that brought it. */
  readonly since: number;
  readonly request: Struct;
  /** NUL-terminated names behind the structure. */
  readonly names: number;
  /** Bytes at the end of the structure that older kernels leave out. */
  readonly optional: number;
  readonly reply: ReplyLayout;
}

const op = (number: number, since: number, request: Struct, reply: ReplyLayout, names = 0, optional = 0): Opcode => ({
  number,
  since,
  request,
  names,
  optional,
  reply,
});

/** Every opcode by its name in <linux/fuse.h>. */
export const OPCODES = {
  LOOKUP: op(1, 1, NOTHING, ENTRY_OUT, 1),
  FORGET: op(2, 1, FORGET_IN, 'never'),
  GETATTR: op(3, 9, GETATTR_IN, ATTR_OUT),
  SETATTR: op(4, 1, SETATTR_IN, ATTR_OUT),
  READLINK: op(5, 1, NOTHING, 'never'),
  SYMLINK: op(6, 1, NOTHING, 'never', 2),
  MKNOD: op(8, 12, MKNOD_IN, 'never', 1),
  MKDIR: op(9, 12, MKDIR_IN, 'never', 1),
  UNLINK: op(10, 1, NOTHING, 'never', 1),
  RMDIR: op(11, 1, NOTHING, 'never', 1),
  RENAME: op(12, 1, RENAME_IN, 'never', 2),
  LINK: op(13, 1, LINK_IN, 'never', 1),
  OPEN: op(14, 1, OPEN_IN, OPEN_OUT),
  READ: op(15, 9, READ_IN, 'data'),
  WRITE: op(16, 9, WRITE_IN, WRITE_OUT),
  STATFS: op(17, 1, NOTHING, STATFS_OUT),
  RELEASE: op(18, 8, RELEASE_IN, 'empty'),
  FSYNC: op(20, 1, FSYNC_IN, 'empty'),
  SETXATTR: op(21, 1, XATTR_IN, 'never', 1),
  GETXATTR: op(22, 1, XATTR_IN, 'never', 1),
  LISTXATTR: op(23, 1, XATTR_IN, 'never'),
  REMOVEXATTR: op(24, 1, NOTHING, 'never', 1),
  FLUSH: op(25, 1, FLUSH_IN, 'empty'),
  INIT: op(26, 1, INIT_IN, INIT_OUT, 0, 4),
  OPENDIR: op(27, 1, OPEN_IN, OPEN_OUT),
  READDIR: op(28, 1, READ_IN, 'data'),
  RELEASEDIR: op(29, 8, RELEASE_IN, 'empty'),
  FSYNCDIR: op(30, 2, FSYNC_IN, 'never'),
  GETLK: op(31, 7, NOTHING, 'never'),
  SETLK: op(32, 7, NOTHING, 'never'),
  SETLKW: op(33, 7, NOTHING, 'never'),
  ACCESS: op(34, 3, ACCESS_IN, 'never'),
  CREATE: op(35, 12, CREATE_IN, 'never', 1),
  INTERRUPT: op(36, 7, INTERRUPT_IN, 'never'),
  BMAP: op(37, 8, NOTHING, 'never'),
  DESTROY: op(38, 8, NOTHING, 'empty'),
  IOCTL: op(39, 11, IOCTL_IN, 'never'),
  POLL: op(40, 21, POLL_IN, POLL_OUT),
  NOTIFY_REPLY: op(41, 15, NOTHING, 'never'),
  BATCH_FORGET: op(42, 16, BATCH_FORGET_IN, 'never'),
  FALLOCATE: op(43, 19, FALLOCATE_IN, 'never'),
  READDIRPLUS: op(44, 21, READ_IN, 'never'),
  RENAME2: op(45, 23, RENAME2_IN, 'never', 2),
  LSEEK: op(46, 24, LSEEK_IN, 'never'),
  COPY_FILE_RANGE: op(47, 28, NOTHING, 'never'),
  SETUPMAPPING: op(48, 31, NOTHING, 'never'),
  REMOVEMAPPING: op(49, 31, NOTHING, 'never'),
  SYNCFS: op(50, 34, NOTHING, 'never'),
  TMPFILE: op(51, 37, CREATE_IN, 'never', 1),
  STATX: op(52, 39, NOTHING, 'never'),
} as const satisfies Record<string, Opcode>;

export type OpcodeName = keyof typeof OPCODES;

/** Name and entry of each opcode, by its number. */
export const BY_NUMBER: ReadonlyMap<number, Opcode & { readonly name: OpcodeName }> = new Map(
  (Object.entries(OPCODES) as [OpcodeName, Opcode][]).map(([name, entry]) => [entry.number, { name, ...entry }]),
);

/** INIT flags by bit number; 32 and above are in `flags2`. Only those that this server asks for or looks at. */
export const INIT_BIT = {
  ATOMIC_O_TRUNC: 3,
  BIG_WRITES: 5,
  PARALLEL_DIROPS: 18,
  ABORT_ERROR: 21,
  MAX_PAGES: 22,
  INIT_EXT: 30,
  REQUEST_TIMEOUT: 42,
} as const;

export const FOPEN = { DIRECT_IO: 1, KEEP_CACHE: 2, NONSEEKABLE: 4, CACHE_DIR: 8, STREAM: 16, NOFLUSH: 32 } as const;

export const FATTR = { MODE: 1, UID: 2, GID: 4, SIZE: 8, ATIME: 16, MTIME: 32, FH: 64, CTIME: 0x400 } as const;

export const NOTIFY = { POLL: 1, INVAL_INODE: 2, INVAL_ENTRY: 3, DELETE: 6 } as const;

export const POLL_SCHEDULE_NOTIFY = 1;

/** Of `write_flags`: `lock_owner` says which process writes, as FLUSH says which one closes. */
export const WRITE_LOCKOWNER = 2;

/** File type bits of `mode`. */
export const S_IFDIR = 0o040000;
export const S_IFREG = 0o100000;

/** Writes a reply's header. `length` counts the whole message, `error` is 0 or minus the errno. */
export function putOutHeader(buffer: Buffer, length: number, error: number, unique: number): void {
  buffer.writeUInt32LE(length, OUT_HEADER.at.len);
  buffer.writeInt32LE(error, OUT_HEADER.at.error);
  putU64(buffer, OUT_HEADER.at.unique, unique);
}

/**
 * Writes one directory entry at `at`, if it ends before `end`. `off` is the offset at which the next READDIR goes on.
 * Returns the offset behind it, or -1 if there is no room.
 */
export function putDirent(
  buffer: Buffer,
  at: number,
  end: number,
  ino: number,
  off: number,
  mode: number,
  name: string,
): number {
  const length = Buffer.byteLength(name);
  const next = at + ((DIRENT.bytes + length + 7) & ~7);
  if (next > end) return -1;
  putU64(buffer, at + DIRENT.at.ino, ino);
  putU64(buffer, at + DIRENT.at.off, off);
  buffer.writeUInt32LE(length, at + DIRENT.at.namelen);
  buffer.writeUInt32LE(mode >>> 12, at + DIRENT.at.type);
  buffer.write(name, at + DIRENT.bytes);
  buffer.fill(0, at + DIRENT.bytes + length, next);
  return next;
}

/** The NUL-terminated name at `at` of a message of `length` bytes; undefined if it does not end within. */
export function getName(buffer: Buffer, at: number, length: number): string | undefined {
  const end = buffer.indexOf(0, at);
  return end < 0 || end >= length ? undefined : buffer.toString('utf8', at, end);
}

/** Length below which a request of this opcode is malformed: each name has at least its NUL. */
export function minimalLength(opcode: Opcode): number {
  return IN + opcode.request.bytes - opcode.optional + opcode.names;
}

/** One line that shows a request; the grammar is in trace.ts. */
export function printRequest(buffer: Buffer, length: number): string {
  const header = decode(IN_HEADER, buffer);
  const opcode = BY_NUMBER.get(header.opcode);
  let line = `rx ${header.unique} ${opcode?.name ?? `opcode-${header.opcode}`} nodeid=${header.nodeid}`;
  line += ` uid=${header.uid} gid=${header.gid} pid=${header.pid}`;
  if (opcode === undefined) return `${line} len=${length}`;
  line += print(opcode.request, buffer, length);
  let at = IN + opcode.request.bytes;
  for (let index = 0; index < opcode.names; index++) {
    const name = getName(buffer, at, length);
    if (name === undefined) break;
    line += ` name=${JSON.stringify(name)}`;
    at += Buffer.byteLength(name) + 1;
  }
  return line;
}

/** One line that shows a reply or a notification; `error` is the symbolic name of the reply's errno. */
export function printReply(opcode: OpcodeName | 'NOTIFY_POLL', buffer: Buffer, length: number, error: string): string {
  const unique = getU64(buffer, OUT_HEADER.at.unique);
  const line = `tx ${unique} ${opcode}`;
  if (error !== '') return `${line} ${error}`;
  const layout = opcode === 'NOTIFY_POLL' ? NOTIFY_POLL_OUT : OPCODES[opcode].reply;
  if (layout === 'data') return `${line} ok len=${length - OUT}`;
  return typeof layout === 'string' ? `${line} ok` : `${line} ok${print(layout, buffer, length)}`;
}
