/**
 * How a command ends: exit status 0, 1 (failed) or 2 (usage), an error as one line on stderr that says what to do.
 */
import { describe, errnoName, errnoOf, FwdfsError } from '../base/errors.js';

export const EXIT_FAILED = 1;
export const EXIT_USAGE = 2;

/** The command line asks for something that no mount and no host could give: exit status 2. */
export class UsageError extends Error {}

/** The exit status that an error stands for. */
export function exitStatusOf(error: unknown): number {
  const isUsage = error instanceof UsageError || (error instanceof FwdfsError && error.code === 'bad-option');
  return isUsage ? EXIT_USAGE : EXIT_FAILED;
}

/** The one line of an error, with its newline. */
export function errorLine(error: unknown): string {
  return `fwdfs: ${describe(error)
    .trim()
    .replaceAll(/\s*\n\s*/g, '; ')}\n`;
}

/** What commander says of a wrong command line, as the one line of an error. @param path the words that call the command */
export function usageLine(text: string, path: string): string {
  return errorLine(
    `${text
      .replace(/^error: /, '')
      .replaceAll('\n', ' ')
      .trim()} (${path} --help shows how)`,
  );
}

/** Runs a command's action; what it throws becomes one line and an exit status. */
export function action<A extends unknown[]>(run: (...args: A) => Promise<void> | void): (...args: A) => Promise<void> {
  return async (...args) => {
    try {
      await run(...args);
    } catch (error) {
      process.stderr.write(errorLine(error));
      process.exitCode = exitStatusOf(error);
    }
  };
}

/** What is printed where nobody reads any more is not missed; other output that is lost is an error, told once. */
export function guardOutput(): void {
  process.stderr.on('error', () => undefined);
  let isTold = false;
  process.stdout.on('error', (error) => {
    const code = errnoName(errnoOf(error));
    if (code === 'EPIPE' || isTold) return;
    isTold = true;
    process.stderr.write(errorLine(new Error(`the output can't be written (${code}): use another file or disk`)));
    process.exitCode = EXIT_FAILED;
  });
}

/** SIGHUP is that of a terminal which closes. */
export const STOP_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Calls `stop` at the first of the signals; a second one ends the process as if nothing was there to catch it. */
export function onStopSignal(
  stop: (signal: NodeJS.Signals) => void,
  signals: readonly NodeJS.Signals[] = STOP_SIGNALS,
): void {
  for (const signal of signals) process.once(signal, stop);
}
