/**
 * A small tree with one file for each way a file can behave, for the tests of the FUSE server.
 *
 *   ticks       a line every 2 ms      bulk    as much as is asked for     packet  1,400 bytes a read
 *   quiet       never anything         echo    each opener reads what it wrote
 *   held        takes no write until `let go` is written to ctl
 *   slow-open   opens never            slow-close  its barrier never ends
 *   text, dir/text, ctl, stats (JSON of what happened)
 */
import { constants } from 'node:os';
import { FwdfsError } from '../../src/base/errors.js';
import { CommandFile } from '../../src/fusefs/command-file.js';
import { TextFile } from '../../src/fusefs/text-file.js';
import {
  type DirectoryNode,
  type FileNode,
  inoOf,
  type Node,
  type OpenFile,
  type OpenRequest,
  staticDirectory,
} from '../../src/fusefs/tree.js';
import { POLL } from '../../src/sys/libc.js';

const { EAGAIN } = constants.errno;

export interface Stats {
  opens: number;
  releases: number;
  largestRead: number;
  largestWrite: number;
  commands: string[];
}

export interface Demo {
  readonly root: DirectoryNode;
  readonly stats: Stats;
  /** Stops the timer. */
  close(): void;
}

export const TEXT = Array.from({ length: 300 }, (_, index) => `line ${index}\n`).join('');

/** An open file that has nothing to read and takes everything. */
export class Quiet implements OpenFile {
  synchronous = false;
  protected readonly stats: Stats;

  constructor(stats: Stats) {
    this.stats = stats;
    stats.opens++;
  }

  read(_out: Buffer, _offset: number, _size: number, _position: number): number {
    return -EAGAIN;
  }

  write(_data: Buffer, _offset: number, length: number): number {
    this.stats.largestWrite = Math.max(this.stats.largestWrite, length);
    return length;
  }

  poll(): number {
    return POLL.OUT | POLL.WRNORM;
  }

  sync(): Promise<void> {
    return Promise.resolve();
  }

  release(): void {
    this.stats.releases++;
  }
}

class Bulk extends Quiet {
  private readonly limit: number;

  constructor(stats: Stats, limit: number) {
    super(stats);
    this.limit = limit;
  }

  override read(_out: Buffer, _offset: number, size: number): number {
    this.stats.largestRead = Math.max(this.stats.largestRead, size);
    return Math.min(size, this.limit);
  }

  override poll(): number {
    return POLL.IN | POLL.RDNORM | POLL.OUT | POLL.WRNORM;
  }
}

/** Readers get what was put into it, first in, first out. */
export class Fifo extends Quiet {
  private bytes = Buffer.alloc(0);
  private readonly wake: () => void;

  constructor(stats: Stats, wake: () => void) {
    super(stats);
    this.wake = wake;
  }

  put(bytes: Buffer): void {
    this.bytes = Buffer.concat([this.bytes, bytes]);
    this.wake();
  }

  override read(out: Buffer, offset: number, size: number): number {
    if (this.bytes.length === 0) return -EAGAIN;
    const count = this.bytes.copy(out, offset, 0, size);
    this.bytes = this.bytes.subarray(count);
    return count;
  }

  override write(data: Buffer, offset: number, length: number): number {
    this.put(Buffer.from(data.subarray(offset, offset + length)));
    return length;
  }

  override poll(): number {
    return POLL.OUT | POLL.WRNORM | (this.bytes.length > 0 ? POLL.IN | POLL.RDNORM : 0);
  }
}

class Held extends Quiet {
  private readonly open: () => boolean;

  constructor(stats: Stats, open: () => boolean) {
    super(stats);
    this.open = open;
  }

  override write(_data: Buffer, _offset: number, length: number): number {
    return this.open() ? length : -EAGAIN;
  }

  override poll(): number {
    return this.open() ? POLL.OUT | POLL.WRNORM : 0;
  }
}

class SlowClose extends Quiet {
  override sync(): Promise<void> {
    return new Promise(() => undefined);
  }
}

/** A stream file that opens as `make` says. */
export function streamFile(
  path: string,
  make: (request: OpenRequest) => OpenFile | Promise<OpenFile>,
  mode = 0o666,
): FileNode {
  return { kind: 'file', ino: inoOf(path), mode, stream: true, size: 0, open: make };
}

export function demo(): Demo {
  const stats: Stats = { opens: 0, releases: 0, largestRead: 0, largestWrite: 0, commands: [] };
  const tickers = new Set<Fifo>();
  const wakeHeld = new Set<() => void>();
  let letGo = false;
  let count = 0;
  const timer = setInterval(() => {
    for (const ticker of tickers) ticker.put(Buffer.from(`tick ${count}\n`));
    count++;
  }, 2);
  timer.unref();

  const files: Record<string, (request: OpenRequest) => OpenFile | Promise<OpenFile>> = {
    ticks: (request) => {
      const fifo = new (class extends Fifo {
        override release(): void {
          tickers.delete(this);
          super.release();
        }
      })(stats, request.wake);
      tickers.add(fifo);
      return fifo;
    },
    bulk: () => new Bulk(stats, Number.MAX_SAFE_INTEGER),
    packet: () => new Bulk(stats, 1400),
    quiet: () => new Quiet(stats),
    echo: (request) => new Fifo(stats, request.wake),
    held: (request) => {
      wakeHeld.add(request.wake);
      return new Held(stats, () => letGo);
    },
    'slow-open': () => new Promise(() => undefined),
    'slow-close': () => new SlowClose(stats),
  };
  const children = new Map<string, Node>();
  for (const [name, make] of Object.entries(files)) children.set(name, streamFile(`/${name}`, make));
  const text = new TextFile(inoOf('/text'), () => TEXT);
  children.set('text', text);
  children.set('dir', staticDirectory('/dir', new Map([['text', text]])));
  children.set('stats', new TextFile(inoOf('/stats'), () => JSON.stringify(stats)));
  children.set(
    'ctl',
    new CommandFile(
      inoOf('/ctl'),
      async (line) => {
        await Promise.resolve();
        if (line === 'fail') throw new FwdfsError('already-there', 'the command fail');
        if (line === 'hang') await new Promise(() => undefined);
        // Whoever has it open keeps it.
        if (line === 'forget text') children.delete('text');
        if (line === 'let go') {
          letGo = true;
          for (const wake of wakeHeld) wake();
        }
        stats.commands.push(line);
      },
      0o600,
    ),
  );
  return { root: staticDirectory('/', children), stats, close: () => clearInterval(timer) };
}
