/** src/packet/bpf.ts: the assembler by golden bytes, the coarse filter run by an interpreter of our own. */
import fc from 'fast-check';
import t from 'tap';
import { COARSE_FILTER_MAX_ADDRESSES } from '../../src/base/limits.js';
import { BPF, BPF_ACCEPT, BpfAssembler, coarseFilter, formatBpf } from '../../src/packet/bpf.js';
import type { CoarseFilterOptions } from '../../src/packet/bpf.js';
import { FrameView, matchesProtocol } from '../../src/packet/headers.js';
import { parseProtocolAddress } from '../../src/packet/protocol-address.js';
import type { ProtocolAddress } from '../../src/packet/protocol-address.js';
import { runBpf } from '../support/bpf.js';
import {
  ethernet,
  ethernetFrames,
  fragmentHeader,
  ipPackets,
  ipv4,
  ipv6,
  protocolAddressTexts,
  tcp,
  udp,
} from '../vectors/packet-frames.js';

const parse = (text: string): ProtocolAddress => parseProtocolAddress(text, { ranges: true });
const none = Buffer.alloc(0);

t.test('instructions and jumps are assembled as tcpdump -dd prints them', async (t) => {
  const program = new BpfAssembler()
    .emit(BPF.ldHalf, 12)
    .jump(BPF.jumpEqual, 0x86dd, 'no', 'next')
    .label('next')
    .jump(BPF.jump, 0, 'yes')
    .label('no')
    .emit(BPF.ret, 0)
    .label('yes')
    .emit(BPF.ret, 0x40000)
    .assemble();
  const golden = ['2800' + '0000' + '0c000000', '1500' + '0100' + 'dd860000', '0500' + '0000' + '01000000'];
  t.equal(program.toString('hex'), [...golden, '0600' + '0000' + '00000000', '0600' + '0000' + '00000400'].join(''));
  t.same(formatBpf(program).split('\n'), [
    '0: ldHalf 0xc',
    '1: jumpEqual 0x86dd ? 3 : 2',
    '2: jump 0x1',
    '3: ret 0x0',
    '4: ret 0x40000',
  ]);
  t.equal(formatBpf(Buffer.from('ff00000001000000', 'hex')), '0: code 255 0x1');
});

t.test('a label that is missing, behind, doubled or too far is refused', async (t) => {
  t.throws(() => new BpfAssembler().jump(BPF.jump, 0, 'x').assemble(), RangeError);
  t.throws(() => new BpfAssembler().jump(BPF.jump, 0, 'x').label('x').assemble(), RangeError, 'behind the end');
  t.throws(() => new BpfAssembler().label('x').emit(BPF.ret, 0).jump(BPF.jump, 0, 'x').assemble(), RangeError);
  t.throws(() => new BpfAssembler().label('x').label('x'), RangeError);
  const far = (code: number, distance: number): Buffer => {
    const program = new BpfAssembler().jump(code, 0, 'x');
    for (let index = 0; index < distance; index += 1) program.emit(BPF.ret, 0);
    return program.label('x').emit(BPF.ret, 0).assemble();
  };
  t.equal(far(BPF.jumpEqual, 255)[2], 255);
  t.throws(() => far(BPF.jumpEqual, 256), RangeError);
  t.equal(far(BPF.jump, 300).readUInt32LE(4), 300);
});

/** Whether the filter takes the frame, the outer tag taken out by the kernel or not. */
function takes(filter: Buffer, frame: Buffer, link: 'ethernet' | 'raw', strip: boolean): boolean {
  if (link === 'raw') {
    const protocol = frame.length > 0 && frame[0]! >> 4 === 6 ? 0x86dd : 0x0800;
    return runBpf(filter, frame, { protocol, vlanTagPresent: 0, networkOffset: 0 }) > 0;
  }
  if (frame.length < 14) return false;
  let packet = frame;
  let vlanTagPresent = 0;
  if (strip && frame.length >= 18 && [0x8100, 0x88a8].includes(frame.readUInt16BE(12))) {
    packet = Buffer.concat([frame.subarray(0, 12), frame.subarray(16)]);
    vlanTagPresent = 1;
  }
  const type = packet.readUInt16BE(12);
  return runBpf(filter, packet, { protocol: type < 0x600 ? 4 : type, vlanTagPresent, networkOffset: 14 }) > 0;
}

