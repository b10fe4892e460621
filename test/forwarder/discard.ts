/*
 *      namespace "host"                       namespace "peer"
 *   +--------------------+   veth pair     +--------------------+
 *   | eth0 10.0.0.1/24   |-----------------| eth0 10.0.0.2/24   |
 *   |      2001:db8::1   |   Discard on    |      2001:db8::2   |
 *   +--------------------+   host's eth0   +--------------------+
 */
import t from 'tap';
import { connect as connectTo, createServer } from 'node:net';
import type { Server } from 'node:net';
import { once } from 'node:events';
import { Discard, discardRuleset, tableName } from '../../src/forwarder/discard.js';
import type { DiscardInterface } from '../../src/forwarder/discard.js';
import { parseProtocolAddress } from '../../src/packet/protocol-address.js';
import { must, O, sys } from '../../src/sys/libc.js';
import { applyRuleset, listTables } from '../../src/sys/nftables.js';
import { connectVeth, Netns, withoutRoot } from '../support/netns.js';

/** How long an answer may take before it counts as none. */
const SILENCE_MS = 300;

const protocols = (...texts: string[]): DiscardInterface['host'] =>
  texts.map((text) => parseProtocolAddress(text, { ranges: true }));

const eth0 = (...host: string[]): DiscardInterface[] => [
  { name: 'eth0', unmatched: 'discard', host: protocols(...host) },
];

interface Pair {
  readonly host: Netns;
  readonly peer: Netns;
  /** With its nft commands in the host's namespace. */
  readonly discard: Discard;
}

async function setUp(t: { teardown: (undo: () => void) => void }, listen: string[] = []): Promise<Pair> {
  const host = new Netns('dh');
  const peer = new Netns('dp');
  t.teardown(() => peer.remove());
  t.teardown(() => host.remove());
  connectVeth(
    { netns: host, name: 'eth0', addresses: ['10.0.0.1/24', '2001:db8::1/64'] },
    { netns: peer, name: 'eth0', addresses: ['10.0.0.2/24', '2001:db8::2/64'] },
  );
  const leave = host.enter();
  t.teardown(leave);
  return { host, peer, discard: new Discard('fwd1', protocols(...listen)) };
}

/** IPv6 takes up to a second to see that the link is up; what the neighbours learned meanwhile is forgotten again. */
function waitForIpv6({ host, peer }: Pair): void {
  host.run('ping -c 1 -i 0.1 -w 10 2001:db8::2');
  for (const one of [host, peer]) one.run('ip neigh flush dev eth0');
}

function pings(from: Netns, address: string): boolean {
  try {
    from.run(`ping -c 1 -W ${SILENCE_MS / 1000} ${address}`);
    return true;
  } catch {
    return false;
  }
}

/** What a TCP connection meets: a listener, a RST, or nothing. */
function connect(from: Netns, host: string, port: number): Promise<'open' | 'refused' | 'silent'> {
  return from.within(
    () =>
      new Promise((resolve) => {
        const socket = connectTo({ host, port });
        const end = (result: 'open' | 'refused' | 'silent'): void => {
          clearTimeout(timer);
          socket.destroy();
          resolve(result);
        };
        const timer = setTimeout(() => end('silent'), SILENCE_MS);
        socket.once('connect', () => end('open'));
        socket.once('error', () => end('refused'));
      }),
  );
}

/** A server that says hello, in a namespace; clients may reset it. */
async function serve(
  t: { teardown: (undo: () => void) => void },
  at: Netns,
  host: string,
  port: number,
): Promise<Server> {
  const server = createServer((socket) => void socket.on('error', () => undefined).end('hello'));
  await at.within(() => once(server.listen(port, host), 'listening'));
  t.teardown(() => void server.close());
  return server;
}

t.test(
  'pings are discarded, and answered once host lists icmp, for IPv4 and IPv6',
  { skip: withoutRoot },
  async (t) => {
    const pair = await setUp(t);
    const { peer, discard } = pair;
    waitForIpv6(pair);
    t.equal(pings(peer, '10.0.0.1'), true);
    await discard.apply(eth0());
    t.equal(pings(peer, '10.0.0.1'), false);
    t.equal(pings(peer, '2001:db8::1'), false);
    t.match(peer.run('ip -6 neigh show 2001:db8::1 dev eth0'), /lladdr/, 'neighbour discovery works all the same');
    await discard.apply(eth0('icmp'));
    t.equal(pings(peer, '10.0.0.1'), true);
    t.equal(pings(peer, '2001:db8::1'), true);
    await discard.apply(eth0('icmp6'));
    t.equal(pings(peer, '10.0.0.1'), false);
    t.equal(pings(peer, '2001:db8::1'), true);
  },
);

