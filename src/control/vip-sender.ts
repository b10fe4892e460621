/**
 * The sender address of a virtual IP address: what stands for it on the link between the two devices, so that two virtual
 * IP addresses with one port, and the control device's own ports, stay apart. No interface has it.
 *
 *     (control device, forwarder, virtual IP address, number of the try) --SHA-256--> 169.254.1.0 to 169.254.254.255
 *                                                                                     fdfd::/16
 *
 * The same one comes out after a restart; where the forwarder has it for another control device, the next one is tried.
 */
import { createHash } from 'node:crypto';
import { formatIpAddress } from '../packet/ip-address.js';

/** Candidates that are tried: as many would have to be in use at one forwarder for all of them to fail. */
export const MAX_SENDER_TRIES = 16;

/** RFC 3927, 2.1: the first and the last 256 are reserved. */
const FIRST_BLOCK = 1;
const BLOCKS = 254;
/** Where clouds serve metadata. */
const METADATA = '169.254.169.254';

/** Candidates in the order in which they are to be tried, of the family of the virtual IP address. */
export function senderCandidates(control: string, forwarder: string, vip: string): string[] {
  const isIpv4 = !vip.includes(':');
  const found = new Set<string>();
  for (let number = 0; found.size < MAX_SENDER_TRIES; number++) {
    const digest = createHash('sha256').update(`${control} ${forwarder} ${vip} ${number}`).digest();
    const candidate = isIpv4
      ? `169.254.${FIRST_BLOCK + (digest.readUInt16BE(0) % BLOCKS)}.${digest[2] ?? 0}`
      : formatIpAddress(Buffer.concat([Buffer.from('fdfd', 'hex'), digest.subarray(0, 14)]), 0, 16);
    if (candidate !== METADATA) found.add(candidate);
  }
  return [...found];
}
