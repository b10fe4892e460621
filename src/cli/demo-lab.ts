/**
 * What `fwdfs demo` builds, and takes down again: three network namespaces, both daemons, a mount.
 *
 *     node                     forwarder fwd1                         control device ctl1
 *     n0 10.9.0.2/24 --------- eth0 10.9.0.1/24   c0 10.8.0.1/24 ---- f0 10.8.0.2/24   FOLDER/fwd
 *
 * More control devices, ctl2 and so on, have a namespace, a link (c1 10.8.1.1/24 - f0 10.8.1.2/24) and a mount (FOLDER/fwd2) each.
 *
 * Every name carries the process id of the demo, so that the next demo can tell what a crashed one left behind.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { unmount } from '../fusefs/mount.js';
import { fwdfsMounts } from './mounts.js';

const FWDFS = fileURLToPath(new URL('../../../bin/fwdfs', import.meta.url));
const PREFIX = 'fwdfs-demo-';
const NETNS_FOLDER = '/run/netns';
const READY_TIMEOUT_MS = 15_000;
/** A daemon that does not end within this time after SIGTERM is killed. */
const END_TIMEOUT_MS = 4000;
/** What is kept of a daemon's log, for the error if it ends. */
const LOG_CHARACTERS = 4000;

/** A namespace of the demo; `ctl` is that of ctl1. */
export type Place = 'node' | 'fwd' | `ctl${'' | number}`;

/** A control device of the demo. */
export interface DemoControl {
  readonly name: string;
  readonly place: Place;
  readonly mountPoint: string;
}

const run = promisify(execFile);

/** A shell line that runs in one of the places, in the demo's folder. */
export interface Job {
  /** What it printed so far. */
  stdout: string;
  stderr: string;
  /** Resolves at its end, however it ends. */
  readonly ended: Promise<void>;
  /** Signals the shell and everything it started. */
  kill(signal: NodeJS.Signals): void;
}

function signalGroup(leader: ChildProcess, signal: NodeJS.Signals): void {
  try {
    if (leader.pid !== undefined) process.kill(-leader.pid, signal);
  } catch {
    // It ended meanwhile.
  }
}

const hasEnded = (child: ChildProcess): boolean => child.exitCode !== null || child.signalCode !== null;

/** Takes the mounts in a folder of the demo away, then the folder. Never looks into a mount. */
function removeFolder(folder: string): void {
  const inside = (): string[] => fwdfsMounts().filter((mountPoint) => mountPoint.startsWith(`${folder}/`));
  for (const mountPoint of inside()) unmount(mountPoint, true);
  if (inside().length === 0) rmSync(folder, { recursive: true, force: true });
}

async function removeNetns(name: string): Promise<void> {
  await run('ip', ['netns', 'del', name]).catch(() => undefined);
}

export class DemoLab {
  readonly folder = mkdtempSync(join(tmpdir(), `${PREFIX}${process.pid}-`));
  readonly controls: readonly DemoControl[];
  /** Rejects when a daemon ends that should not. */
  readonly failed: Promise<never>;
  private fail: (error: Error) => void = () => undefined;
  private readonly daemons: ChildProcess[] = [];
  private readonly jobs = new Set<ChildProcess>();
  /** The command that is under way. */
  private current: Promise<unknown> = Promise.resolve();
  private isEnding = false;

  /** @param controls how many control devices */
  constructor(controls = 1) {
    this.controls = Array.from({ length: controls }, (_, index) => {
      const number: '' | number = index === 0 ? '' : index + 1;
      return { name: `ctl${index + 1}`, place: `ctl${number}`, mountPoint: join(this.folder, `fwd${number}`) };
    });
    this.failed = new Promise((_, reject) => {
      this.fail = reject;
    });
    this.failed.catch(() => undefined);
  }

  private get places(): readonly Place[] {
    return ['node', 'fwd', ...this.controls.map(({ place }) => place)];
  }

