/**
 * The way of a frame out of the forwarder (Fig. 12, S1205 to S1207; Fig. 30, S705 to S706).
 *
 *     TunnelChannel message --queue()--> PacketTransmitter batch --flush()--> interface
 *                                             |  busy                         |
 *                                             +--> backlog, tried again       +--> confirm, or the errno, per down tunnel
 *
 * Frames are not copied: the batch holds addresses inside the message, which stays referenced until its frames are out. A
 * queue that is full just now (EAGAIN, ENOBUFS) keeps the frames in order in the backlog; every other error is that of one
 * frame and is reported for it. The windows of the down tunnels bound the backlog.
 */
import { C, type Counters } from '../base/counters.js';
import { isBusy } from '../sys/packet-socket.js';
import { addressOf } from '../sys/libc.js';
import { FRAME_HEADER_BYTES, getCounter, getLength, OFFLOAD_OFFSET } from '../tunnel/frames.js';
import type { DownTunnel } from './reception-table.js';

const RETRY_MS = 1;
/** Places of frames that are out which may stand before the backlog until they are cut off. */
const MAX_SPENT = 4096;

/** Where frames leave; PacketTransmitter is the one, a test's keeps them. */
export interface FrameOutlet {
  /** Frames that one `flush` can take. */
  readonly room: number;
  /** @param vnet address of the frame's virtio_net_hdr @param frame address of its first byte: both stay until `flush` */
  add(vnet: number, frame: number, length: number): void;
  /** Empties the batch. @returns how many, from the first on, were taken; or minus the errno of the first */
  flush(): number;
  close(): void;
}

/** Told what became of each frame, in order per tunnel. */
export interface TransmitResult {
  sent(tunnel: DownTunnel, sequence: number): void;
  failed(tunnel: DownTunnel, sequence: number, errno: number): void;
  /** Results of frames that had to wait are complete for now. */
  backlogMoved(): void;
}

export class InterfaceTransmitter {
  private readonly outlet: FrameOutlet;
  private readonly counters: Counters;
  private readonly result: TransmitResult;
  // Frames of the batch in hand, then those that wait: parallel arrays, so that a frame costs no object.
  private messages: Buffer[] = [];
  private offsets: number[] = [];
  private tunnels: DownTunnel[] = [];
  private errnos: number[] = [];
  private first = 0;
  private retryTimer: NodeJS.Timeout | null = null;
  private lastMessage: Buffer | null = null;
  private lastAddress = 0;

  /** Owns the outlet from here on. */
  constructor(outlet: FrameOutlet, counters: Counters, result: TransmitResult) {
    this.outlet = outlet;
    this.counters = counters;
    this.result = result;
  }

  /**
   * Adds the data frame at `offset` of a tunnel message; the message belongs to the transmitter until it is out.
   * @param errno not 0: the frame is not to be sent, only its error reported, in its turn
   */
  queue(message: Buffer, offset: number, tunnel: DownTunnel, errno: number): void {
    this.messages.push(message);
    this.offsets.push(offset);
    this.tunnels.push(tunnel);
    this.errnos.push(errno);
    tunnel.waiting += getLength(message, offset);
  }

  /** Puts out what is queued, as far as the interface takes it. */
  flush(): void {
    if (this.retryTimer === null) this.send();
  }

  private readonly retry = (): void => {
    this.retryTimer = null;
    this.send();
    this.result.backlogMoved();
  };

  private send(): void {
    const end = this.messages.length;
    while (this.first < end) {
      const refused = this.errnos[this.first] as number;
      if (refused !== 0) {
        this.settle(this.first, refused);
        this.first += 1;
        continue;
      }
      let at = this.first;
      while (at < end && this.outlet.room > 0 && this.errnos[at] === 0) {
        const message = this.messages[at] as Buffer;
        const offset = this.offsets[at] as number;
        const header = this.address(message) + offset;
        const length = getLength(message, offset) + (this.tunnels[at] as DownTunnel).linkHeaderBytes;
        this.outlet.add(header + OFFLOAD_OFFSET, header + FRAME_HEADER_BYTES, length);
        at += 1;
      }
      const count = this.outlet.flush();
      if (count < 0) {
        if (isBusy(-count)) {
          this.retryTimer = setTimeout(this.retry, RETRY_MS);
          break;
        }
        this.counters.add(C.drop_tx_error, 1);
        this.settle(this.first, -count);
        this.first += 1;
        continue;
      }
      for (let i = this.first; i < this.first + count; i++) this.settle(i, 0);
      this.first += count;
    }
    this.lastMessage = null;
    if (this.first === end) {
      this.messages.length = 0;
      this.offsets.length = 0;
      this.tunnels.length = 0;
      this.errnos.length = 0;
      this.first = 0;
    } else if (this.first >= MAX_SPENT) {
      // An interface that is slow for long has a backlog for long: what is out must not pile up before it.
      this.messages.splice(0, this.first);
      this.offsets.splice(0, this.first);
      this.tunnels.splice(0, this.first);
      this.errnos.splice(0, this.first);
      this.first = 0;
    }
  }

  private settle(index: number, errno: number): void {
    const message = this.messages[index] as Buffer;
    const offset = this.offsets[index] as number;
    const tunnel = this.tunnels[index] as DownTunnel;
    const sequence = getCounter(message, offset);
    const length = getLength(message, offset);
    tunnel.waiting -= length;
    if (errno !== 0) {
      this.result.failed(tunnel, sequence, errno);
      return;
    }
    tunnel.bytes += length;
    this.counters.add(C.forwarder_tx_frames, 1);
    this.counters.add(C.forwarder_tx_bytes, length);
    this.result.sent(tunnel, sequence);
  }

  private address(message: Buffer): number {
    if (message !== this.lastMessage) {
      this.lastMessage = message;
      this.lastAddress = addressOf(message);
    }
    return this.lastAddress;
  }

  /** What still waits fails. @param errno positive */
  close(errno: number): void {
    if (this.retryTimer !== null) clearTimeout(this.retryTimer);
    this.retryTimer = null;
    for (let i = this.first; i < this.messages.length; i++) {
      const refused = this.errnos[i] as number;
      if (refused === 0) this.counters.add(C.drop_tx_error, 1);
      this.settle(i, refused === 0 ? errno : refused);
    }
    this.errnos = [];
    this.messages = [];
    this.offsets = [];
    this.tunnels = [];
    this.first = 0;
    this.outlet.close();
    this.result.backlogMoved();
  }
}
