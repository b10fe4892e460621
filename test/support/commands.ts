/** What is written to a forwarder's `.ctl`, for tests that have no virtual IFs. */
import { FwdfsError } from '../../src/base/errors.js';
import { DrainCommands, ForwarderCommands, RuleCommands } from '../../src/control/commands.js';
import type { ForwarderLink } from '../../src/control/forwarder-link.js';

export function commandsOf(link: ForwarderLink): { run(command: string): Promise<void> } {
  const vifs = { run: (words: readonly string[]) => Promise.reject(new FwdfsError('bad-command', words.join(' '))) };
  const commands = new ForwarderCommands({ rule: new RuleCommands(link), drain: new DrainCommands(link), vif: vifs });
  return { run: (command) => commands.run(command, { onRelease: () => undefined }) };
}
