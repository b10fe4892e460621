/**
 * The sockets of a network namespace, followed as they open and close.
 *
 *     opening  system calls (tracepoints)  --which lists--> request --> look --> onChange(opened, closed)
 *              without them a poll: short lists always, long ones when their counts in /proc/net/sockstat changed
 *     closing  TCP, UDP: destroy groups of sock_diag --cookie--> onChange
 *              the others: a poll while there are any
 *     anything that was missed: an audit of everything, seldom
 *
 * A look reads whole lists, at once while looking took little lately. What it took is a debt that is paid back slowly, and
 * who is in debt waits: so watching takes a bounded share of the processor however many sockets come and go. What is missing
 * in one look is confirmed by the next.
 *
 * A socket that changes (bound, connected, another filter) is in `opened` and in `closed`, with one id: `closed` has what it
 * was. Sockets of this process are not told of.
 */
import { existsSync, fstatSync, readdirSync } from 'node:fs';
import { constants } from 'node:os';
import { describe } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { inNetns } from '../sys/netns.js';
import { ProcNetFile } from '../sys/proc-net.js';
import type { Source } from '../sys/readiness.js';
import { readiness } from '../sys/readiness.js';
import { DESTROYED, DestroyedSockets, SockDiag } from '../sys/sock-diag.js';
import { socketCalls } from './socket-calls.js';
import type { ListName, SocketChanges, SocketList } from './socket-lists.js';
import { LIST_NAMES, PROC_FILES, socketLists } from './socket-lists.js';
import type { WatchedSocket } from './watched-socket.js';

export { socketSources } from './socket-calls.js';
export type { WatchedSocket } from './watched-socket.js';

/** Without events, how often it is looked for sockets that opened. */
const OPENING_POLL_MS = 80;
/** How often it is looked for sockets that closed and of whose closing nobody tells. */
const CLOSING_POLL_MS = 400;
/** The same for packet sockets, whose rules copy most. */
const PACKET_POLL_MS = 12;
/** So much is added for each, as they take longer to list. */
const PACKET_POLL_EACH_MS = 0.4;
/** How often everything is looked at, for what was missed. */
const AUDIT_MS = 10_000;
/** An audit that took a while is followed by that many times the while without one. */
const AUDIT_SHARE = 400;
/** Debt with which there still is no waiting: time of the processor. */
const LOOK_BURST_MS = 100;
/** More is forgotten, so that no socket waits longer than (MOST_DEBT_MS - LOOK_BURST_MS) * LOOK_SHARE. */
const MOST_DEBT_MS = 110;
/** Of this much time, a part of one is paid back: beyond the burst, looks take so much of the processor. */
const LOOK_SHARE = 30;
/** How long destroyed sockets that come by the thousand are gathered. */
const REST_MS = 8;
/** Datagrams of destroyed sockets that one drain takes before others get their turn. */
const DRAIN_DATAGRAMS = 64;
const { EAGAIN, EINTR } = constants.errno;

/** Lists of whose closing destroy groups tell. The others are short as a rule. */
const TOLD_LISTS: readonly ListName[] = ['tcp', 'udp'];
const SHORT_LISTS: readonly ListName[] = LIST_NAMES.filter((name) => !TOLD_LISTS.includes(name));
const SOCKSTAT_FILES = ['sockstat', 'sockstat6'] as const;

export interface SocketWatcherOptions {
  /** Whether system calls are followed where the kernel lets them be. Default true. */
  readonly events?: boolean;
}

type OnChange = (opened: readonly WatchedSocket[], closed: readonly WatchedSocket[]) => void;

interface Destroyed {
  readonly sockets: DestroyedSockets;
  readonly source: Source;
}

/** What belongs to the network namespace. */
interface Opened {
  readonly diag: SockDiag;
  readonly files: ReadonlyMap<string, ProcNetFile>;
  readonly lists: Readonly<Record<ListName, SocketList>>;
  readonly destroyed: readonly Destroyed[];
}

