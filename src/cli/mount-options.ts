/**
 * The options of `-o`: one table with the default and the meaning of each; help, parsing and the docs read it.
 */
import { resolve } from 'node:path';
import { FwdfsError } from '../base/errors.js';
import { MAX_WEIGHT } from '../base/limits.js';
import { ON_DISCONNECT, type OnDisconnect } from '../control/on-disconnect.js';
import { type BackendName, BACKENDS } from '../fusefs/backend.js';

interface OptionEntry {
  readonly value: string | null;
  readonly what: string;
}

/**
 * Options that mount(8) and fstab pass on and that mean nothing here: nothing in a mount is a program or a device, whatever
 * they say of that, and no file keeps times.
 */
const IGNORED = new Set(
  `defaults auto noauto nofail _netdev user nouser users owner group uhelper comment silent loud
  dev nodev suid nosuid exec noexec sync async dirsync iversion noiversion mand nomand
  atime noatime diratime nodiratime relatime norelatime strictatime nostrictatime lazytime nolazytime`.split(/\s+/),
);

/** The kernel's own; the next one, 2^32 - 1, says "no user". */
const MAX_ID = 4_294_967_294;

export const MOUNT_OPTIONS = {
  name: { value: 'NAME', what: "name of this control device (default: the configuration's, or the host name)" },
  token_file: { value: 'FILE', what: 'file whose first line is the token for all forwarders' },
  ca: { value: 'FILE', what: "PEM file with the authority of the forwarders' certificates" },
  cert: { value: 'FILE', what: 'PEM file with the certificate of this control device' },
  key: { value: 'FILE', what: 'PEM file with its key' },
  allow_other: { value: null, what: 'others may use the files too, as mode bits and ownership allow' },
  uid: { value: 'N', what: 'owner of the files (default: the user who mounts)' },
  gid: { value: 'N', what: 'group of the files (default: that of the user who mounts)' },
  umask: {
    value: 'MODE',
    what: 'what the owner may do, all may do but for these bits, octal (default: the owner alone)',
  },
  ro: { value: null, what: 'read-only: nothing can be written' },
  nonempty: { value: null, what: 'also on a directory that is not empty; what is in it is hidden meanwhile' },
  on_disconnect: {
    value: 'WHAT',
    what: 'wait: open files go on when the connection is back; error: they end, ENETDOWN (default: wait)',
  },
  weight: {
    value: 'N',
    what: `share of new flows against those of other control devices, 1 to ${MAX_WEIGHT} (default: 1)`,
  },
  fuse_backend: { value: 'NAME', what: `${BACKENDS.join(' or ')}, which lacks poll and more (default: own)` },
  log_file: { value: 'FILE', what: 'append the log to it (default: stderr with -f, else none)' },
} as const satisfies Record<string, OptionEntry>;

export type MountOptionName = keyof typeof MOUNT_OPTIONS;
export type MountOptionValues = Partial<Record<MountOptionName, string>>;

function isOption(name: string): name is MountOptionName {
  return Object.hasOwn(MOUNT_OPTIONS, name);
}

/**
 * Parses `a,b=c`; files become absolute paths. Of `ro` and `rw` the last one counts. `sloppy`: what is unknown is ignored.
 * @throws FwdfsError bad-option: unknown, or without its value
 */
export function parseMountOptions(text: string, sloppy = false): MountOptionValues {
  const values: MountOptionValues = {};
  for (const part of text.split(',').filter((word) => word !== '')) {
    const equals = part.indexOf('=');
    const name = equals < 0 ? part : part.slice(0, equals);
    if (IGNORED.has(name) || /^x-/i.test(name)) continue;
    if (name === 'rw') {
      delete values.ro;
      continue;
    }
    if (!isOption(name)) {
      if (sloppy) continue;
      throw new FwdfsError('bad-option', `unknown mount option ${name}`);
    }
    const form = MOUNT_OPTIONS[name].value;
    const value = equals < 0 ? '' : part.slice(equals + 1);
    if ((form !== null) !== (value !== '') || (form === null && equals >= 0)) {
      throw new FwdfsError('bad-option', `mount option ${name} takes ${form === null ? 'no value' : 'a value'}`);
    }
    values[name] = form === 'FILE' ? resolve(value) : value;
  }
  return values;
}

/** The options that name files, with their absolute paths. */
export function fileOptions(values: MountOptionValues): [MountOptionName, string][] {
  return Object.entries(values).flatMap(([name, file]): [MountOptionName, string][] =>
    isOption(name) && MOUNT_OPTIONS[name].value === 'FILE' ? [[name, file]] : [],
  );
}

/** A number of users or groups; without the option, that of this process. */
export function idOption(values: MountOptionValues, name: 'uid' | 'gid'): number {
  const text = values[name];
  if (text === undefined) return (name === 'uid' ? process.getuid?.() : process.getgid?.()) ?? 0;
  if (!/^\d{1,10}$/.test(text) || Number(text) > MAX_ID) {
    throw new FwdfsError('bad-option', `mount option ${name}=${text} is no number from 0 to ${MAX_ID}`);
  }
  return Number(text);
}

function oneOf<T extends string>(name: MountOptionName, wanted: string, choices: readonly T[]): T {
  const found = choices.find((choice) => choice === wanted);
  if (found !== undefined) return found;
  throw new FwdfsError('bad-option', `mount option ${name}=${wanted} is not ${choices.join(' or ')}`);
}

export function backendOption({ fuse_backend: wanted = 'own' }: MountOptionValues): BackendName {
  return oneOf('fuse_backend', wanted, BACKENDS);
}

export function disconnectOption({ on_disconnect: wanted = 'wait' }: MountOptionValues): OnDisconnect {
  return oneOf('on_disconnect', wanted, ON_DISCONNECT);
}

export function mountOptionsHelp(): string {
  const lines = Object.entries(MOUNT_OPTIONS).map(([name, { value, what }]) => {
    const left = value === null ? name : `${name}=${value}`;
    return `  ${left.padEnd(18)} ${what}`;
  });
  return `\nMount options:\n${lines.join('\n')}`;
}

/** Undefined without the option. */
export function weightOption({ weight }: MountOptionValues): number | undefined {
  if (weight === undefined) return undefined;
  if (!/^[1-9]\d{0,2}$/.test(weight) || Number(weight) > MAX_WEIGHT) {
    throw new FwdfsError('bad-option', `mount option weight=${weight} is no number from 1 to ${MAX_WEIGHT}`);
  }
  return Number(weight);
}

/** Permission bits, as umask(1) writes them. */
export function umaskOption({ umask }: MountOptionValues): number | undefined {
  if (umask === undefined) return undefined;
  if (!/^0?[0-7]{1,3}$/.test(umask)) {
    throw new FwdfsError('bad-option', `mount option umask=${umask} is no octal number such as 022`);
  }
  return Number.parseInt(umask, 8);
}