  netns(place: Place): string {
    return `${PREFIX}${place}-${process.pid}`;
  }

  private goOn(): void {
    if (this.isEnding) throw new Error('the demo was interrupted');
  }

  private async ip(...args: string[]): Promise<void> {
    this.goOn();
    const running = run('ip', args);
    this.current = running.catch(() => undefined);
    await running;
  }

  /** Namespaces and links. Rejects with what `ip` said. */
  async build(): Promise<void> {
    for (const place of this.places) await this.ip('netns', 'add', this.netns(place));
    await this.connect({ place: 'node', name: 'n0', address: '10.9.0.2/24' }, 'fwd', 'eth0', '10.9.0.1/24');
    for (const [index, { place }] of this.controls.entries()) {
      const link = `10.8.${index}`;
      await this.connect({ place, name: 'f0', address: `${link}.2/24` }, 'fwd', `c${index}`, `${link}.1/24`);
    }
  }

  private async connect(
    near: { readonly place: Place; readonly name: string; readonly address: string },
    place: Place,
    name: string,
    address: string,
  ): Promise<void> {
    const peer = ['peer', 'name', name, 'netns', this.netns(place)];
    await this.ip('link', 'add', near.name, 'netns', this.netns(near.place), 'type', 'veth', ...peer);
    for (const end of [near, { place, name, address }]) {
      const netns = ['-n', this.netns(end.place)];
      // No address of its own making: the link is quiet, and what is seen on it is the demo's.
      await this.ip(...netns, 'link', 'set', end.name, 'addrgenmode', 'none');
      await this.ip(...netns, 'address', 'add', end.address, 'dev', end.name);
      await this.ip(...netns, 'link', 'set', end.name, 'up');
    }
  }

  /** Both daemons and the mount. Rejects with the log of the one that ended. */
  async start(): Promise<void> {
    const token = randomBytes(16).toString('hex');
    const config = join(this.folder, 'forwarder.yaml');
    const tokenFile = join(this.folder, 'token');
    const digest = createHash('sha256').update(token).digest('hex');
    const urls = this.controls.map((_, index) => `ws://10.8.${index}.1:7440`);
    writeFileSync(
      config,
      `name: fwd1
listen: [${urls.map((url) => `"${url}"`).join(', ')}]
tokens: { ${this.controls.map(({ name }) => `${name}: "sha256:${digest}"`).join(', ')} }
interfaces:
  eth0: { unmatched: host }
permissions:
  - { control: "*", interface: eth0, rights: [read, write, inject, vif, vip] }
`,
    );
    writeFileSync(tokenFile, `${token}\n`, { mode: 0o600 });
    await this.daemon('fwd', ['forwarder', '--config', config], 'forwarder is ready');
    for (const [index, { name, place, mountPoint }] of this.controls.entries()) {
      mkdirSync(mountPoint);
      const options = `name=${name},token_file=${tokenFile}`;
      await this.daemon(place, ['mount', '-f', '-o', options, `fwd1=${urls[index]}`, mountPoint], '"mounted"');
    }
  }

  /** Starts a daemon in its namespace, and waits until its log says that it is ready. */
  private async daemon(place: Place, words: readonly string[], ready: string): Promise<void> {
    this.goOn();
    // Ends with this process, however that ends; in a session of its own, since Ctrl-C is ours to pass on, in our order.
    const prefix = ['--pdeathsig', 'TERM', 'nsenter', `--net=${NETNS_FOLDER}/${this.netns(place)}`];
    const child = spawn('setpriv', [...prefix, process.execPath, FWDFS, ...words], {
      stdio: ['ignore', 'ignore', 'pipe'],
      detached: true,
    });
    this.daemons.push(child);
    let log = '';
    const isReady = new Promise<void>((resolve) => {
      child.stderr.on('data', (data: Buffer) => {
        log = (log + data.toString()).slice(-LOG_CHARACTERS);
        if (log.includes(ready)) resolve();
      });
    });
    const fail = (what: string): void => this.fail(new Error(`fwdfs ${words[0] ?? ''} ${what}: ${log.trim()}`));
    child.once('error', (error) => fail(error.message));
    child.once('close', () => fail('ended'));
    const late = setTimeout(() => fail('was not ready in time'), READY_TIMEOUT_MS);
    try {
      await Promise.race([isReady, this.failed]);
    } finally {
      clearTimeout(late);
    }
  }

