/**
 * How a command ends: exit status 0, 1 (failed) or 2 (usage), an error as one line on stderr that says what to do.
 */
import { describe } from '../base/errors.js';

export const EXIT_FAILED = 1;
export const EXIT_USAGE = 2;

/** Runs a command's action; what it throws becomes one line and exit status 1. */
export function action<A extends unknown[]>(run: (...args: A) => Promise<void> | void): (...args: A) => Promise<void> {
  return async (...args) => {
    try {
      await run(...args);
    } catch (error) {
      process.stderr.write(`fwdfs: ${describe(error)}\n`);
      process.exitCode = EXIT_FAILED;
    }
  };
}

/** Calls `stop` at the first SIGINT or SIGTERM; a second one ends the process as if nothing was there to catch it. */
export function onStopSignal(stop: (signal: NodeJS.Signals) => void): void {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, stop);
}
