/**
 * Settings of the kernel that are ours for a while, and are put back to what they were.
 *
 *     apply(wanted)     the value before --> FILE, then /proc/sys        so a crash in between loses nothing
 *     retain(paths)     /proc/sys back, then FILE without it             only where it is still as we left it
 *     sweep()           what FILE has of a crash is put back
 *
 *     FILE  /run/fwdfs/sysctls-NAMESPACE-OWNER    { "net/ipv4/conf/eth0/forwarding": { "before": "0", "ours": "1" } }
 *
 * Where another owner of the same network namespace holds the same setting, its record says what it was before, and whoever
 * lets go last puts it back. All of this is synchronous, in the network namespace of the thread.
 */
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { readSysctl, writeSysctl } from './sysctl.js';

const FOLDER = '/run/fwdfs';
const OWN_NAMESPACE = '/proc/thread-self/ns/net';

interface Held {
  readonly before: string;
  readonly ours: string;
}

type Settings = Map<string, Held>;

export class SysctlHold {
  private readonly folder: string;
  private readonly owner: string;
  private readonly log: Logger;
  private readonly held: Settings = new Map();

  /** @param owner unique in the network namespace, and part of a file's name */
  constructor(owner: string, log: Logger, folder = FOLDER) {
    this.owner = owner.replaceAll('/', '_');
    this.log = log;
    this.folder = folder;
  }

  /** Puts back what a crash of the same owner left. What can't be is logged. */
  sweep(): void {
    for (const [path, held] of readRecord(this.file)) this.held.set(path, held);
    if (this.held.size > 0) this.log.info({ settings: [...this.held.keys()] }, 'put back settings of an earlier run');
    this.retain(new Set());
  }

  /** What the setting is without us; null: this kernel has none. */
  before(path: string): string | null {
    return this.held.get(path)?.before ?? this.ofOthers(path)?.before ?? readSysctl(path);
  }

  /** Sets these, in their order; what is held and not named stays held. @throws SystemError; Error of node:fs */
  apply(wanted: ReadonlyMap<string, string>): void {
    for (const [path, ours] of wanted) {
      const now = readSysctl(path);
      if (now === null) continue;
      const others = this.ofOthers(path);
      if (!this.held.has(path) && (now !== ours || others !== undefined)) {
        this.held.set(path, { before: others?.before ?? now, ours });
        this.save();
      }
      if (now !== ours) writeSysctl(path, ours);
    }
  }

  /** Puts back what is held and not among these, the last one first. What can't be is logged. */
  retain(paths: ReadonlySet<string>): void {
    for (const [path, held] of [...this.held].reverse()) {
      if (paths.has(path)) continue;
      try {
        if (this.ofOthers(path) === undefined && readSysctl(path) === held.ours) writeSysctl(path, held.before);
      } catch (error) {
        this.log.warn({ setting: path, error: describe(error) }, 'a setting could not be put back');
      }
      this.held.delete(path);
      this.save();
    }
  }

  private get prefix(): string {
    return `sysctls-${statSync(OWN_NAMESPACE).ino}-`;
  }

  private get file(): string {
    return join(this.folder, this.prefix + this.owner);
  }

  private ofOthers(path: string): Held | undefined {
    const { prefix, file } = this;
    for (const name of namesIn(this.folder)) {
      const other = join(this.folder, name);
      if (!name.startsWith(prefix) || name.endsWith('.new') || other === file) continue;
      const held = readRecord(other).get(path);
      if (held !== undefined) return held;
    }
    return undefined;
  }

  private save(): void {
    const { file } = this;
    if (this.held.size === 0) {
      rmSync(file, { force: true });
      return;
    }
    mkdirSync(this.folder, { recursive: true });
    writeFileSync(`${file}.new`, JSON.stringify(Object.fromEntries(this.held)), { mode: 0o600 });
    renameSync(`${file}.new`, file);
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** Empty where there is no such file, or none of ours. */
function readRecord(file: string): Settings {
  const record: Settings = new Map();
  try {
    const said: unknown = JSON.parse(readFileSync(file, 'utf8'));
    if (typeof said !== 'object' || said === null) return record;
    for (const [path, held] of Object.entries(said)) if (isHeld(held)) record.set(path, held);
  } catch {
    return record;
  }
  return record;
}

function isHeld(value: unknown): value is Held {
  if (typeof value !== 'object' || value === null) return false;
  return 'before' in value && typeof value.before === 'string' && 'ours' in value && typeof value.ours === 'string';
}
