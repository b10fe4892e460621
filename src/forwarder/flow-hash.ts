/**
 * Where flows go by their keys: HalfSipHash-1-3 (Aumasson, Bernstein: "SipHash: a fast short-input PRF", 2012, in words of 32
 * bits) over addresses, ports and kind. Who does not know the secret can't choose keys that meet, so nobody makes a chain
 * of flows long.
 */
import { ADDRESS_WORDS, type FlowKey } from './flow-key.js';

const FINAL_ROUNDS = 3;

/** The two words after the addresses. */
const MORE_WORDS = 2;

export function flowKeyHash({ words, ports, kind, isIpv4 }: FlowKey, secret0: number, secret1: number): number {
  // Of IPv4 only the first word of each address says anything.
  const step = isIpv4 ? ADDRESS_WORDS : 1;
  let v0 = secret0;
  let v1 = secret1;
  let v2 = 0x6c796765 ^ secret0;
  let v3 = 0x74656462 ^ secret1;
  for (let i = 0; i < words.length + step * (MORE_WORDS + FINAL_ROUNDS); i += step) {
    let word = 0;
    if (i < words.length) word = words[i]!;
    else if (i === words.length) word = ports;
    else if (i === words.length + step) word = kind;
    else if (i === words.length + MORE_WORDS * step) v2 ^= 0xff;
    v3 ^= word;
    v0 = (v0 + v1) | 0;
    v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
    v0 = (v0 << 16) | (v0 >>> 16);
    v2 = (v2 + v3) | 0;
    v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
    v0 = (v0 + v3) | 0;
    v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
    v2 = (v2 + v1) | 0;
    v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
    v2 = (v2 << 16) | (v2 >>> 16);
    v0 ^= word;
  }
  return v1 ^ v3;
}
