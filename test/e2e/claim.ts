/**
 * `:claim`: the opener is the one receiver of a protocol address, and the forwarder's kernel keeps quiet about it.
 *
 *     UDP, TCP, ping, ARP             daemons on the forwarder               ctl1: claims
 *     node n0 ===================== eth0 forwarder c0 ===================== f0 ctl2: claims too, and is refused
 *
 * That nothing answers is seen by a program that waits for an answer for a while, after it got one without the claim.
 */
import t from 'tap';
import { Lab, type Program, run, signalProcess, until } from '../support/lab.js';
import { connectVeth, type Netns, withoutRoot } from '../support/netns.js';
import {
  hexOf,
  macOf,
  numbered,
  python,
  pythonWords,
  readPcap,
  send,
  shown,
  untilTestFrames,
} from '../support/traffic.js';

const SILENCE_S = 0.4;

/** Prints what each line of stdin (protocol, address, port, source port) meets: answer, refused, silent. */
const ASKER = `
import socket, sys
for line in sys.stdin:
    kind, address, port, source = line.split()
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    s = socket.socket(family, socket.SOCK_STREAM if kind == 'tcp' else socket.SOCK_DGRAM)
    s.settimeout(${SILENCE_S})
    s.bind(('', int(source)))
    try:
        s.connect((address, int(port)))
        if kind == 'udp':
            s.send(b'question')
            s.recv(100)
        print('answer', flush=True)
    except ConnectionRefusedError: print('refused', flush=True)
    except TimeoutError: print('silent', flush=True)
    s.close()
`;
const DAEMON = `
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', int(sys.argv[1])))
print('ready', flush=True)
while True:
    data, source = s.recvfrom(100)
    print('asked', flush=True)
    s.sendto(b'answer of the daemon', source)
`;

type Met = 'answer' | 'refused' | 'silent';

/** Asks from one namespace, one question after the other. */
class Asker {
  private readonly program: Program;
  private answers = 0;

  constructor(lab: Lab, from: Netns) {
    this.program = lab.program([...from.prefix, 'python3', '-c', ASKER], null);
  }

  async ask(kind: 'udp' | 'tcp', address: string, port: number, source = 0): Promise<Met> {
    const { program } = this;
    this.answers += 1;
    program.child.stdin?.write(`${kind} ${address} ${port} ${source}\n`);
    const lines = (): string[] => program.output.toString().split('\n');
    await program.untilOutput(() => lines().length > this.answers);
    return lines()[this.answers - 1] as Met;
  }
}

async function pings(from: Netns, address: string): Promise<boolean> {
  return (await run([...from.prefix, 'ping', '-c', '1', '-W', String(SILENCE_S), address])).status === 0;
}

const ruleset = (lab: Lab): string => lab.fwd.run('nft list ruleset');

/** Ends a reader, and waits until its rule is gone and the kernel was told. */
async function close(lab: Lab, ...readers: Program[]): Promise<void> {
  for (const reader of readers) await reader.kill('SIGKILL');
  await until(async () => (await lab.table('distribution')).length === 0);
  await until(() => !ruleset(lab).includes('/claims'));
}

