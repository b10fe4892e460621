/**
 * Virtual IP addresses in the kernel of the forwarder, as a script of nft: distribution table 343 (Fig. 16), reception table
 * 345 (Fig. 17); data reception (Fig. 22, S2201 to S2206) and transmission (Fig. 23, S2305 to S2307) without a step of ours.
 *
 *     client --> raw: spoofed ----> nat: prerouting ----> forward ------------> SENDER's route --> control device
 *                drop who says he    vip:port -> SENDER    count; drop what is
 *                is SENDER, or       of a member           not converted
 *                speaks to it                              where nobody forwarded
 *     client <--------------------- nat: postrouting <--- forward <------------ control device
 *                                    conntrack undoes, or SENDER -> vip for what begins there
 *
 *     table inet fwdfs_NAME/vip   set senders4, senders6      who is SENDER, for whom
 *                                 set links4, links6          SENDER, MAC and interface that it comes from
 *                                 set lost4, lost6            connections that were given up: both ends, 60 s
 *                                 counter rule_N              of each rule, goes on when the rest is replaced
 *                                 chain pP_PORT_at_VIP_IF     members of a balanced rule: by the hash, by another one, in turn
 *                                 chain to_SENDER             one member, unless the port is in
 *                                 set away_SENDER             what it takes no more, until the next script leaves it out: an
 *                                                             element is there at once, a script takes its time
 *                                 chain from_SENDER           what may begin there: by right, and not from one that is away
 *
 * A TCP connection is converted by its SYN: what conntrack does not know is not ours, so connections by encapsulation stay.
 * What nobody converts meets the input hook, where Discard counts it. A connection that was given up is answered with an RST
 * before that.
 */
import { MAX_VIP_SLOTS, VIP_AWAY_MS, VIP_RESET_MS } from '../base/limits.js';
import { addressText, IPV4_ADDRESS_BYTES } from '../packet/ip-address.js';
import { formatMac } from '../packet/mac-address.js';
import type { ProtocolAddress } from '../packet/protocol-address.js';
import { dropTable } from '../sys/nftables.js';
import { addChain, quoted } from './discard.js';

const FAMILY = 'inet';
const NOT_SYN = '& (fin | syn | rst | ack) != syn';

/** A virtual IP address of a control device. */
export interface VipSender {
  readonly vip: Buffer;
  readonly sender: Buffer;
  /** Name of the control device. */
  readonly control: string;
  /** The interface that it is reached through, and its link layer address there. */
  readonly link: string;
  readonly mac: Buffer;
  /** What it may begin by itself, by its local end; null: nothing, as it is away. */
  readonly outgoing: readonly ProtocolAddress[] | null;
}

/** A rule: the member of a group, unless its weight is 0. */
export interface VipMember {
  readonly interface: string;
  readonly vip: Buffer;
  readonly protocol: number;
  readonly port: number;
  readonly sender: Buffer;
  readonly control: string;
  /** Share of new connections; 0: takes none. */
  readonly weight: number;
  /** Names its counter. */
  readonly id: number;
}

export interface VipModel {
  readonly senders: readonly VipSender[];
  readonly members: readonly VipMember[];
  /** Interfaces of which IPv4 packets are forwarded for us alone. */
  readonly closed4: readonly string[];
  /** IPv6 packets are forwarded for us alone. */
  readonly closed6: boolean;
  /** Of the hash that places connections. */
  readonly seed: number;
}

/** A script, and the names of what a later one has to take away when it has none of that name. */
export interface VipRuleset {
  readonly body: string;
  readonly chains: readonly string[];
  readonly counters: readonly string[];
  readonly sets: readonly string[];
}

const isIpv4 = (address: Buffer): boolean => address.length === IPV4_ADDRESS_BYTES;
const FAMILIES = [
  { digit: '4', ip: 'ip', type: 'ipv4_addr', isOurs: isIpv4 },
  { digit: '6', ip: 'ip6', type: 'ipv6_addr', isOurs: (address: Buffer): boolean => !isIpv4(address) },
] as const;
type FamilyWords = (typeof FAMILIES)[number];

const braces = (elements: readonly string[]): string => `{ ${elements.join(', ')} }`;
const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b));

/**
 * Which member takes each value of the hash: as many in a row as its share. The same members give the same slots.
 * @param members those of one group with a weight, at least one
 */
export function slotsOf(members: readonly VipMember[]): Buffer[] {
  const sorted = members.toSorted((a, b) => (a.control < b.control ? -1 : a.control > b.control ? 1 : a.id - b.id));
  const divisor = sorted.map(({ weight }) => weight).reduce(gcd, 0);
  const total = sorted.reduce((sum, { weight }) => sum + weight / divisor, 0);
  const scale = Math.min(1, MAX_VIP_SLOTS / total) / divisor;
  return sorted.flatMap(({ sender, weight }) =>
    Array<Buffer>(Math.max(1, Math.floor(weight * scale + 1e-9))).fill(sender),
  );
}

/** Names of what belongs to a sender. */
const nameFor = (what: string, sender: Buffer): string => `${what}_${addressText(sender).replaceAll(':', '_')}`;
/** Vip, protocol and port that a sender takes no more. */
export const awaySet = (sender: Buffer): string => nameFor('away', sender);

