import { readFileSync } from 'node:fs';
import t from 'tap';
import { messagesReference } from '../src/tunnel/reference.js';

t.test('MESSAGES.md is what the table of messages says (npm run docs writes it)', (t) => {
  const page = readFileSync(new URL('../../MESSAGES.md', import.meta.url), 'utf8');
  t.equal(page, messagesReference());
  t.end();
});
