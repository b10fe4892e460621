/**
 * The messages of /control, in one table: who sends each, what answers it, where it comes from, and its fields with their
 * units. The codec (codec.ts), the types below and the reference in the docs all come from the table.
 *
 * On the wire a message is one msgpack map {type, id?, re?, …fields}. A message that wants an answer carries `id`, a u32
 * of the sender's choice; its answer, or an `error`, carries the same number as `re`. Fields that a receiver does not
 * know are ignored and messages that it does not know are answered with an `error`, so that versions can differ by one.
 *
 * The table has two files: the messages by which a session lives, and all others.
 */
import * as z from 'zod';
import { FwdfsError } from '../base/errors.js';
import {
  downTunnel,
  expectedLinkType,
  flag,
  interfaceFields,
  interfaceName,
  type MessageEntry,
  RIGHTS,
  SCOPES,
  type Side,
  symbolName,
  text,
  texts,
  u32,
  u53,
  upTunnel,
  VIF_KINDS,
  vifTunnel,
} from './message-fields.js';

import { SESSION_MESSAGES } from './messages-session.js';

export { RIGHTS, type Side, VIF_KINDS } from './message-fields.js';

export const PROTOCOL_VERSION = 1;

/** The versions that this program speaks, first and last. */
export const VERSIONS = { min: Math.max(1, PROTOCOL_VERSION - 1), max: PROTOCOL_VERSION } as const;

/** The newest version both speak. @throws FwdfsError 'version-mismatch' where there is none */
export function negotiate(theirs: { min: number; max: number }): number {
  const version = Math.min(VERSIONS.max, theirs.max);
  if (version >= VERSIONS.min && version >= theirs.min) return version;
  throw new FwdfsError(
    'version-mismatch',
    `this device speaks versions ${VERSIONS.min} to ${VERSIONS.max}, the other ${theirs.min} to ${theirs.max}`,
  );
}

// --- the table ---

