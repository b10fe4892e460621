/**
 * Virtual IFs at a forwarder that runs, with a test in the place of their kernel: real TCP of the node at the other end.
 *
 *     node 10.9.0.2 ----- eth0 10.9.0.1 | forwarder ===== puppets ctl2, ctl3
 */
import t from 'tap';
import { MAX_HEARTBEAT_MS } from '../../src/base/limits.js';
import { createServer, type Server, type Socket } from 'node:net';
import { Lab, run, shell, until } from '../support/lab.js';
import { ACK, readTcp, RST, type SeenTcp, SYN, tcpPacket, udpPacket } from '../support/hand-tcp.js';
import { withoutRoot } from '../support/netns.js';
import { type Arrived, VifPuppet } from '../support/vif-puppet.js';

const NAMES = ['ctl1', 'ctl2', 'ctl3'];
const RIGHTS = NAMES.map(
  (name) => `  - { control: ${name}, interface: eth0, rights: [read, write, vif], protocols: ["*"] }`,
).join('\n');

interface Scene {
  readonly lab: Lab;
  readonly macs: Buffer;
  puppet(name?: string): Promise<VifPuppet>;
}

async function setUp(t: { teardown: (undo: () => unknown) => void }): Promise<Scene> {
  const lab = await Lab.start({ controls: NAMES, permissions: RIGHTS, heartbeat: MAX_HEARTBEAT_MS });
  t.teardown(() => lab.stop());
  const mac = (line: string): Buffer =>
    Buffer.from(/ether ([0-9a-f:]+)/.exec(line)?.[1]?.replaceAll(':', '') ?? '', 'hex');
  return {
    lab,
    macs: Buffer.concat([mac(lab.node.run('ip link show n0')), mac(lab.fwd.run('ip link show eth0'))]),
    async puppet(name = 'ctl2') {
      const puppet = await VifPuppet.connect(lab, name);
      t.teardown(() => puppet.close());
      return puppet;
    },
  };
}

const US = { address: '10.9.0.1', port: 50_000 };
const NODE = { address: '10.9.0.2', port: 4000 };

function ethernetTo(macs: Buffer, packet: Buffer): Buffer {
  return Buffer.concat([macs, Buffer.from([8, 0]), packet]);
}

const tcpOf = ({ frame }: Arrived): SeenTcp | null => (frame.length < 14 ? null : readTcp(frame.subarray(14)));
const has = (flags: number) => (one: Arrived) => ((tcpOf(one)?.flags ?? 0) & flags) === flags;

async function listen(
  lab: Lab,
  t: { teardown: (undo: () => unknown) => void },
): Promise<{ server: Server; sockets: Socket[] }> {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => undefined);
  });
  await lab.node.within(() => new Promise<void>((resolve) => server.listen(NODE.port, NODE.address, () => resolve())));
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { server, sockets };
}

t.test('answers of a connection come by the way back, and the kernel keeps quiet', { skip: withoutRoot }, async (t) => {
  const { lab, macs, puppet } = await setUp(t);
  const { sockets } = await listen(lab, t);
  const ctl = await puppet();
  const vif = await ctl.vif();
  ctl.send(vif.down, ethernetTo(macs, tcpPacket(US, NODE, { flags: SYN, sequence: 100 })));
  const answer = await ctl.next(has(SYN | ACK));
  t.equal(answer.tunnel, vif.up);
  const seen = tcpOf(answer)!;
  const acknowledged = seen.sequence + 1;
  ctl.send(vif.down, ethernetTo(macs, tcpPacket(US, NODE, { flags: ACK, sequence: 101, acknowledged })));
  await until(() => sockets.length === 1);
  sockets[0]?.write('hello');
  const data = await ctl.next((one) => (tcpOf(one)?.data.length ?? 0) > 0);
  t.equal(tcpOf(data)?.data.toString(), 'hello');
  t.notOk(sockets[0]?.destroyed, 'the forwarder did not answer with an RST');
  const flows = await lab.table('flow');
  t.match(flows, [['eth0', 'tcp', '10.9.0.1:50000', '10.9.0.2:4000', 'ctl2', 'fwd1-eth0', '-', 'established']]);
  t.match(await lab.table('distribution'), [['eth0', 'flows', 'in', String(vif.up), 'ctl2']]);
  t.equal((await lab.table('distribution'))[0]?.[10], 'flow');
  t.same(ctl.refused, []);
});

