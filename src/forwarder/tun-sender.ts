/**
 * How packets of a tun leave an Ethernet interface: with a header whose destination the forwarder's kernel knows.
 *
 *     packet --destination--> Hop: route lookup of the kernel -> next hop -> its neighbour table -> MAC address
 *         known:     header and packet are queued with the transmitter
 *         not yet:   they wait, a few per next hop, until the kernel has found it or given up
 *         multicast: the address is computed (RFC 1112 section 6.4, RFC 2464 section 7)
 *
 * Frames are built in a block that is used until it is full and then left to those who still refer to it. A hop is an object
 * per destination in use; all are forgotten when routes change, and when there are too many.
 */
import { C, type Counters } from '../base/counters.js';
import { describe } from '../base/errors.js';
import { MAX_NEXT_HOPS, MAX_WAITING_PER_HOP, NEIGHBOUR_REFRESH_MS, TUN_BLOCK_BYTES } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { ETHERNET_HEADER_BYTES, type FrameView } from '../packet/headers.js';
import { IPV4_ADDRESS_BYTES } from '../packet/ip-address.js';
import { cutVnetHeader } from '../packet/virtio.js';
import type { Neighbour } from '../sys/neighbours.js';
import { FRAME_HEADER_BYTES, frameBytes, getLength, OFFLOAD_OFFSET } from '../tunnel/frames.js';
import type { InterfaceTransmitter } from './interface-transmitter.js';
import type { NeighbourTable } from './neighbours.js';
import type { DownTunnel } from './reception-table.js';

const MAC_BYTES = 6;
const BROADCAST = Buffer.alloc(MAC_BYTES, 0xff);
const BUCKETS = 1024;

interface Waiting {
  readonly block: Buffer;
  readonly at: number;
  readonly tunnel: DownTunnel;
}

interface Hop {
  readonly destination: Buffer;
  /** Whose MAC address it is; empty where no neighbour is asked. */
  readonly neighbour: Buffer;
  mac: Buffer | null;
  /** When the kernel was last told that it is used. */
  usedAt: number;
  readonly waiting: Waiting[];
  readonly next: Hop | null;
}

/** What becomes of a packet. */
export const TUN = { QUEUED: 0, WAITS: 1, DROPPED: 2 } as const;

export interface TunSenderOptions {
  readonly ifindex: number;
  readonly transmitter: Pick<InterfaceTransmitter, 'flush' | 'queue'>;
  readonly counters: Counters;
  readonly neighbours: Pick<NeighbourTable, 'listen' | 'use'>;
  /** The kernel's next hop: the destination itself on the link, empty for its broadcast address. Throws SystemError. */
  readonly nextHop: (ifindex: number, destination: Buffer) => Buffer;
  readonly now: () => number;
  readonly log: Logger;
}

export class TunSender {
  private readonly options: TunSenderOptions;
  private readonly unlisten: () => void;
  private readonly hops = new Map<number, Hop>();
  private count = 0;
  private block = Buffer.alloc(0);
  private used = 0;

  constructor(options: TunSenderOptions) {
    this.options = options;
    this.unlisten = options.neighbours.listen((neighbour) => this.changed(neighbour));
  }

  /**
   * The packet of the data frame at `at`. WAITS: it may still be dropped, and counted.
   * @param view of the packet @param mac the interface's own @returns one of TUN
   */
  send(tunnel: DownTunnel, message: Buffer, at: number, view: FrameView, mac: Buffer): number {
    const { counters, transmitter } = this.options;
    const hop = this.find(message, view.destinationOffset, view.addressLength) ?? this.add(message, view);
    if (hop !== null && hop.neighbour.length > 0 && this.options.now() - hop.usedAt > NEIGHBOUR_REFRESH_MS) {
      this.refresh(hop);
    }
    if (hop === null || (hop.mac === null && hop.waiting.length >= MAX_WAITING_PER_HOP)) {
      counters.add(C.drop_tx_no_neighbour, 1);
      return TUN.DROPPED;
    }
    const offset = this.build(message, at, view, mac);
    if (hop.mac === null) {
      hop.waiting.push({ block: this.block, at: offset, tunnel });
      return TUN.WAITS;
    }
    hop.mac.copy(this.block, offset + FRAME_HEADER_BYTES);
    transmitter.queue(this.block, offset, tunnel, 0);
    return TUN.QUEUED;
  }

