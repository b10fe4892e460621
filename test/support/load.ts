/**
 * Open-loop HTTP load for tests and benches: requests at a fixed rate, each at its time whether or not others are late, by a
 * process of its own (load-client.ts); and what is to be known of them: which server answered, how long it took, which
 * failed, relative to marks that a test sets with `now()`.
 */
import { fileURLToPath } from 'node:url';
import { type Lab, type Program, until } from './lab.js';
import type { Netns } from './netns.js';

export interface LoadOptions {
  readonly host: string;
  /** Default 80. */
  readonly port?: number;
  /** Default /. */
  readonly path?: string;
  /** Requests a second. Default 2,000. */
  readonly rate?: number;
  /** How long it goes on unless it is finished before. Default 30. */
  readonly seconds?: number;
  /** Requests that a connection is used for, one after another. The server closes it after the last one. Default 1. */
  readonly perConnection?: number;
  /** From when on a request without an answer has failed. Default 3,000. */
  readonly timeoutMs?: number;
}

/** What the process prints. Times in ms; an index is one of `names`, -1: none. */
export interface LoadRows {
  readonly names: string[];
  readonly requests: (readonly [begin: number, latency: number, server: number, failure: number])[];
  cpuSeconds: number;
  /** How late a request was begun at most, in ms; much where the machine had not the time for more. */
  late: number;
}

/** One request. */
export interface Outcome {
  /** When it was begun, by the clock of `now`. */
  readonly begin: number;
  /** From when it was due until it was answered or had failed, in ms. */
  readonly latency: number;
  /** Which server answered; null: it failed. */
  readonly server: string | null;
  /** Why it failed; null: it did not. */
  readonly failure: string | null;
}

const DEFAULTS = { port: 80, path: '/', rate: 2000, seconds: 30, perConnection: 1, timeoutMs: 3000 } as const;
const CLIENT = fileURLToPath(new URL('./load-client.js', import.meta.url));
/** For the last line, beyond the last request. */
const FINISH_MS = 10_000;

/** The clock of all processes of this machine, in ms: for marks beside `Outcome.begin`. */
export function now(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

export class Load {
  private readonly program: Program;
  private readonly options: Required<LoadOptions>;

  private constructor(program: Program, options: Required<LoadOptions>) {
    this.program = program;
    this.options = options;
  }

  /** Returns with the first answer, or failure. */
  static async start(lab: Lab, netns: Netns, options: LoadOptions): Promise<Load> {
    const all = { ...DEFAULTS, ...options };
    const words = [...netns.prefix, 'env', '-u', 'NODE_OPTIONS', process.execPath, CLIENT, JSON.stringify(all)];
    const load = new Load(lab.program(words, null), all);
    await load.program.untilOutput((output) => output.includes('answered\n'), all.timeoutMs + FINISH_MS);
    return load;
  }

  /** Begins no more requests. @returns all of them, in the order of their end, when the last one has its answer */
  async finish(): Promise<LoadResult> {
    this.program.child.stdin?.end();
    return this.ended();
  }

  /** Waits until its time is over. */
  async ended(): Promise<LoadResult> {
    const { program, options } = this;
    await until(
      () => program.child.exitCode !== null || program.child.signalCode !== null,
      options.seconds * 1000 + options.timeoutMs + FINISH_MS,
    );
    const { status, stdout, stderr } = await program.ended;
    if (status !== 0) throw new Error(`load: ${stderr}`);
    return new LoadResult(JSON.parse(stdout.toString().split('\n')[1] ?? '') as LoadRows);
  }
}

export class LoadResult {
  readonly outcomes: readonly Outcome[];
  readonly cpuSeconds: number;
  readonly late: number;

  constructor({ names, requests, cpuSeconds, late }: LoadRows) {
    this.outcomes = requests.map(([begin, latency, server, failure]) => ({
      begin,
      latency,
      server: names[server] ?? null,
      failure: names[failure] ?? null,
    }));
    this.cpuSeconds = cpuSeconds;
    this.late = late;
  }

  /** Those that were begun in that time. */
  between(from: number, to = Infinity): Outcome[] {
    return this.outcomes.filter(({ begin }) => begin >= from && begin < to);
  }

  /** Those that failed and were begun in that time. */
  failures(from = -Infinity, to = Infinity): Outcome[] {
    return this.between(from, to).filter(({ failure }) => failure !== null);
  }

  /** Part of the answers that each server gave, 0 to 1. */
  shares(from = -Infinity, to = Infinity): Map<string, number> {
    const answered = this.between(from, to).flatMap(({ server }) => server ?? []);
    const counts = new Map<string, number>();
    for (const server of answered) counts.set(server, (counts.get(server) ?? 0) + 1);
    return new Map([...counts].toSorted().map(([server, count]) => [server, count / answered.length]));
  }

  /** Latency of what was answered, in ms. @param part 0.5: the median */
  quantile(part: number): number {
    const sorted = this.outcomes
      .flatMap(({ failure, latency }) => (failure === null ? latency : []))
      .toSorted((a, b) => a - b);
    return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? NaN;
  }

  /** When the last one that failed was begun, in ms after the mark; null: none was begun after it. */
  lastFailure(mark: number): number | null {
    const begins = this.failures(mark).map(({ begin }) => begin - mark);
    return begins.length === 0 ? null : Math.max(...begins);
  }

  /** For the message of a failing test: how many failed, by reason and by when they were begun. */
  describe(mark: number): string {
    const failures = this.failures();
    const reasons = [...new Set(failures.map(({ failure }) => failure))];
    const lines = reasons.map((reason) => {
      const of = failures.filter(({ failure }) => failure === reason);
      const begins = of.map(({ begin }) => Math.round(begin - mark)).toSorted((a, b) => a - b);
      return `${of.length} x ${reason}, begun ${begins[0]} to ${begins.at(-1)} ms after the mark`;
    });
    const head = `${this.outcomes.length} requests, at most ${Math.round(this.late)} ms late, ${failures.length} failed`;
    return [head, ...lines].join('\n');
  }
}
