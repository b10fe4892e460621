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
    return new InteropLab(lab);
  }

  /** Runs the command in the control device's namespace. */
  async fwdfs(...words: string[]): Promise<string> {
    const [command = '', ...rest] = words;
    const nested = command === 'vif';
    const head = nested ? [command, rest.shift() ?? ''] : [command];
    const result = await run([
      ...this.lab.ctl.prefix,
      process.execPath,
      FWDFS,
      ...head,
      '-m',
      this.lab.mountPoint,
      ...rest,
    ]);
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

/** nginx that serves a folder on port 80, IPv4 and IPv6. @returns words that start it in the foreground */
export function nginx(lab: InteropLab, files: Readonly<Record<string, string | Buffer>>): string[] {
  for (const [name, content] of Object.entries(files)) lab.file(`www/${name}`, content);
  const { folder } = lab.lab;
  const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((one) => `${one}_temp_path ${folder}/tmp;`);
  const config = lab.file(
    'nginx.conf',
    `daemon off; master_process off; user root; pid ${folder}/nginx.pid; error_log stderr;
events { }
http { ${paths.join(' ')} access_log ${folder}/access.log; sendfile on;
  server { listen 80; listen [::]:80; root ${folder}/www; } }
`,
  );
  return ['nginx', '-p', folder, '-c', config, '-e', 'stderr'];
}
