/**
 * The rules of the source tree: which room may import which, and what must not stand in a source file at all.
 *
 *     cli                    4
 *     forwarder   control    3      an import goes down, or stays in its own room; never up, never sideways
 *     tunnel      fusefs     2
 *     sys         packet     1
 *     base                   0      imports node:* only
 */
import { posix } from 'node:path';

export const FLOORS: Readonly<Record<string, number>> = {
  base: 0,
  sys: 1,
  packet: 1,
  tunnel: 2,
  fusefs: 2,
  forwarder: 3,
  control: 3,
  cli: 4,
};

export const MAX_LINES = 400;

/** Source text with comments blanked and every string literal replaced by `"N"`, the index of its content. */
interface Code {
  readonly text: string;
  readonly strings: readonly string[];
}

const REGEX_MAY_FOLLOW = /(?:^|[(,=:[!&|?{};+\-*%<>~^]|\b(?:return|typeof|case|in|of|void|throw|yield|await))$/;

/** Skips a quoted string or regular expression that starts at `from`. @returns the index behind it */
function endOfQuoted(source: string, from: number, quote: string): number {
  let inClass = false;
  for (let at = from + 1; at < source.length; at++) {
    const character = source[at];
    if (character === '\\') at += 1;
    else if (quote === '/' && character === '[') inClass = true;
    else if (quote === '/' && character === ']') inClass = false;
    else if ((character === quote && !inClass) || character === '\n') return at + 1;
  }
  return source.length;
}

export function readCode(source: string): Code {
  const strings: string[] = [];
  /** Depth of braces in each `${ … }` that is open. */
  const templates: number[] = [];
  let text = '';
  let at = 0;

  const template = (): void => {
    const from = at;
    while (at < source.length && source[at] !== '`' && !source.startsWith('${', at)) at += source[at] === '\\' ? 2 : 1;
    strings.push(source.slice(from, at));
    text += `"${strings.length - 1}"`;
    if (source[at] === '`') at += 1;
    else if (at < source.length) {
      at += 2;
      templates.push(0);
      text += '+(';
    }
  };

  while (at < source.length) {
    const character = source[at] as string;
    if (source.startsWith('//', at)) {
      const end = source.indexOf('\n', at);
      at = end < 0 ? source.length : end;
    } else if (source.startsWith('/*', at)) {
      const end = source.indexOf('*/', at + 2);
      at = end < 0 ? source.length : end + 2;
      text += ' ';
    } else if (character === "'" || character === '"') {
      const end = endOfQuoted(source, at, character);
      strings.push(source.slice(at + 1, end - 1));
      text += `"${strings.length - 1}"`;
      at = end;
    } else if (character === '`') {
      at += 1;
      template();
    } else if (character === '/' && REGEX_MAY_FOLLOW.test(text.trimEnd())) {
      at = endOfQuoted(source, at, '/');
      text += '(0)';
    } else {
      at += 1;
      const depth = templates.at(-1);
      if (depth === 0 && character === '}') {
        templates.pop();
        text += ')+';
        template();
        continue;
      }
      if (depth !== undefined && character === '{') templates[templates.length - 1] = depth + 1;
      if (depth !== undefined && character === '}') templates[templates.length - 1] = depth - 1;
      text += character;
    }
  }
  return { text, strings };
}

const IMPORTS = [
  /\b(?:import|export)\s[^";]*?\bfrom\s*"(\d+)"/g,
  /\bimport\s*"(\d+)"/g,
  /\bimport\s*\(\s*"(\d+)"\s*[,)]/g,
  /\brequire\s*\(\s*"(\d+)"\s*\)/g,
];

/** What a file imports, statically, dynamically, or for its side effects. */
export function importsOf(source: string): string[] {
  const { text, strings } = readCode(source);
  return IMPORTS.flatMap((pattern) => [...text.matchAll(pattern)].map((match) => strings[Number(match[1])] ?? ''));
}

/** @param path from the project's root @returns null: not in a room */
export function roomOf(path: string): string | null {
  const [, room] = /^src\/([^/]+)\/./.exec(path) ?? [];
  return room !== undefined && Object.hasOwn(FLOORS, room) ? room : null;
}

function importViolation(path: string, room: string, specifier: string): string | null {
  if (specifier.startsWith('node:')) return null;
  if (!specifier.startsWith('.')) return room === 'base' ? `base imports node:* only, not ${specifier}` : null;
  const target = roomOf(posix.join(posix.dirname(path), specifier));
  if (target === null) return `${specifier} is in no room`;
  if (target === room) return null;
  const [here, there] = [FLOORS[room] ?? 0, FLOORS[target] ?? 0];
  if (there < here) return null;
  return `${room} must not import ${target}, which is ${there === here ? 'beside' : 'above'} it (${specifier})`;
}

const FORBIDDEN_CODE: readonly (readonly [RegExp, string])[] = [
  [/\bexport\s+default\b|\bas\s+default\b/, 'export default'],
  [/(?:[:<|&=]|\bas\b|\bextends\b)\s*any\b(?!\s*[.(])|\bany\s*(?:\[\]|>)/, 'any'],
  [/\bimport\s*\((?!\s*"\d+"\s*[,)])/, 'an import whose target cannot be read'],
];

const FORBIDDEN_TEXT: readonly (readonly [RegExp, string])[] = [
  [/@ts-(?:ignore|expect-error|nocheck)\b/, 'a comment that silences the compiler'],
  [/\b(?:TODO|FIXME)\b/, 'TODO or FIXME'],
];

/** What is wrong with one source file, a line each; empty if nothing is. @param path from the project's root */
export function violationsOf(path: string, source: string): string[] {
  const room = roomOf(path);
  if (room === null) return [`${path}: is in no room`];
  const found: string[] = [];
  for (const specifier of importsOf(source)) {
    const violation = importViolation(path, room, specifier);
    if (violation !== null) found.push(violation);
  }
  const { text } = readCode(source);
  for (const [pattern, what] of FORBIDDEN_CODE) if (pattern.test(text)) found.push(what);
  for (const [pattern, what] of FORBIDDEN_TEXT) if (pattern.test(source)) found.push(what);
  const lines = source.trimEnd().split('\n').length;
  if (lines > MAX_LINES) found.push(`${lines} lines, more than ${MAX_LINES}`);
  return found.map((what) => `${path}: ${what}`);
}
