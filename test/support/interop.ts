/**
 * Daemons of Debian, unmodified, on both sides of a virtual IF. The lab's topology (lab.ts); the programs of the control
 * device run beside its daemon:
 *
 *     node ns: clients, peers          forwarder ns                  control ns: nginx, dnsmasq, BIRD, lldpd, curl …
 *     n0 10.9.0.2/24 ------- eth0 10.9.0.1/24 | c0 ---------- f0     fwd1-eth0 10.9.0.1/24, the virtual IF
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Daemon, FWDFS, Lab, type LabOptions, type Result, run, until } from './lab.js';
import type { Netns } from './netns.js';

export type Kind = 'tap' | 'tun';
export const DEVICE = 'fwd1-eth0';
/** Commands that have commands of their own. */
const NESTED: readonly string[] = ['vif', 'vip', 'rule'];

/** Rights that a control device with virtual IFs has. */
export const VIF_PERMISSIONS =
  '  - { control: ctl1, interface: eth0, rights: [read, write, inject, vif], protocols: ["*"] }';

export class InteropLab {
  readonly lab: Lab;
  private readonly daemons: Daemon[] = [];

  private constructor(lab: Lab) {
    this.lab = lab;
  }

  /** A lab whose forwarder discards what no rule takes. */
  static async start(options: LabOptions = {}): Promise<InteropLab> {
    const lab = await Lab.start({
      eth0: '{ unmatched: discard, host: [icmp] }',
      permissions: VIF_PERMISSIONS,
      ...options,
    });
    // Every interface with IPv6 has one (RFC 4291, 2.1), and the kernel asks for neighbours from it.
    lab.fwd.run('ip addr add fe80::9:1/64 dev eth0 nodad');
    lab.node.run('ip addr add fe80::9:2/64 dev n0 nodad');
    return new InteropLab(lab);
  }

  /** Runs the command in the control device's namespace. */
  fwdfs(...words: string[]): Promise<string> {
    return this.fwdfsAt(this.lab.ctl, this.lab.mountPoint, ...words);
  }

  /** Runs the command in the namespace of that mount's control device. */
  async fwdfsAt(netns: Netns, mountPoint: string, ...words: string[]): Promise<string> {
    const [command = '', ...rest] = words;
    const nested = NESTED.includes(command);
    const head = nested ? [command, rest.shift() ?? ''] : [command];
    const result = await run([...netns.prefix, process.execPath, FWDFS, ...head, '-m', mountPoint, ...rest]);
    if (result.status !== 0) throw new Error(`fwdfs ${words.join(' ')}: ${result.stderr}`);
    return result.stdout.toString();
  }

  /** The virtual IF of eth0. */
  async addVif(kind: Kind = 'tap', ...options: string[]): Promise<void> {
    await this.fwdfs('vif', 'add', '--kind', kind, ...options, 'fwd1/eth0');
  }

  /** Writes a file of the lab. @returns its path */
  file(name: string, text: string | Buffer): string {
    const path = join(this.lab.folder, name);
    mkdirSync(join(path, '..'), { recursive: true });
    writeFileSync(path, text);
    return path;
  }

  /** A daemon that ends with the lab at the latest. */
  daemon(netns: Netns, words: readonly string[]): Daemon {
    const daemon = new Daemon([...netns.prefix, ...words]);
    this.daemons.push(daemon);
    return daemon;
  }

  on(netns: Netns, words: readonly string[], input = '', timeoutMs = 20_000): Promise<Result> {
    return run([...netns.prefix, ...words], input, timeoutMs);
  }

  /** What a command says on stdout; one that fails throws. */
  async says(netns: Netns, ...words: string[]): Promise<string> {
    const result = await this.on(netns, words);
    if (result.status !== 0) throw new Error(`${words.join(' ')}: ${result.stderr}${result.stdout.toString()}`);
    return result.stdout.toString();
  }

  /** Rules of virtual IFs that are active: their protocol addresses, sorted. */
  async rules(): Promise<string[]> {
    const rows = await this.lab.ownTable('vif_rules');
    return rows
      .filter(([, , state]) => state === 'active')
      .map(([, protocol = '']) => protocol)
      .sort();
  }

  /** Waits until there is such a rule. */
  async untilRule(protocol: string, there = true): Promise<void> {
    let last: string[] = [];
    await until(
      async () => {
        last = await this.rules();
        return last.includes(protocol) === there;
      },
      10_000,
      () => `rules: ${last.join(' ')}\n${this.lab.control?.log ?? ''}`,
    );
  }

  async stop(): Promise<void> {
    for (const daemon of this.daemons) await daemon.end('SIGKILL');
    await this.lab.stop();
  }
}

/**
 * nginx that serves files on port 80, IPv4 and IPv6.
 *
 * @param name of this server, in the header X-Server of its answers; its files are in the lab's folder NAME-web
 * @returns words that start it in the foreground
 */
export function nginx(lab: InteropLab, files: Readonly<Record<string, string | Buffer>>, name = 'nginx'): string[] {
  const folder = join(lab.lab.folder, `${name}-web`);
  mkdirSync(folder, { recursive: true });
  for (const [file, content] of Object.entries(files)) lab.file(`${name}-web/www/${file}`, content);
  const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((one) => `${one}_temp_path ${folder}/tmp;`);
  const config = lab.file(
    `${name}-web/nginx.conf`,
    `daemon off; master_process off; user root; pid ${folder}/nginx.pid; error_log stderr; worker_rlimit_nofile 20000;
events { worker_connections 8192; }
http { ${paths.join(' ')} access_log ${folder}/access.log; sendfile on; keepalive_requests 1000000; add_header X-Server ${name};
  server { listen 80 backlog=4096; listen [::]:80 backlog=4096; root ${folder}/www; } }
`,
  );
  return ['nginx', '-p', folder, '-c', config, '-e', 'stderr'];
}
