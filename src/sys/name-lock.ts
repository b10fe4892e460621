/**
 * A name that one process of a network namespace holds at a time: an abstract Unix address, bound and never listened at.
 * The kernel gives it back when the process ends, however it ends.
 */
import { must, O, sys } from './libc.js';

const AF_UNIX = 1;
const SOCK_DGRAM = 2;

/** @param name at most 100 bytes @returns what gives the name back @throws SystemError EADDRINUSE while another has it */
export function holdName(name: string): () => void {
  const fd = must('socket', sys.socket(AF_UNIX, SOCK_DGRAM | O.CLOEXEC, 0));
  const address = Buffer.concat([Buffer.from([AF_UNIX, 0, 0]), Buffer.from(name)]);
  const result = sys.bind(fd, address);
  if (result < 0) sys.close(fd);
  must('bind', result, name);
  return () => void sys.close(fd);
}
