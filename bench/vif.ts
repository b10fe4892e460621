/**
 * `npm run bench -- vif [sockets|routing|bulk]`: virtual IFs. How fast the rules of sockets come and go, how long two BIRDs
 * take beside a plain veth, what TCP and ping get.
 */
import { join } from 'node:path';
import { birdConfig, BirdEnd, type RoutingProtocol } from '../test/support/bird.js';
import { DEVICE, InteropLab } from '../test/support/interop.js';
import { shell, until } from '../test/support/lab.js';
import { connectVeth, Netns } from '../test/support/netns.js';
import { summary } from './support/frames.js';
import { here, row } from './support/report.js';

async function withLab(work: (lab: InteropLab) => Promise<void>): Promise<void> {
  const lab = await InteropLab.start();
  try {
    await work(lab);
  } finally {
    await lab.stop();
  }
}

async function sockets(lab: InteropLab): Promise<void> {
  await lab.addVif();
  const script = join(here, 'support/sockets-rules.js');
  for (const [kind, count] of [
    ['tcp', 300],
    ['udp', 300],
    ['raw', 50],
    ['packet', 50],
  ] as const) {
    for (const end of ['close', 'kill9']) {
      const words = [
        ...lab.lab.ctl.prefix,
        process.execPath,
        script,
        kind,
        end,
        lab.lab.file(''),
        String(end === 'close' ? count : 50),
      ];
      const { status, stderr, stdout } = await shell(words.join(' '), 120_000);
      if (status !== 0) throw new Error(stderr);
      row(
        `rule of a ${kind} socket, ${end}`,
        stdout.toString().trim(),
        kind === 'tcp' || kind === 'udp' ? 'p99 20 ms' : 'p99 20 ms, 1 s',
      );
    }
  }
}

/** Seconds until both are done, from the start of the second BIRD. */
async function converge(
  lab: InteropLab,
  protocol: RoutingProtocol,
  ends: readonly [Netns, string, string, Netns, string, string],
): Promise<number> {
  const [one, oneDevice, oneAddress, other, otherDevice, otherAddress] = ends;
  const first = new BirdEnd(lab, one, 'one', birdConfig(protocol, oneAddress, oneDevice, '10.77.1.0/24'));
  await until(async () => (await first.ask('show status')) !== '');
  const start = performance.now();
  const second = new BirdEnd(lab, other, 'two', birdConfig(protocol, otherAddress, otherDevice, '10.77.2.0/24'));
  const done = async (end: BirdEnd, route: string): Promise<boolean> => {
    const adjacent = protocol === 'rip' || /Full/.test(await end.ask('show ospf neighbors'));
    return adjacent && (await end.ask(`show route protocol ${protocol}1`)).includes(route);
  };
  await until(
    async () => (await done(first, '10.77.2.0/24')) && (await done(second, '10.77.1.0/24')),
    60_000,
    () => first.daemon.log,
  );
  const seconds = (performance.now() - start) / 1000;
  await first.daemon.end();
  await second.daemon.end();
  await until(async () => (await lab.rules()).length === 0);
  return seconds;
}

async function routing(lab: InteropLab): Promise<void> {
  const peer = new Netns('peer');
  try {
    const { node, ctl } = lab.lab;
    connectVeth(
      { netns: node, name: 'm0', addresses: ['10.10.0.2/24'] },
      { netns: peer, name: 'm1', addresses: ['10.10.0.1/24'] },
    );
    await lab.addVif();
    for (const protocol of ['ospf', 'rip'] as const) {
      const ours: number[] = [];
      const plain: number[] = [];
      for (let i = 0; i < 5; i++) {
        plain.push(await converge(lab, protocol, [node, 'm0', '10.10.0.2', peer, 'm1', '10.10.0.1']));
        ours.push(await converge(lab, protocol, [node, 'n0', '10.9.0.2', ctl, DEVICE, '10.9.0.1']));
      }
      const median = (values: number[]): number => values.toSorted((a, b) => a - b)[2] ?? 0;
      row(
        `${protocol}: until both BIRDs have each other's route, 5 in turn`,
        `median ${median(ours).toFixed(2)} s, plain veth ${median(plain).toFixed(2)} s: ${(median(ours) / median(plain)).toFixed(2)} x`,
        '1.2 x',
      );
    }
  } finally {
    peer.remove();
  }
}

async function bulk(lab: InteropLab): Promise<void> {
  const { node, ctl } = lab.lab;
  await lab.addVif();
  lab.daemon(node, ['iperf3', '-s']);
  await until(async () => (await lab.on(ctl, ['iperf3', '-c', '10.9.0.2', '-t', '1'])).status === 0);
  for (const [what, words] of [
    ['out', []],
    ['in', ['-R']],
  ] as const) {
    const said = JSON.parse(await lab.says(ctl, 'iperf3', '-J', '-c', '10.9.0.2', '-t', '5', ...words)) as {
      end: { sum_received: { bits_per_second: number } };
    };
    row(`TCP ${what}, one stream`, `${(said.end.sum_received.bits_per_second / 1e9).toFixed(2)} Gbit/s`);
  }
  const said = await lab.says(ctl, 'ping', '-q', '-c', '500', '-i', '0.005', '10.9.0.2');
  row('ping out, 500', /rtt .*/.exec(said)?.[0] ?? said);
  const times: number[] = [];
  for (let i = 0; i < 20; i++) {
    const start = performance.now();
    await lab.fwdfs('vif', 'remove', 'fwd1/eth0');
    await lab.addVif();
    times.push(performance.now() - start);
  }
  row('fwdfs vif remove and add, two commands', summary(times));
}

const PARTS: Readonly<Record<string, (lab: InteropLab) => Promise<void>>> = { sockets, routing, bulk };

export async function benchVif(parts: readonly string[]): Promise<void> {
  for (const [name, part] of Object.entries(PARTS)) {
    if (parts.length === 0 || parts.includes(name)) await withLab(part);
  }
}
