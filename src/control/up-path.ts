/**
 * What a forwarder sends on /tunnel (Fig. 11, S1107 to S1109; Fig. 29, S610, S611): each frame to the symbol of its up
 * tunnel. Data reception processing section 260, and the way up of tunnel transfer section 28.
 *
 *     message -> for each frame: data    -> ReceptionTable -> UpTunnel -> its readers
 *                                confirm -> DownTunnel
 *             -> credit for the up tunnels that used up half of theirs
 */
import { C, Counters } from '../base/counters.js';
import {
  CONFIRM_ERROR,
  FRAME_HEADER_BYTES,
  frameBytes,
  getCounter,
  getFlags,
  getKind,
  getLength,
  getNanoseconds,
  getSeconds,
  getTunnel,
  KIND_CONFIRM,
  KIND_DATA,
  nextFrame,
  OFFLOAD_OFFSET,
  putCredit,
} from '../tunnel/frames.js';
import type { DownTunnel } from './down-tunnel.js';
import type { ReceptionTable } from './tables.js';
import type { UpTunnel } from './up-tunnel.js';

export class UpPath {
  /** Frames that belong to no symbol. */
  readonly lost = new Counters();
  private readonly forwarder: string;
  private readonly reception: ReceptionTable;
  private readonly downs: ReadonlyMap<number, DownTunnel>;
  private readonly send: (buffer: Buffer, length: number) => void;
  private readonly touched: UpTunnel[] = [];

  constructor(
    forwarder: string,
    reception: ReceptionTable,
    downs: ReadonlyMap<number, DownTunnel>,
    send: (buffer: Buffer, length: number) => void,
  ) {
    this.forwarder = forwarder;
    this.reception = reception;
    this.downs = downs;
    this.send = send;
  }

  /** One well-formed message of `end` bytes. */
  frames(message: Buffer, end: number): void {
    let last: UpTunnel | null = null;
    for (let at = 0; at < end; at = nextFrame(message, at, end)) {
      const kind = getKind(message, at);
      if (kind === KIND_DATA) {
        const id = getTunnel(message, at);
        const tunnel: UpTunnel | undefined = last !== null && last.id === id ? last : this.reception.get(id);
        const length = getLength(message, at);
        // The table is that of all forwarders; a tunnel is its own forwarder's alone.
        if (tunnel === undefined || tunnel.forwarder !== this.forwarder || length === 0) {
          this.lost.add(C.drop_unknown_tunnel, 1);
          continue;
        }
        if (!tunnel.touched) {
          tunnel.touched = true;
          this.touched.push(tunnel);
        }
        last = tunnel;
        tunnel.deliver(
          message,
          at + FRAME_HEADER_BYTES,
          length,
          at + OFFLOAD_OFFSET,
          getSeconds(message, at),
          getNanoseconds(message, at),
        );
      } else if (kind === KIND_CONFIRM) {
        const failed = (getFlags(message, at) & CONFIRM_ERROR) !== 0;
        const errno = failed ? message.readUInt32LE(at + FRAME_HEADER_BYTES) : 0;
        this.downs.get(getTunnel(message, at))?.confirm(getCounter(message, at), errno);
      }
    }
    if (this.touched.length > 0) this.grant();
  }

  private grant(): void {
    for (let i = 0; i < this.touched.length; i++) {
      const tunnel = this.touched[i] as UpTunnel;
      tunnel.touched = false;
      const granted = tunnel.takeCredit();
      if (granted === 0) continue;
      const frame = Buffer.alloc(frameBytes(0));
      this.send(frame, putCredit(frame, 0, tunnel.id, granted));
    }
    this.touched.length = 0;
  }
}
