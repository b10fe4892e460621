/**
 * The process behind `Load` (load.ts): HTTP requests on schedule, whether or not others are late.
 *
 *     argument (JSON) ──► every millisecond: the requests that are due ──► "answered" with the first response
 *     stdin ends, or the time is over ──► the last ones are awaited ──► one line of JSON: LoadRows
 *
 * Of a machine that can't keep up no more is asked than MAX_OPEN requests at a time, or it would be busy with those that were
 * given up for good. One loop around epoll(7), edge-triggered, and a parser that knows only what the servers of the lab say: node:net takes
 * three times the processor, and the two that there are belong to what is measured. Times are of CLOCK_MONOTONIC in ms, so
 * that other processes can set marks.
 */
import { writeSync } from 'node:fs';
import { getSystemErrorName } from 'node:util';
import koffi from 'koffi';
import { parseIpv4, parseIpv6 } from '../../src/packet/ip-address.js';
import { must, sys } from '../../src/sys/libc.js';
import type { LoadOptions, LoadRows } from './load.js';

const options = JSON.parse(process.argv[2] ?? '{}') as Required<LoadOptions>;
const { perConnection, timeoutMs } = options;

const MAX_OPEN = 1000;
/** Requests that are begun before it looks again what has come. */
const ASKS = 16;

// --- epoll ---

const libc = koffi.load('libc.so.6');
const connect = libc.func('int connect(int fd, const void *address, unsigned int length)');
const epollCtl = libc.func('int epoll_ctl(int epoll, int operation, int fd, void *event)');
const epollWait = libc.func('int epoll_wait(int epoll, void *events, int count, int timeout)');
const epoll: number = libc.func('int epoll_create1(int flags)')(0);

const EPOLL_CTL_ADD = 1;
const EPOLLIN = 1;
const EPOLLOUT = 4;
const EPOLLERR = 8;
const EPOLLHUP = 0x10;
const EPOLLRDHUP = 0x2000;
const EPOLLET = 0x8000_0000;
/** struct epoll_event is packed on x86-64 alone: u32 events, u64 data, of which we use the lower half. */
const [EVENT_BYTES, DATA_AT] = process.arch === 'x64' ? [12, 4] : [16, 8];
const EVENTS = 1024;

const events = Buffer.alloc(EVENTS * EVENT_BYTES);
const added = Buffer.alloc(EVENT_BYTES);

function watch(fd: number, mask: number): void {
  added.writeUInt32LE(mask >>> 0, 0);
  added.writeUInt32LE(fd, DATA_AT);
  if (epollCtl(epoll, EPOLL_CTL_ADD, fd, added) !== 0) throw new Error(`epoll_ctl: errno ${koffi.errno()}`);
}

// --- sockets ---

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM_NONBLOCK = 1 | 0o4000;
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;
const SOL_SOCKET = 1;
const SO_ERROR = 4;
const MSG_NOSIGNAL = 0x4000;
const EINPROGRESS = 115;
const EAGAIN = 11;
const STDIN = 0;

const ONE = Buffer.from([1, 0, 0, 0]);
const value = Buffer.alloc(4);
const input = Buffer.alloc(64 << 10);
const family = options.host.includes(':') ? AF_INET6 : AF_INET;
const address = sockaddr();
const REQUEST = requestWith('');
const LAST_REQUEST = requestWith('Connection: close\r\n');
const STATUS_AT = 'HTTP/1.1 '.length;

function requestWith(header: string): Buffer {
  return Buffer.from(`GET ${options.path} HTTP/1.1\r\nHost: lab\r\n${header}\r\n`, 'latin1');
}

/** struct sockaddr_in or sockaddr_in6 of the server. */
function sockaddr(): Buffer {
  const bytes = Buffer.alloc(family === AF_INET ? 16 : 28);
  bytes.writeUInt16LE(family, 0);
  bytes.writeUInt16BE(options.port, 2);
  if (family === AF_INET) parseIpv4(options.host)?.copy(bytes, 4);
  else parseIpv6(options.host)?.copy(bytes, 8);
  return bytes;
}

// --- what is known of each request ---

const rows: LoadRows = { names: [], requests: [], cpuSeconds: 0, late: 0 };
/** From the clock of performance.now() to that of every process. */
const offset = Number(process.hrtime.bigint()) / 1e6 - performance.now();
const round = (ms: number): number => Math.round(ms * 1000) / 1000;

function indexOf(name: string): number {
  const index = rows.names.indexOf(name);
  return index >= 0 ? index : rows.names.push(name) - 1;
}

/** Requests that are under way. */
let open = 0;

/** A connection and the request that is under way on it. */
class Exchange {
  fd = -1;
  isConnected = false;
  /** When its request should have begun; 0: none is under way. */
  due = 0;
  begin = 0;
  private left = perConnection;
  private text = '';

