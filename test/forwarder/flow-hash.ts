/** src/forwarder/flow-hash.ts: keys are spread, each bit of them counts, and the secret decides. */
import t from 'tap';
import { flowKeyHash } from '../../src/forwarder/flow-hash.js';
import type { FlowKey } from '../../src/forwarder/flow-key.js';
import { FlowKeys } from '../support/flow-keys.js';

/** HalfSipHash-1-3 as the paper has it: a round, and words of the message one after another. */
function slowHash(message: readonly number[], secret0: number, secret1: number): number {
  let [v0, v1, v2, v3] = [secret0, secret1, 0x6c796765 ^ secret0, 0x74656462 ^ secret1];
  const rotate = (value: number, bits: number): number => (value << bits) | (value >>> (32 - bits));
  const round = (): void => {
    [v0, v2] = [(v0 + v1) | 0, (v2 + v3) | 0];
    [v1, v3] = [rotate(v1, 5) ^ v0, rotate(v3, 8) ^ v2];
    v0 = rotate(v0, 16);
    [v0, v2] = [(v0 + v3) | 0, (v2 + v1) | 0];
    [v3, v1] = [rotate(v3, 7) ^ v0, rotate(v1, 13) ^ v2];
    v2 = rotate(v2, 16);
  };
  for (const word of message) {
    v3 ^= word;
    round();
    v0 ^= word;
  }
  v2 ^= 0xff;
  for (let i = 0; i < 3; i += 1) round();
  return v1 ^ v3;
}

const messageOf = ({ words, ports, kind, isIpv4 }: FlowKey): number[] => [
  ...(isIpv4 ? [words[0]!, words[4]!] : words),
  ports,
  kind,
];

t.test('it is HalfSipHash-1-3 of the words that say something', async (t) => {
  const keys = new FlowKeys();
  const wrong = [];
  for (let number = 0; number < 200; number += 1) {
    const key = keys.of(number * 977);
    if (flowKeyHash(key, number, ~number) !== slowHash(messageOf(key), number, ~number)) wrong.push(number);
  }
  t.same(wrong, []);
});

t.test('keys that differ little are spread as if by chance', async (t) => {
  const keys = new FlowKeys();
  const chains = new Int32Array(1 << 14);
  for (let number = 0; number < chains.length; number += 1) {
    chains[flowKeyHash(keys.of(number), 1, 2) & (chains.length - 1)]! += 1;
  }
  t.ok(Math.max(...chains) < 12, 'by chance one of 16,384 has seven');
  const empty = chains.filter((length) => length === 0).length / chains.length;
  t.ok(Math.abs(empty - 1 / Math.E) < 0.02, `${empty} of them are empty`);
});

t.test('which keys meet depends on the secret', async (t) => {
  const keys = new FlowKeys();
  const meet = (secret: number): string => {
    const found: number[] = [];
    const first = flowKeyHash(keys.of(0), secret, 5) & 31;
    for (let number = 1; number < 500; number += 1) {
      if ((flowKeyHash(keys.of(number), secret, 5) & 31) === first) found.push(number);
    }
    return found.join();
  };
  t.equal(new Set([1, 2, 3, 4].map(meet)).size, 4);
});
