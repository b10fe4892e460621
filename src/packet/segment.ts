/**
 * Super-frames to wire frames: what a network card does to a frame that comes with a virtio_net_hdr.
 *
 *     begin() ── reads headers ──► next() ─► frame 1 │ next() ─► frame 2 │ … │ next() ─► 0
 *
 *     |link|IP|TCP|......................payload......................|     in, up to 64 KiB, checksum unfinished
 *     |link|IP|TCP|..gso_size..|   |link|IP|TCP|..gso_size..|   |link|IP|TCP|..rest..|     out, checksums finished
 *
 * Each wire frame has the super-frame's headers, then (as tcp_gso_segment and __udp_gso_segment in Linux do)
 *   IPv4   total length, identification + 1 each, header checksum      IPv6   payload length
 *   TCP    sequence number, FIN and PSH only on the last, CWR only on the first, checksum
 *   UDP    length, checksum; none over IPv4 where the super-frame has none
 * A frame that is none (gso NONE) comes out once, as it is or with its checksum finished, so a caller has one path.
 *
 * The caller owns both buffers; the one given to `begin` stays as it is until the last `next`. No object per packet.
 */
import { checksumFits, finishChecksum, invert, pseudoHeaderSum, storeWord, sum } from './checksum.js';
import { FrameView, IPV6_HEADER_BYTES } from './headers.js';
import type { LinkType } from './headers.js';
import { IPPROTO_TCP, IPPROTO_UDP } from './protocol-address.js';
import {
  VNET,
  VNET_F_NEEDS_CSUM,
  VNET_GSO_ECN,
  VNET_GSO_NONE,
  VNET_GSO_TCPV4,
  VNET_GSO_TCPV6,
  VNET_GSO_UDP_L4,
  vnetField,
} from './virtio.js';

const TCP_MIN_HEADER_BYTES = 20;
const TCP_SEQUENCE = 4;
const TCP_DATA_OFFSET = 12;
const TCP_FLAGS = 13;
const TCP_CHECKSUM = 16;
const TCP_FIN_PSH = 0x01 | 0x08;
const TCP_CWR = 0x80;
const UDP_HEADER_BYTES = 8;
const UDP_LENGTH = 4;
const UDP_CHECKSUM = 6;
const IPV4_TOTAL_LENGTH = 2;
const IPV4_ID = 4;
const IPV4_CHECKSUM = 10;
const IPV6_PAYLOAD_LENGTH = 4;

/** How the frame at hand is put out. */
const COPY = 0;
const CHECKSUM = 1;
const SEGMENT = 2;

export class Segmenter {
  private readonly view = new FrameView();
  private buf: Buffer = Buffer.alloc(0);
  private mode = COPY;
  private frameOffset = 0;
  private frameLength = 0;
  private csumStart = 0;
  private csumOffset = 0;
  /** All headers, link layer included. */
  private headerBytes = 0;
  private payloadBytes = 0;
  private gsoSize = 0;
  private sequence = 0;
  private identification = 0;
  /** UDP over IPv4 without a checksum stays so. */
  private noChecksum = false;
  private count = 0;
  private index = 0;

  /**
   * Takes up a frame.
   *
   * @param hdrOffset where its virtio_net_hdr stands, in the same buffer
   * @returns how many wire frames it makes; 0: its header and its virtio_net_hdr do not fit together, or a kind that is not
   *   cut (UDP fragmentation)
   */
  begin(buf: Buffer, frameOffset: number, frameLength: number, hdrOffset: number, linkType?: LinkType): number {
    const gsoType = buf[hdrOffset + VNET.gsoType]! & ~VNET_GSO_ECN;
    const needsChecksum = (buf[hdrOffset + VNET.flags]! & VNET_F_NEEDS_CSUM) !== 0;
    this.buf = buf;
    this.frameOffset = frameOffset;
    this.frameLength = frameLength;
    this.index = 0;
    this.count = 0;
    if (gsoType !== VNET_GSO_NONE) {
      this.gsoSize = vnetField(buf, hdrOffset, VNET.gsoSize);
      this.count = this.beginSegments(gsoType, needsChecksum, linkType);
    } else if (needsChecksum) {
      this.mode = CHECKSUM;
      this.csumStart = vnetField(buf, hdrOffset, VNET.csumStart);
      this.csumOffset = vnetField(buf, hdrOffset, VNET.csumOffset);
      this.count = checksumFits(frameLength, this.csumStart, this.csumOffset) ? 1 : 0;
    } else {
      this.mode = COPY;
      this.count = 1;
    }
    return this.count;
  }

  /** Bytes of the wire frame that `next` writes; 0 at the end. */
  get nextBytes(): number {
    if (this.index >= this.count) return 0;
    return this.mode === SEGMENT ? this.headerBytes + this.chunkBytes() : this.frameLength;
  }

  /**
   * Writes the next wire frame.
   *
   * @returns its bytes; 0: there is none any more; -1: `out` has no room for `nextBytes`, and nothing was changed
   */
  next(out: Buffer, outOffset: number): number {
    const bytes = this.nextBytes;
    if (bytes === 0) return 0;
    if (outOffset + bytes > out.length) return -1;
    if (this.mode === SEGMENT) {
      this.writeSegment(out, outOffset, bytes);
    } else {
      this.buf.copy(out, outOffset, this.frameOffset, this.frameOffset + bytes);
      if (this.mode === CHECKSUM) finishChecksum(out, outOffset, bytes, this.csumStart, this.csumOffset);
    }
    this.index += 1;
    return bytes;
  }

