/**
 * What may come in through a virtual IF: what a program asked for, and answers. One nft table per device, in its network
 * namespace, before the kernel's own sockets and after its conntrack:
 *
 *     TAP --> packet sockets (they see every frame that crosses) --> conntrack --> prerouting, mangle + 1 --> sockets
 *                                                                                        |
 *        table inet fwdfs_CONTROL/vif/DEVICE    iifname is another: not ours
 *                                               established, related, neighbor advertisements: on
 *                                               protocol and port, or protocol, in a set of ours: on
 *                                               the rest: drop
 *                                       output  echo replies of the kernel: drop, the forwarder's kernel answers
 *
 * So a tcpdump on the device, which makes every frame cross, opens no port, and the mirror's kernel answers nothing that
 * the forwarder's kernel answers. What comes in and is for another host is dropped too, whatever its port: nothing is
 * routed on but what conntrack knows.
 */
import type { ProtocolAddress } from '../packet/protocol-address.js';
import { NftSets, portPart, setKey } from '../sys/nft-sets.js';
import { applyRuleset, deleteTable, dropTable } from '../sys/nftables.js';
import { inNetns } from '../sys/netns.js';

const FAMILY = 'inet';

/** By name: the type of a set's elements, and what a packet is looked up by. */
const SETS: readonly (readonly [name: string, type: string, lookup: string])[] = [
  ['ports', 'inet_proto . inet_service', 'meta l4proto . th dport'],
  ['ports4', 'ipv4_addr . inet_proto . inet_service', 'ip daddr . meta l4proto . th dport'],
  ['ports6', 'ipv6_addr . inet_proto . inet_service', 'ip6 daddr . meta l4proto . th dport'],
  ['protocols', 'inet_proto', 'meta l4proto'],
  ['protocols4', 'ipv4_addr . inet_proto', 'ip daddr . meta l4proto'],
  ['protocols6', 'ipv6_addr . inet_proto', 'ip6 daddr . meta l4proto'],
];

interface Element {
  readonly set: string;
  readonly key: Buffer;
}

/** No name of a control device has a slash, so no other table has this name. */
export function admissionTable(control: string, device: string): string {
  return `fwdfs_${control.replaceAll(/[^A-Za-z0-9_.-]/g, '_')}/vif/${device}`;
}

/** The device that a table of this module is for; null for all other tables. */
export function deviceOfAdmissionTable(family: string, name: string): string | null {
  return family === FAMILY ? (/^fwdfs_[^/]+\/vif\/([^/]+)$/.exec(name)?.[1] ?? null) : null;
}

/** The script that makes the table anew, with empty sets. */
export function admissionRuleset(table: string, device: string): string {
  // An interface name has no quote, but nft is told as little as possible that could be taken for something else.
  const name = JSON.stringify(device);
  const lines = [
    `table ${FAMILY} ${table} {`,
    ...SETS.map(([set, type]) => `set ${set} { type ${type}; }`),
    'chain prerouting {',
    'type filter hook prerouting priority mangle + 1; policy accept;',
    `iifname != ${name} accept`,
    'ct state established,related accept',
    // Segments of connections that are not ours belong to the forwarder's own, and must not be reset.
    'tcp flags & (fin | syn | rst | ack) != syn counter drop',
    'icmpv6 type nd-neighbor-advert accept',
    'icmpv6 type { nd-neighbor-solicit, nd-redirect } drop',
    'fib daddr type { local, broadcast, multicast } jump asked',
    'counter drop',
    '}',
    'chain asked {',
    ...SETS.map(([set, , lookup]) => `${lookup} @${set} accept`),
    '}',
    'chain output {',
    'type filter hook output priority filter; policy accept;',
    `oifname != ${name} accept`,
    // Only packets of programs have an owner.
    'meta skuid >= 0 accept',
    'icmp type echo-reply drop',
    'icmpv6 type echo-reply drop',
    '}',
    '}',
    '',
  ];
  return dropTable(FAMILY, table) + lines.join('\n');
}

/** The elements that admit a protocol address; none for what only packet sockets want. */
export function admissionElements({ kind, protocols, address, portLow }: ProtocolAddress): Element[] {
  if (kind !== 'ip') return [];
  const suffix = address === null ? '' : address.length === 4 ? '4' : '6';
  return protocols.map((protocol) => {
    const number = Buffer.from([protocol]);
    const parts = [...(address === null ? [] : [address]), number];
    // A key that is no concatenation is not padded.
    if (portLow < 0) return { set: `protocols${suffix}`, key: address === null ? number : setKey(...parts) };
    return { set: `ports${suffix}`, key: setKey(...parts, portPart(portLow)) };
  });
}

export class VifAdmission {
  private readonly table: string;
  private readonly netns: string;
  private readonly sets: NftSets;
  /** How many rules want an element. */
  private readonly holders = new Map<string, number>();

  private constructor(table: string, netns: string) {
    this.table = table;
    this.netns = netns;
    this.sets = inNetns(netns, () => new NftSets(FAMILY, table));
  }

  /** Nothing comes in through the device from now on. @throws FwdfsError host-lacks without nft; SystemError */
  static async create(control: string, device: string, netns: string): Promise<VifAdmission> {
    const table = admissionTable(control, device);
    await inNetns(netns, () => applyRuleset(admissionRuleset(table, device)));
    return new VifAdmission(table, netns);
  }

  /** Lets in what is for this protocol address; as often as it is refused again. @throws SystemError */
  admit(protocol: ProtocolAddress): void {
    for (const { set, key } of admissionElements(protocol)) {
      const name = `${set} ${key.toString('hex')}`;
      const count = this.holders.get(name) ?? 0;
      if (count === 0) this.sets.add(set, key);
      this.holders.set(name, count + 1);
    }
  }

  /** Takes one `admit` back. @throws SystemError */
  refuse(protocol: ProtocolAddress): void {
    for (const { set, key } of admissionElements(protocol)) {
      const name = `${set} ${key.toString('hex')}`;
      const count = this.holders.get(name) ?? 0;
      if (count > 1) this.holders.set(name, count - 1);
      else if (this.holders.delete(name)) this.sets.remove(set, key);
    }
  }

  /** Leaves no table behind. @throws as create */
  async remove(): Promise<void> {
    this.sets.close();
    await inNetns(this.netns, () => deleteTable(FAMILY, this.table));
  }
}
