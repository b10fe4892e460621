/**
 * `fwdfs umount`: never hangs, whatever its readers and its control device do.
 *
 * Nothing here asks the server anything: neither umount2(2) nor fusermount3 does (fusefs/mount.ts), other than umount(8),
 * which looks at the mount first; and a mount inside another is only looked for where the outer one answers. Where it is
 * busy, a child process finds out how its control device is:
 *
 *     unmount --> unmounted
 *         | busy
 *         +-- alive:  stays mounted, exit 1: who uses it, and -l
 *         +-- dead:   unmounted lazily: what is open there can't be used any more
 *         +-- silent: its connection is ended, readers get ECONNABORTED; then lazily
 *     -l: lazily at once: who has files open goes on, the control device ends after the last close
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import type { Command } from 'commander';
import { SystemError } from '../base/errors.js';
import { action } from './exit.js';
import { fwdfsMounts, mountAt, pulseOf, requireReachable } from './mounts.js';

/** Processes that an error names. */
const MAX_NAMED_USERS = 3;

interface UmountFlags {
  readonly lazy?: boolean;
}

function links(folder: string): string[] {
  try {
    return readdirSync(folder).map((name) => `${folder}/${name}`);
  } catch {
    return [];
  }
}

function pointsInto(link: string, mountPoint: string): boolean {
  try {
    const target = readlinkSync(link);
    return target === mountPoint || target.startsWith(`${mountPoint}/`);
  } catch {
    return false;
  }
}

/** `cat (pid 17)` for each process with a file of the mount open or its working directory there. Does not touch the mount. */
function usersOf(mountPoint: string): string[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  const users = pids.filter((pid) =>
    [`/proc/${pid}/cwd`, `/proc/${pid}/root`, ...links(`/proc/${pid}/fd`)].some((link) => pointsInto(link, mountPoint)),
  );
  return users.flatMap((pid) => {
    try {
      return [`${readFileSync(`/proc/${pid}/comm`, 'utf8').trim()} (pid ${pid})`];
    } catch {
      return [];
    }
  });
}

function busy(mountPoint: string): Error {
  const users = usersOf(mountPoint);
  const named = users.slice(0, MAX_NAMED_USERS).join(', ');
  const more = users.length > MAX_NAMED_USERS ? ` and ${users.length - MAX_NAMED_USERS} more` : '';
  const who = users.length === 0 ? '' : `, it is used by ${named}${more}`;
  return new Error(`${mountPoint} is busy${who}: end them, or detach it with fwdfs umount -l ${mountPoint}`);
}

async function umount(argument: string, flags: UmountFlags): Promise<void> {
  const mounts = fwdfsMounts();
  const mountPoint = mountAt(argument, mounts);
  if (mountPoint === undefined) {
    const known = mounts.length === 0 ? 'there is none' : `there are ${mounts.join(', ')}`;
    throw new Error(`${argument} is no mount of fwdfs: ${known}`);
  }
  // Finding the mount point, umount2 asks the servers of the mounts that it is in.
  await requireReachable(mountPoint);
  const { breakConnection, unmount } = await import('../fusefs/mount.js');
  try {
    if (unmount(mountPoint, flags.lazy === true)) return;
    const pulse = await pulseOf(mountPoint);
    if (pulse === 'alive') throw busy(mountPoint);
    if (pulse === 'silent') {
      process.stderr.write(
        breakConnection(mountPoint)
          ? 'fwdfs: the control device did not answer: its connection was ended, open files with it\n'
          : 'fwdfs: the control device does not answer: who has files open waits until it is continued or killed\n',
      );
    }
    unmount(mountPoint, true);
  } catch (error) {
    if (!(error instanceof SystemError) || error.code !== 'EPERM') throw error;
    throw new Error(`${mountPoint} can't be unmounted by this user: sudo fwdfs umount ${argument}`, { cause: error });
  }
}

export function addUmountCommand(program: Command): void {
  program
    .command('umount')
    .description('end a mount; never hangs')
    .argument('<mountpoint>', 'where it is mounted')
    .option('-l, --lazy', 'detach it at once; who has files open goes on until the last close')
    .addHelpText(
      'after',
      `
A mount that is in use stays, unless its control device is gone or does not answer.

Examples:
  $ fwdfs umount /fwd
  $ fwdfs umount -l /fwd`,
    )
    .action(action(umount));
}
