/**
 * `fwdfs mount`: runs a control device.
 *
 *     fwdfs mount …  --spawns--> fwdfs mount -f …  --"ready" or one line of error on fd 3-->  exits with its status
 *
 * The background process is the foreground command in a session of its own, so there is one way to run a control device.
 */
import { spawn } from 'node:child_process';
import { closeSync, writeSync } from 'node:fs';
import { hostname } from 'node:os';
import type { Command } from 'commander';
import { describe, FwdfsError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import {
  type ControlConfig,
  isShortForm,
  loadControlConfig,
  parseSource,
  type RemoteForwarder,
} from '../control/config.js';
import { ControlDevice } from '../control/control-device.js';
import { Forwarder } from '../forwarder/forwarder.js';
import { loadForwarderConfig } from '../forwarder/config.js';
import { FuseServer } from '../fusefs/server.js';
import { action, EXIT_FAILED, onStopSignal } from './exit.js';
import { makeLogger } from './log.js';
import { idOption, type MountOptionValues, mountOptionsHelp, parseMountOptions } from './mount-options.js';
import { packageVersion } from './version.js';

const READY_FD = 3;
const READY = 'ready\n';
/** Set in the environment of the background process: descriptor 3 is the way to tell the one who started it. */
const BACKGROUND = 'FWDFS_BACKGROUND';
/** How long a mount waits for forwarders that neither answer nor refuse. */
const SETTLE_MS = 2000;

interface MountFlags {
  readonly foreground?: boolean;
  readonly options?: string[];
  readonly traceFuse?: boolean;
  readonly logLevel: string;
}

/** The forwarder of a source as the control device reaches it; one that is `local` is started in this process. */
async function reach(
  source: ControlConfig['forwarders'] extends ReadonlyMap<string, infer S> ? S : never,
  values: MountOptionValues,
  started: Forwarder[],
  log: Logger,
): Promise<RemoteForwarder> {
  if (source.kind === 'local') {
    const forwarder = new Forwarder(loadForwarderConfig(source.file), log);
    await forwarder.start();
    started.push(forwarder);
    const url = forwarder.urls[0];
    if (url === undefined) throw new FwdfsError('bad-config', `${source.file}: expected listen:`);
    return { kind: 'remote', url, token: null, tokenFile: values.token_file ?? null, tls: null };
  }
  const { ca = null, cert = null, key = null } = values;
  return {
    ...source,
    tokenFile: source.token === null ? (source.tokenFile ?? values.token_file ?? null) : null,
    tls: source.tls ?? (ca === null && cert === null && key === null ? null : { ca, cert, key }),
  };
}

function tellStarter(text: string): void {
  if (process.env[BACKGROUND] === undefined) return;
  writeSync(READY_FD, text);
  closeSync(READY_FD);
}

async function serve(source: string, mountPoint: string, flags: MountFlags): Promise<void> {
  const log = makeLogger(flags.logLevel);
  const values = parseMountOptions((flags.options ?? []).join(','));
  const config = isShortForm(source) ? parseSource(source) : loadControlConfig(source);
  const forwarders: Forwarder[] = [];
  const device = new ControlDevice({
    name: values.name ?? config.name ?? hostname(),
    version: packageVersion(),
    log,
  });
  const server = new FuseServer({
    root: device.root,
    mountPoint,
    source,
    options: {
      allowOther: values.allow_other !== undefined,
      readOnly: values.ro !== undefined,
      uid: idOption(values, 'uid'),
      gid: idOption(values, 'gid'),
    },
    log,
    ...(flags.traceFuse === true ? { trace: (line: string): void => void process.stderr.write(`${line}\n`) } : {}),
  });
  const end = async (): Promise<void> => {
    device.close();
    await Promise.all(forwarders.map((forwarder) => forwarder.stop()));
    process.exit(0);
  };
  try {
    server.mount();
    server.onEnd = () => void end();
    for (const [name, forwarder] of config.forwarders) {
      device.addForwarder(name, await reach(forwarder, values, forwarders, log));
    }
    await Promise.race([device.settled(), new Promise((resolve) => setTimeout(resolve, SETTLE_MS))]);
  } catch (error) {
    await server.unmount();
    device.close();
    await Promise.all(forwarders.map((forwarder) => forwarder.stop()));
    throw error;
  }
  onStopSignal(() => void server.unmount().then(end));
  log.info({ mountPoint, forwarders: [...config.forwarders.keys()] }, 'mounted');
  tellStarter(READY);
}

/** Starts the foreground command in a session of its own and waits until it is ready. */
async function serveInBackground(): Promise<void> {
  const child = spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1), '--foreground'], {
    detached: true,
    stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
    env: { ...process.env, [BACKGROUND]: '1' },
  });
  let told = '';
  const pipe = child.stdio[READY_FD];
  if (pipe === null || pipe === undefined || !('setEncoding' in pipe)) throw new FwdfsError('internal', 'no pipe');
  pipe.setEncoding('utf8');
  for await (const text of pipe) told += String(text);
  child.unref();
  if (told === READY) return;
  process.stderr.write(told === '' ? 'fwdfs: the control device ended before it was ready\n' : told);
  process.exitCode = EXIT_FAILED;
}

export function addMountCommand(program: Command): void {
  program
    .command('mount')
    .description('run a control device: every interface of every forwarder as a file')
    .argument('<source>', 'a configuration file, or NAME=URL[,NAME=URL…]')
    .argument('<mountpoint>', 'an existing directory')
    .option('-f, --foreground', 'stay in the foreground, with the log on stderr')
    .option(
      '-o, --options <list>',
      'mount options, see below',
      (list: string, before: string[]) => [...before, list],
      [],
    )
    .option('--trace-fuse', 'one line per FUSE request and reply on stderr (with -f)')
    .addHelpText(
      'after',
      `${mountOptionsHelp()}
\nExamples:
  $ fwdfs mount fwd1=ws://127.0.0.1:7440 /fwd
  $ fwdfs mount -f -o name=ctl1,token_file=/etc/fwdfs/token fwd1=ws://192.0.2.1:7440 /fwd
  $ fwdfs mount /etc/fwdfs/control.yaml /fwd`,
    )
    .action(
      action(async (source: string, mountPoint: string, _options: unknown, command: Command) => {
        const flags = command.optsWithGlobals<MountFlags>();
        if (flags.foreground !== true) {
          await serveInBackground();
          return;
        }
        try {
          await serve(source, mountPoint, flags);
        } catch (error) {
          tellStarter(`fwdfs: ${describe(error)}\n`);
          process.stderr.write(`fwdfs: ${describe(error)}\n`);
          process.exit(EXIT_FAILED);
        }
      }),
    );
}
