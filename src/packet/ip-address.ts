/**
 * IP addresses between text and bytes.
 *
 * Text comes from configuration, names of symbols and sockets; bytes are what packets carry. One address has one
 * spelling on the way out: dotted quad, or RFC 5952 (lower case, longest run of zero groups compressed).
 */
import { isIPv4, isIPv6 } from 'node:net';
import { FwdfsError } from '../base/errors.js';

export const IPV4_ADDRESS_BYTES = 4;
export const IPV6_ADDRESS_BYTES = 16;

/** Bytes of a dotted quad (leading zeros are not taken: some read them as octal), null for anything else. */
export function parseIpv4(text: string): Buffer | null {
  if (!isIPv4(text)) return null;
  return Buffer.from(text.split('.').map(Number));
}

/**
 * Bytes of an IPv6 address without brackets: 16, or 4 when it is a mapped IPv4 address (RFC 4291, 2.5.5.2). Null for
 * anything else, a zone included: an address of a packet has none.
 */
export function parseIpv6(text: string): Buffer | null {
  if (!isIPv6(text) || text.includes('%')) return null;
  const bytes = Buffer.alloc(IPV6_ADDRESS_BYTES);
  const halves = text.split('::');
  const head = groups(halves[0] ?? '');
  const tail = groups(halves[1] ?? '');
  head.forEach((group, index) => bytes.writeUInt16BE(group, 2 * index));
  tail.forEach((group, index) => bytes.writeUInt16BE(group, IPV6_ADDRESS_BYTES - 2 * (tail.length - index)));
  return isMapped(bytes) ? Buffer.from(bytes.subarray(12)) : bytes;
}

/** Bytes of an address of either family, null for anything else. */
export function parseIpAddress(text: string): Buffer | null {
  return parseIpv4(text) ?? parseIpv6(text);
}

/** Bytes of an address that a message carries. @throws FwdfsError bad-message */
export function requireIpAddress(text: string): Buffer {
  const address = parseIpAddress(text);
  if (address === null) throw new FwdfsError('bad-message', `${JSON.stringify(text)} is no address`);
  return address;
}

/** fe80::/10 (RFC 4291, 2.5.6). */
export function isLinkLocalIpv6(address: Buffer): boolean {
  return address.length === IPV6_ADDRESS_BYTES && (address.readUInt16BE(0) & 0xffc0) === 0xfe80;
}

/** The 16-bit groups of one side of `::`; a dotted quad at its end is two of them. */
function groups(text: string): number[] {
  if (text === '') return [];
  return text.split(':').flatMap((group) => {
    if (!group.includes('.')) return [Number.parseInt(group, 16)];
    const quad = group.split('.').map(Number);
    return [(quad[0]! << 8) | quad[1]!, (quad[2]! << 8) | quad[3]!];
  });
}

function isMapped(bytes: Buffer): boolean {
  return bytes.readUInt32BE(0) === 0 && bytes.readUInt32BE(4) === 0 && bytes.readUInt32BE(8) === 0xffff;
}

/**
 * The one spelling of the address at `offset`.
 *
 * @param length 4 or 16
 */
export function formatIpAddress(bytes: Uint8Array, offset: number, length: number): string {
  if (length === IPV4_ADDRESS_BYTES) return Array.from(bytes.subarray(offset, offset + length)).join('.');
  const words: number[] = [];
  for (let at = offset; at < offset + length; at += 2) words.push((bytes[at]! << 8) | bytes[at + 1]!);
  const [start, count] = longestZeros(words);
  const hex = words.map((word) => word.toString(16));
  // RFC 5952, 4.2.2: a single zero group stays written out.
  if (count < 2) return hex.join(':');
  return `${hex.slice(0, start).join(':')}::${hex.slice(start + count).join(':')}`;
}

/** The one spelling of a whole buffer of 4 or 16 bytes. */
export const addressText = (address: Uint8Array): string => formatIpAddress(address, 0, address.length);

/** Start and length of the longest run of zeros, the first of equal ones (RFC 5952, 4.2.3). */
function longestZeros(words: readonly number[]): [start: number, count: number] {
  let start = 0;
  let count = 0;
  let run = 0;
  words.forEach((word, index) => {
    run = word === 0 ? run + 1 : 0;
    if (run > count) {
      count = run;
      start = index - run + 1;
    }
  });
  return [start, count];
}
