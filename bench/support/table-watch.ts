/** A forwarder's distribution table, watched by poll(2) from a process beside the mount. */
import { openSync, readSync } from 'node:fs';
import { POLL, sys } from '../../src/sys/libc.js';

const PATIENCE_MS = 2000;

export class TableWatch {
  private readonly table: number;
  private readonly text = Buffer.alloc(1 << 16);

  /** @param folder of the forwarder in the mount */
  constructor(folder: string) {
    this.table = openSync(`${folder}/.tables/distribution`, 'r');
  }

  /** Whether the table has a rule of this protocol address; the next `changed` waits for what comes after this look. */
  has(protocol: string): boolean {
    for (;;) {
      try {
        const length = readSync(this.table, this.text, 0, this.text.length, 0);
        return this.text.toString('latin1', 0, length).includes(`\t${protocol}\t`);
      } catch (error) {
        // SIGCHLD of a child.
        if (!(error instanceof Error) || !('code' in error) || error.code !== 'EINTR') throw error;
      }
    }
  }

  /** Waits for the table to change, without a question to anybody meanwhile. */
  changed(): void {
    const fds = Buffer.alloc(8);
    fds.writeInt32LE(this.table, 0);
    fds.writeInt16LE(POLL.PRI, 4);
    // SIGCHLD again.
    while (sys.poll(fds, 1, PATIENCE_MS) < 0);
  }
}
