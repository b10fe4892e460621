/**
 * One writer of a symbol: turns what a program writes into frames for its down tunnel (S1201 to S1203, S701, S702). The way
 * down of distribution section 250.
 *
 *     write(bytes) -> framing (pcap, hex: cut anywhere; raw: one packet) -> check -> DownTunnel.send -> flush
 *
 * A frame for which there is no credit is refused, and with it all that follows: the write is then short, or waits. A
 * frame that may not be sent stops the write before it: short if good ones came first, EINVAL when it is the first.
 */
import { constants } from 'node:os';
import { C, type Counters } from '../base/counters.js';
import { FwdfsError } from '../base/errors.js';
import { MAX_FRAME_BYTES } from '../base/limits.js';
import { CaptureReader, type FrameSink } from '../packet/capture-reader.js';
import { FrameView, type LinkType, matchesProtocol } from '../packet/headers.js';
import { HexReader } from '../packet/hex.js';
import type { ProtocolAddress } from '../packet/protocol-address.js';
import type { Framing } from '../packet/symbol-name.js';
import type { DownTunnel } from './down-tunnel.js';

const { EAGAIN } = constants.errno;
const ETHERNET_HEADER_BYTES = 14;
const SENT = 1;
const NS_PER_MS = 1e6;
/** A frame that is due within this time goes now: timers are no finer. */
const PACE_TOLERANCE_MS = 0.5;
/** The longest time that setTimeout takes; a frame that is due later is looked at again then. */
const MAX_TIMER_MS = 2_147_483_647;

export interface WriterOptions {
  readonly framing: Framing;
  readonly protocol: ProtocolAddress;
  /** pcap link type of the interface. */
  readonly linkType: number;
  readonly paced: boolean;
  readonly tunnel: DownTunnel;
  readonly counters: Counters;
  readonly wake: () => void;
}

export class PacketWriter implements FrameSink {
  readonly tunnel: DownTunnel;
  private readonly linkType: LinkType;
  private readonly protocol: ProtocolAddress;
  private readonly paced: boolean;
  private readonly counters: Counters;
  private readonly wake: () => void;
  private readonly stream: CaptureReader | HexReader | null;
  private readonly view = new FrameView();
  private refusal: FwdfsError | null = null;
  private paceStart = Number.NaN;
  private paceTimer: NodeJS.Timeout | null = null;

  constructor(options: WriterOptions) {
    this.tunnel = options.tunnel;
    this.linkType = options.linkType === 1 ? 'ethernet' : 'raw';
    this.protocol = options.protocol;
    this.paced = options.paced;
    this.counters = options.counters;
    this.wake = options.wake;
    if (options.framing === 'pcap') this.stream = new CaptureReader(options.linkType, MAX_FRAME_BYTES);
    else this.stream = options.framing === 'hex' ? new HexReader(MAX_FRAME_BYTES) : null;
    this.tunnel.wake = options.wake;
  }

  /** write(2): see OpenFile. */
  write(data: Buffer, offset: number, length: number): number {
    if (this.tunnel.ended !== 0) return -this.tunnel.ended;
    this.refusal = null;
    let accepted: number;
    if (this.stream === null) accepted = this.frame(data, offset, length, 0, 0) ? length : 0;
    else accepted = this.stream.push(data, offset, offset + length, this);
    this.tunnel.flush();
    if (accepted > 0 || length === 0) return accepted;
    const error = this.stream?.error ?? this.refusal;
    return error === null ? -EAGAIN : -error.errno;
  }

  /** FrameSink: takes a frame, or refuses it for now, or for good (`refusal`). */
  frame(buf: Buffer, offset: number, length: number, seconds: number, nanoseconds: number): boolean {
    this.refusal = this.check(buf, offset, length);
    if (this.refusal !== null) return false;
    if (this.paced && !this.isDue(seconds, nanoseconds)) return false;
    if (!this.tunnel.send(buf, offset, length)) return false;
    this.counters.add(C.control_tx_frames, 1);
    this.counters.add(C.control_tx_bytes, length);
    return true;
  }

  private check(buf: Buffer, offset: number, length: number): FwdfsError | null {
    if (length > MAX_FRAME_BYTES) return new FwdfsError('frame-too-long', `a frame of ${length} bytes`);
    if (length < (this.linkType === 'ethernet' ? ETHERNET_HEADER_BYTES : 1)) {
      return new FwdfsError('frame-too-short', `a frame of ${length} bytes`);
    }
    if (this.protocol.kind === 'any') return null;
    if (!this.view.parse(buf, offset, length, this.linkType) || !matchesProtocol(this.protocol, this.view, buf, SENT)) {
      return new FwdfsError('frame-mismatch', `a frame that is not from ${this.protocol.text}`);
    }
    return null;
  }

  /** `:paced`: the first record goes at once, every other one as long after it as its time says. */
  private isDue(seconds: number, nanoseconds: number): boolean {
    const now = performance.now();
    const time = seconds * 1000 + nanoseconds / NS_PER_MS;
    if (Number.isNaN(this.paceStart)) this.paceStart = now - time;
    const wait = this.paceStart + time - now;
    if (this.paceTimer !== null) clearTimeout(this.paceTimer);
    this.paceTimer = null;
    if (wait <= PACE_TOLERANCE_MS) return true;
    this.paceTimer = setTimeout(this.due, Math.min(wait, MAX_TIMER_MS));
    return false;
  }

  private readonly due = (): void => {
    this.paceTimer = null;
    this.wake();
  };

  /** FrameSink: another capture begins, with a clock of its own. */
  begin(): void {
    this.paceStart = Number.NaN;
  }

  get canWrite(): boolean {
    return this.tunnel.hasAnyCredit && this.paceTimer === null;
  }

  /** Nothing will be taken any more. */
  get isEnded(): boolean {
    return this.tunnel.ended !== 0;
  }

  /** Barrier of fsync: what was taken is on the interface. */
  fsync(abandoned?: AbortSignal): Promise<void> {
    return this.tunnel.sync(abandoned);
  }

  /** Barrier of close: as fsync, and nothing half-written is left. */
  async flush(abandoned?: AbortSignal): Promise<void> {
    const stream = this.stream;
    if (stream instanceof HexReader && !stream.atBoundary && !stream.finish(this)) {
      await this.tunnel.sync(abandoned);
      // What it was refused for may have been credit, which is back now, or never comes.
      if (stream.error !== null || this.refusal !== null || !stream.finish(this)) {
        throw (
          stream.error ?? this.refusal ?? new FwdfsError('not-sent', 'the last line: the forwarder is not connected')
        );
      }
    }
    await this.tunnel.sync(abandoned);
    if (stream !== null && !stream.atBoundary) {
      throw stream.error ?? new FwdfsError('bad-capture', 'the last record is cut off');
    }
  }

  release(): void {
    if (this.paceTimer !== null) clearTimeout(this.paceTimer);
  }
}
