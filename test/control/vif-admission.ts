import t from 'tap';
import { admissionElements, admissionTable, deviceOfAdmissionTable } from '../../src/control/vif-admission.js';
import { ETHERNET_HEADER_BYTES } from '../../src/packet/headers.js';
import { parseIpv4 } from '../../src/packet/ip-address.js';
import { writeEthernetHeader } from '../../src/packet/mac-address.js';
import { parseProtocolAddress } from '../../src/packet/protocol-address.js';
import { invert, pseudoHeaderSum, sum } from '../../src/packet/checksum.js';
import { VNET_HEADER_BYTES } from '../../src/packet/virtio.js';
import { Program, until } from '../support/lab.js';
import { ETH0, type MirrorLab, mirrorLab } from '../support/mirror.js';
import { withoutRoot } from '../support/netns.js';

const OWN_MAC = Buffer.from('020000000009', 'hex');
const PEER_MAC = Buffer.from('020000000003', 'hex');
const TCP = 6;
const UDP = 17;
const ICMP = 1;
const protocol = parseProtocolAddress;

/** An IPv4 frame from 10.9.0.3, with its checksums. `body` has its own at `checksumAt`. */
function ipFrame(number: number, body: Buffer, checksumAt: number, to = '10.9.0.1'): Buffer {
  const frame = Buffer.alloc(ETHERNET_HEADER_BYTES + 20 + body.length);
  writeEthernetHeader(frame, 0, OWN_MAC, PEER_MAC, 0x0800);
  frame[14] = 0x45;
  frame.writeUInt16BE(20 + body.length, 16);
  frame[22] = 64;
  frame[23] = number;
  Buffer.from([10, 9, 0, 3]).copy(frame, 26);
  parseIpv4(to)?.copy(frame, 30);
  frame.writeUInt16BE(invert(sum(frame, 14, 20, 0)), 24);
  body.copy(frame, 34);
  const pseudo = number === ICMP ? 0 : pseudoHeaderSum(frame, 26, 4, number, body.length);
  frame.writeUInt16BE(invert(sum(frame, 34, body.length, pseudo)), 34 + checksumAt);
  return frame;
}

function syn(port: number, to?: string): Buffer {
  const body = Buffer.alloc(20);
  body.writeUInt16BE(40_000, 0);
  body.writeUInt16BE(port, 2);
  body[12] = 0x50;
  body[13] = 0x02;
  return ipFrame(TCP, body, 16, to);
}

function datagram(port: number, from = 40_000, to?: string): Buffer {
  const body = Buffer.alloc(12);
  body.writeUInt16BE(from, 0);
  body.writeUInt16BE(port, 2);
  body.writeUInt16BE(body.length, 4);
  return ipFrame(UDP, body, 6, to);
}

function echoRequest(): Buffer {
  const body = Buffer.alloc(16);
  body[0] = 8;
  return ipFrame(ICMP, body, 2);
}

function give({ mirror }: MirrorLab, frame: Buffer): void {
  const buf = Buffer.concat([Buffer.alloc(VNET_HEADER_BYTES), frame]);
  const result = mirror.device.write(buf, 0, VNET_HEADER_BYTES, frame.length);
  if (result < 0) throw new Error(`write: ${result}`);
}

/** A mirror that is up, with its neighbour known; what leaves to it is counted by protocol and type. */
async function setUp(t: { teardown(undo: () => unknown): void }): Promise<MirrorLab> {
  const lab = await mirrorLab(t);
  lab.mirror.apply(ETH0);
  lab.netns.run('ip neigh add 10.9.0.3 lladdr 02:00:00:00:00:03 dev fwd1-eth0');
  return lab;
}

const answers = ({ frames }: MirrorLab, number: number): Buffer[] =>
  frames.seen.filter((frame) => frame.readUInt16BE(12) === 0x0800 && frame[23] === number);

