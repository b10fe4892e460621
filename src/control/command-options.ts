/** The `KEY=VALUE` words of a command of `.ctl`. */
import { FwdfsError } from '../base/errors.js';

/** @param command for errors @param keys those that there are @throws FwdfsError bad-command */
export function parseOptions(
  command: string,
  words: readonly string[],
  keys: readonly string[],
): ReadonlyMap<string, string> {
  const known = new Map<string, string>();
  for (const word of words) {
    const equals = word.indexOf('=');
    const key = word.slice(0, Math.max(equals, 0));
    const value = word.slice(equals + 1);
    if (!keys.includes(key) || value === '' || known.has(key)) {
      throw new FwdfsError('bad-command', `${command}: ${JSON.stringify(word)}`);
    }
    known.set(key, value);
  }
  return known;
}
