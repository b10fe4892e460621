/**
 * A forwarder and several control devices that share its load, each with a link of its own, so that the forwarder is an
 * on-link next hop of each (lab.ts has the rest):
 *
 *     node ns                 forwarder ns                                    control ns, one for each
 *     n0 10.9.0.2/24 ------ eth0 10.9.0.1/24 | c0 10.8.0.1 ---------- f0 10.8.0.2   ctl1: fwdfs mount, nginx
 *        fd09::2/64              fd09::1/64  | c1 10.8.1.1 ---------- f0 10.8.1.2   ctl2: fwdfs mount, nginx
 *                                            | …                                    …
 *
 * A service is offered by virtual IFs (mode `socket`) or by a virtual IP address (mode `vip`); servers are the same.
 */
import { fileURLToPath } from 'node:url';
import { InteropLab, nginx } from './interop.js';
import { type Daemon, type Lab, type LabOptions, type Program, signalProcess, until } from './lab.js';
import { connectVeth, Netns } from './netns.js';

/** As the column `mode` of the distribution table has it. */
export type Mode = 'socket' | 'vip';

/** The address that is shared. */
export const VIP = '10.9.0.1';
export const VIP6 = 'fd09::1';
/** What nginx serves as index.html. */
export const PAGE = 'hello\n';
const ECHO = fileURLToPath(new URL('./echo.js', import.meta.url));
/** So that a port is used again late: the load makes 2,000 connections a second to one address and port. */
const PORT_RANGE = 'sysctl -qw net.ipv4.ip_local_port_range=1024\t65535';

/** One control device. */
export interface Device {
  readonly name: string;
  readonly netns: Netns;
  /** Its address for the forwarder, and the forwarder's for it. */
  readonly address: string;
  readonly forwarder: string;
  /** The forwarder's interface to it; its own is f0. */
  readonly link: string;
  readonly mountPoint: string;
}

export interface BalanceOptions extends LabOptions {
  /** Options of the mount of each control device, in their order. */
  readonly each?: readonly string[];
}

export class BalanceLab {
  readonly interop: InteropLab;
  readonly devices: Device[] = [];
  private readonly namespaces: Netns[] = [];

  private constructor(interop: InteropLab) {
    this.interop = interop;
  }

  /** A lab with control devices ctl1, ctl2 and so on; no service is offered yet. */
  static async start(count: number, options: BalanceOptions = {}): Promise<BalanceLab> {
    const names = Array.from({ length: count }, (_, index) => `ctl${index + 1}`);
    const { each = [], ...rest } = options;
    const permissions = names
      .map((name) => `  - { control: ${name}, interface: eth0, rights: [read, write, vif, vip], protocols: ["*"] }`)
      .join('\n');
    const [mountOptions] = each;
    const first = mountOptions === undefined ? {} : { mountOptions };
    const interop = await InteropLab.start({ controls: names, permissions, listen: 'ws://*:7440', ...first, ...rest });
    const lab = new BalanceLab(interop);
    try {
      interop.lab.node.run(PORT_RANGE);
      for (const [index, name] of names.entries())
        await lab.addDevice(name, index, each.length > 0 ? (each[index] ?? '') : undefined);
    } catch (error) {
      await lab.stop();
      throw error;
    }
    return lab;
  }

  get lab(): Lab {
    return this.interop.lab;
  }

  /** The first one is the lab's own. */
  private async addDevice(name: string, index: number, mountOptions?: string): Promise<void> {
    const { lab } = this;
    const link = `c${index}`;
    const [address, forwarder] = [`10.8.${index}.2`, `10.8.${index}.1`];
    let { ctl: netns, mountPoint } = lab;
    if (index > 0) {
      netns = new Netns('ctl');
      this.namespaces.push(netns);
      connectVeth(
        { netns, name: 'f0', addresses: [`${address}/24`] },
        { netns: lab.fwd, name: link, addresses: [`${forwarder}/24`] },
      );
      const options = mountOptions === undefined ? {} : { mountOptions };
      mountPoint = await lab.addControl(name, { netns, forwarder, ...options });
    }
    // IPv6 between the devices is link-local, as on every link (RFC 4291, 2.1).
    netns.run(`ip addr add fe80::8:2/64 dev f0 nodad`);
    lab.fwd.run(`ip addr add fe80::8:1/64 dev ${link} nodad`);
    this.devices.push({ name, netns, address, forwarder, link, mountPoint });
  }