export const MESSAGES = {
  ...SESSION_MESSAGES,
  'interface-list': {
    from: 'forwarder',
    answer: null,
    source: 'ours',
    doc: 'Pushed when the session becomes active and whenever the set changes.',
    fields: z.object({
      interfaces: texts("names of the forwarder's interfaces that this control device may see"),
      again: flag('rights may be others than before: the use of each is to be asked for anew').optional(),
    }),
  },
  'interface-use-request': {
    from: 'control',
    answer: 'interface-use-response',
    source: 'steps S211 to S213',
    doc: 'Asks to use an interface; the permission table decides.',
    fields: z.object({ interface: interfaceName() }),
  },
  'interface-use-response': {
    from: 'forwarder',
    answer: null,
    source: 'steps S212, S213',
    doc: 'The interface may be used: its attributes and the rights to it.',
    fields: z.object(interfaceFields()),
  },
  'interface-attribute-change': {
    from: 'forwarder',
    answer: null,
    source: 'ours',
    doc: 'Pushed when something about an interface in use changes.',
    fields: z.object(interfaceFields()),
  },
  'tunnel-generation-request': {
    from: 'control',
    answer: 'tunnel-generation-response',
    source: 'Fig. 2',
    doc: 'Asks for a down tunnel: control device, symbol and interface are associated with one another.',
    fields: z.object({
      control: text('address of the control device'),
      symbol: symbolName(),
      interface: interfaceName(),
      protocol: text('what may be sent through it', 'protocol address'),
      linkType: expectedLinkType(),
      vif: z
        .object({
          kind: z.enum(VIF_KINDS).meta({ description: 'tap: Ethernet frames; tun: IP packets' }),
          upTunnel: upTunnel(),
          credit: u53('payload that may be sent before the first credit frame', 'bytes'),
        })
        .meta({
          description:
            'the tunnel is that of a virtual IF: what leaves through it opens its flow, whose answers come by this up tunnel',
        })
        .optional(),
    }),
  },
  'tunnel-generation-response': {
    from: 'forwarder',
    answer: null,
    source: 'Fig. 3',
    doc: 'The down tunnel is in the reception table of the forwarder.',
    fields: z.object({
      downTunnel: downTunnel(),
      forwarder: text('address of the forwarder'),
      symbol: symbolName(),
      interface: interfaceName(),
      window: u32('payload that may be under way and not confirmed', 'bytes'),
    }),
  },
  'tunnel-deletion-request': {
    from: 'control',
    answer: 'tunnel-deletion-response',
    source: 'ours',
    doc: 'Ends a down tunnel, without waiting for its frames; a close frame ends it in order with them.',
    fields: z.object({ downTunnel: downTunnel() }),
  },
  'tunnel-deletion-response': {
    from: 'forwarder',
    answer: null,
    source: 'ours',
    doc: 'The down tunnel is gone, or was not there.',
    fields: z.object({ downTunnel: downTunnel() }),
  },
  'transfer-request': {
    from: 'control',
    answer: 'transfer-response',
    source: 'Fig. 4',
    doc: 'Sets a packet transfer rule: packets of a protocol address at an interface go up a tunnel.',
    fields: z.object({
      upTunnel: upTunnel(),
      control: text('address of the control device'),
      protocol: text('which packets', 'protocol address'),
      symbol: symbolName(),
      interface: interfaceName(),
      scope: z
        .enum(SCOPES)
        .meta({ description: 'what the interface receives, what leaves it, both, or also what is for others' }),
      claim: flag('this control device alone gets them, and answers instead of the forwarder'),
      credit: u53('payload that may be sent before the first credit frame', 'bytes'),
      linkType: expectedLinkType(),
      vif: vifTunnel()
        .meta({
          description: 'the rule of a socket on this virtual IF, by its down tunnel: a frame goes up to it once',
        })
        .optional(),
      filter: z
        .string()
        .regex(/^([0-9a-f]{16}){1,4096}$/)
        .meta({ description: "a packet socket's own filter: classic BPF, 16 hex digits an instruction", unit: '' })
        .optional(),
      vip: text(
        'the rule of a socket on this virtual IP address: addresses are converted, and no frame goes up the tunnel',
      ).optional(),
    }),
  },
  'transfer-response': {
    from: 'forwarder',
    answer: null,
    source: 'ours',
    doc: 'The rule is active.',
    fields: z.object({ upTunnel: upTunnel() }),
  },
  'transfer-deletion-request': {
    from: 'control',
    answer: 'transfer-deletion-response',
    source: 'ours',
    doc: 'Takes a packet transfer rule back.',
    fields: z.object({ upTunnel: upTunnel() }),
  },
  'transfer-deletion-response': {
    from: 'forwarder',
    answer: null,
    source: 'ours',
    doc: 'The rule is gone, or was not there; no frame of the up tunnel is sent any more.',
    fields: z.object({ upTunnel: upTunnel() }),
  },
  'transfer-withdrawal': {
    from: 'forwarder',
    answer: null,
    source: 'ours',
    doc: 'A packet transfer rule was withdrawn: the rule is gone, and no frame of its up tunnel is sent any more.',
    fields: z.object({
      upTunnel: upTunnel(),
      reason: text('one line for the log'),
      code: text('why, a code of the error table; absent: not-permitted').optional(),
    }),
  },
  'group-join': {
    from: 'control',
    answer: 'group-response',
    source: 'ours',
    doc: 'A multicast group was joined on a virtual IF: the forwarder joins it on the interface.',
    fields: z.object({ downTunnel: vifTunnel(), group: text('IPv4 or IPv6 address of the group') }),
  },
  'group-leave': {
    from: 'control',
    answer: 'group-response',
    source: 'ours',
    doc: 'A multicast group was left on a virtual IF. All are left when its tunnel is deleted.',
    fields: z.object({ downTunnel: vifTunnel(), group: text('IPv4 or IPv6 address of the group') }),
  },
  'group-response': {
    from: 'forwarder',
    answer: null,
    source: 'ours',
    doc: 'The group is joined, or left.',
    fields: z.object({ group: text('IPv4 or IPv6 address of the group') }),
  },
  'neighbour-request': {
    from: 'control',
    answer: 'neighbour-response',
    source: 'ours',
    doc: "Asks for a neighbour of an interface: the forwarder's kernel resolves it (ARP, neighbour discovery).",
    fields: z.object({ interface: interfaceName(), address: text('IPv4 or IPv6 address of the neighbour') }),
  },
  'neighbour-response': {
    from: 'forwarder',
    answer: null,
    source: 'ours',
    doc: 'The neighbour, or that it does not answer.',
    fields: z.object({
      address: text('IPv4 or IPv6 address of the neighbour'),
      link: text('its link layer address; empty: it does not answer'),
    }),
  },
  'address-conversion-request': {
    from: 'control',
    answer: 'address-conversion-response',
    source: 'Fig. 19',
    doc: 'Registers a virtual IP address and the sender address that stands for it between the two devices.',
    fields: z.object({
      vip: text('virtual IP address: IPv4 or IPv6 address of an interface of the forwarder'),
      sender: text('address of the control device for this virtual IP address alone'),
      nextHop: text('address of the control device on the link between the devices, of the same family'),
      link: text('its link layer address there'),
    }),
  },
  'address-conversion-response': {
    from: 'forwarder',
    answer: null,
    source: 'ours',
    doc: 'The virtual IP address is in the reception table of the forwarder.',
    fields: z.object({
      vip: text('virtual IP address'),
      interface: interfaceName(),
      nextHop: text('address of the forwarder on the link between the devices, of the same family'),
      link: text('its link layer address there'),
    }),
  },
  'address-conversion-deletion-request': {
    from: 'control',
    answer: 'address-conversion-deletion-response',
    source: 'ours',
    doc: 'Takes a virtual IP address back, with the rules of its sockets.',
    fields: z.object({ vip: text('virtual IP address') }),
  },
  'address-conversion-deletion-response': {
    from: 'forwarder',
    answer: null,
    source: 'ours',
    doc: 'The virtual IP address is gone, or was not there.',
    fields: z.object({ vip: text('virtual IP address') }),
  },
  'address-conversion-withdrawal': {
    from: 'forwarder',
    answer: null,
    source: 'ours',
    doc: 'A virtual IP address was withdrawn, with the rules of its sockets: not permitted any more, or not an address of the interface any more.',
    fields: z.object({
      vip: text('virtual IP address'),
      reason: text('one line for the log'),
      code: text('why, a code of the error table; absent: not-permitted').optional(),
    }),
  },
  'drain-request': {
    from: 'control',
    answer: 'drain-response',
    source: 'ours',
    doc: 'This control device takes no new flows of balanced rules, or takes them again; those that it has stay.',
    fields: z.object({
      interface: interfaceName().optional(),
      drain: flag('no new flows from now on; false: again'),
    }),
  },
  'drain-response': {
    from: 'forwarder',
    answer: null,
    source: 'ours',
    doc: 'It counts from now on, for the interface or for all.',
    fields: z.object({ drain: flag('as asked') }),
  },
  'table-request': {
    from: 'control',
    answer: 'table-rows',
    source: 'ours',
    doc: "Asks for one of the forwarder's tables as text.",
    fields: z.object({
      table: text('its file name in .tables'),
      interface: text('only rows of this interface').optional(),
      from: u32(
        'goes on with the rows of the last answer for this table from here on; absent: rows as of now',
      ).optional(),
      watch: flag(
        'tell by one table-change when it is another than these rows; counts that move are no change',
      ).optional(),
    }),
  },
  'table-rows': {
    from: 'forwarder',
    answer: null,
    source: 'ours',
    doc: 'A table as text.',
    fields: z.object({
      columns: texts('names of the columns'),
      rows: z.array(z.array(z.string())).meta({ description: 'one text per column in each row' }),
      next: u32('there are more rows of the same moment: ask `from` here').optional(),
    }),
  },
  'table-change': {
    from: 'forwarder',
    answer: null,
    source: 'ours',
    doc: 'A table that was asked for with `watch` changed: rows came, went, or are in another state. Sent once.',
    fields: z.object({ table: text('its file name in .tables') }),
  },
} as const satisfies Record<string, MessageEntry>;

