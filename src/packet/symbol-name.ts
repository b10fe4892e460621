/**
 * Names of symbols: what an application opens.
 *
 *     INTERFACE[:PROTOCOL-ADDRESS][:WORD…][.pcap]
 *
 *     eth0   eth0.100:udp:520:raw   eth0:tcp:[2001:db8::1]:80:raw:claim   eth0:both.pcap
 *
 * A colon separates because Linux forbids it in interface names. `.pcap` at the end means nothing and is taken away: some
 * programs may only read names that end so. Only an interface that has just this name is meant with it. Names arrive with LOOKUP, once per open; nothing here is on the packet path.
 */
import { FwdfsError } from '../base/errors.js';
import { MAX_SYMBOL_NAME_BYTES } from '../base/limits.js';
import { parseProtocolAddress, PROTOCOL_ADDRESS_HEADS, splitAtColons } from './protocol-address.js';
import type { ProtocolAddress } from './protocol-address.js';

const SCOPES = ['out', 'both', 'promisc'] as const;
const FRAMINGS = ['pcap', 'raw', 'hex'] as const;

/** What a reader gets: received frames, sent ones, both, or every frame on the link. */
export type Scope = 'in' | (typeof SCOPES)[number];
/** How frames stand in the file. */
export type Framing = (typeof FRAMINGS)[number];

const WORDS: ReadonlySet<string> = new Set([...SCOPES, ...FRAMINGS, 'gso', 'paced', 'claim']);

const PCAP_SUFFIX = '.pcap';

type IsInterface = (name: string) => boolean;

export interface SymbolNameParts {
  readonly interface: string;
  /** As written; `*` where there is none. */
  readonly protocolText: string;
  /** In the order written, lower case. */
  readonly words: readonly string[];
  readonly pcapSuffix: boolean;
}

export interface SymbolName {
  readonly interface: string;
  readonly protocol: ProtocolAddress;
  /** Default `in`. */
  readonly scope: Scope;
  /** Default `pcap`. */
  readonly framing: Framing;
  /** Super-frames are given as they are. */
  readonly gso: boolean;
  /** Written frames leave at the distances of their timestamps. */
  readonly paced: boolean;
  /** The opener is the one receiver. */
  readonly claim: boolean;
  /** Canonical spelling without `.pcap`; two names of one symbol have the same. */
  readonly text: string;
}

/**
 * Takes a name apart without looking into the protocol address.
 *
 * @param isInterface whether an interface of that name is there: the suffix is its own then
 * @throws FwdfsError bad-symbol-name
 */
export function splitSymbolName(name: string, isInterface: IsInterface = () => false): SymbolNameParts {
  if (Buffer.byteLength(name) > MAX_SYMBOL_NAME_BYTES) {
    throw new FwdfsError('bad-symbol-name', `a name of more than ${MAX_SYMBOL_NAME_BYTES} bytes`);
  }
  const pcapSuffix = name.endsWith(PCAP_SUFFIX) && !isInterface(name);
  const parts = splitAtColons(pcapSuffix ? name.slice(0, -PCAP_SUFFIX.length) : name);
  const interfaceName = parts[0] ?? '';
  if (!isInterfaceName(interfaceName)) throw bad(name, 'it begins with no interface name');
  const end = endOfProtocolAddress(parts);
  const words = parts.slice(end).map((word) => word.toLowerCase());
  checkWords(name, words);
  return {
    interface: interfaceName,
    protocolText: end > 1 ? parts.slice(1, end).join(':') : '*',
    words,
    pcapSuffix,
  };
}

/**
 * @param isInterface see splitSymbolName
 * @throws FwdfsError bad-symbol-name, bad-protocol-address
 */
export function parseSymbolName(name: string, isInterface?: IsInterface): SymbolName {
  const parts = splitSymbolName(name, isInterface);
  const protocol = parseProtocolAddress(parts.protocolText);
  const has = (word: string): boolean => parts.words.includes(word);
  const scope = SCOPES.find(has) ?? 'in';
  const framing = FRAMINGS.find(has) ?? 'pcap';
  const gso = has('gso');
  const paced = has('paced');
  const claim = has('claim');
  if (claim && scope === 'out') throw bad(name, 'a claim is of what the interface receives');
  let text = parts.interface;
  if (protocol.kind !== 'any') text += `:${protocol.text}`;
  if (scope !== 'in') text += `:${scope}`;
  if (framing !== 'pcap') text += `:${framing}`;
  if (gso) text += ':gso';
  if (paced) text += ':paced';
  if (claim) text += ':claim';
  return { interface: parts.interface, protocol, scope, framing, gso, paced, claim, text };
}

/** Linux's dev_valid_name() without the length: an interface of another system may have a longer one. */
function isInterfaceName(text: string): boolean {
  return text !== '' && text !== '.' && text !== '..' && !/[/\s]/.test(text);
}

/**
 * Index after the parts of the protocol address, 1 where there is none. It begins with a known head; `ether` and `ip` take
 * one number, and what begins with a digit or a bracket goes on with it: no word does.
 */
function endOfProtocolAddress(parts: readonly string[]): number {
  const head = (parts[1] ?? '').toLowerCase();
  if (!PROTOCOL_ADDRESS_HEADS.has(head)) return 1;
  let end = head === 'ether' || head === 'ip' ? Math.min(3, parts.length) : 2;
  while (/^[0-9[]/.test(parts[end] ?? '')) end += 1;
  return end;
}

function checkWords(name: string, words: readonly string[]): void {
  const seen = new Set<string>();
  for (const word of words) {
    if (!WORDS.has(word)) throw bad(name, `unknown word ${JSON.stringify(word)}`);
    if (seen.has(word)) throw bad(name, `${word} stands there twice`);
    seen.add(word);
  }
  for (const group of [SCOPES, FRAMINGS]) {
    const chosen = group.filter((word) => seen.has(word));
    if (chosen.length > 1) throw bad(name, `${chosen.join(' and ')} exclude each other`);
  }
}

function bad(name: string, why: string): FwdfsError {
  return new FwdfsError('bad-symbol-name', `${JSON.stringify(name)} is no name of a symbol (${why})`);
}
