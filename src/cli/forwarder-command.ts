/** `fwdfs forwarder`: runs a forwarder in the foreground until SIGINT or SIGTERM; SIGHUP reads its configuration again. */
import type { Command } from 'commander';
import { describe } from '../base/errors.js';
import { action, onStopSignal } from './exit.js';

async function run(options: { config: string }, command: Command): Promise<void> {
  const [{ Forwarder }, { loadForwarderConfig }, { makeLogger }, { notifyReady }] = await Promise.all([
    import('../forwarder/forwarder.js'),
    import('../forwarder/config.js'),
    import('./log.js'),
    import('../sys/notify.js'),
  ]);
  const log = makeLogger(command.optsWithGlobals<{ logLevel: string }>().logLevel);
  const forwarder = new Forwarder(loadForwarderConfig(options.config), log);
  const stopped = new Promise<void>((resolve) => onStopSignal(() => resolve(), ['SIGINT', 'SIGTERM']));
  process.on('SIGHUP', () => {
    try {
      forwarder.reload(loadForwarderConfig(options.config));
    } catch (error) {
      log.error({ error: describe(error) }, 'the configuration was not reloaded; what was there stays');
    }
  });
  await forwarder.start();
  notifyReady();
  await stopped;
  await forwarder.stop();
  process.exit(0);
}

export function addForwarderCommand(program: Command): void {
  program
    .command('forwarder')
    .description('run a forwarder in the foreground')
    .requiredOption('--config <file>', 'its configuration, YAML')
    .addHelpText(
      'after',
      `
SIGHUP makes it read the permissions of that file again; what lost its right ends at once.

Examples:
  $ fwdfs forwarder --config /etc/fwdfs/forwarder.yaml
  $ fwdfs --log-level debug forwarder --config forwarder.yaml`,
    )
    .action(action(run));
}
