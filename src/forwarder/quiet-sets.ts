/**
 * What virtual IFs have in the kernel: the forwarder's own kernel keeps quiet about what their sockets and flows get, as
 * quiet.ts has it for claims. Sockets and flows come too fast for nft, so here the rules stand and sets change.
 *
 *     wire --> AF_PACKET --> prerouting: conntrack --> input hook, filter - 11 --> Discard, filter - 10
 *                                                             |
 *        table inet fwdfs_NAME/vifs   what a host can't do without, our own ports, and answers to the forwarder's own
 *                                     flows: on; then drop what is in one of the sets:
 *              ports, ports4, ports6       interface, protocol, local port; the last two with the local address
 *              protocols, protocols4, …6   the same without a port: raw sockets
 *              flows4, flows6              both addresses, protocol, both ports: the local address tells the interface,
 *                                          and nft lists keys of at most five parts
 *              pairs4, pairs6              flows of protocols without ports
 *
 * The table is there while there is a virtual IF. Several sockets may want the same element, which is counted. ICMP stays
 * with the host: it answers echo requests, and takes errors for what it did not send without a word.
 */
import { describe } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { IPV4_ADDRESS_BYTES } from '../packet/ip-address.js';
import { hasPorts, IPPROTO_ICMP, IPPROTO_ICMPV6, type ProtocolAddress } from '../packet/protocol-address.js';
import { interfacePart, NftSets, portPart, setKey } from '../sys/nft-sets.js';
import { applyRuleset, deleteTable, dropTable, listTables } from '../sys/nftables.js';
import { addChain, ESSENTIAL, rulesFor, tableName } from './discard.js';
import type { Rule } from './distribution-table.js';
import type { FlowEnds, FlowListener } from './flow-store.js';

const FAMILY = 'inet';

/** Name, type and the packet's fields of each set, in the order of its keys. */
const SETS: readonly (readonly [name: string, type: string, fields: string])[] = [
  ['ports', 'ifname . inet_proto . inet_service', 'iifname . meta l4proto . th dport'],
  ['ports4', 'ifname . ipv4_addr . inet_proto . inet_service', 'iifname . ip daddr . meta l4proto . th dport'],
  ['ports6', 'ifname . ipv6_addr . inet_proto . inet_service', 'iifname . ip6 daddr . meta l4proto . th dport'],
  ['protocols', 'ifname . inet_proto', 'iifname . meta l4proto'],
  ['protocols4', 'ifname . ipv4_addr . inet_proto', 'iifname . ip daddr . meta l4proto'],
  ['protocols6', 'ifname . ipv6_addr . inet_proto', 'iifname . ip6 daddr . meta l4proto'],
  [
    'flows4',
    'ipv4_addr . ipv4_addr . inet_proto . inet_service . inet_service',
    'ip daddr . ip saddr . meta l4proto . th dport . th sport',
  ],
  [
    'flows6',
    'ipv6_addr . ipv6_addr . inet_proto . inet_service . inet_service',
    'ip6 daddr . ip6 saddr . meta l4proto . th dport . th sport',
  ],
  ['pairs4', 'ipv4_addr . ipv4_addr . inet_proto', 'ip daddr . ip saddr . meta l4proto'],
  ['pairs6', 'ipv6_addr . ipv6_addr . inet_proto', 'ip6 daddr . ip6 saddr . meta l4proto'],
];

function ruleset(table: string, listen: readonly ProtocolAddress[]): string {
  const lines = [`table ${FAMILY} ${table} {`];
  for (const [name, type] of SETS) lines.push(`  set ${name} {`, `    type ${type}`, '  }');
  addChain(lines, 'input', [
    'type filter hook input priority filter - 11; policy accept;',
    // What the host has under way goes on, whoever opens a socket on its port: rules are for new flows.
    'ct state established,related accept',
    ...ESSENTIAL,
    ...rulesFor(listen, 'accept'),
    ...SETS.map(([name, , fields]) => `${fields} @${name} drop`),
  ]);
  return [dropTable(FAMILY, table) + lines.join('\n'), '}', ''].join('\n');
}

interface Element {
  readonly set: string;
  readonly key: Buffer;
}

const isIcmp = (protocol: number): boolean => protocol === IPPROTO_ICMP || protocol === IPPROTO_ICMPV6;

/** Where the rule of a virtual IF's socket stands; nowhere for packet sockets, ICMP and the way back of flows. */
export function elementsOfRule({ interface: name, protocol: address, vif }: Rule): Element[] {
  if (vif === null || address.kind !== 'ip') return [];
  const family = address.address === null ? '' : address.address.length === IPV4_ADDRESS_BYTES ? '4' : '6';
  const local = address.address === null ? [] : [address.address];
  const ports = address.portLow < 0 ? [] : [portPart(address.portLow)];
  const set = `${ports.length === 0 ? 'protocols' : 'ports'}${family}`;
  return address.protocols
    .filter((protocol) => !isIcmp(protocol))
    .map((protocol) => ({ set, key: setKey(interfacePart(name), ...local, Buffer.from([protocol]), ...ports) }));
}

export function elementOfFlow(flows: FlowEnds, flow: number): Element | null {
  const protocol = flows.protocol(flow);
  if (isIcmp(protocol)) return null;
  const local = flows.copyLocal(flow);
  const ports = hasPorts(protocol) ? [portPart(flows.localPort(flow)), portPart(flows.remotePort(flow))] : [];
  const family = local.length === IPV4_ADDRESS_BYTES ? '4' : '6';
  const key = setKey(local, flows.copyRemote(flow), Buffer.from([protocol]), ...ports);
  return { set: `${ports.length === 0 ? 'pairs' : 'flows'}${family}`, key };
}