t.test('the host keeps its own pings', { skip: withoutRoot }, async (t) => {
  const pair = await setUp(t);
  const { host, discard } = pair;
  waitForIpv6(pair);
  await discard.apply(eth0());
  t.equal(pings(host, '10.0.0.2'), true);
  t.equal(pings(host, '2001:db8::2'), true);
  t.equal(pings(host, '127.0.0.1'), true, 'other interfaces are not concerned');
});

t.test('a listed port is answered by RST or listener, other ports by nothing', { skip: withoutRoot }, async (t) => {
  const pair = await setUp(t, ['tcp:7440']);
  const { host, peer, discard } = pair;
  waitForIpv6(pair);
  t.equal(await connect(peer, '10.0.0.1', 23), 'refused');
  await discard.apply(eth0('tcp:22', 'tcp:[2001:db8::1]:80', 'tcp:1000-1002'));
  t.equal(await connect(peer, '10.0.0.1', 22), 'refused');
  await serve(t, host, '10.0.0.1', 22);
  t.equal(await connect(peer, '10.0.0.1', 22), 'open');
  t.equal(await connect(peer, '10.0.0.1', 23), 'silent');
  t.equal(await connect(peer, '2001:db8::1', 80), 'refused');
  t.equal(await connect(peer, '10.0.0.1', 80), 'silent', 'the address was the other one');
  t.equal(await connect(peer, '10.0.0.1', 1002), 'refused');
  t.equal(await connect(peer, '10.0.0.1', 1003), 'silent');
  t.equal(await connect(peer, '10.0.0.1', 7440), 'refused', 'where the forwarder listens is always admitted');
});

t.test("the forwarder's own outgoing connections work", { skip: withoutRoot }, async (t) => {
  const pair = await setUp(t);
  const { host, peer, discard } = pair;
  waitForIpv6(pair);
  await discard.apply(eth0());
  for (const address of ['10.0.0.2', '2001:db8::2']) {
    await serve(t, peer, address, 80);
    t.equal(await connect(host, address, 80), 'open');
    t.equal(await connect(host, address, 81), 'refused', 'the RST of a closed port arrives');
  }
});

t.test('packet sockets see what is discarded', { skip: withoutRoot }, async (t) => {
  const { peer, discard } = await setUp(t);
  await discard.apply(eth0());
  const AF_PACKET = 17;
  const SOCK_DGRAM = 2;
  const ETH_P_IP_IN_NETWORK_ORDER = 0x0008;
  const fd = must('socket', sys.socket(AF_PACKET, SOCK_DGRAM | O.NONBLOCK, ETH_P_IP_IN_NETWORK_ORDER));
  t.teardown(() => void sys.close(fd));
  t.equal(pings(peer, '10.0.0.1'), false);
  const packet = Buffer.alloc(2048);
  const types: number[] = [];
  while (sys.recv(fd, packet, packet.length, 0) > 0) if (packet[9] === 1) types.push(packet[20] ?? -1);
  t.same(types, [8], 'one echo request came, no reply left');
});

t.test('unmatched: host leaves an interface alone, and no table behind', { skip: withoutRoot }, async (t) => {
  const { peer, discard } = await setUp(t);
  await discard.apply([...eth0(), { name: 'eth1', unmatched: 'host', host: [] }]);
  t.equal(pings(peer, '10.0.0.1'), false);
  await discard.apply([{ name: 'eth0', unmatched: 'host', host: [] }]);
  t.equal(pings(peer, '10.0.0.1'), true);
  t.same(await listTables(), []);
});

