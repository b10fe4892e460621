/**
 * The mix: several workers at once do at random what programs do, while packets flow; then everything is as it began.
 *
 *     node n0 ===== eth0 forwarder c0 ===== f0 control device <--- workers: open, read, write, poll, fsync, dup, fork,
 *     500 frames a second                                          close, SIGKILL, SIGSTOP, names, tables
 */
import { readdirSync, readFileSync } from 'node:fs';
import { run, until } from '../lab.js';
import type { Scene } from './scene.js';
import { MIX_WORKER } from './mix-worker.js';

export interface MixFigures {
  /** Calls, and errors that may be, by what was called. */
  readonly calls: Readonly<Record<string, number>>;
  readonly errors: Readonly<Record<string, number>>;
  /** Errors that may not be. */
  readonly unexpected: Readonly<Record<string, number>>;
  /** Tables, names, descriptors, packet sockets and memberships, after a warm-up and at the end. */
  readonly before: string;
  readonly after: string;
  /** Resident memory of forwarder and control device after the warm-up and at the end. */
  readonly memoryBefore: readonly number[];
  readonly memoryAfter: readonly number[];
}

type Counts = Pick<MixFigures, 'calls' | 'errors' | 'unexpected'>;

const TRAFFIC = `
import random, socket, sys, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('n0', 0))
mac = bytes.fromhex(sys.argv[1].replace(':', ''))
kinds = (b'\\x88\\xb5', b'\\x08\\x06', bytes.fromhex('08004500002e000000004011000001020304' '0a090001' '02080208001a0000'))
while True:
    frame = mac + b'\\2\\0\\0\\0\\0\\1' + random.choice(kinds)
    s.send(frame + bytes(random.choice((60, 200, 1514)) - len(frame)))
    time.sleep(0.002)
`;

function pids(scene: Scene): number[] {
  return [scene.lab.forwarder?.pid ?? 0, scene.lab.control?.pid ?? 0];
}

function memoryMiB(scene: Scene): number[] {
  return pids(scene).map(
    (pid) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024,
  );
}

async function state(scene: Scene): Promise<string> {
  const { fwd } = scene.lab;
  const [link] = JSON.parse(fwd.run('ip -d -j link show eth0')) as { promiscuity: number; allmulti: number }[];
  return [
    await scene.traces(),
    `descriptors ${pids(scene)
      .map((pid) => readdirSync(`/proc/${pid}/fd`).length)
      .join(' + ')}`,
    `packet sockets ${fwd.run('ss -0 -n -a -H').trim().split('\n').length}`,
    `promiscuity ${link?.promiscuity} allmulti ${link?.allmulti}`,
    fwd.run('ip maddr show dev eth0'),
  ].join('\n');
}

/** Runs the workers to their end. */
async function work(scene: Scene, seconds: number, seeds: readonly number[]): Promise<Counts> {
  const sum: Record<keyof Counts, Record<string, number>> = { calls: {}, errors: {}, unexpected: {} };
  const words = ['/usr/bin/python3', '-c', MIX_WORKER, scene.lab.mountPoint, String(seconds)];
  const results = await Promise.all(
    seeds.map((seed) => run([...words, String(seed), scene.node], '', seconds * 1000 + 60_000)),
  );
  for (const { status, signal, stdout, stderr } of results) {
    if (status !== 0) throw new Error(`a worker ended with ${status ?? signal}: ${stderr}`);
    const counts = JSON.parse(stdout.toString()) as Counts;
    for (const kind of ['calls', 'errors', 'unexpected'] as const) {
      for (const [key, count] of Object.entries(counts[kind])) sum[kind][key] = (sum[kind][key] ?? 0) + count;
    }
  }
  return sum;
}

/** @param seed the first worker's; the others count on from it */
export async function mix(scene: Scene, seconds: number, seed: number, workers = 4): Promise<MixFigures> {
  const { lab } = scene;
  const traffic = lab.program([...lab.node.prefix, '/usr/bin/python3', '-c', TRAFFIC, scene.eth0]);
  const seeds = Array.from({ length: workers }, (_, index) => seed + index);
  const idle = await scene.traces();
  // What is allocated once is allocated now. Who closes does not wait for the release.
  await work(scene, seconds / 4, seeds);
  await until(async () => (await scene.traces()) === idle);
  const [before, memoryBefore] = [await state(scene), memoryMiB(scene)];
  const counts = await work(
    scene,
    seconds,
    seeds.map((one) => one + workers),
  );
  let after = '';
  await until(async () => (after = await state(scene)) === before).catch(() => undefined);
  const memoryAfter = memoryMiB(scene);
  await traffic.kill();
  return { ...counts, before, after, memoryBefore, memoryAfter };
}
