/** The logger of the commands: pino on stderr, pretty on a terminal. */
import { pino } from 'pino';
import pretty from 'pino-pretty';
import type { Logger } from '../base/log.js';

/** @param file appended to, instead of stderr */
export function makeLogger(level: string, file?: string): Logger {
  // Synchronous on purpose: the last line of a daemon that ends is the one that matters.
  if (file !== undefined)
    return pino({ level, base: null }, pino.destination({ dest: file, append: true, sync: true }));
  if (process.stderr.isTTY) return pino({ level, base: null }, pretty({ destination: 2, sync: true, colorize: true }));
  return pino({ level, base: null }, pino.destination({ dest: 2, sync: true }));
}
