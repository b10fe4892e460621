/**
 * Discarding (S1104, S606): what no rule takes and the host was not named for is dropped before the forwarder's own kernel
 * answers it.
 *
 *     wire --> AF_PACKET (rules still see everything) --> prerouting: conntrack --> input hook, filter - 10 --> sockets
 *                                                                                        |
 *        table inet fwdfs_NAME:   chain input   iifname: an interface with `unmatched: discard` --> its chain;
 *                                               under `*` every other one but lo --> one chain for all of them
 *                                 chain interface_N   jump always; what `host` lists: accept; count and drop the rest
 *                                 counter discarded_N   goes on counting when the table is replaced
 *                                 chain always        what a host can't do without
 *
 * Everything that is not admitted goes, also what conntrack calls invalid: a SYN-ACK or RST of a flow that lives on a
 * control device is invalid here, and would be answered. Packets of the forwarder's own flows are established. Flows from
 * before the rules are known to conntrack after their next outgoing packet. Forwarded packets don't pass the input hook.
 *
 * The table is replaced in one transaction, so there is no moment without rules; one that a crash left is replaced or
 * removed by the next start of the forwarder with the same name. Tables of others are never touched; since `accept` ends
 * only our chain, their rules still apply.
 */
import { FwdfsError } from '../base/errors.js';
import { addressText, IPV4_ADDRESS_BYTES } from '../packet/ip-address.js';
import type { ProtocolAddress } from '../packet/protocol-address.js';
import { applyRuleset, deleteTable, dropTable, readCounters } from '../sys/nftables.js';

export interface DiscardInterface {
  /** `*` stands for every interface that is not named, but never for loopback. */
  readonly name: string;
  readonly unmatched: 'discard' | 'host';
  /** What stays with the host's own kernel. */
  readonly host: readonly ProtocolAddress[];
}

const FAMILY = 'inet';
const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_IPV6 = 0x86dd;

/** What a host can't do without, whatever is discarded or claimed. */
export const ESSENTIAL = [
  'icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect } accept',
  'icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } accept',
  'ip protocol igmp accept',
  'meta nfproto ipv4 udp sport 67 udp dport 68 accept',
  'meta nfproto ipv6 udp sport 547 udp dport 546 accept',
];

export class Discard {
  private readonly table: string;
  private readonly listen: readonly ProtocolAddress[];
  private last: Promise<unknown> = Promise.resolve();
  private isOurs = false;
  /** Names of the interfaces that the table in the kernel discards for, by the number of their chain. */
  private applied: readonly string[] = [];

  /** @param listen where the forwarder itself listens: always admitted */
  constructor(forwarder: string, listen: readonly ProtocolAddress[]) {
    this.table = tableName(forwarder);
    this.listen = listen;
  }

  /**
   * Makes the kernel discard as these interfaces want it, instead of what was applied before. The first call sweeps what a
   * crash left. Interfaces need not exist: the rules go by name. Calls take effect in their order.
   *
   * @throws FwdfsError host-lacks without nft, bad-config for an interface name that nft can't express; SystemError
   */
  apply(interfaces: readonly DiscardInterface[]): Promise<void> {
    const discarding = interfaces.filter((one) => one.unmatched === 'discard');
    return this.next(async () => {
      const counts = await this.read();
      this.isOurs = true;
      if (discarding.length === 0) await deleteTable(FAMILY, this.table);
      else await applyRuleset(discardRuleset(this.table, interfaces, this.listen, counts));
      this.applied = discarding.map(({ name }) => name);
    });
  }

  /** Leaves no rule of ours behind: nothing is touched that `apply` did not make or replace. @throws as apply */
  remove(): Promise<void> {
    return this.next(async () => {
      if (this.isOurs) await deleteTable(FAMILY, this.table);
    });
  }

  /** Packets discarded so far, by interface. @throws as apply */
  counts(): Promise<ReadonlyMap<string, number>> {
    return this.next(() => this.read());
  }

