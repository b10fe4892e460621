/**
 * A control device that serves a mount: what `fwdfs mount` runs, in the foreground or in the background.
 *
 *     mount point made ready --> mount --> forwarders tried once --> serving --> unmounted, or a signal to stop --> exit
 */
import { createHash, randomBytes } from 'node:crypto';
import { accessSync, constants, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { errnoName, errnoOf } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { isShortForm, loadControlConfig, parseSource, type RemoteForwarder } from '../control/config.js';
import { ControlDevice } from '../control/control-device.js';
import type { ForwarderLink } from '../control/forwarder-link.js';
import { loadForwarderConfig } from '../forwarder/config.js';
import { Forwarder } from '../forwarder/forwarder.js';
import type { FuseBackend } from '../fusefs/backend.js';
import { makeBackend } from '../fusefs/backends.js';
import { unmount } from '../fusefs/mount.js';
import { isDeviceName } from '../sys/config-file.js';
import { holdDirectory } from '../sys/directory-lock.js';
import { onStopSignal, UsageError } from './exit.js';
import {
  backendOption,
  disconnectOption,
  fileOptions,
  idOption,
  type MountOptionValues,
  umaskOption,
  weightOption,
} from './mount-options.js';
import { linkTarget, mountAt, pulseOf, silent } from './mounts.js';
import { packageVersion } from './version.js';

/** How long a mount waits for forwarders that neither answer nor refuse. */
const SETTLE_MS = 2000;

export interface ServeOptions {
  /** A configuration file, or NAME=URL[,NAME=URL…]. */
  readonly source: string;
  readonly mountPoint: string;
  readonly values: MountOptionValues;
  /** A line per FUSE request and reply on stderr. */
  readonly traceFuse: boolean;
  readonly log: Logger;
  /** Rejects when nobody waits for the mount any more: it is taken down again if it is not ready. */
  readonly abandoned: Promise<never>;
}

/** A forwarder with the options for all of them, where it has none of its own. */
function complete(source: RemoteForwarder, values: MountOptionValues): RemoteForwarder {
  const { ca = null, cert = null, key = null } = values;
  return {
    ...source,
    tokenFile: source.token === null ? (source.tokenFile ?? values.token_file ?? null) : null,
    tls: source.tls ?? (ca === null && cert === null && key === null ? null : { ca, cert, key }),
  };
}

/** A forwarder in this process, and the folder of the socket by which only this process reaches it. */
interface Integrated {
  readonly forwarder: Forwarder;
  readonly folder: string;
}

/**
 * Starts the forwarder of a `local` source. Beside its own addresses it listens at a socket in a folder of ours, where the
 * name of this control device has a token that nobody else knows.
 */
async function integrate(file: string, control: string, started: Integrated[], log: Logger): Promise<RemoteForwarder> {
  const config = loadForwarderConfig(file);
  const folder = mkdtempSync(join(tmpdir(), 'fwdfs-'));
  const path = join(folder, 's');
  const url = `ws+unix:${path}`;
  const token = randomBytes(32).toString('hex');
  const tokens = new Map([...config.tokens, [control, createHash('sha256').update(token).digest('hex')]]);
  const listen = [...config.listen, { kind: 'unix', path, url } as const];
  const forwarder = new Forwarder({ ...config, tokens, listen }, log);
  started.push({ forwarder, folder });
  await forwarder.start();
  return { kind: 'remote', url, token, tokenFile: null, tls: null };
}

function checkOptions(source: string, values: MountOptionValues): void {
  if (!isShortForm(source) && source.includes('://')) {
    if (source.includes('=')) parseSource(source);
    throw new UsageError(`expected NAME=URL or a configuration file: give the forwarder a name, fwd1=${source}`);
  }
  if (values.name !== undefined && !isDeviceName(values.name)) {
    throw new UsageError(`-o name=${values.name}: expected letters, digits, "_", "-" and "."`);
  }
  for (const [name, file] of fileOptions(values)) {
    if (name === 'log_file') continue;
    try {
      accessSync(file, constants.R_OK);
    } catch (error) {
      throw new Error(`-o ${name}=${file}: expected a file that can be read (${errnoName(errnoOf(error))})`, {
        cause: error,
      });
    }
  }
}

function taken(mounted: string): Error {
  return new Error(`${mounted} is a mount of fwdfs already: use another directory, or fwdfs umount ${mounted}`);
}

/** Clears away mounts of ours that crashes left behind. */
async function clearMountPoint(mountPoint: string, log: Logger): Promise<void> {
  for (let mounted = mountAt(mountPoint); mounted !== undefined; mounted = mountAt(mountPoint)) {
    const pulse = await pulseOf(mounted);
    if (pulse === 'silent') throw silent(mounted);
    if (pulse === 'alive') throw taken(mounted);
    try {
      unmount(mounted, true);
    } catch (cause) {
      throw new Error(`a dead mount is in the way that this user can't end: sudo fwdfs umount ${mounted}`, { cause });
    }
    log.warn({ mountPoint: mounted }, 'a dead mount was cleared away');
  }
}

function absent(mountPoint: string): Error {
  const target = linkTarget(mountPoint);
  if (target === undefined) return new Error(`${mountPoint} is not there: mkdir ${mountPoint}`);
  const place = resolve(dirname(mountPoint), target);
  return new Error(`${mountPoint} is a link to what is not there: mkdir ${place}`);
}

/** Refuses a mount point that can't be one. */
function checkMountPoint(mountPoint: string, values: MountOptionValues): void {
  try {
    const stats = statSync(mountPoint, { throwIfNoEntry: false });
    if (stats === undefined) throw absent(mountPoint);
    if (!stats.isDirectory()) throw new Error(`${mountPoint} is no directory: expected an empty one`);
    if (values.nonempty === undefined && readdirSync(mountPoint).length > 0) {
      throw new Error(`${mountPoint} is not empty: use an empty directory, or -o nonempty to hide what is there`);
    }
  } catch (error) {
    if (!(error instanceof Error) || !('errno' in error)) throw error;
    throw new Error(`${mountPoint} can't be looked at (${errnoName(errnoOf(error))}): use a directory of your own`, {
      cause: error,
    });
  }
}

/** Mounts unless somebody else does at the same time: the second one would hide the mount of the first. */
async function mountAlone(server: FuseBackend, mountPoint: string): Promise<void> {
  const release = holdDirectory(mountPoint);
  if (release === undefined) throw new Error(`${mountPoint} is being mounted by another fwdfs: use another directory`);
  try {
    const mounted = mountAt(mountPoint);
    if (mounted !== undefined) throw taken(mounted);
    await server.mount();
  } finally {
    release();
  }
}

/**
 * Resolves when the mount can be used. From then on the process ends with the mount.
 * @returns a line for each forwarder that was not reached
 */
export async function serve({
  source,
  mountPoint,
  values,
  traceFuse,
  log,
  abandoned,
}: ServeOptions): Promise<string[]> {
  checkOptions(source, values);
  const config = isShortForm(source) ? parseSource(source) : loadControlConfig(source);
  await clearMountPoint(mountPoint, log);
  checkMountPoint(mountPoint, values);
  const integrated: Integrated[] = [];
  const control = values.name ?? config.name;
  const device = new ControlDevice({
    name: control,
    version: packageVersion(),
    onDisconnect: disconnectOption(values),
    weight: weightOption(values) ?? config.weight,
    complete: (forwarder) => complete(forwarder, values),
    log,
  });
  const server = await makeBackend(backendOption(values), {
    root: device.root,
    mountPoint,
    source,
    options: {
      allowOther: values.allow_other !== undefined,
      readOnly: values.ro !== undefined,
      uid: idOption(values, 'uid'),
      gid: idOption(values, 'gid'),
      umask: umaskOption(values),
    },
    log,
    ...(traceFuse ? { trace: (line: string): void => void process.stderr.write(`${line}\n`) } : {}),
  });
  const release = async (): Promise<void> => {
    await device.close();
    await Promise.all(integrated.map(({ forwarder }) => forwarder.stop()));
    for (const { folder } of integrated) rmSync(folder, { recursive: true, force: true });
  };
  const end = async (): Promise<void> => {
    await release();
    process.exit(0);
  };
  const links: ForwarderLink[] = [];
  try {
    await mountAlone(server, mountPoint);
    server.onEnd = () => void end();
    onStopSignal(() => void server.unmount().then(end));
    for (const [name, forwarder] of config.forwarders) {
      const reached =
        forwarder.kind === 'local'
          ? await integrate(forwarder.file, control, integrated, log)
          : complete(forwarder, values);
      links.push(device.addForwarder(name, reached));
    }
    // The names are there before anything that takes a while.
    const swept = Promise.all([device.vifs.sweep(), device.vips.sweep()]);
    for (const { forwarder, request } of config.vifs) {
      const link = links.find(({ name }) => name === forwarder);
      if (link !== undefined) device.vifs.configure(link, request);
    }
    for (const { forwarder, request } of config.vips) {
      const link = links.find(({ name }) => name === forwarder);
      if (link !== undefined) device.vips.configure(link, request);
    }
    const settled = Promise.race([device.settled(), new Promise((resolve) => setTimeout(resolve, SETTLE_MS))]);
    await Promise.race([abandoned, Promise.all([swept, settled])]);
  } catch (error) {
    await server.unmount();
    await release();
    throw error;
  }
  log.info({ mountPoint, forwarders: [...config.forwarders.keys()] }, 'mounted');
  return links
    .filter((link) => !link.isConnected)
    .map((link) => `${link.name} is not connected yet, it is tried again: ${link.state.lastError || 'no answer'}`);
}