interface Group {
  readonly chain: string;
  readonly key: string;
  readonly vip: Buffer;
  readonly slots: readonly Buffer[];
}

/** Groups that have a member: connections to others are left to the host. */
function groupsOf(members: readonly VipMember[]): Group[] {
  const groups = new Map<string, VipMember[]>();
  for (const member of members) {
    if (member.weight === 0) continue;
    const key = `${quoted(member.interface)} . ${addressText(member.vip)} . ${member.protocol} . ${member.port}`;
    groups.set(key, [...(groups.get(key) ?? []), member]);
  }
  return [...groups].map(([key, of]) => {
    const { vip, protocol, port, interface: name } = of[0]!;
    // An interface may have characters that no identifier of nft has.
    const where = `${addressText(vip).replaceAll(':', '_')}_${Buffer.from(name).toString('hex')}`;
    return { key, vip, slots: slotsOf(of), chain: `p${protocol}_${port}_at_${where}` };
  });
}

function setLines(model: VipModel, { digit, type, isOurs }: FamilyWords): string[] {
  const senders = model.senders.filter(({ sender }) => isOurs(sender));
  const named = senders.map(({ sender, control }) => `${addressText(sender)} comment ${comment(control)}`);
  const links = senders.map(({ sender, mac, link }) => `${addressText(sender)} . ${formatMac(mac)} . ${quoted(link)}`);
  const set = (name: string, of: string, elements: readonly string[]): string[] => [
    `  set ${name}${digit} {`,
    `    type ${of}`,
    ...(elements.length === 0 ? [] : [`    elements = ${braces(elements)}`]),
    '  }',
  ];
  return [
    ...set('senders', type, named),
    ...set('links', `${type} . ether_addr . ifname`, links),
    `  set lost${digit} {`,
    `    type ${type} . inet_service . ${type} . inet_service`,
    `    timeout ${VIP_RESET_MS / 1000}s`,
    '  }',
  ];
}

/** Text of a comment: nft has no escapes, and takes 128 bytes. */
export const comment = (text: string): string => `"${text.replaceAll(/[^ !#-~]/g, '?').slice(0, 64)}"`;

function outgoingChain({ sender, outgoing }: VipSender): { name: string; rules: string[] } {
  const rules = (outgoing ?? []).flatMap((protocol) => {
    if (protocol.kind === 'any') return ['return'];
    if (protocol.kind === 'ether') return [];
    const { portLow, portHigh, protocols } = protocol;
    const ports = portLow < 0 ? '' : ` th sport ${portLow}-${portHigh}`;
    return [`meta l4proto ${braces(protocols.map(String))}${ports} return`];
  });
  return { name: nameFor('from', sender), rules: [...rules, 'drop'] };
}

function forwardRules(model: VipModel): string[] {
  const rules: string[] = [];
  for (const { digit, ip, isOurs } of FAMILIES) {
    const counted = model.members
      .filter(({ sender }) => isOurs(sender))
      .map(({ sender, protocol, port, id }) => `${addressText(sender)} . ${protocol} . ${port} : "rule_${id}"`);
    const from = model.senders
      .filter(({ sender }) => isOurs(sender))
      .map((one) => `${addressText(one.sender)} : jump ${outgoingChain(one).name}`);
    if (counted.length > 0) rules.push(`counter name ${ip} daddr . meta l4proto . th dport map ${braces(counted)}`);
    if (from.length === 0) continue;
    rules.push(
      `ct state new ${ip} saddr @senders${digit} tcp flags ${NOT_SYN} drop`,
      `ct state new ${ip} saddr vmap ${braces(from)}`,
      `ct original ${ip} saddr @senders${digit} accept`,
      `ct reply ${ip} saddr @senders${digit} accept`,
    );
  }
  const closed = model.closed4.map(quoted);
  if (closed.length > 0) rules.push(`iifname ${braces(closed)} meta nfproto ipv4 drop`);
  if (model.closed6) rules.push('meta nfproto ipv6 drop');
  return rules;
}

function preroutingRules(groups: readonly Group[]): string[] {
  const rules = [`tcp flags ${NOT_SYN} return`];
  for (const { ip, isOurs } of FAMILIES) {
    const ways = groups.filter(({ vip }) => isOurs(vip)).map(({ key, chain }) => `${key} : goto ${chain}`);
    if (ways.length > 0) rules.push(`iifname . ${ip} daddr . meta l4proto . th dport vmap ${braces(ways)}`);
  }
  return rules;
}

/** The way to one member, for what it takes. */
function wayTo(sender: Buffer): { name: string; rules: string[]; lines: string[] } {
  const [type, ip] = isIpv4(sender) ? ['ipv4_addr', 'ip'] : ['ipv6_addr', 'ip6'];
  const set = awaySet(sender);
  return {
    name: nameFor('to', sender),
    rules: [`${ip} daddr . meta l4proto . th dport @${set} return`, `dnat ${ip} to ${addressText(sender)}`],
    lines: [
      `  set ${set} {`,
      `    type ${type} . inet_proto . inet_service`,
      `    timeout ${VIP_AWAY_MS / 1000}s`,
      '  }',
    ],
  };
}

