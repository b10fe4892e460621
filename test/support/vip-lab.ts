/**
 * Virtual IP addresses without a control daemon: the forwarder's part runs in the test, in its namespace, and control devices
 * are namespaces that are set up by hand, as the real one does it.
 *
 *     client                      forwarder                     control device N: serves 10.9.0.1 and fd09::1
 *     n0 10.9.0.2 fd09::2 ------- eth0 10.9.0.1 fd09::1
 *                                 cN 10.8.N.1 fe80::1 --------- f0 10.8.N.2 fe80::2
 *
 * Servers and clients are children; a server tells its name and whom it sees.
 */
import { execFileSync } from 'node:child_process';
import { FwdfsError } from '../../src/base/errors.js';
import { parseIpv4, parseIpv6 } from '../../src/packet/ip-address.js';
import { parseProtocolAddress } from '../../src/packet/protocol-address.js';
import type { Rule } from '../../src/forwarder/rule.js';
import type { Peer } from '../../src/forwarder/peer.js';
import { NeighbourTable } from '../../src/forwarder/neighbours.js';
import { VipConversion } from '../../src/forwarder/vip-conversion.js';
import { makePeer, makeRule } from './fake-peer.js';
import { Program, run } from './lab.js';
import { keepLog } from './log.js';
import { connectVeth, Netns } from './netns.js';

export const VIP4 = '10.9.0.1';
export const VIP6 = 'fd09::1';
const bytes = (text: string): Buffer => parseIpv4(text) ?? parseIpv6(text) ?? Buffer.alloc(0);

/** TCP: says `NAME REMOTE`, then gives back what it gets. UDP: answers `NAME REMOTE LENGTH`. */
const SERVER = `
const [name, port] = process.argv.slice(1);
const net = require('node:net'), dgram = require('node:dgram');
const tell = (address) => address.replace('::ffff:', '');
net.createServer((socket) => {
  socket.on('error', (error) => console.log('tcp ' + error.code));
  socket.on('end', () => socket.end());
  socket.write(name + ' ' + tell(socket.remoteAddress) + '\\n');
  if (process.argv[3]) socket.write(Buffer.alloc(Number(process.argv[3])));
  socket.on('data', (data) => socket.write(data));
}).listen({ port: Number(port), host: '::' }, () => {
  for (const [type, address] of [['udp4', '${VIP4}'], ['udp6', '${VIP6}']]) {
    const udp = dgram.createSocket({ type, ipv6Only: type === 'udp6' });
    udp.on('message', (data, from) => udp.send(name + ' ' + tell(from.address) + ' ' + data.length, from.port, from.address));
    udp.bind(Number(port), address, () => type === 'udp6' && console.log('serves'));
  }
});`;

/** One connection after the other; prints the line that each got, or the code of its error. */
const CONNECT = `
const [host, port, count] = process.argv.slice(1);
const net = require('node:net');
const one = () => new Promise((resolve) => {
  const socket = net.connect({ host, port: Number(port), timeout: 2000 });
  socket.on('data', (data) => { resolve(data.toString().split('\\n')[0]); socket.destroy(); });
  socket.on('error', (error) => resolve(error.code));
  socket.on('timeout', () => { resolve('ETIMEDOUT'); socket.destroy(); });
  socket.on('close', () => resolve('closed'));
});
(async () => { for (let i = 0; i < Number(count); i++) console.log(await one()); })();`;

/** Keeps a connection, and prints what it gets, and how it ends. */
const HOLD = `
const [host, port] = process.argv.slice(1);
const socket = require('node:net').connect(Number(port), host);
socket.on('data', (data) => console.log(data.toString().trim()));
socket.on('error', (error) => console.log(error.code));
socket.on('close', () => console.log('closed'));
process.stdin.on('data', (data) => socket.write(data));`;

/** Datagrams from one socket, one for each line of stdin, which is its length; prints the answers. */
const DATAGRAMS = `
const [host, port] = process.argv.slice(1);
const udp = require('node:dgram').createSocket(host.includes(':') ? 'udp6' : 'udp4');
udp.on('message', (data) => console.log(data.toString()));
udp.on('error', (error) => console.log(error.code));
udp.connect(Number(port), host, () => console.log('bound'));
process.stdin.on('data', (data) => udp.send(Buffer.alloc(Number(data.toString().split('\\n')[0]))));`;

