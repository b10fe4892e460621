/**
 * `npm run bench -- balance [peers|failover] [encapsulation|vip|nftables|haproxy-tcp|haproxy-http …] [rounds=N]`: one address
 * for the web servers of two control devices.
 *
 * `peers`: requests/s, latency and bulk of encapsulation, of virtual IP, of plain nftables DNAT and of HAProxy, in turn in one
 * run, with medians and the spread over the rounds; the whole machine's processor seconds include those of whoever else
 * uses it. `failover`: how long requests fail when a server, a control device or a link dies under load.
 */
import { truncateSync } from 'node:fs';
import { BalanceLab } from '../test/support/balance.js';
import { shell } from '../test/support/lab.js';
import { benchFailover } from './support/balance-failover.js';
import { cpuOf, LARGE_BYTES, machineBusySeconds, MEASURES } from './support/balance-measures.js';
import { type Running, type Setup, SETUPS } from './support/balance-setups.js';
import { row } from './support/report.js';

const DEVICES = 2;
const ROUNDS = 3;
const PARTS: readonly string[] = ['peers', 'failover'];
const FIRST_CLIENT = 20;
/** HAProxy listens at the forwarder itself; a rule of ours beats `host`. */
const ETH0 = '{ unmatched: discard, host: [icmp, "tcp:80"] }';

/** Of one measure and setup, a value for each round. */
interface Values {
  readonly values: number[];
  /** Processors that were busy with it: what stands between client and server, and the whole machine. */
  readonly between: number[];
  readonly machine: number[];
}

/** By measure, then by setup. */
type Results = Map<string, Map<string, Values>>;

function valuesOf(results: Results, what: string, setup: string): Values {
  const bySetup = results.get(what) ?? new Map<string, Values>();
  results.set(what, bySetup);
  const values = bySetup.get(setup) ?? { values: [], between: [], machine: [] };
  bySetup.set(setup, values);
  return values;
}

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN;

async function round(lab: BalanceLab, { pids }: Running, setup: string, results: Results): Promise<void> {
  // Code that Node has not compiled yet is not what is measured.
  for (const measure of [MEASURES[0], MEASURES[0], MEASURES.at(-1)]) await measure?.measure(lab);
  for (const measure of MEASURES) {
    const [cpu, machine, start] = [cpuOf(pids), machineBusySeconds(), performance.now()];
    const measured = await measure.measure(lab);
    const seconds = (performance.now() - start) / 1000;
    const between = (cpuOf(pids) - cpu) / seconds;
    const busy = (machineBusySeconds() - machine) / seconds;
    for (const [index, { value, errors }] of measured.entries()) {
      const name = measure.names[index] ?? '';
      const of = valuesOf(results, name, setup);
      of.values.push(value);
      of.between.push(between);
      of.machine.push(busy);
      if (errors > 0) row(`${setup}: ${name}`, `${errors} errors`, 'none');
    }
  }
}

function print(results: Results): void {
  for (const [what, bySetup] of results) {
    process.stdout.write(`\n${what}\n`);
    for (const [setup, { values, between, machine }] of bySetup) {
      const spread = [Math.min(...values), Math.max(...values)].map((value) => value.toFixed(2)).join(' to ');
      row(
        `  ${setup}`,
        `median ${median(values).toFixed(2)}, ${spread}`,
        `processors: ${median(between).toFixed(2)} between, ${median(machine).toFixed(2)} of the machine`,
      );
    }
  }
  process.stdout.write('\n');
  const [vip, nftables, haproxy, , encapsulation] = SETUPS.map(({ name }) => name);
  const [perConnection = '', keepAlive = '', , , one = '', many = ''] = MEASURES.flatMap(({ names }) => names);
  // Of each round, since the machine is not the same in all of them.
  const ratio = (what: string, ours = '', peer = '', goal = ''): void => {
    const [a = [], b = []] = [ours, peer].map((setup) => results.get(what)?.get(setup)?.values);
    if (a.length === 0 || a.length !== b.length) return;
    const ratios = a.map((value, index) => value / (b[index] ?? NaN));
    const spread = [Math.min(...ratios), Math.max(...ratios)].map((value) => value.toFixed(2)).join(' to ');
    row(`${ours} / ${peer}: ${what}`, `median ${median(ratios).toFixed(2)} x, ${spread}`, goal);
  };
  for (const what of [perConnection, keepAlive, one, many]) ratio(what, vip, nftables, '0.9 x');
  for (const what of [perConnection, keepAlive]) ratio(what, encapsulation, haproxy, '1 x');
  for (const what of [one, many]) ratio(what, encapsulation, haproxy, '0.6 x');
  const plain = Object.fromEntries([...results].map(([what, bySetup]) => [what, Object.fromEntries(bySetup)]));
  process.stdout.write(`${JSON.stringify(plain)}\n`);
}

/** An address that the client has not used before, so that what a setup remembers of a connection is not met by the next one. */
function changeClient({ lab }: BalanceLab, number: number): void {
  const address = `10.9.0.${FIRST_CLIENT + number}`;
  lab.node.run(`ip address add ${address}/24 dev n0`);
  lab.node.run(`ip route replace 10.9.0.0/24 dev n0 src ${address}`);
}

/** All setups in a lab of their own. @param skipped names of those that can't be set up; it grows */
async function benchRound(setups: readonly Setup[], results: Results, skipped: Set<string>): Promise<void> {
  const lab = await BalanceLab.start(DEVICES, { eth0: ETH0 });
  try {
    for (const device of lab.devices) {
      const large = lab.interop.file(`${device.name}-web/www/large`, '');
      truncateSync(large, LARGE_BYTES);
      // In memory from here on: the first setup would wait for the file system, and the others would not.
      await shell(`cat ${large} > /dev/null`);
      lab.web(device);
    }
    for (const [index, setup] of setups.entries()) {
      if (skipped.has(setup.name)) continue;
      let running: Running;
      try {
        running = await setup.begin(lab);
      } catch (error) {
        skipped.add(setup.name);
        row(setup.name, `skipped: ${error instanceof Error ? (error.message.split('\n', 1)[0] ?? '') : ''}`);
        continue;
      }
      changeClient(lab, index);
      await round(lab, running, setup.name, results);
      await running.end();
    }
  } finally {
    await lab.stop();
  }
}

/** Another one is first in each round: the first one warms the machine for the others. Encapsulation stays last. */
function inTurn(setups: readonly Setup[], number: number): Setup[] {
  const others = setups.filter((setup) => setup !== SETUPS.at(-1));
  const first = number % Math.max(others.length, 1);
  const last = setups.filter((setup) => setup === SETUPS.at(-1));
  return [...others.slice(first), ...others.slice(0, first), ...last];
}

async function benchPeers(rounds: number, setups: readonly Setup[]): Promise<void> {
  const results: Results = new Map();
  const skipped = new Set<string>();
  for (let i = 0; i < rounds; i++) await benchRound(inTurn(setups, i), results, skipped);
  print(results);
}

export async function benchBalance(parts: readonly string[]): Promise<void> {
  const rounds = Number(parts.find((part) => part.startsWith('rounds='))?.slice('rounds='.length) ?? ROUNDS);
  const setups = SETUPS.filter(({ key }) => parts.includes(key));
  const wants = (part: string): boolean => parts.includes(part) || !parts.some((one) => PARTS.includes(one));
  if (wants('peers')) await benchPeers(rounds, setups.length === 0 ? SETUPS : setups);
  if (wants('failover')) await benchFailover(rounds);
}
