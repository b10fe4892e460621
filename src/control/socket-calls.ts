/**
 * The system calls by which sockets open, seen as they are made: tells which lists of sockets are worth a look.
 *
 *     bind, listen, socket, setsockopt of any process --tracepoint--> hit --lists--> every watcher of this process
 *
 * A tracepoint at the exit of a call comes when it is done. One at the entry, where the arguments are that tell the few calls
 * that matter from the many, comes before, so that its lists are looked at once more a little later.
 *
 * Not seen, and left to the polls and audits of the watcher: ports that sending or connecting takes, the address that a raw
 * socket is bound to, io_uring, calls of 32-bit programs on a 64-bit kernel, shutdown(2) of a listener.
 */
import { describe } from '../base/errors.js';
import type { Tracepoint } from '../sys/tracepoints.js';
import { Tracepoints } from '../sys/tracepoints.js';
import type { ListName } from './socket-lists.js';

type Listener = (lists: readonly ListName[]) => void;

/** By when a call that was entered is done. */
const CALL_DONE_MS = 5;
/** When its lists are looked at once more, unless a hit had them looked at after CALL_DONE_MS. */
const SETTLE_MS = 12;

interface Call extends Tracepoint {
  readonly lists: readonly ListName[];
  readonly isEntry?: boolean;
}

/** SOCK_RAW, alone and with SOCK_NONBLOCK, SOCK_CLOEXEC and both. */
const RAW_TYPES = [0x3, 0x803, 0x80003, 0x80803].map((type) => `type == ${type}`).join(' || ');

const CALLS: readonly Call[] = [
  {
    // At least a sockaddr_in. One of netlink is shorter: each look-up of a name binds one.
    name: 'syscalls/sys_enter_bind',
    filter: 'addrlen >= 16',
    lists: ['udp', 'udplite', 'packet'],
    isEntry: true,
  },
  { name: 'syscalls/sys_exit_listen', filter: 'ret == 0', lists: ['tcp', 'sctp'] },
  {
    // AF_PACKET, or a raw socket of AF_INET or AF_INET6: both may receive without being bound.
    name: 'syscalls/sys_enter_socket',
    filter: `family == 17 || ((family == 2 || family == 10) && (${RAW_TYPES}))`,
    lists: ['raw', 'packet'],
    isEntry: true,
  },
  {
    // SOL_SOCKET: SO_ATTACH_FILTER, SO_DETACH_FILTER.
    name: 'syscalls/sys_enter_setsockopt',
    filter: 'level == 1 && (optname == 26 || optname == 27)',
    lists: ['packet'],
    isEntry: true,
  },
  {
    // SOL_SOCKET: SO_BINDTODEVICE, SO_BINDTOIFINDEX.
    name: 'syscalls/sys_enter_setsockopt',
    filter: 'level == 1 && (optname == 25 || optname == 62)',
    lists: ['tcp', 'sctp', 'udp', 'udplite', 'raw'],
    isEntry: true,
  },
];

const CALL_OF_POINT: ReadonlyMap<Tracepoint, Call> = new Map(CALLS.map((call) => [call, call]));

/** One for the process: the tracepoints are open while somebody follows. */
class SocketCalls {
  private readonly listeners = new Set<Listener>();
  private readonly entered = new Set<ListName>();
  /** The last of them. */
  private enteredAt = 0;
  private tracepoints: Tracepoints | null = null;
  private timer: NodeJS.Timeout | undefined;

  /** @returns how to stop @throws what Tracepoints does */
  follow(listener: Listener): () => void {
    this.tracepoints ??= new Tracepoints(CALLS, this.hit);
    this.listeners.add(listener);
    return () => {
      if (!this.listeners.delete(listener) || this.listeners.size > 0) return;
      clearTimeout(this.timer);
      this.timer = undefined;
      this.entered.clear();
      this.tracepoints?.close();
      this.tracepoints = null;
    };
  }

  private readonly hit = (points: ReadonlySet<Tracepoint>): void => {
    const now = performance.now();
    // Where calls come one after another, each hit settles those before.
    const lists = now - this.enteredAt < CALL_DONE_MS ? new Set<ListName>() : this.takeEntered();
    for (const point of points) {
      const call = CALL_OF_POINT.get(point);
      for (const name of call?.lists ?? []) {
        lists.add(name);
        if (call?.isEntry === true) this.entered.add(name);
      }
    }
    this.tell(lists);
    if (![...points].some((point) => CALL_OF_POINT.get(point)?.isEntry === true)) return;
    this.enteredAt = now;
    this.timer ??= setTimeout(this.settle, SETTLE_MS);
  };

  private readonly settle = (): void => {
    this.timer = undefined;
    const lists = new Set(this.entered);
    if (performance.now() - this.enteredAt >= CALL_DONE_MS) this.entered.clear();
    else this.timer = setTimeout(this.settle, SETTLE_MS);
    this.tell(lists);
  };

  private takeEntered(): Set<ListName> {
    clearTimeout(this.timer);
    this.timer = undefined;
    const lists = new Set(this.entered);
    this.entered.clear();
    return lists;
  }

  private tell(lists: ReadonlySet<ListName>): void {
    for (const listener of [...this.listeners]) listener([...lists]);
  }
}

/** The one of the process. */
export const socketCalls = new SocketCalls();

/** How sockets that open are found on this host, and why not by events. */
export function socketSources(): { opening: 'events' | 'polling'; why: string } {
  try {
    socketCalls.follow(() => undefined)();
    return { opening: 'events', why: '' };
  } catch (error) {
    return { opening: 'polling', why: describe(error) };
  }
}
