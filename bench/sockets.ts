/**
 * `npm run bench -- sockets [events|polling]`: how soon the watcher tells of sockets that open and close, and what watching
 * costs, with few sockets open and with thousands, idle and while others bind a thousand times a second.
 */
import { silent } from '../src/base/log.js';
import { SocketWatcher } from '../src/control/socket-watcher.js';
import { until } from '../test/support/lab.js';
import { Netns } from '../test/support/netns.js';
import { SocketProcess } from '../test/support/sockets.js';
import { summary } from './support/frames.js';
import { row } from './support/report.js';

const OPENINGS = 100;
const SLOW_CLOSINGS = 40;
const KILLS = 50;
const MANY = 5000;
const CPU_SECONDS = 10;
const BINDS_PER_SECOND = 1000;

const KINDS: readonly (readonly [kind: string, line: string, goal: string])[] = [
  ['TCP listen', "listening(AF_INET, ('', 8080))", 'p99 20 ms'],
  ['UDP bind', "bound(AF_INET, SOCK_DGRAM, ('', 53))", 'p99 20 ms'],
  ['raw socket', 'socket(AF_INET, SOCK_RAW, 89)', 'closing 1 s'],
  ['packet socket', "bound(AF_PACKET, SOCK_RAW, ('lo', 0x88cc))", 'p99 20 ms'],
];

/** Python, one line each. */
const HELPERS = [
  'import time, resource; resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))',
  'made = []',
  'timed = lambda make: f"{time.monotonic_ns()} {inode(made.append(make()) or made[-1])}"',
  'closing = lambda: (time.monotonic_ns(), made.pop().close())[0]',
  "one = lambda i: bound(AF_INET, SOCK_DGRAM, ('', 0)) if i % 2 else listening(AF_INET, ('', 0))",
  'later = lambda time_: time.sleep(max(0, time_ - time.monotonic()))',
  `churn = lambda begin, count: ([(later(begin + i / ${BINDS_PER_SECOND}), one(i).close()) for i in range(count)], round(count / (time.monotonic() - begin)))[1]`,
];

const CHURN = `churn(time.monotonic(), ${CPU_SECONDS * BINDS_PER_SECOND})`;

const pause = (ms: number): Promise<void> => new Promise((resolve) => void setTimeout(resolve, ms));
const now = (): number => Number(process.hrtime.bigint());

class Scene {
  readonly netns = new Netns('bsw');
  readonly opened = new Map<number, number>();
  readonly closed = new Map<number, number>();
  readonly watcher: SocketWatcher;
  readonly processes: SocketProcess[] = [];

  constructor(events: boolean) {
    this.netns.run('ip link set lo up');
    this.watcher = new SocketWatcher(this.netns.name, silent, { events });
    const begin = performance.now();
    this.watcher.start((opened, closed) => {
      const time = now();
      for (const { inode } of closed) this.closed.set(inode, time);
      for (const { inode } of opened) {
        this.opened.set(inode, time);
        // It has only changed.
        this.closed.delete(inode);
      }
    });
    row('start', `${(performance.now() - begin).toFixed(1)} ms`);
  }

  async process(): Promise<SocketProcess> {
    const started = await SocketProcess.start(this.netns);
    this.processes.push(started);
    for (const line of HELPERS) await started.run(line);
    return started;
  }

  /** Times in ms from the call to the telling. */
  async latency(python: SocketProcess, line: string, count: number): Promise<{ opening: number[]; closing: number[] }> {
    const opening: number[] = [];
    const closing: number[] = [];
    for (let i = 0; i < count; i++) {
      const [time = 0, inode = 0] = (await python.run(`timed(lambda: ${line})`)).split(' ').map(Number);
      await until(() => this.opened.has(inode));
      opening.push((this.opened.get(inode)! - time) / 1e6);
      await pause(10 + Math.random() * 20);
      const end = Number(await python.run('closing()'));
      await until(() => this.closed.has(inode));
      closing.push((this.closed.get(inode)! - end) / 1e6);
      await pause(10 + Math.random() * 20);
    }
    return { opening, closing };
  }

  async kills(): Promise<number[][]> {
    const times: number[][] = KINDS.map(() => []);
    for (let i = 0; i < KILLS; i++) {
      const python = await SocketProcess.start(this.netns);
      const inodes: number[] = [];
      for (const [index, [, line]] of KINDS.entries()) {
        await python.run(`s${index} = ${line}`);
        inodes.push(Number(await python.run(`inode(s${index})`)));
      }
      await until(() => inodes.every((inode) => this.opened.has(inode)));
      const begin = now();
      await python.kill();
      await until(() => inodes.every((inode) => this.closed.has(inode)));
      for (const [index, inode] of inodes.entries()) times[index]!.push((this.closed.get(inode)! - begin) / 1e6);
    }
    return times;
  }

  async stop(): Promise<void> {
    this.watcher.close();
    for (const python of this.processes) await python.kill();
    this.netns.remove();
  }
}

/** Share of a processor that this process takes meanwhile, in percent. */
async function cpuOf(work: () => Promise<unknown>): Promise<string> {
  const begin = performance.now();
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return `${((user + system) / 10 / (performance.now() - begin)).toFixed(2)} %`;
}

async function bench(name: string, events: boolean): Promise<void> {
  process.stdout.write(`\n${name}\n`);
  const scene = new Scene(events);
  try {
    const python = await scene.process();
    const churner = await scene.process();
    for (const [kind, line, goal] of KINDS) {
      const count = kind.startsWith('TCP') || kind.startsWith('UDP') ? OPENINGS : SLOW_CLOSINGS;
      const { opening, closing } = await scene.latency(python, line, count);
      row(`${kind} to onChange, ${count}`, summary(opening), events ? goal : '100 ms');
      row(`close of it to onChange`, summary(closing), goal);
    }
    for (const [index, times] of (await scene.kills()).entries()) {
      row(`kill -9 to onChange: ${KINDS[index]?.[0] ?? ''}, ${KILLS}`, summary(times), KINDS[index]?.[2]);
    }
    for (const open of [0, MANY]) {
      if (open > 0) {
        await python.run(`many = [one(i) for i in range(${open})]`);
        await until(() => scene.opened.size >= open, 60_000);
      }
      const sockets = open === 0 ? 'few sockets open' : `${open} open, half TCP that listen, half UDP`;
      // The compiler and the collector of Node settle first.
      await churner.run(CHURN);
      await pause(CPU_SECONDS * 1000);
      row(`processor, idle, ${sockets}`, await cpuOf(() => pause(CPU_SECONDS * 1000)), 'under 0.5 %');
      let rate = '';
      const cpu = await cpuOf(async () => {
        rate = await churner.run(CHURN);
      });
      row(`processor, ${rate} binds/s, ${sockets}`, cpu, 'under 10 %');
      const churn = churner.run(CHURN);
      const { opening } = await scene.latency(python, KINDS[1]![1], 100);
      await churn;
      row(`UDP bind to onChange meanwhile`, summary(opening));
    }
  } finally {
    await scene.stop();
  }
}

export async function benchSockets(parts: readonly string[]): Promise<void> {
  if (parts.length === 0 || parts.includes('events')) await bench('by events', true);
  if (parts.length === 0 || parts.includes('polling')) await bench('by polling', false);
}
