/**
 * The mounts of fwdfs on this host, found without touching them: whoever touches a mount whose server is stopped waits for
 * it. What must touch one does so in a child process that can be left behind.
 */
import { spawn } from 'node:child_process';
import { readFileSync, readlinkSync } from 'node:fs';
import { join, resolve } from 'node:path';

export const MOUNT_TYPE = 'fuse.fwdfs';

/** How long a control device may take to answer before it counts as silent. */
const PROBE_TIMEOUT_MS = 2000;
/** As many links as the kernel follows in a path. */
const MAX_LINKS = 40;

/** Mount points whose top mount is one of ours, in the order in which they were mounted. */
export function fwdfsMounts(mountinfo = readFileSync('/proc/self/mountinfo', 'latin1')): string[] {
  const types = new Map<string, string>();
  for (const line of mountinfo.split('\n')) {
    // 36 35 98:0 /root /mount/point options [optional fields] - type source super-options
    const place = line.split(' ')[4];
    const type = line.slice(line.indexOf(' - ') + 3).split(' ')[0];
    if (place === undefined || type === undefined) continue;
    const path = place.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
    const name = Buffer.from(path, 'latin1').toString();
    types.delete(name);
    types.set(name, type);
  }
  return [...types].filter(([, type]) => type === MOUNT_TYPE).map(([path]) => path);
}

/**
 * Where a path of the user leads: absolute and without symbolic links, up to a mount of ours. What is below one would be
 * asked of its server, so it is left as it is; so is what is not there.
 */
function placeOf(path: string, mounts: readonly string[]): string {
  let names = resolve(path).split('/').slice(1);
  let place = '/';
  for (let links = 0; names.length > 0; names = names.slice(1)) {
    const next = join(place, names[0] ?? '');
    if (mounts.includes(next)) return join(place, ...names);
    const target = linkTarget(next);
    if (target === undefined || ++links > MAX_LINKS) place = next;
    else {
      names = ['', ...resolve(place, target).split('/').slice(1), ...names.slice(1)];
      place = '/';
    }
  }
  return place;
}

/** @returns undefined where it is no link, or not there */
export function linkTarget(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

/**
 * The mount of ours that a path of the user names, as /proc shows it. Follows symbolic links, but never looks into a mount
 * of ours. @returns undefined where it names none
 */
export function mountAt(path: string, mounts: readonly string[] = fwdfsMounts()): string | undefined {
  const place = placeOf(path, mounts);
  return mounts.includes(place) ? place : undefined;
}

/** The mounts of ours that the way to a path leads through, outermost first: the servers of all of them are asked. */
export function mountsAbove(path: string, mounts: readonly string[] = fwdfsMounts()): string[] {
  const place = placeOf(path, mounts);
  return mounts.filter((mount) => place.startsWith(`${mount}/`)).sort((a, b) => a.length - b.length);
}

/** The mount that `-m` names, or the only one. Throws one line where there is none, or more than one. */
export function chooseMount(wanted: string | undefined, mounts: readonly string[] = fwdfsMounts()): string {
  if (wanted !== undefined) {
    const found = mountAt(wanted, mounts);
    if (found !== undefined) return found;
    throw new Error(`${wanted} is no mount of fwdfs: ${thereAre(mounts)}`);
  }
  const [only, second] = mounts;
  if (only === undefined) throw new Error('there is no mount of fwdfs: make one with fwdfs mount SOURCE MOUNTPOINT');
  if (second !== undefined) throw new Error(`there are several mounts, say which with -m: ${mounts.join(', ')}`);
  return only;
}

function thereAre(mounts: readonly string[]): string {
  return mounts.length === 0 ? 'there is none (fwdfs mount SOURCE MOUNTPOINT makes one)' : `try ${mounts.join(', ')}`;
}

/**
 * - `alive`: its control device answers
 * - `dead`: there is none any more
 * - `silent`: it does not answer, for instance because it is stopped
 */
export type Pulse = 'alive' | 'dead' | 'silent';

/** Asks the control device of a mount for a sign of life. */
export function pulseOf(mountPoint: string, timeoutMs = PROBE_TIMEOUT_MS): Promise<Pulse> {
  return new Promise((settle, reject) => {
    // statfs is never answered from a cache.
    const child = spawn('stat', ['-f', '--', mountPoint], {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, LC_ALL: 'C' },
    });
    let stderr = '';
    child.stderr.on('data', (data: Buffer) => {
      stderr += data.toString();
    });
    const leave = (): void => {
      child.kill('SIGKILL');
      child.unref();
      child.stderr.destroy();
      settle('silent');
    };
    const timer = setTimeout(leave, timeoutMs);
    child.once('error', reject);
    child.once('close', () => {
      clearTimeout(timer);
      settle(/endpoint is not connected|connection abort/.test(stderr) ? 'dead' : 'alive');
    });
  });
}

/** Throws one line that says what to do if a path can't be reached because a mount that it is in does not answer. */
export async function requireReachable(path: string): Promise<void> {
  for (const outer of mountsAbove(path)) {
    const pulse = await pulseOf(outer);
    if (pulse === 'alive') continue;
    const what = pulse === 'dead' ? 'is gone: ' : 'does not answer: continue it if it is stopped, or ';
    throw new Error(
      `${path} is inside ${outer}, whose control device ${what}fwdfs umount ${outer}, which takes what is mounted in it along`,
    );
  }
}

/** Throws one line that says what to do if the control device of a mount does not answer. */
export async function requireAlive(mountPoint: string): Promise<void> {
  await requireReachable(mountPoint);
  const pulse = await pulseOf(mountPoint);
  if (pulse === 'dead') throw new Error(`the control device of ${mountPoint} is gone: fwdfs umount ${mountPoint}`);
  if (pulse === 'silent') throw silent(mountPoint);
}

export function silent(mountPoint: string): Error {
  return new Error(
    `the control device of ${mountPoint} does not answer: continue it if it is stopped, or fwdfs umount ${mountPoint}`,
  );
}