  private async read(): Promise<ReadonlyMap<string, number>> {
    if (this.applied.length === 0) return new Map();
    const counters = await readCounters(FAMILY, this.table);
    return new Map(this.applied.map((name, index) => [name, counters.get(`discarded_${index}`) ?? 0]));
  }

  private next<T>(step: () => Promise<T>): Promise<T> {
    const done = this.last.then(step);
    this.last = done.catch(() => undefined);
    return done;
  }
}

/** Names of forwarders that the configuration admits stay as they are, so no two of them share a table. */
export function tableName(forwarder: string): string {
  return `fwdfs_${forwarder.replaceAll(/[^A-Za-z0-9_.-]/g, '_')}`;
}

/**
 * The script that replaces the table.
 *
 * @param counts what the counters begin with, by interface
 * @throws FwdfsError bad-config for an interface name that nft can't express
 */
export function discardRuleset(
  table: string,
  interfaces: readonly DiscardInterface[],
  listen: readonly ProtocolAddress[],
  counts: ReadonlyMap<string, number> = new Map(),
): string {
  const lines = [`table ${FAMILY} ${table} {`];
  const discarding = interfaces.filter(({ unmatched }) => unmatched === 'discard');
  for (const [index, { name }] of discarding.entries()) {
    lines.push(`  counter discarded_${index} { packets ${counts.get(name) ?? 0} bytes 0 }`);
  }
  addChain(lines, 'always', ['ct state established,related accept', ...ESSENTIAL, ...rulesFor(listen, 'accept')]);
  for (const [index, { host }] of discarding.entries()) {
    addChain(lines, `interface_${index}`, [
      'jump always',
      ...rulesFor(host, 'accept'),
      `counter name discarded_${index} drop`,
    ]);
  }
  const rest = discarding.findIndex(({ name }) => name === '*');
  addChain(lines, 'input', [
    'type filter hook input priority filter - 10; policy accept;',
    ...interfaces
      .filter(({ name, unmatched }) => name !== '*' && (unmatched === 'discard' || rest >= 0))
      .map((one) => {
        const index = discarding.indexOf(one);
        return `iifname ${quoted(one.name)} ${index < 0 ? 'return' : `jump interface_${index}`}`;
      }),
    ...(rest < 0 ? [] : [`iifname != "lo" jump interface_${rest}`]),
  ]);
  lines.push('}', '');
  return dropTable(FAMILY, table) + lines.join('\n');
}

export function addChain(lines: string[], name: string, rules: readonly string[]): void {
  lines.push(`  chain ${name} {`, ...rules.map((rule) => `    ${rule}`), '  }');
}

/** A rule for what each protocol address names; none for what is not IP, as the input hook sees only IP. */
export function rulesFor(protocols: readonly ProtocolAddress[], verdict: 'accept' | 'drop'): string[] {
  return protocols.flatMap((protocol) => ruleFor(protocol, verdict));
}

function ruleFor(protocol: ProtocolAddress, verdict: string): string[] {
  if (protocol.kind === 'any') return [verdict];
  if (protocol.kind === 'ether') {
    if (protocol.etherType === ETHERTYPE_IPV4) return [`meta nfproto ipv4 ${verdict}`];
    if (protocol.etherType === ETHERTYPE_IPV6) return [`meta nfproto ipv6 ${verdict}`];
    return [];
  }
  const { address, portLow, portHigh } = protocol;
  const words: string[] = [];
  if (address !== null) {
    const family = address.length === IPV4_ADDRESS_BYTES ? 'ip' : 'ip6';
    words.push(`${family} daddr ${addressText(address)}`);
  }
  words.push(`meta l4proto { ${protocol.protocols.join(', ')} }`);
  if (portLow >= 0) words.push(`th dport ${portLow === portHigh ? portLow : `${portLow}-${portHigh}`}`);
  return [`${words.join(' ')} ${verdict}`];
}

/** An interface name as nft reads it: an asterisk at the end would stand for anything, and quotes can't be escaped. */
export function quoted(name: string): string {
  if (/["\\*\n]/.test(name))
    throw new FwdfsError('bad-config', `${JSON.stringify(name)} can't be named in a rule of nft`);
  return `"${name}"`;
}
