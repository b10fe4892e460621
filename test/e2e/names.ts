/**
 * Names of symbols: a protocol address in the name is the rule's, and nothing else is delivered.
 *
 *     node n0 ================= eth0 forwarder c0 ============ f0 control device
 *     a mixture of frames       one rule a name                eth0:udp:520  eth0:arp  eth0:tcp:10.9.0.1:80 …
 */
import t from 'tap';
import { Lab, type Program, run, until } from '../support/lab.js';
import { withoutRoot } from '../support/netns.js';
import { addressed, hexOf, macOf, python, send, untilTestFrames } from '../support/traffic.js';
import { ethernet, fragmentHeader, ipv4, ipv6, tcp, udp } from '../vectors/packet-frames.js';

const FD09_1 = Buffer.from('fd090000000000000000000000000001', 'hex');
const data = (length: number): Buffer => Buffer.alloc(length, 0x5a);

/** Frames by what they are; fragments stand in their order. */
function frames(): Map<string, Buffer> {
  const to = (destination: string, protocol: number, payload: Buffer): Buffer =>
    ethernet(0x0800, ipv4({ protocol, source: '10.9.0.2', destination }, payload));
  const long = Buffer.concat([udp(4000, 520, data(992)), data(600)]);
  const fragment = (id: number, offset: number, more: boolean, payload: Buffer): Buffer => {
    const fields = { protocol: 17, id, fragment: (more ? 0x2000 : 0) | (offset / 8) };
    return ethernet(0x0800, ipv4({ ...fields, source: '10.9.0.2', destination: '10.9.0.1' }, payload));
  };
  return new Map([
    ['udp 520', to('10.9.0.1', 17, udp(4000, 520, data(40)))],
    ['udp 521', to('10.9.0.1', 17, udp(520, 521, data(40)))],
    ['tcp 80', to('10.9.0.1', 6, tcp({ destinationPort: 80 }, data(10)))],
    ['tcp 80 elsewhere', to('10.9.0.9', 6, tcp({ destinationPort: 80 }, data(10)))],
    ['tcp 81', to('10.9.0.1', 6, tcp({ sourcePort: 80, destinationPort: 81 }, data(10)))],
    ['ospf', to('224.0.0.5', 89, data(44))],
    ['icmp', to('10.9.0.1', 1, Buffer.from('0000f7ff00010000', 'hex'))],
    ['arp', ethernet(0x0806, Buffer.concat([Buffer.from('00010800060400020200000000010a090002', 'hex'), data(28)]))],
    ['lldp', ethernet(0x88cc, data(46))],
    ['vlan udp 520', ethernet(0x0800, ipv4({ protocol: 17 }, udp(1, 520, data(40))), [[0x8100, 9]])],
    ['tcp6 80', ethernet(0x86dd, ipv6(6, tcp({ destinationPort: 80 }, data(10)), [], FD09_1))],
    ['tcp6 80 elsewhere', ethernet(0x86dd, ipv6(6, tcp({ destinationPort: 80 }, data(10))))],
    ['udp6 520', ethernet(0x86dd, ipv6(17, udp(4000, 520, data(10)), [], FD09_1))],
    ['icmp6', ethernet(0x86dd, ipv6(58, Buffer.from('8100000000010000', 'hex'), [], FD09_1))],
    ['first fragment', fragment(77, 0, true, long.subarray(0, 800))],
    ['second fragment', fragment(77, 800, false, long.subarray(800))],
    ['fragment of another', fragment(78, 800, false, long.subarray(800))],
    ['first fragment v6', ethernet(0x86dd, ipv6(17, long.subarray(0, 800), [fragmentHeader(0, true, 5)], FD09_1))],
    ['second fragment v6', ethernet(0x86dd, ipv6(17, long.subarray(800), [fragmentHeader(100, false, 5)], FD09_1))],
  ]);
}