export class SocketWatcher {
  private readonly netns: string;
  private readonly log: Logger;
  private readonly wantsEvents: boolean;
  private onChange: OnChange = () => undefined;
  private opened: Opened | null = null;
  private readonly wanted = new Set<ListName>();
  private timer: NodeJS.Timeout | undefined;
  private auditTimer: NodeJS.Timeout | undefined;
  private packetTimer: NodeJS.Timeout | undefined;
  private readonly polls: NodeJS.Timeout[] = [];
  /** Time of looking that was spent and is not paid back yet, as of `debtAt`. */
  private debt = 0;
  private debtAt = 0;
  private sockstat = '';
  /** Ends the events of opening; null: there are none, and it is polled. */
  private unfollow: (() => void) | null = null;

  /** @param netns a name of ip-netns(8) or a path; '' is the process's own */
  constructor(netns: string, log: Logger, options: SocketWatcherOptions = {}) {
    this.netns = netns;
    this.log = log;
    this.wantsEvents = options.events ?? true;
  }

  /**
   * All sockets now, and `onChange` with each change from then on. A stream socket is there while it listens, a datagram
   * socket while it has a port.
   *
   * @throws SystemError
   */
  start(onChange: OnChange): readonly WatchedSocket[] {
    this.onChange = onChange;
    const opened = inNetns(this.netns, () => this.open());
    this.opened = opened;
    const changes: SocketChanges = { opened: [], closed: [] };
    try {
      for (const { source } of opened.destroyed) readiness.arm(source);
      this.unfollow = this.follow();
      this.read(LIST_NAMES, changes);
    } catch (error) {
      this.close();
      throw error;
    }
    this.auditLater(0);
    this.packetsLater();
    this.polls.push(setInterval(this.pollClosing, CLOSING_POLL_MS).unref());
    if (this.unfollow === null) this.polls.push(setInterval(this.pollOpening, OPENING_POLL_MS).unref());
    return changes.opened;
  }

  close(): void {
    const opened = this.opened;
    if (opened === null) return;
    this.opened = null;
    for (const timer of [this.timer, this.auditTimer, this.packetTimer]) clearTimeout(timer);
    for (const poll of this.polls.splice(0)) clearInterval(poll);
    this.unfollow?.();
    this.unfollow = null;
    for (const { source } of opened.destroyed) readiness.disarm(source);
    release(opened);
  }

  private follow(): (() => void) | null {
    if (!this.wantsEvents) return null;
    try {
      return socketCalls.follow((names) => this.request(names));
    } catch (error) {
      this.log.info({ error: describe(error) }, 'no events of sockets that open; looking for them every 100 ms');
      return null;
    }
  }

  /** In the namespace. @throws SystemError, and nothing is left open */
  private open(): Opened {
    const files = new Map<string, ProcNetFile>();
    const destroyed: Destroyed[] = [];
    const diag = new SockDiag();
    try {
      for (const name of [...PROC_FILES, ...SOCKSTAT_FILES]) {
        // Each is there or not as the kernel was built.
        if (existsSync(`/proc/thread-self/net/${name}`)) files.set(name, new ProcNetFile(name));
      }
      for (const name of ['tcp', 'udp'] as const) {
        const sockets = new DestroyedSockets(name === 'tcp' ? DESTROYED.TCP : DESTROYED.UDP);
        const source = { fd: sockets.fd, restMs: REST_MS, drain: () => this.drain(sockets, name) };
        destroyed.push({ sockets, source });
      }
      return { diag, files, destroyed, lists: socketLists(diag, files) };
    } catch (error) {
      release({ diag, files, destroyed });
      throw error;
    }
  }

  /** Takes what is gone. */
  private drain(sockets: DestroyedSockets, name: 'tcp' | 'udp'): boolean {
    const closed: WatchedSocket[] = [];
    let result = 1;
    for (let count = 0; count < DRAIN_DATAGRAMS && result !== -EAGAIN && this.opened !== null; count++) {
      const { lists } = this.opened;
      result = sockets.receive((cookie) => {
        // Another may have taken its place in the counts.
        this.sockstat = '';
        const socket = lists[name].forget(cookie);
        if (socket !== null) closed.push(socket);
      });
      // Some were lost.
      if (result < 0 && result !== -EAGAIN && result !== -EINTR) this.request([name]);
    }
    this.tell({ opened: [], closed });
    return result !== -EAGAIN && this.opened !== null;
  }

