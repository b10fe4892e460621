/**
 * A descriptor that another program opened and hands over: unix(7), SCM_RIGHTS.
 *
 *     socketPair() --> [ours, theirs]; theirs is inherited --> the program sends a byte with a descriptor --> receiveFd(ours)
 */
import { constants } from 'node:os';
import { SystemError } from '../base/errors.js';
import { addressOf, IOVEC_BYTES, must, O, putIovec, putPointer, sys } from './libc.js';

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_DONTWAIT = 0x40;
const MSG_CMSG_CLOEXEC = 0x40000000;

/** struct msghdr: where its fields are. */
const MSGHDR = { bytes: 56, iov: 16, iovlen: 24, control: 32, controllen: 40 } as const;
/** struct cmsghdr with one descriptor, and the padding behind it. */
const CMSG = { bytes: 24, level: 8, type: 12, fd: 16 } as const;

/** Two connected sockets, close-on-exec. */
export function socketPair(): readonly [number, number] {
  const fds = Buffer.alloc(8);
  must('socketpair', sys.socketpair(AF_UNIX, SOCK_STREAM | O.CLOEXEC, 0, fds));
  return [fds.readInt32LE(0), fds.readInt32LE(4)];
}

/**
 * The descriptor that was sent, close-on-exec; the caller's to close. Does not wait.
 * @throws {SystemError} EAGAIN where nothing was sent, EPROTO where it was no descriptor
 */
export function receiveFd(socket: number): number {
  const data = Buffer.alloc(1);
  const iov = Buffer.alloc(IOVEC_BYTES);
  const control = Buffer.alloc(CMSG.bytes);
  const message = Buffer.alloc(MSGHDR.bytes);
  putIovec(iov, 0, addressOf(data), data.length);
  putPointer(message, MSGHDR.iov, addressOf(iov));
  putPointer(message, MSGHDR.iovlen, 1);
  putPointer(message, MSGHDR.control, addressOf(control));
  putPointer(message, MSGHDR.controllen, control.length);
  must('recvmsg', sys.recvmsg(socket, message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC));
  // Whoever sends nothing but data leaves the control message empty.
  const passed = control.readInt32LE(CMSG.level) === SOL_SOCKET && control.readInt32LE(CMSG.type) === SCM_RIGHTS;
  if (!passed) throw new SystemError('recvmsg', constants.errno.EPROTO);
  return control.readInt32LE(CMSG.fd);
}
