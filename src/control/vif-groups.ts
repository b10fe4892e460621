/**
 * The multicast groups of a virtual IF: what its kernel reports by IGMP and MLD is joined at the forwarder instead.
 *
 *     report --> joined here --> group-join .....> forwarder joins it on the interface
 *     leave ---> left here ----> group-leave ....> forwarder leaves it
 *
 * A kernel reports a group more than once, and again when somebody queries; only what changes is told.
 */
import { describe, hasCode } from '../base/errors.js';
import { MAX_GROUPS_PER_VIF } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { addressText } from '../packet/ip-address.js';

export type GroupVerb = 'join' | 'leave';

/** Groups that every host is in, or that serve the neighbour discovery of the mirror, which does not cross. */
function isOfEveryHost(group: string): boolean {
  return group === '224.0.0.1' || group === 'ff02::1' || group === 'ff01::1' || group.startsWith('ff02::1:ff');
}

export class VifGroups {
  readonly joined = new Set<string>();
  private readonly tell: (verb: GroupVerb, group: string) => Promise<unknown>;
  private readonly log: Logger;

  /** @param tell resolves when the forwarder did it; asked in the order of what happened */
  constructor(tell: (verb: GroupVerb, group: string) => Promise<unknown>, log: Logger) {
    this.tell = tell;
    this.log = log;
  }

  /** One record of a report. */
  readonly report = (joined: boolean, address: Buffer): void => {
    const group = addressText(address);
    if (isOfEveryHost(group) || this.joined.has(group) === joined) return;
    if (!joined) this.joined.delete(group);
    else if (this.joined.size < MAX_GROUPS_PER_VIF) this.joined.add(group);
    else {
      this.log.warn({ group, limit: MAX_GROUPS_PER_VIF }, 'a virtual IF has too many multicast groups: not joined');
      return;
    }
    this.ask(joined ? 'join' : 'leave', group);
  };

  /** The forwarder knows of none. */
  joinAll(): void {
    for (const group of this.joined) this.ask('join', group);
  }

  private ask(verb: GroupVerb, group: string): void {
    // Not connected: all are joined with the next session.
    this.tell(verb, group).catch((error: unknown) => {
      if (hasCode(error, 'not-connected')) return;
      const what = verb === 'join' ? 'joined' : 'left';
      this.log.warn({ group, reason: describe(error) }, `a multicast group was not ${what}`);
    });
  }
}
