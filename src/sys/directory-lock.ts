/** A directory that one process works on at a time, flock(2). The kernel gives the lock back when the process ends. */
import { constants } from 'node:os';
import { must, O, sys } from './libc.js';

const LOCK_EX = 2;
const LOCK_NB = 4;

/** Does not wait. @returns what gives it back, undefined while another has it @throws SystemError where it can't be opened */
export function holdDirectory(path: string): (() => void) | undefined {
  const fd = must('open', sys.open(path, O.RDONLY | O.CLOEXEC), path);
  const result = sys.flock(fd, LOCK_EX | LOCK_NB);
  if (result < 0) sys.close(fd);
  if (result === -constants.errno.EWOULDBLOCK) return undefined;
  must('flock', result, path);
  return () => void sys.close(fd);
}
