/** `fwdfs forwarder`: runs a forwarder in the foreground until SIGINT or SIGTERM. */
import type { Command } from 'commander';
import { Forwarder } from '../forwarder/forwarder.js';
import { loadForwarderConfig } from '../forwarder/config.js';
import { action, onStopSignal } from './exit.js';
import { makeLogger } from './log.js';

export function addForwarderCommand(program: Command): void {
  program
    .command('forwarder')
    .description('run a forwarder in the foreground')
    .requiredOption('--config <file>', 'its configuration, YAML')
    .addHelpText('after', '\nExamples:\n  $ fwdfs forwarder --config /etc/fwdfs/forwarder.yaml')
    .action(
      action(async (options: { config: string }, command: Command) => {
        const log = makeLogger(command.optsWithGlobals<{ logLevel: string }>().logLevel);
        const forwarder = new Forwarder(loadForwarderConfig(options.config), log);
        const stopped = new Promise<void>((resolve) => onStopSignal(() => resolve()));
        await forwarder.start();
        await stopped;
        await forwarder.stop();
        process.exit(0);
      }),
    );
}
