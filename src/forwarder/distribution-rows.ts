/** Distribution tables 342 and 343 as text: one row a rule, with its group's shares, its flows and what it lost. */
import type { DistributionTable } from './distribution-table.js';
import type { Rule } from './rule.js';

export const DISTRIBUTION_COLUMNS = [
  'interface',
  'protocol',
  'scope',
  'up_tunnel',
  'control',
  'address',
  'state',
  'frames',
  'bytes',
  'dropped',
  'mode',
  'members',
  'share',
  'flows',
  'drops',
];

/** What the rows show besides the rules themselves. */
export interface RowsView {
  /** Whether an interface is there just now. */
  isThere(interfaceName: string): boolean;
  /** Live flows that came through the rule of a socket. */
  flowsOf(rule: Rule): number;
  /** What the kernel counts of the rule of a virtual IP address; undefined: nothing now. */
  convertedOf(rule: Rule): Converted | undefined;
}

export interface Converted {
  readonly flows: number;
  readonly packets: number;
  readonly bytes: number;
  /** Of new flows, 0 to 1. */
  readonly share: number;
  /** Control devices that serve the same. */
  readonly members: number;
}

const NONE = '-';

function stateOf({ peer, interface: name }: Rule, isThere: boolean): string {
  if (!isThere) return 'absent';
  if (!peer.active) return 'suspended';
  if (peer.silent) return 'silent';
  return peer.drains.has('*') || peer.drains.has(name) ? 'draining' : 'active';
}

function dropsOf({ dropped, droppedSuspended }: Rule): string {
  const reasons = Object.entries({ no_credit: dropped - droppedSuspended, suspended: droppedSuspended });
  const counted = reasons.filter(([, count]) => count > 0);
  return counted.map(([reason, count]) => `${reason}=${count}`).join(',') || NONE;
}

const percent = (share: number): string => `${(100 * share).toFixed(1)}%`;

/** Members, share, flows, and packets and bytes that did not come by us. */
function balanceOf(table: DistributionTable, rule: Rule, view: RowsView): [string[], Converted | undefined] {
  if (rule.mode === 'vip') {
    const converted = view.convertedOf(rule);
    if (converted === undefined) return [[NONE, NONE, NONE], undefined];
    return [[String(converted.members), percent(converted.share), String(converted.flows)], converted];
  }
  const group = rule.mode === 'socket' ? table.of(rule.interface).sockets.groupOf(rule) : null;
  if (group === null) return [[NONE, NONE, NONE], undefined];
  return [[String(group.rules.length), percent(group.shareOf(rule)), String(view.flowsOf(rule))], undefined];
}

/** Sorted; in the order of DISTRIBUTION_COLUMNS. */
export function distributionRows(table: DistributionTable, view: RowsView): string[][] {
  const rows: string[][] = [];
  for (const rule of table.rules()) {
    const [balance, converted] = balanceOf(table, rule, view);
    rows.push([
      rule.interface,
      rule.protocol.text,
      rule.scope,
      String(rule.upTunnel),
      rule.peer.identity,
      rule.peer.address,
      stateOf(rule, view.isThere(rule.interface)),
      String(converted?.packets ?? rule.frames + rule.flowFrames),
      String(converted?.bytes ?? rule.bytes + rule.flowBytes),
      String(rule.dropped),
      rule.mode,
      ...balance,
      dropsOf(rule),
    ]);
  }
  return rows.sort((a, b) => a.join('\t').localeCompare(b.join('\t')));
}
