/** Messages as bytes: golden both ways, and whatever is malformed is 'bad-message' and nothing else. */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { Packr } from 'msgpackr';
import t from 'tap';
import { FwdfsError } from '../../src/base/errors.js';
import { type Envelope, decodeMessage, encodeMessage } from '../../src/tunnel/codec.js';
import { type AnyFields, MESSAGES, type MessageType } from '../../src/tunnel/messages.js';
import { isPlainMsgpack } from '../../src/tunnel/msgpack-guard.js';

interface Vector {
  type: MessageType;
  envelope: Envelope;
  fields: AnyFields;
  hex: string;
}

const vectors = JSON.parse(
  readFileSync(new URL('../../../test/vectors/tunnel-messages.json', import.meta.url), 'utf8'),
) as Vector[];
const packr = new Packr({ useRecords: false, variableMapSize: true });
const pack = (value: unknown): Buffer => Buffer.from(packr.pack(value));

/** The code of what decoding throws; 'decoded' if it does not. Anything but a FwdfsError is thrown on. */
function outcome(bytes: Buffer): string {
  try {
    decodeMessage(bytes);
    return 'decoded';
  } catch (error) {
    if (error instanceof FwdfsError) return error.code;
    throw error;
  }
}

t.test('each golden message is encoded as it stands', (t) => {
  for (const { type, envelope, fields, hex } of vectors) {
    t.equal(encodeMessage(type, fields, envelope).toString('hex'), hex, type);
  }
  t.end();
});

t.test('each golden message is decoded as it stands, also out of the middle of a larger buffer', (t) => {
  for (const { type, envelope, fields, hex } of vectors) {
    const bytes = Buffer.from(`a5a5a5${hex}a5a5a5`, 'hex').subarray(3, 3 + hex.length / 2);
    t.same(decodeMessage(bytes), { known: true, args: [type, fields], ...envelope }, type);
  }
  t.end();
});

t.test('there is a golden message of every type', (t) => {
  t.same([...new Set(vectors.map(({ type }) => type))].sort(), Object.keys(MESSAGES).sort());
  t.end();
});

t.test('every truncation of every golden message is bad-message', (t) => {
  for (const { type, hex } of vectors) {
    const bytes = Buffer.from(hex, 'hex');
    for (let length = 0; length < bytes.length; length += 1) {
      const code = outcome(bytes.subarray(0, length));
      if (code !== 'bad-message') t.fail(`${type} cut to ${length} bytes: ${code}`);
    }
    t.equal(outcome(Buffer.concat([bytes, Buffer.from([0])])), 'bad-message', `${type} with a byte behind it`);
  }
  t.end();
});

t.test('golden messages with bytes changed decode or are bad-message', (t) => {
  const change = fc.record({ at: fc.nat(), to: fc.nat(255) });
  fc.assert(
    fc.property(fc.nat(vectors.length - 1), fc.array(change, { minLength: 1, maxLength: 4 }), (index, changes) => {
      const bytes = Buffer.from(vectors[index]?.hex ?? '', 'hex');
      for (const { at, to } of changes) bytes[at % bytes.length] = to;
      return ['decoded', 'bad-message'].includes(outcome(bytes));
    }),
    { numRuns: 5000 },
  );
  t.end();
});

t.test('random bytes are bad-message', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => outcome(Buffer.from(bytes)) === 'bad-message'),
    { numRuns: 5000 },
  );
  t.end();
});

t.test('random msgpack is bad-message, also below the right type', (t) => {
  const types = fc.constantFrom(...(Object.keys(MESSAGES) as MessageType[]));
  fc.assert(
    fc.property(fc.jsonValue(), (value) => outcome(pack(value)) === 'bad-message'),
    { numRuns: 2000 },
  );
  fc.assert(
    fc.property(types, fc.dictionary(fc.string(), fc.jsonValue()), (type, fields) =>
      ['decoded', 'bad-message'].includes(outcome(pack({ ...fields, type }))),
    ),
    { numRuns: 2000 },
  );
  t.end();
});

