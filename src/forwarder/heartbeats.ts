/**
 * Which control devices are there: those that new flows may be given to.
 *
 *     every heartbeat: did anything come since the last one?     yes --> heard
 *                                                                no  --> one more missed; a ping is sent
 *              HEARTBEATS_AWAY missed        one more, still away
 *     heard -------------------------> away -----------------------> lost: told once
 *       ^       channels gone: at once  |                              |
 *       +------- anything comes --------+------------------------------+
 *
 * Only while a control device has virtual IFs or virtual IP addresses: nobody else is given flows. Missed heartbeats are
 * counted in ticks and not by the clock, so that a forwarder that was itself stopped does not blame the other side. Its
 * channels stay: keepalive ends those, much later.
 */
import { HEARTBEATS_AWAY } from '../base/limits.js';
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
}

interface Heard {
  bytes: number;
  missed: number;
}

export class Heartbeats {
  private readonly options: HeartbeatsOptions;
  private readonly heard = new WeakMap<Peer, Heard>();
  private readonly cancel: Cancel;

  constructor(options: HeartbeatsOptions) {
    this.options = options;
    this.cancel = (options.timers ?? realTimers).every(options.interval, () => this.tick());
  }

  stop(): void {
    this.cancel();
  }

  private tick(): void {
    for (const [session, peer] of this.options.peers) if (peer.flowRules > 0) this.look(session, peer);
  }

  private look(session: Pick<Session, 'bytesReceived' | 'probe'>, peer: Peer): void {
    const { onChange, onLost } = this.options;
    const { bytesReceived } = session;
    const known = this.heard.get(peer) ?? { bytes: -1, missed: 0 };
    this.heard.set(peer, known);
    known.missed = peer.active && bytesReceived !== known.bytes ? 0 : known.missed + 1;
    known.bytes = bytesReceived;
    const silent = known.missed >= HEARTBEATS_AWAY;
    if (silent !== peer.silent) {
      peer.silent = silent;
      onChange(peer);
    }
    if (known.missed === HEARTBEATS_AWAY + 1) onLost(peer);
    if (peer.active) session.probe();
  }
}
