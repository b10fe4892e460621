/** src/control/forwarder-directory.ts: the names of a forwarder and the texts behind them. */
import t from 'tap';
import { ForwarderDirectory } from '../../src/control/forwarder-directory.js';
import type { DirectoryNode, FileNode, Node, OpenFile } from '../../src/fusefs/tree.js';
import { O } from '../../src/sys/libc.js';
import { commandsOf } from '../support/commands.js';
import { FakeForwarder, startLink, startPair } from '../support/fake-forwarder.js';

const request = (flags: number): { flags: number; pid: number; uid: number; gid: number; wake: () => void } => ({
  flags,
  pid: 1,
  uid: 0,
  gid: 0,
  wake: () => undefined,
});

/** The node of a path below a directory. */
function at(root: DirectoryNode, path: string): Node {
  return path.split('/').reduce<Node>((node, name) => {
    if (node.kind !== 'directory') throw new Error(`${path} leads through a file`);
    return node.lookup(name);
  }, root);
}

const open = (root: DirectoryNode, path: string, flags: number): Promise<OpenFile> =>
  Promise.resolve((at(root, path) as FileNode).open(request(flags)));

/** A text file's text. */
async function text(root: DirectoryNode, path: string): Promise<string> {
  const file = await open(root, path, O.RDONLY);
  const out = Buffer.alloc(10_000);
  const count = file.read(out, 0, out.length, 0);
  file.release();
  return out.toString('utf8', 0, count);
}

const names = (directory: DirectoryNode): string[] =>
  directory
    .list()
    .map(({ name }) => name)
    .sort();

const FIXED = ['.ctl', '.if', '.state', '.tables'];

t.test('interfaces are listed; a valid name is listed while it is open', async (t) => {
  const { link } = await startPair(t);
  const root = new ForwarderDirectory(link, commandsOf(link));
  t.same(names(root), [...FIXED, 'eth0']);
  const files = [await open(root, 'eth0:udp:520.pcap', O.RDONLY), await open(root, 'eth0:udp:520.pcap', O.RDONLY)];
  t.same(names(root), [...FIXED, 'eth0', 'eth0:udp:520.pcap']);
  files[0]!.release();
  t.same(names(root).length, 6, 'one is left');
  files[1]!.release();
  t.same(names(root), [...FIXED, 'eth0']);
  for (const { name, ino, directory } of root.list()) {
    const node = root.lookup(name);
    t.same([node.ino, node.kind === 'directory'], [ino, directory], name);
  }
});

t.test('interfaces with names of ours are listed once, and can be opened by another spelling', async (t) => {
  const forwarder = await FakeForwarder.start(t);
  forwarder.interfaces = ['.state', 'x', 'x.pcap'];
  const { link } = startLink(t, forwarder.url);
  await link.settled;
  const root = new ForwarderDirectory(link, commandsOf(link));
  t.same(names(root), [...FIXED, 'x', 'x.pcap']);
  t.match(await text(root, '.state'), /^state\tconnected\n/);
  const cases: [name: string, rule: string][] = [
    ['x.pcap', 'x.pcap'],
    ['x', 'x'],
    ['x.pcap.pcap', 'x.pcap'],
    ['x:raw.pcap', 'x:raw'],
    ['x.pcap:raw', 'x.pcap:raw'],
    ['.state.pcap', '.state'],
    ['.state:raw', '.state:raw'],
  ];
  for (const [name, rule] of cases) {
    const file = await open(root, name, O.RDONLY);
    t.same([...forwarder.rules.values()], [rule.replace(':raw', '')], name);
    file.release();
    await forwarder.diary.until(`transfer-deletion-request ${rule.replace(':raw', '')}`);
    forwarder.diary.lines.length = 0;
  }
});

t.test('a name that cannot be opened says why', async (t) => {
  const { link } = await startPair(t);
  const root = new ForwarderDirectory(link, commandsOf(link));
  const cases: [path: string, code: string][] = [
    ['eth9', 'no-such-interface'],
    ['.git', 'no-such-interface'],
    ['eth0:udp:99999', 'bad-protocol-address'],
    ['eth0:blue', 'bad-symbol-name'],
    ['.tables/none', 'no-such-name'],
    ['.if/eth9', 'no-such-interface'],
    ['.if/eth0/none', 'no-such-name'],
    ['.if/eth0/statistics/none', 'no-such-name'],
  ];
  for (const [path, code] of cases) t.throws(() => at(root, path), { code }, path);
});

