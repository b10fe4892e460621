/**
 * What the commands print: a header line and one row a line, aligned on a terminal, tab-separated where another program
 * reads it, or JSON.
 */

/** Space between two columns on a terminal. */
const GAP = '  ';

export interface Table {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

/** Cells of no text show as `-`, so that every row has every column. */
const cell = (text: string | undefined): string => (text === undefined || text === '' ? '-' : text);

/** @param aligned pad the columns rather than separate them by tabs; default: on a terminal */
export function tableLines({ columns, rows }: Table, aligned = process.stdout.isTTY): string[] {
  const lines = [columns, ...rows].map((row) => columns.map((_, index) => cell(row[index])));
  if (!aligned) return lines.map((cells) => cells.join('\t'));
  const widths = columns.map((_, index) => Math.max(...lines.map((cells) => cells[index]?.length ?? 0)));
  return lines.map((cells) =>
    cells
      .map((text, index) => text.padEnd(widths[index] ?? 0))
      .join(GAP)
      .trimEnd(),
  );
}

export function printTable(table: Table): void {
  print(tableLines(table));
}

export function print(lines: readonly string[]): void {
  process.stdout.write(lines.map((line) => `${line}\n`).join(''));
}

export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}

/** Columns of the tables that are counts or ids. */
const NUMBERS = new Set([
  'up_tunnel',
  'down_tunnel',
  'readers',
  'frames',
  'frames_in',
  'frames_out',
  'bytes',
  'dropped',
  'members',
  'flows',
  'errors',
  'sockets',
  'value',
]);

/** Columns of text that have a dash where there is nothing. */
const OPTIONAL = new Set(['share', 'drops', 'through']);

/** As JSON has it; null where there is none. */
export const numberOf = (text: string): number | null => (/^-?\d+$/.test(text) ? Number(text) : null);

/** A row as an object, by the names of its columns. */
export function rowObject(columns: readonly string[], row: readonly string[]): Record<string, string | number | null> {
  return Object.fromEntries(
    columns.map((column, index) => {
      const text = row[index] ?? '';
      if (OPTIONAL.has(column) && text === '-') return [column, null];
      return [column, NUMBERS.has(column) ? numberOf(text) : text];
    }),
  );
}
