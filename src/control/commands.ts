/**
 * The commands of `.ctl`, one a line.
 *
 *     rule add NAME       a rule without an open file: NAME as a symbol's, without framing
 *     rule remove NAME    takes it back
 */
import { FwdfsError } from '../base/errors.js';
import { parseSymbolName } from '../packet/symbol-name.js';
import type { ForwarderLink } from './forwarder-link.js';
import { ruleName, type UpTunnel } from './up-tunnel.js';

export class RuleCommands {
  /** Rules that were set by hand, or are about to be, by name. A forwarder that was removed takes its own along. */
  private readonly rules = new WeakMap<ForwarderLink, Map<string, Promise<UpTunnel>>>();

  /** Carries out one line written to the `.ctl` of a forwarder. */
  async run(link: ForwarderLink, command: string): Promise<void> {
    const words = command.trim().split(/\s+/);
    if (words.length === 1 && words[0] === '') return;
    const [object, verb, name] = words;
    if (words.length !== 3 || object !== 'rule' || name === undefined || (verb !== 'add' && verb !== 'remove')) {
      throw new FwdfsError('bad-command', JSON.stringify(command));
    }
    const symbol = parseSymbolName(name);
    const key = `${link.name}/${ruleName(symbol)}`;
    const held = this.rules.get(key);
    if (verb === 'remove') {
      if (held === undefined) throw new FwdfsError('no-such-name', `no rule ${key} was added by hand`);
      this.rules.delete(key);
      link.releaseUp(held);
    } else {
      if (held !== undefined) throw new FwdfsError('already-there', `rule ${key}`);
      this.rules.set(key, await link.acquireUp(symbol));
    }
  }

  /** Names of the rules that were set by hand. */
  get names(): string[] {
    return [...this.rules.keys()];
  }
}