t.test('attributes are one value a file, and follow their changes', async (t) => {
  const { link, forwarder } = await startPair(t);
  const root = new ForwarderDirectory(link, commandsOf(link));
  t.same(names(at(root, '.if') as DirectoryNode), ['eth0']);
  const cases: [file: string, text: string][] = [
    ['address', '02:00:00:00:00:01\n'],
    ['flags', '0x1003\n'],
    ['ifindex', '2\n'],
    ['inet', '10.0.0.1/24\n10.0.1.1/24\n'],
    ['inet6', ''],
    ['linktype', '1\n'],
    ['mtu', '1500\n'],
    ['operstate', 'up\n'],
    ['speed', '1000\n'],
  ];
  for (const [file, expected] of cases) t.equal(await text(root, `.if/eth0/${file}`), expected, file);
  t.same(
    names(at(root, '.if/eth0') as DirectoryNode),
    [...cases.map(([file]) => file), 'statistics'].sort(),
    'and nothing else',
  );
  const attributes = { ...link.interfaceOf('eth0').attributes!, mtu: 9000 };
  forwarder.session.send('interface-attribute-change', { interface: 'eth0', attributes, rights: [], protocols: [] });
  await link.tables.read('distribution');
  t.equal(await text(root, '.if/eth0/mtu'), '9000\n');
  t.equal((root.lookup('eth0') as FileNode).mode, 0, 'the mode bits mirror the rights of now');
});

t.test('statistics add up what the forwarder and this device count', async (t) => {
  const { link } = await startPair(t);
  const root = new ForwarderDirectory(link, commandsOf(link));
  t.equal(await text(root, '.if/eth0/statistics/rx_packets'), '7\n');
  t.equal(await text(root, '.if/eth0/statistics/drop_reader_slow'), '0\n');
  link.interfaceOf('eth0').counters.add(0, 5);
  t.equal(await text(root, '.if/eth0/statistics/forwarder_rx_frames'), '5\n');
});

t.test("the forwarder's tables are its own, as text", async (t) => {
  const { link, forwarder } = await startPair(t);
  const root = new ForwarderDirectory(link, commandsOf(link));
  t.same(names(at(root, '.tables') as DirectoryNode), [
    'distribution',
    'flow',
    'permission',
    'reception',
    'vip_distribution',
    'vip_reception',
  ]);
  t.equal(await text(root, '.tables/distribution'), 'one\n');
  const file = await open(root, 'eth0', O.RDONLY);
  t.equal(await text(root, '.tables/distribution'), 'one\n1\n');
  file.release();
  forwarder.refusals.set('table-request', 'too-many');
  await t.rejects(text(root, '.tables/reception'), { code: 'too-many' });
});

t.test('.ctl carries out commands', async (t) => {
  const { link, forwarder } = await startPair(t);
  const root = new ForwarderDirectory(link, commandsOf(link));
  const ctl = await open(root, '.ctl', O.WRONLY);
  const line = Buffer.from('rule add eth0:arp\n');
  t.equal(ctl.write(line, 0, line.length, 0), line.length);
  await ctl.sync('write');
  t.same([...forwarder.rules.values()], ['eth0:arp']);
  const bad = Buffer.from('rule blue\n');
  ctl.write(bad, 0, bad.length, 0);
  await t.rejects(ctl.sync('write'), { code: 'bad-command' });
  ctl.release();
});

t.test('.state tells all about the connection', async (t) => {
  const { link, forwarder } = await startPair(t);
  const root = new ForwarderDirectory(link, commandsOf(link));
  const state = await text(root, '.state');
  t.match(
    state,
    /^state\tconnected\nsince\t20\d\d-.*Z\nforwarder\tfwd1\naddress\t127.0.0.1\nround_trip_ms\t[\d.]+\nversion\t1\nresumed\t0\ndraining\t-\nlast_error\t-\n$/,
  );
  await forwarder.server.close('going home');
  await link.tables.read('distribution').catch(() => undefined);
  while (link.isConnected) await new Promise((resolve) => setImmediate(resolve));
  t.match(await text(root, '.state'), /^state\tnot connected\n(.*\n)*last_error\t.*going home/);
});

t.test('a forwarder that was never reached has its names, and what is in it answers ENETDOWN', async (t) => {
  const { link } = startLink(t, 'ws://127.0.0.1:1');
  await link.settled;
  const root = new ForwarderDirectory(link, commandsOf(link));
  t.same(names(root), FIXED);
  t.same(names(at(root, '.if') as DirectoryNode), []);
  const symbol = root.lookup('eth0:udp:520') as FileNode;
  t.equal(symbol.mode, 0);
  await t.rejects(Promise.resolve(symbol.open(request(O.RDONLY))), { code: 'not-connected' });
  t.throws(() => root.lookup('eth0:udp:99999'), { code: 'bad-protocol-address' }, 'a bad name is bad also now');
  t.throws(() => at(root, '.if/eth0'), { code: 'not-connected' });
  await t.rejects(text(root, '.tables/distribution'), { code: 'not-connected' });
  t.match(await text(root, '.state'), /^state\tnot connected\n(.*\n)*last_error\t[^-]/);
});

t.test('an interface that may not be used is there, and its attributes say EACCES', async (t) => {
  const forwarder = await FakeForwarder.start(t);
  forwarder.refusals.set('interface-use-request', 'not-permitted');
  const { link } = startLink(t, forwarder.url);
  await link.settled;
  const root = new ForwarderDirectory(link, commandsOf(link));
  t.equal((root.lookup('eth0') as FileNode).mode, 0);
  await t.rejects(text(root, '.if/eth0/mtu'), { code: 'not-permitted' });
});