const WAYS: CoarseFilterOptions[] = [{ local: 'destination' }, { local: 'destination', linkType: 'ethernet' }];

const FRAMES: Record<string, Buffer> = {
  tcp80: ethernet(0x0800, ipv4({ protocol: 6 }, tcp({ destinationPort: 80 }, none))),
  tcp81: ethernet(0x0800, ipv4({ protocol: 6 }, tcp({ destinationPort: 81, sourcePort: 80 }, none))),
  tcp80options: ethernet(
    0x0800,
    ipv4({ protocol: 6, options: Buffer.alloc(40, 1) }, tcp({ destinationPort: 80 }, none)),
  ),
  tcp80six: ethernet(0x86dd, ipv6(6, tcp({ destinationPort: 80 }, none))),
  tcp81six: ethernet(0x86dd, ipv6(6, tcp({ destinationPort: 81, sourcePort: 80 }, none))),
  udp80: ethernet(0x0800, ipv4({ protocol: 17 }, udp(1, 80, none))),
  udpLater: ethernet(0x0800, ipv4({ protocol: 17, fragment: 9 }, udp(1, 1, none))),
  tcpLater: ethernet(0x0800, ipv4({ protocol: 6, fragment: 9 }, udp(1, 1, none))),
  fragmentSix: ethernet(0x86dd, ipv6(17, udp(1, 80, none), [fragmentHeader(4, true, 1)])),
  echo: ethernet(0x0800, ipv4({ protocol: 1 }, Buffer.alloc(8))),
  echoSix: ethernet(0x86dd, ipv6(58, Buffer.alloc(8))),
  arp: ethernet(0x0806, Buffer.alloc(28)),
  lldp: ethernet(0x88cc, Buffer.alloc(46)),
  tagged: ethernet(0x0800, ipv4({ protocol: 89 }, none), [[0x8100, 1]]),
  stp: ethernet(0x0026, Buffer.alloc(38)),
};

/** Names of the frames that a filter for these addresses takes. */
function taken(texts: string[], options: CoarseFilterOptions, strip = false): string[] {
  const filter = coarseFilter(texts.map(parse), options);
  return Object.keys(FRAMES).filter((name) => takes(filter, FRAMES[name]!, 'ethernet', strip));
}

t.test('no address takes nothing, * and too many take everything', async (t) => {
  t.same(taken([], { local: 'both' }), []);
  t.same(taken(['tcp:1', '*'], { local: 'both' }), Object.keys(FRAMES));
  const many = Array.from({ length: COARSE_FILTER_MAX_ADDRESSES + 1 }, (_, index) => `tcp:${index + 1000}`);
  t.same(taken(many, { local: 'both' }), Object.keys(FRAMES));
  t.same(taken(many.slice(1), { local: 'destination' }), ['tcpLater', 'fragmentSix', 'tagged']);
  t.equal(coarseFilter([], { local: 'both' }).toString('hex'), '0600000000000000');
});

