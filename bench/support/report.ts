/** What the benchmarks share: rows of the printed table, helper processes, what a process has used. */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The folder of the benchmarks. */
export const here = fileURLToPath(new URL('..', import.meta.url));
export function row(what: string, value: string, goal = ''): void {
  process.stdout.write(`${what.padEnd(58)} ${value.padEnd(44)} ${goal}\n`);
}

/** A helper process that answers lines. */
export class Helper {
  readonly child: ChildProcess;
  private text = '';
  private readonly waiters: ((line: string) => void)[] = [];

  constructor(script: string, ...args: string[]) {
    this.child = spawn(process.execPath, [join(here, 'support', script), ...args], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.child.stdout?.on('data', (data: Buffer) => {
      this.text += data.toString();
      for (let end = this.text.indexOf('\n'); end >= 0; end = this.text.indexOf('\n')) {
        this.waiters.shift()?.(this.text.slice(0, end));
        this.text = this.text.slice(end + 1);
      }
    });
  }

  line(): Promise<string> {
    return new Promise((resolve) => this.waiters.push(resolve));
  }

  ask(question = '?'): Promise<string> {
    const answer = this.line();
    this.child.stdin?.write(`${question}\n`);
    return answer;
  }

  end(): Promise<void> {
    return new Promise((resolve) => {
      this.child.once('exit', () => resolve());
      this.child.stdin?.end();
    });
  }
}

export function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

export function residentKb(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0);
}
