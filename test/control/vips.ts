/** src/control/vips.ts, vip.ts and vip-kernel.ts: virtual IP addresses in network namespaces, with a forwarder made by hand. */
import t from 'tap';
import { FwdfsError } from '../../src/base/errors.js';
import { vipRequest } from '../../src/control/vip-commands.js';
import { listEntries } from '../../src/sys/conntrack.js';
import { eventually } from '../support/fake-forwarder.js';
import { everything } from '../support/mirror.js';
import { withoutRoot } from '../support/netns.js';
import { until } from '../support/lab.js';
import { SocketProcess } from '../support/sockets.js';
import { VipControlLab } from '../support/vip-control-lab.js';

const options = { skip: withoutRoot };

const SERVE = `
import threading
def serve(s, say):
    def run():
        while True:
            try: c, peer = s.accept()
            except OSError: return
            c.sendall((say + ' ' + peer[0]).encode()); c.close()
    threading.Thread(target=run, daemon=True).start()
    return s
def echo(s):
    def run():
        while True:
            try: data, peer = s.recvfrom(60000)
            except OSError: return
            s.sendto(data, peer)
    threading.Thread(target=run, daemon=True).start()
    return s
def stop(s): s.shutdown(SHUT_RDWR) if s.type == SOCK_STREAM else None; s.close()`;
const ASK = `
def tcp(address, port, seconds=5):
    with create_connection((address, port), seconds) as c: return c.recv(100).decode()
def udp(address, port, size=5, seconds=5):
    with socket(AF_INET6 if ':' in address else AF_INET, SOCK_DGRAM) as s:
        s.settimeout(seconds); s.connect((address, port)); s.send(b'x' * size)
        return len(s.recv(60000))`;

/** Defines functions of several lines. */
async function define({ server, user }: VipControlLab): Promise<void> {
  await server.run(`exec(${JSON.stringify(SERVE)}, globals())`);
  await user.run(`exec(${JSON.stringify(ASK)}, globals())`);
}

async function setUp(t: Parameters<typeof VipControlLab.start>[0]): Promise<VipControlLab> {
  const lab = await VipControlLab.start(t);
  await define(lab);
  return lab;
}

t.test(
  'what listens at it, or at any address, is reached by unmodified clients, whose address it sees',
  options,
  async (t) => {
    const lab = await setUp(t);
    const { server, user } = lab;
    // Without one a UDP server that is bound to any address could not answer clients off its links at all.
    for (const line of [
      'link add d0 type veth peer name d1',
      'addr add 192.0.2.9/24 dev d0',
      'link set d0 up',
      'link set d1 up',
    ]) {
      lab.ctl.run(`ip ${line}`);
    }
    lab.ctl.run('ip route add default via 192.0.2.1');
    lab.ctl.run('sysctl -qw net.ipv4.conf.all.rp_filter=1');
    await lab.add('10.9.0.1');
    await lab.add('fd09:0::1');
    await server.run("a = serve(listening(AF_INET, ('0.0.0.0', 80)), 'any')");
    await server.run("b = serve(listening(AF_INET, ('10.9.0.1', 81)), 'bound')");
    await server.run("c = serve(listening(AF_INET6, ('fd09::1', 80)), 'six')");
    await server.run("d = echo(bound(AF_INET, SOCK_DGRAM, ('0.0.0.0', 53)))");
    await server.run("e = echo(bound(AF_INET6, SOCK_DGRAM, ('::', 54)))");
    await eventually(() => lab.rules.filter((rule) => rule.endsWith(' active')).length === 6);
    t.same(lab.rules, [
      'tcp:10.9.0.1:80 active',
      'tcp:10.9.0.1:81 active',
      'udp:10.9.0.1:53 active',
      'udp:10.9.0.1:54 active',
      'tcp:[fd09::1]:80 active',
      'udp:[fd09::1]:54 active',
    ]);
    t.equal(await user.run("tcp('10.9.0.1', 80)"), 'any 10.9.0.2');
    t.equal(await user.run("tcp('10.9.0.1', 81)"), 'bound 10.9.0.2');
    t.equal(await user.run("tcp('fd09::1', 80)"), 'six fd09::2');
    t.equal(await user.run("udp('10.9.0.1', 53)"), '5');
    t.equal(await user.run("udp('10.9.0.1', 53, 4000)"), '4000', 'in fragments');
    t.equal(await user.run("udp('10.9.0.1', 54)"), '5', 'an IPv6 socket for both families');
    t.equal(await user.run("udp('fd09::1', 54, 4000)"), '4000');
  },
);

