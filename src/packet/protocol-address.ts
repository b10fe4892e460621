/**
 * Protocol addresses: what a rule matches.
 *
 *     *                         every frame
 *     arp  ether:0x88cc         one ether type, hexadecimal or decimal, from 0x0600
 *     PROTO[:ADDR][:PORT]       an IP protocol, with the local address and the local port
 *
 *     PROTO  tcp udp udplite sctp icmp icmp6 ip:N      icmp is ICMP and ICMPv6
 *     ADDR   10.0.0.1  [2001:db8::1]
 *     PORT   1..65535, for tcp, udp, udplite and sctp; 33434-33534 where ranges are asked for
 *
 * Two spellings of one address give one `text`, which is the identity of the rule everywhere: tables, messages, names.
 * The unspecified addresses 0.0.0.0 and [::] are what a socket bound to any address shows, so they mean no address.
 */
import { FwdfsError } from '../base/errors.js';
import { addressText, IPV4_ADDRESS_BYTES, parseIpv4, parseIpv6 } from './ip-address.js';

/** IP protocol numbers (IANA) that have a name here. */
export const IPPROTO_ICMP = 1;
export const IPPROTO_TCP = 6;
export const IPPROTO_UDP = 17;
export const IPPROTO_ICMPV6 = 58;
export const IPPROTO_SCTP = 132;
export const IPPROTO_UDPLITE = 136;

/** Ether types (IEEE 802) that have a name here. Values below ETHERTYPE_MIN are lengths of 802.3 frames. */
export const ETHERTYPE_MIN = 0x0600;
export const ETHERTYPE_ARP = 0x0806;

export interface ProtocolAddress {
  readonly kind: 'any' | 'ether' | 'ip';
  /** kind ether: the ether type; 0 otherwise. */
  readonly etherType: number;
  /** kind ip: IP protocol numbers, `icmp` has two; empty otherwise. */
  readonly protocols: readonly number[];
  /** The local address, 4 or 16 bytes; null: any. */
  readonly address: Buffer | null;
  /** First and last local port; both -1: any, or a protocol without ports. */
  readonly portLow: number;
  readonly portHigh: number;
  /** Canonical spelling: the identity of the rule. */
  readonly text: string;
}

export interface ProtocolAddressOptions {
  /** Whether PORT may be a range. Default false: only configuration has them. */
  readonly ranges?: boolean;
}

/** Names of IP protocols, in the spelling of `text`. A number of the table is always written by its name. */
const PROTOCOL_NAMES: ReadonlyMap<string, readonly number[]> = new Map([
  ['tcp', [IPPROTO_TCP]],
  ['udp', [IPPROTO_UDP]],
  ['udplite', [IPPROTO_UDPLITE]],
  ['sctp', [IPPROTO_SCTP]],
  ['icmp', [IPPROTO_ICMP, IPPROTO_ICMPV6]],
  ['icmp6', [IPPROTO_ICMPV6]],
]);

const NAME_OF_NUMBER = new Map(
  [...PROTOCOL_NAMES].filter(([, numbers]) => numbers.length === 1).map(([name, numbers]) => [numbers[0]!, name]),
);

/** The first words of protocol addresses, for those who must tell one from other words. */
export const PROTOCOL_ADDRESS_HEADS: ReadonlySet<string> = new Set([
  '*',
  'arp',
  'ether',
  'ip',
  ...PROTOCOL_NAMES.keys(),
]);

/** Whether segments of this IP protocol begin with a source and a destination port, 16 bits each. */
export function hasPorts(protocol: number): boolean {
  return (
    protocol === IPPROTO_TCP || protocol === IPPROTO_UDP || protocol === IPPROTO_UDPLITE || protocol === IPPROTO_SCTP
  );
}

export const ANY_PROTOCOL: ProtocolAddress = {
  kind: 'any',
  etherType: 0,
  protocols: [],
  address: null,
  portLow: -1,
  portHigh: -1,
  text: '*',
};

/**
 * @param text any spelling, upper case included
 * @throws FwdfsError bad-protocol-address
 */