t.test('lengths that are a lie, endless depth and extension types never reach the decoder', (t) => {
  const lies = {
    'a list of 2^32-1': 'ddffffffff',
    'a map of 2^32-1': 'dfffffffff',
    'a list of 2^24 in a map': '81a161dd01000000',
    'a text of 2^32-1': 'dbffffffff',
    'binary data': 'c40101',
    'a timestamp': 'd6ff00000000',
    'a record definition of msgpackr': 'd4720093a161',
    'the type that never is': 'c1',
    'a map with a number for a key': '8101a161',
    'a map with a list for a key': '8190a161',
  };
  for (const [name, hex] of Object.entries(lies)) {
    t.notOk(isPlainMsgpack(Buffer.from(hex, 'hex')), name);
    t.equal(outcome(Buffer.from(hex, 'hex')), 'bad-message');
  }
  t.notOk(isPlainMsgpack(Buffer.alloc(1 << 20, 0x91)), 'a million lists in each other');
  t.end();
});

t.test('the guard passes exactly the plain values', (t) => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 6 }), (value) => isPlainMsgpack(pack(value))),
    { numRuns: 2000 },
  );
  for (const value of [65_535, 65_536, -129, -40_000, 2 ** 40, 0.5, 'x'.repeat(300), 'x'.repeat(70_000)]) {
    t.ok(isPlainMsgpack(pack([value])), String(value).slice(0, 20));
  }
  t.ok(isPlainMsgpack(pack(Array.from({ length: 70_000 }, () => 1))), 'a long list');
  t.end();
});

t.test('unknown fields are ignored', (t) => {
  const bytes = pack({ type: 'transfer-response', re: 5, upTunnel: 7, colour: 'green', deep: { a: [1] } });
  t.same(decodeMessage(bytes), { known: true, re: 5, args: ['transfer-response', { upTunnel: 7 }] });
  t.end();
});

t.test('an unknown type is decoded as such, with its numbers', (t) => {
  t.same(decodeMessage(pack({ type: 'teleport', id: 9, to: 'Mars' })), { known: false, type: 'teleport', id: 9 });
  for (const type of ['constructor', '__proto__', 'toString', '']) {
    t.same(decodeMessage(pack({ type })), { known: false, type });
  }
  t.end();
});

t.test('a counter may come as any msgpack number that is whole', (t) => {
  const request = vectors.find(({ type }) => type === 'transfer-request') as Vector;
  const credit = Buffer.from('a6637265646974', 'hex');
  const at = request.hex.indexOf(credit.toString('hex')) + credit.length * 2;
  const as = (number: string): Buffer => Buffer.from(request.hex.slice(0, at) + number, 'hex');
  t.match(decodeMessage(as('cf0000000000800000')), { args: ['transfer-request', { credit: 8_388_608 }] }, 'u64');
  t.match(decodeMessage(as('cb4160000000000000')), { args: ['transfer-request', { credit: 8_388_608 }] }, 'float64');
  t.equal(outcome(as('cf0020000000000000')), 'bad-message', '2^53');
  t.equal(outcome(as('cb3fe0000000000000')), 'bad-message', 'a half');
  t.equal(outcome(as('ff')), 'bad-message', 'minus one');
  t.end();
});

t.test('id and re must be u32', (t) => {
  for (const id of [-1, 0.5, 2 ** 32, '1', null, [1]]) {
    t.equal(outcome(pack({ type: 'suspend', id })), 'bad-message', JSON.stringify(id));
    t.equal(outcome(pack({ type: 'suspend', re: id })), 'bad-message', JSON.stringify(id));
  }
  t.end();
});

t.test('what is not in the table cannot be sent', (t) => {
  const wrong = { upTunnel: -1 } as AnyFields;
  t.throws(() => encodeMessage('transfer-response', wrong), {
    code: 'internal',
    what: /cannot send transfer-response/,
  });
  const more = { upTunnel: 1, secret: 'x' } as AnyFields;
  t.notMatch(encodeMessage('transfer-response', more).toString('latin1'), /secret/);
  t.end();
});