  private build(message: Buffer, at: number, view: FrameView, mac: Buffer): number {
    const length = getLength(message, at);
    const bytes = frameBytes(length + ETHERNET_HEADER_BYTES);
    if (this.used + bytes > this.block.length) {
      this.block = Buffer.allocUnsafeSlow(TUN_BLOCK_BYTES);
      this.used = 0;
    }
    const { block, used: offset } = this;
    this.used += bytes;
    const frame = offset + FRAME_HEADER_BYTES;
    message.copy(block, offset, at, at + FRAME_HEADER_BYTES);
    cutVnetHeader(block, offset + OFFLOAD_OFFSET, -ETHERNET_HEADER_BYTES);
    mac.copy(block, frame + MAC_BYTES);
    block[frame + 12] = view.etherType >> 8;
    block[frame + 13] = view.etherType;
    message.copy(block, frame + ETHERNET_HEADER_BYTES, at + FRAME_HEADER_BYTES, at + FRAME_HEADER_BYTES + length);
    return offset;
  }

  private find(frame: Buffer, at: number, length: number): Hop | null {
    let hop = this.hops.get(bucketOf(frame, at, length)) ?? null;
    for (; hop !== null; hop = hop.next) {
      if (hop.destination.length !== length) continue;
      let same = true;
      for (let i = 0; same && i < length; i++) same = hop.destination[i] === frame[at + i];
      if (same) return hop;
    }
    return null;
  }

  /** null: there is no way there. */
  private add(message: Buffer, view: FrameView): Hop | null {
    const { ifindex, log, neighbours, nextHop, now } = this.options;
    if (this.count >= MAX_NEXT_HOPS) this.clear();
    const at = view.destinationOffset;
    const destination = Buffer.from(message.subarray(at, at + view.addressLength));
    let mac = groupMac(destination);
    let neighbour: Buffer = Buffer.alloc(0);
    try {
      if (mac === null) neighbour = nextHop(ifindex, destination);
    } catch (error) {
      log.debug({ ifindex, error: describe(error) }, 'a packet of a tun has no way');
      return null;
    }
    if (mac === null) mac = neighbour.length === 0 ? BROADCAST : neighbours.use(ifindex, neighbour);
    const bucket = bucketOf(destination, 0, destination.length);
    const next = this.hops.get(bucket) ?? null;
    const hop: Hop = { destination, neighbour, mac, usedAt: now(), waiting: [], next };
    this.hops.set(bucket, hop);
    this.count += 1;
    return hop;
  }

  /**
   * Our packets pass the kernel's neighbour table by, so it is told now and then that they are for this one. What it says
   * also makes up for events that were lost.
   */
  private refresh(hop: Hop): void {
    hop.usedAt = this.options.now();
    const mac = this.options.neighbours.use(this.options.ifindex, hop.neighbour);
    if (mac !== null) this.found(hop, mac);
  }

  /** What waited is queued. */
  private found(hop: Hop, mac: Buffer): void {
    hop.mac = mac;
    for (const { block, at, tunnel } of hop.waiting) {
      mac.copy(block, at + FRAME_HEADER_BYTES);
      this.options.transmitter.queue(block, at, tunnel, 0);
    }
    hop.waiting.length = 0;
  }

  private changed(neighbour: Neighbour): void {
    const { counters, ifindex, transmitter } = this.options;
    if (neighbour.ifindex !== ifindex) return;
    let queued = false;
    for (const first of this.hops.values()) {
      for (let hop: Hop | null = first; hop !== null; hop = hop.next) {
        if (!hop.neighbour.equals(neighbour.address)) continue;
        if (neighbour.link !== null) {
          queued ||= hop.waiting.length > 0;
          this.found(hop, neighbour.link);
        } else if (neighbour.failed) {
          hop.mac = null;
          counters.add(C.drop_tx_no_neighbour, hop.waiting.length);
          // The next packet asks again.
          hop.usedAt = -Infinity;
          hop.waiting.length = 0;
        }
      }
    }
    if (queued) transmitter.flush();
  }

  /** Routes are others now. What waits is dropped. */
  clear(): void {
    for (const first of this.hops.values()) {
      for (let hop: Hop | null = first; hop !== null; hop = hop.next) {
        this.options.counters.add(C.drop_tx_no_neighbour, hop.waiting.length);
      }
    }
    this.hops.clear();
    this.count = 0;
  }

  close(): void {
    this.unlisten();
    this.clear();
  }
}

function bucketOf(bytes: Buffer, at: number, length: number): number {
  let hash = length;
  for (let i = 0; i < length; i++) hash = Math.imul(hash ^ bytes[at + i]!, 0x01000193);
  return ((hash ^ (hash >>> 15)) >>> 0) % BUCKETS;
}

/** The MAC address of a multicast group or the limited broadcast address, null for all others. */
function groupMac(address: Buffer): Buffer | null {
  const first = address[0] ?? 0;
  if (address.length !== IPV4_ADDRESS_BYTES) {
    return first === 0xff ? Buffer.concat([Buffer.from([0x33, 0x33]), address.subarray(12)]) : null;
  }
  if (address.every((byte) => byte === 0xff)) return BROADCAST;
  if (first < 224 || first > 239) return null;
  return Buffer.from([1, 0, 0x5e, (address[1] ?? 0) & 0x7f, address[2] ?? 0, address[3] ?? 0]);
}
