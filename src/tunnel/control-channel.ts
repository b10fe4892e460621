/**
 * One /control channel: messages out, messages in, and requests that wait for their answers.
 *
 *   request() -> encode -> socket ~~~> socket -> decode -> handler -> answer or error -> socket ~~~> settles request()
 *
 * Handlers are started in the order in which messages arrive; answers go out as they are ready. What arrives before
 * `onMessage` is kept for it. A malformed message closes the channel, and only the channel.
 *
 *   open --close(), malformed message, silence or a cut--> closed: pending requests fail, onClose handlers run, once
 */
import { FwdfsError, describe, isErrorCode } from '../base/errors.js';
import { REQUEST_TIMEOUT_MS } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { type Decoded, type Envelope, type KnownMessage, decodeMessage, encodeMessage } from './codec.js';
import { Keepalive } from './keepalive.js';
import {
  type Answer,
  type AnswerOf,
  type AnyFields,
  type Message,
  type MessageArgs,
  type MessageType,
  type RequestType,
  type Side,
  entryOf,
  isMessageType,
  isSentBy,
} from './messages.js';
import { CLOSE_NORMAL, CLOSE_PROTOCOL_ERROR, type MessageSocket } from './socket.js';
import { type Cancel, type Timers, realTimers } from './timers.js';

/**
 * Gets each message that is none of the answers. What it returns, or what its promise gives, answers a request; a
 * FwdfsError that it throws becomes an `error` with its code. undefined to a request means 'unknown-message'.
 */
export type MessageHandler = (...message: MessageArgs) => Answer | Promise<Answer>;

export interface ChannelOptions {
  /** The side that this channel is on. */
  readonly side: Side;
  readonly log: Logger;
  readonly timers?: Timers;
}

interface Pending {
  readonly type: RequestType;
  readonly cancelTimer: Cancel;
  resolve(fields: AnyFields): void;
  reject(error: FwdfsError): void;
}

const U32_MODULUS = 2 ** 32;
const nothing = (): void => undefined;

export class ControlChannel {
  private readonly socket: MessageSocket;
  private readonly side: Side;
  private readonly log: Logger;
  private readonly timers: Timers;
  private readonly keepalive: Keepalive;
  private readonly pending = new Map<number, Pending>();
  private readonly closeHandlers: ((reason: string) => void)[] = [];
  private readonly early: KnownMessage[] = [];
  private handler: MessageHandler | undefined;
  private lastId = 0;
  private closedWith: string | undefined;

  constructor(socket: MessageSocket, options: ChannelOptions) {
    this.socket = socket;
    this.side = options.side;
    this.log = options.log;
    this.timers = options.timers ?? realTimers;
    this.keepalive = new Keepalive(socket, this.timers, () => {
      this.terminate('nothing was heard from the other device');
    });
    socket.listen({
      message: (data, binary) => this.receive(data, binary),
      pong: () => this.keepalive.pong(),
      closed: (why) => this.ended(why),
    });
  }

  get isOpen(): boolean {
    return this.closedWith === undefined;
  }

  /** Smoothed, in ms; 0 until it was measured. */
  get roundTripMs(): number {
    return this.keepalive.roundTripMs;
  }

  get bytesReceived(): number {
    return this.socket.bytesReceived;
  }

  /** Asks for a pong, besides those of keepalive. */
  probe(): void {
    this.socket.ping();
  }

  /** Sends a message that wants no answer. @returns false if the channel is closed and nothing was sent */
  send<T extends MessageType>(type: T, fields: Message<T>): boolean {
    return this.write(type, fields, {});
  }

  /**
   * Sends a request. @throws FwdfsError (as a rejection) with the code of an `error` answer; 'timed-out';
   * 'not-connected' when the channel closes first; 'bad-message' when something else answers it
   */
  request<T extends RequestType>(
    type: T,
    fields: Message<T>,
    timeoutMs = REQUEST_TIMEOUT_MS,
  ): Promise<Message<AnswerOf<T>>> {
    return new Promise((resolve, reject) => {
      const id = this.nextId();
      if (!this.write(type, fields, { id })) {
        reject(new FwdfsError('not-connected', `${type}: ${this.closedWith ?? 'closed'}`));
        return;
      }
      const cancelTimer = this.timers.after(timeoutMs, () => {
        this.pending.delete(id);
        reject(new FwdfsError('timed-out', `${type} was not answered within ${timeoutMs} ms`));
      });
      // `settle` lets only messages of the answer's own type pass.
      this.pending.set(id, { type, cancelTimer, resolve: resolve as (fields: AnyFields) => void, reject });
    });
  }

