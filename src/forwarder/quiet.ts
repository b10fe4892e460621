/**
 * Claims in the kernel: what arrives for a claimed protocol address is the claimant's, and the forwarder's own kernel keeps
 * quiet about it: no answer of a daemon, no RST, no ICMP error, no echo reply, no ARP reply.
 *
 *     wire --> AF_PACKET (claim, copies) --> prerouting: conntrack --> input hook, filter - 11 --> Discard, filter - 10
 *                                                                               |
 *        table inet fwdfs_NAME/claims   what a host can't do without, our own ports, and answers to the forwarder's own
 *                                       flows: on; then iifname and protocol address of each claim: drop
 *        table arp fwdfs_NAME/claims    iifname of each claim of arp: drop
 *
 * So a claim also ends what the host has with remote ends that began it, and stands before `host` of the configuration. A
 * claim of `*` leaves ARP and neighbour discovery alone. Forwarded packets don't pass the input hook.
 *
 * Each table is there only while it is needed, apart from the one that discards, whose counters go on. Both are replaced in
 * one transaction; changes that come while nft runs share the next run. What a crash left is swept at the next start. No
 * name of a forwarder has a slash, so no other table of ours has this name.
 */
import { ETHERTYPE_ARP, type ProtocolAddress } from '../packet/protocol-address.js';
import { applyRuleset, deleteTable, dropTable, listTables } from '../sys/nftables.js';
import { addChain, ESSENTIAL, quoted, rulesFor, tableName } from './discard.js';

export interface Claim {
  readonly interface: string;
  readonly protocol: ProtocolAddress;
}

type Family = 'inet' | 'arp';

/** The rules that drop what a claim takes, without what they stand behind. @throws FwdfsError bad-config: see `quoted` */
export function claimRules(family: Family, { interface: name, protocol }: Claim): string[] {
  const isArp = protocol.kind === 'ether' && protocol.etherType === ETHERTYPE_ARP;
  const rules = family === 'inet' ? rulesFor([protocol], 'drop') : isArp ? ['drop'] : [];
  return rules.map((rule) => `iifname ${quoted(name)} ${rule}`);
}

/** The table of a family, null where no claim needs one. */
function claimTable(
  family: Family,
  table: string,
  claims: readonly Claim[],
  listen: readonly ProtocolAddress[],
): string | null {
  const rules = claims.flatMap((claim) => claimRules(family, claim));
  if (rules.length === 0) return null;
  const lines = [`table ${family} ${table} {`];
  const admitted = ['ct direction reply ct state established,related accept', ...ESSENTIAL];
  addChain(lines, 'input', [
    `type filter hook input priority ${family === 'inet' ? 'filter - 11' : 'filter'}; policy accept;`,
    ...(family === 'inet' ? [...admitted, ...rulesFor(listen, 'accept')] : []),
    ...rules,
  ]);
  return [...lines, '}', ''].join('\n');
}

export class Quiet {
  private readonly table: string;
  private readonly listen: readonly ProtocolAddress[];
  private readonly claims: () => readonly Claim[];
  private last: Promise<unknown> = Promise.resolve();
  private waiting: Promise<void> | null = null;
  /** Families with a table of ours. */
  private there: readonly Family[] = [];

  /**
   * @param listen where the forwarder itself listens: always admitted
   * @param claims what is claimed now
   */
  constructor(forwarder: string, listen: readonly ProtocolAddress[], claims: () => readonly Claim[]) {
    this.table = `${tableName(forwarder)}/claims`;
    this.listen = listen;
    this.claims = claims;
  }

  /** Removes what a crash left. @throws FwdfsError host-lacks without nft; SystemError */
  sweep(): Promise<void> {
    return this.next(async () => {
      for (const { family, name } of await listTables()) if (name === this.table) await deleteTable(family, name);
    });
  }

  /**
   * Resolves when the kernel is quiet about what is claimed at the time of the call, and about nothing that is not claimed
   * any more. If it fails the kernel is as before. @throws as sweep
   */
  update(): Promise<void> {
    this.waiting ??= this.next(() => {
      this.waiting = null;
      return this.write(this.claims());
    });
    return this.waiting;
  }

  /** Leaves no table of ours behind. @throws as sweep */
  remove(): Promise<void> {
    return this.next(() => this.write([]));
  }

  private async write(claims: readonly Claim[]): Promise<void> {
    let script = this.there.map((family) => dropTable(family, this.table)).join('');
    const there: Family[] = [];
    for (const family of ['inet', 'arp'] as const) {
      const table = claimTable(family, this.table, claims, this.listen);
      if (table === null) continue;
      there.push(family);
      script += table;
    }
    if (script === '') return;
    await applyRuleset(script);
    this.there = there;
  }

  private next<T>(step: () => Promise<T>): Promise<T> {
    const done = this.last.then(step);
    this.last = done.catch(() => undefined);
    return done;
  }
}
