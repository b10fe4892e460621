/**
 * The system calls that fwdfs makes, through koffi: the one place where a C signature stands.
 *
 * Two forms. The functions of `sys` are for the packet path: they return what the kernel returned, or minus the errno, and
 * never throw. `must` turns such a result into a thrown SystemError for everything else. Buffers are handed over as Node
 * Buffers; where the kernel wants a structure full of pointers, `addressOf` gives the address of a Buffer's first byte.
 *
 * A Buffer's address is stable only while something references the Buffer, so whoever stores an address also keeps the
 * Buffer. Flags and numbers are those of x86-64 and arm64 Linux, which agree in all that is used here.
 */
import koffi from 'koffi';
import { SystemError } from '../base/errors.js';

const libc = koffi.load('libc.so.6');

const c = {
  open: libc.func('int open(const char *path, int flags, int mode)'),
  close: libc.func('int close(int fd)'),
  read: libc.func('long read(int fd, void *buf, size_t count)'),
  write: libc.func('long write(int fd, const void *buf, size_t count)'),
  readv: libc.func('long readv(int fd, const void *iov, int count)'),
  writev: libc.func('long writev(int fd, const void *iov, int count)'),
  ioctl: libc.func('int ioctl(int fd, unsigned long request, void *arg)'),
  ioctlInt: libc.func('int ioctl(int fd, unsigned long request, long arg)'),
  fcntl: libc.func('int fcntl(int fd, int command, long arg)'),
  fcntlPtr: libc.func('int fcntl(int fd, int command, void *arg)'),
  socket: libc.func('int socket(int family, int type, int protocol)'),
  socketpair: libc.func('int socketpair(int family, int type, int protocol, void *fds)'),
  bind: libc.func('int bind(int fd, const void *address, unsigned int length)'),
  listen: libc.func('int listen(int fd, int backlog)'),
  send: libc.func('long send(int fd, const void *buf, size_t count, int flags)'),
  recv: libc.func('long recv(int fd, void *buf, size_t count, int flags)'),
  sendto: libc.func(
    'long sendto(int fd, const void *buf, size_t count, int flags, const void *to, unsigned int length)',
  ),
  recvmsg: libc.func('long recvmsg(int fd, void *msghdr, int flags)'),
  recvmmsg: libc.func('int recvmmsg(int fd, void *msgvec, unsigned int count, int flags, void *timeout)'),
  sendmmsg: libc.func('int sendmmsg(int fd, void *msgvec, unsigned int count, int flags)'),
  setsockopt: libc.func('int setsockopt(int fd, int level, int name, const void *value, unsigned int length)'),
  getsockopt: libc.func('int getsockopt(int fd, int level, int name, void *value, void *length)'),
  getsockname: libc.func('int getsockname(int fd, void *address, void *length)'),
  poll: libc.func('int poll(void *fds, unsigned long count, int timeout)'),
  mmap: libc.func('void *mmap(void *address, size_t length, int protection, int flags, int fd, long offset)'),
  munmap: libc.func('int munmap(void *address, size_t length)'),
  flock: libc.func('int flock(int fd, int operation)'),
  setns: libc.func('int setns(int fd, int type)'),
  unshare: libc.func('int unshare(int flags)'),
  mount: libc.func(
    'int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)',
  ),
  umount2: libc.func('int umount2(const char *target, int flags)'),
  ifNameToIndex: libc.func('unsigned int if_nametoindex(const char *name)'),
  sysconf: libc.func('long sysconf(int name)'),
  // perf_event_open(2) has no function of its own in libc.
  perfEventOpen: libc.func(
    'long syscall(long number, void *attr, long pid, long cpu, long group, unsigned long flags)',
  ),
};

const SYS_PERF_EVENT_OPEN = process.arch === 'arm64' ? 241 : 298;
const SC_PAGESIZE = 30;

const err = (result: number): number => (result === -1 ? -koffi.errno() : result);

