/** A logger that keeps its lines. */
import type { Logger } from '../../src/base/log.js';

export interface KeptLine {
  level: 'debug' | 'info' | 'warn' | 'error';
  fields: object;
  message: string;
}

export function keepLog(): Logger & { lines: KeptLine[] } {
  const lines: KeptLine[] = [];
  const keep =
    (level: KeptLine['level']) =>
    (fields: object, message: string): void => {
      lines.push({ level, fields, message });
    };
  return { lines, debug: keep('debug'), info: keep('info'), warn: keep('warn'), error: keep('error') };
}
