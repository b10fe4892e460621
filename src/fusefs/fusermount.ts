/**
 * Mounting by others than root: fusermount3, the setuid program of the fuse3 package, opens /dev/fuse with the rights of the
 * user, mounts, and hands the descriptor over.
 *
 *     socket pair --> fusermount3, its end as descriptor 3 (_FUSE_COMMFD) --SCM_RIGHTS--> descriptor of /dev/fuse
 *
 * It never looks at what is mounted, so that it does not wait for a server, not even for this one. Of what goes wrong it
 * gives a line of words, which are all there is to tell causes apart.
 */
import { spawnSync } from 'node:child_process';
import { constants } from 'node:os';
import { FwdfsError, SystemError } from '../base/errors.js';
import { receiveFd, socketPair } from '../sys/fd-passing.js';
import { F, must, O, sys } from '../sys/libc.js';

const { EACCES, EBUSY, ENOENT, EPERM } = constants.errno;

const PROGRAM = 'fusermount3';
/** It waits for nobody; one that still hangs is ended. */
const HELPER_TIMEOUT_MS = 10_000;
const COMM_FD = 3;

const lacks = (what: string): Error => new FwdfsError('host-lacks', what);

/** What its words mean, and what to do. */
const CAUSES: readonly (readonly [RegExp, (mountPoint: string) => Error])[] = [
  [
    /user_allow_other/,
    () => lacks('-o allow_other by others than root needs the line user_allow_other in /etc/fuse.conf'),
  ],
  [/mount_max/, () => lacks('there are as many FUSE mounts as mount_max in /etc/fuse.conf allows')],
  [/fuse device not found/, () => lacks('this host has no /dev/fuse (modprobe fuse)')],
  [/failed to open \/dev\/fuse/, () => lacks('this user may not open /dev/fuse (as root: chmod 0666 /dev/fuse)')],
  [/mount failed: Operation not permitted/, () => lacks(`${PROGRAM} is not permitted to mount here`)],
  [
    /no write access|not owned by user|failed to access mountpoint/,
    (mountPoint) => new SystemError('mount', EACCES, `${mountPoint} (expected a directory of your own)`),
  ],
];

interface Outcome {
  readonly ok: boolean;
  /** The last line on stderr, without the program's name: warnings come before the error. */
  readonly said: string;
}

function fusermount(words: readonly string[], socket: number | 'ignore'): Outcome {
  const { status, stderr, error } = spawnSync(PROGRAM, words, {
    stdio: ['ignore', 'ignore', 'pipe', socket],
    env: { ...process.env, LC_ALL: 'C', _FUSE_COMMFD: String(COMM_FD) },
    timeout: HELPER_TIMEOUT_MS,
    killSignal: 'SIGKILL',
    encoding: 'utf8',
  });
  if (error !== undefined && 'code' in error && error.code === 'ENOENT') {
    throw lacks(`mounting by others than root needs ${PROGRAM} (apt-get install fuse3)`);
  }
  const said = (stderr ?? '').trim().split('\n').pop() ?? '';
  return { ok: status === 0, said: (said || error?.message || 'failed').replace(`${PROGRAM}: `, '') };
}

/** A value in its list of options: commas separate, backslashes escape. */
const escaped = (value: string): string => value.replaceAll(/[\\,]/g, '\\$&');

/**
 * Mounts with options that fusermount3 knows; it adds nosuid and nodev.
 * @returns the descriptor of /dev/fuse, as `mount` gives it
 */
export function mountByHelper(source: string, mountPoint: string, options: readonly string[]): number {
  const [ours, theirs] = socketPair();
  try {
    const list = [`fsname=${escaped(source)}`, 'subtype=fwdfs', ...options].join(',');
    const { ok, said } = fusermount(['-o', list, '--', mountPoint], theirs);
    if (!ok) {
      const cause = CAUSES.find(([words]) => words.test(said));
      throw cause === undefined ? new Error(`${PROGRAM}: ${said}`) : cause[1](mountPoint);
    }
    const fd = receiveFd(ours);
    const flags = must('fcntl', sys.fcntl(fd, F.GETFL, 0));
    must('fcntl', sys.fcntl(fd, F.SETFL, flags | O.NONBLOCK));
    return fd;
  } finally {
    sys.close(ours);
    sys.close(theirs);
  }
}

/** @returns 0 or minus the errno, as umount2(2): EPERM also for a mount of another user, ENOENT where there is none */
export function unmountByHelper(mountPoint: string, lazy: boolean): number {
  const { ok, said } = fusermount(['-u', ...(lazy ? ['-z'] : []), '--', mountPoint], 'ignore');
  if (ok) return 0;
  if (/resource busy/.test(said)) return -EBUSY;
  return /not found in|not mounted|Invalid argument/.test(said) ? -ENOENT : -EPERM;
}
