/**
 * What a control device that died leaves of its virtual IP addresses in this network namespace. Each is found by any of
 *
 *     nft tables of ours, by their name         rules of ours that lead to one of its routing tables
 *     addresses of lo with our protocol number
 *
 * and its name (vip-kernel.ts) tells whether a control device that runs has it: that is left alone.
 */
import { describe, hasCode } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { addressText } from '../packet/ip-address.js';
import { ifNameToIndex } from '../sys/libc.js';
import { deleteTable, listTables, type NftTable } from '../sys/nftables.js';
import { RouteRequests } from '../sys/route-requests.js';
import { isInRange, tryHoldName } from './table-number.js';
import { addressBytes, forgetConverted, removeVip, VIP_TABLES, vipLockName } from './vip-kernel.js';
import { vipOfTable } from './vip-ruleset.js';

/** What can't be swept is logged: it does no harm but to stay. */
export async function sweepVips(log: Logger): Promise<void> {
  try {
    await sweep(log);
  } catch (error) {
    // Without nft there is no table to sweep, and no virtual IP address to come.
    if (hasCode(error, 'host-lacks')) return;
    log.warn({ error: describe(error) }, 'what an earlier run left of its virtual IP addresses could not be swept');
  }
}

async function sweep(log: Logger): Promise<void> {
  const requests = new RouteRequests();
  try {
    const tables = new Map<string, NftTable[]>();
    const add = (vip: string | null, table?: NftTable): void => {
      if (vip !== null) tables.set(vip, [...(tables.get(vip) ?? []), ...(table === undefined ? [] : [table])]);
    };
    for (const table of await listTables()) add(vipOfTable(table.family, table.name), table);
    for (const { from, table } of requests.rules()) if (isInRange(VIP_TABLES, table)) add(textOf(from));
    for (const { address, isOurs } of requests.addresses(ifNameToIndex('lo'))) if (isOurs) add(textOf(address));
    for (const [vip, found] of tables) await sweepOne(requests, vip, found, log);
  } finally {
    requests.close();
  }
}

async function sweepOne(requests: RouteRequests, vip: string, tables: readonly NftTable[], log: Logger): Promise<void> {
  const giveBack = tryHoldName(vipLockName(vip));
  if (giveBack === null) return;
  try {
    const address = addressBytes(vip);
    const rule = requests
      .rules()
      .find(({ from, table }) => isInRange(VIP_TABLES, table) && from?.equals(address) === true);
    removeVip(requests, address, rule?.table ?? 0);
    for (const { family, name } of tables) await deleteTable(family, name);
    await forgetConverted(address, log);
    log.info({ vip }, 'swept a virtual IP address that a control device left');
  } finally {
    giveBack();
  }
}

function textOf(address: Buffer | null): string | null {
  return address === null ? null : addressText(address);
}