t.test(
  'two addresses with one port, and a service of the control device at that port, stay apart',
  options,
  async (t) => {
    const lab = await setUp(t);
    const { server, user } = lab;
    await server.run("own = serve(listening(AF_INET, ('10.8.0.2', 80)), 'own')");
    await lab.add('10.9.0.1');
    await lab.add('10.9.0.7');
    await server.run("one = serve(listening(AF_INET, ('10.9.0.1', 80)), 'one')");
    await server.run("seven = serve(listening(AF_INET, ('10.9.0.7', 80)), 'seven')");
    await eventually(() => lab.rules.filter((rule) => rule.endsWith(' active')).length === 2);
    t.equal(await user.run("tcp('10.9.0.1', 80)"), 'one 10.9.0.2');
    t.equal(await user.run("tcp('10.9.0.7', 80)"), 'seven 10.9.0.2');
    const near = await SocketProcess.start(lab.fwd);
    t.equal(await near.run("create_connection(('10.8.0.2', 80), 5).recv(100)"), "b'own 10.8.0.1'");
    await near.kill();
    t.same([...lab.rules].sort(), ['tcp:10.9.0.1:80 active', 'tcp:10.9.0.7:80 active'], 'the own one is not published');
  },
);

t.test('what a socket at it sends first leaves with it as its source', options, async (t) => {
  const lab = await setUp(t);
  await lab.add('10.9.0.1');
  await lab.user.run("l = listening(AF_INET, ('10.9.0.2', 99))");
  await lab.server.run('c = socket(); c.settimeout(5)');
  await lab.server.run("c.bind(('10.9.0.1', 5555))");
  await lab.server.run("c.connect(('10.9.0.2', 99))");
  t.equal(await lab.user.run('l.accept()[1]'), "('10.9.0.1', 5555)");
});

t.test('the tables are what the kernel says, and follow the sockets', options, async (t) => {
  const lab = await setUp(t);
  await lab.add('10.9.0.1', { sender: '10.8.0.77' });
  t.same(await lab.vips.transmissionRows(), [['10.9.0.1', '10.8.0.77']]);
  t.same(await lab.vips.receptionRows(), []);
  await lab.server.run("a = listening(AF_INET, ('10.9.0.1', 80))");
  await lab.server.run("b = bound(AF_INET, SOCK_DGRAM, ('10.9.0.1', 53))");
  await until(async () => (await lab.vips.receptionRows()).length === 2);
  t.same((await lab.vips.receptionRows()).sort(), [
    ['10.8.0.77', 'tcp', '80', '10.9.0.1'],
    ['10.8.0.77', 'udp', '53', '10.9.0.1'],
  ]);
  await lab.server.run('a.close()');
  await until(async () => (await lab.vips.receptionRows()).length === 1);
  await eventually(() => [...lab.forwarder.rules.values()].length === 1);
  t.same(lab.vips.rows(), [['10.9.0.1', 'fwd1/eth0', '10.8.0.77', 'f0', 'active', '1', '-']]);
  lab.ctl.run('nft flush map inet fwdfs_ctl1/vip/10.9.0.1 reception');
  t.same(await lab.vips.receptionRows(), []);
});