/** The kernel takes a frame, and answers it, within the write; what it sent is then read in the next turns. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
}

t.test('nothing comes in that was not asked for, and the kernel answers nothing', { skip: withoutRoot }, async (t) => {
  const lab = await setUp(t);
  give(lab, syn(80));
  give(lab, datagram(53));
  give(lab, echoRequest());
  await settle();
  t.same(answers(lab, TCP), []);
  t.same(answers(lab, ICMP), []);
  lab.mirror.admit(protocol('tcp:80'));
  give(lab, syn(80));
  // Nobody listens, so what comes in is refused by the kernel: that is how we see that it did.
  await until(() => answers(lab, TCP).length === 1);
  give(lab, syn(22));
  await settle();
  t.equal(answers(lab, TCP).length, 1);
});

t.test('a port at one address opens no other address', { skip: withoutRoot }, async (t) => {
  const lab = await setUp(t);
  lab.mirror.admit(protocol('tcp:10.9.0.7:80'));
  give(lab, syn(80, '10.9.0.1'));
  give(lab, syn(80, '10.9.0.7'));
  await until(() => answers(lab, TCP).length === 1);
  await settle();
  t.same(
    answers(lab, TCP).map((frame) => frame.subarray(26, 30).join('.')),
    ['10.9.0.7'],
  );
});

t.test('what is admitted twice stays until it was refused twice', { skip: withoutRoot }, async (t) => {
  const lab = await setUp(t);
  lab.mirror.admit(protocol('tcp:80'));
  lab.mirror.admit(protocol('tcp:80'));
  lab.mirror.refuse(protocol('tcp:80'));
  give(lab, syn(80));
  await until(() => answers(lab, TCP).length === 1);
  lab.mirror.refuse(protocol('tcp:80'));
  give(lab, syn(80));
  await settle();
  t.equal(answers(lab, TCP).length, 1);
  lab.mirror.refuse(protocol('tcp:80'));
  lab.mirror.admit(protocol('tcp:80'));
  give(lab, syn(80));
  await until(() => answers(lab, TCP).length === 2);
});

t.test(
  'with a rule of icmp programs get echo requests, and the kernel still keeps quiet',
  { skip: withoutRoot },
  async (t) => {
    const lab = await setUp(t);
    const program = new Program([
      ...lab.netns.prefix,
      'python3',
      '-uc',
      `import socket
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
print("ready")
print(s.recv(100)[20])
s.sendto(bytes([0, 0, 255, 255]) + bytes(12), ("10.9.0.3", 0))`,
    ]);
    await program.untilOutput((output) => output.includes('ready'));
    lab.mirror.admit(protocol('icmp'));
    give(lab, echoRequest());
    t.match((await program.ended).stdout.toString(), /^8$/m);
    // The program's own reply leaves, and only that one.
    await until(() => answers(lab, ICMP).length > 0);
    await settle();
    t.same(
      answers(lab, ICMP).map((frame) => frame.readUInt16BE(36)),
      [0xffff],
    );
  },
);

t.test('answers come in without any rule', { skip: withoutRoot }, async (t) => {
  const lab = await setUp(t);
  const program = new Program([
    ...lab.netns.prefix,
    'python3',
    '-uc',
    `import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("10.9.0.1", 5000))
s.sendto(b"x", ("10.9.0.3", 53))
print("sent")
print(len(s.recv(100)))`,
  ]);
  await program.untilOutput((output) => output.includes('sent'));
  await until(() => answers(lab, UDP).length === 1);
  give(lab, datagram(5000, 54));
  give(lab, datagram(5000, 53));
  t.match((await program.ended).stdout.toString(), /^4$/m);
});

t.test('what is for another host is not routed on, whatever its port', { skip: withoutRoot }, async (t) => {
  const lab = await setUp(t);
  lab.netns.run('sysctl -qw net.ipv4.ip_forward=1');
  lab.netns.run('ip route add 203.0.113.0/24 via 10.9.0.3');
  lab.mirror.admit(protocol('udp:53'));
  give(lab, datagram(53, 40_000, '203.0.113.9'));
  give(lab, datagram(53, 40_000, '10.9.0.1'));
  // Port unreachable for the second one: so the first one had its turn.
  await until(() => answers(lab, ICMP).length === 1);
  await settle();
  t.same(answers(lab, UDP), []);
});

t.test('packet sockets ask for nothing of the kernel', async (t) => {
  for (const text of ['*', 'arp', 'ether:0x86dd']) t.same(admissionElements(protocol(text)), [], text);
});

t.test('each protocol address has its elements', async (t) => {
  const of = (text: string): string[] =>
    admissionElements(protocol(text)).map(({ set, key }) => `${set} ${key.toString('hex')}`);
  t.same(of('tcp:80'), ['ports 0600000000500000']);
  t.same(of('udp:10.9.0.1:53'), ['ports4 0a0900011100000000350000']);
  t.same(of('tcp:[fd09::1]:80'), ['ports6 fd0900000000000000000000000000010600000000500000']);
  t.same(of('icmp'), ['protocols 01', 'protocols 3a']);
  t.same(of('ip:89:10.9.0.1'), ['protocols4 0a09000159000000']);
});

t.test('a table tells its device, and no other table does', async (t) => {
  t.equal(admissionTable('ctl 1', 'fwd1-eth0'), 'fwdfs_ctl_1/vif/fwd1-eth0');
  t.equal(deviceOfAdmissionTable('inet', 'fwdfs_ctl1/vif/fwd1-eth0'), 'fwd1-eth0');
  for (const name of ['fwdfs_ctl1', 'fwdfs_ctl1/claims', 'vif/x', 'fwdfs_a/vif/', 'fwdfs_a/vif/b/c']) {
    t.equal(deviceOfAdmissionTable('inet', name), null, name);
  }
  t.equal(deviceOfAdmissionTable('ip', 'fwdfs_ctl1/vif/fwd1-eth0'), null);
});
