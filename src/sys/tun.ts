/**
 * TUN and TAP devices: what programs send to the device comes out of its descriptor, what is written goes to programs.
 *
 *     program -> kernel of this namespace -> queue of the device --drain: one read(2) a frame--> TunSink.frame … batchEnd
 *     program <- kernel                   <- write(), one writev(2) a frame
 *
 * Every frame carries a virtio_net_hdr both ways, and the device has all offloads that the kernel knows: super-frames and
 * unfinished checksums pass as they are. While the sink has no room nothing is read and no signal comes: the frames wait
 * in the device's queue, and the kernel drops what is beyond it.
 *
 * The device is not persistent: it goes with its descriptor, however the process ends. It belongs to the network namespace
 * of the thread that creates it.
 */
import { constants } from 'node:os';
import { MAX_FRAME_BYTES, TUN_DRAIN_COUNT } from '../base/limits.js';
import { addressOf, closeLater, ifNameToIndex, IOVEC_BYTES, must, O, putIovec, sys } from './libc.js';
import { readiness, type Source } from './readiness.js';

/** tap: Ethernet frames; tun: IP packets. */
export type TunKind = 'tap' | 'tun';

/** What takes the frames of a device. None of its functions may throw. */
export interface TunSink {
  /** Whether a frame of any size could be taken now; false: reading stops until `resume`. */
  readonly hasRoom: boolean;
  /** One frame: its virtio_net_hdr of 10 bytes at `vnet` and `length` bytes at `offset` of buf, valid during the call. */
  frame(buf: Buffer, vnet: number, offset: number, length: number): void;
  /** The batch is over: what was gathered should leave now. */
  batchEnd(): void;
  /** The device failed or went away: nothing comes any more. errno is positive. */
  failed(errno: number): void;
}

/** linux/if_tun.h */
const TUNSETIFF = 0x400454ca;
const TUNSETOFFLOAD = 0x400454d0;
const TUNSETVNETHDRSZ = 0x400454d8;
const TUNSETCARRIER = 0x400454e2;
const IFF_TUN = 0x0001;
const IFF_TAP = 0x0002;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
/** A device of this name that is there already is not taken over. */
const IFF_TUN_EXCL = 0x8000;
const TUN_F_CSUM = 0x01;
const TUN_F_TSO = 0x02 | 0x04 | 0x08;
/** UDP datagrams of one flow, since Linux 6.2. */
const TUN_F_USO = 0x20 | 0x40;
/** From the most to the least: the kernel refuses what it does not know. */
const OFFLOADS = [TUN_F_CSUM | TUN_F_TSO | TUN_F_USO, TUN_F_CSUM | TUN_F_TSO, TUN_F_CSUM, 0];

const IFREQ_BYTES = 40;
const NAME_BYTES = 16;
const VNET_BYTES = 10;
/** The IP header of a TAP's frame is then aligned to 4 bytes. */
const READ_OFFSET = 8;

const { EAGAIN, EINTR } = constants.errno;

/** A frame is read and handed on within one call, so one buffer serves every device of the process. */
const received = Buffer.allocUnsafeSlow(READ_OFFSET + VNET_BYTES + MAX_FRAME_BYTES);
const readInto = received.subarray(READ_OFFSET);
const FRAME_OFFSET = READ_OFFSET + VNET_BYTES;

const NOBODY: TunSink = { hasRoom: false, frame: () => {}, batchEnd: () => {}, failed: () => {} };

export class TunDevice implements Source {
  readonly name: string;
  readonly ifindex: number;
  readonly fd: number;
  sink: TunSink = NOBODY;
  /** Resolves after `close`, when the kernel has taken the device away. */
  readonly gone: Promise<void>;
  private readonly iov = Buffer.alloc(2 * IOVEC_BYTES);
  /** The Buffer that was written from last, and its address: a batch comes out of one. */
  private source: Buffer = Buffer.alloc(0);
  private address = 0;
  private state: 'idle' | 'armed' | 'paused' | 'closed' = 'idle';
  private isGone = (): void => undefined;

