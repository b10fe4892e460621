/**
 * Numbers of routing tables that belong to one holder at a time. It holds the number as a name (abstract Unix address),
 * which the kernel gives back however the process ends; a table whose number nobody holds can be swept.
 */
import { constants } from 'node:os';
import { FwdfsError, SystemError } from '../base/errors.js';
import { holdName } from '../sys/name-lock.js';

const { EADDRINUSE } = constants.errno;

export interface TableRange {
  /** What its names begin with: `fwdfs pins`. */
  readonly name: string;
  readonly first: number;
  readonly count: number;
}

/** The lowest table that no process of this network namespace holds. @throws FwdfsError too-many; SystemError */
export function holdTable(range: TableRange): [table: number, giveBack: () => void] {
  for (let table = range.first; table < range.first + range.count; table++) {
    const giveBack = tryHoldTable(range, table);
    if (giveBack !== null) return [table, giveBack];
  }
  throw new FwdfsError('too-many', `${range.count} tables of ${range.name} are in use here`);
}

/** Null while another has it. @throws SystemError */
export function tryHoldTable({ name }: TableRange, table: number): (() => void) | null {
  return tryHoldName(`${name} ${table}`);
}

export function isInRange({ first, count }: TableRange, table: number): boolean {
  return table >= first && table < first + count;
}

/** Null while another has it. @throws SystemError */
export function tryHoldName(name: string): (() => void) | null {
  try {
    return holdName(name);
  } catch (error) {
    if (error instanceof SystemError && error.errno === EADDRINUSE) return null;
    throw error;
  }
}
