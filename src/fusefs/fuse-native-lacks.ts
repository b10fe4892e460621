/**
 * What the backend on fuse-native cannot do, by name: one line each that says what happens instead. The tests that run
 * against every backend read this table to know which of their cases must fail there; test/fusefs/fuse-native-lacks.ts
 * shows each entry on a mount.
 */
export const LACKS = {
  interrupt:
    'no signal reaches the server: a blocked read or write ends within FUSE_NATIVE_PATIENCE_MS, an open, an fsync or a close only when it is done',
  'blocking-read':
    'a read or write that blocks gives EINTR at intervals though no signal came: cat, dd, Python and bash ask again, tcpdump -r ends',
  poll: 'poll, select and epoll always find a file ready to be read and written',
  stream:
    'a file has a position: a read that blocks holds up a write on the same descriptor, and lseek and pread do not give ESPIPE',
  'late-nonblock': 'O_NONBLOCK counts only when open was given it',
  'own-inode': 'all openers of a name share an inode: a write that is held holds up their writes, O_TRUNC and utimes',
  'open-attributes':
    'fstat asks by name: of an open file whose name is gone it gives ENOENT, and cat, which asks before it reads or writes, ends',
  'large-requests': 'the kernel cuts reads and writes into pieces of 128 KiB',
  'wide-inodes': 'stat shows the low 32 bits of the inode number',
  'nested-mount-point': 'it does not mount on a directory that is a mount point already',
} as const satisfies Record<string, string>;

export type Lack = keyof typeof LACKS;