t.test('sockets that were open before are published only if they are named', options, async (t) => {
  const lab = await setUp(t);
  await lab.server.run("a = serve(listening(AF_INET, ('0.0.0.0', 22)), 'ssh')");
  await lab.server.run("b = serve(listening(AF_INET, ('0.0.0.0', 80)), 'web')");
  await lab.add('10.9.0.1');
  t.same(lab.rules, []);
  await lab.remove('10.9.0.1');
  await lab.add('10.9.0.1', { expose: 'tcp:80' });
  t.same(lab.rules, ['tcp:10.9.0.1:80 active']);
  await lab.server.run("c = listening(AF_INET, ('0.0.0.0', 81))");
  await eventually(() => lab.rules.length === 2);
  t.match(lab.vips.ruleRows()[1], ['10.9.0.1', 'tcp:10.9.0.1:81', 'refused', '1', /--expose does not name/]);
  t.equal(await lab.user.run("tcp('10.9.0.1', 80)"), 'web 10.9.0.2');
});

t.test('only what the forwarder sends is taken, and only converted', options, async (t) => {
  const lab = await setUp(t);
  await lab.add('10.9.0.1', { sender: '10.8.0.77' });
  await lab.server.run("a = serve(listening(AF_INET, ('0.0.0.0', 80)), 'any')");
  await eventually(() => lab.rules.join() === 'tcp:10.9.0.1:80 active');
  const tryIt = (address: string): Promise<string> =>
    lab.user.run(`tcp('${address}', 80, 1)`).catch((error: unknown) => String(error));
  // From here on the client is another host on the link between the devices: a stranger.
  lab.fwd.run('ip link add name br0 type bridge');
  lab.fwd.run('ip link set br0 address 02:00:00:00:00:77');
  lab.fwd.run('ip link set c0 master br0');
  lab.fwd.run('ip link set eth0 master br0');
  lab.fwd.run('ip link set br0 up');
  lab.client.run('ip addr flush dev n0');
  lab.client.run('ip addr add 10.8.0.9/24 dev n0');
  lab.client.run('ip route add 10.9.0.1 via 10.8.0.2');
  lab.client.run('ip route add 10.8.0.77 via 10.8.0.2');
  t.equal(await lab.user.run("tcp('10.8.0.2', 80)"), 'any 10.8.0.9', 'an address of the control device itself');
  t.match(await tryIt('10.8.0.77'), /timed out|timeout/, 'the sender address, from a stranger');
  t.match(await tryIt('10.9.0.1'), /timed out|timeout/, 'the address itself, not converted');
  t.equal(await lab.server.run("create_connection(('10.9.0.1', 80), 2).recv(9)"), "b'any 10.9.'", 'by lo');
});

t.test('ARP for it is neither answered nor sent', options, async (t) => {
  const lab = await setUp(t);
  await lab.add('10.9.0.1');
  await lab.server.run("a = serve(listening(AF_INET, ('10.9.0.1', 80)), 'one')");
  await eventually(() => lab.rules.join() === 'tcp:10.9.0.1:80 active');
  await lab.server.run('import subprocess');
  lab.ctl.run('ip neigh flush dev f0');
  await lab.server.run(
    "p = subprocess.Popen(['tcpdump', '-c3', '-lnni', 'f0', 'arp'], stdout=subprocess.PIPE, stderr=subprocess.PIPE)",
  );
  await lab.server.run('p.stderr.readline() and p.stderr.readline()');
  // Its answer has to ask for the next hop.
  lab.ctl.run('ip neigh flush dev f0');
  t.equal(await lab.user.run("tcp('10.9.0.1', 80)"), 'one 10.9.0.2');
  t.throws(() => lab.fwd.run('arping -q -c1 -w1 -I c0 10.9.0.1'));
  lab.fwd.run('arping -q -c1 -w1 -I c0 10.8.0.2');
  await lab.server.run('p.kill()');
  const seen = await lab.server.run('p.stdout.read().decode()');
  t.match(seen, /who-has 10\.8\.0\.1 tell 10\.8\.0\.2/);
  t.notMatch(seen, /tell 10\.9\.0\.1|10\.9\.0\.1 is-at/);
});

