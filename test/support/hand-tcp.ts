/** TCP and UDP segments as a test writes them by hand, with finished checksums, and as it reads them. */
import { ipv4, slowChecksum, tcp, udp } from '../vectors/packet-frames.js';

export const FIN = 0x01;
export const SYN = 0x02;
export const RST = 0x04;
export const ACK = 0x10;

const bytesOf = (address: string): Buffer => Buffer.from(address.split('.').map(Number));

function finish(source: string, destination: string, protocol: number, segment: Buffer, at: number): Buffer {
  const pseudo = Buffer.concat([bytesOf(source), bytesOf(destination), Buffer.from([0, protocol, 0, 0])]);
  pseudo.writeUInt16BE(segment.length, 10);
  segment.writeUInt16BE(0, at);
  segment.writeUInt16BE(slowChecksum(pseudo, segment), at);
  return ipv4({ protocol, source, destination }, segment);
}

export interface End {
  readonly address: string;
  readonly port: number;
}

export interface Segment {
  readonly flags: number;
  readonly sequence?: number;
  readonly acknowledged?: number;
  readonly data?: Buffer;
}

/** An IPv4 packet. */
export function tcpPacket(from: End, to: End, segment: Segment): Buffer {
  const bytes = tcp(
    { sourcePort: from.port, destinationPort: to.port, flags: segment.flags, sequence: segment.sequence ?? 0 },
    segment.data ?? Buffer.alloc(0),
  );
  bytes.writeUInt32BE(segment.acknowledged ?? 0, 8);
  return finish(from.address, to.address, 6, bytes, 16);
}

export function udpPacket(from: End, to: End, data: Buffer): Buffer {
  return finish(from.address, to.address, 17, udp(from.port, to.port, data), 6);
}

export interface SeenTcp {
  readonly from: End;
  readonly to: End;
  readonly flags: number;
  readonly sequence: number;
  readonly acknowledged: number;
  readonly data: Buffer;
}

/** The TCP segment of an IPv4 packet; null for anything else. */
export function readTcp(packet: Buffer): SeenTcp | null {
  if (packet.length < 40 || packet[0] !== 0x45 || packet[9] !== 6) return null;
  const segment = packet.subarray(20, packet.readUInt16BE(2));
  return {
    from: { address: packet.subarray(12, 16).join('.'), port: segment.readUInt16BE(0) },
    to: { address: packet.subarray(16, 20).join('.'), port: segment.readUInt16BE(2) },
    flags: segment[13]! & 0x3f,
    sequence: segment.readUInt32BE(4),
    acknowledged: segment.readUInt32BE(8),
    data: segment.subarray(4 * (segment[12]! >> 4)),
  };
}
