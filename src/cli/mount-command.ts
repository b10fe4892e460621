/**
 * `fwdfs mount`: runs a control device.
 *
 *     fwdfs mount …  --spawns--> the same command line, served in a session of its own (serve.ts)
 *                    <--fd 3---- lines for the caller's stderr, and `ready` last of all
 *                    exits when that is ready, or with its status when it ends
 *                    ends itself: so does what it started, unless that was ready
 *
 * The background process serves exactly as the foreground does, so there is one way to run a control device.
 */
import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import type { Command } from 'commander';
import { action, errorLine, EXIT_FAILED, exitStatusOf } from './exit.js';
import { fileOptions, type MountOptionValues, mountOptionsHelp, parseMountOptions } from './mount-options.js';
import { requireReachable } from './mounts.js';
import { READY, Starter, STARTER_FD } from './starter.js';

/** Set in the environment of the background process: descriptor 3 is the way to tell the one who started it. */
const BACKGROUND = 'FWDFS_BACKGROUND';
/** The log may hold names and addresses that are not everybody's business. */
const LOG_MODE = 0o640;

interface MountFlags {
  readonly foreground?: boolean;
  readonly options?: string[];
  readonly traceFuse?: boolean;
  readonly logLevel: string;
}

/** A command line that mounts, taken apart. */
export interface MountRun {
  /** A configuration file, or NAME=URL[,NAME=URL…]. */
  readonly source: string;
  readonly mountPoint: string;
  readonly values: MountOptionValues;
  readonly foreground: boolean;
  readonly traceFuse: boolean;
  readonly logLevel: string;
}

const inBackground = (): boolean => process.env[BACKGROUND] !== undefined;

function openLog(file: string | undefined): number | undefined {
  return file === undefined ? undefined : openSync(file, 'a', LOG_MODE);
}

async function serveHere({ source, mountPoint, values, traceFuse, logLevel }: MountRun): Promise<void> {
  const starter = inBackground() ? new Starter() : undefined;
  process.once('uncaughtExceptionMonitor', (error) => starter?.tell(errorLine(error)));
  try {
    const { makeLogger } = await import('./log.js');
    const { serve } = await import('./serve.js');
    const { notifyReady } = await import('../sys/notify.js');
    // In the background stderr is the log file already.
    const log = makeLogger(logLevel, starter === undefined ? openLog(values.log_file) : undefined);
    const abandoned = starter?.gone ?? new Promise<never>(() => undefined);
    const warnings = await serve({ source, mountPoint, values, traceFuse, log, abandoned });
    if (starter === undefined) {
      notifyReady();
      return;
    }
    for (const warning of warnings) starter.tell(`fwdfs: ${warning}\n`);
    starter.release();
    process.chdir('/');
  } catch (error) {
    starter?.tell(errorLine(error));
    process.stderr.write(errorLine(error));
    process.exit(exitStatusOf(error));
  }
}

/** Starts the same command line in a session of its own and waits until it is ready. */
async function serveInBackground(values: MountOptionValues): Promise<void> {
  const log = openLog(values.log_file);
  const child = spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
    detached: true,
    stdio: ['ignore', 'ignore', log ?? 'ignore', 'pipe'],
    env: { ...process.env, [BACKGROUND]: '1' },
  });
  if (log !== undefined) closeSync(log);
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', resolve);
  });
  let told = '';
  const pipe = child.stdio[STARTER_FD];
  if (pipe === null || pipe === undefined || !('setEncoding' in pipe)) throw new Error('no pipe to the control device');
  pipe.setEncoding('utf8');
  for await (const text of pipe) told += String(text);
  if (told.endsWith(READY)) {
    child.unref();
    process.stderr.write(told.slice(0, -READY.length));
    return;
  }
  process.stderr.write(told === '' ? 'fwdfs: the control device ended before it was ready\n' : told);
  // Ended by a signal or by umount it did what it was told, status 0; but there is no mount.
  process.exitCode = (await ended) || EXIT_FAILED;
}

/** Mounts; the background process comes here by the same command line. */
export async function runMount(run: MountRun): Promise<void> {
  if (inBackground()) return serveHere(run);
  const files = fileOptions(run.values).map(([, file]) => file);
  // A source that names no file leads into no mount.
  for (const path of [run.mountPoint, run.source, ...files]) await requireReachable(path);
  await (run.foreground ? serveHere(run) : serveInBackground(run.values));
}

export function addMountCommand(program: Command): void {
  program
    .command('mount')
    .description('run a control device: every interface of every forwarder as a file')
    .argument('<source>', 'a configuration file, or NAME=URL[,NAME=URL…]')
    .argument('<mountpoint>', 'an empty directory')
    .option('-f, --foreground', 'stay in the foreground, with the log on stderr')
    .option(
      '-o, --options <list>',
      'mount options, see below',
      (list: string, before: string[]) => [...before, list],
      [],
    )
    .option('--trace-fuse', 'one line per FUSE request and reply on stderr')
    .addHelpText(
      'after',
      `${mountOptionsHelp()}

Without -f it returns when the mount can be used, and stays in the background; its log is then that of log_file=, if any.
A forwarder that can't be reached yet is tried again and again; its .state says why.

Examples:
  $ fwdfs mount fwd1=ws://127.0.0.1:7440 /fwd
  $ fwdfs mount -f -o name=ctl1,token_file=/etc/fwdfs/token fwd1=ws://192.0.2.1:7440 /fwd
  $ fwdfs mount -o log_file=/var/log/fwdfs.log /etc/fwdfs/control.yaml /fwd`,
    )
    .action(
      action(async (source: string, mountPoint: string, _options: unknown, command: Command) => {
        const flags = command.optsWithGlobals<MountFlags>();
        await runMount({
          source,
          mountPoint,
          values: parseMountOptions((flags.options ?? []).join(',')),
          foreground: flags.foreground === true,
          traceFuse: flags.traceFuse === true,
          logLevel: flags.logLevel,
        });
      }),
    );
}
