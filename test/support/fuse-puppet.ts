/** A handle table between a file that the test moves and answers that the test reads. */
import { constants } from 'node:os';
import { silent } from '../../src/base/log.js';
import { type Answers, HandleTable } from '../../src/fusefs/handles.js';
import type { Patience } from '../../src/fusefs/patience.js';
import type { FileNode, OpenFile, OpenRequest, SyncReason } from '../../src/fusefs/tree.js';
import { streamFile } from './fuse-demo.js';

const { EAGAIN } = constants.errno;

/** Says what it was told, as lines: `read 4 3 abc`. */
export class Told implements Answers {
  readonly out = Buffer.alloc(80);
  readonly outStart = 16;
  readonly lines: string[] = [];
  gone = false;
  fh = 0;

  opened(id: number, fh: number): boolean {
    this.fh = fh;
    this.lines.push(`opened ${id}`);
    return !this.gone;
  }

  read(id: number, result: number): void {
    this.lines.push(`read ${id} ${result}${result > 0 ? ` ${this.out.toString('latin1', 16, 16 + result)}` : ''}`);
  }

  written(id: number, result: number): void {
    this.lines.push(`written ${id} ${result}`);
  }

  done(id: number, result: number): void {
    this.lines.push(`done ${id} ${result}`);
  }

  changed(kh: number): void {
    this.lines.push(`changed ${kh}`);
  }

  /** The lines since the last call. */
  take(): string[] {
    return this.lines.splice(0);
  }
}

/** A file whose answers the test sets. */
export class Puppet implements OpenFile {
  synchronous = false;
  chunks: string[] = [];
  room = 0;
  bits = 0;
  written = '';
  syncs: {
    reason: SyncReason;
    abandoned: AbortSignal | undefined;
    resolve: () => void;
    reject: (error: Error) => void;
  }[] = [];
  released = 0;
  wake: () => void = () => undefined;

  read(out: Buffer, offset: number, size: number): number {
    const chunk = this.chunks.shift();
    if (chunk === undefined) return -EAGAIN;
    if (chunk.length > size) this.chunks.unshift(chunk.slice(size));
    return out.write(chunk.slice(0, size), offset, 'latin1');
  }

  write(data: Buffer, offset: number, length: number): number {
    if (this.room === 0) return -EAGAIN;
    const taken = Math.min(this.room, length);
    this.room -= taken;
    this.written += data.toString('latin1', offset, offset + taken);
    return taken;
  }

  poll(): number {
    return this.bits;
  }

  sync(reason: SyncReason, abandoned?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => this.syncs.push({ reason, abandoned, resolve, reject }));
  }

  release(): void {
    this.released++;
  }
}

export interface Scene {
  readonly told: Told;
  readonly table: HandleTable;
  readonly file: Puppet;
  readonly node: FileNode;
  readonly fh: number;
}

export function scene(patience?: Patience): Scene {
  const told = new Told();
  const table = new HandleTable(told, silent, patience);
  const file = new Puppet();
  const node = streamFile('/puppet', (request: OpenRequest) => {
    file.wake = request.wake;
    return file;
  });
  table.open(1, node, 2, 0, 0, 0);
  told.take();
  return { told, table, file, node, fh: told.fh };
}

export const write = (table: HandleTable, id: number, fh: number, text: string, nonBlocking = false): void =>
  table.write(id, fh, Buffer.from(`..${text}..`), 2, text.length, 0, nonBlocking);
