/** src/packet/bpf-run.ts: against the programs that tcpdump makes and what the kernel would refuse. */
import t from 'tap';
import { BpfContext, compileBpf, runBpf } from '../../src/packet/bpf-run.js';
import { FrameView } from '../../src/packet/headers.js';
import { ethernet, ipv4, udp } from '../vectors/packet-frames.js';

type Line = readonly [code: number, jt: number, jf: number, k: number];

function assemble(lines: readonly Line[]): Buffer {
  return Buffer.concat(
    lines.map(([code, jt, jf, k]) => {
      const bytes = Buffer.alloc(8);
      bytes.writeUInt16LE(code, 0);
      bytes[2] = jt;
      bytes[3] = jf;
      bytes.writeUInt32LE(k >>> 0, 4);
      return bytes;
    }),
  );
}

const RET_A: Line = [0x16, 0, 0, 0];

/** What a program returns for a frame that stands in the middle of a buffer. */
function run(lines: readonly Line[], frame: Buffer, fill: Partial<BpfContext> = {}): number {
  const program = compileBpf(assemble(lines));
  if (program === null) throw new Error('refused');
  const buffer = Buffer.concat([Buffer.alloc(5, 0xee), frame, Buffer.alloc(5, 0xee)]);
  return runBpf(program, buffer, 5, frame.length, Object.assign(new BpfContext(), fill));
}

/** `tcpdump -dd udp port 53` for Ethernet. */
const DNS: readonly Line[] = [
  [0x28, 0, 0, 12],
  [0x15, 0, 6, 0x86dd],
  [0x30, 0, 0, 20],
  [0x15, 0, 15, 17],
  [0x28, 0, 0, 54],
  [0x15, 12, 0, 53],
  [0x28, 0, 0, 56],
  [0x15, 10, 11, 53],
  [0x15, 0, 10, 0x800],
  [0x30, 0, 0, 23],
  [0x15, 0, 8, 17],
  [0x28, 0, 0, 20],
  [0x45, 6, 0, 0x1fff],
  [0xb1, 0, 0, 14],
  [0x48, 0, 0, 14],
  [0x15, 2, 0, 53],
  [0x48, 0, 0, 16],
  [0x15, 0, 1, 53],
  [0x6, 0, 0, 262144],
  [0x6, 0, 0, 0],
];

const datagram = (port: number): Buffer => ipv4({ protocol: 17 }, udp(4000, port, Buffer.alloc(4)));

t.test('a program of tcpdump takes what it is for', async (t) => {
  t.equal(run(DNS, ethernet(0x0800, datagram(53))), 262144);
  t.equal(run(DNS, ethernet(0x0800, datagram(54))), 0);
  for (let length = 0; length < 38; length += 1)
    t.equal(run(DNS, ethernet(0x0800, datagram(53)).subarray(0, length)), 0);
});

t.test('a tag is beside the frame, as the kernel has it', async (t) => {
  const tagged = ethernet(0x0800, datagram(53), [[0x8100, 0x2007]]);
  const view = new FrameView();
  view.parse(tagged, 0, tagged.length);
  const context = new BpfContext();
  context.fill(view, tagged, 0, 0, 0);
  t.match(context, { protocol: 0x0800, vlanTagPresent: 1, vlanTag: 0x2007, networkOffset: 14 });
  t.equal(run(DNS, tagged, context), 262144);
  t.equal(run([[0x80, 0, 0, 0], RET_A], tagged, context), tagged.length - 4);
  t.equal(run([[0x20, 0, 0, 0xfffff000 + 44], RET_A], tagged, context), 0x2007);
  t.equal(run([[0x20, 0, 0, 0xfffff000], RET_A], tagged, context), 0x0800);
  t.equal(run([[0x30, 0, 0, 0xfff00000 + 9], RET_A], tagged, context), 17, 'from the network header');
});

t.test('arithmetic is that of 32 bits without a sign', async (t) => {
  const cases: [operation: number, a: number, k: number, result: number][] = [
    [0x04, 0xffffffff, 2, 1],
    [0x14, 1, 2, 0xffffffff],
    [0x24, 0x10001, 0x10001, 0x20001],
    [0x34, 0xfffffffe, 2, 0x7fffffff],
    [0x44, 0xf0, 0x0f, 0xff],
    [0x54, 0xff, 0x0f, 0x0f],
    [0x64, 1, 31, 0x80000000],
    [0x74, 0x80000000, 31, 1],
    [0x84, 1, 0, 0xffffffff],
    [0x94, 0xffffffff, 16, 15],
    [0xa4, 0xff, 0x0f, 0xf0],
  ];
  for (const [operation, a, k, result] of cases) {
    t.equal(run([[0x00, 0, 0, a], [operation, 0, 0, k], RET_A], Buffer.alloc(1)), result, operation.toString(16));
    const byX: Line[] = [[0x00, 0, 0, a], [0x01, 0, 0, k], [operation | 8, 0, 0, 0], RET_A];
    t.equal(run(byX, Buffer.alloc(1)), result, `${operation.toString(16)} by X`);
  }
  t.equal(run([[0x00, 0, 0, 5], [0x3c, 0, 0, 0], RET_A], Buffer.alloc(1)), 0, 'division by an X of zero');
});

t.test('memory, registers and comparisons', async (t) => {
  const keep: Line[] = [
    [0x00, 0, 0, 7],
    [0x02, 0, 0, 3],
    [0x00, 0, 0, 9],
    [0x07, 0, 0, 0],
    [0x03, 0, 0, 4],
    [0x60, 0, 0, 3],
    RET_A,
  ];
  t.equal(run(keep, Buffer.alloc(1)), 7);
  t.equal(run([...keep.slice(0, 5), [0x60, 0, 0, 4], RET_A], Buffer.alloc(1)), 9);
  t.equal(run([...keep.slice(0, 5), [0x87, 0, 0, 0], RET_A], Buffer.alloc(1)), 9);
  t.equal(run([[0x60, 0, 0, 3], RET_A], Buffer.alloc(1)), 0, 'nothing is left of the run before');
  const bigger: Line[] = [
    [0x00, 0, 0, 0x80000000],
    [0x25, 0, 1, 1],
    [0x6, 0, 0, 1],
    [0x6, 0, 0, 2],
  ];
  t.equal(run(bigger, Buffer.alloc(1)), 1);
});

t.test('what the kernel would refuse, or can know alone, is not run', async (t) => {
  const end: Line = [0x6, 0, 0, 1];
  const bad: [string, Line[]][] = [
    ['nothing', []],
    ['no return at the end', [[0x00, 0, 0, 1]]],
    ['a jump behind the end', [[0x05, 0, 0, 1], end]],
    ['a branch behind the end', [[0x15, 0, 1, 1], end]],
    ['a jump far behind the end', [[0x05, 0, 0, 0xffffffff], end]],
    ['memory that is not there', [[0x60, 0, 0, 16], end]],
    ['a store that is not there', [[0x02, 0, 0, 16], end]],
    ['division by zero', [[0x34, 0, 0, 0], end]],
    ['a shift by 32', [[0x64, 0, 0, 32], end]],
    ['no such code', [[0x1ff, 0, 0, 0], end]],
    ['the index of the interface', [[0x20, 0, 0, 0xfffff000 + 8], end]],
  ];
  for (const [what, lines] of bad) t.equal(compileBpf(assemble(lines)), null, what);
  t.equal(compileBpf(Buffer.alloc(7)), null);
  const long = Array.from({ length: 4097 }, () => end);
  t.equal(compileBpf(assemble(long)), null);
  t.not(compileBpf(assemble(long.slice(1))), null);
});
