/** An interface that takes frames, is full, or refuses them, as the test says. See FrameOutlet. */
import koffi from 'koffi';
import type { FrameOutlet } from '../../src/forwarder/interface-transmitter.js';
import { VNET_HEADER_BYTES } from '../../src/packet/virtio.js';

const EAGAIN = 11;

export class FakeOutlet implements FrameOutlet {
  /** Payloads that left, in order. */
  readonly frames: Buffer[] = [];
  readonly offloads: Buffer[] = [];
  /** Frames of one batch, as PACKET_BATCH_COUNT. */
  batch = 4;
  /** Frames that are taken until it is full. */
  free = Infinity;
  /** Errno for a frame, 0: it is taken. */
  refuse: (frame: Buffer) => number = () => 0;
  flushes = 0;
  closed = 0;
  private pending: [vnet: number, frame: number, length: number][] = [];

  get room(): number {
    return this.batch - this.pending.length;
  }

  add(vnet: number, frame: number, length: number): void {
    if (this.room === 0 || this.closed > 0) throw new Error('added to a full or closed outlet');
    this.pending.push([vnet, frame, length]);
  }

  flush(): number {
    this.flushes += 1;
    const batch = this.pending;
    this.pending = [];
    let taken = 0;
    for (const [vnet, frame, length] of batch) {
      const bytes = Buffer.from(Buffer.from(koffi.view(frame, length)));
      const errno = this.refuse(bytes);
      if (errno !== 0 || this.free === 0) return taken > 0 ? taken : -(errno === 0 ? EAGAIN : errno);
      this.free -= 1;
      this.frames.push(bytes);
      this.offloads.push(Buffer.from(Buffer.from(koffi.view(vnet, VNET_HEADER_BYTES))));
      taken += 1;
    }
    return taken;
  }

  close(): void {
    this.closed += 1;
  }
}
