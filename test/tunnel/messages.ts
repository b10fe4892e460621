/** The table itself, and what is made of it besides bytes. */
import t from 'tap';
import {
  MESSAGES,
  type MessageType,
  PROTOCOL_VERSION,
  VERSIONS,
  entryOf,
  isMessageType,
  isSentBy,
  negotiate,
} from '../../src/tunnel/messages.js';
import { messagesReference } from '../../src/tunnel/reference.js';

const types = Object.keys(MESSAGES) as MessageType[];

t.test('every answer is a message that the other side sends and that nothing answers', (t) => {
  for (const type of types) {
    const { answer, from } = entryOf(type);
    if (answer === null) continue;
    t.ok(isMessageType(answer), `${type} is answered by ${answer}`);
    if (!isMessageType(answer)) continue;
    t.ok(entryOf(answer).from !== from);
    t.equal(entryOf(answer).answer, null);
  }
  t.end();
});

t.test('no field takes the name of type, id or re', (t) => {
  for (const type of types) {
    for (const name of ['type', 'id', 're'])
      t.notOk(Object.hasOwn(entryOf(type).fields.shape, name), `${type}.${name}`);
  }
  t.end();
});

t.test('a message of both sides is sent by either, another by one', (t) => {
  t.ok(isSentBy('goodbye', 'control') && isSentBy('goodbye', 'forwarder'));
  t.ok(isSentBy('hello', 'control') && !isSentBy('hello', 'forwarder'));
  t.notOk(isMessageType('toString'));
  t.end();
});

t.test('the newest common version is taken, and none at all is version-mismatch', (t) => {
  t.equal(negotiate({ min: 1, max: 1 }), 1);
  t.equal(negotiate({ min: PROTOCOL_VERSION, max: PROTOCOL_VERSION + 1 }), PROTOCOL_VERSION, 'theirs is one newer');
  t.equal(negotiate({ min: 0, max: 99 }), PROTOCOL_VERSION);
  t.throws(() => negotiate({ min: VERSIONS.max + 1, max: VERSIONS.max + 2 }), { code: 'version-mismatch' });
  t.throws(() => negotiate({ min: 0, max: VERSIONS.min - 1 }), { code: 'version-mismatch' });
  t.throws(() => negotiate({ min: 5, max: 1 }), { code: 'version-mismatch' }, 'upside down');
  t.end();
});

t.test('the reference names every message and every field, each with its meaning', (t) => {
  const reference = messagesReference();
  for (const type of types) {
    t.ok(reference.includes(`\n## ${type}\n\n${entryOf(type).doc}`), type);
    for (const field of Object.keys(entryOf(type).fields.shape)) t.ok(reference.includes(`| \`${field}\` |`), field);
  }
  const rows = reference.split('\n').filter((line) => line.startsWith('| `'));
  for (const row of rows) {
    const cells = row.split('|').map((cell) => cell.trim());
    t.ok(cells.length === 6 && cells[2] !== '' && cells[4] !== '', row);
  }
  t.ok(reference.includes('| `tunnels[].sequence` | u53 |'), 'fields of lists');
  t.ok(reference.includes('| `attributes.speed` | i32 | Mbit/s |'), 'units');
  t.ok(reference.includes('| `token` | text, optional |'), 'optional ones');
  t.end();
});