/** The second hash and the last resort are for what came back from a member that is away. */
function groupRules({ slots, vip }: Group, seed: number): string[] {
  const ways = slots.map((sender) => `jump ${nameFor('to', sender)}`);
  const map = braces(ways.map((way, slot) => `${slot} : ${way}`));
  const hash = `jhash ${isIpv4(vip) ? 'ip' : 'ip6'} saddr . th sport mod ${slots.length}`;
  const members = new Set(ways);
  if (members.size === 1) return [`${hash} seed ${seed} vmap ${map}`];
  return [...[seed, seed + 1].map((one) => `${hash} seed ${one} vmap ${map}`), ...members];
}

/** What stands in the table, to be put into an empty one, or into one whose rules and sets were flushed. */
export function vipRuleset(table: string, model: VipModel): VipRuleset {
  const groups = groupsOf(model.members);
  const counters = model.members.map(({ id }) => `rule_${id}`);
  const outgoing = model.senders.map(outgoingChain);
  const lines = [`table ${FAMILY} ${table} {`, ...counters.map((name) => `  counter ${name} {\n  }`)];
  for (const family of FAMILIES) lines.push(...setLines(model, family));
  for (const { name, rules } of outgoing) addChain(lines, name, rules);
  const ways = model.senders.map(({ sender }) => wayTo(sender));
  for (const { lines: set } of ways) lines.push(...set);
  for (const { name, rules } of ways) addChain(lines, name, rules);
  for (const group of groups) addChain(lines, group.chain, groupRules(group, model.seed));
  const links = [...new Set(model.senders.map(({ link }) => quoted(link)))];
  const lost = (from: string, to: string): string[] =>
    FAMILIES.map(
      ({ digit, ip }) => `${ip} ${from}addr . tcp ${from}port . ${ip} ${to}addr . tcp ${to}port @lost${digit}`,
    );
  addChain(lines, 'spoofed', [
    'type filter hook prerouting priority raw; policy accept;',
    ...FAMILIES.flatMap(({ digit, ip }) => [
      `${ip} saddr @senders${digit} ${ip} saddr . ether saddr . iifname != @links${digit} drop`,
      `${ip} daddr @senders${digit} drop`,
    ]),
  ]);
  addChain(lines, 'prerouting', [
    'type nat hook prerouting priority dstnat - 5; policy accept;',
    ...preroutingRules(groups),
  ]);
  addChain(lines, 'forward', ['type filter hook forward priority filter - 10; policy accept;', ...forwardRules(model)]);
  addChain(lines, 'postrouting', [
    'type nat hook postrouting priority srcnat - 5; policy accept;',
    ...FAMILIES.flatMap(({ ip, isOurs }) => {
      const back = model.senders
        .filter(({ sender }) => isOurs(sender))
        .map(({ sender, vip }) => `${addressText(sender)} : ${addressText(vip)}`);
      return back.length === 0 ? [] : [`snat ${ip} to ${ip} saddr map ${braces(back)}`];
    }),
  ]);
  addChain(lines, 'input', [
    'type filter hook input priority filter - 12; policy accept;',
    ...lost('s', 'd').map((match) => `${match} reject with tcp reset`),
  ]);
  addChain(lines, 'output', [
    'type filter hook output priority raw; policy accept;',
    // What we send to those ends must not begin a connection here.
    ...lost('d', 's').map((match) => `${match} notrack`),
    // Where client and control device are on one link, the way through us is meant.
    ...(links.length === 0
      ? []
      : [`oifname ${braces(links)} icmp type redirect drop`, `oifname ${braces(links)} icmpv6 type nd-redirect drop`]),
  ]);
  lines.push('}', '');
  return {
    body: lines.join('\n'),
    chains: [...[...outgoing, ...ways].map(({ name }) => name), ...groups.map(({ chain }) => chain)],
    counters,
    sets: model.senders.map(({ sender }) => awaySet(sender)),
  };
}

/**
 * The script that puts a ruleset in the place of another one, as one transaction. Counters and what was given up stay.
 * @param before null: whatever a table of this name has goes
 */
export function replaceScript(table: string, before: VipRuleset | null, after: VipRuleset): string {
  if (before === null) return dropTable(FAMILY, table) + after.body;
  const gone = (had: readonly string[], has: readonly string[]): string[] => {
    const kept = new Set(has);
    return had.filter((name) => !kept.has(name));
  };
  return [
    `flush table ${FAMILY} ${table}`,
    ...['senders4', 'senders6', 'links4', 'links6'].map((set) => `flush set ${FAMILY} ${table} ${set}`),
    ...gone(before.chains, after.chains).map((name) => `delete chain ${FAMILY} ${table} ${name}`),
    ...gone(before.sets, after.sets).map((name) => `delete set ${FAMILY} ${table} ${name}`),
    ...gone(before.counters, after.counters).map((name) => `delete counter ${FAMILY} ${table} ${name}`),
    after.body,
  ].join('\n');
}
