/**
 * Runs classic BPF (bpf.ts has its format) as the kernel does for a packet socket: for filters that sockets brought along.
 *
 *     bytes of a socket --compileBpf--> BpfProgram: checked once, four integers an instruction
 *     frame --BpfContext: what the kernel would know of it--runBpf--> bytes to keep, 0: not wanted
 *
 * The kernel's filter sees a frame whose outer VLAN tag the kernel took out, so loads behind the addresses skip it here.
 * A load beyond the frame, and a division by zero, end the program with 0. Programs only go forward, so they end.
 */
import { BPF_FIELDS, BPF_INSTRUCTION_BYTES, SKF_AD_PROTOCOL, SKF_AD_VLAN_TAG_PRESENT, SKF_NET_OFF } from './bpf.js';
import { type FrameView, VLAN_TAG_BYTES } from './headers.js';

/** code, jt, jf and k of each instruction. */
export type BpfProgram = Int32Array;
const WORDS = 4;
const MAX_INSTRUCTIONS = 4096;
const MEMORY_WORDS = 16;

/** Classes, sizes, modes and operations as linux/bpf_common.h adds them up. */
const CLASS = { LD: 0, LDX: 1, ST: 2, STX: 3, ALU: 4, JMP: 5, RET: 6, MISC: 7 } as const;
const MODE = { IMM: 0x00, ABS: 0x20, IND: 0x40, MEM: 0x60, LEN: 0x80, MSH: 0xa0 } as const;
const OP = {
  ADD: 0x00,
  SUB: 0x10,
  MUL: 0x20,
  DIV: 0x30,
  OR: 0x40,
  AND: 0x50,
  LSH: 0x60,
  RSH: 0x70,
  NEG: 0x80,
  MOD: 0x90,
  XOR: 0xa0,
} as const;
const JUMP = { ALWAYS: 0x00, EQUAL: 0x10, GREATER: 0x20, GREATER_EQUAL: 0x30, SET: 0x40 } as const;
const SOURCE_X = 0x08;
const RET_A = 0x16;
const TAX = 0x07;
const TXA = 0x87;

const MODES: ReadonlySet<number> = new Set(Object.values(MODE));
const OPS: ReadonlySet<number> = new Set(Object.values(OP));
const JUMPS: ReadonlySet<number> = new Set(Object.values(JUMP));

const SKF_AD_OFF = SKF_AD_PROTOCOL;
const SKF_AD_PKTTYPE = SKF_AD_OFF + 4;
const SKF_AD_MARK = SKF_AD_OFF + 20;
const SKF_AD_QUEUE = SKF_AD_OFF + 24;
const SKF_AD_VLAN_TAG = SKF_AD_OFF + 44;
const SKF_LL_OFF = 0xffe00000;
/** Where a tag stands: behind both MAC addresses. */
const TAG_OFFSET = 12;

const KNOWN: ReadonlySet<number> = new Set([
  SKF_AD_PROTOCOL,
  SKF_AD_PKTTYPE,
  SKF_AD_MARK,
  SKF_AD_QUEUE,
  SKF_AD_VLAN_TAG,
  SKF_AD_VLAN_TAG_PRESENT,
]);

/** What the kernel knows of a frame besides its bytes; one object is filled again for each frame. */
export class BpfContext {
  /** The ether type behind a tag that was taken out. */
  protocol = 0;
  vlanTagPresent = 0;
  /** Its tag control information. */
  vlanTag = 0;
  /** Where the network header begins, without the tag that was taken out. */
  networkOffset = 0;
  /** PACKET_HOST and so on. */
  packetType = 0;

  /** @param offset where the frame begins @param cut bytes of its link layer header that the program does not see */
  fill(view: FrameView, frame: Buffer, offset: number, cut: number, packetType: number): void {
    const tagged = cut === 0 && view.vlanDepth > 0;
    this.vlanTagPresent = tagged ? 1 : 0;
    this.vlanTag = tagged ? (frame[offset + 14]! << 8) | frame[offset + 15]! : 0;
    this.protocol = view.etherType;
    if (tagged && view.vlanDepth > 1) this.protocol = (frame[offset + 16]! << 8) | frame[offset + 17]!;
    this.networkOffset = view.l3Offset - offset - cut - (tagged ? VLAN_TAG_BYTES : 0);
    this.packetType = packetType;
  }
}