t.test('a socket rule gets new connections, and the answers open their flow', { skip: withoutRoot }, async (t) => {
  const { lab, macs, puppet } = await setUp(t);
  const ctl = await puppet();
  const vif = await ctl.vif();
  const up = await ctl.rule(vif.down, 'tcp:8080');
  const script = 'exec 3<>/dev/tcp/10.9.0.1/8080 && echo connected && while read -r line; do echo "$line" >&3; done';
  const client = lab.program([...lab.node.prefix, 'bash', '-c', script], null);
  const syn = await ctl.next(has(SYN));
  t.equal(syn.tunnel, up);
  const { from, sequence } = tcpOf(syn)!;
  const server = { address: US.address, port: 8080 };
  const answer = { flags: SYN | ACK, sequence: 7, acknowledged: sequence + 1 };
  ctl.send(vif.down, ethernetTo(macs, tcpPacket(server, from, answer)));
  await client.untilOutput((output) => output.includes('connected'));
  client.child.stdin?.write('GET\n');
  const data = await ctl.next((one) => (tcpOf(one)?.data.length ?? 0) > 0);
  t.equal(data.tunnel, vif.up, 'by the flow');
  const ended = await ctl.ask('transfer-deletion-request', { upTunnel: up });
  t.same(ended, { upTunnel: up });
  const got = { flags: ACK, sequence: 8, acknowledged: sequence + 5 };
  ctl.send(vif.down, ethernetTo(macs, tcpPacket(server, from, got)));
  client.child.stdin?.write('MORE\n');
  await ctl.next((one) => tcpOf(one)?.data.includes('MORE') ?? false);
  t.equal(client.stderr, '', 'a connection outlives the rule');
});

t.test(
  'without its rule the kernel answers again, and the table goes with the last vif',
  { skip: withoutRoot },
  async (t) => {
    const { lab, puppet } = await setUp(t);
    const ctl = await puppet();
    const vif = await ctl.vif();
    const up = await ctl.rule(vif.down, 'tcp:8080');
    t.match(lab.fwd.run('nft list set inet fwdfs_fwd1/vifs ports'), /"eth0" \. tcp \. (8080|http-alt)/);
    await ctl.ask('transfer-deletion-request', { upTunnel: up });
    const refused = await shell(`${lab.node.prefix.join(' ')} bash -c 'echo > /dev/tcp/10.9.0.1/8080'`);
    t.match(refused.stderr, /refused/);
    await ctl.ask('tunnel-deletion-request', { downTunnel: vif.down });
    await until(() => !lab.fwd.run('nft list tables').includes('vifs'));
    t.same(await lab.table('distribution'), []);
    t.same(await lab.table('flow'), []);
  },
);

t.test(
  'of several control devices one gets a unicast packet: any of a group, the group with the address first',
  { skip: withoutRoot },
  async (t) => {
    const { lab, puppet } = await setUp(t);
    const [one, two] = [await puppet('ctl2'), await puppet('ctl3')];
    const [first, second] = [await one.vif(), await two.vif()];
    await one.rule(first.down, 'udp:53');
    await two.rule(second.down, 'udp:53');
    // Each from a port of its own.
    const send = async (count: number): Promise<void> => {
      const script = `for ((i = 0; i < ${count}; i++)); do echo >/dev/udp/10.9.0.1/53; done`;
      await run([...lab.node.prefix, 'bash', '-c', script]);
    };
    await send(40);
    await until(() => one.arrived.length + two.arrived.length === 40);
    const [ofOne, ofTwo] = [one.arrived.splice(0).length, two.arrived.splice(0).length];
    t.ok(ofOne > 5 && ofTwo > 5, `${ofOne} and ${ofTwo} of 40`);
    const exact = await two.rule(second.down, 'udp:10.9.0.1:53');
    await send(5);
    for (let i = 0; i < 5; i++) t.equal((await two.next()).tunnel, exact);
    t.same([one.arrived, two.arrived], [[], []]);
  },
);