export class HandControl {
  readonly netns: Netns;
  readonly number: number;
  readonly peer: Peer;
  readonly name: string;
  readonly mac: string;

  constructor(lab: VipLab, number: number) {
    this.number = number;
    this.name = `ctl${number}`;
    this.netns = new Netns(`-vf-c${number}`);
    connectVeth(
      { netns: this.netns, name: 'f0', addresses: [`10.8.${number}.2/24`, 'fe80::2/64'] },
      { netns: lab.fwd, name: `c${number}`, addresses: [`10.8.${number}.1/24`, 'fe80::1/64'] },
    );
    this.mac = macOf(this.netns, 'f0');
    this.peer = makePeer(this.name, `10.8.${number}.2`).peer;
  }

  sender(vip: string): string {
    return vip === VIP4 ? `169.254.7.${this.number}` : `fdfd::7:${this.number}`;
  }

  nextHop(vip: string): string {
    return vip === VIP4 ? `10.8.${this.number}.2` : 'fe80::2';
  }

  /** What the kernel of a control device has for the addresses. */
  setUp(): void {
    const { netns } = this;
    netns.run(`ip addr add ${VIP4}/32 dev lo`);
    netns.run(`ip addr add ${VIP6}/128 dev lo nodad`);
    netns.run(`ip rule add from ${VIP4} lookup 100`);
    netns.run(`ip -6 rule add from ${VIP6} lookup 100`);
    netns.run(`ip route add default via 10.8.${this.number}.1 dev f0 table 100`);
    netns.run('ip -6 route add default via fe80::1 dev f0 table 100');
    nft(
      netns,
      `table inet hand {
        chain prerouting {
          type nat hook prerouting priority dstnat;
          ip daddr ${this.sender(VIP4)} dnat ip to ${VIP4}
          ip6 daddr ${this.sender(VIP6)} dnat ip6 to ${VIP6}
        }
        chain postrouting {
          type nat hook postrouting priority srcnat;
          oifname "f0" ip saddr ${VIP4} snat ip to ${this.sender(VIP4)}
          oifname "f0" ip6 saddr ${VIP6} snat ip6 to ${this.sender(VIP6)}
        }
      }`,
    );
  }
}

export function macOf(netns: Netns, name: string): string {
  return /link\/ether ([0-9a-f:]{17})/.exec(netns.run(`ip link show dev ${name}`))?.[1] ?? '';
}

export function nft(netns: Netns, script: string): string {
  return execFileSync('nsenter', [`--net=/run/netns/${netns.name}`, 'nft', '-f', '-'], { input: script }).toString();
}

export class VipLab {
  readonly client = new Netns('-vf-n');
  readonly fwd = new Netns('-vf-f');
  readonly controls: HandControl[];
  readonly log = keepLog();
  private readonly neighbours = new NeighbourTable(this.log);
  vips: VipConversion;
  /** What was withdrawn: `PEER VIP CODE`. */
  readonly withdrawn: string[] = [];
  /** Why. */
  readonly reasons: string[] = [];
  /** See VipConversionOptions: of conversions that are made from now on. */
  times: { resumeTime?: number; placeTime?: number } = { placeTime: 0 };
  /** Addresses of eth0; null: it is not there. */
  addresses: string[] | null = [VIP4, VIP6];
  protocols = ['*'];
  rights: string[] = ['vip'];
  private readonly programs: Program[] = [];
  private readonly leave: () => void;

  /** @param controls how many @param handMade whether their kernels are set up */
  constructor(controls: number, handMade = true) {
    connectVeth(
      { netns: this.client, name: 'n0', addresses: ['10.9.0.2/24', 'fd09::2/64'] },
      { netns: this.fwd, name: 'eth0', addresses: [`${VIP4}/24`, `${VIP6}/64`] },
    );
    this.controls = Array.from({ length: controls }, (_, index) => new HandControl(this, index + 1));
    if (handMade) for (const control of this.controls) control.setUp();
    this.leave = this.fwd.enter();
    this.vips = this.conversion();
  }

