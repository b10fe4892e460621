/**
 * What holds of load balancing whichever way packets take, for test/e2e/balance.ts (virtual IFs) and test/e2e/balance-vip.ts
 * (virtual IP). One lab with four control devices; the cases come one after another, and each leaves the servers as the
 * next one needs them.
 */
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { BalanceLab, type Device, type Mode, VIP, VIP6 } from './balance.js';
import type { Echoed } from './echo.js';
import { type Daemon, type Program, signalProcess, until } from './lab.js';
import { Load, type LoadOptions, type LoadResult, now } from './load.js';
import { withoutRoot } from './netns.js';

/** 500 new connections a second. */
const LOAD: Omit<LoadOptions, 'host'> = { rate: 2000, perConnection: 4 };
/** The same without requests on connections that are there. */
const CONNECTIONS: Omit<LoadOptions, 'host'> = { rate: 500 };
/** Beyond five standard deviations of the share of one in two, among the connections of MEASURE_MS. */
const SHARE_TOLERANCE = 0.06;
const MEASURE_MS = 4000;
/** From the end of a server, and of a control device, to the last request that may fail, by when it was begun. */
const SERVER_MS = 100;
const DEVICE_MS = 1000;
/** Until its idle clients are told: of one that ended, and of one that is only silent, which counts as lost after 3 s. */
const RESET_MS = 2000;
const SILENT_RESET_MS = 4000;
/** From the end of a server until its datagrams go to another. */
const REHOME_MS = 1000;
const ECHO_PORT = 7;
/** More than the buffers of both kernels hold, so that a download without a reader does not end. */
const LARGE_BYTES = 32 << 20;
const IDLE_CLIENTS = 16;
const IDLE_CLIENT = fileURLToPath(new URL('./idle-client.js', import.meta.url));

const large = randomBytes(LARGE_BYTES);
const pause = (ms: number): Promise<void> => new Promise((resolve) => void setTimeout(resolve, ms));
const shaHex = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

class Scene {
  readonly lab: BalanceLab;
  private readonly webs = new Map<Device, Daemon>();

  constructor(lab: BalanceLab) {
    this.lab = lab;
  }

  /** nginx on these, and on no other. */
  async serve(names: readonly string[]): Promise<void> {
    for (const [device, web] of this.webs) {
      if (names.includes(device.name) && !web.ended) continue;
      this.webs.delete(device);
      await web.end();
    }
    for (const name of names) {
      const device = this.lab.device(name);
      if (!this.webs.has(device)) this.webs.set(device, this.lab.web(device, { large }));
    }
    await this.lab.untilRules(names.length);
  }

  webOf(name: string): Daemon {
    const web = this.webs.get(this.lab.device(name));
    if (web === undefined) throw new Error(`no server on ${name}`);
    return web;
  }

  load(host = VIP, options = LOAD): Promise<Load> {
    return Load.start(this.lab.lab, this.lab.lab.node, { ...options, host });
  }

  /** Load for a while without any event: it must not fail. */
  async quietLoad(t: Test, host = VIP): Promise<LoadResult> {
    const load = await this.load(host);
    await pause(MEASURE_MS);
    const result = await load.finish();
    t.same(result.failures().length, 0, result.describe(0));
    return result;
  }

  /** Load with an event in the middle of it. @returns when that was, and what came of the requests */
  async loadWith(options: Omit<LoadOptions, 'host'>, event: () => void): Promise<{ mark: number; result: LoadResult }> {
    const load = await this.load(VIP, options);
    await pause(1000);
    event();
    const mark = now();
    await pause(3500);
    return { mark, result: await load.finish() };
  }

  async stopEcho(client: Program): Promise<Echoed[]> {
    client.child.stdin?.end();
    const { stdout } = await client.ended;
    return JSON.parse(stdout.toString().trimEnd().split('\n').at(-1) ?? '[]') as Echoed[];
  }
}

/**
 * No request fails that is begun so long after the mark. A machine that other tests keep so busy that the load itself is late
 * is late with everything.
 */
function checkFailures(t: Test, result: LoadResult, mark: number, withinMs: number): void {
  t.same(result.failures(mark + withinMs + result.late).length, 0, result.describe(mark));
}

type Case = (t: Test, scene: Scene) => Promise<void>;

/** Shares of the servers are as they should be, and no request failed. */
function checkShares(t: Test, result: LoadResult, expected: Readonly<Record<string, number>>): void {
  const shares = result.shares();
  t.same([...shares.keys()], Object.keys(expected), 'they answer, and nobody else');
  for (const [name, share] of Object.entries(expected)) {
    const found = shares.get(name) ?? 0;
    t.ok(Math.abs(found - share) < SHARE_TOLERANCE, `${name}: ${found.toFixed(3)} of the requests, expected ${share}`);
  }
}