const UDP_520 = ['udp 520', 'vlan udp 520', 'udp6 520', 'first fragment', 'second fragment'];
const FRAGMENTS_6 = ['first fragment v6', 'second fragment v6'];
const TCP_80 = ['tcp 80', 'tcp 80 elsewhere', 'tcp6 80', 'tcp6 80 elsewhere'];

/** Names, the rule that each one has, and which of the frames it shows. */
const NAMES: readonly (readonly [name: string, protocol: string, shown: readonly string[]])[] = [
  ['eth0', '*', [...frames().keys()]],
  ['eth0:*', '*', [...frames().keys()]],
  ['eth0:udp:520', 'udp:520', [...UDP_520, ...FRAGMENTS_6]],
  ['eth0:udp:520.pcap', 'udp:520', [...UDP_520, ...FRAGMENTS_6]],
  ['eth0:UDP:520:pcap', 'udp:520', [...UDP_520, ...FRAGMENTS_6]],
  ['eth0:udp:10.9.0.1:520', 'udp:10.9.0.1:520', ['udp 520', 'first fragment', 'second fragment']],
  ['eth0:udp:[fd09::1]:520', 'udp:[fd09::1]:520', ['udp6 520', ...FRAGMENTS_6]],
  ['eth0:udp', 'udp', [...UDP_520, ...FRAGMENTS_6, 'udp 521', 'fragment of another']],
  ['eth0:tcp:80', 'tcp:80', TCP_80],
  ['eth0:tcp:10.9.0.1:80', 'tcp:10.9.0.1:80', ['tcp 80']],
  ['eth0:tcp:[fd09::1]:80', 'tcp:[fd09::1]:80', ['tcp6 80']],
  ['eth0:tcp:[fd09:0:0::0:1]:80', 'tcp:[fd09::1]:80', ['tcp6 80']],
  ['eth0:ip:89', 'ip:89', ['ospf']],
  ['eth0:ip:6', 'tcp', [...TCP_80, 'tcp 81']],
  ['eth0:icmp', 'icmp', ['icmp', 'icmp6']],
  ['eth0:icmp6', 'icmp6', ['icmp6']],
  ['eth0:arp', 'arp', ['arp']],
  ['eth0:ether:0x0806', 'arp', ['arp']],
  ['eth0:ether:0x88cc', 'ether:0x88cc', ['lldp']],
  ['eth0:ether:35020', 'ether:0x88cc', ['lldp']],
];

