/**
 * A pool of equal buffers. Whoever takes one owns it until it gives it back; giving back twice is a defect that the
 * taker prevents by forgetting its reference.
 */
export interface ChunkPoolOptions {
  /** Size of each chunk. */
  readonly bytes: number;
  /** Chunks that stay allocated for the next use. */
  readonly keep: number;
  /** Chunks that may be taken at a time; without it there is no bound here. */
  readonly limit?: number;
}

export class ChunkPool {
  readonly bytes: number;
  private readonly kept: Buffer[] = [];
  private readonly keep: number;
  private readonly limit: number;
  private taken = 0;

  constructor(options: ChunkPoolOptions) {
    this.bytes = options.bytes;
    this.keep = options.keep;
    this.limit = options.limit ?? Infinity;
  }

  /** @returns null where the limit is reached */
  tryTake(): Buffer | null {
    return this.taken >= this.limit ? null : this.take();
  }

  /** Takes one whatever the limit. */
  take(): Buffer {
    this.taken += 1;
    return this.kept.pop() ?? Buffer.allocUnsafeSlow(this.bytes);
  }

  give(chunk: Buffer): void {
    this.taken -= 1;
    if (this.kept.length < this.keep) this.kept.push(chunk);
  }

  /** Gives up a chunk that somebody may still be reading: it is not used again. */
  drop(_chunk: Buffer): void {
    this.taken -= 1;
  }

  /** Chunks that are with their takers. */
  get inUse(): number {
    return this.taken;
  }
}
