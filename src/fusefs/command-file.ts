/**
 * Command files (`.ctl`): each line written is one command.
 *
 *   write --> cut into lines --> carried out one after another --> the write is answered
 *
 * A line may be cut over several writes of one open file. A write is answered when the lines that it completed were carried
 * out; the first that fails gives the write its errno, and what came behind it in that write is not carried out. The last
 * line may lack its newline: fsync and close carry it out. Lines of different open files don't wait for each other.
 */
import { FwdfsError } from '../base/errors.js';
import { MAX_COMMAND_BYTES } from '../base/limits.js';
import { POLL } from '../sys/libc.js';
import type { FileNode, OpenFile, SyncReason } from './tree.js';

/** Whoever has the file open. */
export interface Opener {
  /** Has something done when the last descriptor of this open file is closed. */
  onRelease(step: () => void): void;
}

/** Carries out one line, without its newline. What it rejects with, the write fails with. */
export type Command = (line: string, opener: Opener) => Promise<void>;

export class CommandFile implements FileNode {
  readonly kind = 'file';
  /** Each opener has an inode of its own: a command that takes long makes no other opener wait. */
  readonly stream = true;
  readonly size = 0;
  readonly ino: number;
  readonly mode: number;
  private readonly command: Command;

  constructor(ino: number, command: Command, mode = 0o200) {
    this.ino = ino;
    this.mode = mode;
    this.command = command;
  }

  open(): OpenFile {
    return new OpenCommands(this.command);
  }
}

const NEWLINE = 0x0a;

class OpenCommands implements OpenFile, Opener {
  /** A write is answered when the lines that it completed were carried out. */
  readonly synchronous = true;
  private readonly command: Command;
  /** The line that is not complete yet. */
  private readonly line = Buffer.alloc(MAX_COMMAND_BYTES);
  private length = 0;
  /** Complete lines that sync() is to carry out. */
  private lines: string[] = [];
  /** What is being carried out, one line after another also over several writes. */
  private work: Promise<void> = Promise.resolve();
  private readonly steps: (() => void)[] = [];
  private released = false;

  constructor(command: Command) {
    this.command = command;
  }

  read(): number {
    return 0;
  }

  write(data: Buffer, offset: number, length: number): number {
    const end = offset + length;
    for (let at = offset; at < end;) {
      const newline = data.indexOf(NEWLINE, at);
      const stop = newline < 0 || newline >= end ? end : newline;
      if (this.length + stop - at > MAX_COMMAND_BYTES) {
        this.length = 0;
        this.lines = [];
        throw new FwdfsError('bad-command', `a command of more than ${MAX_COMMAND_BYTES} bytes`);
      }
      this.length += data.copy(this.line, this.length, at, stop);
      if (stop < end) this.endLine();
      at = stop + 1;
    }
    return length;
  }

  poll(): number {
    return POLL.OUT | POLL.WRNORM;
  }

  async sync(reason: SyncReason): Promise<void> {
    if (reason !== 'write') this.endLine();
    const lines = this.lines;
    this.lines = [];
    const before = this.work;
    const work = before.then(async () => {
      for (const line of lines) await this.command(line, this);
    });
    // What fails is told to the write that brought it, not to those that follow.
    this.work = work.catch(() => {
      if (lines.length > 0) this.length = 0;
    });
    await work;
  }

  onRelease(step: () => void): void {
    if (this.released) step();
    else this.steps.push(step);
  }

  release(): void {
    this.length = 0;
    this.released = true;
    for (const step of this.steps.splice(0)) step();
  }

  private endLine(): void {
    const line = this.line.toString('utf8', 0, this.length).trim();
    this.length = 0;
    if (line !== '') this.lines.push(line);
  }
}
