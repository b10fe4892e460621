/**
 * What tells one flow of an interface from another, read from a frame into integers: IP protocol, both addresses, both
 * ports, seen from our end. One object is filled again for each frame, as FrameView is.
 *
 *     TCP UDP UDP-Lite SCTP   ports           ICMP echo   its identifier stands for both ports
 *     other protocols         ports are 0     ICMP error  the flow of the packet inside, which is one of ours
 */
import type { FrameView } from '../packet/headers.js';
import { IPV4_MIN_HEADER_BYTES, IPV4_OFFSET_MASK, IPV6_HEADER_BYTES } from '../packet/headers.js';
import { IPV4_ADDRESS_BYTES, IPV6_ADDRESS_BYTES } from '../packet/ip-address.js';
import { hasPorts, IPPROTO_ICMP, IPPROTO_ICMPV6 } from '../packet/protocol-address.js';
import { SIDE, type Side } from './distribution-table.js';

/** ICMP and ICMPv6 types (IANA). */
const ECHO_REQUEST = 8;
const ECHO_REPLY = 0;
const ECHO_REQUEST_V6 = 128;
const ECHO_REPLY_V6 = 129;
const ICMP_HEADER_BYTES = 8;

/** Destination unreachable, source quench, redirect, time exceeded, parameter problem. */
const isError = (type: number): boolean => (type >= 3 && type <= 5) || type === 11 || type === 12;
/** The upper half of the ICMPv6 types is no errors (RFC 4443, 2.1). */
const isErrorV6 = (type: number): boolean => type < 128;

/** Words of one address, of 32 bits. */
export const ADDRESS_WORDS = 4;

/** Frames that have a flow of their own, belong to another's, or to none. */
export const FLOW = { NONE: 0, OWN: 1, ERROR: 2 } as const;

const KIND_IPV6 = 0x100;

const kindOf = (protocol: number, isIpv4: boolean): number => (isIpv4 ? protocol : protocol | KIND_IPV6);

/** What a kind says, of a flow that is no longer at hand. */
export const protocolOfKind = (kind: number): number => kind & 0xff;
export const addressBytesOfKind = (kind: number): number =>
  (kind & KIND_IPV6) === 0 ? IPV4_ADDRESS_BYTES : IPV6_ADDRESS_BYTES;

function wordAt(frame: Buffer, at: number): number {
  return (frame[at]! << 24) | (frame[at + 1]! << 16) | (frame[at + 2]! << 8) | frame[at + 3]!;
}

export class FlowKey {
  protocol = 0;
  localPort = 0;
  remotePort = 0;
  /** Where the addresses stand in the frame. */
  local = 0;
  remote = 0;
  /** Of one address. */
  addressLength = 0;
  /** Local address, then the remote one, to be compared as they are; of IPv4 the first word of each, the others are 0. */
  readonly words = new Int32Array(2 * ADDRESS_WORDS);
  /** Both ports. */
  ports = 0;
  /** Protocol and IP version. */
  kind = 0;
  isIpv4 = false;

  /** @param side which end of the frame is ours @returns one of FLOW; NONE: nothing was read */
  read(view: FrameView, frame: Buffer, side: Side): number {
    const found = this.readPacket(view, frame, side);
    if (found !== FLOW.NONE) this.pack(frame);
    return found;
  }

  private pack(frame: Buffer): void {
    const { words, local, remote } = this;
    this.isIpv4 = this.addressLength === IPV4_ADDRESS_BYTES;
    for (let i = 0, at = 0; i < ADDRESS_WORDS; i++, at += 4) {
      const isThere = at < this.addressLength;
      words[i] = isThere ? wordAt(frame, local + at) : 0;
      words[ADDRESS_WORDS + i] = isThere ? wordAt(frame, remote + at) : 0;
    }
    this.ports = (this.localPort << 16) | this.remotePort;
    this.kind = kindOf(this.protocol, this.isIpv4);
  }

  private readPacket(view: FrameView, frame: Buffer, side: Side): number {
    if (view.ipVersion === 0) return FLOW.NONE;
    if (view.protocol === IPPROTO_ICMP || view.protocol === IPPROTO_ICMPV6) return this.readIcmp(view, frame, side);
    if (hasPorts(view.protocol)) {
      if (view.sourcePort < 0) return FLOW.NONE;
      this.fill(view, side, view.sourcePort, view.destinationPort);
    } else this.fill(view, side, 0, 0);
    return FLOW.OWN;
  }

