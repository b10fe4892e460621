/** What `npm run bench -- balance` measures of each setup, by the client in the node's namespace: wrk, curl and Load. */
import { readFileSync } from 'node:fs';
import { type BalanceLab, VIP } from '../../test/support/balance.js';
import { run } from '../../test/support/lab.js';
import { Load } from '../../test/support/load.js';
import { cpuSeconds } from './report.js';

const SECONDS = 3;
const CONNECTIONS = 32;
/** Requests a second of the open loop: below what the slowest of the setups can. */
const OPEN_RATE = 1000;
export const LARGE_BYTES = 1 << 30;
const STREAMS = 8;

export interface Measured {
  readonly value: number;
  /** What did not go well; 0: everything did. */
  readonly errors: number;
}

export interface Measure {
  readonly names: readonly string[];
  /** @returns a value for each name */
  measure(lab: BalanceLab): Promise<Measured[]>;
}

/** Closed loop, as fast as it goes. @returns requests a second */
async function wrk(lab: BalanceLab, ...more: string[]): Promise<Measured> {
  const words = ['wrk', '-t1', `-c${CONNECTIONS}`, `-d${SECONDS}s`, ...more, `http://${VIP}/`];
  // It waits for its first connection however long that takes.
  const { status, stdout } = await lab.interop.on(lab.lab.node, words, '', 2 * SECONDS * 1000);
  if (status !== 0) return { value: 0, errors: 1 };
  const text = stdout.toString();
  const socketErrors =
    /Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(text)?.slice(1) ?? [];
  const refused = /Non-2xx or 3xx responses: (\d+)/.exec(text)?.[1] ?? '0';
  return {
    value: Number(/Requests\/sec:\s+([\d.]+)/.exec(text)?.[1] ?? 0),
    errors: [...socketErrors, refused].reduce((sum, count) => sum + Number(count), 0),
  };
}

/** Latency in ms: median and p99 in that order, below saturation. */
async function openLoop(lab: BalanceLab): Promise<Measured[]> {
  const load = await Load.start(lab.lab, lab.lab.node, { host: VIP, rate: OPEN_RATE, seconds: SECONDS });
  const result = await load.ended();
  const errors = result.failures().length;
  return [
    { value: result.quantile(0.5), errors },
    { value: result.quantile(0.99), errors },
  ];
}

/** Gbit/s of a large file, by so many clients at a time. */
async function bulk(lab: BalanceLab, streams: number): Promise<Measured> {
  const words = ['curl', '-s', '-o', '/dev/null', '--max-time', String(SECONDS)];
  const written = ['-w', '%{size_download} %{time_total}', `http://${VIP}/large`];
  const results = await Promise.all(
    Array.from({ length: streams }, () => run([...lab.lab.node.prefix, ...words, ...written])),
  );
  let value = 0;
  let errors = 0;
  for (const { status, stdout } of results) {
    const [bytes = 0, seconds = 1] = stdout.toString().split(' ').map(Number);
    value += (bytes * 8) / seconds / 1e9;
    // 28: its time was over, as it may be.
    if (status !== 0 && status !== 28) errors += 1;
  }
  return { value, errors };
}

export const MEASURES: readonly Measure[] = [
  {
    names: ['requests/s, a connection each'],
    measure: async (lab) => [await wrk(lab, '-H', 'Connection: close')],
  },
  { names: ['requests/s, keep-alive'], measure: async (lab) => [await wrk(lab)] },
  { names: [`p50 at ${OPEN_RATE}/s, ms`, `p99 at ${OPEN_RATE}/s, ms`], measure: openLoop },
  { names: ['bulk, 1 stream, Gbit/s'], measure: async (lab) => [await bulk(lab, 1)] },
  { names: [`bulk, ${STREAMS} streams, Gbit/s`], measure: async (lab) => [await bulk(lab, STREAMS)] },
];

/** Seconds of processor of those processes so far. */
export function cpuOf(pids: ReadonlyMap<string, number>): number {
  return [...pids.values()].reduce((sum, pid) => sum + cpuSeconds(pid), 0);
}

/** Seconds that all processors of the machine were busy so far, whoever used them. */
export function machineBusySeconds(): number {
  const fields = /^cpu\s+(.*)$/m.exec(readFileSync('/proc/stat', 'utf8'))?.[1]?.split(' ').map(Number) ?? [];
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = fields;
  return (user + nice + system + irq + softirq) / 100;
}
