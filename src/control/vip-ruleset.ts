/**
 * The address conversion of one virtual IP address as rule sets of nftables: reception table 243 (Fig. 14) and transmission
 * table 245 (Fig. 15), which data reception (Fig. 22) and data transmission (Fig. 23) go by. Pure.
 *
 *     forwarder --> for SENDER, from its MAC --> reception: (SENDER, protocol, port) -> VIP --> sockets     S2207, S2208, S2209
 *     sockets ----> from VIP ------------------> transmission: VIP -> SENDER ---------------> forwarder     S2301 to S2304
 *
 * What connections do besides is done by conntrack. Whatever else comes for SENDER, or for VIP without having been
 * converted, is dropped, and nothing leaves with VIP as its source: it belongs to the forwarder. Its ARP is the
 * forwarder's alone.
 *
 * A virtual IF may have the address too, and flows of its own: what comes in or leaves by a device that has the address itself
 * is none of ours, and its answers are marked, so that the rule of routing passes them by.
 *
 * A UDP server that is bound to any address and does not say where its answer comes from (IP_PKTINFO) answers from the
 * address that routing chooses. `answers` remembers who asked at which port, so that the answer gets its source back before
 * conntrack sees it.
 */
import type { SetFamily } from '../sys/nft-sets.js';

export const VIP_TABLE_FAMILY = 'inet' satisfies SetFamily;
export const VIP_ARP_FAMILY = 'arp';
export const RECEPTION_MAP = 'reception';
export const TRANSMISSION_MAP = 'transmission';

/** A bit that marks what has the address by another way than ours: its rule of routing passes it by. */
export const OTHERS_MARK = 0x2000_0000;

/** How long a UDP server without IP_PKTINFO may take for its answer, and how many clients may wait for one. */
const ANSWER_MS = 30_000;
const MAX_ANSWERS = 65_536;

/** What the conversion of one virtual IP address needs to know; addresses as text. */
export interface Conversion {
  readonly vip: string;
  readonly sender: string;
  /** Name of the device that leads to the forwarder. */
  readonly device: string;
  /** Of the control device on that link, of the family of the virtual IP address. */
  readonly ownAddress: string;
  /** The forwarder's on that link. */
  readonly forwarderMac: string;
}

/** No name of a control device has a slash, so no other table has this name. */
export function vipTable(control: string, vip: string): string {
  return `fwdfs_${control.replaceAll(/[^A-Za-z0-9_.-]/g, '_')}/vip/${vip.replaceAll(':', '-')}`;
}

/** The virtual IP address that a table of this module is for; null for all other tables. */
export function vipOfTable(family: string, name: string): string | null {
  if (family !== VIP_TABLE_FAMILY && family !== VIP_ARP_FAMILY) return null;
  return /^fwdfs_[^/]+\/vip\/([0-9a-f.-]+)$/.exec(name)?.[1]?.replaceAll('-', ':') ?? null;
}

/**
 * The lines that make its tables.
 *
 * @param elements of the reception map that are there from the beginning, as nft spells them
 */
export function vipRuleset(table: string, conversion: Conversion, elements: readonly string[]): string {
  const isIpv4 = !conversion.vip.includes(':');
  return inetTable(table, conversion, elements, isIpv4) + (isIpv4 ? arpTable(table, conversion) : '');
}

function inetTable(table: string, conversion: Conversion, elements: readonly string[], isIpv4: boolean): string {
  const { vip, sender, device, forwarderMac } = conversion;
  const [ip, type] = isIpv4 ? ['ip', 'ipv4_addr'] : ['ip6', 'ipv6_addr'];
  const link = JSON.stringify(device);
  const lines = [
    `table ${VIP_TABLE_FAMILY} ${table} {`,
    `map ${RECEPTION_MAP} { type ${type} . inet_proto . inet_service : ${type};`,
    ...(elements.length === 0 ? [] : [`elements = { ${elements.join(', ')} };`]),
    '}',
    `map ${TRANSMISSION_MAP} { type ${type} : ${type}; elements = { ${vip} : ${sender} }; }`,
    `set answers { type ${type} . inet_service . inet_service; flags dynamic,timeout; timeout ${ANSWER_MS / 1000}s; size ${MAX_ANSWERS}; }`,
    // Before conntrack, so that a stranger takes part in no connection.
    'chain strangers {',
    'type filter hook prerouting priority raw; policy accept;',
    `${ip} daddr != ${sender} accept`,
    `iifname ${link} ether saddr ${forwarderMac} accept`,
    `${ip} daddr ${sender} drop`,
    '}',
    'chain receive {',
    'type nat hook prerouting priority dstnat - 5; policy accept;',
    `dnat ${ip} to ${ip} daddr . meta l4proto . th dport map @${RECEPTION_MAP}`,
    '}',
    'chain received {',
    'type filter hook prerouting priority dstnat + 1; policy accept;',
    `${ip} daddr ${sender} drop`,
    'iifname "lo" accept',
    `${ip} daddr != ${vip} accept`,
    `ct original ${ip} daddr ${sender} accept`,
    `ct reply ${ip} daddr ${sender} accept`,
    'fib daddr . iif type local accept',
    `${ip} daddr ${vip} drop`,
    '}',
    'chain asked {',
    'type filter hook input priority filter; policy accept;',
    `${ip} daddr ${vip} ct original ${ip} daddr ${sender} meta l4proto udp update @answers { ${ip} saddr . udp sport . udp dport }`,
    '}',
    'chain answered {',
    // Of this type: routing begins anew with the other source.
    'type route hook output priority raw; policy accept;',
    `${ip} saddr != ${vip} ${ip} daddr . udp dport . udp sport @answers ${ip} saddr set ${vip}`,
    '}',
    'chain others {',
    'type route hook output priority mangle; policy accept;',
    `${ip} saddr ${vip} ct original ${ip} daddr ${vip} meta mark set meta mark or ${OTHERS_MARK}`,
    `${ip} saddr ${vip} ct state established,related ct reply ${ip} daddr ${vip} meta mark set meta mark or ${OTHERS_MARK}`,
    '}',
    'chain transmit {',
    'type nat hook postrouting priority srcnat - 5; policy accept;',
    `oifname ${link} snat ${ip} to ${ip} saddr map @${TRANSMISSION_MAP}`,
    '}',
    'chain transmitted {',
    'type filter hook postrouting priority srcnat + 1; policy accept;',
    'oifname "lo" accept',
    `${ip} saddr ${vip} fib saddr . oif type local accept`,
    `${ip} saddr ${vip} drop`,
    '}',
    '}',
    '',
  ];
  return lines.join('\n');
}

/** A request for the next hop has the address of the link as its sender's, not that of the packet that waits for it. */
function arpTable(table: string, { vip, device, ownAddress }: Conversion): string {
  const lines = [
    `table ${VIP_ARP_FAMILY} ${table} {`,
    'chain input {',
    'type filter hook input priority filter; policy accept;',
    `arp daddr ip ${vip} drop`,
    '}',
    'chain output {',
    'type filter hook output priority filter; policy accept;',
    `oifname ${JSON.stringify(device)} arp saddr ip ${vip} arp saddr ip set ${ownAddress} accept`,
    `arp saddr ip ${vip} drop`,
    '}',
    '}',
    '',
  ];
  return lines.join('\n');
}
