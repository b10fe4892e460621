/**
 * Configuration files: YAML, checked against a schema, with errors that name the line.
 *
 *     file --read--> text --yaml--> document with positions --zod--> typed value
 *                                        |                    |
 *                                        +--- FILE:LINE: expected …, at the first line where something is wrong
 *
 * Schemas say what they expect in words that go after "expected": zod's own for types, `expected …` for the rest.
 */
import { readFileSync } from 'node:fs';
import type { Document, Node, Pair } from 'yaml';
import { isMap, isNode, isScalar, isSeq, LineCounter, parseDocument, visit } from 'yaml';
import { z } from 'zod';
import { describe, FwdfsError } from '../base/errors.js';

/** Names of forwarders and control devices: they are names of directories, nftables tables and tokens as well. */
const DEVICE_NAME = /^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$/;

export function isDeviceName(text: string): boolean {
  return DEVICE_NAME.test(text);
}

export const deviceName = z
  .string()
  .regex(DEVICE_NAME, 'expected a name of 1 to 64 letters, digits, "_", "-" and ".", not beginning with "."');

/** A path into the document: keys of maps and indices of lists. */
type Path = readonly PropertyKey[];

/**
 * @param path as the user wrote it; it stands in errors
 * @throws FwdfsError bad-config
 */
export function loadYaml<T>(path: string, schema: z.ZodType<T>): T {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw new FwdfsError('bad-config', `${path}: expected a file that can be read (${describe(cause)})`, { cause });
  }
  return parseYaml(path, text, schema);
}

/** As `loadYaml`, of a text; `path` is only its name. */
export function parseYaml<T>(path: string, text: string, schema: z.ZodType<T>): T {
  const lineCounter = new LineCounter();
  const document = parseDocument(text, { lineCounter, prettyErrors: false, logLevel: 'error' });
  const lineAt = (offset: number): number => lineCounter.linePos(offset).line;
  const bad = (offset: number, message: string): FwdfsError =>
    new FwdfsError('bad-config', `${path}:${lineAt(offset)}: ${message}`);
  const syntax = document.errors[0];
  if (syntax !== undefined) throw bad(syntax.pos[0], `expected valid YAML (${syntax.message.split('\n', 1)[0] ?? ''})`);
  let value: unknown;
  try {
    value = document.toJS();
  } catch (error) {
    throw bad(firstDanglingAlias(document), `expected valid YAML (${describe(error)})`);
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const problems = result.error.issues.map((issue) => explain(document, issue));
  problems.sort((a, b) => a.offset - b.offset);
  throw bad(problems[0]?.offset ?? 0, problems[0]?.message ?? 'expected something else');
}

/** Offset of the first alias without an anchor before it, 0 where there is none: then there are too many of them. */
function firstDanglingAlias(document: Document): number {
  let offset = 0;
  visit(document, {
    Alias: (_key, alias) => {
      if (alias.resolve(document) !== undefined) return undefined;
      offset = alias.range?.[0] ?? 0;
      return visit.BREAK;
    },
  });
  return offset;
}

interface Problem {
  /** Where it stands in the text. */
  readonly offset: number;
  /** `expected …`, with the place in words. */
  readonly message: string;
}

function explain(document: Document, issue: z.core.$ZodIssue): Problem {
  if (issue.code === 'unrecognized_keys') {
    const key = issue.keys[0] ?? '';
    const { offset } = find(document, [...issue.path, key], 'key');
    return { offset, message: `expected only known keys, unknown key ${key}${placeOf(issue.path)}` };
  }
  const { offset, missing } = find(document, issue.path, issue.code === 'invalid_key' ? 'key' : 'value');
  const why = issue.code === 'invalid_key' ? (issue.issues[0]?.message ?? '') : issue.message;
  return { offset, message: `${words(why)}${missing ? ', it is missing' : ''}${placeOf(issue.path)}` };
}

/** What YAML calls the types of zod's messages. */
const YAML_WORDS: Readonly<Record<string, string>> = { object: 'map', record: 'map', array: 'list' };

/** zod: "Invalid input: expected object, received undefined"; ours already begin with "expected". */
function words(message: string): string {
  const text = message
    .replace(/^Invalid (input|option): /, '')
    .replace(/\b(object|record|array)\b/g, (word) => YAML_WORDS[word] ?? word)
    .replace(', received undefined', '');
  return text.startsWith('expected') ? text : `expected otherwise: ${text}`;
}

/** ` (interfaces.eth0.host[1])` */
function placeOf(path: Path): string {
  const text = path.map((part) => (typeof part === 'number' ? `[${part}]` : `.${String(part)}`)).join('');
  return text === '' ? '' : ` (${text.replace(/^\./, '')})`;
}

/**
 * Where the node at `path` stands, or the deepest on the way to it when it is `missing`.
 *
 * @param what `key`: of a node in a map the name, rather than the value
 */
function find(document: Document, path: Path, what: 'key' | 'value'): { offset: number; missing: boolean } {
  let node: Node | null = document.contents;
  let missing = false;
  for (const [depth, part] of path.entries()) {
    const next = child(node, part, what === 'key' && depth === path.length - 1);
    if (next === null) {
      // Of a text or an alias the whole stands for its parts.
      missing = isMap(node);
      break;
    }
    node = next;
  }
  return { offset: node?.range?.[0] ?? 0, missing };
}

/** A map's value, or its key where there is no value (`eth0:`) or the key is wanted; a list's item. */
function child(node: Node | null, part: PropertyKey, wantKey: boolean): Node | null {
  let found: unknown;
  if (isSeq(node)) {
    found = node.items[Number(part)];
  } else if (isMap(node)) {
    const pair: Pair | undefined = node.items.find(({ key }) => isScalar(key) && String(key.value) === String(part));
    found = wantKey || !isNode(pair?.value) ? pair?.key : pair?.value;
  }
  return isNode(found) ? found : null;
}
