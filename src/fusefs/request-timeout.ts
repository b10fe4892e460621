/**
 * The kernel's time-out of requests, and how a read blocks for a week in spite of it.
 *
 * Since FUSE protocol 7.43 an administrator can set one (sysctl fs.fuse.default_request_timeout, max_request_timeout): when
 * one request of a mount went unanswered for so long, the kernel ends the whole mount, not the request. A blocked read is
 * such a request. So:
 *
 *     neither is set --> ask for nothing: the kernel never looks
 *     one is set ------> ask for the longest (which the default gives way to, the maximum does not), and answer whatever
 *                        waits with EINTR after half of what is in force: it is asked again, with a clock of its own
 *
 * A mount keeps the time-out that it began with; what the sysctls say later does not concern it.
 */
import { readFileSync } from 'node:fs';

/** Longest time that the kernel lets a server ask for, seconds. */
export const LONGEST_REQUEST_TIMEOUT_S = 65_535;

/** The two sysctls, in seconds; 0: not set, or not known to this kernel. */
export interface TimeoutSettings {
  readonly defaultS: number;
  readonly maximumS: number;
}

export interface RequestTimeout {
  /** What to ask the kernel for in INIT, seconds; 0: nothing. */
  readonly askS: number;
  /** How long a request may wait, so that the mount lives; 0: for ever. */
  readonly patienceMs: number;
}

/** @param canAsk whether the server has a say in INIT */
export function requestTimeout({ defaultS, maximumS }: TimeoutSettings, canAsk: boolean): RequestTimeout {
  if (defaultS === 0 && maximumS === 0) return { askS: 0, patienceMs: 0 };
  const wanted = canAsk ? LONGEST_REQUEST_TIMEOUT_S : defaultS || maximumS;
  const inForceS = maximumS === 0 ? wanted : Math.min(wanted, maximumS);
  return { askS: canAsk ? LONGEST_REQUEST_TIMEOUT_S : 0, patienceMs: (inForceS * 1000) / 2 };
}

const SYSCTLS = '/proc/sys/fs/fuse';

/** What is set now. @param read gives the text of a file, or throws where it is not there */
export function timeoutSettings(
  read: (file: string) => string = (file) => readFileSync(file, 'latin1'),
): TimeoutSettings {
  const seconds = (name: string): number => {
    try {
      return Number.parseInt(read(`${SYSCTLS}/${name}`), 10) || 0;
    } catch {
      return 0;
    }
  };
  return { defaultS: seconds('default_request_timeout'), maximumS: seconds('max_request_timeout') };
}
