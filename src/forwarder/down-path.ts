/**
 * What a control device sends on /tunnel (Fig. 12, S1205, S1206; S705): looked up, checked, handed to its interface.
 * Data reception processing section 370, and the way down of distribution section 350 and tunnel transfer section 66.
 *
 *     message -> for each frame: data   -> DownTunnel -> in order? -> allowed? -> flow of its vif -> InterfaceTransmitter
 *                                credit -> the rule's `granted`
 *                                close  -> the tunnel ends when all before is out
 *             -> every touched transmitter flushes -> every touched tunnel is confirmed in one frame
 *
 * Frames carry sequence numbers, so that what is sent again after a resume is put out once: a number that was there
 * already is confirmed and dropped; one that skips is the other side's defect and ends the channel.
 */
import { constants } from 'node:os';
import { C, type Counters } from '../base/counters.js';
import { FwdfsError } from '../base/errors.js';
import { DOWN_WINDOW_BYTES } from '../base/limits.js';
import { FrameView, type LinkType, matchesProtocol } from '../packet/headers.js';
import type { ProtocolAddress } from '../packet/protocol-address.js';
import { VNET, VNET_GSO_ECN, VNET_GSO_UDP } from '../packet/virtio.js';
import {
  FRAME_HEADER_BYTES,
  getCounter,
  getKind,
  getLength,
  getTunnel,
  KIND_CLOSE,
  KIND_CREDIT,
  KIND_DATA,
  nextFrame,
  OFFLOAD_OFFSET,
} from '../tunnel/frames.js';
import { type DistributionTable, SIDE } from './distribution-table.js';
import { type FlowTable, SENT } from './flow-table.js';
import type { InterfaceTransmitter, TransmitResult } from './interface-transmitter.js';
import type { Peer } from './peer.js';
import type { DownTunnel, ReceptionTable } from './reception-table.js';
import { isOwnSource, type OwnAddresses } from './source-check.js';
import { TUN, type TunSender } from './tun-sender.js';

const { EACCES, EHOSTUNREACH, EINVAL, ENETDOWN, ENOBUFS } = constants.errno;

/** What the down path needs to know of an interface. */
export interface Outlet {
  readonly linkType: LinkType;
  readonly counters: Counters;
  readonly own: OwnAddresses;
  /** Of the virtual IFs on it. */
  readonly flows: FlowTable;
  /** null: the interface is not there just now */
  readonly transmitter: InterfaceTransmitter | null;
  /** Builds the link layer header of packets; null: the interface has none, or is not there. */
  readonly tun: TunSender | null;
}

export class DownPath implements TransmitResult {
  private readonly distribution: DistributionTable;
  private readonly reception: ReceptionTable;
  private readonly outletOf: (name: string) => Outlet | undefined;
  private readonly lost: Counters;
  private readonly view = new FrameView();
  private readonly transmitters: InterfaceTransmitter[] = [];
  private readonly unreported: DownTunnel[] = [];

  /** @param lost counts what belongs to no interface */
  constructor(
    distribution: DistributionTable,
    reception: ReceptionTable,
    outletOf: (name: string) => Outlet | undefined,
    lost: Counters,
  ) {
    this.distribution = distribution;
    this.reception = reception;
    this.outletOf = outletOf;
    this.lost = lost;
  }

  /** One well-formed message of `end` bytes. Throws bad-message when the sequence is broken. */
  frames(peer: Peer, message: Buffer, end: number): void {
    try {
      this.walk(peer, message, end);
    } finally {
      for (let i = 0; i < this.transmitters.length; i++) this.transmitters[i]?.flush();
      this.transmitters.length = 0;
      this.report();
    }
  }

  private walk(peer: Peer, message: Buffer, end: number): void {
    for (let at = 0; at < end; at = nextFrame(message, at, end)) {
      const kind = getKind(message, at);
      if (kind === KIND_DATA) this.data(peer, message, at);
      else if (kind === KIND_CREDIT) {
        const rule = this.distribution.get(peer, getTunnel(message, at));
        if (rule !== undefined) rule.granted = Math.max(rule.granted, getCounter(message, at));
      } else if (kind === KIND_CLOSE) {
        const tunnel = this.reception.get(peer, getTunnel(message, at));
        if (tunnel !== undefined) {
          tunnel.closing = true;
          this.closeIfDone(tunnel);
        }
      }
    }
  }

  private data(peer: Peer, message: Buffer, at: number): void {
    const tunnel = this.reception.get(peer, getTunnel(message, at));
    if (tunnel === undefined) {
      this.lost.add(C.drop_tx_unknown_tunnel, 1);
      return;
    }
    const sequence = getCounter(message, at);
    const outlet = this.outletOf(tunnel.interface);
    if (sequence <= tunnel.received) {
      outlet?.counters.add(C.drop_tx_duplicate, 1);
      this.markUnreported(tunnel);
      return;
    }
    if (sequence !== tunnel.received + 1) {
      throw new FwdfsError('bad-message', `down tunnel ${tunnel.id}: frame ${sequence} after ${tunnel.received}`);
    }
    if (tunnel.waiting > DOWN_WINDOW_BYTES) {
      throw new FwdfsError('bad-message', `down tunnel ${tunnel.id}: more than its window is under way`);
    }
    tunnel.received = sequence;
    // An interface that came back as one of another kind is not the one that the frame is for.
    if (outlet === undefined || outlet.transmitter === null || outlet.linkType !== tunnel.linkType) {
      (outlet?.counters ?? this.lost).add(C.drop_tx_error, 1);
      this.failed(tunnel, sequence, ENETDOWN);
      return;
    }
    const errno = this.check(tunnel, outlet, message, at + FRAME_HEADER_BYTES, getLength(message, at));
    if (errno === 0 && tunnel.linkHeaderBytes > 0) this.sendPacket(tunnel, outlet, message, at);
    else outlet.transmitter.queue(message, at, tunnel, errno);
    if (!this.transmitters.includes(outlet.transmitter)) this.transmitters.push(outlet.transmitter);
  }