/** null: the kernel would refuse it, or it asks for what only the kernel of its socket knows. */
export function compileBpf(bytes: Buffer): BpfProgram | null {
  const count = bytes.length / BPF_INSTRUCTION_BYTES;
  if (!Number.isInteger(count) || count < 1 || count > MAX_INSTRUCTIONS) return null;
  const program = new Int32Array(count * WORDS);
  for (let index = 0; index < count; index++) {
    const at = index * BPF_INSTRUCTION_BYTES;
    const code = bytes.readUInt16LE(at + BPF_FIELDS.code);
    const k = bytes.readUInt32LE(at + BPF_FIELDS.k);
    const jumps = [bytes[at + BPF_FIELDS.jumpTrue] ?? 0, bytes[at + BPF_FIELDS.jumpFalse] ?? 0] as const;
    if (!isGood(code, k) || !staysInside(code, k, jumps, count - index - 1)) return null;
    program.set([code, ...jumps, k | 0], index * WORDS);
  }
  const last = program[(count - 1) * WORDS] ?? 0;
  return (last & 7) === CLASS.RET ? program : null;
}

/** @param left instructions behind this one */
function staysInside(code: number, k: number, [yes, no]: readonly [number, number], left: number): boolean {
  if ((code & 7) !== CLASS.JMP) return true;
  return (code & 0xf0) === JUMP.ALWAYS ? k < left : Math.max(yes, no) < left;
}

function isGood(code: number, k: number): boolean {
  const operation = code & 0xf0;
  const mode = code & 0xe0;
  switch (code & 7) {
    case CLASS.LD:
      if ((code & 0x18) === 0x18 || code > 0xff || mode === MODE.MSH || !MODES.has(mode)) return false;
      if (mode === MODE.ABS) return k < SKF_AD_OFF || KNOWN.has(k);
      return mode !== MODE.MEM || k < MEMORY_WORDS;
    case CLASS.LDX:
      if (code === 0xb1) return k < SKF_AD_OFF;
      if ((code & 0x18) !== 0 || ![MODE.IMM, MODE.MEM, MODE.LEN].some((one) => one === mode)) return false;
      return mode !== MODE.MEM || k < MEMORY_WORDS;
    case CLASS.ST:
    case CLASS.STX:
      return (code & 0xf8) === 0 && k < MEMORY_WORDS;
    case CLASS.ALU:
      if (!OPS.has(operation) || code > 0xff) return false;
      if ((code & SOURCE_X) !== 0) return true;
      if (operation === OP.DIV || operation === OP.MOD) return k !== 0;
      return (operation !== OP.LSH && operation !== OP.RSH) || k < 32;
    case CLASS.JMP:
      return JUMPS.has(operation) && code <= 0xff;
    case CLASS.RET:
      return code === CLASS.RET || code === RET_A;
    default:
      return code === TAX || code === TXA;
  }
}

const memory = new Int32Array(MEMORY_WORDS);

