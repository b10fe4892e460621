/**
 * ARP for IPv4 on Ethernet (RFC 826): 28 bytes behind the Ethernet header, numbers in network order.
 *
 *      0        2        4     5     6        8             14           18            24           28
 *     +--------+--------+-----+-----+--------+-------------+------------+-------------+------------+
 *     |hrd = 1 |pro=0800|hln=6|pln=4| op     | sender MAC  | sender IP  | target MAC  | target IP  |
 *     +--------+--------+-----+-----+--------+-------------+------------+-------------+------------+
 */
import { ETHERNET_HEADER_BYTES, ETHERTYPE_IPV4 } from './headers.js';
import { addressText, IPV4_ADDRESS_BYTES } from './ip-address.js';
import { formatMac, MAC_BYTES, writeEthernetHeader } from './mac-address.js';
import { ETHERTYPE_ARP } from './protocol-address.js';

export const ARP_BYTES = 28;
/** An Ethernet frame with an ARP message, without the padding that a wire wants. */
export const ARP_FRAME_BYTES = ETHERNET_HEADER_BYTES + ARP_BYTES;

export const ARP_REQUEST = 1;
export const ARP_REPLY = 2;

const HARDWARE_ETHERNET = 1;

/** The one field table: offsets from the message's begin. */
export const ARP = {
  hardwareType: 0,
  protocolType: 2,
  hardwareLength: 4,
  protocolLength: 5,
  operation: 6,
  senderMac: 8,
  senderIp: 14,
  targetMac: 18,
  targetIp: 24,
} as const;

export interface ArpMessage {
  readonly operation: number;
  readonly senderMac: Buffer;
  readonly senderIp: Buffer;
  readonly targetMac: Buffer;
  readonly targetIp: Buffer;
}

/** The message at `offset`, copied; null for anything but IPv4 on Ethernet. */
export function readArp(buf: Buffer, offset: number, length: number): ArpMessage | null {
  if (
    length < ARP_BYTES ||
    buf.readUInt16BE(offset + ARP.hardwareType) !== HARDWARE_ETHERNET ||
    buf.readUInt16BE(offset + ARP.protocolType) !== ETHERTYPE_IPV4 ||
    buf[offset + ARP.hardwareLength] !== MAC_BYTES ||
    buf[offset + ARP.protocolLength] !== IPV4_ADDRESS_BYTES
  ) {
    return null;
  }
  const bytes = (field: number, count: number): Buffer =>
    Buffer.from(buf.subarray(offset + field, offset + field + count));
  return {
    operation: buf.readUInt16BE(offset + ARP.operation),
    senderMac: bytes(ARP.senderMac, MAC_BYTES),
    senderIp: bytes(ARP.senderIp, IPV4_ADDRESS_BYTES),
    targetMac: bytes(ARP.targetMac, MAC_BYTES),
    targetIp: bytes(ARP.targetIp, IPV4_ADDRESS_BYTES),
  };
}

/** Writes the message at `offset`: ARP_BYTES. */
export function writeArp(out: Buffer, offset: number, message: ArpMessage): void {
  out.writeUInt16BE(HARDWARE_ETHERNET, offset + ARP.hardwareType);
  out.writeUInt16BE(ETHERTYPE_IPV4, offset + ARP.protocolType);
  out[offset + ARP.hardwareLength] = MAC_BYTES;
  out[offset + ARP.protocolLength] = IPV4_ADDRESS_BYTES;
  out.writeUInt16BE(message.operation, offset + ARP.operation);
  message.senderMac.copy(out, offset + ARP.senderMac);
  message.senderIp.copy(out, offset + ARP.senderIp);
  message.targetMac.copy(out, offset + ARP.targetMac);
  message.targetIp.copy(out, offset + ARP.targetIp);
}

/** Writes the frame at `offset` that answers `request`: whoever was asked for is at `mac`. ARP_FRAME_BYTES. */
export function writeArpReply(out: Buffer, offset: number, request: ArpMessage, mac: Buffer): void {
  writeEthernetHeader(out, offset, request.senderMac, mac, ETHERTYPE_ARP);
  writeArp(out, offset + ETHERNET_HEADER_BYTES, {
    operation: ARP_REPLY,
    senderMac: mac,
    senderIp: request.targetIp,
    targetMac: request.senderMac,
    targetIp: request.senderIp,
  });
}

/** One line for a log: `arp request 10.0.0.2 from 10.0.0.1 02:00:00:00:00:01`. */
export function formatArp({ operation, senderMac, senderIp, targetIp }: ArpMessage): string {
  const sender = `${addressText(senderIp)} ${formatMac(senderMac)}`;
  if (operation === ARP_REQUEST) return `arp request ${addressText(targetIp)} from ${sender}`;
  return operation === ARP_REPLY ? `arp reply ${sender}` : `arp operation ${operation} from ${sender}`;
}