t.test('what no address can match stays out, with or without a known link', async (t) => {
  for (const way of WAYS) {
    t.same(taken(['tcp:80'], way), ['tcp80', 'tcp80options', 'tcp80six', 'tcpLater', 'fragmentSix', 'tagged']);
    t.same(taken(['tcp:79-81'], way).slice(0, 5), ['tcp80', 'tcp81', 'tcp80options', 'tcp80six', 'tcp81six']);
    t.same(taken(['tcp:81-90'], way), ['tcp81', 'tcp81six', 'tcpLater', 'fragmentSix', 'tagged']);
    t.same(taken(['tcp:1-79'], way), ['tcpLater', 'fragmentSix', 'tagged']);
    t.same(taken(['tcp:10.0.0.9:80'], way), ['tcp80', 'tcp80options', 'tcpLater', 'tagged']);
    t.same(taken(['tcp:[::1]:80'], way), ['tcp80six', 'fragmentSix', 'tagged']);
    t.same(taken(['udp', 'udp:7'], way), ['udp80', 'udpLater', 'fragmentSix', 'tagged']);
    t.same(taken(['icmp'], way), ['fragmentSix', 'echo', 'echoSix', 'tagged']);
    t.same(taken(['arp'], way), ['arp', 'tagged']);
    t.same(taken(['ether:0x88cc', 'ip:89'], way), ['fragmentSix', 'lldp', 'tagged']);
    t.same(taken(['ether:0x8100'], way), ['tagged']);
  }
});

t.test('a tag that the hardware took out does not hide the frame', async (t) => {
  for (const way of WAYS) {
    t.same(taken(['ip:89:10.0.0.2'], way, true), ['tagged']);
    t.same(taken(['ip:88:10.0.0.2'], way, true), []);
    t.same(taken(['ether:0x8100'], way, true), ['tagged']);
  }
});

t.test('the local end decides which port counts', async (t) => {
  const four = ['tcp80', 'tcp81', 'tcp80options'];
  for (const linkType of [undefined, 'ethernet'] as const) {
    const link = linkType === undefined ? {} : { linkType };
    const of = (local: CoarseFilterOptions['local']): string[] =>
      taken(['tcp:10.0.0.1:80'], { local, ...link }).filter((name) => four.includes(name));
    t.same(of('destination'), ['tcp80', 'tcp80options']);
    t.same(of('source'), ['tcp81']);
    t.same(of('both'), four);
  }
});

t.test('a frame whose protocol the kernel does not know, or whose header is elsewhere, is taken', async (t) => {
  const filter = coarseFilter([parse('tcp:80')], { local: 'both', linkType: 'ethernet' });
  const frame = FRAMES['udp80']!;
  for (const protocol of [0, 3]) {
    t.equal(runBpf(filter, frame, { protocol, vlanTagPresent: 0, networkOffset: 14 }), BPF_ACCEPT);
  }
  const tagged = FRAMES['tagged']!;
  t.equal(runBpf(filter, tagged, { protocol: 0x0800, vlanTagPresent: 0, networkOffset: 18 }), BPF_ACCEPT);
});

const view = new FrameView();

t.test('the filter never rejects a frame that matches', async (t) => {
  let matched = 0;
  let rejected = 0;
  const link = fc.constantFrom('ethernet', 'raw', undefined);
  const local = fc.constantFrom('destination', 'source', 'both');
  const texts = fc.array(protocolAddressTexts, { minLength: 1, maxLength: 5 });
  fc.assert(
    fc.property(
      ethernetFrames,
      ipPackets,
      texts,
      link,
      local,
      fc.boolean(),
      (frame, packet, list, linkType, end, strip) => {
        const addresses = list.map(parse);
        const options = linkType === undefined ? { local: end } : { local: end, linkType };
        const raw = linkType === 'raw' || (linkType === undefined && strip);
        const bytes = raw ? packet : frame;
        const filter = coarseFilter(addresses, options);
        const took = takes(filter, bytes, raw ? 'raw' : 'ethernet', strip);
        const parsed = view.parse(bytes, 0, bytes.length, raw ? 'raw' : 'ethernet');
        const sides = end === 'both' ? ([0, 1] as const) : end === 'source' ? ([1] as const) : ([0] as const);
        const wanted = parsed && addresses.some((one) => sides.some((side) => matchesProtocol(one, view, bytes, side)));
        if (wanted) matched += 1;
        if (!took) rejected += 1;
        return took || !wanted;
      },
    ),
    { numRuns: 20_000 },
  );
  t.ok(matched > 4000 && rejected > 2000, `both happen: ${matched} matched, ${rejected} rejected`);
});
