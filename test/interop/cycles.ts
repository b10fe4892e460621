/** Daemons that start and are killed a hundred times on one virtual IF: what is left is what was there before the first. */
import { readdirSync } from 'node:fs';
import t from 'tap';
import { birdConfig, BirdEnd } from '../support/bird.js';
import { DEVICE, InteropLab, nginx } from '../support/interop.js';
import { type Daemon, until } from '../support/lab.js';
import { withoutRoot } from '../support/netns.js';

const CYCLES = 100;

/** All that a cycle could leave, on both sides. */
async function remains(lab: InteropLab): Promise<Record<string, unknown>> {
  const { control, ctl, forwarder, fwd } = lab.lab;
  const says = async (netns: typeof ctl, ...words: string[]): Promise<string> => lab.says(netns, ...words);
  const descriptors = (pid: number | undefined): number => readdirSync(`/proc/${pid}/fd`).length;
  return {
    rules: await lab.rules(),
    distribution: (await lab.lab.table('distribution')).map((row) => row.slice(0, 3)),
    reception: (await lab.lab.table('reception')).length,
    devices: await says(ctl, 'ip', '-br', 'link'),
    routes: await says(ctl, 'ip', 'route', 'show', 'table', 'all'),
    policies: await says(ctl, 'ip', 'rule'),
    groups: await says(fwd, 'ip', 'maddr', 'show', 'dev', 'eth0'),
    admission: withoutCounts(await says(ctl, 'nft', 'list', 'ruleset')),
    quiet: withoutCounts(await says(fwd, 'nft', 'list', 'ruleset')),
    controlDescriptors: descriptors(control?.pid),
    forwarderDescriptors: descriptors(forwarder?.pid),
  };
}

const withoutCounts = (ruleset: string): string => ruleset.replaceAll(/packets \d+ bytes \d+/g, '');

interface Subject {
  readonly name: string;
  /** The rule by which it is known to be served. */
  readonly rule: string;
  start(lab: InteropLab): Daemon;
}

const SUBJECTS: readonly Subject[] = [
  { name: 'nginx', rule: 'tcp:80', start: (lab) => lab.daemon(lab.lab.ctl, nginx(lab, { 'index.html': 'x' })) },
  {
    name: 'dnsmasq',
    rule: 'udp:53',
    start: (lab) =>
      lab.daemon(lab.lab.ctl, [
        ...['dnsmasq', '--keep-in-foreground', '--conf-file=/dev/null', '--user=root', '--pid-file=', '--no-resolv'],
        ...['--no-hosts', '--log-facility=-', `--interface=${DEVICE}`, '--bind-interfaces'],
        ...['--dhcp-range=10.9.0.100,10.9.0.110,1h', `--dhcp-leasefile=${lab.lab.folder}/leases`],
      ]),
  },
  {
    name: 'BIRD',
    rule: 'ip:89',
    start: (lab) =>
      new BirdEnd(lab, lab.lab.ctl, 'cycles', birdConfig('ospf', '10.9.0.1', DEVICE, '10.77.1.0/24')).daemon,
  },
  {
    name: 'lldpd',
    rule: '*',
    start: (lab) => lab.daemon(lab.lab.ctl, ['lldpd', '-d', '-u', `${lab.lab.folder}/l.s`, '-I', DEVICE, '-C', DEVICE]),
  },
];

for (const { name, rule, start } of SUBJECTS) {
  t.test(`${name}, started and killed ${CYCLES} times, leaves nothing`, { skip: withoutRoot }, async (t) => {
    const lab = await InteropLab.start();
    t.teardown(() => lab.stop());
    await lab.addVif();
    const served = async (there: boolean): Promise<void> => {
      await until(
        async () => (await lab.rules()).some((one) => one === rule || one.endsWith(rule.replace(/^\w+/, ''))) === there,
        20_000,
        () => lab.lab.control?.log.slice(-2000) ?? '',
      );
    };
    const cycle = async (): Promise<void> => {
      const daemon = start(lab);
      await served(true);
      await daemon.end('SIGKILL');
      await until(async () => (await lab.rules()).length === 0, 20_000);
    };
    // What is made on first use is there from then on.
    await cycle();
    await settle(lab);
    const before = await remains(lab);
    for (let i = 1; i < CYCLES; i++) await cycle();
    await settle(lab);
    t.same(await remains(lab), before);
  });
}

/** Nothing is on its way any more. */
async function settle(lab: InteropLab): Promise<void> {
  await until(async () => (await lab.lab.table('distribution')).length === 1, 20_000);
  await until(async () => (await lab.lab.ownTable('vif')).every((row) => row.at(-1) === '-'), 20_000);
}
