/** The alias of a virtual IF's device, by which everyone sees whose it is: `fwdfs CONTROL FORWARDER/INTERFACE`. */
import type { RouteRequests } from '../sys/route-requests.js';

const ALIAS_HEAD = 'fwdfs ';

/** Set before any rule or table of the device is there. */
export function vifAlias(control: string, symbol: string): string {
  return `${ALIAS_HEAD}${control} ${symbol}`;
}

/** Whether the link is there and a virtual IF, of whichever control device. @throws SystemError */
export function hasVifAlias(requests: RouteRequests, ifindex: number): boolean {
  return requests.alias(ifindex)?.startsWith(ALIAS_HEAD) === true;
}
