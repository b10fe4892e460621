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
import { HEARTBEAT_MS } from '../../src/base/limits.js';
import { connectVeth, Netns } from './netns.js';

/** Signals one process, never a group: a pid that is not there, or was not found, throws. */
export function signalProcess(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined || !Number.isInteger(pid) || pid <= 1) throw new Error(`no process to signal: ${pid}`);
  process.kill(pid, signal);
}

export const FWDFS = fileURLToPath(new URL('../../../bin/fwdfs', import.meta.url));

export interface LabOptions {
  /** Lines of the configuration's `permissions`; default: everything for ctl1. */
  readonly permissions?: string;
  /** The value of eth0 under `interfaces`. */
  readonly eth0?: string;
  /** Further lines under `interfaces`. */
  readonly interfaces?: string;
  /** Names of the control devices that have the token; default: ctl1. The first one is mounted by `start`. */
  readonly controls?: readonly string[];
  readonly mountOptions?: string;
  /** In ms; more than the default where the test itself is a control device, and is busy at times. */
  readonly heartbeat?: number;
  /** Where the forwarder listens; default: at its address for `ctl`. */
  readonly listen?: string;
  readonly logLevel?: string;
  readonly traceFuse?: boolean;
  /** Arguments of node, for both daemons. */
  readonly nodeArguments?: readonly string[];
}

/** Where a further control device runs. */
export interface Place {
  readonly netns: Netns;
  /** Address of the forwarder from there. */
  readonly forwarder: string;
  /** Options of its mount; default: those of the lab. */
  readonly mountOptions?: string;
}

/** A child whose output is kept, for the message of a failing test. */
export class Daemon {
  readonly child: ChildProcess;
  log = '';