function put(keys: Map<string, Buffer[]>, set: string, key: Buffer): void {
  const known = keys.get(set);
  if (known === undefined) keys.set(set, [key]);
  else known.push(key);
}

export class QuietSets {
  private readonly table: string;
  private readonly listen: readonly ProtocolAddress[];
  private readonly log: Logger;
  private last: Promise<unknown> = Promise.resolve();
  private sets: NftSets | null = null;
  /** Ways back of the virtual IFs that are there. */
  private readonly vifs = new Set<Rule>();
  private readonly elements = new Map<Rule, Element[]>();
  /** How many want an element, by set and key. */
  private readonly wanted = new Map<string, number>();
  /** By set; there while `together` runs a step. */
  private gathered: { readonly added: Map<string, Buffer[]>; readonly removed: Map<string, Buffer[]> } | null = null;

  /** @param listen where the forwarder itself listens: always admitted */
  constructor(forwarder: string, listen: readonly ProtocolAddress[], log: Logger) {
    this.table = `${tableName(forwarder)}/vifs`;
    this.listen = listen;
    this.log = log;
  }

  /** Removes what a crash left. @throws FwdfsError host-lacks without nft; SystemError */
  sweep(): Promise<void> {
    return this.next(async () => {
      for (const { family, name } of await listTables()) if (name === this.table) await deleteTable(family, name);
    });
  }

  /** A virtual IF comes: resolves when the table is there. @throws as sweep; `vifRemoved` has to follow */
  vifAdded(wayBack: Rule): Promise<void> {
    this.vifs.add(wayBack);
    return this.next(() => this.follow());
  }

  /** A virtual IF went, with its rules and flows. */
  vifRemoved(wayBack: Rule): void {
    if (!this.vifs.delete(wayBack) || this.vifs.size > 0) return;
    // The next virtual IF, or the next start, tries again.
    this.next(() => this.follow()).catch((error: unknown) =>
      this.log.error({ error: describe(error) }, 'the table of virtual IFs was not removed'),
    );
  }

  /** Leaves no table of ours behind. @throws as sweep */
  remove(): Promise<void> {
    this.vifs.clear();
    return this.next(() => this.follow());
  }

  private async follow(): Promise<void> {
    if (this.vifs.size > 0 && this.sets === null) {
      await applyRuleset(ruleset(this.table, this.listen));
      this.sets = new NftSets(FAMILY, this.table);
    } else if (this.vifs.size === 0 && this.sets !== null) {
      this.sets.close();
      this.sets = null;
      this.wanted.clear();
      await deleteTable(FAMILY, this.table);
    }
  }

  /** When this returns, the kernel is quiet about what the rule takes. @throws SystemError; `ruleRemoved` has to follow */
  ruleAdded(rule: Rule): void {
    const added: Element[] = [];
    this.elements.set(rule, added);
    for (const element of elementsOfRule(rule)) {
      this.want(element);
      added.push(element);
    }
  }

  ruleRemoved(rule: Rule): void {
    for (const element of this.elements.get(rule) ?? []) this.unwant(element);
    this.elements.delete(rule);
  }

  /** A flow needs the quiet or no longer does. It works without, until the host answers with an RST or an ICMP error. */
  readonly flowChanged: FlowListener = (flows, flow, opened) => {
    const element = elementOfFlow(flows, flow);
    if (element === null) return;
    if (!opened) {
      this.unwant(element);
      return;
    }
    try {
      this.want(element);
    } catch (error) {
      this.log.error(
        { interface: flows.ruleOf(flow).interface, error: describe(error) },
        'the kernel does not keep quiet',
      );
    }
  };

  /** What very many flows need, or no longer do, is told to the kernel in few calls when the step is done. */
  together(step: () => void): void {
    const gathered = (this.gathered = { added: new Map<string, Buffer[]>(), removed: new Map<string, Buffer[]>() });
    try {
      step();
    } finally {
      this.gathered = null;
      try {
        for (const [set, keys] of gathered.added) this.sets?.addAll(set, keys);
        for (const [set, keys] of gathered.removed) this.sets?.removeAll(set, keys);
      } catch (error) {
        this.log.error({ error: describe(error) }, 'the kernel does not keep quiet, or does for too long');
      }
    }
  }

  private want({ set, key }: Element): void {
    const name = `${set} ${key.toString('latin1')}`;
    const count = this.wanted.get(name) ?? 0;
    if (count === 0) {
      if (this.gathered === null) this.sets?.add(set, key);
      else put(this.gathered.added, set, key);
    }
    this.wanted.set(name, count + 1);
  }

  private unwant({ set, key }: Element): void {
    const name = `${set} ${key.toString('latin1')}`;
    const count = this.wanted.get(name) ?? 0;
    if (count > 1) {
      this.wanted.set(name, count - 1);
      return;
    }
    if (!this.wanted.delete(name)) return;
    if (this.gathered !== null) {
      put(this.gathered.removed, set, key);
      return;
    }
    try {
      this.sets?.remove(set, key);
    } catch (error) {
      this.log.error({ set, error: describe(error) }, 'the kernel keeps quiet for too long');
    }
  }

  private next<T>(step: () => Promise<T>): Promise<T> {
    const done = this.last.then(step);
    this.last = done.catch(() => undefined);
    return done;
  }
}
