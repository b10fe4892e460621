/**
 * The control device's end: one forwarder, for ever.
 *
 *                    both channels open
 *   connecting -------------------------------> connected
 *      ^   |                                        |
 *      |   | failed, or not within HELLO_TIMEOUT_MS | a channel lost, goodbye, suspend
 *      |   v                                        v
 *      +-- waiting (backoff) <----------------------+          close(): goodbye, from any state to the end
 *
 * Connecting is: /control, hello (with resume if there is a session), hello-response, /tunnel?key=…. Each try is a Link;
 * what arrives for a link that is no longer the current one is dropped.
 */
import { FwdfsError, describe } from '../base/errors.js';
import {
  HELLO_TIMEOUT_MS,
  MAX_CONTROL_MESSAGE_BYTES,
  MAX_TUNNEL_MESSAGE_BYTES,
  RECONNECT_MAX_MS,
} from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { backoff } from './backoff.js';
import { ControlChannel } from './control-channel.js';
import { type ClientTls, dial } from './dial.js';
import {
  type Answer,
  type AnswerOf,
  type Message,
  type MessageArgs,
  type MessageType,
  type RequestType,
  VERSIONS,
  negotiate,
} from './messages.js';
import type { MessageSocket } from './socket.js';
import { type Cancel, type Timers, realTimers } from './timers.js';
import { type BufferDone, TunnelChannel } from './tunnel-channel.js';

export interface Connected {
  /** The session goes on: rules and tunnels are there. */
  readonly resumed: boolean;
  /** The forwarder is the same process as at the last connection. */
  readonly sameEpoch: boolean;
  /** Name of the forwarder. */
  readonly forwarder: string;
  readonly version: number;
  /** How long the forwarder keeps the session after a loss, ms. */
  readonly resumeTime: number;
  /** Down tunnels of a resumed session, and the last sequence number that the forwarder received on each. */
  readonly tunnels: { tunnel: number; sequence: number }[];
  /** Up tunnels of a resumed session, and the frames that the forwarder sent on each so far. */
  readonly upTunnels: { tunnel: number; frames: number }[];
}

/** What the control device does with a connection. Calls do not overlap. */
export interface ClientHandler {
  /** First of all; requests work from here on. If it fails, the connection is given up and tried again. */
  connected(connected: Connected): Promise<void> | void;
  /** A message of the forwarder; see MessageHandler for what is answered. Narrow with `...[type, fields]`. */
  message(...message: MessageArgs): Answer | Promise<Answer>;
  /** Well-formed frames (frames.ts) in message[0..end). */
  frames(message: Buffer, end: number): void;
  /** Once for each `connected`. @param orderly one side said goodbye: there is no session to resume */
  disconnected(error: FwdfsError, orderly: boolean): void;
  /** A try to connect failed; the next one comes by itself. */
  failed?(error: FwdfsError): void;
}

export interface TunnelClientOptions {
  readonly url: string;
  /** Name of this control device. */
  readonly name: string;
  readonly token?: string;
  readonly tls?: ClientTls;
  /** Share of new flows against those of other control devices, 1 to MAX_WEIGHT; default: 1. */
  readonly weight?: number;
  readonly log: Logger;
  readonly handler: ClientHandler;
  readonly timers?: Timers;
  /** For the jitter; in [0, 1). */
  readonly random?: () => number;
}

/** For `.state`. */
export interface ClientState {
  readonly connected: boolean;
  /** When `connected` last changed, ms since the epoch. */
  readonly since: number;
  /** Smoothed, ms; 0 until it was measured. */
  readonly roundTripMs: number;
  /** Of the protocol; 0 before the first connection. */
  readonly version: number;
  readonly resumedCount: number;
  /** Why it is not connected, or was not the last time; empty if it always was. */
  readonly lastError: string;
  readonly forwarder: string;
  /** IP addresses of the connection, empty on a Unix socket and while there is none. */
  readonly localAddress: string;
  readonly remoteAddress: string;
}

interface Link {
  control: ControlChannel | null;
  tunnel: TunnelChannel | null;
  /** Both channels are there since then, in ms of the timers; -1: not yet. */
  connectedAt: number;
  cancelDeadline: Cancel;
  abortDial: () => void;
}

const nothing = (): void => undefined;

