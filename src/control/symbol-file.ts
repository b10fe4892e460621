/**
 * A symbol as a file: `open()` asks for what its access mode needs, the last `close()` gives it back.
 * It stands where the source text has virtual IF 222 and virtual IF 43. The kernel tells of every open (S1001, S1002, S222,
 * S223) and last close (S901), so it is also access determination section 234 and destination determination section 41.
 *
 *     open(read)  -> up tunnel    (rule at the forwarder) + a PacketReader
 *     open(write) -> down tunnel                          + a PacketWriter
 *
 * A claim is of what is received: for writing alone a `:claim` name is as the name without it.
 */
import { constants } from 'node:os';
import { ChunkPool } from '../base/chunks.js';
import { CHUNK_BYTES, CHUNK_POOL_COUNT, READER_QUEUE_BYTES, READER_TOTAL_BYTES } from '../base/limits.js';
import type { FileNode, OpenFile, OpenRequest, SyncReason } from '../fusefs/tree.js';
import type { SymbolName } from '../packet/symbol-name.js';
import { O, POLL } from '../sys/libc.js';
import type { DownTunnel } from './down-tunnel.js';
import type { ForwarderLink } from './forwarder-link.js';
import { PacketReader } from './packet-reader.js';
import { PacketWriter } from './packet-writer.js';
import { ReaderQueue } from './reader-queue.js';
import { mayWrite, type RemoteInterface } from './remote-interface.js';
import type { UpTunnel } from './up-tunnel.js';

const { EBADF } = constants.errno;

const readerChunks = new ChunkPool({
  bytes: CHUNK_BYTES,
  keep: CHUNK_POOL_COUNT,
  limit: READER_TOTAL_BYTES / CHUNK_BYTES,
});

/** What a symbol's file is told about its openings. */
export interface SymbolUse {
  opened(name: string): void;
  closed(name: string): void;
}

export class SymbolFile implements FileNode {
  readonly kind = 'file';
  readonly stream = true;
  readonly size = 0;
  readonly ino: number;
  private readonly link: ForwarderLink;
  private readonly symbol: SymbolName;
  private readonly listed: string;
  private readonly use: SymbolUse;

  /** @param listed the name as it was looked up, which the directory shows while it is open */
  constructor(ino: number, link: ForwarderLink, symbol: SymbolName, listed: string, use: SymbolUse) {
    this.ino = ino;
    this.link = link;
    this.symbol = symbol;
    this.listed = listed;
    this.use = use;
  }

  /** Mirrors the rights. */
  get mode(): number {
    const rights = this.link.interfaces.get(this.symbol.interface)?.rights;
    if (rights === undefined) return 0;
    return (rights.has('read') ? 0o400 : 0) | (mayWrite(rights) ? 0o200 : 0);
  }

  async open(request: OpenRequest): Promise<OpenFile> {
    const { symbol, link } = this;
    const access = request.flags & O.ACCMODE;
    const remote = link.interfaceOf(symbol.interface);
    const [up, down] = await Promise.allSettled([
      access === O.WRONLY ? null : link.acquireUp(symbol),
      access === O.RDONLY ? null : link.acquireDown(symbol.interface, symbol.text, symbol.protocol),
    ]);
    if (up.status === 'rejected' || down.status === 'rejected') {
      if (up.status === 'fulfilled' && up.value !== null) link.releaseUp(up.value);
      if (down.status === 'fulfilled' && down.value !== null) link.releaseDown(down.value);
      throw up.status === 'rejected' ? up.reason : down.status === 'rejected' ? down.reason : new Error('unreachable');
    }
    this.use.opened(this.listed);
    return new OpenSymbol(link, remote, symbol, request, up.value, down.value, () => this.use.closed(this.listed));
  }
}

class OpenSymbol implements OpenFile {
  readonly synchronous: boolean;
  private readonly link: ForwarderLink;
  private readonly up: UpTunnel | null;
  private readonly reader: PacketReader | null = null;
  private readonly writer: PacketWriter | null = null;
  private readonly closed: () => void;

  constructor(
    link: ForwarderLink,
    remote: RemoteInterface,
    symbol: SymbolName,
    request: OpenRequest,
    up: UpTunnel | null,
    down: DownTunnel | null,
    closed: () => void,
  ) {
    this.link = link;
    this.up = up;
    this.closed = closed;
    this.synchronous = symbol.framing === 'hex' || (request.flags & O.DSYNC) !== 0;
    const { framing, gso, paced, protocol } = symbol;
    const { wake } = request;
    if (up !== null) {
      const queue = new ReaderQueue(readerChunks, READER_QUEUE_BYTES);
      this.reader = new PacketReader({ framing, gso, linkType: up.linkType, queue, counters: remote.counters, wake });
      up.addReader(this.reader);
    }
    if (down !== null) {
      const { counters } = remote;
      const { linkType } = down;
      this.writer = new PacketWriter({ framing, protocol, linkType, paced, tunnel: down, counters, wake });
    }
  }

  read(out: Buffer, offset: number, size: number): number {
    return this.reader === null ? -EBADF : this.reader.read(out, offset, size);
  }

  write(data: Buffer, offset: number, length: number): number {
    return this.writer === null ? -EBADF : this.writer.write(data, offset, length);
  }

  poll(): number {
    const readable = this.reader !== null && !this.reader.isEmpty;
    const writable = this.writer !== null && this.writer.canWrite;
    let events = (readable ? POLL.IN | POLL.RDNORM : 0) | (writable ? POLL.OUT | POLL.WRNORM : 0);
    // As a pipe whose other end is gone: a reader is hung up, a writer has an error.
    if (this.reader?.isEnded === true) events |= POLL.HUP;
    if (this.writer?.isEnded === true) events |= POLL.OUT | POLL.WRNORM | POLL.ERR;
    return events;
  }

  async sync(reason: SyncReason, abandoned?: AbortSignal): Promise<void> {
    if (this.writer === null) return;
    await (reason === 'close' ? this.writer.flush(abandoned) : this.writer.fsync(abandoned));
  }

  release(): void {
    if (this.reader !== null && this.up !== null) {
      this.up.removeReader(this.reader);
      this.reader.release();
      this.link.releaseUp(this.up);
    }
    if (this.writer !== null) {
      this.writer.release();
      this.link.releaseDown(this.writer.tunnel);
    }
    this.closed();
  }
}
