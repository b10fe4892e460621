/**
 * A TCP segment without data as a whole IP packet (RFC 9293, 3.1; RFC 791; RFC 8200), for the few that we send of our own:
 * what resets a connection, or asks its end where it stands.
 */
import { invert, pseudoHeaderSum, storeWord, sum } from './checksum.js';
import { IPV4_MIN_HEADER_BYTES, IPV6_HEADER_BYTES } from './headers.js';
import { IPV4_ADDRESS_BYTES } from './ip-address.js';
import { IPPROTO_TCP } from './protocol-address.js';

export const TCP_FLAG = { FIN: 0x01, SYN: 0x02, RST: 0x04, ACK: 0x10 } as const;

const TCP_HEADER_BYTES = 20;
const HOP_LIMIT = 64;
const DONT_FRAGMENT = 0x4000;

export interface TcpSegment {
  /** 4 or 16 bytes, both of one family. */
  readonly source: Buffer;
  readonly destination: Buffer;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly sequence: number;
  /** 0 without the flag ACK. */
  readonly acknowledgment: number;
  /** Of TCP_FLAG. */
  readonly flags: number;
}

/** @returns the packet, with its checksums */
export function tcpSegment(segment: TcpSegment): Buffer {
  const { source, destination } = segment;
  const isIpv4 = source.length === IPV4_ADDRESS_BYTES;
  const l4 = isIpv4 ? IPV4_MIN_HEADER_BYTES : IPV6_HEADER_BYTES;
  const packet = Buffer.alloc(l4 + TCP_HEADER_BYTES);
  if (isIpv4) {
    packet[0] = 0x45;
    packet.writeUInt16BE(packet.length, 2);
    packet.writeUInt16BE(DONT_FRAGMENT, 6);
    packet[8] = HOP_LIMIT;
    packet[9] = IPPROTO_TCP;
    source.copy(packet, 12);
    destination.copy(packet, 16);
    storeWord(packet, 10, invert(sum(packet, 0, l4, 0)));
  } else {
    packet[0] = 0x60;
    packet.writeUInt16BE(TCP_HEADER_BYTES, 4);
    packet[6] = IPPROTO_TCP;
    packet[7] = HOP_LIMIT;
    source.copy(packet, 8);
    destination.copy(packet, 24);
  }
  packet.writeUInt16BE(segment.sourcePort, l4);
  packet.writeUInt16BE(segment.destinationPort, l4 + 2);
  packet.writeUInt32BE(segment.sequence >>> 0, l4 + 4);
  packet.writeUInt32BE(segment.acknowledgment >>> 0, l4 + 8);
  packet[l4 + 12] = (TCP_HEADER_BYTES / 4) << 4;
  packet[l4 + 13] = segment.flags;
  const pseudo = pseudoHeaderSum(packet, isIpv4 ? 12 : 8, source.length, IPPROTO_TCP, TCP_HEADER_BYTES);
  storeWord(packet, l4 + 16, invert(sum(packet, l4, TCP_HEADER_BYTES, pseudo)));
  return packet;
}
