/** The messages by which a session begins, goes on and ends; the others are in messages.ts, with what both are made of. */
import * as z from 'zod';
import { flag, MAX_NAME, MAX_TOKEN, type MessageEntry, text, u32, u53, word } from './message-fields.js';

export const SESSION_MESSAGES = {
  hello: {
    from: 'control',
    answer: 'hello-response',
    source: 'ours',
    doc: 'The first message of a channel: who speaks, and which session it wants to go on with.',
    fields: z.object({
      versions: z
        .object({ min: u32('oldest version spoken'), max: u32('newest version spoken') })
        .meta({ description: 'protocol versions' }),
      name: word('name of the control device', MAX_NAME),
      token: z
        .string()
        .max(MAX_TOKEN)
        .meta({ description: 'proves the name, where no client certificate does' })
        .optional(),
      resume: z
        .object({ session: text('session of the hello-response'), epoch: text('epoch of the hello-response') })
        .meta({ description: 'the session to go on with' })
        .optional(),
      weight: u32(
        'share of new flows that this control device takes, against those of others; 1 to MAX_WEIGHT, absent: 1',
      ).optional(),
    }),
  },
  'hello-response': {
    from: 'forwarder',
    answer: null,
    source: 'ours',
    doc: 'The control device is accepted. It now opens /tunnel?key=tunnelKey; with both channels the session is active.',
    fields: z.object({
      version: u32('the version both use from now on'),
      epoch: text('new at every start of the forwarder'),
      forwarder: text('name of the forwarder'),
      session: text('names the session in a later resume'),
      tunnelKey: text('joins one /tunnel channel to this session; cannot be guessed'),
      resumed: flag('the session of the request goes on: its rules and tunnels are there'),
      resumeTime: u32('how long a session without channels is kept', 'ms'),
      tunnels: z
        .array(
          z.object({
            tunnel: u32('down tunnel'),
            sequence: u53('sequence number of the last frame received on it'),
          }),
        )
        .meta({ description: 'down tunnels of a resumed session; empty for a new one' }),
      upTunnels: z
        .array(z.object({ tunnel: u32('up tunnel'), frames: u53('frames sent on it so far') }))
        .meta({ description: 'up tunnels of a resumed session; empty for a new one' }),
    }),
  },
  suspend: {
    from: 'both',
    answer: null,
    source: 'ours',
    doc: 'The sender goes away for a while: both channels are closed at once and the session waits to be resumed.',
    fields: z.object({}),
  },
  goodbye: {
    from: 'both',
    answer: null,
    source: 'ours',
    doc: 'The sender goes away for good: the session, its rules and its tunnels end at once.',
    fields: z.object({ reason: text('one line for the log') }),
  },
  error: {
    from: 'both',
    answer: null,
    source: 'ours',
    doc: 'Answers a request that failed.',
    fields: z.object({
      code: text('a code of the error table; one that the receiver does not know counts as internal'),
      text: text('what happened, one line'),
    }),
  },
} as const satisfies Record<string, MessageEntry>;