  device(name: string): Device {
    const device = this.devices.find((one) => one.name === name);
    if (device === undefined) throw new Error(`no control device ${name}`);
    return device;
  }

  fwdfs(device: Device, ...words: string[]): Promise<string> {
    return this.interop.fwdfsAt(device.netns, device.mountPoint, ...words);
  }

  // --- services ---

  /**
   * A virtual IF of eth0, or the virtual IP address, on each control device. Servers are started after that.
   *
   * @param more options of the command
   */
  async offer(mode: Mode, ...more: string[]): Promise<void> {
    for (const device of this.devices) await this.offerAt(device, mode, VIP, ...more);
  }

  /** On one control device. */
  async offerAt(device: Device, mode: Mode, vip = VIP, ...more: string[]): Promise<void> {
    await this.fwdfs(device, ...symbolOf(mode, 'add', vip), ...more);
  }

  async withdraw(mode: Mode): Promise<void> {
    for (const device of this.devices) await this.fwdfs(device, ...symbolOf(mode, 'remove', VIP));
  }

  /** nginx on a control device, with the device's name in the header X-Server. */
  web(device: Device, files: Readonly<Record<string, string | Buffer>> = {}): Daemon {
    const words = nginx(this.interop, { 'index.html': PAGE, ...files }, device.name);
    return this.interop.daemon(device.netns, words);
  }

  /** nginx on each control device, and the forwarder knows all of them. */
  async webs(): Promise<Daemon[]> {
    const daemons = this.devices.map((device) => this.web(device));
    await this.untilRules(this.devices.length);
    return daemons;
  }

  /** A server that answers datagrams to `address` with the device's name and what they say, when it is bound. */
  async echo(device: Device, port: number, address = VIP): Promise<Daemon> {
    const daemon = this.interop.daemon(device.netns, [
      process.execPath,
      ECHO,
      'server',
      address,
      String(port),
      device.name,
    ]);
    await daemon.until(/bound/);
    return daemon;
  }

  /** A client of such servers in the node's namespace: one socket, a datagram every `everyMs`. Its end: see echo.ts. */
  echoClient(port: number, everyMs: number, bytes: number, address = VIP): Program {
    const numbers = [port, everyMs, bytes].map(String);
    return this.lab.program([...this.lab.node.prefix, process.execPath, ECHO, 'client', address, ...numbers], null);
  }

  /** Waits until so many active rules of the port are at the forwarder, asked through `through`. */
  async untilRules(count: number, port = 80, through = this.devices[0], timeoutMs = 10_000): Promise<void> {
    let last: string[][] = [];
    await until(
      async () => {
        last = await this.lab.table('distribution', through?.mountPoint);
        return last.filter((row) => row[1]?.endsWith(`:${port}`) === true && row.includes('active')).length === count;
      },
      timeoutMs,
      () => `rules: ${last.map((row) => row.join(' ')).join('\n')}\n${this.lab.forwarder?.log ?? ''}`,
    );
  }

  // --- failures ---

  /** Kills a control device's daemon at once. Its servers go on, but nobody speaks for them. */
  killDevice(device: Device): void {
    signalProcess(this.lab.daemonOf(device.name).pid, 'SIGKILL');
  }

  /**
   * Cuts a link. `down`: as if the cable was pulled; `silent`: both ends find their interface as before, and nothing arrives.
   */
  cut(device: Device, how: 'down' | 'silent'): void {
    const ends = [
      [this.lab.fwd, device.link],
      [device.netns, 'f0'],
    ] as const;
    if (how === 'down') this.lab.fwd.run(`ip link set ${device.link} down`);
    else for (const [netns, name] of ends) dropAll(netns, name);
  }

  async stop(): Promise<void> {
    await this.interop.stop();
    for (const netns of this.namespaces) netns.remove();
  }
}

function symbolOf(mode: Mode, what: 'add' | 'remove', vip: string): string[] {
  return mode === 'socket' ? ['vif', what, 'fwd1/eth0'] : ['vip', what, `fwd1/${vip}`];
}

/** Has the interface drop what arrives. */
function dropAll(netns: Netns, name: string): void {
  netns.run('nft add table netdev cut');
  netns.run(`nft add chain netdev cut ${name} { type filter hook ingress device ${name} priority 0 ; policy drop ; }`);
}
