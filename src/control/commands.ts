/**
 * The commands of `.ctl`, one a line.
 *
 *     rule add NAME       a rule without an open file: NAME as a symbol's, without framing
 *     rule remove NAME    takes it back
 *     vif …               virtual IFs: vif-commands.ts
 *     drain [IF] [off]    no new flows of balanced rules, of one interface or of all; `off`: again
 */
import { FwdfsError } from '../base/errors.js';
import type { Opener } from '../fusefs/command-file.js';
import { parseSymbolName, type SymbolName } from '../packet/symbol-name.js';
import type { ForwarderLink } from './forwarder-link.js';
import { ruleName, type UpTunnel } from './up-tunnel.js';

interface HandRule {
  readonly ready: Promise<UpTunnel>;
  /** null until it is ready. */
  tunnel: UpTunnel | null;
}

/** The commands that begin with one word. */
export interface CommandGroup {
  /** @param words after the first */
  run(words: readonly string[], opener: Opener): Promise<void>;
}

/** `.ctl` of a forwarder: the first word says whose command it is. */
export class ForwarderCommands {
  private readonly groups: ReadonlyMap<string, CommandGroup>;

  /** @param groups by their first word */
  constructor(groups: Readonly<Record<string, CommandGroup>>) {
    this.groups = new Map(Object.entries(groups));
  }

  /** Carries out one line written to the `.ctl` of the forwarder. */
  async run(command: string, opener: Opener): Promise<void> {
    const words = command.trim().split(/\s+/);
    const [object, ...rest] = words;
    if (object === undefined || object === '') return;
    const group = this.groups.get(object);
    if (group === undefined) throw new FwdfsError('bad-command', JSON.stringify(command));
    await group.run(rest, opener);
  }
}

export class RuleCommands {
  private readonly link: ForwarderLink;
  /** Rules that were set by hand, or are about to be, by name. */
  private readonly rules = new Map<string, HandRule>();

  constructor(link: ForwarderLink) {
    this.link = link;
  }

  /** @param words after `rule` */
  async run(words: readonly string[]): Promise<void> {
    const [verb, name] = words;
    if (words.length !== 2 || name === undefined || (verb !== 'add' && verb !== 'remove')) {
      throw new FwdfsError('bad-command', `rule ${words.join(' ')}`);
    }
    const symbol = parseSymbolName(name, (whole) => this.link.interfaces.has(whole) || this.rules.has(whole));
    const key = ruleName({ ...symbol, claim: false });
    if (symbol.text !== key) throw new FwdfsError('bad-command', `a rule has a scope and nothing more: ${key}`);
    await (verb === 'add' ? this.add(key, symbol) : this.remove(key));
  }

  private async add(key: string, symbol: SymbolName): Promise<void> {
    const before = this.rules.get(key);
    // One that the forwarder ended is there in name only.
    if (before !== undefined && (before.tunnel?.failure ?? null) === null) {
      throw new FwdfsError('already-there', `rule ${this.link.name}/${key}`);
    }
    const held: HandRule = { ready: this.link.acquireUp(symbol), tunnel: null };
    this.rules.set(key, held);
    try {
      held.tunnel = await held.ready;
    } catch (error) {
      if (this.rules.get(key) === held) this.rules.delete(key);
      throw error;
    }
  }

  private async remove(key: string): Promise<void> {
    const held = this.rules.get(key);
    if (held === undefined) throw new FwdfsError('no-such-name', `no rule ${this.link.name}/${key} was added by hand`);
    this.rules.delete(key);
    this.link.releaseUp(await held.ready);
  }
}

export class DrainCommands {
  private readonly link: ForwarderLink;

  constructor(link: ForwarderLink) {
    this.link = link;
  }

  /** @param words after `drain` */
  async run(words: readonly string[]): Promise<void> {
    const isOff = words.at(-1) === 'off';
    const [name, ...more] = isOff ? words.slice(0, -1) : words;
    if (more.length > 0) throw new FwdfsError('bad-command', `drain ${words.join(' ')}`);
    // The forwarder may have lost one that is to take flows again.
    if (name !== undefined && !isOff) this.link.interfaceOf(name);
    await this.link.drains.set(name, !isOff);
  }
}
