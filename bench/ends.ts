/**
 * Parts of `npm run bench -- file` that are not about packets: how fast blocked readers end, what an open rule takes, how
 * fast a tree of many forwarders is listed.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Daemon, FWDFS, Lab, shell, until } from '../test/support/lab.js';
import { connectVeth, Netns } from '../test/support/netns.js';
import { summary } from './support/frames.js';
import { Helper, here, residentKb, row } from './support/report.js';

export async function benchSignals(lab: Lab): Promise<void> {
  const run = async (mode: string, count: number): Promise<string> => {
    const words = [join(here, 'support/signals.js'), mode, lab.file(''), String(count)];
    const result = await shell(`${process.execPath} ${words.join(' ')}`, 120_000);
    if (result.status !== 0) throw new Error(result.stderr);
    return result.stdout.toString().trim();
  };
  row('SIGINT to a blocked cat until it is gone, 300', await run('sigint', 300), 'p99 20 ms');
  row('kill -9 of a blocked cat until the rule is gone, 300', await run('kill9', 300), 'p99 10 ms');
}

/** Memory of both daemons with more and more rules held open by one process: what is live, and what the kernel counts. */
export async function benchRules(): Promise<void> {
  const lab = await Lab.start({ nodeArguments: [`--import=${pathToFileURL(join(here, 'support/collect.js')).href}`] });
  try {
    const daemons = [lab.forwarder, lab.control].flatMap((daemon) => daemon ?? []);
    const opens = new Helper('opens.js', lab.file(''));
    const memory = async (count: number): Promise<{ live: number[]; resident: number[] }> => {
      await opens.ask(String(count));
      const live: number[] = [];
      for (const daemon of daemons) {
        const mark = daemon.log.length;
        process.kill(daemon.pid, 'SIGUSR2');
        const said = (): RegExpExecArray | null => /heap (\d+)\n/.exec(daemon.log.slice(mark));
        await until(() => said() !== null);
        live.push(Number(said()?.[1]));
      }
      return { live, resident: daemons.map(({ pid }) => residentKb(pid) * 1024) };
    };
    // Everything is compiled, and every cache is filled.
    await opens.ask('200');
    const empty = await memory(0);
    const some = await memory(2000);
    await opens.ask('0');
    await opens.end();
    const per = (more: number[], less: number[]): string =>
      more.map((bytes, index) => Math.round((bytes - (less[index] ?? 0)) / 2000)).join(' + ');
    row(
      'live memory per open rule, 2,000 open',
      `${per(some.live, empty.live)} bytes (forwarder + control)`,
      '4,000 bytes',
    );
    row('resident, with the garbage of opening them', `${per(some.resident, empty.resident)} bytes`);
  } finally {
    await lab.stop();
  }
}

const FORWARDERS = 16;
const INTERFACES = 8;

/** 16 forwarders of 8 interfaces each, in one process. */
export async function benchListing(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), `fwdfsb-${process.pid}-`));
  const mountPoint = join(folder, 'fwd');
  mkdirSync(mountPoint);
  const forwarders = new Netns('fwd');
  const control = new Netns('ctl');
  const daemons: Daemon[] = [];
  try {
    connectVeth(
      { netns: control, name: 'f0', addresses: ['10.8.0.2/24'] },
      { netns: forwarders, name: 'c0', addresses: ['10.8.0.1/24'] },
    );
    // With lo and c0 there are eight.
    for (let i = 0; i < (INTERFACES - 2) / 2; i++) forwarders.run(`ip link add v${i} type veth peer name w${i}`);
    const many = new Daemon([
      ...forwarders.prefix,
      process.execPath,
      join(here, 'support/forwarders.js'),
      '10.8.0.1',
      '7440',
      String(FORWARDERS),
    ]);
    daemons.push(many);
    await many.until(/ready/);
    const source = Array.from({ length: FORWARDERS }, (_, i) => `f${i + 1}=ws://10.8.0.1:${7440 + i}`).join(',');
    const mounted = new Daemon([...control.prefix, process.execPath, FWDFS, 'mount', '-f', source, mountPoint]);
    daemons.push(mounted);
    await mounted.until(/"mounted"/);
    const names = async (): Promise<number> => {
      const { stdout } = await shell(`ls ${mountPoint}/*/ | grep -cE '^(lo|c0|v.|w.)$'`);
      return Number(stdout.toString());
    };
    await until(async () => (await names()) === FORWARDERS * INTERFACES);
    const time = async (command: string): Promise<string> => {
      const times: number[] = [];
      for (let i = 0; i < 20; i++) {
        const line = `s=$EPOCHREALTIME; ${command} > ${folder}/out || exit 1; e=$EPOCHREALTIME; echo $(( \${e/./} - \${s/./} ))`;
        const { status, stdout, stderr } = await shell(line);
        if (status !== 0) throw new Error(stderr);
        times.push(Number(stdout.toString()) / 1000);
      }
      return summary(times);
    };
    const what = `${FORWARDERS} forwarders x ${INTERFACES} interfaces`;
    row(`ls -l of ${what}`, await time(`ls -lA ${mountPoint}/*/`), '200 ms');
    row(`find of ${what}, attributes and statistics too`, await time(`find ${mountPoint}`));
    row(`fwdfs ls of ${what}`, await time(`${process.execPath} ${FWDFS} ls -m ${mountPoint}`), '200 ms');
  } finally {
    for (const daemon of daemons.reverse()) await daemon.end();
    await shell(`umount -l ${mountPoint} 2> /dev/null`);
    for (const netns of [forwarders, control]) netns.remove();
    rmSync(folder, { recursive: true, force: true });
  }
}
