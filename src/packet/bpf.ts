/**
 * Classic BPF (linux/filter.h, linux/bpf_common.h), and the coarse filter of a packet socket made of it.
 *
 * struct sock_filter, 8 bytes, little endian as the hosts we run on:
 *
 *      0          2      3      4                        8
 *     +----------+------+------+------------------------+
 *     |   code   |  jt  |  jf  |           k            |      jt, jf: instructions to skip
 *     +----------+------+------+------------------------+
 *
 * The coarse filter lets a superset of what matchesProtocol() takes into our process and keeps most of the rest out. It runs
 * in the kernel for every frame of the interface. A load beyond the frame ends a program with 0, so everything that can be
 * accepted is accepted before the first load that needs more of it.
 */
import { COARSE_FILTER_MAX_ADDRESSES } from '../base/limits.js';
import {
  ETHERNET_HEADER_BYTES,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  ETHERTYPE_QINQ,
  ETHERTYPE_VLAN,
  IPV4_OFFSET_MASK,
  IPV6_DESTINATION,
  IPV6_FRAGMENT,
  IPV6_HEADER_BYTES,
  IPV6_HOP_BY_HOP,
  IPV6_ROUTING,
} from './headers.js';
import type { LinkType } from './headers.js';
import type { ProtocolAddress } from './protocol-address.js';

export const BPF_INSTRUCTION_BYTES = 8;
/** The field table of one instruction: offsets. u16, u8, u8, u32. */
export const BPF_FIELDS = { code: 0, jumpTrue: 2, jumpFalse: 3, k: 4 } as const;

/** Codes that we use: class, size and mode as the kernel adds them up. */
export const BPF = {
  ldHalf: 0x28,
  ldByte: 0x30,
  ldHalfIndexed: 0x48,
  /** X = 4 * (byte & 15): the length of an IPv4 header. */
  ldxHeaderLength: 0xb1,
  ldWord: 0x20,
  jump: 0x05,
  jumpEqual: 0x15,
  jumpGreater: 0x25,
  jumpGreaterEqual: 0x35,
  jumpSet: 0x45,
  ret: 0x06,
} as const;

const NAMES = new Map<number, string>(Object.entries(BPF).map(([name, code]) => [code, name]));

/** Places for absolute loads that are not in the frame: what the kernel knows about it. */
export const SKF_AD_PROTOCOL = 0xfffff000;
/** 1 where the hardware took a VLAN tag out of the frame. */
export const SKF_AD_VLAN_TAG_PRESENT = 0xfffff000 + 48;
/** Loads from here on count from the network header, whatever the link. */
export const SKF_NET_OFF = 0xfff00000;

/** What a program returns for a frame that is wanted: as many bytes as a frame can have. */
export const BPF_ACCEPT = 0x40000;
const BPF_REJECT = 0;

interface Instruction {
  code: number;
  k: number;
  whenTrue: string | undefined;
  whenFalse: string | undefined;
}

/** Instructions and labels in order; jumps go forward only, conditional ones at most 255 instructions far. */
export class BpfAssembler {
  private readonly instructions: Instruction[] = [];
  private readonly labels = new Map<string, number>();
  private lastLabel = 0;

  /** An instruction that goes on with the next one, or ends the program. */
  emit(code: number, k: number): this {
    return this.jump(code, k);
  }

  /** A jump; a label left out is the next instruction. `BPF.jump` goes to `whenTrue`, any distance. */
  jump(code: number, k: number, whenTrue?: string, whenFalse?: string): this {
    this.instructions.push({ code, k, whenTrue, whenFalse });
    return this;
  }

  /** A name that nobody else uses. */
  newLabel(): string {
    this.lastLabel += 1;
    return `#${this.lastLabel}`;
  }

  /** Names the next instruction. */
  label(name: string): this {
    if (this.labels.has(name)) throw new RangeError(`label ${name} stands there twice`);
    this.labels.set(name, this.instructions.length);
    return this;
  }

  /** @throws RangeError for a label that is not there, behind, or too far */
  assemble(): Buffer {
    const out = Buffer.alloc(this.instructions.length * BPF_INSTRUCTION_BYTES);
    for (const [index, { code, k, whenTrue, whenFalse }] of this.instructions.entries()) {
      const at = index * BPF_INSTRUCTION_BYTES;
      const unconditional = code === BPF.jump;
      out.writeUInt16LE(code, at + BPF_FIELDS.code);
      out[at + BPF_FIELDS.jumpTrue] = unconditional ? 0 : this.distance(index, whenTrue, 255);
      out[at + BPF_FIELDS.jumpFalse] = unconditional ? 0 : this.distance(index, whenFalse, 255);
      out.writeUInt32LE(unconditional ? this.distance(index, whenTrue, 0xffff) : k >>> 0, at + BPF_FIELDS.k);
    }
    return out;
  }