/** System calls that return minus the errno on failure. */
export const sys = {
  open: (path: string, flags: number, mode = 0): number => err(c.open(path, flags, mode)),
  close: (fd: number): number => err(c.close(fd)),
  /** @param buffer bytes land at its start @param count at most this many bytes */
  read: (fd: number, buffer: Buffer, count: number): number => err(c.read(fd, buffer, count)),
  write: (fd: number, buffer: Buffer, count: number): number => err(c.write(fd, buffer, count)),
  /** @param iov array of struct iovec, see `putIovec` */
  readv: (fd: number, iov: Buffer, count: number): number => err(c.readv(fd, iov, count)),
  writev: (fd: number, iov: Buffer, count: number): number => err(c.writev(fd, iov, count)),
  ioctl: (fd: number, request: number, arg: Buffer): number => err(c.ioctl(fd, request, arg)),
  ioctlInt: (fd: number, request: number, arg: number): number => err(c.ioctlInt(fd, request, arg)),
  fcntl: (fd: number, command: number, arg: number): number => err(c.fcntl(fd, command, arg)),
  fcntlBuffer: (fd: number, command: number, arg: Buffer): number => err(c.fcntlPtr(fd, command, arg)),
  socket: (family: number, type: number, protocol: number): number => err(c.socket(family, type, protocol)),
  /** @param fds 8 bytes, where the two descriptors land */
  socketpair: (family: number, type: number, protocol: number, fds: Buffer): number =>
    err(c.socketpair(family, type, protocol, fds)),
  bind: (fd: number, address: Buffer): number => err(c.bind(fd, address, address.length)),
  listen: (fd: number, backlog: number): number => err(c.listen(fd, backlog)),
  send: (fd: number, buffer: Buffer, count: number, flags: number): number => err(c.send(fd, buffer, count, flags)),
  recv: (fd: number, buffer: Buffer, count: number, flags: number): number => err(c.recv(fd, buffer, count, flags)),
  sendto: (fd: number, buffer: Buffer, count: number, flags: number, to: Buffer): number =>
    err(c.sendto(fd, buffer, count, flags, to, to.length)),
  /** @param msghdr struct msghdr (56 bytes) */
  recvmsg: (fd: number, msghdr: Buffer, flags: number): number => err(c.recvmsg(fd, msghdr, flags)),
  /** @param msgvec array of struct mmsghdr (64 bytes each) */
  recvmmsg: (fd: number, msgvec: Buffer, count: number, flags: number): number =>
    err(c.recvmmsg(fd, msgvec, count, flags, null)),
  sendmmsg: (fd: number, msgvec: Buffer, count: number, flags: number): number =>
    err(c.sendmmsg(fd, msgvec, count, flags)),
  setsockopt: (fd: number, level: number, name: number, value: Buffer): number =>
    err(c.setsockopt(fd, level, name, value, value.length)),
  /** @param length 4 bytes, socklen_t in and out */
  getsockopt: (fd: number, level: number, name: number, value: Buffer, length: Buffer): number =>
    err(c.getsockopt(fd, level, name, value, length)),
  getsockname: (fd: number, address: Buffer, length: Buffer): number => err(c.getsockname(fd, address, length)),
  /** @param fds array of struct pollfd (8 bytes each) @param timeout milliseconds, 0 returns at once */
  poll: (fds: Buffer, count: number, timeout: number): number => err(c.poll(fds, count, timeout)),
  flock: (fd: number, operation: number): number => err(c.flock(fd, operation)),
  setns: (fd: number, type: number): number => err(c.setns(fd, type)),
  unshare: (flags: number): number => err(c.unshare(flags)),
  mount: (source: string, target: string, type: string, flags: number, data: string): number =>
    err(c.mount(source, target, type, flags, data)),
  umount2: (target: string, flags: number): number => err(c.umount2(target, flags)),
  /** @param attr struct perf_event_attr @param pid -1: every process @param cpu -1: every processor */
  perfEventOpen: (attr: Buffer, pid: number, cpu: number, group: number, flags: number): number =>
    err(c.perfEventOpen(SYS_PERF_EVENT_OPEN, attr, pid, cpu, group, flags)),
};

