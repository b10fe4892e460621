/**
 * `npm run bench -- file`: how fast a remote interface is as a file, on one machine with namespaces (test/support/lab.ts).
 * Prints a table. Nothing here asserts: figures are written down in ARCHITECTURE.md.
 */
import { join } from 'node:path';
import { Lab, shell } from '../test/support/lab.js';
import { benchListing, benchRules, benchSignals } from './ends.js';
import { cpuSeconds, Helper, here, residentKb, row } from './support/report.js';

async function mac(lab: Lab): Promise<string> {
  return (await shell(`cat ${lab.file('.if/eth0/address')}`)).stdout.toString().trim();
}

function send(lab: Lab, address: string, rate: number, bytes: number, seconds: number): Helper {
  return new Helper(
    'send.js',
    `/run/netns/${lab.node.name}`,
    'n0',
    address,
    String(rate),
    String(bytes),
    String(seconds),
  );
}

interface In {
  readonly sent: number;
  readonly got: number;
  readonly rate: number;
  readonly drops: string;
}

const DROPS = ['drop_socket_full', 'drop_no_credit', 'drop_reader_slow', 'drop_suspended', 'drop_no_rule'];

async function readIn(lab: Lab, address: string, rate: number, bytes: number, seconds: number): Promise<In> {
  const before = await Promise.all(DROPS.map((name) => lab.counter(name)));
  const reader = new Helper('read.js', lab.file('eth0:udp'));
  await reader.line();
  const pids = [lab.forwarder?.pid ?? 0, lab.control?.pid ?? 0];
  const cpu = pids.map(cpuSeconds);
  const sender = send(lab, address, rate, bytes, seconds);
  const { sent, seconds: took } = JSON.parse(await sender.line()) as { sent: number; seconds: number };
  const busy = pids.map((pid, i) => Math.round(((cpuSeconds(pid) - (cpu[i] ?? 0)) / took) * 100));
  let got = 0;
  for (let tries = 0; tries < 20; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    got = (JSON.parse(await reader.ask()) as { frames: number }).frames;
    if (got >= sent) break;
  }
  await reader.end();
  const after = await Promise.all(DROPS.map((name) => lab.counter(name)));
  const drops = DROPS.map((name, i) => `${name.slice(5)} ${(after[i] ?? 0) - (before[i] ?? 0)}`)
    .filter((text) => !text.endsWith(' 0'))
    .join(', ');
  return { sent, got, rate: sent / took, drops: `${drops || 'no drops'}; cpu ${busy.join('+')} %` };
}

/** The highest rate that arrives whole, between two bounds, in a few steps. */
async function highest(
  low: number,
  high: number,
  steps: number,
  passes: (rate: number) => Promise<boolean>,
): Promise<number> {
  let good = 0;
  for (let step = 0; step < steps; step++) {
    const rate = step === 0 ? low : (low + high) / 2;
    if (await passes(rate)) {
      good = rate;
      low = rate;
    } else high = rate;
  }
  return good;
}

async function throughputIn(lab: Lab, address: string): Promise<void> {
  for (const bytes of [128, 1400]) {
    const at = await readIn(lab, address, 100_000, bytes, 3);
    row(
      `in, ${bytes} B, paced 100k/s for 3 s: got of sent`,
      `${at.got} of ${at.sent} (${Math.round(at.rate)}/s)`,
      at.drops,
    );
    const best = await highest(60_000, 500_000, 7, async (rate) => {
      const { sent, got, rate: real } = await readIn(lab, address, rate, bytes, 2);
      return got === sent && real > rate * 0.98;
    });
    row(
      `in, ${bytes} B, highest rate without loss (2 s runs)`,
      `${Math.round(best)} frames/s`,
      bytes === 128 ? '100,000' : '',
    );
  }
}

async function throughputOut(lab: Lab): Promise<void> {
  for (const bytes of [128, 1400]) {
    const frames = bytes === 128 ? 500_000 : 300_000;
    const before = await lab.counter('tx_packets');
    const result = await shell(
      `${process.execPath} ${join(here, 'support/write.js')} ${lab.file('eth0')} ${frames} ${bytes}`,
      60_000,
    );
    const { seconds } = JSON.parse(result.stdout.toString()) as { seconds: number };
    const left = (await lab.counter('tx_packets')) - before;
    row(
      `out, ${bytes} B, ${frames} frames, write to close`,
      `${Math.round(frames / seconds)} frames/s, ${left} left`,
      bytes === 128 ? '100,000' : '',
    );
  }
}

async function latencies(lab: Lab, address: string): Promise<void> {
  const probe = async (mode: string, count: number): Promise<string> => {
    const words = [
      join(here, 'support/latency.js'),
      mode,
      lab.file(''),
      `/run/netns/${lab.node.name}`,
      address,
      String(count),
    ];
    const result = await shell(`${process.execPath} ${words.join(' ')}`, 120_000);
    if (result.status !== 0) throw new Error(result.stderr);
    return result.stdout.toString().trim();
  };
  row('open to rule, 1,000, daemons just started', await probe('open', 1000), 'p99 5 ms');
  await probe('open', 3000);
  row('open to rule, idle, 1,000', await probe('open', 1000), 'p99 5 ms');
  row('close to gone, idle, 1,000', await probe('gone', 1000), 'p99 10 ms');
  row('lone packet to the reader, 1,000', await probe('lone', 1000), 'p50 1 ms');
  const reader = new Helper('read.js', lab.file('eth0:udp'));
  await reader.line();
  const sender = send(lab, address, 50_000, 128, 100);
  row('open to rule, 50,000 frames/s flowing, 1,000', await probe('open', 1000), 'p99 5 ms');
  row('close to gone, 50,000 frames/s flowing, 1,000', await probe('gone', 1000), 'p99 10 ms');
  sender.child.kill();
  await reader.end();
}

async function memory(lab: Lab, address: string): Promise<void> {
  const pids = [lab.forwarder?.pid ?? 0, lab.control?.pid ?? 0];
  const reader = new Helper('read.js', lab.file('eth0:udp'));
  await reader.line();
  const figures: string[] = [];
  let total = 0;
  for (let part = 0; part < 5; part++) {
    const sender = send(lab, address, 100_000, 128, 20);
    total += (JSON.parse(await sender.line()) as { sent: number }).sent;
    figures.push(pids.map((pid) => Math.round(residentKb(pid) / 1024)).join('+'));
  }
  const got = (JSON.parse(await reader.ask()) as { frames: number }).frames;
  await reader.end();
  row(`resident MiB after each fifth of ${total} frames (got ${got})`, figures.join('  '), 'flat');
}

export async function benchFile(parts: readonly string[]): Promise<void> {
  const wanted = (part: string): boolean => parts.length === 0 || parts.includes(part);
  const lab = await Lab.start();
  try {
    const address = await mac(lab);
    if (wanted('latency')) await latencies(lab, address);
    if (wanted('in')) await throughputIn(lab, address);
    if (wanted('out')) await throughputOut(lab);
    if (wanted('signals')) await benchSignals(lab);
    if (wanted('memory')) await memory(lab, address);
  } finally {
    await lab.stop();
  }
  if (wanted('rules')) await benchRules();
  if (wanted('listing')) await benchListing();
}