  private distance(from: number, label: string | undefined, max: number): number {
    if (label === undefined) return 0;
    const to = this.labels.get(label);
    if (to === undefined || to >= this.instructions.length) throw new RangeError(`label ${label} is not there`);
    const distance = to - from - 1;
    if (distance < 0 || distance > max) throw new RangeError(`label ${label} is ${distance} instructions away`);
    return distance;
  }
}

/** A program, one instruction a line: `3: jumpEqual 0x800 ? 4 : 7`. */
export function formatBpf(program: Buffer): string {
  const lines: string[] = [];
  for (let at = 0; at < program.length; at += BPF_INSTRUCTION_BYTES) {
    const index = at / BPF_INSTRUCTION_BYTES;
    const code = program.readUInt16LE(at + BPF_FIELDS.code);
    const k = program.readUInt32LE(at + BPF_FIELDS.k);
    let line = `${index}: ${NAMES.get(code) ?? `code ${code}`} 0x${k.toString(16)}`;
    if ((code & 7) === 5 && code !== BPF.jump) {
      const next = index + 1;
      line += ` ? ${next + program[at + BPF_FIELDS.jumpTrue]!} : ${next + program[at + BPF_FIELDS.jumpFalse]!}`;
    }
    lines.push(line);
  }
  return lines.join('\n');
}

export interface CoarseFilterOptions {
  /** Which end of a frame is the local one; `both` where the socket sees received and sent frames. */
  readonly local: 'destination' | 'source' | 'both';
  /**
   * The interface's. Without it the network header is found through SKF_NET_OFF, which works on any link, but on most
   * kernels reads only the linear part of a packet: where a driver leaves just the link header there, the load fails and a
   * wanted frame is lost. Give it wherever it is known.
   */
  readonly linkType?: LinkType;
  /** IP addresses, 4 or 16 bytes: every packet for one of them is accepted too. Default: none. */
  readonly own?: readonly Buffer[];
}

/** Protocol values of frames that a packet socket sent without saying: none, ETH_P_ALL. */
const UNKNOWN_PROTOCOLS = [0, 3];
const IPV4_FRAGMENT = 6;
const IPV4_PROTOCOL = 9;
const IPV4_DESTINATION_ADDRESS = 16;
const IPV6_DESTINATION_ADDRESS = 24;
const IPV6_NEXT_HEADER = 6;
const DESTINATION_PORT = 2;

/** What is wanted of one IP protocol: ranges of ports, or all of it. */
type PortRanges = [low: number, high: number][] | 'all';

/**
 * The filter of a packet socket (SOCK_RAW) that has to see frames of these protocol addresses. Addresses are not looked
 * at, frames with a VLAN tag in them, IPv6 extension headers and later fragments of a wanted protocol are accepted.
 *
 * @returns sock_filter instructions for SO_ATTACH_FILTER
 */
export function coarseFilter(addresses: readonly ProtocolAddress[], options: CoarseFilterOptions): Buffer {
  const program = new BpfAssembler();
  const own = options.own ?? [];
  if (addresses.length + own.length === 0) return program.emit(BPF.ret, BPF_REJECT).assemble();
  if (
    addresses.length + own.length > COARSE_FILTER_MAX_ADDRESSES ||
    addresses.some((address) => address.kind === 'any')
  ) {
    return program.emit(BPF.ret, BPF_ACCEPT).assemble();
  }
  const etherTypes = new Set(addresses.filter((one) => one.kind === 'ether').map((one) => one.etherType));
  const vlan = [ETHERTYPE_VLAN, ETHERTYPE_QINQ];
  if (vlan.some((type) => etherTypes.has(type))) {
    program.emit(BPF.ldWord, SKF_AD_VLAN_TAG_PRESENT);
    acceptIf(program, BPF.jumpGreater, 0);
  }
  // The kernel takes the outer tag away, so the protocol is the ether type behind it; a tag that is left is in the frame.
  program.emit(BPF.ldWord, SKF_AD_PROTOCOL);
  for (const type of new Set([...etherTypes, ...vlan, ...UNKNOWN_PROTOCOLS])) acceptIf(program, BPF.jumpEqual, type);
  for (const version of [4, 6] as const) {
    const wanted = wantedProtocols(addresses, version);
    const ours = own.filter((address) => address.length === (version === 4 ? 4 : 16));
    if (wanted.size + ours.length === 0) continue;
    const etherType = version === 4 ? ETHERTYPE_IPV4 : ETHERTYPE_IPV6;
    const end = `ipv${version} end`;
    skipUnless(program, BPF.jumpEqual, etherType, end);
    if (options.linkType === 'ethernet') {
      // A VLAN interface without reorder_hdr keeps the tag in the frame and says that there is none.
      program.emit(BPF.ldHalf, ETHERNET_HEADER_BYTES - 2);
      program.jump(BPF.jumpEqual, etherType, `ipv${version} there`);
      program.emit(BPF.ret, BPF_ACCEPT).label(`ipv${version} there`);
    }
    emitIp(program, version, wanted, ours, options);
    program.label(end);
  }
  return program.emit(BPF.ret, BPF_REJECT).assemble();
}

