/** `fwdfs forwarder`: runs a forwarder in the foreground until SIGINT or SIGTERM. */
import type { Command } from 'commander';
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
  const stopped = new Promise<void>((resolve) => onStopSignal(() => resolve()));
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
Examples:
  $ fwdfs forwarder --config /etc/fwdfs/forwarder.yaml
  $ fwdfs --log-level debug forwarder --config forwarder.yaml`,
    )
    .action(action(run));
}
