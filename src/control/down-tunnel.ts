/**
 * The sending end of a down tunnel: one writer's frames on their way to the forwarder (Fig. 12, 30). Data transmission
 * processing section 270, and the way down of tunnel transfer section 28.
 *
 *     send(frame) -> chunk (header, frame) -> flush() -> channel ......> forwarder
 *                      |  kept until confirmed                             |
 *                      +<------------------ confirm(sequence) -------------+
 *
 *     chunks  [ confirmed | sent, unconfirmed ] [ sent | not sent yet |   free   ]
 *                         ^ oldest                     ^ sentEnd      ^ end
 *
 * Credit is a window: payload bytes that are under way and not confirmed may not exceed what the tunnel generation response
 * gave. So nothing can drift when a connection is lost, and what the forwarder did not receive is still here to be sent
 * again (`resume`). The tunnel owns its chunks; all of them go back when everything is confirmed.
 */
import { constants } from 'node:os';
import { ChunkPool } from '../base/chunks.js';
import { errnoName, FwdfsError } from '../base/errors.js';
import { CHUNK_BYTES, CHUNK_POOL_COUNT } from '../base/limits.js';
import {
  FRAME_HEADER_BYTES,
  frameBytes,
  getCounter,
  getLength,
  nextFrame,
  OFFLOAD_BYTES,
  OFFLOAD_OFFSET,
  putClose,
  putDataDown,
  putNoOffload,
} from '../tunnel/frames.js';
import type { VifKind } from '../tunnel/messages.js';

const pool = new ChunkPool({ bytes: CHUNK_BYTES, keep: CHUNK_POOL_COUNT });
const { ENETDOWN } = constants.errno;
/** The chunk belongs to the tunnel, whatever the channel did with the bytes. */
const keep = (): void => undefined;

/** The channel to the forwarder; false: it is not connected. */
export interface DownChannel {
  sendFrames(buffer: Buffer, length: number, done: (buffer: Buffer) => void): boolean;
}

/** The virtual IF whose tunnel it is. Frames of a virtual IF are packets: one that does not leave is counted, nobody is told. */
export interface VifEnd {
  /** What is asked for with the tunnel, anew for each session. */
  request(): { kind: VifKind; upTunnel: number; credit: number };
  /** The forwarder has the tunnel, or has it again after a resume: rules may name it. */
  established(): void;
  /** What came so far on the way back is forgotten by the forwarder. @param sent frames that it sent on it in a resumed session */
  resumed(sent: ReadonlyMap<number, number>): void;
}

interface Waiter {
  readonly sequence: number;
  readonly abandoned: AbortSignal | undefined;
  resolve(): void;
  reject(error: Error): void;
}

export class DownTunnel {
  readonly symbol: string;
  readonly interface: string;
  readonly forwarder: string;
  /** Protocol address that it was asked for. */
  readonly protocol: string;
  readonly vif: VifEnd | undefined;
  /** Made at registration for the symbol, and handed from writer to writer. */
  isOfSymbol = false;
  /** pcap link type of its frames, asked for with the tunnel; 0: not known yet. */
  linkType = 0;
  /** What every further write gives; 0: they are taken. */
  ended = 0;
  private readonly channel: DownChannel;
  /** 0: the forwarder does not know it (not connected). */
  id = 0;
  private window = 0;
  private sequence = 0;
  private confirmed = 0;
  private unconfirmedBytes = 0;
  /** Length of the frame that was refused last, for which its writer waits; 1: none was. */
  private wanted = 1;
  private readonly chunks: Buffer[] = [];
  private readonly ends: number[] = [];
  private oldest = 0;
  private sentEnd = 0;
  private end = 0;
  private waiters: Waiter[] = [];
  private failure: FwdfsError | null = null;
  /** The session was resumed, and errors may have been lost before: until the first confirmation. */
  private uncertain = false;
  /** Told why a barrier will fail, for `.state`. */
  private readonly onError: (text: string) => void;
  /** Called when credit came back. */
  wake: () => void = keep;
  bytes = 0;

