/** The logger of the commands: pino on stderr or in a file, pretty on a terminal. */
import { writeSync } from 'node:fs';
import { pino } from 'pino';
import { prettyFactory } from 'pino-pretty';
import type { Logger } from '../base/log.js';

const STDERR = 2;

/**
 * Synchronous on purpose: the last line of a daemon that ends is the one that matters. A line that can't be written, to a
 * full disk or a pipe without a reader, is lost: no log is worth a daemon.
 * @param fd where the lines go
 */
export function makeLogger(level: string, fd = STDERR): Logger {
  const format = fd === STDERR && process.stderr.isTTY ? prettyFactory({ colorize: true }) : String;
  const write = (line: string): void => {
    try {
      writeSync(fd, format(line));
    } catch {
      // Lost.
    }
  };
  return pino({ level, base: null }, { write });
}