  constructor(words: readonly string[]) {
    // The runner's own modules, which it gives to every child, are not for what is tested.
    this.child = spawn('env', ['-u', 'NODE_OPTIONS', ...words], { stdio: ['ignore', 'pipe', 'pipe'] });
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

/** A child with its output as bytes: what a test reads from the mount. Killed by `Lab.stop` if it still runs then. */
export class Program {
  readonly child: ChildProcess;
  readonly ended: Promise<Result>;
  stderr = '';
  private chunks: Buffer[] = [];

  /** @param input given as its stdin, which is empty otherwise; null: a stdin that never ends */
  constructor(words: readonly string[], input: Buffer | string | null = '') {
    const [command = '', ...args] = words;
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    this.child = child;
    child.stdout.on('data', (data: Buffer) => this.chunks.push(data));
    child.stderr.on('data', (data: Buffer) => {
      this.stderr += data.toString();
    });
    child.stdin.on('error', () => undefined);
    if (input !== null) child.stdin.end(input);
    this.ended = new Promise((resolve) =>
      child.once('close', (status, signal) => resolve({ status, signal, stdout: this.output, stderr: this.stderr })),
    );
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  /** What it wrote so far. */
  get output(): Buffer {
    if (this.chunks.length > 1) this.chunks = [Buffer.concat(this.chunks)];
    return this.chunks[0] ?? Buffer.alloc(0);
  }

  async untilOutput(condition: (output: Buffer) => boolean, timeoutMs = 10_000): Promise<void> {
    await until(
      () => condition(this.output),
      timeoutMs,
      () =>
        `output of ${this.output.length} bytes, ends ${JSON.stringify(this.output.toString('latin1', this.output.length - 200))}, stderr ${this.stderr}`,
    );
  }

  async untilStderr(pattern: RegExp, timeoutMs = 10_000): Promise<void> {
    await until(
      () => pattern.test(this.stderr),
      timeoutMs,
      () => `no ${String(pattern)} in ${JSON.stringify(this.stderr)}`,
    );
  }

  /** Sends the signal and waits for the end. @returns how long that took, in ms */
  async kill(signal: NodeJS.Signals = 'SIGTERM'): Promise<number> {
    const start = performance.now();
    this.child.kill(signal);
    await this.ended;
    return performance.now() - start;
  }
}

/** Runs a program to its end. It is killed when it takes longer. */
export async function run(words: readonly string[], input: Buffer | string = '', timeoutMs = 20_000): Promise<Result> {
  const program = new Program(words, input);
  const late = setTimeout(() => program.child.kill('SIGKILL'), timeoutMs);
  const result = await program.ended;
  clearTimeout(late);
  return result;
}

/** Runs a shell line as a child, without blocking this process. */
export function shell(line: string, timeoutMs = 20_000): Promise<Result> {
  return run(['/bin/bash', '-c', line], '', timeoutMs);
}

/** The rows of a table file, without the header line. */
async function rowsOf(file: string): Promise<string[][]> {
  const result = await run(['cat', file]);
  if (result.status !== 0) throw new Error(result.stderr);
  return result.stdout
    .toString()
    .split('\n')
    .slice(1, -1)
    .map((row) => row.split('\t'));
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
  options: LabOptions;
  private readonly programs: Program[] = [];
  private readonly others = new Map<string, { control: Daemon; mountPoint: string }>();

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

  private get controls(): readonly string[] {
    return this.options.controls ?? ['ctl1'];
  }

  /** Gives the forwarder these permissions while it runs, as `permissions` of the options. */
  async permit(permissions: string): Promise<void> {
    this.options = { ...this.options, permissions };
    this.writeConfig();
    await this.reload(/"permissions reloaded"/);
  }

  /** Has the forwarder read its configuration again, and waits for what it says about that. */
  async reload(said: RegExp): Promise<void> {
    const { forwarder } = this;
    if (forwarder === null) throw new Error('no forwarder runs');
    const before = forwarder.log.length;
    signalProcess(forwarder.pid, 'SIGHUP');
    await until(
      () => said.test(forwarder.log.slice(before)),
      10_000,
      () => `no ${String(said)} in:\n${forwarder.log}`,
    );
  }

  private writeConfig(): void {
    const digest = createHash('sha256').update(this.token).digest('hex');
    const tokens = this.controls.map((name) => `${name}: "sha256:${digest}"`).join(', ');
    const everything = this.controls.map(
      (name) => `  - { control: ${name}, interface: eth0, rights: [read, write, inject, vif], protocols: ["*"] }`,
    );
    writeFileSync(
      this.config,
      `name: fwd1
listen: ${this.options.listen ?? 'ws://10.8.0.1:7440'}
heartbeat: ${this.options.heartbeat ?? HEARTBEAT_MS}
tokens: { ${tokens} }
interfaces:
  eth0: ${this.options.eth0 ?? '{ unmatched: host }'}
${this.options.interfaces ?? ''}
permissions:
${this.options.permissions ?? everything.join('\n')}
`,
    );
    writeFileSync(join(this.folder, 'token'), `${this.token}\n`);
  }

  async startForwarder(): Promise<void> {
    this.writeConfig();
    const level = this.options.logLevel ?? 'info';
    this.forwarder = new Daemon([
      ...this.fwd.prefix,
      process.execPath,
      ...(this.options.nodeArguments ?? []),
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
    this.control = this.mount(this.controls[0] ?? '', this.mountPoint, this.here);
    await this.control.until(/"mounted"/);
  }

  private get here(): Place {
    return { netns: this.ctl, forwarder: '10.8.0.1' };
  }

  /** One more control device, with a mount of its own, beside the first one or elsewhere. @returns its mount point */
  async addControl(name: string, place = this.here): Promise<string> {
    const mountPoint = join(this.folder, name);
    mkdirSync(mountPoint, { recursive: true });
    const control = this.mount(name, mountPoint, place);
    this.others.set(name, { control, mountPoint });
    await control.until(/"mounted"/);
    return mountPoint;
  }

  /** Ends a control device that `addControl` started. */
  async endControl(name: string, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    await this.others.get(name)?.control.end(signal);
  }

  /** The process of a control device. */
  daemonOf(name: string): Daemon {
    const daemon = name === this.controls[0] ? this.control : this.others.get(name)?.control;
    if (daemon === null || daemon === undefined) throw new Error(`${name} does not run`);
    return daemon;
  }

  private mount(name: string, mountPoint: string, place: Place): Daemon {
    const more = place.mountOptions ?? this.options.mountOptions ?? '';
    return new Daemon([
      ...place.netns.prefix,
      process.execPath,
      ...(this.options.nodeArguments ?? []),
      FWDFS,
      'mount',
      '-f',
      ...(this.options.traceFuse === true ? ['--trace-fuse'] : []),
      '-o',
      `name=${name},token_file=${join(this.folder, 'token')}${more === '' ? '' : `,${more}`}`,
      '--log-level',
      this.options.logLevel ?? 'info',
      `fwd1=ws://${place.forwarder}:7440`,
      mountPoint,
    ]);
  }

  /** Starts a program that ends with the lab at the latest. */
  program(words: readonly string[], input: Buffer | string | null = ''): Program {
    const program = new Program(words, input);
    this.programs.push(program);
    return program;
  }

  /** A reader of a name below the forwarder's directory, when open() has returned. */
  async reader(name: string, mountPoint = this.mountPoint): Promise<Program> {
    const file = join(mountPoint, 'fwd1', name);
    const cat = this.program(['/bin/bash', '-c', 'exec 3<"$1" && echo open >&2 && exec cat <&3 3<&-', '-', file]);
    await cat.untilStderr(/open\n/);
    return cat;
  }

  /** The rows of a table of the forwarder, without the header line. */
  table(name: string, mountPoint = this.mountPoint): Promise<string[][]> {
    return rowsOf(join(mountPoint, 'fwd1', '.tables', name));
  }

  /** The rows of a table of the control device, without the header line. */
  ownTable(name: string): Promise<string[][]> {
    return rowsOf(join(this.mountPoint, '.tables', name));
  }

  /** `.state` of the forwarder. */
  async state(): Promise<Map<string, string>> {
    const { stdout } = await run(['cat', this.file('.state')]);
    const rows = stdout.toString().trimEnd().split('\n');
    return new Map(
      rows.map((row) => {
        const [key = '', value = ''] = row.split('\t');
        return [key, value];
      }),
    );
  }

  async counter(name: string, interfaceName = 'eth0'): Promise<number> {
    const result = await run(['cat', `${this.file('.if')}/${interfaceName}/statistics/${name}`]);
    if (result.status !== 0) throw new Error(result.stderr);
    return Number(result.stdout.toString());
  }

  async stop(): Promise<void> {
    for (const program of this.programs) program.child.kill('SIGKILL');
    await this.control?.end();
    for (const { control } of this.others.values()) await control.end();
    await this.forwarder?.end();
    for (const mountPoint of [this.mountPoint, ...[...this.others.values()].map((other) => other.mountPoint)]) {
      try {
        execFileSync('umount', ['-l', mountPoint], { stdio: 'pipe' });
      } catch {
        // It is unmounted already.
      }
    }
    for (const ns of [this.node, this.fwd, this.ctl]) ns.remove();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
