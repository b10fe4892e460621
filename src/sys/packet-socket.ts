/**
 * AF_PACKET sockets of one interface: a receiver that takes batches of frames with recvmmsg(2), a transmitter that puts
 * batches out with sendmmsg(2). Both carry a virtio_net_hdr with every frame, so that super-frames and unfinished
 * checksums pass as they are.
 *
 * Plain reads and no ring: TPACKET_V3 holds a lone packet until its block retires, and a ring of slots that fit 64 KiB
 * frames would be either short or large; recvmmsg costs one call for up to PACKET_BATCH_COUNT frames and the kernel queues
 * by bytes, not by slots.
 *
 * Two sockets and not one: a packet socket never sees what it sent itself, but what leaves through our transmitter
 * belongs to what `:out` and `:both` show.
 */
import { PACKET_BATCH_COUNT, PACKET_DRAIN_CALLS, PACKET_RECEIVE_BUFFER_BYTES } from '../base/limits.js';
import { addressOf, closeLater, must, O, putIovec, putPointer, sys } from './libc.js';
import { readiness, type Source } from './readiness.js';
import {
  CONTROL_BYTES,
  FRAME_OFFSET,
  MSG_BYTES,
  NAME_BYTES,
  ReceiveSlots,
  SLOT_BYTES,
  VNET_BYTES,
} from './receive-slots.js';

const AF_PACKET = 17;
const SOCK_RAW = 3;
const ETH_P_ALL = 0x0003;
const SOL_SOCKET = 1;
const SOL_PACKET = 263;
const SO_RCVBUFFORCE = 33;
const SO_SNDBUFFORCE = 32;
const SO_TIMESTAMPNS = 35;
const SO_ATTACH_FILTER = 26;
const PACKET_ADD_MEMBERSHIP = 1;
const PACKET_DROP_MEMBERSHIP = 2;
const PACKET_STATISTICS = 6;
const PACKET_AUXDATA = 8;
const PACKET_VNET_HDR = 15;
const PACKET_IGNORE_OUTGOING = 23;
const MSG_DONTWAIT = 0x40;
const MSG_TRUNC = 0x20;
const TP_STATUS_VLAN_VALID = 0x10;
const TP_STATUS_VLAN_TPID_VALID = 0x40;
const VLAN_BYTES = 4;
const ETH_P_8021Q = 0x8100;
const EBADF = 9;
const EAGAIN = 11;
const ENOBUFS = 105;

const VNET_FLAGS = 0;
const VNET_HDR_LEN = 2;
const VNET_CSUM_START = 6;
const VNET_NEEDS_CSUM = 1;

/** sll_pkttype, netpacket/packet.h. */
export const PKTTYPE = { HOST: 0, BROADCAST: 1, MULTICAST: 2, OTHERHOST: 3, OUTGOING: 4 } as const;

/** Kinds of PACKET_ADD_MEMBERSHIP. */
export const MEMBERSHIP = { MULTICAST: 0, PROMISC: 1, ALLMULTI: 2 } as const;

function option(fd: number, level: number, name: number, value: number): void {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value, 0);
  must(`setsockopt(${level}, ${name})`, sys.setsockopt(fd, level, name, bytes));
}

function bindTo(fd: number, ifindex: number, protocol: number): void {
  const address = Buffer.alloc(20);
  address.writeUInt16LE(AF_PACKET, 0);
  address.writeUInt16BE(protocol, 2);
  address.writeInt32LE(ifindex, 4);
  must('bind', sys.bind(fd, address));
}

/** Opens a socket that receives nothing yet (protocol 0), of the network namespace of the calling thread. */
function openSocket(): number {
  return must('socket(AF_PACKET)', sys.socket(AF_PACKET, SOCK_RAW | O.NONBLOCK | O.CLOEXEC, 0));
}

/** What takes the frames of a receiver. Neither function may keep `slots` or throw. */
export interface PacketSink {
  /**
   * One frame, valid during the call: `length` bytes at `offset` of `slots`, its virtio_net_hdr at `vnetOffset`, receive
   * time in seconds and nanoseconds, `pkttype` as in PKTTYPE.
   */
  packet(
    slots: Buffer,
    offset: number,
    length: number,
    vnetOffset: number,
    pkttype: number,
    seconds: number,
    nanoseconds: number,
  ): void;
  /** A frame of `length` bytes did not fit MAX_FRAME_BYTES and is lost. */
  truncated(length: number): void;
  /** The batch is over: what was gathered should leave now. */
  batchEnd(): void;
  /** The interface went away or down; errno is positive. The socket works again when it comes back up. */
  failed(errno: number): void;
}

