/**
 * Text files: attributes and tables, as one finds them in sysfs and /proc. The text is made once per open, so that a file
 * read byte by byte is still of one moment; size 0 as in /proc.
 */
import { constants } from 'node:os';
import { SystemError } from '../base/errors.js';
import { O, POLL } from '../sys/libc.js';
import type { FileNode, OpenFile, OpenRequest } from './tree.js';

export class TextFile implements FileNode {
  readonly kind = 'file';
  readonly stream = false;
  readonly size = 0;
  readonly ino: number;
  readonly mode: number;
  private readonly content: () => string | Promise<string>;

  /** @param content makes the text, each time the file is opened; what it throws, open(2) fails with */
  constructor(ino: number, content: () => string | Promise<string>, mode = 0o444) {
    this.ino = ino;
    this.mode = mode;
    this.content = content;
  }

  open(request: OpenRequest): OpenFile | Promise<OpenFile> {
    // The kernel lets root write whatever the mode bits say.
    if ((request.flags & O.ACCMODE) !== O.RDONLY) throw new SystemError('open', constants.errno.EACCES);
    const content = this.content();
    return typeof content === 'string' ? new OpenText(content) : content.then((text) => new OpenText(text));
  }
}

class OpenText implements OpenFile {
  readonly synchronous = false;
  private readonly bytes: Buffer;

  constructor(text: string) {
    this.bytes = Buffer.from(text);
  }

  read(out: Buffer, offset: number, size: number, position: number): number {
    if (position >= this.bytes.length) return 0;
    return this.bytes.copy(out, offset, position, position + size);
  }

  write(): number {
    return -constants.errno.EBADF;
  }

  poll(): number {
    return POLL.IN | POLL.RDNORM;
  }

  sync(): Promise<void> {
    return Promise.resolve();
  }

  release(): void {
    // Nothing is held but the text.
  }
}