// --- types from the table ---

export type MessageType = keyof typeof MESSAGES;
/** The fields of a message. */
export type Message<T extends MessageType> = z.infer<(typeof MESSAGES)[T]['fields']>;
/** The type of what answers a message; never where nothing does. */
export type AnswerOf<T extends MessageType> = Extract<(typeof MESSAGES)[T]['answer'], MessageType>;
/** The messages that are answered. */
export type RequestType = { [T in MessageType]: AnswerOf<T> extends never ? never : T }[MessageType];
/** A message as the last two parameters of a handler; testing `type` narrows `fields`. */
export type MessageArgs = { [T in MessageType]: [type: T, fields: Message<T>] }[MessageType];
export type AnyFields = { [T in MessageType]: Message<T> }[MessageType];
/** What a handler returns: the fields of the answer; undefined where there is none, or if it does not know the message. */
export type Answer = AnyFields | undefined | void;

/** The entry of a message, with the table's own types widened. */
export function entryOf(type: MessageType): MessageEntry {
  return MESSAGES[type];
}

export function isMessageType(type: string): type is MessageType {
  return Object.hasOwn(MESSAGES, type);
}

/** Whether the messages of this type come from that side. */
export function isSentBy(type: MessageType, side: Side): boolean {
  const { from } = MESSAGES[type];
  return from === 'both' || from === side;
}

export type Attributes = Message<'interface-use-response'>['attributes'];
export type Right = (typeof RIGHTS)[number];
export type Scope = (typeof SCOPES)[number];
export type VifKind = (typeof VIF_KINDS)[number];
