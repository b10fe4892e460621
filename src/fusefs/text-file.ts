/**
 * Text files: attributes and tables, as one finds them in sysfs and /proc. The text is of one moment, however small the
 * reads are; size 0 as in /proc.
 *
 *     open -----------------> text of that moment --reads--> … --end
 *     poll: PRI | ERR <------ it changed                          (sysfs_notify: wakes select for exceptions)
 *     read at position 0 ---> text of now; quiet until the next change
 *
 * So a program waits for a change as it does in sysfs: read, poll for POLLPRI, seek to 0, read again.
 */
import { constants } from 'node:os';
import type { Changes } from '../base/changes.js';
import { errnoOf, SystemError } from '../base/errors.js';
import { O, POLL } from '../sys/libc.js';
import type { FileNode, OpenFile, OpenRequest } from './tree.js';

const { EACCES, EAGAIN, EBADF } = constants.errno;

export interface TextFileOptions {
  readonly mode?: number;
  /** Told when the text may be another; without it poll never wakes for a change. */
  readonly changes?: Changes;
  /** Of a text that is made at once: poll wakes only if it is another one. */
  readonly exact?: boolean;
}

/** Makes the text as of now. */
export type Content = () => string | Promise<string>;

export class TextFile implements FileNode {
  readonly kind = 'file';
  readonly stream = false;
  readonly size = 0;
  readonly ino: number;
  readonly mode: number;
  private readonly content: Content;
  private readonly options: TextFileOptions;

  /** @param content called each time the file is opened or read again; what it throws, open(2) or read(2) fails with */
  constructor(ino: number, content: Content, options: TextFileOptions = {}) {
    this.ino = ino;
    this.mode = options.mode ?? 0o444;
    this.content = content;
    this.options = options;
  }

  open(request: OpenRequest): OpenFile | Promise<OpenFile> {
    // The kernel lets root write whatever the mode bits say.
    if ((request.flags & O.ACCMODE) !== O.RDONLY) throw new SystemError('open', EACCES);
    const file = new OpenText(this.content, request.wake, this.options);
    try {
      const loading = file.load();
      if (loading === null) return file;
      return loading.then(
        () => file,
        (error: unknown) => {
          file.release();
          throw error;
        },
      );
    } catch (error) {
      file.release();
      throw error;
    }
  }
}

class OpenText implements OpenFile {
  readonly synchronous = false;
  private readonly content: Content;
  private readonly wake: () => void;
  private readonly exact: boolean;
  private readonly forget: () => void;
  private bytes: Buffer = Buffer.alloc(0);
  /** Made and not read yet: whoever begins at position 0 gets this text, the next one a new one. */
  private fresh = false;
  private changed = false;
  private loading = false;
  /** Of a text that could not be made anew; told once. */
  private errno = 0;

  constructor(content: Content, wake: () => void, { changes, exact = false }: TextFileOptions) {
    this.content = content;
    this.wake = wake;
    this.exact = exact;
    // From before the text is made: a change meanwhile may be missing from it.
    this.forget = changes?.listen(() => this.change()) ?? ((): void => undefined);
  }

  private change(): void {
    if (this.changed || (this.exact && this.isSame())) return;
    this.changed = true;
    this.wake();
  }

  private isSame(): boolean {
    try {
      return this.content() === this.bytes.toString();
    } catch {
      return false;
    }
  }

  /** Makes the text. @returns null if it is there, else when it will be */
  load(): Promise<void> | null {
    this.changed = false;
    const content = this.content();
    if (typeof content === 'string') {
      this.set(content);
      return null;
    }
    return content.then((text) => this.set(text));
  }

  private set(text: string): void {
    this.bytes = Buffer.from(text);
    this.fresh = true;
  }

  private async reload(loading: Promise<void>): Promise<void> {
    this.loading = true;
    try {
      await loading;
    } catch (error) {
      this.errno = errnoOf(error);
    }
    this.loading = false;
    this.wake();
  }

  read(out: Buffer, offset: number, size: number, position: number): number {
    if (this.loading) return -EAGAIN;
    if (this.errno !== 0) {
      const errno = this.errno;
      this.errno = 0;
      return -errno;
    }
    if (position === 0) {
      const loading = this.fresh ? null : this.load();
      if (loading !== null) {
        void this.reload(loading);
        return -EAGAIN;
      }
      this.fresh = false;
    }
    if (position >= this.bytes.length) return 0;
    return this.bytes.copy(out, offset, position, position + size);
  }

  write(): number {
    return -EBADF;
  }

  poll(): number {
    return POLL.IN | POLL.RDNORM | (this.changed ? POLL.PRI | POLL.ERR : 0);
  }

  sync(): Promise<void> {
    return Promise.resolve();
  }

  release(): void {
    this.forget();
  }
}