t.test('names of symbols', { skip: withoutRoot, timeout: 60_000 }, async (t) => {
  const lab = await Lab.start();
  t.teardown(() => lab.stop());
  const mac = macOf(lab.fwd, 'eth0');
  const sent = new Map([...frames()].map(([name, frame]) => [name, addressed(frame, mac)]));
  const nameOf = new Map([...sent].map(([name, frame]) => [frame.toString('hex'), name]));

  await t.test('each name shows the frames of its protocol address and no others', async (t) => {
    const readers: Program[] = [];
    for (const [name] of NAMES) readers.push(await lab.reader(name));
    const rules = (await lab.table('distribution')).map((row) => row[1]);
    const expected = new Set(NAMES.map(([, protocol]) => protocol));
    t.same(new Set(rules), expected);
    t.equal(rules.length, expected.size, 'two spellings are one rule');

    const { stdout } = await run(['ls', lab.file('')]);
    const listed = new Set(stdout.toString().split('\n'));
    for (const [name] of NAMES) t.ok(listed.has(name), `${name} is listed while it is open`);

    await send(lab.node, 'n0', [...sent.values()]);
    for (const [index, [name, , shown]] of NAMES.entries()) {
      const reader = readers[index] as Program;
      const got = hexOf(await untilTestFrames(reader, shown.length)).map((frame) => nameOf.get(frame) ?? frame);
      t.same([...got].sort(), [...shown].sort(), name);
      t.same(
        got,
        [...sent.keys()].filter((one) => shown.includes(one)),
        `${name} keeps the order`,
      );
    }
    for (const reader of readers) await reader.kill();
    await until(async () => (await lab.table('distribution')).length === 0);
    const after = await run(['ls', lab.file('')]);
    t.equal(after.stdout.toString(), 'eth0\n', 'only the interface is listed when all are closed');
  });

  await t.test('a later fragment whose first one was not seen is counted', async (t) => {
    const before = await lab.counter('drop_fragment_unknown');
    const cat = await lab.reader('eth0:udp:520');
    const unknown = sent.get('fragment of another') ?? Buffer.alloc(0);
    await send(lab.node, 'n0', [unknown, sent.get('udp 520') ?? Buffer.alloc(0)]);
    await untilTestFrames(cat, 1);
    t.equal((await lab.counter('drop_fragment_unknown')) - before, 1);
    await cat.kill();
  });

  await t.test('names that are none say what is wrong with them', async (t) => {
    const expected: [string, string][] = [
      ['eth9', 'ENOENT'],
      ['eth9:udp:520', 'ENOENT'],
      ['../nobody/eth0', 'ENOENT'],
      ['../nobody', 'ENOENT'],
      ['.tables/nothing', 'ENOENT'],
      ['.nothing', 'ENOENT'],
      ['.if/eth9/mtu', 'ENOENT'],
      ['eth0:udp:0', 'EINVAL'],
      ['eth0:udp:65536', 'EINVAL'],
      ['eth0:udp:x', 'EINVAL'],
      ['eth0:tcp:10.9.0.256:80', 'EINVAL'],
      ['eth0:tcp:[fd09::1:80', 'EINVAL'],
      ['eth0:ip:256', 'EINVAL'],
      ['eth0:icmp:7', 'EINVAL'],
      ['eth0:ether:0x05ff', 'EINVAL'],
      ['eth0:udp:520-530', 'EINVAL'],
      ['eth0:nonsense', 'EINVAL'],
      ['eth0:', 'EINVAL'],
      ['eth0::raw', 'EINVAL'],
      ['eth0:raw:hex', 'EINVAL'],
      ['eth0:out:both', 'EINVAL'],
      ['eth0:raw:raw', 'EINVAL'],
    ];
    const names = JSON.stringify(expected.map(([name]) => name));
    const [found] = await python(lab, `show([[name, tried(name, os.O_RDONLY)] for name in ${names}])`);
    t.same(found, expected);
    const [long] = await python(lab, `show(tried('eth0' + ':' * 300, os.O_RDONLY))`);
    t.equal(long, 'ENAMETOOLONG');
  });

  await t.test('names can be looked at but neither made nor changed', async (t) => {
    const script = `
show([
    err(os.unlink, p('eth0')), err(os.mkdir, p('new')), err(os.rmdir, p('.if')), err(os.rename, p('eth0'), p('eth1')),
    err(os.link, p('eth0'), p('eth1')), err(os.symlink, 'eth0', p('eth1')), err(os.mkdir, base + '/fwd2'),
    err(os.chmod, p('eth0'), 0o777), tried('eth1', os.O_WRONLY),
])
info = os.stat(p('eth0'))
show([oct(info.st_mode), info.st_size, os.stat(p('eth0:arp')).st_ino != info.st_ino, os.stat(p('eth0')).st_ino == info.st_ino])
show(tried('eth0', os.O_WRONLY | os.O_TRUNC))
show(sorted(os.listdir(base)))
show(sorted(os.listdir(p(''))))
`;
    const [errors, info, truncated, root, directory] = await python(lab, script);
    t.same(errors, ['EPERM', 'EPERM', 'EPERM', 'EPERM', 'EPERM', 'EPERM', 'EPERM', 'EPERM', 'ENOENT']);
    t.same(info, ['0o100600', 0, true, true]);
    t.equal(truncated, 'ok', 'shells open with O_TRUNC');
    t.same(root, ['.ctl', '.tables', '.version', 'fwd1']);
    t.same(directory, ['.ctl', '.if', '.state', '.tables', 'eth0']);
  });
});