/** A control device goes under load, and with it its servers; it has idle clients, others have some too. */
async function loseDevice(
  t: Test,
  scene: Scene,
  name: string,
  load: Omit<LoadOptions, 'host'>,
  resetMs: number,
  event: (lab: BalanceLab, device: Device) => void,
): Promise<void> {
  const { lab } = scene;
  const device = lab.device(name);
  await scene.serve(['ctl1', 'ctl2', 'ctl3', 'ctl4'].slice(0, Number(name.slice('ctl'.length))));
  const words = [process.execPath, IDLE_CLIENT, VIP, '80', String(IDLE_CLIENTS)];
  const idle = lab.lab.program([...lab.lab.node.prefix, ...words]);
  await idle.untilOutput((output) => output.includes('open'));
  const ports = /open (.*)\n/.exec(idle.output.toString())?.[1]?.split(' ') ?? [];
  const peers = device.netns.run('ss -Htn state established sport = :80');
  const its = ports.filter((port) => new RegExp(`:${port}\\s`).test(peers)).toSorted();
  t.ok(
    its.length > 0 && its.length < ports.length,
    `${its.length} of ${ports.length} idle clients are those of ${name}`,
  );
  const { mark, result } = await scene.loadWith(load, () => event(lab, device));
  t.ok((result.shares(-Infinity, mark).get(name) ?? 0) > 0, 'it had its part');
  checkFailures(t, result, mark, DEVICE_MS);
  const ended = (): string[][] =>
    idle.output
      .toString()
      .split('\n')
      .slice(1, -1)
      .map((line) => line.split(' '));
  await until(() => ended().length >= its.length);
  t.same(
    ended()
      .map(([port, why]) => [port, why])
      .toSorted(),
    its.map((port) => [port, 'ECONNRESET']),
    'they are told, and nobody else',
  );
  const latest = Math.max(...ended().map(([, , time]) => Number(time) - mark));
  t.ok(latest < resetMs + result.late, `the last one after ${Math.round(latest)} ms`);
  await idle.kill();
}