  constructor(
    channel: DownChannel,
    forwarder: string,
    interfaceName: string,
    symbol: string,
    protocol: string,
    onError: (text: string) => void,
    vif?: VifEnd,
  ) {
    this.vif = vif;
    this.channel = channel;
    this.protocol = protocol;
    this.forwarder = forwarder;
    this.interface = interfaceName;
    this.symbol = symbol;
    this.onError = onError;
  }

  /** A tunnel generation response came: frames can go. @param window payload bytes */
  established(id: number, window: number): void {
    this.id = id;
    this.window = window;
  }

  /** The interface has this link type now, 0: unknown. A tunnel for another one takes nothing any more. */
  interfaceIs(linkType: number): void {
    if (linkType === 0) return;
    this.linkType ||= linkType;
    if (this.linkType === linkType) return;
    this.ended = ENETDOWN;
    this.isOfSymbol = false;
    this.wake();
  }

  /** Nothing is under way. */
  get isDrained(): boolean {
    return this.confirmed === this.sequence;
  }

  /** Before the next writer takes over a drained tunnel: the failures of the one before are not its own. */
  reuse(): this {
    this.failure = null;
    this.uncertain = false;
    this.wanted = 1;
    this.wake = keep;
    return this;
  }

  get frames(): number {
    return this.sequence;
  }

  /** Whether a frame of `length` bytes can be taken now. One that is larger than the window goes alone. */
  hasCredit(length: number): boolean {
    return this.id !== 0 && (this.unconfirmedBytes === 0 || this.unconfirmedBytes + length <= this.window);
  }

  /** Whether the writer's next frame would be taken, as far as it is known. */
  get hasAnyCredit(): boolean {
    return this.hasCredit(this.wanted);
  }

  /**
   * S1204, S703: takes one frame, if there is credit for it. `flush` (S704) sends what was taken.
   * @param vnet where its virtio_net_hdr stands in `frame`; -1: it is a wire frame
   */
  send(frame: Buffer, offset: number, length: number, vnet = -1): boolean {
    if (!this.hasCredit(length)) {
      this.wanted = length;
      return false;
    }
    this.wanted = 1;
    const bytes = frameBytes(length);
    if (this.chunks.length === 0 || this.end + bytes > CHUNK_BYTES) this.nextChunk();
    const chunk = this.chunks[this.chunks.length - 1] as Buffer;
    this.sequence += 1;
    if (vnet < 0) putNoOffload(chunk, this.end);
    else for (let i = 0; i < OFFLOAD_BYTES; i++) chunk[this.end + OFFLOAD_OFFSET + i] = frame[vnet + i] ?? 0;
    frame.copy(chunk, this.end + FRAME_HEADER_BYTES, offset, offset + length);
    this.end = putDataDown(chunk, this.end, 0, this.id, length, this.sequence);
    this.unconfirmedBytes += length;
    this.bytes += length;
    return true;
  }

  private nextChunk(): void {
    this.flush();
    if (this.chunks.length > 0) this.ends[this.chunks.length - 1] = this.end;
    this.chunks.push(pool.take());
    this.ends.push(0);
    this.end = 0;
    this.sentEnd = 0;
  }

  flush(): void {
    if (this.sentEnd === this.end || this.id === 0) return;
    const chunk = this.chunks[this.chunks.length - 1] as Buffer;
    this.channel.sendFrames(chunk.subarray(this.sentEnd, this.end), this.end - this.sentEnd, keep);
    // Also when it is not connected: `resume` starts from what the forwarder has.
    this.sentEnd = this.end;
  }

