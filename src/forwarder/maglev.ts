/**
 * Maglev hashing (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, 3.4): which of
 * some members a flow belongs to, so that shares are even and most flows stay where they are when a member comes or goes.
 *
 *     name --sha256--> offset and step: the order in which the member wants slots (the number of slots is prime, so all)
 *     in turn, each takes its next free slot, as many a turn as its weight says --> table: slot -> member
 *     five-tuple --hash--> slot --> member
 *
 * Pure. The same members give the same table everywhere, also after a restart: nothing in it is random.
 */
import { createHash } from 'node:crypto';
import { MAGLEV_SLOTS, MAX_MAGLEV_TABLES } from '../base/limits.js';
import type { FlowKey } from './flow-key.js';

export interface MaglevMember {
  /** No two have the same. */
  readonly name: string;
  /** At least 1; only the ratio of weights counts. */
  readonly weight: number;
}

const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b));

const FREE = 0xffff;

/**
 * @param members at least one, fewer than 65,535 and than `slots` @param slots a prime
 * @returns the index of a member for each slot
 */
export function maglevTable(members: readonly MaglevMember[], slots = MAGLEV_SLOTS): Uint16Array {
  const table = new Uint16Array(slots).fill(FREE);
  const divisor = members.reduce((common, { weight }) => gcd(common, weight), 0);
  const turns = members.map(({ weight }) => weight / divisor);
  const next = new Uint32Array(members.length);
  const steps = new Uint32Array(members.length);
  for (const [index, { name }] of members.entries()) {
    const digest = createHash('sha256').update(name).digest();
    next[index] = digest.readUInt32LE(0) % slots;
    steps[index] = (digest.readUInt32LE(4) % (slots - 1)) + 1;
  }
  for (let filled = 0; ;) {
    for (let index = 0; index < members.length; index++) {
      const step = steps[index]!;
      for (let turn = turns[index]!; turn > 0; turn--) {
        let slot = next[index]!;
        while (table[slot] !== FREE) slot = (slot + step) % slots;
        table[slot] = index;
        next[index] = (slot + step) % slots;
        filled += 1;
        if (filled === slots) return table;
      }
    }
  }
}

/** The tables in use, by their members: many groups have the same ones. */
export class MaglevTables {
  private readonly tables = new Map<string, Uint16Array>();

  of(members: readonly MaglevMember[]): Uint16Array {
    const key = members.map(({ name, weight }) => `${weight} ${name}`).join('\n');
    const table = this.tables.get(key) ?? maglevTable(members);
    // The one that was not asked for the longest goes first.
    this.tables.delete(key);
    this.tables.set(key, table);
    if (this.tables.size > MAX_MAGLEV_TABLES) this.tables.delete(this.tables.keys().next().value ?? '');
    return table;
  }
}

/** @param key as read from the frame @returns 32 bits without sign */
export function flowHash(key: FlowKey, frame: Buffer): number {
  let hash = key.protocol ^ 0x9e3779b9;
  hash = mix(hash, (key.localPort << 16) | key.remotePort);
  for (let i = 0; i < key.addressLength; i += 4) {
    hash = mix(hash, word(frame, key.remote + i));
    hash = mix(hash, word(frame, key.local + i));
  }
  // The finish of MurmurHash3 (Appleby): every bit depends on all.
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

function mix(hash: number, value: number): number {
  let k = Math.imul(value, 0xcc9e2d51);
  k = Math.imul((k << 15) | (k >>> 17), 0x1b873593);
  const h = hash ^ k;
  return (Math.imul((h << 13) | (h >>> 19), 5) + 0xe6546b64) | 0;
}

function word(frame: Buffer, at: number): number {
  return (frame[at]! << 24) | (frame[at + 1]! << 16) | (frame[at + 2]! << 8) | frame[at + 3]!;
}
