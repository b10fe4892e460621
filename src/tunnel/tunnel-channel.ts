/**
 * One /tunnel channel: buffers full of frames out, messages full of frames in.
 *
 *   send(buffer) -> socket -> done(buffer)            the buffer is the channel's from send to done
 *   socket -> walk every frame once -> handler        a malformed message closes the channel, nothing of it is delivered
 *
 * The frames' format is in frames.ts; backpressure is the affair of credits and windows, whose sums bound what can be
 * under way here.
 */
import { FwdfsError, describe } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { nextFrame } from './frames.js';
import { Keepalive } from './keepalive.js';
import { CLOSE_NORMAL, CLOSE_PROTOCOL_ERROR, type MessageSocket } from './socket.js';
import { type Timers, realTimers } from './timers.js';

/** Takes a buffer back. Pass a stable function: one closure per send would be garbage per batch. */
export type BufferDone = (buffer: Buffer) => void;
/** Gets each message with its end; `message` is the handler's to keep. Every frame in it was found well-formed. */
export type FramesHandler = (message: Buffer, end: number) => void;

export class TunnelChannel {
  private readonly socket: MessageSocket;
  private readonly log: Logger;
  private readonly keepalive: Keepalive;
  private readonly closeHandlers: ((reason: string) => void)[] = [];
  /** What was sent and is not done, oldest first: three arrays in step. */
  private readonly buffers: Buffer[] = [];
  private readonly lengths: number[] = [];
  private readonly dones: BufferDone[] = [];
  private readonly written = (): void => this.release();
  private handler: FramesHandler | undefined;
  private underWay = 0;
  private closedWith: string | undefined;

  constructor(socket: MessageSocket, options: { readonly log: Logger; readonly timers?: Timers }) {
    this.socket = socket;
    this.log = options.log;
    this.keepalive = new Keepalive(socket, options.timers ?? realTimers, () => {
      this.terminate('nothing was heard from the other device');
    });
    socket.listen({
      message: (data, binary) => this.receive(data, binary),
      pong: () => this.keepalive.pong(),
      closed: (why) => {
        this.ended(why);
        while (this.buffers.length > 0) this.release();
      },
    });
  }

  get isOpen(): boolean {
    return this.closedWith === undefined;
  }

  get bytesReceived(): number {
    return this.socket.bytesReceived;
  }

  /** Bytes sent that the kernel has not taken yet. */
  get bufferedBytes(): number {
    return this.underWay;
  }

  /**
   * Sends buffer[0..length) as one message, uncompressed and without a copy. `done(buffer)` is called exactly once: when
   * the kernel has it, or when the channel has ended; at once if that is already so.
   *
   * @param length at most MAX_TUNNEL_MESSAGE_BYTES @returns false if nothing was sent
   */
  send(buffer: Buffer, length: number, done: BufferDone): boolean {
    if (!this.isOpen || !this.socket.isOpen) {
      done(buffer);
      return false;
    }
    this.buffers.push(buffer);
    this.lengths.push(length);
    this.dones.push(done);
    this.underWay += length;
    this.socket.send(length === buffer.length ? buffer : buffer.subarray(0, length), this.written);
    return true;
  }

  /** Sets the one handler; in the turn in which the channel was made, or what comes before it is lost. */
  onFrames(handler: FramesHandler): void {
    this.handler = handler;
  }

  /** Called once, within the call or event that closed the channel. */
  onClose(handler: (reason: string) => void): void {
    this.closeHandlers.push(handler);
  }

  /** Ends the channel; what was sent before still goes out. */
  close(reason: string): void {
    this.shut(CLOSE_NORMAL, reason);
  }

  /** Ends the channel and the connection at once. */
  terminate(reason: string): void {
    this.ended(reason);
    this.socket.terminate();
  }

  /** The oldest buffer goes back. With none left this is a late callback of a socket that has closed. */
  private release(): void {
    const buffer = this.buffers.shift();
    const done = this.dones.shift();
    if (buffer === undefined || done === undefined) return;
    this.underWay -= this.lengths.shift() ?? 0;
    done(buffer);
  }

  private receive(data: Buffer, binary: boolean): void {
    if (!this.isOpen) return;
    if (!binary || !isWellFormed(data)) {
      const what = binary ? 'a message holds a malformed frame' : 'a message is text';
      this.log.warn({ reason: what, bytes: data.length }, 'tunnel channel closed: malformed message');
      this.shut(CLOSE_PROTOCOL_ERROR, what);
      return;
    }
    try {
      this.handler?.(data, data.length);
    } catch (error) {
      this.log.error({ err: error }, 'tunnel channel closed: handling frames failed');
      this.shut(CLOSE_NORMAL, error instanceof FwdfsError ? error.what : describe(error));
    }
  }

  private shut(code: number, reason: string): void {
    if (!this.isOpen) return;
    this.ended(reason);
    this.socket.close(code, reason);
  }

  private ended(reason: string): void {
    if (!this.isOpen) return;
    this.closedWith = reason;
    this.keepalive.stop();
    for (const handler of this.closeHandlers.splice(0)) handler(reason);
  }
}

function isWellFormed(message: Buffer): boolean {
  const end = message.length;
  let off = 0;
  while (off < end) {
    off = nextFrame(message, off, end);
    if (off < 0) return false;
  }
  return true;
}