  /** Every frame up to `sequence` was dealt with; `errno` is not 0 if that very frame was not put on the interface. */
  confirm(sequence: number, errno: number): void {
    if (sequence > this.sequence || sequence < this.confirmed) return;
    if (errno !== 0 && sequence > this.confirmed) {
      // Barriers that wait for the frames before it are not concerned; but after a resume the forwarder tells the newest
      // error alone, and it stands for every frame that was not confirmed before.
      if (!this.uncertain) {
        this.confirmed = sequence - 1;
        this.settle();
      }
      this.fail(`${this.symbol}: frame not sent (${errnoName(errno)})`);
    }
    this.confirmed = sequence;
    this.uncertain = false;
    while (this.chunks.length > 0) {
      const chunk = this.chunks[0] as Buffer;
      const last = this.chunks.length === 1;
      const end = last ? this.end : (this.ends[0] ?? 0);
      while (this.oldest < end && getCounter(chunk, this.oldest) <= sequence) {
        this.unconfirmedBytes -= getLength(chunk, this.oldest);
        this.oldest = nextFrame(chunk, this.oldest, end);
      }
      if (this.oldest < end) break;
      pool.give(chunk);
      this.chunks.shift();
      this.ends.shift();
      this.oldest = 0;
      if (last) {
        this.end = 0;
        this.sentEnd = 0;
      }
    }
    this.settle();
    this.wake();
  }

  /** The first failure since the last barrier is the one that is told. */
  private fail(text: string): void {
    if (this.failure !== null || this.vif !== undefined) return;
    this.failure = new FwdfsError('not-sent', text);
    this.onError(text);
  }

  /**
   * Barrier: resolves when all that was taken so far is on the interface; rejects, once, if a frame was not.
   * @param abandoned whoever waits has gone: a failure is for those who come after
   */
  sync(abandoned?: AbortSignal): Promise<void> {
    this.flush();
    return new Promise((resolve, reject) => {
      this.waiters.push({ sequence: this.sequence, abandoned, resolve, reject });
      this.settle();
    });
  }

  /** Whoever waits for the same frames is told the same. */
  private settle(): void {
    let count = 0;
    while (count < this.waiters.length && (this.waiters[count] as Waiter).sequence <= this.confirmed) count += 1;
    const ready = this.waiters.splice(0, count).filter(({ abandoned }) => abandoned?.aborted !== true);
    if (ready.length === 0) return;
    const { failure } = this;
    this.failure = null;
    for (const waiter of ready) {
      if (failure === null) waiter.resolve();
      else waiter.reject(failure);
    }
  }

  /** The session goes on: the forwarder has everything up to `received`, the rest is sent again. */
  resume(received: number): void {
    this.uncertain = true;
    for (const [index, chunk] of this.chunks.entries()) {
      const last = index === this.chunks.length - 1;
      const end = last ? this.end : (this.ends[index] ?? 0);
      let at = index === 0 ? this.oldest : 0;
      while (at < end && getCounter(chunk, at) <= received) at = nextFrame(chunk, at, end);
      if (at < end) this.channel.sendFrames(chunk.subarray(at, end), end - at, keep);
    }
    this.sentEnd = this.end;
  }

  /** The forwarder lost this tunnel: what was not confirmed may or may not have left, so it counts as not sent. */
  lost(reason: string): void {
    if (this.sequence > this.confirmed) this.fail(`${this.symbol}: ${reason}`);
    this.id = 0;
    this.confirmed = 0;
    this.sequence = 0;
    this.unconfirmedBytes = 0;
    // A channel that closes may still be sending from them.
    for (const chunk of this.chunks) pool.drop(chunk);
    this.chunks.length = 0;
    this.ends.length = 0;
    this.oldest = 0;
    this.sentEnd = 0;
    this.end = 0;
    this.waiters = this.waiters.map((waiter) => ({ ...waiter, sequence: 0 }));
    this.settle();
    this.wake();
  }

  /** Ends the tunnel, in order with its data. */
  close(): void {
    if (this.id === 0) return;
    this.flush();
    const frame = Buffer.alloc(frameBytes(0));
    const length = putClose(frame, 0, this.id, this.sequence);
    this.channel.sendFrames(frame, length, keep);
  }
}