  /** A packet of a tun. One that waits for its next hop counts as sent, as one does that waits in a kernel. */
  private sendPacket(tunnel: DownTunnel, outlet: Outlet, message: Buffer, at: number): void {
    const result = outlet.tun?.send(tunnel, message, at, this.view, outlet.own.mac) ?? TUN.DROPPED;
    if (result === TUN.WAITS) this.sent(tunnel, getCounter(message, at));
    else if (result === TUN.DROPPED) outlet.transmitter?.queue(message, at, tunnel, EHOSTUNREACH);
  }

  private check(tunnel: DownTunnel, outlet: Outlet, frame: Buffer, offset: number, length: number): number {
    if (tunnel.right === 'none') {
      outlet.counters.add(C.drop_tx_not_permitted, 1);
      return EACCES;
    }
    const { wayBack } = tunnel;
    const linkType = tunnel.linkHeaderBytes > 0 ? 'raw' : outlet.linkType;
    if (tunnel.right === 'inject' && tunnel.protocol.kind === 'any' && wayBack === null) return 0;
    // The kernel would make later fragments of it, which nobody could check.
    const gsoType = (frame[offset - FRAME_HEADER_BYTES + OFFLOAD_OFFSET + VNET.gsoType] ?? 0) & ~VNET_GSO_ECN;
    if (gsoType === VNET_GSO_UDP || !this.view.parse(frame, offset, length, linkType)) {
      outlet.counters.add(C.drop_malformed, 1);
      return EINVAL;
    }
    if (!this.isSendable(tunnel, frame)) {
      outlet.counters.add(C.drop_tx_mismatch, 1);
      return EINVAL;
    }
    if (tunnel.right === 'write' && !isOwnSource(outlet.own, this.view, frame, offset, linkType)) {
      outlet.counters.add(C.drop_tx_not_permitted, 1);
      return EACCES;
    }
    // Before the frame is out, so that no answer can be there first.
    if (wayBack !== null && outlet.flows.sent(this.view, frame, wayBack) === SENT.REFUSED) {
      outlet.counters.add(C.drop_tx_flow_refused, 1);
      return ENOBUFS;
    }
    return 0;
  }

  private isSendable({ sendable }: DownTunnel, frame: Buffer): boolean {
    for (let i = 0; i < sendable.length; i++) {
      if (matchesProtocol(sendable[i] as ProtocolAddress, this.view, frame, SIDE.SENT)) return true;
    }
    return false;
  }

  sent(tunnel: DownTunnel, sequence: number): void {
    // One that waited may come after its successors.
    tunnel.confirmed = Math.max(tunnel.confirmed, sequence);
    this.markUnreported(tunnel);
  }

  failed(tunnel: DownTunnel, sequence: number, errno: number): void {
    tunnel.errors += 1;
    tunnel.lastErrorSequence = sequence;
    tunnel.lastErrno = errno;
    tunnel.confirmed = Math.max(tunnel.confirmed, sequence);
    tunnel.peer.appendConfirmError(tunnel.id, sequence, errno);
    this.markUnreported(tunnel);
  }

  backlogMoved(): void {
    this.report();
  }

  /** After a resume: what was confirmed meanwhile, and the newest error, may not have arrived. */
  resumed(peer: Peer): void {
    for (const tunnel of this.reception.tunnelsOf(peer)) {
      if (tunnel.lastErrno !== 0) peer.appendConfirmError(tunnel.id, tunnel.lastErrorSequence, tunnel.lastErrno);
      this.markUnreported(tunnel);
    }
    this.report();
  }

  private markUnreported(tunnel: DownTunnel): void {
    if (tunnel.unreported) return;
    tunnel.unreported = true;
    this.unreported.push(tunnel);
  }

  private report(): void {
    for (let i = 0; i < this.unreported.length; i++) {
      const tunnel = this.unreported[i] as DownTunnel;
      tunnel.unreported = false;
      tunnel.peer.appendConfirm(tunnel.id, tunnel.confirmed);
      this.closeIfDone(tunnel);
    }
    // After all confirmations: a peer with several tunnels gets them in one message.
    for (let i = 0; i < this.unreported.length; i++) (this.unreported[i] as DownTunnel).peer.flush();
    this.unreported.length = 0;
  }

  private closeIfDone(tunnel: DownTunnel): void {
    if (tunnel.closing && tunnel.confirmed >= tunnel.received) this.reception.remove(tunnel);
  }
}