t.test('removing it leaves nothing', options, async (t) => {
  const lab = await setUp(t);
  const was = everything(lab.ctl);
  await lab.add('10.9.0.1');
  await lab.add('fd09::1');
  t.not(everything(lab.ctl), was);
  await lab.remove('10.9.0.1');
  await lab.remove('fd09::1');
  t.equal(everything(lab.ctl), was);
  t.equal(lab.forwarder.conversions.size, 0);
  await t.rejects(lab.remove('10.9.0.1'), { code: 'no-such-vip' });
  await lab.add('10.9.0.1');
  await lab.vips.close();
  t.equal(everything(lab.ctl), was);
});

t.test('nothing that was converted is remembered when it is gone', options, async (t) => {
  const lab = await setUp(t);
  await lab.add('10.9.0.1');
  await lab.server.run("a = serve(listening(AF_INET, ('0.0.0.0', 80)), 'any')");
  await eventually(() => lab.rules.includes('tcp:10.9.0.1:80 active'));
  t.equal(await lab.user.run("tcp('10.9.0.1', 80)"), 'any 10.9.0.2');
  const remembered = (): Promise<number> =>
    lab.ctl.within(async () => (await listEntries('reply', Buffer.from([10, 9, 0, 1]))).length);
  t.equal(await remembered(), 1);
  await lab.remove('10.9.0.1');
  t.equal(await remembered(), 0, 'or a client that uses its port again would not get through to a virtual IF');
});

t.test('a sender address that another control device has is left to it', options, async (t) => {
  const lab = await setUp(t);
  const taken: string[] = [];
  const { forwarder } = lab;
  const convert = forwarder.onConversion;
  forwarder.onConversion = (fields) => {
    if (taken.length === 2) {
      convert(fields);
      return;
    }
    taken.push(fields.sender);
    throw new FwdfsError('address-in-use', fields.sender);
  };
  await lab.add('10.9.0.1');
  const sender = lab.vips.rows()[0]?.[2] ?? '';
  t.match(sender, /^169\.254\./);
  t.notOk(taken.includes(sender));
  taken.length = 0;
  await t.rejects(lab.add('10.9.0.7', { sender: '10.8.0.78' }), { code: 'address-in-use' });
  await t.rejects(lab.add('10.9.0.7', { sender }), { code: 'address-in-use' });
});

t.test('what can not be is refused, and leaves nothing', options, async (t) => {
  const lab = await setUp(t);
  const was = everything(lab.ctl);
  await t.rejects(lab.add('10.8.0.1'), { code: 'mirrors-link' });
  await t.rejects(lab.add('10.8.0.2'), { code: 'already-there' });
  lab.forwarder.refusals.set('address-conversion-request', 'not-permitted');
  await t.rejects(lab.add('10.9.0.1'), { code: 'not-permitted' });
  lab.forwarder.refusals.clear();
  lab.forwarder.place = () => ({ nextHop: '10.8.0.1; drop', link: '02:00:00:00:00:01' });
  await t.rejects(lab.add('10.9.0.1'), { code: 'bad-message' });
  t.equal(everything(lab.ctl), was);
  t.same(lab.vips.rows(), []);
});

t.test('a new session has it again, and its rules; one that resumes has lost nothing', options, async (t) => {
  const lab = await setUp(t);
  const { forwarder } = lab;
  await lab.add('10.9.0.1');
  await lab.server.run("a = serve(listening(AF_INET, ('10.9.0.1', 80)), 'one')");
  await eventually(() => lab.rules.join() === 'tcp:10.9.0.1:80 active');
  const sender = lab.vips.rows()[0]?.[2];
  forwarder.diary.lines.length = 0;
  forwarder.cut();
  await eventually(() => forwarder.diary.lines.includes('active resumed=true'));
  await eventually(() => lab.rules.join() === 'tcp:10.9.0.1:80 active');
  forwarder.cutAndForget();
  await eventually(() => lab.vips.rows()[0]?.[4] !== 'active');
  await eventually(() => lab.vips.rows()[0]?.[4] === 'active' && lab.rules.join() === 'tcp:10.9.0.1:80 active');
  t.equal(lab.vips.rows()[0]?.[2], sender);
  t.same(
    forwarder.diary.lines.filter((line) => /^(address|transfer)/.test(line)),
    [`address-conversion-request 10.9.0.1 ${sender ?? ''}`, 'transfer-request vip:10.9.0.1 tcp:10.9.0.1:80'],
  );
  t.equal(await lab.user.run("tcp('10.9.0.1', 80)"), 'one 10.9.0.2');
});

