/**
 * The demo tree, mounted by a server in a process of its own. Tests reach the mount only from further processes: whoever
 * waits in a file system call can't run its own timeouts.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { whyNoFuseNative } from '../../src/fusefs/fuse-native-library.js';

const SERVER = fileURLToPath(new URL('./fuse-server.js', import.meta.url));
/** Nothing in these tests takes longer; whoever does is killed. */
const PATIENCE_MS = 8000;

/** Options of a test that mounts. */
export const rootOnly = process.getuid?.() === 0 ? {} : { skip: 'needs root' };

const noFuseNative = whyNoFuseNative();
// What the host lacks and could get is no reason to skip: fwdfs doctor --fix --tests installs it.
const isInstallable = noFuseNative?.includes('libfuse2') === true;

/** Options of a test that mounts by fuse-native. */
export const fuseNativeOnly = noFuseNative === null || isInstallable ? rootOnly : { skip: noFuseNative };

export interface Outcome {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly ms: number;
}

/** A process that was started, with its group. */
export class Running {
  readonly child: ChildProcess;
  readonly outcome: Promise<Outcome>;

  private readonly directory: string;

  /** @param directory the mount point, `M` in its environment @param patienceMs it is killed when it takes longer */
  constructor(command: string, args: readonly string[], directory: string, patienceMs = PATIENCE_MS) {
    this.directory = directory;
    const start = process.hrtime.bigint();
    this.child = spawn(command, args, {
      detached: true,
      env: { ...process.env, M: directory },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let stdout = '';
    let stderr = '';
    this.child.stdout?.setEncoding('latin1').on('data', (text: string) => (stdout += text));
    this.child.stderr?.setEncoding('latin1').on('data', (text: string) => (stderr += text));
    const timer = setTimeout(() => this.kill('SIGKILL'), patienceMs);
    this.outcome = new Promise((resolve, reject) => {
      this.child.once('error', reject);
      this.child.once('close', (code, signal) => {
        clearTimeout(timer);
        resolve({ code, signal, stdout, stderr, ms: Number(process.hrtime.bigint() - start) / 1e6 });
      });
    });
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  /** To the process and its children. */
  kill(signal: NodeJS.Signals): void {
    if (this.pid > 1 && this.child.exitCode === null && this.child.signalCode === null) process.kill(-this.pid, signal);
  }

  /** Resolves when the process waits for an answer of the server, whatever it asked. */
  waiting(): Promise<void> {
    return until(() => this.isWaiting());
  }

  /** Resolves when the process waits for an answer about a file that it has open: not for the open itself. */
  blocked(): Promise<void> {
    return until(() => this.hasFile() && this.isWaiting());
  }

  /** The function of the kernel that the process waits in. */
  get wchan(): string {
    return readFileSync(`/proc/${this.pid}/wchan`, 'latin1');
  }

  private isWaiting(): boolean {
    return this.wchan === 'request_wait_answer';
  }

  /** Reads links of /proc alone: nothing that touches the mount. */
  private hasFile(): boolean {
    const folder = `/proc/${this.pid}/fd`;
    return readdirSync(folder).some((fd) => {
      try {
        return readlinkSync(`${folder}/${fd}`).startsWith(`${this.directory}/`);
      } catch {
        return false; // closed meanwhile
      }
    });
  }
}

/** Resolves when `condition` holds; rejects when it takes too long. */
export async function until(condition: () => boolean): Promise<void> {
  const end = Date.now() + PATIENCE_MS;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`never came true: ${String(condition)}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

export class DemoMount {
  readonly directory = mkdtempSync(join(tmpdir(), `fwdfs-${process.pid}-`));
  readonly server: ChildProcess;
  /** What the server printed. */
  output = '';
  private readonly exited: Promise<unknown>;

  private constructor(words: readonly string[]) {
    this.server = spawn(process.execPath, [SERVER, this.directory, ...words], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.server.stdout?.setEncoding('utf8').on('data', (text: string) => (this.output += text));
    this.exited = once(this.server, 'exit');
  }

  static async start(...words: string[]): Promise<DemoMount> {
    const mount = new DemoMount(words);
    await until(() => mount.output.includes('ready') || mount.server.exitCode !== null);
    return mount;
  }

  /** Runs a shell script with the mount point as `$M`. */
  sh(script: string): Promise<Outcome> {
    return this.start('bash', ['-c', script]).outcome;
  }

  /** Runs a Python program with `M`, `os`, `errno`, `select`, `time`, `threading` and `fcntl` at hand. */
  python(program: string): Promise<Outcome> {
    return this.startPython(program).outcome;
  }

  startPython(program: string): Running {
    const head = 'import os, sys, errno, select, time, threading, fcntl\nM = os.environ["M"]\n';
    return this.start('python3', ['-c', head + program]);
  }

  start(command: string, args: readonly string[], patienceMs?: number): Running {
    return new Running(command, args, this.directory, patienceMs);
  }

  get isMounted(): boolean {
    return readFileSync('/proc/self/mountinfo', 'latin1').includes(` ${this.directory} `);
  }

  /** The server's end, asked for or not. */
  async ended(): Promise<void> {
    await this.exited;
  }

  /** Ends the server and whatever it left; for teardown. */
  async close(): Promise<void> {
    if (this.server.exitCode === null && this.server.signalCode === null) {
      this.server.kill('SIGTERM');
      const timer = setTimeout(() => this.server.kill('SIGKILL'), PATIENCE_MS);
      await this.exited;
      clearTimeout(timer);
    }
    if (this.isMounted) spawnSync('umount', ['-l', this.directory]);
    rmdirSync(this.directory);
  }
}