  /** The forwarder dies and starts again. */
  async restart(): Promise<void> {
    this.vips = this.conversion();
    await this.vips.sweep();
  }

  /** One more of the same name, as a start after a crash has it. */
  conversion(): VipConversion {
    return new VipConversion({
      name: 'vf1',
      interfaces: {
        names: ['eth0'],
        find: (name) => {
          if (name !== 'eth0' || this.addresses === null) return undefined;
          const link = {
            index: 1,
            name,
            type: 1,
            address: '',
            mtu: 1500,
            flags: 0,
            operstate: 'up',
            master: 0,
          } as const;
          return {
            own: { mac: Buffer.alloc(6), ip: this.addresses.map(bytes) },
            present: { ...link, speed: 0, inet: [], inet6: [] },
          };
        },
      },
      grantOf: () => ({
        rights: new Set(this.rights.includes('vip') ? (['vip'] as const) : []),
        protocols: this.protocols.map((text) => parseProtocolAddress(text, { ranges: true })),
      }),
      neighbours: this.neighbours,
      peers: () => this.controls.map(({ peer }) => peer),
      withdraw: (peer, vip, reason, code) => {
        this.reasons.push(reason);
        if (!(vip instanceof Buffer)) throw new FwdfsError('internal', 'no address');
        this.withdrawn.push(`${peer.identity} ${vip.length === 4 ? VIP4 : VIP6} ${code}`);
      },
      log: this.log,
      ...this.times,
    });
  }

  control(number: number): HandControl {
    const control = this.controls[number - 1];
    if (control === undefined) throw new Error(`no control device ${number}`);
    return control;
  }

  /** The address and a rule for each protocol address, `tcp:80`. */
  async serve(number: number, vip: string, ...ports: readonly string[]): Promise<Rule[]> {
    const control = this.control(number);
    const { mac: link, peer } = control;
    await this.vips.register(peer, { vip, sender: control.sender(vip), nextHop: control.nextHop(vip), link });
    const rules = ports.map((port) => this.rule(number, vip, port));
    await Promise.all(rules.map((rule) => this.vips.ruleAdded(rule)));
    return rules;
  }

  rule(number: number, vip: string, port: string): Rule {
    const [protocol = '', of = ''] = port.split(':');
    const text = `${protocol}:${vip.includes(':') ? `[${vip}]` : vip}:${of}`;
    return makeRule(this.control(number).peer, text, { mode: 'vip', vip: bytes(vip) });
  }

  program(netns: Netns, words: readonly string[], input: string | null = null): Program {
    const program = new Program(['env', '-u', 'NODE_OPTIONS', ...netns.prefix, ...words], input);
    this.programs.push(program);
    return program;
  }

  /** @param flood bytes that it sends to each TCP client at once */
  async server(number: number, port = 80, flood = 0): Promise<Program> {
    const { netns, name } = this.control(number);
    const extra = flood > 0 ? [String(flood)] : [];
    const program = this.program(netns, [process.execPath, '-e', SERVER, name, String(port), ...extra]);
    await program.untilOutput((output) => output.includes('serves'));
    return program;
  }

  /** The lines that so many connections got. */
  async connect(host: string, count = 1, port = 80): Promise<string[]> {
    const words = ['env', '-u', 'NODE_OPTIONS', ...this.client.prefix, process.execPath, '-e', CONNECT];
    const { stdout, stderr } = await run([...words, host, String(port), String(count)], '', 60_000);
    if (stderr !== '') throw new Error(stderr);
    return stdout.toString().trimEnd().split('\n');
  }

  hold(host: string, port = 80): Program {
    return this.program(this.client, [process.execPath, '-e', HOLD, host, String(port)]);
  }

  async datagrams(host: string, port = 80): Promise<Program> {
    const program = this.program(this.client, [process.execPath, '-e', DATAGRAMS, host, String(port)]);
    await program.untilOutput((output) => output.includes('bound'));
    return program;
  }

  async stop(): Promise<void> {
    for (const { child } of this.programs) child.kill('SIGKILL');
    try {
      await this.vips.remove();
    } finally {
      this.neighbours.close();
      this.leave();
      for (const netns of [this.client, this.fwd, ...this.controls.map((control) => control.netns)]) netns.remove();
    }
  }
}
