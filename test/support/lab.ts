/**
 * The whole system on one machine, for tests: three namespaces, both daemons, a mount.
 *
 *     node ns              forwarder ns                    control ns
 *     n0 10.9.0.2/24 ----- eth0 10.9.0.1/24 | c0 10.8.0.1 ----- f0 10.8.0.2   fwdfs mount -f … MNT
 *        fd09::2/64             fd09::1/64  |
 *
 * A process that serves a mount must not touch it; the daemons are children, so a test may use the mount from its own
 * children. Everything is taken down by `stop`, which `t.teardown` calls, also after a failure.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { connectVeth, Netns } from './netns.js';

export const FWDFS = fileURLToPath(new URL('../../../bin/fwdfs', import.meta.url));

export interface LabOptions {
  /** Lines of the configuration's `permissions`; default: everything for ctl1. */
  readonly permissions?: string;
  /** The value of eth0 under `interfaces`. */
  readonly eth0?: string;
  readonly mountOptions?: string;
  readonly logLevel?: string;
  /** Prefixed to the command of each daemon, e.g. to measure it. */
  readonly traceFuse?: boolean;
}

/** A child whose output is kept, for the message of a failing test. */
export class Daemon {
  readonly child: ChildProcess;
  log = '';

  constructor(words: readonly string[]) {
    const [command = '', ...args] = words;
    this.child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream?.on('data', (data: Buffer) => {
        this.log += data.toString();
      });
    }
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  get ended(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  /** Waits for a line of the log that matches. */
  async until(pattern: RegExp, timeoutMs = 10_000): Promise<void> {
    await until(
      () => {
        if (pattern.test(this.log)) return true;
        if (this.ended) throw new Error(`ended early:\n${this.log}`);
        return false;
      },
      timeoutMs,
      () => `no ${String(pattern)} in:\n${this.log}`,
    );
  }

  async end(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.ended) return;
    const ended = new Promise<void>((resolve) => this.child.once('exit', () => resolve()));
    this.child.kill(signal);
    const late = setTimeout(() => this.child.kill('SIGKILL'), 5000);
    await ended;
    clearTimeout(late);
  }
}

/** Asks until it is true; fails after the time with what `why` says. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  timeoutMs = 10_000,
  why: () => string = () => 'waited in vain',
): Promise<void> {
  const end = performance.now() + timeoutMs;
  for (;;) {
    if (await condition()) return;
    if (performance.now() > end) throw new Error(why());
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

export interface Result {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

/** Runs a shell line as a child, without blocking this process. */
export function shell(line: string, timeoutMs = 20_000): Promise<Result> {
  const child = spawn('/bin/bash', ['-c', line], { stdio: ['ignore', 'pipe', 'pipe'] });
  const out: Buffer[] = [];
  let stderr = '';
  child.stdout.on('data', (data: Buffer) => out.push(data));
  child.stderr.on('data', (data: Buffer) => {
    stderr += data.toString();
  });
  const late = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
  return new Promise((resolve) =>
    child.once('close', (status, signal) => {
      clearTimeout(late);
      resolve({ status, signal, stdout: Buffer.concat(out), stderr });
    }),
  );
}

export class Lab {
  readonly folder = mkdtempSync(join(tmpdir(), `fwdfst-${process.pid}-`));
  readonly mountPoint = join(this.folder, 'fwd');
  readonly node: Netns;
  readonly fwd: Netns;
  readonly ctl: Netns;
  forwarder: Daemon | null = null;
  control: Daemon | null = null;
  readonly token = 'a token of the tests';
  private readonly options: LabOptions;

  private constructor(options: LabOptions) {
    this.options = options;
    this.node = new Netns('node');
    this.fwd = new Netns('fwd');
    this.ctl = new Netns('ctl');
    connectVeth(
      { netns: this.node, name: 'n0', addresses: ['10.9.0.2/24', 'fd09::2/64'] },
      { netns: this.fwd, name: 'eth0', addresses: ['10.9.0.1/24', 'fd09::1/64'] },
    );
    connectVeth(
      { netns: this.ctl, name: 'f0', addresses: ['10.8.0.2/24'] },
      { netns: this.fwd, name: 'c0', addresses: ['10.8.0.1/24'] },
    );
    mkdirSync(this.mountPoint);
  }

  /** Namespaces, both daemons and the mount. */
  static async start(options: LabOptions = {}): Promise<Lab> {
    const lab = new Lab(options);
    try {
      await lab.startForwarder();
      await lab.startControl();
    } catch (error) {
      await lab.stop();
      throw error;
    }
    return lab;
  }

  /** Path of a name below the forwarder's directory. */
  file(name: string): string {
    return join(this.mountPoint, 'fwd1', name);
  }

  get config(): string {
    return join(this.folder, 'forwarder.yaml');
  }

  async startForwarder(): Promise<void> {
    const digest = createHash('sha256').update(this.token).digest('hex');
    writeFileSync(
      this.config,
      `name: fwd1
listen: ws://10.8.0.1:7440
tokens: { ctl1: "sha256:${digest}" }
interfaces:
  eth0: ${this.options.eth0 ?? '{ unmatched: host }'}
permissions:
${this.options.permissions ?? '  - { control: ctl1, interface: eth0, rights: [read, write, inject], protocols: ["*"] }'}
`,
    );
    writeFileSync(join(this.folder, 'token'), `${this.token}\n`);
    const level = this.options.logLevel ?? 'info';
    this.forwarder = new Daemon([
      ...this.fwd.prefix,
      process.execPath,
      FWDFS,
      'forwarder',
      '--config',
      this.config,
      '--log-level',
      level,
    ]);
    await this.forwarder.until(/forwarder is ready/);
  }

  async startControl(): Promise<void> {
    const extra = this.options.mountOptions === undefined ? '' : `,${this.options.mountOptions}`;
    this.control = new Daemon([
      ...this.ctl.prefix,
      process.execPath,
      FWDFS,
      'mount',
      '-f',
      ...(this.options.traceFuse === true ? ['--trace-fuse'] : []),
      '-o',
      `name=ctl1,token_file=${join(this.folder, 'token')}${extra}`,
      '--log-level',
      this.options.logLevel ?? 'info',
      'fwd1=ws://10.8.0.1:7440',
      this.mountPoint,
    ]);
    await this.control.until(/"mounted"/);
  }

  /** The rows of a table of the forwarder, without the header line. */
  async table(name: string): Promise<string[][]> {
    const result = await shell(`cat ${this.file('.tables')}/${name}`);
    if (result.status !== 0) throw new Error(result.stderr);
    return result.stdout
      .toString()
      .trimEnd()
      .split('\n')
      .slice(1)
      .map((row) => row.split('\t'));
  }

  async counter(name: string, interfaceName = 'eth0'): Promise<number> {
    const result = await shell(`cat ${this.file('.if')}/${interfaceName}/statistics/${name}`);
    if (result.status !== 0) throw new Error(result.stderr);
    return Number(result.stdout.toString());
  }

  async stop(): Promise<void> {
    await this.control?.end();
    await this.forwarder?.end();
    try {
      execFileSync('umount', ['-l', this.mountPoint], { stdio: 'pipe' });
    } catch {
      // It is unmounted already.
    }
    for (const ns of [this.node, this.fwd, this.ctl]) ns.remove();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
