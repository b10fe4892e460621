/**
 * Whether two protocol addresses meet: whether there could be a received frame that both match, as `matchesProtocol` does.
 * Two claims that meet exclude each other.
 */
import { ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN } from './headers.js';
import { IPV4_ADDRESS_BYTES, IPV6_ADDRESS_BYTES } from './ip-address.js';
import type { ProtocolAddress } from './protocol-address.js';

/** Length of the addresses in a frame of this ether type, 0: it has none. */
function addressBytes(etherType: number): number {
  if (etherType === ETHERTYPE_IPV4) return IPV4_ADDRESS_BYTES;
  return etherType === ETHERTYPE_IPV6 ? IPV6_ADDRESS_BYTES : 0;
}

/** A tagged frame has the ether type of its outer tag and the one behind its tags. */
const isTag = (etherType: number): boolean => etherType === ETHERTYPE_VLAN || etherType === ETHERTYPE_QINQ;

function etherOverlaps(etherType: number, other: ProtocolAddress): boolean {
  if (isTag(etherType)) return true;
  if (other.kind === 'ether') return other.etherType === etherType || isTag(other.etherType);
  const bytes = addressBytes(etherType);
  return bytes > 0 && (other.address === null || other.address.length === bytes);
}

export function overlaps(one: ProtocolAddress, other: ProtocolAddress): boolean {
  if (one.kind === 'any' || other.kind === 'any') return true;
  if (one.kind === 'ether') return etherOverlaps(one.etherType, other);
  if (other.kind === 'ether') return etherOverlaps(other.etherType, one);
  if (!one.protocols.some((protocol) => other.protocols.includes(protocol))) return false;
  if (one.address !== null && other.address !== null && !one.address.equals(other.address)) return false;
  if (one.portLow < 0 || other.portLow < 0) return true;
  return one.portLow <= other.portHigh && other.portLow <= one.portHigh;
}