  /** Sends when it is connected. */
  private open(): void {
    this.fd = sys.socket(family, SOCK_STREAM_NONBLOCK, 0);
    if (this.fd < 0) {
      this.done('', this.fd);
      return;
    }
    byFd[this.fd] = this;
    sys.setsockopt(this.fd, IPPROTO_TCP, TCP_NODELAY, ONE);
    if (connect(this.fd, address, address.length) !== 0 && koffi.errno() !== EINPROGRESS) {
      this.close(-koffi.errno());
      return;
    }
    watch(this.fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
  }

  ask(due: number): void {
    open += 1;
    this.due = due;
    this.begin = performance.now();
    pending.push(this);
    begins.push(this.begin);
    if (this.fd < 0) this.open();
    else this.send();
  }

  private send(): void {
    this.left -= 1;
    const request = this.left > 0 ? REQUEST : LAST_REQUEST;
    const sent = sys.send(this.fd, request, request.length, MSG_NOSIGNAL);
    if (sent < 0) this.close(sent);
  }

  on(mask: number): void {
    if ((mask & (EPOLLERR | EPOLLHUP)) !== 0 && !this.isConnected) {
      const length = Buffer.from([4, 0, 0, 0]);
      sys.getsockopt(this.fd, SOL_SOCKET, SO_ERROR, value, length);
      this.close(-value.readInt32LE(0));
      return;
    }
    if (!this.isConnected && (mask & EPOLLOUT) !== 0) {
      this.isConnected = true;
      this.send();
    }
    if ((mask & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP)) !== 0 && this.fd >= 0) this.receive(mask);
  }

  private receive(mask: number): void {
    const count = sys.recv(this.fd, input, input.length, 0);
    if (count === -EAGAIN) return;
    if (count <= 0) {
      this.close(count);
      return;
    }
    this.text += input.toString('latin1', 0, count);
    this.parse();
    if ((mask & EPOLLRDHUP) !== 0) this.close(0);
  }

  private parse(): void {
    const head = this.text.indexOf('\r\n\r\n');
    if (head < 0) return;
    const length = Number(/\r\nContent-Length: (\d+)/.exec(this.text)?.[1] ?? 0);
    if (this.text.length < head + 4 + length) return;
    const status = this.text.slice(STATUS_AT, STATUS_AT + 3);
    const server = /\r\nX-Server: (\S+)/.exec(this.text)?.[1] ?? '?';
    this.text = '';
    if (status === '200') this.done(server, 0);
    else this.done('', 0, `status ${status}`);
    if (this.left > 0) idle.push(this);
  }

  /** @param error minus an errno; 0: the server closed */
  close(error: number): void {
    this.done('', error);
    byFd[this.fd] = undefined;
    if (this.fd >= 0) sys.close(this.fd);
    this.fd = -1;
  }

  done(server: string, error: number, why = error === 0 ? 'closed' : getSystemErrorName(error)): void {
    if (this.due === 0) return;
    if (rows.requests.length === 0) writeSync(1, 'answered\n');
    const latency = performance.now() - this.due;
    const names = server === '' ? ([-1, indexOf(why)] as const) : ([indexOf(server), -1] as const);
    rows.requests.push([round(this.begin + offset), round(latency), ...names]);
    this.due = 0;
    open -= 1;
  }
}

const byFd: (Exchange | undefined)[] = [];
const idle: Exchange[] = [];
/** In the order of their begin, so that those that take too long are found without a timer each. */
const pending: Exchange[] = [];
const begins: number[] = [];

/** Gives up what takes too long, forgets what is done. */
function sweep(now: number): void {
  let end = 0;
  for (; end < pending.length; end++) {
    const exchange = pending[end];
    if (exchange === undefined || exchange.due === 0 || exchange.begin !== begins[end]) continue;
    if (now - exchange.begin < timeoutMs) break;
    exchange.done('', 0, 'timeout');
    exchange.close(0);
  }
  pending.splice(0, end);
  begins.splice(0, end);
}

function nextExchange(): Exchange {
  for (;;) {
    const exchange = idle.pop();
    if (exchange === undefined) return new Exchange();
    if (exchange.fd >= 0) return exchange;
  }
}

// --- the loop ---

const start = performance.now();
let end = start + options.seconds * 1000;
watch(STDIN, EPOLLIN | EPOLLHUP | EPOLLET);
for (let asked = 0; ;) {
  const now = performance.now();
  const dueAt = (): number => start + (asked * 1000) / options.rate;
  for (let most = ASKS; most > 0 && dueAt() <= now && dueAt() < end && open < MAX_OPEN; most--) {
    rows.late = Math.max(rows.late, now - dueAt());
    nextExchange().ask(dueAt());
    asked += 1;
  }
  sweep(now);
  if (now >= end && pending.length === 0) break;
  const isBehind = dueAt() <= performance.now() && dueAt() < end && open < MAX_OPEN;
  const count: number = epollWait(epoll, events, EVENTS, isBehind ? 0 : 1);
  for (let i = 0; i < count; i++) {
    const fd = events.readUInt32LE(i * EVENT_BYTES + DATA_AT);
    if (fd !== STDIN) byFd[fd]?.on(events.readUInt32LE(i * EVENT_BYTES));
    else if (must('read', sys.read(STDIN, input, input.length)) === 0) end = Math.min(end, performance.now());
  }
}
const { user, system } = process.cpuUsage();
rows.cpuSeconds = (user + system) / 1e6;
for (let rest = Buffer.from(`${JSON.stringify(rows)}\n`); rest.length > 0;) rest = rest.subarray(writeSync(1, rest));
process.exit(0);