t.test('claims', { skip: withoutRoot, timeout: 170_000 }, async (t) => {
  const lab = await Lab.start({ controls: ['ctl1', 'ctl2'] });
  t.teardown(() => lab.stop());
  const second = await lab.addControl('ctl2');
  const { node, fwd } = lab;
  const daemon = async (port: number): Promise<Program> => {
    const program = lab.program([...fwd.prefix, 'python3', '-c', DAEMON, String(port)]);
    await program.untilOutput((output) => output.includes('ready'));
    return program;
  };
  const nodes = new Asker(lab, node);
  const forwarders = new Asker(lab, fwd);
  /** What each of these opens gives, on either control device. */
  const opened = async (mountPoint: string, ...opens: [name: string, flags: string][]): Promise<unknown> => {
    const script = opens.map(([name, flags]) => `show(tried('${name}', os.O_${flags}))`).join('\n');
    return shown(await run(pythonWords(lab, script, mountPoint)));
  };
  // IPv6 takes up to a second to see that the link is up.
  await until(() => pings(node, 'fd09::1'));

  for (const [kind, port] of [
    ['udp', 53],
    ['tcp', 80],
  ] as const) {
    await t.test(`${kind}: nobody refuses what is claimed, and the claim gets it`, async (t) => {
      t.equal(await nodes.ask(kind, '10.9.0.1', port), 'refused', 'before');
      const claim = await lab.reader(`eth0:${kind}:${port}:claim`);
      const silent: Met[] = [];
      for (const address of ['10.9.0.1', 'fd09::1']) silent.push(await nodes.ask(kind, address, port));
      t.same(silent, ['silent', 'silent']);
      await claim.untilOutput((output) => readPcap(output).length >= 2);
      t.equal(await nodes.ask(kind, '10.9.0.1', port + 1), 'refused', 'another port is not concerned');
      await close(lab, claim);
      t.equal(await nodes.ask(kind, '10.9.0.1', port), 'refused', 'after');
    });
  }

  await t.test(
    'a daemon of the forwarder gets nothing while its port is claimed, of a flow that lives neither',
    async (t) => {
      const server = await daemon(53);
      const asked = (): number => server.output.toString().split('asked').length - 1;
      t.equal(await nodes.ask('udp', '10.9.0.1', 53, 4000), 'answer');
      const before = asked();
      const claim = await lab.reader('eth0:udp:53:claim');
      t.equal(await nodes.ask('udp', '10.9.0.1', 53, 4000), 'silent', 'the flow that was there');
      t.equal(await nodes.ask('udp', '10.9.0.1', 53, 4001), 'silent', 'a new one');
      t.equal(asked(), before);
      await claim.untilOutput((output) => readPcap(output).length >= 2);
      await close(lab, claim);
      t.equal(await nodes.ask('udp', '10.9.0.1', 53, 4000), 'answer');
      await server.kill();
    },
  );

  await t.test('icmp: the forwarder answers no ping, but gets the answers to its own', async (t) => {
    t.same([await pings(node, '10.9.0.1'), await pings(node, 'fd09::1')], [true, true]);
    const claim = await lab.reader('eth0:icmp:claim');
    t.same([await pings(node, '10.9.0.1'), await pings(node, 'fd09::1')], [false, false]);
    t.same([await pings(fwd, '10.9.0.2'), await pings(fwd, 'fd09::2')], [true, true]);
    await close(lab, claim);
    t.same([await pings(node, '10.9.0.1'), await pings(node, 'fd09::1')], [true, true]);
  });

  await t.test('arp: nobody answers who has the address, until the claim is closed', async (t) => {
    const claim = await lab.reader('eth0:arp:claim');
    node.run('ip neigh flush dev n0');
    t.equal(await pings(node, '10.9.0.1'), false);
    await claim.untilOutput((output) => readPcap(output).length > 0);
    t.notMatch(node.run('ip neigh show 10.9.0.1 dev n0'), /lladdr/);
    await close(lab, claim);
    node.run('ip neigh flush dev n0');
    t.equal(await pings(node, '10.9.0.1'), true);
  });

  await t.test('*: everything but neighbour discovery, ARP and the own flows of the forwarder', async (t) => {
    const claim = await lab.reader('eth0:claim');
    node.run('ip neigh flush dev n0');
    t.same([await pings(node, '10.9.0.1'), await pings(node, 'fd09::1')], [false, false]);
    t.match(node.run('ip neigh show 10.9.0.1 dev n0'), /lladdr/);
    t.match(node.run('ip neigh show fd09::1 dev n0'), /lladdr/);
    t.equal(await nodes.ask('tcp', '10.9.0.1', 80), 'silent');
    t.same([await pings(fwd, '10.9.0.2'), await pings(fwd, 'fd09::2')], [true, true]);
    t.equal(await forwarders.ask('tcp', '10.9.0.2', 80), 'refused', 'the answer of the node arrives');
    await close(lab, claim);
  });

  await t.test(
    'a second claim that meets it is EBUSY, here and from another control device; copies get all',
    async (t) => {
      const mac = macOf(fwd, 'eth0');
      const claim = await lab.reader('eth0:ether:0x88b5:claim');
      const all = 'eth0:ether:0x88b5';
      const opens: [name: string, flags: string, result: string][] = [
        [`${all}:claim`, 'RDONLY', 'EBUSY'],
        [`${all}:raw:claim`, 'RDWR', 'EBUSY'],
        ['eth0:claim', 'RDWR', 'EBUSY'],
        ['eth0:ether:0x8100:claim', 'RDONLY', 'EBUSY'],
        ['eth0:udp:53:claim', 'RDWR', 'ok'],
        [`${all}:claim`, 'WRONLY', 'ok'],
        [`${all}:out:claim`, 'RDONLY', 'EINVAL'],
      ];
      for (const mountPoint of [lab.mountPoint, second]) {
        const results = await opened(mountPoint, ...opens.map(([name, flags]): [string, string] => [name, flags]));
        t.same(
          results,
          opens.map(([, , result]) => result),
        );
      }
      const copies = [await lab.reader('eth0:ether:0x88b5'), await lab.reader('eth0', second)];
      await send(node, 'n0', numbered(3, 100, mac));
      for (const reader of [claim, ...copies]) {
        t.same(hexOf(await untilTestFrames(reader, 3)), hexOf(numbered(3, 100, mac)));
      }
      const rows = (await lab.table('distribution')).map((row) => [row[1], row[4], row[10]].join(' '));
      t.same(rows.sort(), ['* ctl2 copy', 'ether:0x88b5 ctl1 claim', 'ether:0x88b5 ctl1 copy']);
      const own = (await lab.ownTable('reception')).map((row) => [row[1], row[8]].join(' '));
      t.same(own.sort(), ['fwd1/eth0:ether:0x88b5 copy', 'fwd1/eth0:ether:0x88b5:claim claim']);
      await claim.kill();
      await until(async () => String(await opened(second, [`${all}:claim`, 'RDWR'])) === 'ok');
      await close(lab, ...copies);
    },
  );

  await t.test('the claimant answers through the file instead', async (t) => {
    const script = `
fd = os.open(p('eth0:udp:53:raw:claim'), os.O_RDWR)
show('claimed')
q = os.read(fd, 2000)
def sum16(b):
    s = sum(struct.unpack('!%dH' % (len(b) // 2), b))
    while s >> 16: s = (s & 0xffff) + (s >> 16)
    return 0xffff ^ s
data = b'from the file!'
ip = struct.pack('!BBHHHBBH', 0x45, 0, 28 + len(data), 0, 0, 64, 17, 0) + q[30:34] + q[26:30]
ip = ip[:10] + struct.pack('!H', sum16(ip)) + ip[12:]
os.write(fd, q[6:12] + q[:6] + q[12:14] + ip + q[36:38] + q[34:36] + struct.pack('!HH', 8 + len(data), 0) + data)
show(err(os.close, fd))
`;
    const server = lab.program(pythonWords(lab, script));
    await server.untilOutput((output) => output.includes('claimed'));
    t.equal(await nodes.ask('udp', '10.9.0.1', 53), 'answer');
    t.same(shown(await server.ended), ['claimed', null]);
    await close(lab);
  });

  await t.test('kill -9 frees a claim, however often, and leaves nothing in the kernel', async (t) => {
    for (let times = 0; times < 5; times += 1) {
      const claims = [await lab.reader('eth0:udp:53:claim'), await lab.reader('eth0:arp:claim', second)];
      t.match(ruleset(lab), /table inet fwdfs_fwd1\/claims/);
      t.match(ruleset(lab), /table arp fwdfs_fwd1\/claims/);
      await close(lab, ...claims);
      t.equal(ruleset(lab), '');
    }
  });

  await t.test('many claims at once are each in force when their open returns', async (t) => {
    const script = `
fds, threads = [], []
def claim(port):
    fd = os.open(p('eth0:udp:%d:claim' % port), os.O_RDONLY)
    fds.append(fd)
for port in range(2000, 2040): threads.append(threading.Thread(target=claim, args=(port,)))
for thread in threads: thread.start()
for thread in threads: thread.join()
show(len(fds))
sys.stdin.read()
`;
    const program = lab.program(pythonWords(lab, script), '');
    t.same(shown(await program.ended), [40]);
    await close(lab);
  });

  await t.test('a claim stays while its control device is away, and goes on with the session', async (t) => {
    const claim = await lab.reader('eth0:udp:53:claim');
    fwd.run('nft add table inet cut');
    fwd.run('nft add chain inet cut in { type filter hook input priority 0 ; }');
    fwd.run('nft add rule inet cut in ip saddr 10.8.0.2 tcp dport 7440 tcp flags & syn == syn reject with tcp reset');
    lab.ctl.run('ss -K -t dport = 7440 sport > 0');
    await until(async () => (await lab.state()).get('state') === 'not connected');
    t.equal(await nodes.ask('udp', '10.9.0.1', 53), 'silent', 'still quiet');
    fwd.run('nft delete table inet cut');
    await until(async () => (await lab.state()).get('state') === 'connected');
    await until(async () => String(await opened(second, ['eth0:udp:53:claim', 'RDONLY'])) === 'EBUSY');
    t.equal(await nodes.ask('udp', '10.9.0.1', 53), 'silent');
    await claim.untilOutput((output) => readPcap(output).length >= 1);
    await close(lab, claim);
  });

  await t.test('a control device that says goodbye takes its claims along', async (t) => {
    await lab.reader('eth0:udp:53:claim', second);
    t.equal(await nodes.ask('udp', '10.9.0.1', 53), 'silent');
    await lab.endControl('ctl2');
    await until(() => ruleset(lab) === '');
    t.equal(await nodes.ask('udp', '10.9.0.1', 53), 'refused');
  });

  await t.test(
    'what a forwarder that died left is swept by the next one, and its claims are claimed again',
    async (t) => {
      const claim = await lab.reader('eth0:arp:claim');
      const { forwarder } = lab;
      signalProcess(forwarder?.pid, 'SIGKILL');
      await until(() => forwarder?.ended === true);
      t.match(ruleset(lab), /table arp fwdfs_fwd1\/claims/);
      await lab.startForwarder();
      t.equal(ruleset(lab), '');
      await until(() => ruleset(lab).includes('table arp fwdfs_fwd1/claims'));
      await until(async () => (await lab.table('distribution').catch(() => [])).length === 1);
      await close(lab, claim);
    },
  );

  await t.test('a claim is of the name of its interface: it is there when that comes back', async (t) => {
    const claim = await lab.reader('eth0:icmp:claim');
    fwd.run('ip link del eth0');
    await until(async () => (await lab.table('distribution'))[0]?.[6] === 'absent');
    connectVeth(
      { netns: node, name: 'n0', addresses: ['10.9.0.2/24'] },
      { netns: fwd, name: 'eth0', addresses: ['10.9.0.1/24'] },
    );
    await until(async () => (await lab.table('distribution'))[0]?.[6] === 'active');
    t.equal(await pings(node, '10.9.0.1'), false);
    await claim.untilOutput((output) => readPcap(output).length >= 1);
    await close(lab, claim);
    t.equal(await pings(node, '10.9.0.1'), true);
  });

  await t.test('a forwarder that stops leaves nothing', async (t) => {
    await lab.reader('eth0:udp:53:claim');
    t.not(ruleset(lab), '');
    await lab.forwarder?.end();
    t.equal(ruleset(lab), '');
  });
});