  /**
   * Creates the device, down.
   *
   * @throws SystemError EBUSY where there is a device of this name, EINVAL for what is no name, EPERM without CAP_NET_ADMIN
   */
  constructor(name: string, kind: TunKind) {
    this.fd = must('open', sys.open('/dev/net/tun', O.RDWR | O.NONBLOCK | O.CLOEXEC), '/dev/net/tun');
    try {
      const request = Buffer.alloc(IFREQ_BYTES);
      request.write(name, 0, NAME_BYTES - 1);
      const flags = IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL | (kind === 'tap' ? IFF_TAP : IFF_TUN);
      request.writeUInt16LE(flags, NAME_BYTES);
      must('ioctl(TUNSETIFF)', sys.ioctl(this.fd, TUNSETIFF, request), name);
      must('ioctl(TUNSETVNETHDRSZ)', sys.ioctl(this.fd, TUNSETVNETHDRSZ, int(VNET_BYTES)));
      OFFLOADS.find((offloads) => sys.ioctlInt(this.fd, TUNSETOFFLOAD, offloads) >= 0);
      this.name = request.toString('latin1', 0, request.indexOf(0));
      this.ifindex = ifNameToIndex(this.name);
    } catch (error) {
      sys.close(this.fd);
      throw error;
    }
    this.gone = new Promise((resolve) => {
      this.isGone = resolve;
    });
  }

  /** Hands frames to `sink` from now on. */
  start(): void {
    if (this.state !== 'idle') return;
    this.state = 'armed';
    readiness.arm(this);
  }

  /** After `hasRoom` was false: there is room again. */
  resume(): void {
    if (this.state !== 'paused') return;
    this.state = 'armed';
    readiness.arm(this);
  }

  drain(): boolean {
    const { sink } = this;
    let more = true;
    for (let count = 0; count < TUN_DRAIN_COUNT; count++) {
      if (this.state !== 'armed') return false;
      if (!sink.hasRoom) {
        this.state = 'paused';
        readiness.disarm(this);
        more = false;
        break;
      }
      const length = sys.read(this.fd, readInto, readInto.length);
      if (length >= VNET_BYTES) {
        sink.frame(received, READ_OFFSET, FRAME_OFFSET, length - VNET_BYTES);
      } else if (length === -EAGAIN) {
        more = false;
        break;
      } else if (length < 0 && length !== -EINTR) {
        this.state = 'idle';
        readiness.disarm(this);
        sink.batchEnd();
        sink.failed(-length);
        return false;
      }
    }
    sink.batchEnd();
    return more;
  }

  /**
   * Gives one frame to the kernel, as received on the device.
   *
   * @returns 0 or minus an errno: EIO while the device is down, EINVAL for a frame that makes no sense
   */
  write(buf: Buffer, vnet: number, offset: number, length: number): number {
    if (buf !== this.source) {
      this.source = buf;
      this.address = addressOf(buf);
    }
    putIovec(this.iov, 0, this.address + vnet, VNET_BYTES);
    putIovec(this.iov, 1, this.address + offset, length);
    const written = sys.writev(this.fd, this.iov, 2);
    return written < 0 ? written : 0;
  }

  /** Whether the device has a carrier, as programs see it. @throws SystemError */
  setCarrier(on: boolean): void {
    must('ioctl(TUNSETCARRIER)', sys.ioctl(this.fd, TUNSETCARRIER, int(on ? 1 : 0)), this.name);
  }

  /** Takes the device away, in a thread of its own: the kernel waits for its other processors. */
  close(): void {
    if (this.state === 'closed') return;
    if (this.state === 'armed') readiness.disarm(this);
    this.state = 'closed';
    closeLater(this.fd, this.isGone);
  }
}

function int(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value, 0);
  return bytes;
}
