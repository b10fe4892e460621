/**
 * `fwdfs demo`: everything on one machine, ready to play with.
 *
 *     checks --> sweep --> build --> start --> steps, or the command --+-- wait for a signal --> end
 *                            \________ any failure, any signal ________________/
 */
import { spawn } from 'node:child_process';
import { type Command, InvalidArgumentError } from 'commander';
import type { DemoLab } from './demo-lab.js';
import { CHECKS, examine } from './doctor-checks.js';
import { action, onStopSignal } from './exit.js';

const SIGNAL_NUMBERS: Readonly<Partial<Record<NodeJS.Signals, number>>> = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 };
/** Shells say so of a program that a signal ended. */
const EXIT_BY_SIGNAL = 128;

async function requireHost(): Promise<void> {
  const findings = await examine(CHECKS.filter(({ need }) => need === 'run'));
  const missing = findings.filter(({ problem }) => problem !== null).map(({ check }) => check.name);
  if (missing.length === 0) return;
  if (process.getuid?.() !== 0) throw new Error('the demo needs root: sudo fwdfs demo');
  throw new Error(`the demo needs ${missing.join(', ')}: fwdfs doctor --fix mends what it can`);
}

const MAX_CONTROLS = 4;

function controlsOf(text: string): number {
  const count = Number(text);
  if (!Number.isInteger(count) || count < 1 || count > MAX_CONTROLS) {
    throw new InvalidArgumentError(`expected 1 to ${MAX_CONTROLS}`);
  }
  return count;
}

/** FWD, CONTROL_NETNS; of a second control device FWD2, CONTROL2_NETNS, and so on. */
function environmentOf(lab: DemoLab): Record<string, string> {
  const names = lab.controls.flatMap(({ place, mountPoint }) => {
    const number = place.slice('ctl'.length);
    return [
      [`FWD${number}`, mountPoint],
      [`CONTROL${number}_NETNS`, lab.netns(place)],
    ];
  });
  return Object.fromEntries(names);
}

/** Runs a command on the control device, with the names of what there is in its environment. */
async function runIn(lab: DemoLab, [command = '', ...args]: readonly string[]): Promise<void> {
  const child = spawn(command, args, {
    stdio: 'inherit',
    env: {
      ...process.env,
      ...environmentOf(lab),
      NODE_NETNS: lab.netns('node'),
      FORWARDER_NETNS: lab.netns('fwd'),
    },
  });
  await new Promise<void>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (status, signal) => {
      process.exitCode = status ?? EXIT_BY_SIGNAL + (SIGNAL_NUMBERS[signal ?? 'SIGTERM'] ?? 0);
      resolve();
    });
  });
}

interface DemoFlags {
  readonly exit?: boolean;
  readonly controls: number;
}

async function demo(command: readonly string[], flags: DemoFlags): Promise<void> {
  await requireHost();
  const [{ DemoLab, sweep }, { DemoSteps }] = await Promise.all([import('./demo-lab.js'), import('./demo-steps.js')]);
  const print = (line: string): void => void process.stdout.write(`${line}\n`);
  let isReady = false;
  const stopped = new Promise<void>((resolve) => {
    onStopSignal((signal) => {
      if (!isReady) process.exitCode = EXIT_BY_SIGNAL + (SIGNAL_NUMBERS[signal] ?? 0);
      resolve();
    });
    // Nobody reads any more; each line that is still printed says so again.
    process.stdout.on('error', () => resolve());
  });
  if ((await sweep()) > 0) print('Took away what an earlier demo left behind.');
  const lab = new DemoLab(flags.controls);
  const steps = new DemoSteps(lab, print);
  const show = async (): Promise<void> => {
    if (command.length > 0) {
      await lab.build();
      await lab.start();
      isReady = true;
      await runIn(lab, command);
      return;
    }
    print('Building three network namespaces, a forwarder and a control device …');
    await lab.build();
    await lab.start();
    steps.drawing();
    await steps.all();
    isReady = true;
    if (flags.exit === true) return;
    print(`\nIt is all yours, in another terminal:

  cd ${lab.folder}
  cat fwd/fwd1/eth0 | tcpdump -nr -
  ip netns exec ${lab.netns('node')} ping 10.9.0.1

Ctrl-C here takes everything down.`);
    await stopped;
  };
  const shown = show();
  try {
    await Promise.race([shown, stopped, lab.failed]);
  } finally {
    shown.catch(() => undefined);
    await lab.end();
  }
}

export function addDemoCommand(program: Command): void {
  program
    .command('demo')
    .description('everything on one machine, in network namespaces, ready to play with')
    .argument(
      '[command...]',
      'run this in the demo, with FWD, NODE_NETNS, FORWARDER_NETNS and CONTROL_NETNS set, and end with it',
    )
    .option('--exit', 'show it and end')
    .option(
      '--controls <number>',
      'so many control devices, with FWD2, CONTROL2_NETNS and so on in the environment',
      controlsOf,
      1,
    )
    .addHelpText(
      'after',
      `
Needs root, and what fwdfs doctor checks. Ctrl-C takes everything down.

Examples:
  $ sudo fwdfs demo
  $ sudo fwdfs demo --exit
  $ sudo fwdfs demo -- bash
  $ sudo fwdfs demo --controls 2 -- bash
  $ sudo fwdfs demo -- sh -c 'cat $FWD/fwd1/.tables/permission'`,
    )
    .action(action(demo));
}