export class TunnelClient {
  private readonly options: TunnelClientOptions;
  private readonly timers: Timers;
  private readonly log: Logger;
  private link: Link | null = null;
  private cancelWait: Cancel = nothing;
  private attempt = 0;
  private closed = false;
  private session = '';
  private epoch = '';
  private since = Date.now();
  private version = 0;
  private resumedCount = 0;
  private lastError = '';
  private forwarder = '';
  private localAddress = '';
  private remoteAddress = '';

  /** Starts to connect. @throws FwdfsError 'bad-config' for a URL that is none, or TLS files that cannot be read */
  constructor(options: TunnelClientOptions) {
    this.options = options;
    this.log = options.log;
    this.timers = options.timers ?? realTimers;
    this.connect();
  }

  get state(): ClientState {
    return {
      connected: this.isConnected,
      since: this.since,
      roundTripMs: this.link?.control?.roundTripMs ?? 0,
      version: this.version,
      resumedCount: this.resumedCount,
      lastError: this.lastError,
      forwarder: this.forwarder,
      localAddress: this.localAddress,
      remoteAddress: this.remoteAddress,
    };
  }

  get isConnected(): boolean {
    return this.link !== null && this.link.connectedAt >= 0;
  }

  /** Bytes of frames that the kernel has not taken yet. */
  get bufferedBytes(): number {
    return this.link?.tunnel?.bufferedBytes ?? 0;
  }

  /** @returns false, and sends nothing, while it is not connected */
  send<T extends MessageType>(type: T, fields: Message<T>): boolean {
    return this.isConnected && (this.link?.control?.send(type, fields) ?? false);
  }

  /** See ControlChannel.request; 'not-connected' at once, with the reason, while it is not connected. */
  request<T extends RequestType>(type: T, fields: Message<T>, timeoutMs?: number): Promise<Message<AnswerOf<T>>> {
    const control = this.link?.control;
    if (this.isConnected && control) return control.request(type, fields, timeoutMs);
    return Promise.reject(new FwdfsError('not-connected', this.lastError || `${type}: not connected yet`));
  }

  /** See TunnelChannel.send; while it is not connected `done` is called at once and the result is false. */
  sendFrames(buffer: Buffer, length: number, done: BufferDone): boolean {
    const tunnel = this.link?.tunnel;
    if (this.isConnected && tunnel) return tunnel.send(buffer, length, done);
    done(buffer);
    return false;
  }

  /** Says goodbye and stays away. What was sent before still goes out. */
  close(reason = 'the control device stops'): void {
    if (this.closed) return;
    this.closed = true;
    this.cancelWait();
    const { link } = this;
    if (link === null) return;
    link.control?.send('goodbye', { reason });
    this.lost(link, new FwdfsError('not-connected', reason), true);
  }

  // --- connecting ---

  private connect(): void {
    const link: Link = {
      control: null,
      tunnel: null,
      connectedAt: -1,
      cancelDeadline: nothing,
      abortDial: nothing,
    };
    this.link = link;
    this.dial(link, '/control', MAX_CONTROL_MESSAGE_BYTES, (socket) => this.controlOpened(link, socket));
    link.cancelDeadline = this.timers.after(HELLO_TIMEOUT_MS, () => {
      this.lost(link, new FwdfsError('timed-out', `connecting to ${this.options.url}`), false);
    });
  }

  private dial(link: Link, path: string, maxPayload: number, opened: (socket: MessageSocket) => void): void {
    const { url, tls } = this.options;
    link.abortDial = dial(
      url,
      path,
      { maxPayload, ...(tls === undefined ? {} : { tls }) },
      {
        opened: (socket, stream) => {
          this.localAddress = plain(stream.localAddress);
          this.remoteAddress = plain(stream.remoteAddress);
          opened(socket);
        },
        failed: (error) => this.lost(link, error, false),
      },
    );
  }

  private controlOpened(link: Link, socket: MessageSocket): void {
    const control = new ControlChannel(socket, { side: 'control', log: this.log, timers: this.timers });
    link.control = control;
    control.onClose((reason) => this.lost(link, new FwdfsError('not-connected', reason), false));
    const { name, token, weight } = this.options;
    const resume = this.session === '' ? {} : { resume: { session: this.session, epoch: this.epoch } };
    control
      .request(
        'hello',
        {
          versions: VERSIONS,
          name,
          ...(token === undefined ? {} : { token }),
          ...(weight === undefined ? {} : { weight }),
          ...resume,
        },
        HELLO_TIMEOUT_MS,
      )
      .then((response) => {
        if (this.link !== link) return;
        negotiate({ min: response.version, max: response.version });
        const path = `/tunnel?key=${encodeURIComponent(response.tunnelKey)}`;
        this.dial(link, path, MAX_TUNNEL_MESSAGE_BYTES, (opened) => this.tunnelOpened(link, control, response, opened));
      })
      .catch((error: unknown) => this.lost(link, asFwdfsError(error), false));
  }