t.test(
  'claims at an interface that discards stand before what the host is named for',
  { skip: withoutRoot },
  async (t) => {
    const lab = await Lab.start({ eth0: '{ unmatched: discard, host: [icmp, "udp:53"] }' });
    t.teardown(() => lab.stop());
    const { node } = lab;
    const nodes = new Asker(lab, node);
    t.same([await pings(node, '10.9.0.1'), await nodes.ask('udp', '10.9.0.1', 53)], [true, 'refused']);
    t.equal(await nodes.ask('udp', '10.9.0.1', 54), 'silent');
    t.equal(await lab.counter('drop_discarded'), 1);
    const claims = [await lab.reader('eth0:icmp:claim'), await lab.reader('eth0:udp:53:claim')];
    t.same([await pings(node, '10.9.0.1'), await nodes.ask('udp', '10.9.0.1', 53)], [false, 'silent']);
    t.equal(await nodes.ask('udp', '10.9.0.1', 54), 'silent');
    await until(async () => (await lab.counter('drop_discarded')) === 2);
    for (const claim of claims) await claim.untilOutput((output) => readPcap(output).length >= 1);
    for (const claim of claims) await claim.kill();
    await until(() => !ruleset(lab).includes('/claims'));
    t.match(ruleset(lab), /table inet fwdfs_fwd1 /);
    t.same([await pings(node, '10.9.0.1'), await nodes.ask('udp', '10.9.0.1', 53)], [true, 'refused']);
    t.equal((await python(lab, `show(tried('eth0:claim', os.O_RDWR))`))[0], 'ok');
  },
);