t.test('tables of others stay as they are', { skip: withoutRoot }, async (t) => {
  const { host, peer, discard } = await setUp(t);
  await applyRuleset(
    'table inet mine { chain input { type filter hook input priority 0; icmp type echo-request drop; }; }',
  );
  const before = host.run('nft list table inet mine');
  await discard.apply(eth0('icmp'));
  t.equal(host.run('nft list table inet mine'), before);
  t.equal(pings(peer, '10.0.0.1'), false, 'what they drop, they drop');
  await discard.remove();
  t.equal(host.run('nft list table inet mine'), before);
  t.same(await listTables(), [{ family: 'inet', name: 'mine' }]);
});

t.test('what a crash left is swept by the next start', { skip: withoutRoot }, async (t) => {
  const { host, peer, discard } = await setUp(t);
  await discard.apply(eth0());
  const next = new Discard('fwd1', []);
  await next.apply(eth0('icmp'));
  t.equal(pings(peer, '10.0.0.1'), true);
  t.equal(host.run('nft list ruleset').split('hook input').length, 2, 'one chain on the hook');
  await new Discard('fwd1', []).apply([]);
  t.same(await listTables(), []);
});

t.test('changes at the same time take effect in their order', { skip: withoutRoot }, async (t) => {
  const { host, discard } = await setUp(t);
  const failed = discard.apply([{ name: 'no"quotes', unmatched: 'discard', host: [] }]);
  const calls = [
    discard.apply(eth0('tcp:1')),
    discard.apply(eth0('tcp:2')),
    discard.remove(),
    discard.apply(eth0('tcp:3')),
  ];
  await t.rejects(failed, { code: 'bad-config' });
  await Promise.all(calls);
  const ruleset = host.run('nft list ruleset');
  t.match(ruleset, /tcp dport 3 accept/);
  t.equal(/tcp dport [12] /.test(ruleset), false);
});

t.test('each protocol address becomes the rule that admits it', async (t) => {
  const rules: [text: string, rule: string | null][] = [
    ['*', 'accept'],
    ['arp', null],
    ['ether:0x88cc', null],
    ['ether:0x0800', 'meta nfproto ipv4 accept'],
    ['ether:0x86dd', 'meta nfproto ipv6 accept'],
    ['icmp', 'meta l4proto { 1, 58 } accept'],
    ['icmp6', 'meta l4proto { 58 } accept'],
    ['ip:89', 'meta l4proto { 89 } accept'],
    ['udp', 'meta l4proto { 17 } accept'],
    ['udp:520', 'meta l4proto { 17 } th dport 520 accept'],
    ['udp:33434-33534', 'meta l4proto { 17 } th dport 33434-33534 accept'],
    ['sctp:10.0.0.1', 'ip daddr 10.0.0.1 meta l4proto { 132 } accept'],
    ['tcp:[2001:db8::1]:80', 'ip6 daddr 2001:db8::1 meta l4proto { 6 } th dport 80 accept'],
  ];
  const before = discardRuleset('t', eth0(), []).split('\n').length;
  for (const [text, rule] of rules) {
    const lines = discardRuleset('t', eth0(text), []).split('\n');
    t.equal(lines.length - before, rule === null ? 0 : 1, text);
    t.equal(lines.includes(`    ${rule}`), rule !== null, text);
  }
});

t.test('nft takes every rule that can be written', { skip: withoutRoot }, async (t) => {
  const { discard } = await setUp(t);
  const every = [
    '*',
    'icmp',
    'icmp6:[::2]',
    'ip:255',
    'ip:0',
    'udplite:1-65535',
    'sctp:10.0.0.1:7',
    'tcp:[2001:db8::1]',
  ];
  const names = ['eth0', 'eth0.100', 'a@b', 'x-y_z', "it's", '0', 'äö'];
  await discard.apply(names.map((name) => ({ name, unmatched: 'discard', host: protocols(...every) })));
  t.equal((await listTables()).length, 1);
});

t.test('a table has the name of its forwarder', async (t) => {
  t.equal(tableName('fwd1'), 'fwdfs_fwd1');
  t.equal(tableName('web-1.example_x'), 'fwdfs_web-1.example_x');
  t.equal(tableName('a b;{'), 'fwdfs_a_b__');
});

t.test('an interface name that could mean something else to nft is refused', async (t) => {
  for (const name of ['eth*', 'a"b', 'a\\b', 'a\nb']) {
    const one: DiscardInterface = { name, unmatched: 'discard', host: [] };
    t.throws(() => discardRuleset('t', [one], []), { code: 'bad-config' });
  }
});
