/**
 * Multicast groups that virtual IFs joined: the forwarder is a member on the interface while at least one of them is.
 *
 *     group-join, group-leave --> (interface, group) -> who is in it, and a socket that is the membership
 *     the interface comes back --> the socket is made anew
 */
import { describe, FwdfsError } from '../base/errors.js';
import { MAX_GROUPS_PER_VIF } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { addressText, IPV4_ADDRESS_BYTES, parseIpAddress } from '../packet/ip-address.js';
import { joinGroup } from '../sys/group-socket.js';
import { sys } from '../sys/libc.js';
import type { VifEnd } from './distribution-table.js';

interface Membership {
  readonly interface: string;
  readonly group: Buffer;
  readonly vifs: Set<VifEnd>;
  /** -1: the interface is not there. */
  fd: number;
}

/** @throws FwdfsError bad-message for what is no group */
function parseGroup(text: string): Buffer {
  const group = parseIpAddress(text);
  const first = group?.[0] ?? 0;
  const isGroup = group?.length === IPV4_ADDRESS_BYTES ? first >= 224 && first <= 239 : first === 0xff;
  if (group === null || !isGroup) throw new FwdfsError('bad-message', `${JSON.stringify(text)} is no multicast group`);
  return group;
}

export class Groups {
  private readonly indexOf: (interfaceName: string) => number;
  private readonly log: Logger;
  private readonly memberships = new Map<string, Membership>();

  /** @param indexOf the index of an interface, 0 while it is not there */
  constructor(indexOf: (interfaceName: string) => number, log: Logger) {
    this.indexOf = indexOf;
    this.log = log;
  }

  /** @throws FwdfsError bad-message, too-many; SystemError */
  join(vif: VifEnd, interfaceName: string, text: string): void {
    const group = parseGroup(text);
    const key = `${interfaceName} ${addressText(group)}`;
    const known = this.memberships.get(key);
    if (known?.vifs.has(vif)) return;
    if (this.countOf(vif) >= MAX_GROUPS_PER_VIF) {
      throw new FwdfsError('too-many', `the virtual IF is in ${MAX_GROUPS_PER_VIF} groups`);
    }
    if (known !== undefined) {
      known.vifs.add(vif);
      return;
    }
    const index = this.indexOf(interfaceName);
    const fd = index === 0 ? -1 : joinGroup(index, group);
    this.memberships.set(key, { interface: interfaceName, group, vifs: new Set([vif]), fd });
  }

  /** Also one that it is not in. @throws FwdfsError bad-message */
  leave(vif: VifEnd, interfaceName: string, text: string): void {
    const group = parseGroup(text);
    this.drop(`${interfaceName} ${addressText(group)}`, vif);
  }

  leaveAll(vif: VifEnd): void {
    for (const key of this.memberships.keys()) this.drop(key, vif);
  }

  private drop(key: string, vif: VifEnd): void {
    const membership = this.memberships.get(key);
    if (!membership?.vifs.delete(vif) || membership.vifs.size > 0) return;
    this.memberships.delete(key);
    if (membership.fd >= 0) sys.close(membership.fd);
  }

  private countOf(vif: VifEnd): number {
    let count = 0;
    for (const { vifs } of this.memberships.values()) if (vifs.has(vif)) count += 1;
    return count;
  }

  /** The interface came, went, or is another one of its name now. */
  interfaceChanged(interfaceName: string): void {
    const index = this.indexOf(interfaceName);
    for (const membership of this.memberships.values()) {
      if (membership.interface !== interfaceName) continue;
      if (membership.fd >= 0) sys.close(membership.fd);
      membership.fd = -1;
      try {
        if (index !== 0) membership.fd = joinGroup(index, membership.group);
      } catch (error) {
        this.log.warn({ interface: interfaceName, error: describe(error) }, 'a multicast group could not be joined');
      }
    }
  }
}
