/**
 * What a channel needs of a transport, and the one over `ws`.
 *
 * Looked up in ws 8 (lib/sender.js, receiver.js, websocket.js):
 * - Sending copies no payload. `Sender.frame` allocates only the 2 to 14 bytes of WebSocket header and `sendFrame` writes
 *   header and payload as they are inside one cork, so one writev. A client copies only to mask a read-only buffer, and
 *   not at all while its mask is zero, which is what `noMask` gives; the receiver skips a zero mask as well.
 * - Receiving copies a message once, and only when it spans several reads of the socket (64 KiB each); a smaller one is a
 *   view into what was read, at any address.
 * - Callbacks of `send` come in the order of the sends; after the socket failed some may come late or not at all.
 */
import type { Socket } from 'node:net';
import type { RawData, WebSocket } from 'ws';

/** Why a channel closes, as WebSocket status codes. */
export const CLOSE_NORMAL = 1000;
export const CLOSE_PROTOCOL_ERROR = 1002;

/** How long the other side may take to answer a close before the connection is cut. */
const CLOSE_GRACE_MS = 1000;
/** Longest reason of a WebSocket close frame. */
const MAX_CLOSE_REASON_BYTES = 123;

export interface SocketEvents {
  /** One whole message, which now belongs to the receiver. */
  message(data: Buffer, binary: boolean): void;
  pong(): void;
  /** Exactly once, last of all: the transport needs no buffer any more. `why` is one line. */
  closed(why: string): void;
}

/**
 * Contract of a transport: ordered, reliable, keeps the borders of messages. Events come only after `listen`, which is
 * called in the turn in which the socket was handed over, and never from inside `send`.
 */
export interface MessageSocket {
  readonly isOpen: boolean;
  /** Grows with every sign of life from the other side. */
  readonly bytesReceived: number;
  listen(events: SocketEvents): void;
  /**
   * Sends one binary message. `data` must not change until `done` is called, which happens in the order of the sends, or
   * not at all if the socket closes first. Only while `isOpen`.
   */
  send(data: Buffer, done: () => void): void;
  ping(): void;
  /** What was sent before still goes out; then the connection ends, within CLOSE_GRACE_MS also without the other side. */
  close(code: number, reason: string): void;
  /** Ends the connection at once. */
  terminate(): void;
}

const SEND_OPTIONS = { binary: true, compress: false } as const;

/** `generateMask` for clients: masking protects old proxies, which are not on links of our own. */
export function noMask(mask: Buffer): void {
  mask.fill(0);
}

export class WebSocketTransport implements MessageSocket {
  private readonly ws: WebSocket;
  private readonly stream: Socket;
  private graceTimer: NodeJS.Timeout | undefined;

  /** @param stream the connection under `ws`, for its addresses and byte counts */
  constructor(ws: WebSocket, stream: Socket) {
    this.ws = ws;
    this.stream = stream;
  }

  get isOpen(): boolean {
    return this.ws.readyState === this.ws.OPEN;
  }

  get bytesReceived(): number {
    return this.stream.bytesRead;
  }

  listen(events: SocketEvents): void {
    let failure = '';
    this.ws.on('message', (data, binary) => events.message(asBuffer(data), binary));
    this.ws.on('pong', () => events.pong());
    this.ws.on('error', (error) => {
      failure = error.message;
    });
    this.ws.once('close', (code, reason) => {
      clearTimeout(this.graceTimer);
      events.closed(failure || reason.toString() || (code === 1006 ? 'the connection was cut' : `closed with ${code}`));
    });
  }

  send(data: Buffer, done: () => void): void {
    this.ws.send(data, SEND_OPTIONS, done);
  }

  ping(): void {
    if (this.isOpen) this.ws.ping();
  }

  close(code: number, reason: string): void {
    this.ws.close(code, shorten(reason));
    this.graceTimer ??= setTimeout(() => this.ws.terminate(), CLOSE_GRACE_MS);
    if (this.ws.readyState === this.ws.CLOSED) clearTimeout(this.graceTimer);
  }

  terminate(): void {
    this.ws.terminate();
  }
}

/** ws gives a Buffer unless it was told otherwise. */
function asBuffer(data: RawData): Buffer {
  if (Buffer.isBuffer(data)) return data;
  return Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data);
}

/** As much of a reason as a close frame holds, without cutting a character apart. */
function shorten(reason: string): Buffer {
  const bytes = Buffer.from(reason);
  let end = Math.min(bytes.length, MAX_CLOSE_REASON_BYTES);
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1;
  return bytes.subarray(0, end);
}
