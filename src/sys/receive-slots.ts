/**
 * Where recvmmsg(2) puts a batch of frames: PACKET_BATCH_COUNT slots, with room for what the kernel says about each.
 *
 *     0          10        14        18                        18 + MAX_FRAME_BYTES
 *     +----------+---------+---------+---------------------------+
 *     | vnet hdr | unused  | VLAN    | frame                     |
 *     +----------+---------+---------+---------------------------+
 *                            4 bytes, room for a tag that the device stripped: the MAC addresses move there
 *
 * One set serves every receiver of the process: a batch is received and handed on within one call, and nobody keeps a slot.
 * With one set each, a hundred interfaces would hold 400 MiB, and cost 4 ms each to open.
 */
import { MAX_FRAME_BYTES, PACKET_BATCH_COUNT } from '../base/limits.js';
import { addressOf, putIovec, putPointer } from './libc.js';

export const VNET_BYTES = 10;
export const FRAME_OFFSET = 18;
export const SLOT_BYTES = FRAME_OFFSET + MAX_FRAME_BYTES + 6;
/** struct mmsghdr */
export const MSG_BYTES = 64;
/** struct sockaddr_ll is 20. */
export const NAME_BYTES = 24;
/** timespec and tpacket_auxdata, with their headers 72. */
export const CONTROL_BYTES = 96;

export class ReceiveSlots {
  readonly slots = Buffer.allocUnsafeSlow(SLOT_BYTES * PACKET_BATCH_COUNT);
  readonly control32: Uint32Array;
  readonly names = Buffer.alloc(NAME_BYTES * PACKET_BATCH_COUNT);
  readonly messages = Buffer.alloc(MSG_BYTES * PACKET_BATCH_COUNT);
  readonly messages32: Uint32Array;
  private readonly control = Buffer.alloc(CONTROL_BYTES * PACKET_BATCH_COUNT);
  private readonly iov = Buffer.alloc(32 * PACKET_BATCH_COUNT);

  constructor() {
    this.messages32 = new Uint32Array(this.messages.buffer, this.messages.byteOffset, this.messages.length / 4);
    this.control32 = new Uint32Array(this.control.buffer, this.control.byteOffset, this.control.length / 4);
    const slots = addressOf(this.slots);
    const control = addressOf(this.control);
    const names = addressOf(this.names);
    const iov = addressOf(this.iov);
    for (let i = 0; i < PACKET_BATCH_COUNT; i++) {
      putIovec(this.iov, 2 * i, slots + i * SLOT_BYTES, VNET_BYTES);
      putIovec(this.iov, 2 * i + 1, slots + i * SLOT_BYTES + FRAME_OFFSET, MAX_FRAME_BYTES);
      putPointer(this.messages, i * MSG_BYTES, names + i * NAME_BYTES);
      putPointer(this.messages, i * MSG_BYTES + 16, iov + i * 32);
      putPointer(this.messages, i * MSG_BYTES + 24, 2);
      putPointer(this.messages, i * MSG_BYTES + 32, control + i * CONTROL_BYTES);
    }
    this.reset(PACKET_BATCH_COUNT);
  }

  /** Before the next call: the kernel overwrites the lengths of the slots that it used. */
  reset(count: number): void {
    for (let i = 0; i < count; i++) {
      const m = (i * MSG_BYTES) >> 2;
      this.messages32[m + 2] = NAME_BYTES;
      this.messages32[m + 10] = CONTROL_BYTES;
      this.messages32[m + 11] = 0;
    }
  }
}