let received: ReceiveSlots | undefined;

export class PacketReceiver implements Source {
  readonly fd: number;
  private readonly ifindex: number;
  private readonly sink: PacketSink;
  private readonly batch = (received ??= new ReceiveSlots());
  private readonly statistics = Buffer.alloc(8);
  private readonly statisticsLength = Buffer.alloc(4);
  private closed = false;

  /** Receives nothing until `setFilter` and `start`. */
  constructor(ifindex: number, sink: PacketSink) {
    this.ifindex = ifindex;
    this.sink = sink;
    this.fd = openSocket();
    try {
      option(this.fd, SOL_PACKET, PACKET_VNET_HDR, 1);
      option(this.fd, SOL_PACKET, PACKET_AUXDATA, 1);
      option(this.fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
      option(this.fd, SOL_SOCKET, SO_TIMESTAMPNS, 1);
      option(this.fd, SOL_SOCKET, SO_RCVBUFFORCE, PACKET_RECEIVE_BUFFER_BYTES);
    } catch (error) {
      sys.close(this.fd);
      throw error;
    }
  }

  /** Binds to the interface and starts to deliver. Set a filter first. */
  start(): void {
    bindTo(this.fd, this.ifindex, ETH_P_ALL);
    readiness.arm(this);
  }

  /** Classic BPF program, struct sock_filter of 8 bytes each. It replaces the one before at once. */
  setFilter(program: Buffer): void {
    const fprog = Buffer.alloc(16);
    fprog.writeUInt16LE(program.length / 8, 0);
    putPointer(fprog, 8, addressOf(program));
    must('setsockopt(SO_ATTACH_FILTER)', sys.setsockopt(this.fd, SOL_SOCKET, SO_ATTACH_FILTER, fprog));
  }

  /** Whether frames that leave through the interface are received too. */
  setOutgoing(wanted: boolean): void {
    option(this.fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, wanted ? 0 : 1);
  }

  /** Joins or leaves; the kernel leaves by itself when the socket closes. @param address MAC address for MULTICAST */
  setMembership(kind: number, joined: boolean, address: Buffer = Buffer.alloc(0)): void {
    const request = Buffer.alloc(16);
    request.writeInt32LE(this.ifindex, 0);
    request.writeUInt16LE(kind, 4);
    request.writeUInt16LE(address.length, 6);
    address.copy(request, 8);
    const name = joined ? PACKET_ADD_MEMBERSHIP : PACKET_DROP_MEMBERSHIP;
    const result = sys.setsockopt(this.fd, SOL_PACKET, name, request);
    // A device that went away took its memberships along: leaving can only fail in that way.
    if (joined) must('setsockopt(PACKET_ADD_MEMBERSHIP)', result);
  }

  /** Frames that the kernel dropped because the socket was full, since the last call. */
  takeDrops(): number {
    this.statisticsLength.writeUInt32LE(8, 0);
    const result = sys.getsockopt(this.fd, SOL_PACKET, PACKET_STATISTICS, this.statistics, this.statisticsLength);
    return result < 0 ? 0 : this.statistics.readUInt32LE(4);
  }

  drain(): boolean {
    for (let call = 0; call < PACKET_DRAIN_CALLS; call++) {
      if (this.closed) return false;
      const count = sys.recvmmsg(this.fd, this.batch.messages, PACKET_BATCH_COUNT, MSG_DONTWAIT);
      if (count < 0) {
        if (-count !== EAGAIN) this.sink.failed(-count);
        this.sink.batchEnd();
        // Reading clears a pending error; what else there is comes with the next call.
        return -count !== EAGAIN && -count !== EBADF;
      }
      for (let i = 0; i < count; i++) this.deliver(i);
      this.batch.reset(count);
      if (count < PACKET_BATCH_COUNT) {
        // Fewer than asked for: the queue was empty just now, and what comes after raises the signal again.
        this.sink.batchEnd();
        return false;
      }
    }
    this.sink.batchEnd();
    return true;
  }

  private deliver(i: number): void {
    const { control32, messages32, names, slots } = this.batch;
    const m = (i * MSG_BYTES) >> 2;
    const total = messages32[m + 14] ?? 0; // msg_len
    const flags = messages32[m + 12] ?? 0; // msg_flags
    if ((flags & MSG_TRUNC) !== 0) {
      this.sink.truncated(total - VNET_BYTES);
      return;
    }
    let length = total - VNET_BYTES;
    const slot = i * SLOT_BYTES;
    let offset = slot + FRAME_OFFSET;
    // Control messages, each { length u64, level i32, type i32, data }: SCM_TIMESTAMPNS, PACKET_AUXDATA.
    let seconds = 0;
    let nanoseconds = 0;
    let k = (i * CONTROL_BYTES) >> 2;
    const end = k + ((messages32[m + 10] ?? 0) >> 2); // msg_controllen
    while (k + 4 <= end) {
      const bytes = control32[k] ?? 0;
      if (bytes < 16) break;
      const level = control32[k + 2];
      const type = control32[k + 3];
      if (level === SOL_SOCKET && type === SO_TIMESTAMPNS) {
        seconds = (control32[k + 4] ?? 0) + (control32[k + 5] ?? 0) * 0x1_0000_0000;
        nanoseconds = control32[k + 6] ?? 0;
      } else if (level === SOL_PACKET && type === PACKET_AUXDATA) {
        const status = control32[k + 4] ?? 0;
        if ((status & TP_STATUS_VLAN_VALID) !== 0) {
          const vlan = control32[k + 8] ?? 0; // tci u16, tpid u16
          this.putTagBack(slot, vlan & 0xffff, (status & TP_STATUS_VLAN_TPID_VALID) !== 0 ? vlan >>> 16 : ETH_P_8021Q);
          offset -= VLAN_BYTES;
          length += VLAN_BYTES;
        }
      }
      k += ((bytes + 7) >> 3) << 1;
    }
    const pkttype = names[i * NAME_BYTES + 10] ?? 0;
    this.sink.packet(slots, offset, length, slot, pkttype, seconds, nanoseconds);
  }

  /** IEEE 802.1Q clause 9: the tag stands between the source address and the type. */
  private putTagBack(slot: number, tci: number, tpid: number): void {
    const { slots } = this.batch;
    const at = slot + FRAME_OFFSET - VLAN_BYTES;
    slots.copyWithin(at, at + VLAN_BYTES, at + VLAN_BYTES + 12);
    slots.writeUInt16BE(tpid, at + 12);
    slots.writeUInt16BE(tci, at + 14);
    if (((slots[slot + VNET_FLAGS] ?? 0) & VNET_NEEDS_CSUM) !== 0) {
      slots.writeUInt16LE(slots.readUInt16LE(slot + VNET_CSUM_START) + VLAN_BYTES, slot + VNET_CSUM_START);
    }
    const headers = slots.readUInt16LE(slot + VNET_HDR_LEN);
    if (headers > 0) slots.writeUInt16LE(headers + VLAN_BYTES, slot + VNET_HDR_LEN);
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    readiness.disarm(this);
    closeLater(this.fd);
  }
}

export class PacketTransmitter {
  readonly fd: number;
  private readonly iov = Buffer.alloc(32 * PACKET_BATCH_COUNT);
  private readonly messages = Buffer.alloc(MSG_BYTES * PACKET_BATCH_COUNT);
  private count = 0;

