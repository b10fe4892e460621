/** Watches every chunk pool of the process: module-level pools too give back each chunk exactly once. */
import { ChunkPool } from '../../src/base/chunks.js';

export interface PoolWatch {
  /** Chunks that were taken since the watch began and not given back. */
  readonly inUse: number;
  end(): void;
}

/** From here on a chunk that is given back and was not taken, or twice, throws. Before anything is taken. */
export function watchPools(): PoolWatch {
  const { take, give, drop } = ChunkPool.prototype;
  const taken = new Set<Buffer>();
  ChunkPool.prototype.take = function (this: ChunkPool): Buffer {
    const chunk = take.call(this);
    if (taken.has(chunk)) throw new Error('a chunk that is in use was taken');
    taken.add(chunk);
    return chunk;
  };
  ChunkPool.prototype.give = function (this: ChunkPool, chunk: Buffer): void {
    if (!taken.delete(chunk)) throw new Error('a chunk was given back that is not in use');
    chunk.fill(0xdd);
    give.call(this, chunk);
  };
  ChunkPool.prototype.drop = function (this: ChunkPool, chunk: Buffer): void {
    if (!taken.delete(chunk)) throw new Error('a chunk was given up that is not in use');
    drop.call(this, chunk);
  };
  return {
    get inUse() {
      return taken.size;
    },
    end() {
      Object.assign(ChunkPool.prototype, { take, give, drop });
    },
  };
}
