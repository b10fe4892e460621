/** The FUSE wire format as <linux/fuse.h> has it, and messages that crossed /dev/fuse of Linux 6.18. */
import * as abi from '../../src/fusefs/abi.js';
import type { Struct } from '../../src/fusefs/struct.js';

/** Length and offsets as <linux/fuse.h> has them; offsets count from the start of the message. */
export const LAYOUTS: Record<string, [layout: Struct, bytes: number, at: Record<string, number>]> = {
  in_header: [
    abi.IN_HEADER,
    40,
    { len: 0, opcode: 4, unique: 8, nodeid: 16, uid: 24, gid: 28, pid: 32, total_extlen: 36 },
  ],
  out_header: [abi.OUT_HEADER, 16, { len: 0, error: 4, unique: 8 }],
  getattr_in: [abi.GETATTR_IN, 16, { getattr_flags: 40, fh: 48 }],
  setattr_in: [
    abi.SETATTR_IN,
    88,
    {
      valid: 40,
      fh: 48,
      size: 56,
      lock_owner: 64,
      atime: 72,
      mtime: 80,
      ctime: 88,
      atimensec: 96,
      mode: 108,
      uid: 116,
      gid: 120,
    },
  ],
  forget_in: [abi.FORGET_IN, 8, { nlookup: 40 }],
  batch_forget_in: [abi.BATCH_FORGET_IN, 8, { count: 40 }],
  forget_one: [abi.FORGET_ONE, 16, { nodeid: 0, nlookup: 8 }],
  open_in: [abi.OPEN_IN, 8, { flags: 40, open_flags: 44 }],
  read_in: [abi.READ_IN, 40, { fh: 40, offset: 48, size: 56, read_flags: 60, lock_owner: 64, flags: 72 }],
  write_in: [abi.WRITE_IN, 40, { fh: 40, offset: 48, size: 56, write_flags: 60, lock_owner: 64, flags: 72 }],
  release_in: [abi.RELEASE_IN, 24, { fh: 40, flags: 48, release_flags: 52, lock_owner: 56 }],
  flush_in: [abi.FLUSH_IN, 24, { fh: 40, lock_owner: 56 }],
  fsync_in: [abi.FSYNC_IN, 16, { fh: 40, fsync_flags: 48 }],
  poll_in: [abi.POLL_IN, 24, { fh: 40, kh: 48, flags: 56, events: 60 }],
  interrupt_in: [abi.INTERRUPT_IN, 8, { unique: 40 }],
  init_in: [abi.INIT_IN, 20, { major: 40, minor: 44, max_readahead: 48, flags: 52, flags2: 56 }],
  ioctl_in: [abi.IOCTL_IN, 32, { fh: 40, flags: 48, cmd: 52, arg: 56, in_size: 64, out_size: 68 }],
  entry_out: [
    abi.ENTRY_OUT,
    128,
    {
      nodeid: 16,
      generation: 24,
      entry_valid: 32,
      attr_valid: 40,
      entry_valid_nsec: 48,
      attr_valid_nsec: 52,
      ino: 56,
      mode: 116,
      blksize: 136,
      flags: 140,
    },
  ],
  attr_out: [
    abi.ATTR_OUT,
    104,
    {
      attr_valid: 16,
      attr_valid_nsec: 24,
      ino: 32,
      size: 40,
      blocks: 48,
      atime: 56,
      mtime: 64,
      ctime: 72,
      atimensec: 80,
      mode: 92,
      nlink: 96,
      uid: 100,
      gid: 104,
      rdev: 108,
      blksize: 112,
      flags: 116,
    },
  ],
  open_out: [abi.OPEN_OUT, 16, { fh: 16, open_flags: 24, backing_id: 28 }],
  write_out: [abi.WRITE_OUT, 8, { size: 16 }],
  poll_out: [abi.POLL_OUT, 8, { revents: 16 }],
  statfs_out: [
    abi.STATFS_OUT,
    80,
    { blocks: 16, bfree: 24, bavail: 32, files: 40, ffree: 48, bsize: 56, namelen: 60, frsize: 64 },
  ],
  init_out: [
    abi.INIT_OUT,
    64,
    {
      major: 16,
      minor: 20,
      max_readahead: 24,
      flags: 28,
      max_background: 32,
      congestion_threshold: 34,
      max_write: 36,
      time_gran: 40,
      max_pages: 44,
      map_alignment: 46,
      flags2: 48,
      max_stack_depth: 52,
      request_timeout: 56,
    },
  ],
  notify_poll_out: [abi.NOTIFY_POLL_OUT, 8, { kh: 16 }],
  dirent: [abi.DIRENT, 24, { ino: 0, off: 8, namelen: 16, type: 20 }],
};

