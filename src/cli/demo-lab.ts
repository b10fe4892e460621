/**
 * What `fwdfs demo` builds, and takes down again: three network namespaces, both daemons, a mount.
 *
 *     node                     forwarder fwd1                         control device ctl1
 *     n0 10.9.0.2/24 --------- eth0 10.9.0.1/24   c0 10.8.0.1/24 ---- f0 10.8.0.2/24   FOLDER/fwd
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

export const PLACES = ['node', 'fwd', 'ctl'] as const;
export type Place = (typeof PLACES)[number];

const run = promisify(execFile);

export interface Output {
  readonly stdout: string;
  readonly stderr: string;
}

/** A shell line that runs. */
export interface Job {
  readonly ended: Promise<Output>;
  /** Signals the shell line and everything it started. */
  kill(signal: NodeJS.Signals): void;
}

/** Sends a signal, if the process or the group is there. */
function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It ended meanwhile.
  }
}

export class DemoLab {
  readonly folder = mkdtempSync(join(tmpdir(), `${PREFIX}${process.pid}-`));
  readonly mountPoint = join(this.folder, 'fwd');
  private readonly daemons: ChildProcess[] = [];
  private readonly jobs = new Set<ChildProcess>();
  private isEnding = false;

  netns(place: Place): string {
    return `${PREFIX}${place}-${process.pid}`;
  }

  /** Namespaces and links. Rejects with what `ip` said. */
  async build(): Promise<void> {
    for (const place of PLACES) await run('ip', ['netns', 'add', this.netns(place)]);
    await this.connect(['node', 'n0', '10.9.0.2/24'], ['fwd', 'eth0', '10.9.0.1/24']);
    await this.connect(['ctl', 'f0', '10.8.0.2/24'], ['fwd', 'c0', '10.8.0.1/24']);
  }

  private async connect(...ends: [Place, string, string][]): Promise<void> {
    const [a, b] = ends;
    if (a === undefined || b === undefined) return;
    const peer = ['peer', 'name', b[1], 'netns', this.netns(b[0])];
    await run('ip', ['link', 'add', a[1], 'netns', this.netns(a[0]), 'type', 'veth', ...peer]);
    for (const [place, name, address] of ends) {
      const ip = ['-n', this.netns(place)];
      // No address of its own making: the link is quiet, and what is seen on it is the demo's.
      await run('ip', [...ip, 'link', 'set', name, 'addrgenmode', 'none']);
      await run('ip', [...ip, 'address', 'add', address, 'dev', name]);
      await run('ip', [...ip, 'link', 'set', name, 'up']);
    }
  }

  /** Both daemons and the mount. Rejects with the log of the one that ended. */
  async start(): Promise<void> {
    const token = randomBytes(16).toString('hex');
    const config = join(this.folder, 'forwarder.yaml');
    const tokenFile = join(this.folder, 'token');
    writeFileSync(
      config,
      `name: fwd1
listen: ws://10.8.0.1:7440
tokens: { ctl1: "sha256:${createHash('sha256').update(token).digest('hex')}" }
interfaces:
  eth0: { unmatched: host }
permissions:
  - { control: ctl1, interface: eth0, rights: [read, write, inject] }
`,
    );
    writeFileSync(tokenFile, `${token}\n`, { mode: 0o600 });
    mkdirSync(this.mountPoint);
    await this.daemon('fwd', ['forwarder', '--config', config], 'forwarder is ready');
    const options = `name=ctl1,token_file=${tokenFile}`;
    await this.daemon('ctl', ['mount', '-f', '-o', options, 'fwd1=ws://10.8.0.1:7440', this.mountPoint], '"mounted"');
  }

  /** Starts a daemon in its namespace, and waits until its log says `ready`. */
  private async daemon(place: Place, words: readonly string[], ready: string): Promise<void> {
    if (this.isEnding) return;
    // Ends with this process, however that ends; in a session of its own: Ctrl-C is ours to pass on, in our order.
    const prefix = ['--pdeathsig', 'TERM', 'nsenter', `--net=${NETNS_FOLDER}/${this.netns(place)}`];
    const child = spawn('setpriv', [...prefix, process.execPath, FWDFS, ...words], {
      stdio: ['ignore', 'ignore', 'pipe'],
      detached: true,
    });
    this.daemons.push(child);
    let log = '';
    await new Promise<void>((resolve, reject) => {
      const fail = (what: string): void => reject(new Error(`fwdfs ${words[0] ?? ''} ${what}: ${log.trim() || 'no log'}`));
      const timer = setTimeout(() => fail('was not ready in time'), READY_TIMEOUT_MS);
      child.stderr.on('data', (data: Buffer) => {
        log += data.toString();
        if (log.includes(ready)) resolve();
      });
      child.once('error', (error) => fail(error.message));
      child.once('exit', () => fail('ended'));
      child.once('exit', () => clearTimeout(timer));
      child.stderr.once('data', () => undefined);
      this.onReady(resolve, timer);
    });
  }

  private onReady(_resolve: () => void, _timer: NodeJS.Timeout): void {
    // placeholder
  }
}
