/**
 * The tables of virtual IP addresses as the kernel has them: what `nft -j list table` says of the ruleset of vip-ruleset.ts,
 * as rows. Whatever is not as we wrote it is left out: somebody else changed it, and the table shows what is there.
 */
import { parseProtocolAddress } from '../packet/protocol-address.js';

export const VIP_DISTRIBUTION_COLUMNS = [
  'interface',
  'vip',
  'protocol',
  'port',
  'sender',
  'control',
  'share',
  'packets',
  'bytes',
] as const;
export const VIP_RECEPTION_COLUMNS = ['sender', 'vip', 'control', 'interface', 'link'] as const;

export interface VipCount {
  readonly packets: number;
  readonly bytes: number;
}

/** What stands in the kernel's table. */
export interface VipListing {
  readonly distribution: string[][];
  readonly reception: string[][];
  /** Sender addresses, also those that have no rule. */
  readonly senders: readonly string[];
  /** By number of the rule. */
  readonly counts: ReadonlyMap<number, VipCount>;
}

type Json = string | number | boolean | null | Json[] | { [key: string]: Json };

/** What a path of keys and indexes leads to; null: nowhere. */
function at(json: Json | undefined, ...path: readonly (string | number)[]): Json {
  let here: Json | undefined = json;
  for (const key of path) {
    if (Array.isArray(here) && typeof key === 'number') here = here[key];
    else if (typeof here === 'object' && here !== null && !Array.isArray(here)) here = here[key];
    else return null;
  }
  return here ?? null;
}

const list = (json: Json): Json[] => (Array.isArray(json) ? json : []);
const word = (json: Json): string => (typeof json === 'string' || typeof json === 'number' ? String(json) : '');

/** By name where nft knows it, else by number. */
function protocolName(json: Json): string {
  const name = word(json);
  return /^[0-9]+$/.test(name) ? parseProtocolAddress(`ip:${name}`).text : name;
}

/** The parts of an element's key. */
const parts = (key: Json): string[] => list(at(key, 'concat')).map(word);

/** Key and value of each element of a map that stands in an expression. */
function elements(map: Json): [key: Json, value: Json][] {
  return list(at(map, 'data', 'set')).map((pair) => [at(pair, 0), at(pair, 1)]);
}

/** @param text of `nft -j list table` */
export function readListing(text: string): VipListing {
  const objects = list(at(JSON.parse(text) as Json, 'nftables'));
  const named = new Map<string, VipCount>();
  const controls = new Map<string, string>();
  const links = new Map<string, string[]>();
  const rules: { chain: string; expression: Json }[] = [];
  for (const object of objects) {
    const counter = at(object, 'counter');
    if (counter !== null) {
      named.set(word(at(counter, 'name')), {
        packets: Number(word(at(counter, 'packets'))),
        bytes: Number(word(at(counter, 'bytes'))),
      });
    }
    const set = word(at(object, 'set', 'name'));
    for (const element of list(at(object, 'set', 'elem'))) {
      if (set.startsWith('senders')) {
        const bare = word(element);
        controls.set(bare === '' ? word(at(element, 'elem', 'val')) : bare, word(at(element, 'elem', 'comment')));
      }
      if (set.startsWith('links')) {
        const [sender = '', ...link] = parts(element);
        links.set(sender, link);
      }
    }
    const chain = word(at(object, 'rule', 'chain'));
    for (const expression of list(at(object, 'rule', 'expr'))) rules.push({ chain, expression });
  }
  const counterOf = new Map<string, string>();
  for (const { expression } of rules) {
    for (const [key, value] of elements(at(expression, 'counter', 'map'))) {
      counterOf.set(parts(key).join(' '), word(value));
    }
  }
  const senderOf = new Map<string, string>();
  for (const { chain, expression } of rules) {
    const sender = word(at(expression, 'dnat', 'addr'));
    if (sender !== '') senderOf.set(chain, sender);
  }
  const distribution = rules
    .filter(({ chain }) => chain === 'prerouting')
    .flatMap(({ expression }) => elements(at(expression, 'vmap')))
    .flatMap(([key, value]) => {
      const shares = sharesOf(rules, senderOf, word(at(value, 'goto', 'target')));
      const [name = '', vip = '', protocol = '', port = ''] = parts(key);
      return [...shares.slots].map(([sender, slots]) => {
        const count = named.get(counterOf.get([sender, protocol, port].join(' ')) ?? '');
        const share = `${slots}/${shares.of}`;
        const where = [name, vip, protocolName(protocol), port, sender, controls.get(sender) ?? ''];
        return [...where, share, String(count?.packets ?? 0), String(count?.bytes ?? 0)];
      });
    });
  const reception = rules
    .filter(({ chain }) => chain === 'postrouting')
    .flatMap(({ expression }) => elements(at(expression, 'snat', 'addr', 'map')))
    .map(([key, value]) => {
      const sender = word(key);
      const [mac = '', link = ''] = links.get(sender) ?? [];
      return [sender, word(value), controls.get(sender) ?? '', link, mac];
    });
  const counts = new Map<number, VipCount>();
  for (const [name, count] of named)
    if (name.startsWith('rule_')) counts.set(Number(name.slice('rule_'.length)), count);
  return { distribution: sorted(distribution), reception: sorted(reception), senders: [...controls.keys()], counts };
}

/** How many slots of a group each sender has, by its first rule. */
function sharesOf(
  rules: readonly { chain: string; expression: Json }[],
  senderOf: ReadonlyMap<string, string>,
  group: string,
): { slots: ReadonlyMap<string, number>; of: number } {
  const slots = new Map<string, number>();
  const first = rules.find(({ chain }) => chain === group)?.expression;
  const ways = elements(at(first, 'vmap'));
  for (const [, way] of ways) {
    const sender = senderOf.get(word(at(way, 'jump', 'target'))) ?? '';
    slots.set(sender, (slots.get(sender) ?? 0) + 1);
  }
  return { slots, of: ways.length };
}

const sorted = (rows: string[][]): string[][] => rows.sort((a, b) => a.join('\t').localeCompare(b.join('\t')));