  private fill(view: FrameView, side: Side, sourcePort: number, destinationPort: number): void {
    const sent = side === SIDE.SENT;
    this.protocol = view.protocol;
    this.addressLength = view.addressLength;
    this.local = sent ? view.sourceOffset : view.destinationOffset;
    this.remote = sent ? view.destinationOffset : view.sourceOffset;
    this.localPort = sent ? sourcePort : destinationPort;
    this.remotePort = sent ? destinationPort : sourcePort;
  }

  private readIcmp(view: FrameView, frame: Buffer, side: Side): number {
    const at = view.l4Offset;
    if (at === 0) {
      // A later fragment has what its first one left it, see `identifyEcho`.
      if (view.sourcePort < 0) return FLOW.NONE;
      this.fill(view, side, view.sourcePort, view.sourcePort);
      return FLOW.OWN;
    }
    if (at + ICMP_HEADER_BYTES > view.l3End) return FLOW.NONE;
    const type = frame[at]!;
    const v6 = view.protocol === IPPROTO_ICMPV6;
    const request = v6 ? ECHO_REQUEST_V6 : ECHO_REQUEST;
    const reply = v6 ? ECHO_REPLY_V6 : ECHO_REPLY;
    if (type === (side === SIDE.SENT ? request : reply)) {
      const id = (frame[at + 4]! << 8) | frame[at + 5]!;
      this.fill(view, side, id, id);
      return FLOW.OWN;
    }
    if (side === SIDE.SENT || !(v6 ? isErrorV6(type) : isError(type))) return FLOW.NONE;
    return this.readInner(frame, at + ICMP_HEADER_BYTES, view.l3End, v6) ? FLOW.ERROR : FLOW.NONE;
  }

  /** The packet that the error is about: we sent it, and only its beginning is there. IPv6 extension headers end the look. */
  private readInner(frame: Buffer, at: number, end: number, v6: boolean): boolean {
    if (at + (v6 ? IPV6_HEADER_BYTES : IPV4_MIN_HEADER_BYTES) > end) return false;
    if (frame[at]! >> 4 !== (v6 ? 6 : 4)) return false;
    const headerBytes = v6 ? IPV6_HEADER_BYTES : (frame[at]! & 15) << 2;
    this.protocol = frame[at + (v6 ? 6 : 9)]!;
    this.addressLength = v6 ? IPV6_ADDRESS_BYTES : IPV4_ADDRESS_BYTES;
    this.local = at + (v6 ? 8 : 12);
    this.remote = this.local + this.addressLength;
    this.localPort = 0;
    this.remotePort = 0;
    const l4 = at + headerBytes;
    const later = !v6 && (((frame[at + 6]! << 8) | frame[at + 7]!) & IPV4_OFFSET_MASK) !== 0;
    if (hasPorts(this.protocol)) {
      if (later || l4 + 4 > end) return false;
      this.localPort = (frame[l4]! << 8) | frame[l4 + 1]!;
      this.remotePort = (frame[l4 + 2]! << 8) | frame[l4 + 3]!;
    } else if (this.protocol === (v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP)) {
      if (later || l4 + ICMP_HEADER_BYTES > end || frame[l4] !== (v6 ? ECHO_REQUEST_V6 : ECHO_REQUEST)) return false;
      this.localPort = (frame[l4 + 4]! << 8) | frame[l4 + 5]!;
      this.remotePort = this.localPort;
    }
    return true;
  }
}

/** Gives the first fragment of an echo its identifier as ports, so that the later ones have it from the fragment table. */
export function identifyEcho(view: FrameView, frame: Buffer): void {
  const at = view.l4Offset;
  if (view.protocol !== IPPROTO_ICMP && view.protocol !== IPPROTO_ICMPV6) return;
  if (at === 0 || at + ICMP_HEADER_BYTES > view.l3End) return;
  const type = frame[at]!;
  if (type !== (view.protocol === IPPROTO_ICMP ? ECHO_REPLY : ECHO_REPLY_V6)) return;
  view.sourcePort = (frame[at + 4]! << 8) | frame[at + 5]!;
  view.destinationPort = view.sourcePort;
}