const CASES: Readonly<Record<string, Case>> = {
  'two servers share the load': async (t, scene) => {
    await scene.serve(['ctl1', 'ctl2']);
    checkShares(t, await scene.quietLoad(t), { ctl1: 0.5, ctl2: 0.5 });
  },

  'two more take their part as soon as they listen': async (t, scene) => {
    await scene.serve(['ctl1', 'ctl2', 'ctl3', 'ctl4']);
    checkShares(t, await scene.quietLoad(t), { ctl1: 0.25, ctl2: 0.25, ctl3: 0.25, ctl4: 0.25 });
  },

  'IPv6 is shared likewise': async (t, scene) => {
    await scene.serve(['ctl1', 'ctl2', 'ctl3', 'ctl4']);
    await scene.lab.untilRules(4, 80, VIP6);
    checkShares(t, await scene.quietLoad(t, VIP6), { ctl1: 0.25, ctl2: 0.25, ctl3: 0.25, ctl4: 0.25 });
  },

  'no request that is begun 100 ms after the kill -9 of a server fails': async (t, scene) => {
    await scene.serve(['ctl1', 'ctl2', 'ctl3', 'ctl4']);
    const { mark, result } = await scene.loadWith(LOAD, () => signalProcess(scene.webOf('ctl4').pid, 'SIGKILL'));
    t.ok((result.shares(-Infinity, mark).get('ctl4') ?? 0) > 0, 'it had its part');
    checkFailures(t, result, mark, SERVER_MS);
    t.notOk(result.shares(mark + SERVER_MS + result.late).has('ctl4'));
  },

  'who drains gets no new connection, and a download from there goes on': async (t, scene) => {
    const { lab } = scene;
    await scene.serve(['ctl1', 'ctl2', 'ctl3', 'ctl4']);
    const [head, body] = [join(lab.lab.folder, 'head'), join(lab.lab.folder, 'body')];
    const words = ['curl', '-s', '-D', head, '-o', body, `http://${VIP}/large`];
    const download = lab.lab.program([...lab.lab.node.prefix, ...words]);
    let name = '';
    await until(() => {
      name = /X-Server: (\S+)/.exec(existsSync(head) ? readFileSync(head, 'utf8') : '')?.[1] ?? '';
      return name !== '';
    });
    signalProcess(download.pid, 'SIGSTOP');
    await lab.fwdfs(lab.device(name), 'drain', 'fwd1');
    const load = await scene.load();
    await pause(1500);
    const result = await load.finish();
    t.same(result.failures().length, 0, result.describe(0));
    t.notOk(result.shares().has(name), `${name} gets no new connection`);
    t.equal(result.shares().size, 3);
    await lab.fwdfs(lab.device(name), 'drain', 'fwd1', '--off');
    checkShares(t, await scene.quietLoad(t), { ctl1: 0.25, ctl2: 0.25, ctl3: 0.25, ctl4: 0.25 });
    signalProcess(download.pid, 'SIGCONT');
    t.equal((await download.ended).status, 0);
    t.equal(shaHex(readFileSync(body)), shaHex(large));
  },

  'a UDP client goes on with another server when its own is killed': async (t, scene) => {
    const { lab } = scene;
    const servers = new Map<string, Daemon>();
    for (const name of ['ctl1', 'ctl2']) servers.set(name, await lab.echo(lab.device(name), ECHO_PORT));
    await lab.untilRules(2, ECHO_PORT);
    const client = lab.echoClient(ECHO_PORT, 10, 64);
    await client.untilOutput((output) => output.includes('answered'));
    const first = /answered (\S+)/.exec(client.output.toString())?.[1] ?? '';
    await pause(300);
    signalProcess(servers.get(first)?.pid, 'SIGKILL');
    const mark = now();
    await pause(REHOME_MS + 500);
    const rows = await scene.stopEcho(client);
    const before = rows.filter(([sent, latency]) => sent + latency < mark && latency >= 0);
    t.ok(before.length > 0 && before.every(([, , name]) => name === first), `before, all by ${first}`);
    const after = rows.filter(([sent]) => sent > mark + REHOME_MS);
    const other = first === 'ctl1' ? 'ctl2' : 'ctl1';
    t.ok(after.length > 0);
    t.same(
      after.filter(([, , name]) => name !== other).map(([sent, , name]) => [Math.round(sent - mark), name]),
      [],
      `from then on, all by ${other}`,
    );
    for (const server of servers.values()) await server.end('SIGKILL');
    await lab.untilRules(0, ECHO_PORT);
  },

  'datagrams of 4,000 bytes are answered, those of a client by one server': async (t, scene) => {
    const { lab } = scene;
    const servers: Daemon[] = [];
    for (const { name } of lab.devices) servers.push(await lab.echo(lab.device(name), ECHO_PORT));
    await lab.untilRules(lab.devices.length, ECHO_PORT);
    const clients = Array.from({ length: 4 }, () => lab.echoClient(ECHO_PORT, 20, 4000));
    for (const client of clients) await client.untilOutput((output) => output.includes('answered'));
    await pause(1000);
    for (const client of clients) {
      const rows = await scene.stopEcho(client);
      const names = new Set(rows.map(([, , name]) => name));
      t.ok(rows.length > 10);
      t.notOk(names.has(null), `all ${rows.length} are answered`);
      t.equal(names.size, 1, 'by one server');
    }
    for (const server of servers) await server.end('SIGKILL');
    await lab.untilRules(0, ECHO_PORT);
  },

  'when the last server is gone, packets are discarded and counted': async (t, scene) => {
    const { lab } = scene;
    await scene.serve(['ctl1', 'ctl2']);
    await scene.serve([]);
    const before = await lab.lab.counter('drop_discarded');
    const result = await lab.interop.on(lab.lab.node, ['curl', '-s', '--max-time', '1', `http://${VIP}/`]);
    t.equal(result.status, 28, 'nobody answers, not even with a reset');
    t.ok((await lab.lab.counter('drop_discarded')) > before);
  },

  'no request that is begun 1 s after the kill -9 of a control device fails, and its idle clients are reset': (
    t,
    scene,
  ) => loseDevice(t, scene, 'ctl4', LOAD, RESET_MS, (lab, device) => lab.killDevice(device)),

  // Connections that the client keeps for later can't be spared: they end when their device counts as lost. One that is begun
  // before the cut is known needs its SYN again, 1 s after the first one.
  'no connection that is begun 1 s after a link was cut silently fails, and idle clients beyond it are reset': (
    t,
    scene,
  ) => loseDevice(t, scene, 'ctl3', CONNECTIONS, SILENT_RESET_MS, (lab, device) => lab.cut(device, 'silent')),
};

/** Tests of all cases, in one lab. */
export function testBalance(mode: Mode): void {
  t.test(`four control devices, mode ${mode}`, { skip: withoutRoot }, async (t) => {
    const lab = await BalanceLab.start(4);
    t.teardown(() => lab.stop());
    await lab.offer(mode);
    if (mode === 'vip') for (const device of lab.devices) await lab.offerAt(device, mode, VIP6);
    const scene = new Scene(lab);
    for (const [title, run] of Object.entries(CASES)) await t.test(title, (t) => run(t, scene));
  });
}

/** Tests of weights, in a lab of their own. */
export function testWeights(mode: Mode): void {
  t.test(`two control devices with weights 1 and 3, mode ${mode}`, { skip: withoutRoot }, async (t) => {
    const lab = await BalanceLab.start(2, { each: ['weight=1', 'weight=3'] });
    t.teardown(() => lab.stop());
    await lab.offer(mode);
    const scene = new Scene(lab);
    await scene.serve(['ctl1', 'ctl2']);
    checkShares(t, await scene.quietLoad(t), { ctl1: 0.25, ctl2: 0.75 });
  });
}
