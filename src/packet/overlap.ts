/**
 * How two protocol addresses lie to each other: whether there could be a received frame that both match, as `matchesProtocol`
 * does (two claims that meet exclude each other), and whether one matches all that the other does (a right covers a rule).
 */
import { ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN } from './headers.js';
import { IPV4_ADDRESS_BYTES, IPV6_ADDRESS_BYTES } from './ip-address.js';
import { IPPROTO_ICMP, IPPROTO_ICMPV6, type ProtocolAddress } from './protocol-address.js';

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

/** Whether every frame that `inner` matches is matched by `outer` too. */
export function covers(outer: ProtocolAddress, inner: ProtocolAddress): boolean {
  if (outer.kind === 'any') return true;
  if (outer.kind !== inner.kind) return false;
  if (outer.kind === 'ether') return outer.etherType === inner.etherType;
  if (!protocolsOf(inner).every((protocol) => outer.protocols.includes(protocol))) return false;
  if (outer.address !== null && (inner.address === null || !outer.address.equals(inner.address))) return false;
  return outer.portLow < 0 || (outer.portLow <= inner.portLow && inner.portHigh <= outer.portHigh);
}

/** ICMP goes with IPv4 and ICMPv6 with IPv6, so `icmp:10.0.0.1` is ICMP alone. */
function protocolsOf({ protocols, address }: ProtocolAddress): readonly number[] {
  if (address === null || protocols.length < 2) return protocols;
  const impossible = address.length === IPV4_ADDRESS_BYTES ? IPPROTO_ICMPV6 : IPPROTO_ICMP;
  return protocols.filter((protocol) => protocol !== impossible);
}
