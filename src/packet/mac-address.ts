/** Ethernet addresses between text and bytes, and the header that they stand in. */
import { ETHERNET_HEADER_BYTES } from './headers.js';

export const MAC_BYTES = 6;

/** Six bytes of `02:00:00:00:00:01`; null for anything else. */
export function parseMac(text: string): Buffer | null {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) return null;
  return Buffer.from(text.replaceAll(':', ''), 'hex');
}

export function formatMac(mac: Uint8Array): string {
  return Array.from(mac, (byte) => byte.toString(16).padStart(2, '0')).join(':');
}

/** Writes ETHERNET_HEADER_BYTES at `offset`. @returns where the payload begins */
export function writeEthernetHeader(
  out: Buffer,
  offset: number,
  destination: Buffer,
  source: Buffer,
  etherType: number,
): number {
  destination.copy(out, offset);
  source.copy(out, offset + MAC_BYTES);
  out.writeUInt16BE(etherType, offset + 2 * MAC_BYTES);
  return offset + ETHERNET_HEADER_BYTES;
}