  /** Has lists looked at as soon as may be. */
  private request(names: readonly ListName[]): void {
    for (const name of names) this.wanted.add(name);
    if (this.timer !== undefined || this.opened === null) return;
    const now = performance.now();
    this.debt = Math.max(0, this.debt - (now - this.debtAt) / LOOK_SHARE);
    this.debtAt = now;
    if (this.debt <= LOOK_BURST_MS) this.look();
    else this.timer = setTimeout(this.look, Math.ceil((this.debt - LOOK_BURST_MS) * LOOK_SHARE));
  }

  private readonly look = (): void => {
    this.timer = undefined;
    const changes: SocketChanges = { opened: [], closed: [] };
    const names = [...this.wanted];
    this.wanted.clear();
    const before = process.cpuUsage();
    let missing: readonly ListName[] = [];
    try {
      missing = this.read(names, changes);
    } catch (error) {
      this.log.error({ error: describe(error) }, 'sockets could not be listed');
    }
    const { user, system } = process.cpuUsage(before);
    const took = (user + system) / 1000;
    this.debt = Math.min(this.debt + took, MOST_DEBT_MS);
    if (names.length === LIST_NAMES.length) this.auditLater(took);
    this.packetsLater();
    this.tell(changes);
    if (missing.length > 0) this.request(missing);
  };

  /** @returns the lists in which something is missing @throws SystemError */
  private read(names: readonly ListName[], changes: SocketChanges): ListName[] {
    const lists = this.opened?.lists;
    if (lists === undefined) return [];
    let own: ReadonlySet<number> | null = null;
    const isOwn = (inode: number): boolean => (own ??= ownInodes()).has(inode);
    const missing = names.filter((name) => lists[name].look(isOwn, changes));
    // Nobody will tell of these before, and they are read in no time.
    for (const name of missing) if (SHORT_LISTS.includes(name)) lists[name].look(isOwn, changes);
    return missing.filter((name) => TOLD_LISTS.includes(name));
  }

  private tell({ opened, closed }: SocketChanges): void {
    if (this.opened === null || (opened.length === 0 && closed.length === 0)) return;
    try {
      this.onChange(opened, closed);
    } catch (error) {
      this.log.error({ error: describe(error) }, 'a change of sockets was not handled');
    }
  }

  /** @param took the last look at everything */
  private auditLater(took: number): void {
    clearTimeout(this.auditTimer);
    this.auditTimer = setTimeout(() => this.request(LIST_NAMES), Math.max(AUDIT_MS, AUDIT_SHARE * took)).unref();
  }

  /** While there are packet sockets: looks for those that closed. */
  private packetsLater(): void {
    const list = this.opened?.lists.packet;
    if (this.packetTimer !== undefined || list === undefined || list.isEmpty) return;
    const look = (): void => {
      this.packetTimer = undefined;
      this.request(['packet']);
    };
    this.packetTimer = setTimeout(look, PACKET_POLL_MS + list.size * PACKET_POLL_EACH_MS).unref();
  }

  private readonly pollClosing = (): void => {
    const due = SHORT_LISTS.filter((name) => this.opened?.lists[name].isEmpty === false);
    if (due.length > 0) this.request(due);
  };

  private readonly pollOpening = (): void => {
    if (this.opened !== null) this.request(this.opening(this.opened));
  };

  /** The lists in which something may have opened, by the kernel's counts where these say so. */
  private opening({ files }: Opened): readonly ListName[] {
    const counts = SOCKSTAT_FILES.map((name) => files.get(name)?.read() ?? '').join('');
    const areSame = counts !== '' && counts === this.sockstat;
    this.sockstat = counts;
    return areSame ? SHORT_LISTS : LIST_NAMES;
  }
}

/** Inodes of the sockets that this process has. */
function ownInodes(): ReadonlySet<number> {
  const inodes = new Set<number>();
  for (const fd of readdirSync('/proc/self/fd')) {
    try {
      // A good deal less than to read what the name stands for.
      const file = fstatSync(Number(fd));
      if (file.isSocket()) inodes.add(file.ino);
    } catch {
      // The descriptor by which the folder was read.
    }
  }
  return inodes;
}

function release({ diag, files, destroyed }: Pick<Opened, 'diag' | 'files' | 'destroyed'>): void {
  diag.close();
  for (const file of files.values()) file.close();
  for (const { sockets } of destroyed) sockets.close();
}
