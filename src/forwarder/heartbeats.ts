/**
 * Which control devices are there: those that new flows may be given to.
 *
 *     every heartbeat: did anything come since the last one?     yes --> heard
 *                                                                no  --> one more missed; a ping is sent
 *              HEARTBEATS_AWAY missed             more, still away
 *     heard -------------------------> away -----------------------> lost: told once
 *       ^       channels gone: at once  |      without channels: one more
 *       |                               |      with them: HEARTBEATS_LOST in all
 *       +------- anything comes --------+
 *
 * A connection that broke is a process that ended or a machine that is gone. One that is silent may be a machine with too
 * much to do, for which others take new flows, and whose connections are not to be cut for a moment of it.
 *
 * Only while a control device has virtual IFs or virtual IP addresses: nobody else is given flows. Whatever waits at our
 * sockets is read before it is looked, and a heartbeat that comes late is our own delay, and no reason to blame anybody. Its
 * channels stay: keepalive ends those, much later.
 */
import { HEARTBEATS_AWAY, HEARTBEATS_LOST } from '../base/limits.js';
import type { Session } from '../tunnel/session.js';
import { type Cancel, realTimers, type Timers } from '../tunnel/timers.js';
import type { Peer } from './peer.js';

export interface HeartbeatsOptions {
  /** In ms. */
  readonly interval: number;
  readonly peers: ReadonlyMap<Pick<Session, 'bytesReceived' | 'probe'>, Peer>;
  /** It went away or came back. */
  readonly onChange: (peer: Peer) => void;
  /** It is away for good, as far as its flows go. */
  readonly onLost: (peer: Peer) => void;
  readonly timers?: Timers;
  /** Runs a step when all that waited at the sockets was read. */
  readonly afterReading?: (step: () => void) => void;
}

interface Heard {
  bytes: number;
  missed: number;
  lost: boolean;
}

/** A heartbeat that is later than this part of its interval is late. */
const LATE = 0.5;

export class Heartbeats {
  private readonly options: HeartbeatsOptions;
  private readonly heard = new WeakMap<Peer, Heard>();
  private readonly cancel: Cancel;
  private last: number;
  private stopped = false;

  constructor(options: HeartbeatsOptions) {
    this.options = options;
    const timers = options.timers ?? realTimers;
    const afterReading = options.afterReading ?? setImmediate;
    this.last = timers.now();
    this.cancel = timers.every(options.interval, () => {
      const now = timers.now();
      const isLate = now - this.last > (1 + LATE) * options.interval;
      this.last = now;
      afterReading(() => this.tick(isLate));
    });
  }

  stop(): void {
    this.stopped = true;
    this.cancel();
  }

  private tick(isLate: boolean): void {
    if (this.stopped) return;
    for (const [session, peer] of this.options.peers) if (peer.flowRules > 0) this.look(session, peer, isLate);
  }

  private look(session: Pick<Session, 'bytesReceived' | 'probe'>, peer: Peer, isLate: boolean): void {
    const { onChange, onLost } = this.options;
    const { bytesReceived } = session;
    const known = this.heard.get(peer) ?? { bytes: -1, missed: 0, lost: false };
    this.heard.set(peer, known);
    if (peer.active && bytesReceived !== known.bytes) {
      known.missed = 0;
      known.lost = false;
    } else if (!isLate || !peer.active) known.missed += 1;
    known.bytes = bytesReceived;
    const silent = known.missed >= HEARTBEATS_AWAY;
    if (silent !== peer.silent) {
      peer.silent = silent;
      onChange(peer);
    }
    if (!known.lost && known.missed >= (peer.active ? HEARTBEATS_LOST : HEARTBEATS_AWAY + 1)) {
      known.lost = true;
      onLost(peer);
    }
    if (peer.active) session.probe();
  }
}
