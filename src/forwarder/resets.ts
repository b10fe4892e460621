/**
 * Resets the connections of control devices that are lost, so that the other ends do not wait for ever.
 *
 *     flow given up --> RST with the sequence number that the other end acknowledged last: an idle one takes it
 *     segment of such a flow --> RST with the number that the segment acknowledges, as a host without the connection would
 *
 * An end that has received more than it acknowledged finds the first RST off by that and asks back (RFC 5961, 3.2), which
 * is such a segment. RSTs leave in slices, between which everything else gets its turn.
 */
import { C, type Counters } from '../base/counters.js';
import { MAX_WAITING_RESETS, RESET_SLICE_COUNT } from '../base/limits.js';
import type { FrameView } from '../packet/headers.js';
import { TCP_FLAG, tcpSegment } from '../packet/tcp-segment.js';
import type { FlowTable } from './flow-table.js';

const SEQUENCE_OFFSET = 4;
const ACKNOWLEDGMENT_OFFSET = 8;
const FLAGS_OFFSET = 13;
const TCP_MIN_HEADER_BYTES = 20;

export class Resets {
  private readonly send: (packet: Buffer) => number;
  private readonly counters: Counters;
  private readonly waiting: Buffer[] = [];
  private timer: NodeJS.Immediate | null = null;

  /** @param send puts an IP packet on its way */
  constructor(send: (packet: Buffer) => number, counters: Counters) {
    this.send = send;
    this.counters = counters;
  }

  /** A flow of the table is given up. */
  flow(flows: FlowTable, handle: number): void {
    if (!flows.hasAck(handle)) return;
    this.queue(
      tcpSegment({
        source: flows.copyLocal(handle),
        destination: flows.copyRemote(handle),
        sourcePort: flows.localPort(handle),
        destinationPort: flows.remotePort(handle),
        sequence: flows.lastAck(handle),
        acknowledgment: 0,
        flags: TCP_FLAG.RST,
      }),
    );
  }

  /** A TCP segment of a connection that was given up. */
  segment(view: FrameView, frame: Buffer): void {
    const at = view.l4Offset;
    if (at === 0 || at + TCP_MIN_HEADER_BYTES > view.l3End) return;
    const flags = frame[at + FLAGS_OFFSET]!;
    if ((flags & TCP_FLAG.RST) !== 0) return;
    const acknowledges = (flags & TCP_FLAG.ACK) !== 0;
    // RFC 9293, 3.5.2, group 1.
    const taken = (flags & TCP_FLAG.SYN) !== 0 ? 1 : 0;
    this.queue(
      tcpSegment({
        source: Buffer.from(frame.subarray(view.destinationOffset, view.destinationOffset + view.addressLength)),
        destination: Buffer.from(frame.subarray(view.sourceOffset, view.sourceOffset + view.addressLength)),
        sourcePort: view.destinationPort,
        destinationPort: view.sourcePort,
        sequence: acknowledges ? frame.readUInt32BE(at + ACKNOWLEDGMENT_OFFSET) : 0,
        acknowledgment: acknowledges ? 0 : frame.readUInt32BE(at + SEQUENCE_OFFSET) + taken,
        flags: acknowledges ? TCP_FLAG.RST : TCP_FLAG.RST | TCP_FLAG.ACK,
      }),
    );
  }

  private queue(packet: Buffer): void {
    if (this.waiting.length >= MAX_WAITING_RESETS) {
      this.counters.add(C.drop_reset, 1);
      return;
    }
    this.waiting.push(packet);
    this.timer ??= setImmediate(this.drain);
  }

  private readonly drain = (): void => {
    this.timer = null;
    for (const packet of this.waiting.splice(0, RESET_SLICE_COUNT)) {
      if (this.send(packet) === 0) this.counters.add(C.forwarder_resets, 1);
      else this.counters.add(C.drop_reset, 1);
    }
    if (this.waiting.length > 0) this.timer = setImmediate(this.drain);
  };

  close(): void {
    if (this.timer !== null) clearImmediate(this.timer);
    this.timer = null;
    this.waiting.length = 0;
  }
}
