/**
 * A mount namespace for tests: what is mounted in it, also over /dev, /etc and /sbin, nobody else sees. It lives as long as a
 * process that waits in it, and that one no longer than the test.
 *
 *     unshare --mount cat --held by a pipe--> this process
 *     nsenter --mount=/proc/PID/ns/mnt PROGRAM …
 *
 * Inside, `folder` is a file system of its own, where device files work and everybody can look in.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type tap from 'tap';
import { run, type Result, signalProcess, until } from './lab.js';

const PROJECT = fileURLToPath(new URL('../../../', import.meta.url));
/** Who is nobody, on any Linux. */
export const NOBODY = 65_534;
const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

export class MountNamespace {
  readonly folder = mkdtempSync(join(tmpdir(), `fwdfst-ns-${process.pid}-`));
  private readonly holder: ChildProcess;

  private constructor() {
    this.holder = spawn('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', 'echo; exec cat'], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
  }

  /** With the project and this Node at places that everybody may read, wherever they are: `fwdfs` and `node` in `folder`. */
  static async start(): Promise<MountNamespace> {
    const ns = new MountNamespace();
    try {
      if (ns.holder.stdout !== null) await once(ns.holder.stdout, 'data');
      await ns.must(`mount -t tmpfs -o mode=0755 fwdfst ${ns.folder}
        mkdir ${ns.folder}/project ${ns.folder}/bin
        mount --bind ${PROJECT} ${ns.folder}/project
        touch ${ns.folder}/bin/node
        mount --bind ${process.execPath} ${ns.folder}/bin/node`);
    } catch (error) {
      await ns.stop();
      throw error;
    }
    return ns;
  }

  get project(): string {
    return join(this.folder, 'project');
  }

  get fwdfs(): string {
    return join(this.project, 'bin/fwdfs');
  }

  /** Everything that is mounted inside, without touching any of it. */
  get mountinfo(): string {
    return readFileSync(`/proc/${this.holder.pid}/mountinfo`, 'utf8');
  }

  /** The line of mountinfo of what is mounted at a path, the uppermost. */
  mountAt(path: string): string | undefined {
    return this.mountinfo
      .split('\n')
      .filter((line) => line.split(' ')[4] === path)
      .pop();
  }

  /** Runs a shell line inside, with an environment as mount(8) or a service gives it: PATH alone. */
  shell(line: string, as: readonly string[] = []): Promise<Result> {
    const path = `PATH=${this.folder}/bin:${SYSTEM_PATH}`;
    const enter = ['nsenter', `--mount=/proc/${this.holder.pid}/ns/mnt`];
    return run([...enter, ...as, 'env', '-i', path, '/bin/bash', '--norc', '-c', line]);
  }

  /** As somebody who is not root. */
  asNobody(line: string): Promise<Result> {
    return this.shell(line, ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups']);
  }

  /** As `shell`; throws where a command of the line fails. */
  async must(line: string): Promise<string> {
    const { status, stdout, stderr } = await this.shell(`set -e\n${line}`);
    if (status !== 0) throw new Error(`${line}: ${status} ${stderr}`);
    return stdout.toString();
  }

  /** /dev/fuse as udev makes it: for everybody. */
  async openFuse(): Promise<void> {
    await this.must(`mknod -m 0666 ${this.folder}/fuse c 10 229 && mount --bind ${this.folder}/fuse /dev/fuse`);
  }

  /** A /sbin of its own, with what the host's has, and our helper as the links that `fwdfs doctor` advises. */
  async linkHelpers(): Promise<void> {
    const helper = join(this.project, 'bin/mount.fwdfs');
    await this.must(`sbin=$(realpath /sbin)
      mkdir ${this.folder}/sbin
      mount --bind $sbin ${this.folder}/sbin
      mount -t tmpfs -o mode=0755 fwdfst $sbin
      ln -s ${this.folder}/sbin/* $sbin
      ln -sf ${helper} /sbin/mount.fwdfs
      ln -sf ${helper} /sbin/mount.fuse.fwdfs`);
  }

  /** Process id of the control device that was told to mount there. */
  async controlDeviceOf(mountPoint: string): Promise<number> {
    const { stdout } = await this.shell(`pgrep -f -- ' ${mountPoint}( |$)'`);
    const pids = stdout.toString().trim().split('\n').map(Number);
    const [pid, ...others] = pids.filter((one) => this.isControlDevice(one, mountPoint));
    if (pid === undefined || others.length > 0) throw new Error(`control devices of ${mountPoint}: ${pids.join(' ')}`);
    return pid;
  }

  private isControlDevice(pid: number, mountPoint: string): boolean {
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
      return words.includes(mountPoint) && words[1]?.endsWith('fwdfs') === true;
    } catch {
      return false;
    }
  }

  /** Ends what serves a mount inside, and the namespace with it. */
  async stop(): Promise<void> {
    for (const line of this.mountinfo.split('\n').filter((text) => text.includes(' - fuse.fwdfs '))) {
      await this.shell(`${this.fwdfs} umount -l ${line.split(' ')[4] ?? ''}`);
    }
    this.holder.kill('SIGKILL');
    if (this.holder.exitCode === null && this.holder.signalCode === null) await once(this.holder, 'exit');
    rmdirSync(this.folder);
  }

  /** An empty directory that belongs to nobody. */
  async directoryOfNobody(): Promise<string> {
    const directory = join(this.folder, 'fwd');
    await this.must(`mkdir ${directory} && chown ${NOBODY}:${NOBODY} ${directory}`);
    return directory;
  }

  /** A process of nobody's that uses something as the line `how` says, until it is ended. */
  async user(how: string): Promise<{ pid: number; end: () => Promise<void> }> {
    const file = join(this.folder, 'pid');
    await this.must(`touch ${file} && chown ${NOBODY} ${file}`);
    // Bounded, for the case that the test ends early.
    const ended = this.asNobody(`${how} && echo $$ > ${file} && exec timeout 60 tail -f /dev/null`);
    let pid = 0;
    await until(async () => (pid = Number(await this.must(`cat ${file}`))) > 0);
    const end = async (): Promise<void> => {
      signalProcess(pid, 'SIGTERM');
      await ended;
    };
    return { pid, end };
  }
}

/** A namespace for a test as another user than root: a /dev/fuse for all, and a directory to mount on. */
export async function userNamespace(test: Pick<typeof tap, 'teardown'>): Promise<{ ns: MountNamespace; dir: string }> {
  const ns = await MountNamespace.start();
  test.teardown(() => ns.stop());
  await ns.openFuse();
  return { ns, dir: await ns.directoryOfNobody() };
}