  /** Sets the one handler, and gives it what has arrived meanwhile. */
  onMessage(handler: MessageHandler): void {
    this.handler = handler;
    for (const message of this.early.splice(0)) this.handle(message);
  }

  /** Called once, within the call or event that closed the channel. */
  onClose(handler: (reason: string) => void): void {
    this.closeHandlers.push(handler);
  }

  /** Ends the channel; what was sent before still goes out. */
  close(reason: string): void {
    this.shut(CLOSE_NORMAL, reason);
  }

  /** Ends the channel and the connection at once, for one that is believed dead. */
  terminate(reason: string): void {
    this.ended(reason);
    this.socket.terminate();
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
    this.early.length = 0;
    for (const [id, request] of this.pending) {
      this.pending.delete(id);
      request.cancelTimer();
      request.reject(new FwdfsError('not-connected', `${request.type}: ${reason}`));
    }
    for (const handler of this.closeHandlers.splice(0)) handler(reason);
  }

  private nextId(): number {
    do this.lastId = (this.lastId + 1) % U32_MODULUS;
    while (this.pending.has(this.lastId));
    return this.lastId;
  }

  private write(type: MessageType, fields: AnyFields, envelope: Envelope): boolean {
    if (!this.isOpen || !this.socket.isOpen) return false;
    this.socket.send(encodeMessage(type, fields, envelope), nothing);
    return true;
  }

  // --- incoming ---

  private receive(data: Buffer, binary: boolean): void {
    if (!this.isOpen) return;
    let message: Decoded;
    try {
      if (!binary) throw new FwdfsError('bad-message', 'a message is text');
      message = decodeMessage(data);
    } catch (error) {
      const what = error instanceof FwdfsError ? error.what : describe(error);
      this.log.warn({ reason: what, bytes: data.length }, 'control channel closed: malformed message');
      this.shut(CLOSE_PROTOCOL_ERROR, what);
      return;
    }
    if (message.re !== undefined) this.settle(message.re, message);
    else if (!message.known) this.refuse(message.type, message.id);
    else if (message.args[0] === 'error')
      this.log.warn({ error: message.args[1] }, 'the other device reports an error');
    else if (!isSentBy(message.args[0], this.side === 'control' ? 'forwarder' : 'control')) {
      this.refuse(message.args[0], message.id);
    } else if (this.handler === undefined) this.early.push(message);
    else this.handle(message);
  }

  /** An answer whose request timed out is of no use to anybody. */
  private settle(re: number, message: Decoded): void {
    const request = this.pending.get(re);
    if (request === undefined) return;
    this.pending.delete(re);
    request.cancelTimer();
    const type = message.known ? message.args[0] : message.type;
    if (message.known && message.args[0] === 'error') {
      const { code, text } = message.args[1];
      request.reject(new FwdfsError(isErrorCode(code) ? code : 'internal', text));
    } else if (message.known && type === entryOf(request.type).answer) {
      request.resolve(message.args[1]);
    } else {
      request.reject(new FwdfsError('bad-message', `${request.type} was answered with ${type}`));
    }
  }

  private handle(message: KnownMessage): void {
    if (!this.isOpen || this.handler === undefined) return;
    const type = message.args[0];
    let answer: Answer | Promise<Answer>;
    try {
      answer = this.handler(...message.args);
    } catch (error) {
      this.fail(type, message.id, error);
      return;
    }
    if (answer instanceof Promise) {
      answer
        .then((fields) => this.answer(type, message.id, fields))
        .catch((error) => this.fail(type, message.id, error));
      return;
    }
    try {
      this.answer(type, message.id, answer);
    } catch (error) {
      this.fail(type, message.id, error);
    }
  }

  private answer(type: MessageType, id: number | undefined, fields: Answer): void {
    if (id === undefined) return;
    const answer = entryOf(type).answer;
    if (fields === undefined || answer === null || !isMessageType(answer)) this.refuse(type, id);
    else this.write(answer, fields, { re: id });
  }

  private refuse(type: string, id: number | undefined): void {
    this.log.info({ type }, 'unknown message');
    const fields = { code: 'unknown-message', text: `message ${type} is not known here` };
    this.write('error', fields, id === undefined ? {} : { re: id });
  }

  private fail(type: MessageType, id: number | undefined, error: unknown): void {
    const known = error instanceof FwdfsError ? error : new FwdfsError('internal', describe(error), { cause: error });
    if (known.code === 'internal') this.log.error({ type, err: error }, 'handling a message failed');
    if (id !== undefined) this.write('error', { code: known.code, text: known.what }, { re: id });
    else if (known.code !== 'internal') this.log.warn({ type, reason: known.message }, 'a message was refused');
  }
}
