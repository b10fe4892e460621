/** A packet socket that receives what the test gives it and writes down what is asked of it. See FrameInlet. */
import type { FrameInlet } from '../../src/forwarder/interface-receiver.js';
import { MEMBERSHIP, type PacketSink, PKTTYPE } from '../../src/sys/packet-socket.js';
import { VNET_BYTES } from '../../src/sys/receive-slots.js';
import { runBpf } from './bpf.js';

const KINDS = Object.entries(MEMBERSHIP);
/** Bytes before the frame in a slot: its virtio_net_hdr, and room as in a real one. */
const BEFORE = VNET_BYTES + 8;

export class FakeInlet implements FrameInlet {
  readonly sink: PacketSink;
  /** `+promisc`, `-outgoing`, `+multicast 01005e000001`, `start`, `close`, in order. */
  readonly calls: string[] = [];
  readonly filters: Buffer[] = [];
  /** What the kernel dropped since the last look. */
  drops = 0;
  /** Throws from the call with this name. */
  failing = '';

  constructor(sink: PacketSink) {
    this.sink = sink;
  }

  private call(text: string): void {
    if (text === this.failing) throw new Error(`${text} failed`);
    this.calls.push(text);
  }

  start(): void {
    this.call('start');
  }

  setFilter(program: Buffer): void {
    if (this.failing === 'filter') throw new Error('filter failed');
    this.filters.push(Buffer.from(program));
  }

  setOutgoing(wanted: boolean): void {
    this.call(`${wanted ? '+' : '-'}outgoing`);
  }

  setMembership(kind: number, joined: boolean, address?: Buffer): void {
    const name = (KINDS.find(([, value]) => value === kind)?.[0] ?? '?').toLowerCase();
    this.call(`${joined ? '+' : '-'}${name}${address === undefined ? '' : ` ${address.toString('hex')}`}`);
  }

  takeDrops(): number {
    const { drops } = this;
    this.drops = 0;
    return drops;
  }

  close(): void {
    this.call('close');
  }

  /** Whether the filter of now lets the Ethernet frame through. */
  passes(frame: Buffer): boolean {
    const ancillary = { protocol: frame.readUInt16BE(12), vlanTagPresent: 0, networkOffset: 14 };
    const program = this.filters.at(-1);
    return program !== undefined && runBpf(program, frame, ancillary) > 0;
  }

  /** One frame as the real one gives it: among junk, and the slot is used again right after. */
  packet(frame: Buffer, pkttype: number = PKTTYPE.HOST, seconds = 1, nanoseconds = 2): void {
    const slots = Buffer.alloc(BEFORE + frame.length + 8, 0xa5);
    slots.fill(0, 0, VNET_BYTES);
    frame.copy(slots, BEFORE);
    this.sink.packet(slots, BEFORE, frame.length, 0, pkttype, seconds, nanoseconds);
    slots.fill(0x5a);
  }

  /** Frames of one receive batch. */
  receive(frames: readonly Buffer[], pkttype: number = PKTTYPE.HOST): void {
    for (const frame of frames) this.packet(frame, pkttype);
    this.sink.batchEnd();
  }
}
