/** Open directories: each listing is taken when its reading begins, so that one pass neither repeats nor skips a name. */
import { constants } from 'node:os';
import { putDirent, S_IFDIR, S_IFREG } from './abi.js';
import type { DirectoryNode, Entry } from './tree.js';

export class DirectoryTable {
  private readonly listings = new Map<number, Entry[]>();
  private nextFh = 1;

  open(): number {
    const fh = this.nextFh++;
    this.listings.set(fh, []);
    return fh;
  }

  release(fh: number): void {
    this.listings.delete(fh);
  }

  /**
   * Writes as many entries as fit into `room` bytes at `start` of `out`, from entry number `position` on; position 0 takes
   * the listing anew. Returns the bytes written, 0 at the end, or minus the errno.
   */
  read(
    fh: number,
    position: number,
    directory: DirectoryNode,
    parentIno: number,
    out: Buffer,
    start: number,
    room: number,
  ): number {
    if (!this.listings.has(fh)) return -constants.errno.EBADF;
    if (position === 0) {
      const dots = [
        { name: '.', directory: true, ino: directory.ino },
        { name: '..', directory: true, ino: parentIno },
      ];
      this.listings.set(fh, [...dots, ...directory.list()]);
    }
    const entries = this.listings.get(fh) ?? [];
    let at = start;
    for (let index = position; index < entries.length; index++) {
      const entry = entries[index];
      if (entry === undefined) break;
      const type = entry.directory ? S_IFDIR : S_IFREG;
      const next = putDirent(out, at, start + room, entry.ino, index + 1, type, entry.name);
      if (next < 0) break;
      at = next;
    }
    return at - start;
  }
}