  private chunkBytes(): number {
    return Math.min(this.gsoSize, this.payloadBytes - this.index * this.gsoSize);
  }

  private beginSegments(gsoType: number, needsChecksum: boolean, linkType: LinkType | undefined): number {
    const { buf, view } = this;
    this.mode = SEGMENT;
    if (!view.parse(buf, this.frameOffset, this.frameLength, linkType)) return 0;
    const tcp = gsoType === VNET_GSO_TCPV4 || gsoType === VNET_GSO_TCPV6;
    if (!tcp && gsoType !== VNET_GSO_UDP_L4) return 0;
    if (tcp && view.ipVersion !== (gsoType === VNET_GSO_TCPV4 ? 4 : 6)) return 0;
    if (view.protocol !== (tcp ? IPPROTO_TCP : IPPROTO_UDP) || view.fragment !== 0 || this.gsoSize === 0) return 0;
    const l4 = view.l4Offset;
    if (l4 + (tcp ? TCP_MIN_HEADER_BYTES : UDP_HEADER_BYTES) > view.l3End) return 0;
    const l4HeaderBytes = tcp ? (buf[l4 + TCP_DATA_OFFSET]! >> 4) << 2 : UDP_HEADER_BYTES;
    if (tcp && l4HeaderBytes < TCP_MIN_HEADER_BYTES) return 0;
    const payloadOffset = l4 + l4HeaderBytes;
    if (payloadOffset > view.l3End) return 0;
    this.headerBytes = payloadOffset - this.frameOffset;
    this.payloadBytes = view.l3End - payloadOffset;
    // A header alone is one frame, or one of length 0 would be the end.
    const count = Math.max(1, Math.ceil(this.payloadBytes / this.gsoSize));
    this.sequence = tcp ? buf.readUInt32BE(l4 + TCP_SEQUENCE) : 0;
    this.identification = (buf[view.l3Offset + IPV4_ID]! << 8) | buf[view.l3Offset + IPV4_ID + 1]!;
    this.noChecksum =
      !tcp &&
      !needsChecksum &&
      view.ipVersion === 4 &&
      buf[l4 + UDP_CHECKSUM] === 0 &&
      buf[l4 + UDP_CHECKSUM + 1] === 0;
    return count;
  }

  private writeSegment(out: Buffer, outOffset: number, bytes: number): void {
    const { buf, view, frameOffset, headerBytes, index } = this;
    const payload = frameOffset + headerBytes + index * this.gsoSize;
    buf.copy(out, outOffset, frameOffset, frameOffset + headerBytes);
    buf.copy(out, outOffset + headerBytes, payload, payload + bytes - headerBytes);
    // From offsets in the super-frame to offsets in this one.
    const shift = outOffset - frameOffset;
    const l3 = view.l3Offset + shift;
    const l4 = view.l4Offset + shift;
    const end = outOffset + bytes;
    if (view.ipVersion === 4) {
      storeWord(out, l3 + IPV4_TOTAL_LENGTH, end - l3);
      storeWord(out, l3 + IPV4_ID, (this.identification + index) & 0xffff);
      storeWord(out, l3 + IPV4_CHECKSUM, 0);
      storeWord(out, l3 + IPV4_CHECKSUM, invert(sum(out, l3, l4 - l3, 0)));
    } else {
      storeWord(out, l3 + IPV6_PAYLOAD_LENGTH, end - l3 - IPV6_HEADER_BYTES);
    }
    if (view.protocol === IPPROTO_TCP) this.finishTcp(out, l4, end, shift);
    else this.finishUdp(out, l4, end, shift);
  }

  private finishTcp(out: Buffer, l4: number, end: number, shift: number): void {
    const { view, index } = this;
    out.writeUInt32BE((this.sequence + index * this.gsoSize) >>> 0, l4 + TCP_SEQUENCE);
    let flags = out[l4 + TCP_FLAGS]!;
    if (index > 0) flags &= ~TCP_CWR;
    if (index < this.count - 1) flags &= ~TCP_FIN_PSH;
    out[l4 + TCP_FLAGS] = flags;
    storeWord(out, l4 + TCP_CHECKSUM, 0);
    const pseudo = pseudoHeaderSum(out, view.sourceOffset + shift, view.addressLength, IPPROTO_TCP, end - l4);
    storeWord(out, l4 + TCP_CHECKSUM, invert(sum(out, l4, end - l4, pseudo)));
  }

  private finishUdp(out: Buffer, l4: number, end: number, shift: number): void {
    const { view } = this;
    storeWord(out, l4 + UDP_LENGTH, end - l4);
    storeWord(out, l4 + UDP_CHECKSUM, 0);
    if (this.noChecksum) return;
    const pseudo = pseudoHeaderSum(out, view.sourceOffset + shift, view.addressLength, IPPROTO_UDP, end - l4);
    const result = invert(sum(out, l4, end - l4, pseudo));
    // RFC 768: zero would say that there is no checksum.
    storeWord(out, l4 + UDP_CHECKSUM, result === 0 ? 0xffff : result);
  }
}