/** Requests as Linux 6.18 sent them, and what the trace shows of each. */
export const REQUESTS: Record<string, [hex: string, line: string]> = {
  INIT: [
    '680000001a0000000200000000000000000000000000000000000000000000000000000000000000070000002d00000000000200fbffff73fd05000000000000' +
      '00000000000000000000000000000000000000000000000000000000000000000000000000000000',
    'rx 2 INIT nodeid=0 uid=0 gid=0 pid=0 major=7 minor=45 max_readahead=131072 flags=0x73fffffb flags2=0x5fd',
  ],
  LOOKUP: [
    '2d0000000100000006000000000000000100000000000000000000000000000096310000000000006563686f00',
    'rx 6 LOOKUP nodeid=1 uid=0 gid=0 pid=12694 name="echo"',
  ],
  GETATTR: [
    '3800000003000000040000000000000001000000000000000000000000000000963100000000000000000000000000000000000000000000',
    'rx 4 GETATTR nodeid=1 uid=0 gid=0 pid=12694',
  ],
  SETATTR: [
    '80000000040000001c00000000000000040000000000000000000000000000009631000000000000b0010000000000000000000000000000' +
      '00000000000000000000000000000000d7f9026b00000000d7f9026b0000000000000000000000005770c50c5770c50c0000000000000000' +
      '00000000000000000000000000000000',
    'rx 28 SETATTR nodeid=4 uid=0 gid=0 pid=12694 valid=0x1b0 atime=1795357143 mtime=1795357143 atimensec=214265943 mtimensec=214265943',
  ],
  OPEN: [
    '300000000e0000000a000000000000000200000000000000000000000000000096310000000000000280000000000000',
    'rx 10 OPEN nodeid=2 uid=0 gid=0 pid=12694 flags=0x8002',
  ],
  POLL: [
    '40000000280000000c00000000000000020000000000000000000000000000009631000000000000010000000000000001000000000000000100000019000000',
    'rx 12 POLL nodeid=2 uid=0 gid=0 pid=12694 fh=1 kh=1 flags=0x1 events=0x19',
  ],
  WRITE: [
    '55000000100000001000000000000000020000000000000000000000000000009631000000000000010000000000000000000000000000000500000002000000' +
      'f7b73fd8261bd2b3028000000000000068656c6c6f',
    'rx 16 WRITE nodeid=2 uid=0 gid=0 pid=12694 fh=1 size=5 write_flags=0x2 lock_owner=0x121b26d83fb7f7 flags=0x8002',
  ],
  READ: [
    '500000000f000000ae000000000000000f000000000000000000000000000000c031000000000000020000000000000000000000000000000000020002000000' +
      '474149ce41fdd41e0080000000000000',
    'rx 174 READ nodeid=15 uid=0 gid=0 pid=12736 fh=2 size=131072 read_flags=0x2 lock_owner=0x14fd41ce494147 flags=0x8000',
  ],
  INTERRUPT: [
    '3000000024000000af00000000000000000000000000000000000000000000000000000000000000ae00000000000000',
    'rx 175 INTERRUPT nodeid=0 uid=0 gid=0 pid=0 unique=174',
  ],
  FLUSH: [
    '40000000190000009e0000000000000002000000000000000000000000000000963100000000000001000000000000000000000000000000f7b73fd8261bd2b3',
    'rx 158 FLUSH nodeid=2 uid=0 gid=0 pid=12694 fh=1 lock_owner=0x121b26d83fb7f7',
  ],
  FSYNC: [
    '3800000014000000140000000000000002000000000000000000000000000000963100000000000001000000000000000000000000000000',
    'rx 20 FSYNC nodeid=2 uid=0 gid=0 pid=12694 fh=1',
  ],
  RELEASE: [
    '4000000012000000a000000000000000020000000000000000000000000000000000000000000000010000000000000002800000000000000000000000000000',
    'rx 160 RELEASE nodeid=2 uid=0 gid=0 pid=0 fh=1 flags=0x8002',
  ],
  FORGET: [
    '30000000020000002c000000000000000300000000000000000000000000000000000000000000000100000000000000',
    'rx 44 FORGET nodeid=3 uid=0 gid=0 pid=0 nlookup=1',
  ],
  BATCH_FORGET: [
    '500000002a000000400000000000000000000000000000000000000000000000000000000000000002000000000000000600000000000000010000000000000004000000000000000100000000000000',
    'rx 64 BATCH_FORGET nodeid=0 uid=0 gid=0 pid=0 count=2',
  ],
  READDIR: [
    '500000001c000000280000000000000005000000000000000000000000000000963100000000000001000000000000000000000000000000000002000000000000000000000000000088010000000000',
    'rx 40 READDIR nodeid=5 uid=0 gid=0 pid=12694 fh=1 size=131072 flags=0x18800',
  ],
  MKDIR: [
    '32000000090000003600000000000000010000000000000000000000000000009631000000000000ed010000120000006e00',
    'rx 54 MKDIR nodeid=1 uid=0 gid=0 pid=12694 mode=0755 umask=022 name="n"',
  ],
  RENAME: [
    '370000000c000000480000000000000001000000000000000000000000000000963100000000000001000000000000006563686f006e00',
    'rx 72 RENAME nodeid=1 uid=0 gid=0 pid=12694 newdir=1 name="echo" name="n"',
  ],
  SYMLINK: [
    '2c0000000600000050000000000000000100000000000000000000000000000096310000000000006e006100',
    'rx 80 SYMLINK nodeid=1 uid=0 gid=0 pid=12694 name="n" name="a"',
  ],
  LINK: [
    '320000000d000000620000000000000001000000000000000000000000000000963100000000000009000000000000006e00',
    'rx 98 LINK nodeid=1 uid=0 gid=0 pid=12694 oldnodeid=9 name="n"',
  ],
  CREATE: [
    '3c00000023000000760000000000000001000000000000000000000000000000963100000000000041820000a481000012000000000000006e657700',
    'rx 118 CREATE nodeid=1 uid=0 gid=0 pid=12694 flags=0x8241 mode=0100644 umask=022 name="new"',
  ],
  SETXATTR: [
    '38000000150000008a000000000000000d00000000000000000000000000000096310000000000000100000000000000757365722e610031',
    'rx 138 SETXATTR nodeid=13 uid=0 gid=0 pid=12694 size=1 name="user.a"',
  ],
  IOCTL: [
    '48000000270000009c000000000000000200000000000000000000000000000096310000000000000100000000000000000000000154000070097a3cfe7f00000000000000000000',
    'rx 156 IOCTL nodeid=2 uid=0 gid=0 pid=12694 fh=1 cmd=0x5401 arg=140729913051504',
  ],
  STATFS: [
    '28000000110000006c0100000000000001000000000000000000000000000000c331000000000000',
    'rx 364 STATFS nodeid=1 uid=0 gid=0 pid=12739',
  ],
};