  private tunnelOpened(
    link: Link,
    control: ControlChannel,
    response: Message<'hello-response'>,
    socket: MessageSocket,
  ): void {
    const { handler } = this.options;
    const tunnel = new TunnelChannel(socket, { log: this.log, timers: this.timers });
    link.tunnel = tunnel;
    tunnel.onClose((reason) => this.lost(link, new FwdfsError('not-connected', reason), false));
    tunnel.onFrames((message, end) => handler.frames(message, end));
    link.cancelDeadline();
    link.connectedAt = this.timers.now();
    const { resumed, forwarder, version, resumeTime, tunnels, upTunnels } = response;
    const sameEpoch = response.epoch === this.epoch;
    this.session = response.session;
    this.epoch = response.epoch;
    this.version = version;
    this.forwarder = forwarder;
    this.since = Date.now();
    if (resumed) this.resumedCount += 1;
    this.log.info({ url: this.options.url, forwarder, resumed, sameEpoch }, 'connected');
    this.greet(link, { resumed, sameEpoch, forwarder, version, resumeTime, tunnels, upTunnels });
    control.onMessage((...message) => this.message(link, message));
  }

  /** `connected` starts before any message is delivered; the rest of it may overlap with them. */
  private greet(link: Link, connected: Connected): void {
    const give = (error: unknown): void => this.lost(link, asFwdfsError(error), false);
    try {
      this.options.handler.connected(connected)?.catch(give);
    } catch (error) {
      give(error);
    }
  }

  private message(link: Link, message: MessageArgs): Answer | Promise<Answer> {
    if (message[0] === 'goodbye') {
      const reason = `the forwarder said goodbye: ${message[1].reason}`;
      this.lost(link, new FwdfsError('not-connected', reason), true);
      return undefined;
    }
    if (message[0] === 'suspend') {
      this.lost(link, new FwdfsError('not-connected', 'the forwarder suspended the session'), false);
      return undefined;
    }
    return this.options.handler.message(...message);
  }

  // --- losing ---

  /** The end of a link, whatever ended it; the first reason counts. */
  private lost(link: Link, error: FwdfsError, orderly: boolean): void {
    if (this.link !== link) return;
    this.link = null;
    const { handler } = this.options;
    const wasConnected = link.connectedAt >= 0;
    link.cancelDeadline();
    link.abortDial();
    link.control?.close(error.what);
    link.tunnel?.close(error.what);
    this.localAddress = '';
    this.remoteAddress = '';
    if (orderly) this.session = '';
    // A connection that did not last counts as another failed try.
    if (wasConnected && this.timers.now() - link.connectedAt >= RECONNECT_MAX_MS) this.attempt = 0;
    this.report(error, wasConnected);
    if (!this.closed) this.wait();
    try {
      if (wasConnected) handler.disconnected(error, orderly);
      else handler.failed?.(error);
    } catch (thrown) {
      this.log.error({ err: thrown }, 'client handler failed');
    }
  }

  private report(error: FwdfsError, wasConnected: boolean): void {
    // The advice of 'not-connected' is to look here.
    const reason = error.code === 'not-connected' ? error.what : error.message;
    const fields = { url: this.options.url, reason };
    if (wasConnected) {
      this.since = Date.now();
      this.log.warn(fields, 'disconnected');
    } else if (reason !== this.lastError) {
      this.log.warn(fields, 'connecting failed; it is tried again');
    }
    this.lastError = reason;
  }

  private wait(): void {
    const ms = backoff(this.attempt, (this.options.random ?? Math.random)());
    this.attempt += 1;
    this.cancelWait = this.timers.after(ms, () => this.reconnect());
  }

  private reconnect(): void {
    try {
      this.connect();
    } catch (error) {
      // Files that were there at the start may be in the middle of a renewal.
      if (this.link !== null) this.lost(this.link, asFwdfsError(error), false);
    }
  }
}

function asFwdfsError(error: unknown): FwdfsError {
  return error instanceof FwdfsError ? error : new FwdfsError('internal', describe(error), { cause: error });
}

function plain(address: string | undefined): string {
  return (address ?? '').replace(/^::ffff:(?=\d+\.)/, '');
}