export function parseProtocolAddress(text: string, options: ProtocolAddressOptions = {}): ProtocolAddress {
  const parts = splitAtColons(text.toLowerCase());
  const head = parts[0] ?? '';
  if (head === '*' || head === 'arp') {
    if (parts.length > 1) throw bad(text, `nothing follows ${head}`);
    return head === '*' ? ANY_PROTOCOL : etherAddress(ETHERTYPE_ARP);
  }
  if (head === 'ether') {
    const type = /^0x[0-9a-f]{1,4}$/.test(parts[1] ?? '') ? Number(parts[1]) : parseDecimal(parts[1], 0xffff);
    if (type < ETHERTYPE_MIN || parts.length > 2) throw bad(text, 'an ether type is one number, 0x0600 to 0xffff');
    return etherAddress(type);
  }
  if (head === 'ip') {
    const number = parseDecimal(parts[1], 255);
    if (number < 0) throw bad(text, 'an IP protocol is a number, 0 to 255');
    const name = NAME_OF_NUMBER.get(number) ?? `ip:${number}`;
    return ipAddress(text, name, [number], parts.slice(2), options);
  }
  const protocols = PROTOCOL_NAMES.get(head);
  if (protocols === undefined) throw bad(text, `unknown protocol ${JSON.stringify(head)}`);
  return ipAddress(text, head, protocols, parts.slice(1), options);
}

/** The address of one ether type, 0x0600 to 0xffff. */
function etherAddress(etherType: number): ProtocolAddress {
  const text = etherType === ETHERTYPE_ARP ? 'arp' : `ether:0x${etherType.toString(16).padStart(4, '0')}`;
  return { ...ANY_PROTOCOL, kind: 'ether', etherType, text };
}

function ipAddress(
  text: string,
  name: string,
  protocols: readonly number[],
  rest: readonly string[],
  options: ProtocolAddressOptions,
): ProtocolAddress {
  const parts = [...rest];
  let address: Buffer | null = null;
  const first = parts[0] ?? '';
  if (first.includes('.') || first.startsWith('[')) {
    address = first.startsWith('[') && first.endsWith(']') ? parseIpv6(first.slice(1, -1)) : parseIpv4(first);
    if (address === null) throw bad(text, `no such address: ${JSON.stringify(first)}`);
    if (name === 'icmp6' && address.length === IPV4_ADDRESS_BYTES) throw bad(text, 'icmp6 takes an IPv6 address');
    if (address.every((byte) => byte === 0)) address = null;
    parts.shift();
  }
  let portLow = -1;
  let portHigh = -1;
  const port = parts.shift();
  if (port !== undefined) {
    if (!protocols.every(hasPorts)) throw bad(text, `${name} has no ports`);
    const ends = options.ranges === true ? port.split('-') : [port];
    portLow = parseDecimal(ends[0], 0xffff);
    portHigh = ends.length === 1 ? portLow : parseDecimal(ends[1], 0xffff);
    if (portLow < 1 || portHigh < portLow || ends.length > 2 || parts.length > 0) {
      throw bad(text, options.ranges === true ? 'a port is 1 to 65535, or LOW-HIGH' : 'a port is 1 to 65535');
    }
  }
  let canonical = name;
  if (address !== null) {
    const spelling = addressText(address);
    canonical += address.length === IPV4_ADDRESS_BYTES ? `:${spelling}` : `:[${spelling}]`;
  }
  if (portLow >= 0) canonical += portLow === portHigh ? `:${portLow}` : `:${portLow}-${portHigh}`;
  return { kind: 'ip', etherType: 0, protocols, address, portLow, portHigh, text: canonical };
}

/** A decimal number from 0 to `max` without leading zeros; -1 for anything else. */
function parseDecimal(text: string | undefined, max: number): number {
  if (text === undefined || !/^(0|[1-9][0-9]{0,4})$/.test(text)) return -1;
  const value = Number(text);
  return value <= max ? value : -1;
}

/** Splits at the colons that are not within brackets. An unclosed bracket runs to the end. */
export function splitAtColons(text: string): string[] {
  const parts: string[] = [];
  let start = 0;
  let inBrackets = false;
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at];
    if (character === '[') inBrackets = true;
    else if (character === ']') inBrackets = false;
    else if (character === ':' && !inBrackets) {
      parts.push(text.slice(start, at));
      start = at + 1;
    }
  }
  parts.push(text.slice(start));
  return parts;
}

function bad(text: string, why: string): FwdfsError {
  return new FwdfsError('bad-protocol-address', `${JSON.stringify(text)} is no protocol address (${why})`);
}
