/**
 * Frames for the lab, a sender and a capture of them that are not ours (python3 on AF_PACKET, tcpdump), and capture files
 * by a writer and a reader that share nothing with src/packet.
 */
import { ethernet } from '../vectors/packet-frames.js';
import { type Lab, type Program, type Result, run } from './lab.js';
import type { Netns } from './netns.js';

/** Source of all test frames: captures tell them from what the kernels say by themselves. */
export const TEST_MAC = '02:00:00:00:00:01';

/** A frame with these addresses instead of its own. */
export function addressed(frame: Buffer, destination: string, source = TEST_MAC): Buffer {
  const copy = Buffer.from(frame);
  Buffer.from(destination.replaceAll(':', ''), 'hex').copy(copy, 0);
  Buffer.from(source.replaceAll(':', ''), 'hex').copy(copy, 6);
  return copy;
}

/** `length` bytes that no two numbers share. */
export function filler(length: number, number: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let i = 0; i < length; i++) bytes[i] = (number * 31 + i * 7) & 0xff;
  if (length >= 4) bytes.writeUInt32BE(number, 0);
  return bytes;
}

/** Frames of an experimental ether type (IEEE 802, 0x88b5), each with its number: no kernel answers them. */
export function numbered(count: number, length: number, destination = 'ff:ff:ff:ff:ff:ff', first = 0): Buffer[] {
  return Array.from({ length: count }, (_, index) =>
    addressed(ethernet(0x88b5, filler(length - 14, first + index)), destination),
  );
}

export function hexOf(frames: readonly Buffer[]): string[] {
  return frames.map((frame) => frame.toString('hex'));
}

/** MAC address of an interface, from the kernel. */
export function macOf(netns: Netns, name: string): string {
  const [link] = JSON.parse(netns.run(`ip -j link show ${name}`)) as { address: string }[];
  return link?.address ?? '';
}

// --- sending ---

const SENDER = `
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind((sys.argv[1], 0))
for line in sys.stdin:
    s.send(bytes.fromhex(line))
`;

/** Puts frames on an interface, as they are. */
export async function send(netns: Netns, name: string, frames: readonly Buffer[]): Promise<void> {
  const result = await run([...netns.prefix, 'python3', '-c', SENDER, name], hexOf(frames).join('\n'));
  if (result.status !== 0) throw new Error(result.stderr);
}

// --- capturing ---

/** A running tcpdump. */
export class Capture {
  private readonly program: Program;

  private constructor(program: Program) {
    this.program = program;
  }

  /**
   * Returns when tcpdump captures.
   * @param direction `in`: what arrives at the interface, `out`: what leaves @param filter pcap-filter(7)
   * @param snap longest frame; tcpdump's ring has places of this size, so that a short one holds many frames
   */
  static async start(
    lab: Lab,
    netns: Netns,
    name: string,
    direction: 'in' | 'out' | 'inout',
    filter = `ether src ${TEST_MAC}`,
    snap = 2048,
  ): Promise<Capture> {
    const words = [
      'tcpdump',
      '-Z',
      'root',
      '-i',
      name,
      '-Q',
      direction,
      '-s',
      String(snap),
      '-B',
      '32768',
      '--immediate-mode',
    ];
    words.push('--time-stamp-precision=nano', '-U', '-w', '-', filter);
    const program = lab.program([...netns.prefix, ...words]);
    await program.untilStderr(/listening on/);
    return new Capture(program);
  }

  get stream(): Buffer {
    return this.program.output;
  }

  get records(): CaptureRecord[] {
    return readPcap(this.stream);
  }

  get frames(): Buffer[] {
    return this.records.map((record) => record.frame);
  }

  async untilCount(count: number): Promise<Buffer[]> {
    await this.program.untilOutput((output) => readPcap(output).length >= count);
    return this.frames;
  }

  async stop(): Promise<Buffer[]> {
    await this.program.kill('SIGINT');
    return this.frames;
  }
}

// --- capture files ---

export interface CaptureRecord {
  /** Seconds since 1970. */
  readonly seconds: number;
  readonly nanoseconds: number;
  readonly original: number;
  readonly frame: Buffer;
}

/** The whole records of a little-endian pcap stream, as tcpdump writes it here and as our files are read. */
export function readPcap(stream: Buffer): CaptureRecord[] {
  const records: CaptureRecord[] = [];
  if (stream.length < 24) return records;
  const magic = stream.readUInt32LE(0);
  if (magic !== 0xa1b23c4d && magic !== 0xa1b2c3d4) throw new Error(`no pcap: ${stream.toString('hex', 0, 24)}`);
  const unit = magic === 0xa1b23c4d ? 1 : 1000;
  for (let at = 24; at + 16 <= stream.length;) {
    const length = stream.readUInt32LE(at + 8);
    if (at + 16 + length > stream.length) break;
    records.push({
      seconds: stream.readUInt32LE(at),
      nanoseconds: stream.readUInt32LE(at + 4) * unit,
      original: stream.readUInt32LE(at + 12),
      frame: stream.subarray(at + 16, at + 16 + length),
    });
    at += 16 + length;
  }
  return records;
}

/** Of a pcap stream, the frames that the tests sent, without what the kernels said meanwhile. */
export function testFrames(stream: Buffer): Buffer[] {
  const source = Buffer.from(TEST_MAC.replaceAll(':', ''), 'hex');
  return readPcap(stream)
    .map((record) => record.frame)
    .filter((frame) => frame.subarray(6, 12).equals(source));
}