t.test('one that is withdrawn says why, and comes back with the right', options, async (t) => {
  const lab = await setUp(t);
  const { forwarder } = lab;
  await lab.add('10.9.0.1');
  await lab.server.run("a = serve(listening(AF_INET, ('10.9.0.1', 80)), 'one')");
  await eventually(() => lab.rules.join() === 'tcp:10.9.0.1:80 active');
  forwarder.refusals.set('address-conversion-request', 'not-permitted');
  forwarder.session.send('address-conversion-withdrawal', { vip: '10.9.0.1', reason: 'the permissions were changed' });
  await eventually(() => lab.vips.rows()[0]?.[4] === 'withdrawn');
  t.match(lab.vips.rows()[0]?.[6], /the permissions were changed/);
  t.match(lab.vips.ruleRows(), [['10.9.0.1', 'tcp:10.9.0.1:80', 'refused', '1', /the permissions were changed/]]);
  forwarder.sendAgain();
  await eventually(() => /refused/.test(lab.vips.rows()[0]?.[6] ?? ''));
  forwarder.refusals.clear();
  forwarder.sendAgain();
  await eventually(() => lab.vips.rows()[0]?.[4] === 'active' && lab.rules.join() === 'tcp:10.9.0.1:80 active');
  t.equal(lab.vips.rows()[0]?.[6], '-');
});

t.test('its route comes back with the link', options, async (t) => {
  const lab = await setUp(t);
  await lab.add('10.9.0.1');
  await lab.server.run("a = serve(listening(AF_INET, ('10.9.0.1', 80)), 'one')");
  await eventually(() => lab.rules.join() === 'tcp:10.9.0.1:80 active');
  const routes = (): string => lab.ctl.run('ip route show table 7431000');
  const was = routes();
  t.match(was, /^default via 10\.8\.0\.1 dev f0 proto 110 onlink/);
  lab.ctl.run('ip link set f0 down');
  t.equal(routes(), '');
  lab.ctl.run('ip link set f0 up');
  await until(() => routes() === was);
  t.equal(await lab.user.run("tcp('10.9.0.1', 80)"), 'one 10.9.0.2');
});

t.test(
  'one of the configuration is added when its forwarder can be had, and says once why not yet',
  options,
  async (t) => {
    const lab = await setUp(t);
    lab.forwarder.refusals.set('address-conversion-request', 'not-permitted');
    lab.vips.configure(lab.end.link, vipRequest('10.9.0.1', null, null));
    const told = (): number => lab.log.lines.filter(({ message }) => /not added yet/.test(message)).length;
    await eventually(() => told() === 1);
    lab.forwarder.sendAgain();
    await eventually(() => lab.forwarder.diary.lines.filter((line) => /^address.*refused$/.test(line)).length >= 2);
    lab.forwarder.refusals.clear();
    lab.forwarder.sendAgain();
    await eventually(() => lab.vips.rows()[0]?.[4] === 'active');
    t.equal(told(), 1);
  },
);

t.test('tables that somebody flushed are made anew with the next port', options, async (t) => {
  const lab = await setUp(t);
  const { server, user } = lab;
  await lab.add('10.9.0.1');
  await server.run("a = serve(listening(AF_INET, ('10.9.0.1', 80)), 'first')");
  await eventually(() => lab.rules.filter((rule) => rule.endsWith(' active')).length === 1);
  lab.ctl.run('nft flush ruleset');
  await server.run("b = serve(listening(AF_INET, ('10.9.0.1', 81)), 'second')");
  await eventually(() => lab.rules.filter((rule) => rule.endsWith(' active')).length === 2);
  await until(() => lab.ctl.run('nft list ruleset').includes('chain transmitted'));
  t.equal(await user.run("tcp('10.9.0.1', 80)"), 'first 10.9.0.2');
  t.equal(await user.run("tcp('10.9.0.1', 81)"), 'second 10.9.0.2');
});
