/**
 * A control device as the packet path knows it: where its up frames are gathered (S1106; S608, S609). Data transmission
 * processing section 360.
 *
 *     Rule matched -> append (header, copy of the frame) -> batch full or receive batch over -> flush -> TunnelChannel
 *
 * The batch in hand belongs to the peer; a batch that was sent belongs to the channel until it is given back to the pool.
 * Confirm frames of down tunnels travel in the same batches.
 */
import { ChunkPool } from '../base/chunks.js';
import { CHUNK_POOL_COUNT, MAX_FRAME_BYTES, UP_BATCH_BYTES } from '../base/limits.js';
import { cutVnetHeader } from '../packet/virtio.js';
import {
  FRAME_HEADER_BYTES,
  frameBytes,
  OFFLOAD_BYTES,
  OFFLOAD_OFFSET,
  putConfirm,
  putConfirmError,
  putDataUp,
} from '../tunnel/frames.js';

/** The channel to a control device; false: it is not connected, the buffer went back at once. */
export interface UpChannel {
  sendFrames(buffer: Buffer, length: number, done: (buffer: Buffer) => void): boolean;
}

const pool = new ChunkPool({ bytes: UP_BATCH_BYTES + frameBytes(MAX_FRAME_BYTES), keep: CHUNK_POOL_COUNT });
const giveBack = (buffer: Buffer): void => pool.give(buffer);

export class Peer {
  readonly identity: string;
  address: string;
  /** Both channels are there. While false, frames for this control device are dropped and counted. */
  active = false;
  /** Not heard of for a while, though its channels are there. */
  silent = false;
  /** Share of new flows, against those of others. */
  weight = 1;
  /** Interfaces of which it takes no new flows; `*`: of none. */
  readonly drains = new Set<string>();
  /** Its rules by which flows come to it: of virtual IFs, their sockets, and virtual IP addresses. */
  flowRules = 0;
  /** On the list of those that flush when the receive batch is over. */
  touched = false;
  private readonly channel: UpChannel;
  private batch: Buffer | null = null;
  private length = 0;

  constructor(identity: string, address: string, channel: UpChannel) {
    this.identity = identity;
    this.address = address;
    this.channel = channel;
  }

  /** Whether it can be given new flows of an interface. */
  takesFlows(interfaceName: string): boolean {
    return this.active && !this.silent && !this.drains.has('*') && !this.drains.has(interfaceName);
  }

  /**
   * Copies one received frame into the batch.
   * @param vnet offset of its virtio_net_hdr in `frame` @param cut bytes of the frame before `offset` that do not go up
   */
  appendData(
    upTunnel: number,
    flags: number,
    frame: Buffer,
    offset: number,
    length: number,
    vnet: number,
    seconds: number,
    nanoseconds: number,
    cut = 0,
  ): void {
    const batch = this.room();
    const at = this.length;
    for (let i = 0; i < OFFLOAD_BYTES; i++) batch[at + OFFLOAD_OFFSET + i] = frame[vnet + i] ?? 0;
    if (cut > 0) cutVnetHeader(batch, at + OFFLOAD_OFFSET, cut);
    frame.copy(batch, at + FRAME_HEADER_BYTES, offset, offset + length);
    this.length = putDataUp(batch, at, flags, upTunnel, length, seconds, nanoseconds);
  }

  appendConfirm(downTunnel: number, sequence: number): void {
    const batch = this.room();
    this.length = putConfirm(batch, this.length, downTunnel, sequence);
  }

  appendConfirmError(downTunnel: number, sequence: number, errno: number): void {
    const batch = this.room();
    this.length = putConfirmError(batch, this.length, downTunnel, sequence, errno);
  }

  private room(): Buffer {
    if (this.length >= UP_BATCH_BYTES) this.flush();
    this.batch ??= pool.take();
    return this.batch;
  }

  /** Sends what was gathered. */
  flush(): void {
    if (this.batch === null || this.length === 0) return;
    const batch = this.batch;
    const length = this.length;
    this.batch = null;
    this.length = 0;
    this.channel.sendFrames(batch, length, giveBack);
  }
}
