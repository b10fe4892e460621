/** What the kernel says about a process. */
import { readFileSync } from 'node:fs';

/** Whether it waits for a file server's answer. False for one that is not there. */
export function isBlocked(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/wchan`, 'latin1') === 'request_wait_answer';
  } catch {
    return false;
  }
}

/** Number of read(2) by architecture. */
const READ_CALL: Readonly<Record<string, string>> = { x64: '0', arm64: '63' };

/** Whether it waits so in a read, not in an open or another call that is about to be answered. */
export function isReading(pid: number): boolean {
  try {
    return (
      isBlocked(pid) && readFileSync(`/proc/${pid}/syscall`, 'latin1').split(' ', 1)[0] === READ_CALL[process.arch]
    );
  } catch {
    return false;
  }
}

/** Its state as a letter: R, S, D, T, Z. Empty for one that is not there. */
export function processState(pid: number): string {
  try {
    return /\) (\S)/.exec(readFileSync(`/proc/${pid}/stat`, 'latin1'))?.[1] ?? '';
  } catch {
    return '';
  }
}