  constructor(ifindex: number) {
    const iov = addressOf(this.iov);
    for (let i = 0; i < PACKET_BATCH_COUNT; i++) {
      putPointer(this.messages, i * MSG_BYTES + 16, iov + i * 32);
      putPointer(this.messages, i * MSG_BYTES + 24, 2);
    }
    this.fd = openSocket();
    try {
      option(this.fd, SOL_PACKET, PACKET_VNET_HDR, 1);
      option(this.fd, SOL_SOCKET, SO_SNDBUFFORCE, PACKET_RECEIVE_BUFFER_BYTES);
      bindTo(this.fd, ifindex, 0);
    } catch (error) {
      sys.close(this.fd);
      throw error;
    }
  }

  /** Frames that one `flush` can take. */
  get room(): number {
    return PACKET_BATCH_COUNT - this.count;
  }

  /**
   * Adds a frame to the batch. The memory at both addresses must stay until `flush` returned.
   * @param vnet address of its virtio_net_hdr @param frame address of its first byte
   */
  add(vnet: number, frame: number, length: number): void {
    putIovec(this.iov, 2 * this.count, vnet, VNET_BYTES);
    putIovec(this.iov, 2 * this.count + 1, frame, length);
    this.count += 1;
  }

  /**
   * Sends the batch and empties it.
   * @returns how many frames, from the first on, the kernel took; or minus the errno of the first, which it refused.
   */
  flush(): number {
    const count = this.count;
    this.count = 0;
    return count === 0 ? 0 : sys.sendmmsg(this.fd, this.messages, count, MSG_DONTWAIT);
  }

  close(): void {
    closeLater(this.fd);
  }
}

/** True for errors that pass: the queue of the device is full just now. */
export function isBusy(errno: number): boolean {
  return errno === EAGAIN || errno === ENOBUFS;
}
