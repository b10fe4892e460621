/**
 * One message of /control as bytes, both ways. Encoding validates too: what leaves is what the table says, in the order
 * of the table, and nothing else.
 */
import { Packr } from 'msgpackr';
import { FwdfsError, describe } from '../base/errors.js';
import { type AnyFields, type MessageArgs, type MessageType, entryOf, isMessageType } from './messages.js';
import { isPlainMsgpack } from './msgpack-guard.js';

/** Plain maps, no records: any msgpack library reads them. */
const packr = new Packr({ useRecords: false, variableMapSize: true, int64AsType: 'number' });

const U32_MAX = 0xffff_ffff;

/** The numbers beside the fields: `id` of a request, `re` of an answer. */
export interface Envelope {
  readonly id?: number;
  readonly re?: number;
}

export interface KnownMessage extends Envelope {
  readonly known: true;
  /** [type, fields], to be spread into a handler's parameters. */
  readonly args: MessageArgs;
}

/** A message of a newer version. */
export interface UnknownMessage extends Envelope {
  readonly known: false;
  readonly type: string;
}

export type Decoded = KnownMessage | UnknownMessage;

/** @throws FwdfsError 'internal' if the fields are not those of the table */
export function encodeMessage(type: MessageType, fields: AnyFields, envelope: Envelope = {}): Buffer {
  const parsed = entryOf(type).fields.safeParse(fields);
  if (!parsed.success) throw new FwdfsError('internal', `cannot send ${type}: ${firstIssue(parsed.error)}`);
  const head: Record<string, unknown> = { type };
  if (envelope.id !== undefined) head['id'] = envelope.id;
  if (envelope.re !== undefined) head['re'] = envelope.re;
  return packr.pack(withoutUndefined({ ...head, ...parsed.data }));
}

/** @throws FwdfsError 'bad-message', and nothing else, whatever the bytes are */
export function decodeMessage(bytes: Buffer): Decoded {
  if (!isPlainMsgpack(bytes)) throw new FwdfsError('bad-message', 'a message is not plain msgpack');
  const map = unpack(bytes);
  const type = map['type'];
  if (typeof type !== 'string') throw new FwdfsError('bad-message', 'a message has no type');
  const envelope = { ...number(map, 'id'), ...number(map, 're') };
  if (!isMessageType(type)) return { known: false, type, ...envelope };
  const parsed = entryOf(type).fields.safeParse(map);
  if (!parsed.success) throw new FwdfsError('bad-message', `malformed ${type}: ${firstIssue(parsed.error)}`);
  return { known: true, args: [type, parsed.data] as unknown as MessageArgs, ...envelope };
}

function unpack(bytes: Buffer): Record<string, unknown> {
  let value: unknown;
  try {
    value = packr.unpack(bytes);
  } catch (error) {
    throw new FwdfsError('bad-message', `a message is not msgpack (${describe(error)})`, { cause: error });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new FwdfsError('bad-message', 'a message is not a map');
  }
  return value as Record<string, unknown>;
}

function number(map: Record<string, unknown>, key: 'id' | 're'): Envelope {
  const value = map[key];
  if (value === undefined) return {};
  if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= U32_MAX) return { [key]: value };
  throw new FwdfsError('bad-message', `${key} of a message is not a u32`);
}

/** msgpack has no word for undefined: an optional field that is not there is left out. */
function withoutUndefined(map: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(map).filter(([, value]) => value !== undefined));
}

function firstIssue(error: { issues: readonly { path: readonly PropertyKey[]; message: string }[] }): string {
  const issue = error.issues[0];
  return issue === undefined ? 'invalid' : `${issue.path.map(String).join('.')}: ${issue.message}`;
}