/**
 * Closes a descriptor in a thread of its own: closing a packet socket waits for the kernel's other processors (7 to 20 ms),
 * and a hundred of them may go at once. The descriptor must not be used any more.
 *
 * @param done called when it is closed
 */
export function closeLater(fd: number, done: () => void = () => undefined): void {
  c.close.async(fd, () => done());
}

/** The result of a call of `sys`, or a thrown SystemError where it failed. */
export function must(syscall: string, result: number, about = ''): number {
  if (result < 0) throw new SystemError(syscall, -result, about);
  return result;
}

/** Why a shared library can't be loaded, or null. */
export function whyNoLibrary(name: string): string | null {
  try {
    koffi.load(name).unload();
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** Address of the first byte of a Buffer that the caller keeps referenced, as a number (user space is below 2^47). */
export function addressOf(buffer: Buffer): number {
  return Number(koffi.address(buffer));
}

/** Bytes of one struct iovec. */
export const IOVEC_BYTES = 16;

/** Writes struct iovec number `index`: { void *base; size_t length }. */
export function putIovec(iov: Buffer, index: number, address: number, length: number): void {
  const at = index * IOVEC_BYTES;
  putPointer(iov, at, address);
  putPointer(iov, at + 8, length);
}

/** Writes a 64-bit pointer or size given as a number below 2^53. */
export function putPointer(buffer: Buffer, offset: number, value: number): void {
  const high = Math.floor(value / 0x1_0000_0000);
  buffer.writeUInt32LE(value - high * 0x1_0000_0000, offset);
  buffer.writeUInt32LE(high, offset + 4);
}

export interface Mapping {
  readonly bytes: ArrayBuffer;
  unmap(): void;
}

const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;

/** Maps `length` bytes of a descriptor, shared and writable. After `unmap` the view must not be touched. */
export function mmap(fd: number, length: number, offset = 0): Mapping {
  const pointer: unknown = c.mmap(null, length, PROT_READ_WRITE, MAP_SHARED, fd, offset);
  const errno = koffi.errno();
  const address = koffi.address(pointer);
  if (address === null || BigInt.asIntN(64, address) === -1n) throw new SystemError('mmap', errno);
  return {
    bytes: koffi.view(pointer, length),
    unmap: () => void must('munmap', err(c.munmap(pointer, length))),
  };
}

/** Bytes of a page of memory, the unit of mappings. */
export function pageBytes(): number {
  return must('sysconf', err(c.sysconf(SC_PAGESIZE)));
}

/** Index of an interface of this network namespace. */
export function ifNameToIndex(name: string): number {
  const index: number = c.ifNameToIndex(name);
  if (index === 0) throw new SystemError('if_nametoindex', koffi.errno(), name);
  return index;
}

export const O = {
  RDONLY: 0,
  WRONLY: 1,
  RDWR: 2,
  ACCMODE: 3,
  TRUNC: 0o1000,
  APPEND: 0o2000,
  NONBLOCK: 0o4000,
  DSYNC: 0o10000,
  ASYNC: 0o20000,
  CLOEXEC: 0o2000000,
  SYNC: 0o4010000,
} as const;

export const F = { GETFD: 1, SETFD: 2, GETFL: 3, SETFL: 4, SETOWN: 8, SETOWN_EX: 15, DUPFD_CLOEXEC: 1030 } as const;

export const POLL = { IN: 1, PRI: 2, OUT: 4, ERR: 8, HUP: 16, RDNORM: 0x40, WRNORM: 0x100 } as const;

export const CLONE_NEWNET = 0x40000000;