  /** Starts a shell line in a place. */
  job(place: Place, line: string): Job {
    this.goOn();
    const script = `cd ${JSON.stringify(this.folder)} && ${line}`;
    const child = spawn('nsenter', [`--net=${NETNS_FOLDER}/${this.netns(place)}`, 'sh', '-c', script], {
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
      env: { ...process.env, LC_ALL: 'C' },
    });
    this.jobs.add(child);
    const job: Job = {
      stdout: '',
      stderr: '',
      ended: new Promise((resolve) => child.once('close', () => resolve())),
      kill: (signal) => signalGroup(child, signal),
    };
    child.stdout.on('data', (data: Buffer) => {
      job.stdout += data.toString();
    });
    child.stderr.on('data', (data: Buffer) => {
      job.stderr += data.toString();
    });
    child.once('error', (error) => this.fail(error));
    void job.ended.then(() => this.jobs.delete(child));
    return job;
  }

  /** Takes everything down, also what is half built. */
  async end(): Promise<void> {
    this.isEnding = true;
    await this.current;
    for (const job of this.jobs) signalGroup(job, 'SIGKILL');
    // The mount first, while its forwarder is there to say goodbye to.
    for (const daemon of this.daemons.reverse()) await this.endDaemon(daemon);
    removeFolder(this.folder);
    for (const place of this.places) await removeNetns(this.netns(place));
  }

  private async endDaemon(daemon: ChildProcess): Promise<void> {
    if (daemon.pid === undefined || hasEnded(daemon)) return;
    const ended = new Promise<void>((resolve) => daemon.once('exit', () => resolve()));
    daemon.kill('SIGTERM');
    const late = setTimeout(() => daemon.kill('SIGKILL'), END_TIMEOUT_MS);
    await ended;
    clearTimeout(late);
  }
}

/** Whether a demo with this process id still runs. */
function isRunning(pid: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').includes('demo');
  } catch {
    return false;
  }
}

/** Names in a folder that demos made, with the process id of each. */
function namesOfDemos(folder: string, pattern: RegExp): { name: string; pid: string }[] {
  try {
    return readdirSync(folder).flatMap((name) => {
      const pid = pattern.exec(name)?.[1];
      return pid === undefined ? [] : [{ name, pid }];
    });
  } catch {
    return [];
  }
}

/** Takes away what demos left behind that were killed: processes, mounts, folders, namespaces. @returns how many */
export async function sweep(): Promise<number> {
  const left = ({ pid }: { pid: string }): boolean => !isRunning(pid);
  const namespaces = namesOfDemos(NETNS_FOLDER, /^fwdfs-demo-(?:node|fwd|ctl\d*)-(\d+)$/).filter(left);
  const folders = namesOfDemos(tmpdir(), /^fwdfs-demo-(\d+)-/).filter(left);
  for (const { name } of namespaces) {
    const { stdout } = await run('ip', ['netns', 'pids', name]).catch(() => ({ stdout: '' }));
    for (const pid of stdout.split('\n').map(Number)) {
      try {
        if (pid > 1) process.kill(pid, 'SIGKILL');
      } catch {
        // It ended meanwhile.
      }
    }
  }
  for (const { name } of folders) removeFolder(join(tmpdir(), name));
  for (const { name } of namespaces) await removeNetns(name);
  return namespaces.length + folders.length;
}
