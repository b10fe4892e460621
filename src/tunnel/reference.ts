/** The reference of the messages as Markdown, written from the table in messages.ts and nothing else. */
import * as z from 'zod';
import { type MessageType, MESSAGES, PROTOCOL_VERSION, entryOf } from './messages.js';

interface Row {
  readonly name: string;
  readonly type: string;
  readonly unit: string;
  readonly doc: string;
}

/** A document with one section per message. */
export function messagesReference(): string {
  const types = Object.keys(MESSAGES) as MessageType[];
  return [
    '# Messages',
    '',
    `Protocol version ${PROTOCOL_VERSION}. Written from the table in \`src/tunnel/messages.ts\`; do not edit.`,
    '',
    'A message on `/control` is one WebSocket message that holds one msgpack map: `type`, the fields below, and `id` (u32)',
    'on a message that is answered; the answer, or an `error`, carries the same number as `re`.',
    '',
    '| message | sent by | answered by | source |',
    '|---|---|---|---|',
    ...types.map((type) => {
      const { from, answer, source } = entryOf(type);
      return `| [\`${type}\`](#${type}) | ${from} | ${answer === null ? '' : `\`${answer}\``} | ${source} |`;
    }),
    '',
    ...types.flatMap(section),
  ].join('\n');
}

function section(type: MessageType): string[] {
  const { doc, fields } = entryOf(type);
  const rows = rowsOf('', fields);
  const head = [`## ${type}`, '', doc, ''];
  if (rows.length === 0) return [...head, 'No fields.', ''];
  const lines = rows.map((row) => `| \`${row.name}\` | ${row.type} | ${row.unit} | ${row.doc} |`);
  return [...head, '| field | type | unit | meaning |', '|---|---|---|---|', ...lines, ''];
}

/** A row per field; those of an object inside follow it as `outer.inner`, those in a list as `outer[].inner`. */
function rowsOf(prefix: string, fields: z.ZodObject): Row[] {
  return Object.entries(fields.shape).flatMap(([name, schema]) => {
    const optional = schema instanceof z.ZodOptional;
    const inner = optional ? schema.unwrap() : schema;
    const meta = (inner instanceof z.ZodType ? inner.meta() : undefined) ?? {};
    const row: Row = {
      name: prefix + name,
      type: typeName(inner) + (optional ? ', optional' : ''),
      unit: typeof meta['unit'] === 'string' ? meta['unit'] : '',
      doc: meta.description ?? '',
    };
    if (inner instanceof z.ZodObject) return [row, ...rowsOf(`${prefix}${name}.`, inner)];
    if (inner instanceof z.ZodArray && inner.element instanceof z.ZodObject) {
      return [row, ...rowsOf(`${prefix}${name}[].`, inner.element)];
    }
    return [row];
  });
}

/** Whole numbers are named by their range. */
const INTEGERS = new Map([
  ['0 65535', 'u16'],
  ['0 4294967295', 'u32'],
  ['-2147483648 2147483647', 'i32'],
  [`0 ${Number.MAX_SAFE_INTEGER}`, 'u53'],
]);

function typeName(schema: unknown): string {
  if (schema instanceof z.ZodNumber) return INTEGERS.get(`${schema.minValue} ${schema.maxValue}`) ?? 'number';
  if (schema instanceof z.ZodEnum) return schema.options.map((option) => `\`${option}\``).join(', ');
  if (schema instanceof z.ZodArray) return `list of ${typeName(schema.element)}`;
  if (schema instanceof z.ZodObject) return 'map';
  if (schema instanceof z.ZodBoolean) return 'bool';
  return 'text';
}
