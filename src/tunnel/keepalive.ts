/**
 * Keeps a channel honest: a ping every KEEPALIVE_INTERVAL_MS, the round-trip time from its pong, and the end of a
 * channel from which nothing came for KEEPALIVE_TIMEOUT_MS. Silence is counted in ticks and not by the clock, so that a
 * process that was itself stopped for a while does not blame the other side.
 */
import { KEEPALIVE_INTERVAL_MS, KEEPALIVE_TIMEOUT_MS } from '../base/limits.js';
import type { MessageSocket } from './socket.js';
import type { Cancel, Timers } from './timers.js';

const TICK_MS = 1000;
/** Weight of a new round-trip time in the smoothed one (RFC 6298, alpha). */
const SMOOTHING = 1 / 8;

export class Keepalive {
  private readonly socket: MessageSocket;
  private readonly timers: Timers;
  private readonly dead: () => void;
  private readonly cancel: Cancel;
  private bytesSeen = -1;
  private silentMs = 0;
  private sincePingMs = 0;
  /** When the ping went out that is not answered yet; -1: none. */
  private pingAt = -1;
  private smoothed = 0;

  /** @param dead called once the other side was silent for too long; it stops this keepalive */
  constructor(socket: MessageSocket, timers: Timers, dead: () => void) {
    this.socket = socket;
    this.timers = timers;
    this.dead = dead;
    this.cancel = timers.every(TICK_MS, () => this.tick());
    this.ping();
  }

  /** Smoothed, in ms; 0 until the first pong. */
  get roundTripMs(): number {
    return this.smoothed;
  }

  pong(): void {
    this.silentMs = 0;
    if (this.pingAt < 0) return;
    const sample = this.timers.now() - this.pingAt;
    this.pingAt = -1;
    this.smoothed = this.smoothed === 0 ? sample : this.smoothed + SMOOTHING * (sample - this.smoothed);
  }

  stop(): void {
    this.cancel();
  }

  private tick(): void {
    const bytes = this.socket.bytesReceived;
    this.silentMs = bytes === this.bytesSeen ? this.silentMs + TICK_MS : 0;
    this.bytesSeen = bytes;
    if (this.silentMs >= KEEPALIVE_TIMEOUT_MS) {
      this.dead();
      return;
    }
    this.sincePingMs += TICK_MS;
    if (this.sincePingMs >= KEEPALIVE_INTERVAL_MS) this.ping();
  }

  /** One ping at a time: a second one behind the first would only wait in the same queue. */
  private ping(): void {
    this.sincePingMs = 0;
    if (this.pingAt >= 0) return;
    this.pingAt = this.timers.now();
    this.socket.ping();
  }
}
