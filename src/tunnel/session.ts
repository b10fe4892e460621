/**
 * One control device at the forwarder: its two channels, and what outlives them.
 *
 *              attach           channel lost, suspend
 *   connecting -------> active ----------------------> suspended --resume time--> closed
 *       ^                 |                                |                        ^
 *       |                 +----------- goodbye, end() -----+------------------------+
 *       +------------------------ hello with resume -------+
 *
 * The server makes sessions and moves them between states; a handler (the forwarder) sees them only from the first time
 * they are active.
 */
import { FwdfsError } from '../base/errors.js';
import type { ControlChannel } from './control-channel.js';
import type { Peer } from './listener.js';
import type { Answer, AnswerOf, Message, MessageArgs, MessageType, RequestType } from './messages.js';
import type { BufferDone, TunnelChannel } from './tunnel-channel.js';

export type SessionState = 'connecting' | 'active' | 'suspended' | 'closed';

/** What the forwarder does with sessions. Calls about one session never overlap. */
export interface SessionHandler {
  /** Both channels are there. @param resumed it was suspended before; else it is new */
  active(session: Session, resumed: boolean): void;
  /** A message of the control device; see MessageHandler for what is answered. Narrow with `...[type, fields]`. */
  message(session: Session, ...message: MessageArgs): Answer | Promise<Answer>;
  /** Well-formed frames (frames.ts) in message[0..end). */
  frames(session: Session, message: Buffer, end: number): void;
  /** The channels are gone; the session may be resumed. */
  suspended(session: Session): void;
  /** It is over, and was active at some time. */
  closed(session: Session, reason: string): void;
  /** For a resume: each down tunnel and the last sequence number received on it. */
  received(session: Session): { tunnel: number; sequence: number }[];
  /** For a resume: each up tunnel and the frames sent on it so far. */
  sent(session: Session): { tunnel: number; frames: number }[];
}

/** A session as the forwarder sees it. */
export interface Session {
  readonly id: string;
  /** What `authenticate` made of the hello and the peer. */
  readonly identity: string;
  /** IP address of the control device, empty on a Unix socket; that of the latest connection. */
  readonly address: string;
  /** The name it calls itself. */
  readonly name: string;
  readonly version: number;
  readonly state: SessionState;
  /** Smoothed, in ms; 0 until it was measured. */
  readonly roundTripMs: number;
  /** Bytes of frames that the kernel has not taken yet. */
  readonly bufferedBytes: number;
  /** How much came through both channels of the latest connection; any change is a sign of life. */
  readonly bytesReceived: number;
  /** What `hello` said; 1 to MAX_WEIGHT. */
  readonly weight: number;
  /** Asks the other side for a sign of life. */
  probe(): void;
  /** @returns false, and sends nothing, while the session is not active */
  send<T extends MessageType>(type: T, fields: Message<T>): boolean;
  /** See ControlChannel.request; 'not-connected' while the session is not active. */
  request<T extends RequestType>(type: T, fields: Message<T>, timeoutMs?: number): Promise<Message<AnswerOf<T>>>;
  /** See TunnelChannel.send; while the session is not active `done` is called at once and the result is false. */
  sendFrames(buffer: Buffer, length: number, done: BufferDone): boolean;
  /** Says goodbye and ends the session. */
  end(reason: string): void;
}

/** What a channel pair reports to the server that owns the session. */
export interface SessionOwner {
  channelLost(session: ServerSession, reason: string): void;
  end(session: ServerSession, reason: string): void;
}

export class ServerSession implements Session {
  readonly id: string;
  readonly identity: string;
  readonly name: string;
  address = '';
  version = 0;
  weight = 1;
  state: SessionState = 'connecting';
  /** The handler has seen it. */
  wasActive = false;
  /** Joins one /tunnel to it; empty when none is awaited. */
  tunnelKey = '';
  /** Ends the wait of this state: for the tunnel while connecting, for a resume while suspended. */
  cancelWait: () => void = () => undefined;
  private readonly owner: SessionOwner;
  private control: ControlChannel | null = null;
  private tunnel: TunnelChannel | null = null;

  constructor(owner: SessionOwner, id: string, identity: string, name: string) {
    this.owner = owner;
    this.id = id;
    this.identity = identity;
    this.name = name;
  }

  get roundTripMs(): number {
    return this.control?.roundTripMs ?? 0;
  }

  get bufferedBytes(): number {
    return this.tunnel?.bufferedBytes ?? 0;
  }

  get bytesReceived(): number {
    return (this.control?.bytesReceived ?? 0) + (this.tunnel?.bytesReceived ?? 0);
  }

  probe(): void {
    this.control?.probe();
  }

  send<T extends MessageType>(type: T, fields: Message<T>): boolean {
    return this.state === 'active' && (this.control?.send(type, fields) ?? false);
  }

  request<T extends RequestType>(type: T, fields: Message<T>, timeoutMs?: number): Promise<Message<AnswerOf<T>>> {
    if (this.state === 'active' && this.control !== null) return this.control.request(type, fields, timeoutMs);
    return Promise.reject(new FwdfsError('not-connected', `${type}: the session of ${this.name} is ${this.state}`));
  }

  sendFrames(buffer: Buffer, length: number, done: BufferDone): boolean {
    if (this.state === 'active' && this.tunnel !== null) return this.tunnel.send(buffer, length, done);
    done(buffer);
    return false;
  }

  end(reason: string): void {
    this.owner.end(this, reason);
  }

  // --- for the server ---

  bindControl(control: ControlChannel, peer: Peer): void {
    this.control = control;
    this.address = peer.address;
    control.onClose((reason) => {
      if (this.control === control) this.owner.channelLost(this, reason);
    });
  }

  bindTunnel(tunnel: TunnelChannel): void {
    this.tunnel = tunnel;
    tunnel.onClose((reason) => {
      if (this.tunnel === tunnel) this.owner.channelLost(this, reason);
    });
  }

  /** Lets go of both channels: orderly, so that what was sent still arrives, or by a cut if the peer is believed dead. */
  dropChannels(reason: string, orderly: boolean, goodbye = false): void {
    const { control, tunnel } = this;
    this.control = null;
    this.tunnel = null;
    if (goodbye) control?.send('goodbye', { reason });
    if (orderly) {
      control?.close(reason);
      tunnel?.close(reason);
    } else {
      control?.terminate(reason);
      tunnel?.terminate(reason);
    }
  }
}