/** Waits until a reader of pcap has that many of them. */
export async function untilTestFrames(reader: Program, count: number): Promise<Buffer[]> {
  await reader.untilOutput((output) => testFrames(output).length >= count);
  return testFrames(reader.output);
}

export interface PcapOptions {
  readonly bigEndian?: boolean;
  readonly nanoseconds?: boolean;
  readonly linkType?: number;
  /** Time between two records, ms; default 1. */
  readonly spacingMs?: number;
}

export function pcapHeader(options: PcapOptions = {}): Buffer {
  const header = Buffer.alloc(24);
  const magic = options.nanoseconds === true ? 0xa1b23c4d : 0xa1b2c3d4;
  const fields: [number, number, number][] = [
    [0, 4, magic],
    [4, 2, 2],
    [6, 2, 4],
    [16, 4, 262144],
    [20, 4, options.linkType ?? 1],
  ];
  for (const [offset, bytes, value] of fields) {
    if (options.bigEndian === true) header.writeUIntBE(value, offset, bytes);
    else header.writeUIntLE(value, offset, bytes);
  }
  return header;
}

/** @param original length that the record claims; more than the frame: it was cut by the snap length */
export function pcapRecord(
  frame: Buffer,
  options: PcapOptions = {},
  milliseconds = 0,
  original = frame.length,
): Buffer {
  const header = Buffer.alloc(16);
  const fraction = (milliseconds % 1000) * (options.nanoseconds === true ? 1e6 : 1e3);
  [1_700_000_000 + Math.floor(milliseconds / 1000), fraction, frame.length, original].forEach((value, index) => {
    if (options.bigEndian === true) header.writeUInt32BE(value, 4 * index);
    else header.writeUInt32LE(value, 4 * index);
  });
  return Buffer.concat([header, frame]);
}

export function pcap(frames: readonly Buffer[], options: PcapOptions = {}): Buffer {
  const spacing = options.spacingMs ?? 1;
  return Buffer.concat([
    pcapHeader(options),
    ...frames.map((frame, index) => pcapRecord(frame, options, index * spacing)),
  ]);
}

/** A pcapng section with one interface; frames are enhanced packets, but every third one a simple packet. */
export function pcapng(frames: readonly Buffer[], bigEndian = false): Buffer {
  const u32 = (value: number): Buffer => {
    const bytes = Buffer.alloc(4);
    if (bigEndian) bytes.writeUInt32BE(value);
    else bytes.writeUInt32LE(value);
    return bytes;
  };
  const block = (type: number, body: Buffer): Buffer => {
    const padded = Buffer.concat([body, Buffer.alloc((4 - (body.length % 4)) % 4)]);
    const length = u32(12 + padded.length);
    return Buffer.concat([u32(type), length, padded, length]);
  };
  const halves = (first: number, second: number): Buffer =>
    bigEndian ? u32(first * 0x10000 + second) : u32(second * 0x10000 + first);
  const section = Buffer.concat([u32(0x1a2b3c4d), halves(1, 0), u32(0xffffffff), u32(0xffffffff)]);
  return Buffer.concat([
    block(0x0a0d0d0a, section),
    block(1, Buffer.concat([halves(1, 0), u32(0)])),
    ...frames.map((frame, index) =>
      index % 3 === 2
        ? block(3, Buffer.concat([u32(frame.length), frame]))
        : block(6, Buffer.concat([u32(0), u32(0), u32(index), u32(frame.length), u32(frame.length), frame])),
    ),
  ]);
}

// --- programs on the mount ---

const PREAMBLE = `
import errno, fcntl, json, os, select, signal, socket, struct, sys, threading, time
base = sys.argv[1]
def p(name): return base + '/fwd1/' + name
def err(function, *args):
    try: return function(*args)
    except OSError as e: return errno.errorcode[e.errno]
def tried(name, flags):
    fd = err(os.open, p(name), flags)
    if isinstance(fd, str): return fd
    r = err(os.close, fd)
    return r or 'ok'
def rules(table='fwd1/.tables/distribution'):
    return [row.split('\\t') for row in open(base + '/' + table).read().splitlines()[1:]]
def gone(limit=2.0):
    """How long it takes, in seconds, until there is no rule."""
    start = time.monotonic()
    while rules():
        if time.monotonic() - start > limit: raise Exception('rules are still there: ' + repr(rules()))
        time.sleep(0.001)
    return time.monotonic() - start
def show(x): print(json.dumps(x), flush=True)
`;

/** The words that run a python3 script on the mount; it has `p(NAME)`, `err(CALL, …)`, `tried(NAME, FLAGS)`, `show(VALUE)`. */
export function pythonWords(lab: Lab, script: string, mountPoint = lab.mountPoint): string[] {
  return ['python3', '-c', PREAMBLE + script, mountPoint];
}

/** Runs such a script. @returns what each `show` of it showed */
export async function python(
  lab: Lab,
  script: string,
  input: Buffer | string = '',
  timeoutMs = 20_000,
): Promise<unknown[]> {
  const result = await run(pythonWords(lab, script), input, timeoutMs);
  return shown(result);
}

/** @throws Error when the script failed */
export function shown(result: Result): unknown[] {
  if (result.status !== 0) throw new Error(`status ${result.status} ${result.signal ?? ''}\n${result.stderr}`);
  const lines = result.stdout.toString().split('\n');
  return lines.filter((line) => line !== '').map((line) => JSON.parse(line) as unknown);
}