t.test('a frame goes up to a vif once, whatever matches it', { skip: withoutRoot }, async (t) => {
  const { lab, puppet } = await setUp(t);
  const ctl = await puppet();
  const vif = await ctl.vif();
  const all = await ctl.rule(vif.down, '*');
  const up = await ctl.rule(vif.down, 'udp:53');
  lab.node.run('bash -c echo>/dev/udp/10.9.0.1/53');
  const isDns = ({ frame }: Arrived): boolean => frame[23] === 17 && frame.readUInt16BE(36) === 53;
  t.equal((await ctl.next(isDns)).tunnel, up, 'by the socket rule');
  lab.node.run('bash -c echo>/dev/udp/10.9.0.1/54');
  t.equal((await ctl.next(({ frame }) => frame[23] === 17 && frame.readUInt16BE(36) === 54)).tunnel, all);
  t.same(ctl.arrived.filter(isDns), []);
});

t.test("a source that is not the interface's own is refused", { skip: withoutRoot }, async (t) => {
  const { macs, puppet } = await setUp(t);
  const ctl = await puppet();
  const vif = await ctl.vif();
  ctl.send(vif.down, ethernetTo(macs, udpPacket({ ...US, address: '10.9.0.77' }, NODE, Buffer.from('x'))));
  await until(() => ctl.refused.length > 0);
  t.same(ctl.refused, ['sequence=1 errno=13']);
});

t.test('a vif needs its right, and its rules need it', { skip: withoutRoot }, async (t) => {
  const { lab, puppet } = await setUp(t);
  const ctl = await puppet();
  const vif = await ctl.vif();
  await t.rejects(ctl.rule(vif.down + 1, 'udp:53'), { code: 'no-such-vif' });
  await ctl.rule(vif.down, 'udp:53');
  await lab.permit('  - { control: ctl2, interface: eth0, rights: [read, write], protocols: ["*"] }');
  await until(() => ctl.withdrawn.length === 2);
  await t.rejects(ctl.vif(), { code: 'not-permitted' });
  await t.rejects(ctl.rule(vif.down, 'udp:54'), { code: 'not-permitted' });
});

t.test('RST is what the forwarder would have said', { skip: withoutRoot }, async (t) => {
  const { lab, puppet } = await setUp(t);
  const ctl = await puppet();
  const vif = await ctl.vif();
  const all = await ctl.rule(vif.down, 'arp');
  t.ok(all > 0);
  const refused = await shell(`${lab.node.prefix.join(' ')} bash -c 'echo > /dev/tcp/10.9.0.1/8081'`);
  t.match(refused.stderr, /refused/, 'a port that no socket has stays with the host');
  t.same(ctl.arrived.filter(has(RST)), []);
});

t.test(
  'a tun has packets without a link layer, and its way goes by routes and neighbours',
  { skip: withoutRoot },
  async (t) => {
    const { lab, puppet } = await setUp(t);
    await listen(lab, t);
    const ctl = await puppet();
    const vif = await ctl.vif('tun');
    const packetOf = ({ frame }: Arrived): SeenTcp | null => readTcp(frame);
    ctl.send(vif.down, tcpPacket(US, NODE, { flags: SYN, sequence: 100 }));
    const answer = await ctl.next((one) => packetOf(one)?.flags === (SYN | ACK));
    t.equal(answer.tunnel, vif.up);
    t.equal(answer.offload[0], 1, 'its checksum is not finished');
    t.equal(answer.offload.readUInt16LE(6), 20, 'and begins where the packet says');
    lab.node.run('ip addr add 10.77.0.1/32 dev n0');
    lab.fwd.run('ip route add 10.77.0.0/16 via 10.9.0.2 dev eth0');
    const behind = { address: '10.77.0.1', port: 81 };
    ctl.send(vif.down, tcpPacket(US, behind, { flags: SYN }));
    const reset = await ctl.next((one) => ((packetOf(one)?.flags ?? 0) & RST) !== 0);
    t.equal(packetOf(reset)?.from.address, '10.77.0.1');
    ctl.send(vif.down, tcpPacket(US, { ...behind, address: '10.9.0.99' }, { flags: SYN }));
    await until(async () => (await lab.counter('drop_tx_no_neighbour')) === 1);
    const all = await ctl.rule(vif.down, '*');
    lab.node.run('ip neigh flush dev n0');
    lab.node.run('bash -c echo>/dev/udp/10.9.0.1/54');
    const datagram = await ctl.next(({ tunnel }) => tunnel === all);
    t.equal(datagram.frame[9], 17, 'the ARP request before it does not go up');
  },
);