/** Replies as Linux 6.18 took them, made from these values. */
export const REPLIES: Record<string, [layout: Struct, hex: string, values: Record<string, number>]> = {
  'ENTRY_OUT of a stream': [
    abi.ENTRY_OUT,
    '900000000000000006000000000000000200000000000000000000000000000000000000000000000000000000000000000000000000000007029bea8373190000' +
      '000000000000000000000000000000d6f9026b00000000d6f9026b00000000d6f9026b00000000000000000000000000000000b681000001000000000000000000' +
      '0000000000000000020000000000',
    {
      nodeid: 2,
      ino: 7163884831703559,
      atime: 1795357142,
      mtime: 1795357142,
      ctime: 1795357142,
      mode: 0o100666,
      nlink: 1,
      blksize: 131072,
    },
  ],
  'ATTR_OUT of a directory': [
    abi.ATTR_OUT,
    '7800000000000000060000000000000000000000000000000000000000000000664c5056db4b110000000000000000000000000000000000d6f9026b00000000d6' +
      'f9026b00000000d6f9026b00000000000000000000000000000000ed410000010000000000000000000000000000000000020000000000',
    {
      ino: 4868480022105190,
      atime: 1795357142,
      mtime: 1795357142,
      ctime: 1795357142,
      mode: 0o40755,
      nlink: 1,
      blksize: 131072,
    },
  ],
  'OPEN_OUT of a stream': [
    abi.OPEN_OUT,
    '2000000000000000060000000000000001000000000000001500000000000000',
    { fh: 1, open_flags: 21 },
  ],
  WRITE_OUT: [abi.WRITE_OUT, '180000000000000006000000000000000500000000000000', { size: 5 }],
  POLL_OUT: [abi.POLL_OUT, '180000000000000006000000000000004501000000000000', { revents: 0x145 }],
  INIT_OUT: [
    abi.INIT_OUT,
    '50000000000000000600000000000000070000001f0000000000020028006440400030000000100001000000000100000004000000000000ffff00000000000000000000000000000000000000000000',
    {
      major: 7,
      minor: 31,
      max_readahead: 131072,
      flags: 0x40640028,
      max_background: 64,
      congestion_threshold: 48,
      max_write: 1 << 20,
      time_gran: 1,
      max_pages: 256,
      flags2: 0x400,
      request_timeout: 65535,
    },
  ],
  STATFS_OUT: [
    abi.STATFS_OUT,
    '600000000000000006000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000100000ff0000000010000000000000000000000000000000000000000000000000000000000000',
    { bsize: 4096, namelen: 255, frsize: 4096 },
  ],
  NOTIFY_POLL_OUT: [abi.NOTIFY_POLL_OUT, '180000000000000006000000000000000100000000000000', { kh: 1 }],
};
