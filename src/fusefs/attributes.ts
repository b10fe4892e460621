/**
 * The permission bits that stat(2) shows, and what chmod(2), chown(2), truncate(2) and utimes(2) can do to a file of ours: nothing, but some of it is accepted.
 *
 * Times and sizes are accepted and not kept, as a device file would; rights and owners can't be changed from here. Giving
 * a stream away is accepted without effect: `tcpdump -w` does it before it writes, and ends if it can't.
 */
import type { Node, Owner } from './tree.js';

/** Permission bits of a node as stat(2) shows and the kernel checks them. */
export function shownMode(node: Node, { umask }: Owner): number {
  return umask === undefined ? node.mode : (((node.mode >> 6) & 7) * 0o111) & ~umask;
}

/** What the caller wants; undefined: as it is. */
export interface Wish {
  /** Permission bits. */
  readonly mode?: number | undefined;
  readonly uid?: number | undefined;
  readonly gid?: number | undefined;
}

/** Whether the wish is granted: it changes nothing, or it may be taken for done. */
export function isGranted(node: Node, owner: Owner, { mode, uid, gid }: Wish): boolean {
  const isStream = node.kind === 'file' && node.stream;
  const owned = isStream || ((uid ?? owner.uid) === owner.uid && (gid ?? owner.gid) === owner.gid);
  return owned && (mode ?? shownMode(node, owner)) === shownMode(node, owner);
}
