/**
 * The sockets of the network namespaces in which there are virtual IFs or virtual IP addresses: one watcher each, for all
 * of them in it.
 *
 *     SocketWatcher --opened, closed--> sockets as of now --> the rules of each of them
 */
import { readlinkSync } from 'node:fs';
import { describe, FwdfsError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { inNetns } from '../sys/netns.js';
import { SocketWatcher, type WatchedSocket } from './socket-watcher.js';
import type { VifRules } from './vif-rules.js';

interface Watched {
  readonly watcher: SocketWatcher;
  readonly sockets: Map<string, WatchedSocket>;
  readonly users: Set<VifRules>;
}

export class NamespaceSockets {
  private readonly log: Logger;
  private readonly watched = new Map<string, Watched>();

  constructor(log: Logger) {
    this.log = log;
  }

  /** From now on `sockets` is what there is, and each of `users` is told of changes. @throws FwdfsError, SystemError */
  watch(netns: string): Pick<Watched, 'sockets' | 'users'> {
    const key = namespaceOf(netns);
    const known = this.watched.get(key);
    if (known !== undefined) return known;
    const watcher = new SocketWatcher(netns, this.log);
    const made: Watched = { watcher, sockets: new Map(), users: new Set() };
    const there = watcher.start((opened, closed) => {
      for (const { id } of closed) made.sockets.delete(id);
      for (const socket of opened) made.sockets.set(socket.id, socket);
      for (const rules of made.users) rules.changed(opened, closed);
    });
    for (const socket of there) made.sockets.set(socket.id, socket);
    this.watched.set(key, made);
    return made;
  }

  unwatch(rules: VifRules): void {
    for (const { users } of this.watched.values()) users.delete(rules);
    this.unwatchUnused();
  }

  /** All are looked at: the name of a namespace may stand for another one by now. */
  unwatchUnused(): void {
    for (const [key, { users, watcher }] of this.watched) {
      if (users.size > 0) continue;
      watcher.close();
      this.watched.delete(key);
    }
  }
}

/** Identity of a network namespace, whatever it is called by. @throws FwdfsError no-such-name */
export function namespaceOf(netns: string): string {
  try {
    return inNetns(netns, () => readlinkSync('/proc/thread-self/ns/net'));
  } catch (error) {
    throw new FwdfsError('no-such-name', `network namespace ${netns}: ${describe(error)}`, { cause: error });
  }
}
