/**
 * Reads and writes the files of a mount, in a child process: a call that waits for a control device which was stopped can't
 * be ended from within the process that made it, not even by its exit.
 *
 *     MountReader.read(path) --{ id, op, path }--> mount-reader-child.js --fs--> mount
 *                            <--{ id, value } or { id, code, errno }--
 */
import { type ChildProcess, fork } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { REQUEST_TIMEOUT_MS } from '../base/limits.js';
import { requireAlive, silent } from './mounts.js';

/** The control device gives up on a forwarder earlier, so that its own error is the one that is seen. */
const CALL_TIMEOUT_MS = REQUEST_TIMEOUT_MS + 2000;
/** Calls that may wait for slow forwarders while others go on. */
const THREADS = '16';

export type Call =
  | { readonly op: 'list' | 'mode' | 'read'; readonly path: string }
  | { readonly op: 'write' | 'hold'; readonly path: string; readonly text: string };

/** What the child is sent. */
export type Request = Call & { readonly id: number };

/** What it answers: names in a list, permission bits as a decimal number, or the text of a file. */
export type Reply =
  | { readonly id: number; readonly value: string | readonly string[] }
  | { readonly id: number; readonly code: string; readonly errno: number };

/** A file call that failed: `code` is the name of the errno, `errno` its number. */
export class FileError extends Error {
  readonly code: string;
  readonly errno: number;

  constructor(path: string, code: string, errno: number) {
    super(`${path}: ${code}`);
    this.code = code;
    this.errno = errno;
  }
}

export class MountReader {
  readonly mountPoint: string;
  private readonly child: ChildProcess;
  private readonly waiting = new Map<number, (reply: Reply | Error) => void>();
  private lastId = 0;

  private constructor(mountPoint: string) {
    this.mountPoint = mountPoint;
    this.child = fork(fileURLToPath(new URL('./mount-reader-child.js', import.meta.url)), [], {
      cwd: '/',
      env: { ...process.env, UV_THREADPOOL_SIZE: THREADS },
      execArgv: [],
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    this.child.on('message', (reply: Reply) => this.settle(reply.id, reply));
    this.child.once('exit', () => this.failAll(new Error('the reader of the mount ended unexpectedly')));
    this.child.once('error', (error) => this.failAll(error));
  }

  /** Runs `work` with a reader of a mount that answers. */
  static async use<T>(mountPoint: string, work: (reader: MountReader) => Promise<T>): Promise<T> {
    await requireAlive(mountPoint);
    const reader = new MountReader(mountPoint);
    try {
      return await work(reader);
    } finally {
      reader.close();
    }
  }

  /** Names in a directory. Paths are relative to the mount point. */
  async list(path: string): Promise<string[]> {
    const value = await this.call({ op: 'list', path });
    return typeof value === 'string' ? [] : [...value];
  }

  /** The permission bits of a file. */
  async mode(path: string): Promise<number> {
    return Number(await this.call({ op: 'mode', path }));
  }

  async read(path: string): Promise<string> {
    return String(await this.call({ op: 'read', path }));
  }

  async write(path: string, text: string): Promise<void> {
    await this.call({ op: 'write', path, text });
  }

  /** As `write`, but the file stays open for as long as this reader does. */
  async hold(path: string, text: string): Promise<void> {
    await this.call({ op: 'hold', path, text });
  }

  private call(call: Call): Promise<string | readonly string[]> {
    const id = ++this.lastId;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.settle(id, silent(this.mountPoint)), CALL_TIMEOUT_MS);
      this.waiting.set(id, (reply) => {
        clearTimeout(timer);
        if (reply instanceof Error) reject(reply);
        else if ('value' in reply) resolve(reply.value);
        else reject(this.errorOf(call.path, reply.code, reply.errno));
      });
      const request: Request = { ...call, id, path: join(this.mountPoint, call.path) };
      this.child.send(request, (error) => {
        if (error !== null) this.settle(id, error);
      });
    });
  }

  private errorOf(path: string, code: string, errno: number): Error {
    if (code !== 'ENOTCONN' && code !== 'ECONNABORTED') return new FileError(path, code, errno);
    return new Error(`the control device of ${this.mountPoint} is gone: fwdfs umount ${this.mountPoint}`);
  }

  private settle(id: number, reply: Reply | Error): void {
    const waiter = this.waiting.get(id);
    this.waiting.delete(id);
    waiter?.(reply);
  }

  private failAll(error: Error): void {
    for (const id of this.waiting.keys()) this.settle(id, error);
  }

  /** Calls that are still under way fail. */
  close(): void {
    this.failAll(new Error('the reader of the mount was closed'));
    this.child.kill('SIGKILL');
    if (this.child.connected) this.child.disconnect();
    this.child.unref();
  }
}
