/**
 * What a control device that died leaves of its virtual IFs. The devices went with it, and took their addresses and routes
 * along; rules and nft tables stay, and are taken away at the next start:
 *
 *     rules of ours (ROUTE_PROTOCOL) that lead to the table of a device    is the device there, with an alias of ours?
 *     nft tables of ours, by their name                                    the same
 *
 * Where it is, another control device runs, and what belongs to its devices is left alone.
 */
import { describe, hasCode, SystemError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { ifNameToIndex } from '../sys/libc.js';
import { inNetns } from '../sys/netns.js';
import { deleteTable, listTables } from '../sys/nftables.js';
import { RouteRequests } from '../sys/route-requests.js';
import { sweepPins } from './pin.js';
import { deviceOfAdmissionTable } from './vif-admission.js';
import { hasVifAlias } from './vif-alias.js';
import { deviceOfTable } from './vif-state.js';

/** Takes away the rules that lead to a device's own table. @throws SystemError */
export function dropRulesOf(requests: RouteRequests, ifindex: number): void {
  for (const rule of requests.rules()) if (deviceOfTable(rule.table) === ifindex) requests.removeRule(rule);
}

/** In this network namespace, or another. What can't be swept is logged: it does no harm but to stay. */
export async function sweepVifs(log: Logger, netns = ''): Promise<void> {
  try {
    inNetns(netns, () => sweepRules(log));
    const tables = await inNetns(netns, () => listTables());
    for (const { family, name } of tables) {
      const device = deviceOfAdmissionTable(family, name);
      if (device === null || inNetns(netns, () => isOurs(device))) continue;
      await inNetns(netns, () => deleteTable(family, name));
      log.info({ table: name }, 'swept a table of a virtual IF that is gone');
    }
  } catch (error) {
    // Without nft there is no table to sweep, and no virtual IF to come.
    if (hasCode(error, 'host-lacks')) return;
    log.warn({ error: describe(error) }, 'what an earlier run left of its virtual IFs could not be swept');
  }
}

function sweepRules(log: Logger): void {
  const requests = new RouteRequests();
  try {
    for (const rule of requests.rules()) {
      const ifindex = deviceOfTable(rule.table);
      if (ifindex === 0 || hasVifAlias(requests, ifindex)) continue;
      requests.removeRule(rule);
      log.info({ table: rule.table }, 'swept a rule of a virtual IF that is gone');
    }
    sweepPins(requests, log);
  } finally {
    requests.close();
  }
}

function isOurs(device: string): boolean {
  const requests = new RouteRequests();
  try {
    return hasVifAlias(requests, ifNameToIndex(device));
  } catch (error) {
    if (error instanceof SystemError) return false;
    throw error;
  } finally {
    requests.close();
  }
}
