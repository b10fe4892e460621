/** `npm run bench -- balance failover`: from the end of a server, a control device or a link to the last failed request. */
import { BalanceLab, type Mode, VIP } from '../../test/support/balance.js';
import { type Daemon, signalProcess } from '../../test/support/lab.js';
import { Load, now } from '../../test/support/load.js';
import { row } from './report.js';

const RATE = 1000;
const BEFORE_MS = 1500;
const AFTER_MS = 5000;

interface Failure {
  readonly name: string;
  readonly happen: (lab: BalanceLab, servers: readonly Daemon[]) => void;
  readonly goal: string;
  /**
   * TCP checks of keepalived with its sample's delay loop of 6 s (its default is 60 s), one retry after 1 s and 5 s to connect,
   * as its manual has them: at most, and on average.
   */
  readonly keepalived: string;
}

const REFUSED = '7 s at most, 4 s on average';
const SILENT = '17 s at most, 14 s on average';

const FAILURES: readonly Failure[] = [
  {
    name: 'kill -9 of a server',
    happen: (_, [server]) => signalProcess(server?.pid, 'SIGKILL'),
    goal: '100 ms',
    keepalived: REFUSED,
  },
  {
    name: 'kill -9 of a control device',
    happen: (lab) => lab.killDevice(lab.device('ctl1')),
    goal: '1 s',
    keepalived: SILENT,
  },
  {
    name: 'link that nothing crosses any more',
    happen: (lab) => lab.cut(lab.device('ctl1'), 'silent'),
    goal: '1 s',
    keepalived: SILENT,
  },
  { name: 'link down', happen: (lab) => lab.cut(lab.device('ctl1'), 'down'), goal: '1 s', keepalived: SILENT },
];

const pause = (ms: number): Promise<void> => new Promise((resolve) => void setTimeout(resolve, ms));

interface Outage {
  /** When the last request that failed was begun, and when it had failed, in ms after the event; 0: none. */
  readonly lastBegin: number;
  readonly lastEnd: number;
  readonly failed: number;
}

async function outage(mode: Mode, { happen }: Failure): Promise<Outage> {
  const lab = await BalanceLab.start(2);
  try {
    await lab.offer(mode);
    const servers = await lab.webs();
    const load = await Load.start(lab.lab, lab.lab.node, { host: VIP, rate: RATE });
    await pause(BEFORE_MS);
    happen(lab, servers);
    const mark = now();
    await pause(AFTER_MS);
    const failures = (await load.finish()).failures();
    return {
      lastBegin: Math.max(0, ...failures.map(({ begin }) => begin - mark)),
      lastEnd: Math.max(0, ...failures.map(({ begin, latency }) => begin + latency - mark)),
      failed: failures.length,
    };
  } finally {
    await lab.stop();
  }
}

export async function benchFailover(rounds: number): Promise<void> {
  const all: { failure: string; mode: Mode; outages: readonly Outage[] }[] = [];
  for (const failure of FAILURES) {
    for (const [mode, name] of [
      ['socket', 'encapsulation'],
      ['vip', 'virtual IP'],
    ] as const) {
      const outages: Outage[] = [];
      try {
        for (let i = 0; i < rounds; i++) outages.push(await outage(mode, failure));
      } catch (error) {
        row(
          `${failure.name}, ${name}`,
          `skipped: ${error instanceof Error ? (error.message.split('\n', 1)[0] ?? '') : ''}`,
        );
        continue;
      }
      all.push({ failure: failure.name, mode, outages });
      const most = (value: (one: Outage) => number): string => Math.max(...outages.map(value)).toFixed(0);
      row(
        `${failure.name}, ${name}: of ${RATE}/s`,
        `last failed one begun after ${most((one) => one.lastBegin)} ms, failed after ${most((one) => one.lastEnd)} ms; ${most((one) => one.failed)} failed`,
        failure.goal,
      );
    }
    row(`  keepalived, delay loop 6 s, on paper`, failure.keepalived);
  }
  process.stdout.write(`${JSON.stringify(all)}\n`);
}