/** IP protocols that a frame of this version can have for one of the addresses to match. */
function wantedProtocols(addresses: readonly ProtocolAddress[], version: 4 | 6): Map<number, PortRanges> {
  const wanted = new Map<number, PortRanges>();
  for (const address of addresses) {
    if (address.address !== null && address.address.length !== (version === 4 ? 4 : 16)) continue;
    for (const protocol of address.protocols) {
      const known = wanted.get(protocol) ?? [];
      if (address.portLow < 0 || known === 'all') wanted.set(protocol, 'all');
      else wanted.set(protocol, [...known, [address.portLow, address.portHigh]]);
    }
  }
  return wanted;
}

/** Everything about packets of one version; falls through nowhere. */
function emitIp(
  program: BpfAssembler,
  version: 4 | 6,
  wanted: ReadonlyMap<number, PortRanges>,
  own: readonly Buffer[],
  options: CoarseFilterOptions,
): void {
  const { linkType } = options;
  const network = linkType === undefined ? SKF_NET_OFF : linkType === 'ethernet' ? ETHERNET_HEADER_BYTES : 0;
  for (const address of own) {
    const end = program.newLabel();
    for (let at = 0; at < address.length; at += 4) {
      program.emit(BPF.ldWord, network + (version === 4 ? IPV4_DESTINATION_ADDRESS : IPV6_DESTINATION_ADDRESS) + at);
      program.jump(BPF.jumpEqual, address.readUInt32BE(at), undefined, end);
    }
    program.emit(BPF.ret, BPF_ACCEPT).label(end);
  }
  program.emit(BPF.ldByte, network + (version === 4 ? IPV4_PROTOCOL : IPV6_NEXT_HEADER));
  const accepted = [...wanted].filter(([, ports]) => ports === 'all').map(([protocol]) => protocol);
  if (version === 6) accepted.push(IPV6_HOP_BY_HOP, IPV6_ROUTING, IPV6_FRAGMENT, IPV6_DESTINATION);
  for (const protocol of new Set(accepted)) acceptIf(program, BPF.jumpEqual, protocol);
  const sides = options.local === 'both' ? [0, DESTINATION_PORT] : [options.local === 'source' ? 0 : DESTINATION_PORT];
  for (const [protocol, ports] of wanted) {
    if (ports === 'all') continue;
    const end = `ipv${version} not ${protocol}`;
    skipUnless(program, BPF.jumpEqual, protocol, end);
    if (version === 4) {
      program.emit(BPF.ldHalf, network + IPV4_FRAGMENT);
      acceptIf(program, BPF.jumpSet, IPV4_OFFSET_MASK);
      program.emit(BPF.ldxHeaderLength, network);
    }
    for (const side of sides) {
      if (version === 4) program.emit(BPF.ldHalfIndexed, network + side);
      else program.emit(BPF.ldHalf, network + IPV6_HEADER_BYTES + side);
      for (const [low, high] of ports) acceptPorts(program, low, high);
    }
    program.emit(BPF.ret, BPF_REJECT).label(end);
  }
  program.emit(BPF.ret, BPF_REJECT);
}

function acceptIf(program: BpfAssembler, test: number, k: number): void {
  const end = program.newLabel();
  program.jump(test, k, undefined, end).emit(BPF.ret, BPF_ACCEPT).label(end);
}

function acceptPorts(program: BpfAssembler, low: number, high: number): void {
  if (low === high) return acceptIf(program, BPF.jumpEqual, low);
  const end = program.newLabel();
  program.jump(BPF.jumpGreaterEqual, low, undefined, end).jump(BPF.jumpGreater, high, end);
  program.emit(BPF.ret, BPF_ACCEPT).label(end);
}

/** Goes on if the test holds, to `label` otherwise, at any distance. */
function skipUnless(program: BpfAssembler, test: number, k: number, label: string): void {
  const within = program.newLabel();
  program.jump(test, k, within).jump(BPF.jump, 0, label).label(within);
}