/** @param offset, length the frame, with its outer tag where the context says so @returns bytes to keep */
export function runBpf(
  program: BpfProgram,
  frame: Buffer,
  offset: number,
  length: number,
  context: Readonly<BpfContext>,
): number {
  const size = length - (context.vlanTagPresent === 0 ? 0 : VLAN_TAG_BYTES);
  let a = 0;
  let x = 0;
  memory.fill(0);
  for (let at = 0; at < program.length; at += WORDS) {
    const code = program[at]!;
    const k = program[at + 3]!;
    switch (code & 7) {
      case CLASS.LD: {
        const mode = code & 0xe0;
        if (mode === MODE.IMM) a = k;
        else if (mode === MODE.MEM) a = memory[k]!;
        else if (mode === MODE.LEN) a = size;
        else {
          const place = (mode === MODE.IND ? x + k : k) >>> 0;
          const bytes = (code & 0x18) === 0 ? 4 : (code & 0x18) === 0x08 ? 2 : 1;
          const value = load(frame, offset, size, place, bytes, context);
          if (value < 0) return 0;
          a = value | 0;
        }
        break;
      }
      case CLASS.LDX: {
        const mode = code & 0xe0;
        if (mode === MODE.IMM) x = k;
        else if (mode === MODE.MEM) x = memory[k]!;
        else if (mode === MODE.LEN) x = size;
        else {
          const value = load(frame, offset, size, k >>> 0, 1, context);
          if (value < 0) return 0;
          x = 4 * (value & 15);
        }
        break;
      }
      case CLASS.ST:
        memory[k] = a;
        break;
      case CLASS.STX:
        memory[k] = x;
        break;
      case CLASS.ALU: {
        const operand = (code & SOURCE_X) === 0 ? k : x;
        const operation = code & 0xf0;
        if (operand === 0 && (operation === OP.DIV || operation === OP.MOD)) return 0;
        a = calculate(operation, a, operand);
        break;
      }
      case CLASS.JMP:
        if ((code & 0xf0) === JUMP.ALWAYS) at += (k >>> 0) * WORDS;
        else at += program[at + (holds(code & 0xf0, a, (code & SOURCE_X) === 0 ? k : x) ? 1 : 2)]! * WORDS;
        break;
      case CLASS.RET:
        return (code === RET_A ? a : k) >>> 0;
      default:
        if (code === TAX) x = a;
        else a = x;
    }
  }
  return 0;
}

function calculate(operation: number, a: number, b: number): number {
  switch (operation) {
    case OP.ADD:
      return (a + b) | 0;
    case OP.SUB:
      return (a - b) | 0;
    case OP.MUL:
      return Math.imul(a, b);
    case OP.DIV:
      return ((a >>> 0) / (b >>> 0)) | 0;
    case OP.OR:
      return a | b;
    case OP.AND:
      return a & b;
    case OP.LSH:
      return a << (b & 31);
    case OP.RSH:
      return (a >>> (b & 31)) | 0;
    case OP.NEG:
      return -a | 0;
    case OP.MOD:
      return ((a >>> 0) % (b >>> 0)) | 0;
    default:
      return a ^ b;
  }
}

function holds(test: number, a: number, b: number): boolean {
  switch (test) {
    case JUMP.EQUAL:
      return a === b;
    case JUMP.GREATER:
      return a >>> 0 > b >>> 0;
    case JUMP.GREATER_EQUAL:
      return a >>> 0 >= b >>> 0;
    default:
      return (a & b) !== 0;
  }
}

/** An unsigned number, or -1: beyond the frame. */
function load(
  frame: Buffer,
  offset: number,
  size: number,
  place: number,
  bytes: number,
  context: Readonly<BpfContext>,
): number {
  let at = place;
  if (place >= SKF_LL_OFF) {
    if (place >= SKF_AD_OFF) return ancillary(place, context);
    at = place >= SKF_NET_OFF ? place - SKF_NET_OFF + context.networkOffset : place - SKF_LL_OFF;
  }
  if (at + bytes > size) return -1;
  let value = 0;
  for (let i = 0; i < bytes; i++, at++) {
    const skipped = context.vlanTagPresent !== 0 && at >= TAG_OFFSET ? VLAN_TAG_BYTES : 0;
    value = value * 256 + frame[offset + at + skipped]!;
  }
  return value;
}

function ancillary(place: number, context: Readonly<BpfContext>): number {
  switch (place) {
    case SKF_AD_PROTOCOL:
      return context.protocol;
    case SKF_AD_PKTTYPE:
      return context.packetType;
    case SKF_AD_VLAN_TAG:
      return context.vlanTag;
    case SKF_AD_VLAN_TAG_PRESENT:
      return context.vlanTagPresent;
    case SKF_AD_MARK:
    case SKF_AD_QUEUE:
      return 0;
    default:
      return -1;
  }
}
