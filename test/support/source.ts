/**
 * How a file mentions the source text, and how SOURCE.md maps it.
 *
 *     "distribution table 342", "sections 28 and 66"   a numeral, after the last word of its name
 *     "Fig. 11", "Fig. 9 and 10", "Fig. 5 to 8"        figures
 *     "S1007", "S1101 to S1106", "S803, S804"          steps; a range is every step in between
 */

export interface Numeral {
  /** In the words of the source text. */
  readonly name: string;
  /** The block diagram that it is first drawn in. */
  readonly figure: number;
}

/** What the source text has, written down from it: test/vectors/source-numerals.json. */
export interface SourceText {
  readonly numerals: Readonly<Record<string, Numeral>>;
  readonly figures: readonly number[];
  readonly steps: readonly string[];
}

/** A comment's lines become one: a mention may go over the end of a line. */
function unwrapped(text: string): string {
  return text.replace(/\s*\n\s*(?:\*|\/\/)?\s*/g, ' ');
}

/** The numbers of `12`, `12 and 13`, `12, 14 to 16`. */
function numbersOf(list: string): number[] {
  const numbers: number[] = [];
  for (const [, from, to] of list.matchAll(/(\d+)(?: to (\d+))?/g)) {
    for (let n = Number(from); n <= Number(to ?? from); n++) numbers.push(n);
  }
  return numbers;
}

export function figuresIn(text: string): Set<number> {
  const lists = unwrapped(text).matchAll(/\bFig\. (\d+(?:(?:, | and | to )\d+\b)*)/g);
  return new Set([...lists].flatMap(([, list = '']) => numbersOf(list)));
}

export function stepsIn(text: string): Set<string> {
  const steps = new Set<string>();
  for (const [, from = '', to] of unwrapped(text).matchAll(/\bS(\d{3,4})\b(?: to S(\d{3,4})\b)?/g)) {
    for (let n = Number(from); n <= Number(to ?? from); n++) steps.add(`S${n}`);
  }
  return steps;
}

export function mentionsNumeral(text: string, numeral: string, { name }: Numeral): boolean {
  const word = (name.split(' ').at(-1) ?? '').replace(/[^\w]/g, '.');
  const others = String.raw`(?:\d+[a-c]?(?:, | and | to ))*`;
  return new RegExp(String.raw`\b${word}s? ${others}${numeral}\b`, 'i').test(unwrapped(text));
}

export type Where =
  | { readonly kind: 'here'; readonly files: readonly string[]; readonly tests: readonly string[] }
  | { readonly kind: 'to come'; readonly topic: string }
  | { readonly kind: 'not ours'; readonly reason: string };

/** The last two cells of a row; null if they say nothing that can be checked. */
export function whereOf(file: string, test: string): Where | null {
  const [, word, rest = ''] = /^(to come|not ours): (.+)$/.exec(file) ?? [];
  if (word !== undefined) {
    if (test !== '-') return null;
    return word === 'to come' ? { kind: word, topic: rest } : { kind: 'not ours', reason: rest };
  }
  const paths = (cell: string): string[] | null =>
    /^`[^`]+`(?:, `[^`]+`)*$/.test(cell) ? cell.split(', ').map((path) => path.slice(1, -1)) : null;
  const [files, tests] = [paths(file), paths(test)];
  return files === null || tests === null ? null : { kind: 'here', files, tests };
}

/** Whether a test imports a source file, by the path that a compiled file has. */
export function importsFile(testText: string, file: string): boolean {
  return testText.includes(`/${file.replace(/\.ts$/, '.js')}'`);
}
