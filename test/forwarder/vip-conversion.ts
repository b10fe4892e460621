/**
 * The kernel of the forwarder converts for control devices that are set up by hand: test/support/vip-lab.ts.
 * Source text: Fig. 22 (S2201 to S2206), Fig. 23 (S2305 to S2307).
 */
import t from 'tap';
import { parseIpv4 } from '../../src/packet/ip-address.js';
import { deleteEntries, listEntries } from '../../src/sys/conntrack.js';
import { until } from '../support/lab.js';
import { withoutRoot } from '../support/netns.js';
import { nft, VIP4, VIP6, VipLab } from '../support/vip-lab.js';

const root = { skip: withoutRoot };

/** How many of the lines begin with a name. */
const countOf = (lines: readonly string[], name: string): number =>
  lines.filter((line) => line.startsWith(name)).length;
const SENDER1 = parseIpv4('169.254.7.1') ?? Buffer.alloc(0);

t.test('what comes to a rule reaches its control device, with the client as its source', root, async (t) => {
  const lab = new VipLab(1);
  t.teardown(() => lab.stop());
  await lab.server(1);
  const [rule] = await lab.serve(1, VIP4, 'tcp:80', 'udp:80');
  await lab.serve(1, VIP6, 'tcp:80', 'udp:80');
  t.same(await lab.connect(VIP4), ['ctl1 10.9.0.2']);
  t.same(await lab.connect(VIP6), ['ctl1 fd09::2']);
  for (const [vip, client] of [
    [VIP4, '10.9.0.2'],
    [VIP6, 'fd09::2'],
  ] as const) {
    const udp = await lab.datagrams(vip);
    udp.child.stdin?.write('4000\n');
    await udp.untilOutput((output) => output.includes(`ctl1 ${client} 4000`));
  }

  const rows = await lab.vips.rows('vip_distribution');
  t.same(
    rows.map((row) => row.slice(0, 7)),
    [
      ['eth0', VIP4, 'tcp', '80', '169.254.7.1', 'ctl1', '1/1'],
      ['eth0', VIP4, 'udp', '80', '169.254.7.1', 'ctl1', '1/1'],
      ['eth0', VIP6, 'tcp', '80', 'fdfd::7:1', 'ctl1', '1/1'],
      ['eth0', VIP6, 'udp', '80', 'fdfd::7:1', 'ctl1', '1/1'],
    ],
  );
  t.same(await lab.vips.rows('vip_reception'), [
    ['169.254.7.1', VIP4, 'ctl1', 'c1', lab.control(1).mac],
    ['fdfd::7:1', VIP6, 'ctl1', 'c1', lab.control(1).mac],
  ]);
  const converted = rule === undefined ? undefined : (await lab.vips.converted())(rule);
  t.ok(converted !== undefined && converted.packets >= 3 && converted.bytes > 3 * 40, 'packets are counted');
  t.match(converted, { flows: 1, share: 1, members: 1 });
});

t.test('new connections are shared by weight, and go to who is there', root, async (t) => {
  const lab = new VipLab(2);
  t.teardown(() => lab.stop());
  for (const number of [1, 2]) await lab.server(number);
  lab.control(2).peer.weight = 3;
  const [rule1] = await lab.serve(1, VIP4, 'tcp:80');
  const [rule2] = await lab.serve(2, VIP4, 'tcp:80');
  const lines = await lab.connect(VIP4, 400);
  t.equal(countOf(lines, 'ctl'), 400);
  const first = countOf(lines, 'ctl1');
  t.ok(first > 60 && first < 150, `a quarter of 400: ${first}`);
  t.same(
    (await lab.vips.rows('vip_distribution')).map((row) => row.slice(4, 7)),
    [
      ['169.254.7.1', 'ctl1', '1/4'],
      ['169.254.7.2', 'ctl2', '3/4'],
    ],
  );

  const held = await Promise.all(
    Array.from({ length: 12 }, async () => {
      const program = lab.hold(VIP4);
      await program.untilOutput((output) => output.includes('ctl'));
      return program;
    }),
  );
  const before = rule2 === undefined ? undefined : (await lab.vips.converted())(rule2);
  if (rule1 !== undefined) lab.vips.ruleRemoved(rule1);
  await until(async () => (await lab.vips.rows('vip_distribution')).length === 1);
  t.equal(countOf(await lab.connect(VIP4, 40), 'ctl2'), 40, 'nothing goes to a port that was closed');
  for (const program of held) {
    program.child.stdin?.write('still there\n');
    await program.untilOutput((output) => output.includes('still there'));
  }
  t.pass('what was open goes on, at both');
  const after = rule2 === undefined ? undefined : (await lab.vips.converted())(rule2);
  t.ok((after?.packets ?? 0) > (before?.packets ?? 0) && (before?.packets ?? 0) > 0, 'counts go on through changes');

  lab.control(2).peer.drains.add('eth0');
  if (rule1 !== undefined) await lab.vips.ruleAdded(rule1);
  lab.vips.peerChanged(lab.control(2).peer);
  await until(async () => (await lab.vips.rows('vip_distribution')).every((row) => row[5] === 'ctl1'));
  t.equal(countOf(await lab.connect(VIP4, 20), 'ctl1'), 20, 'who drains takes none');
});

t.test('datagrams move to another member when theirs is away, not when it drains', root, async (t) => {
  const lab = new VipLab(2);
  t.teardown(() => lab.stop());
  for (const number of [1, 2]) {
    await lab.server(number);
    await lab.serve(number, VIP4, 'udp:80');
  }
  const udp = await lab.datagrams(VIP4);
  const ask = async (): Promise<string> => {
    const from = udp.output.length;
    udp.child.stdin?.write('10\n');
    await udp.untilOutput((output) => output.length > from);
    return udp.output.toString('utf8', from).trim().split(' ')[0] ?? '';
  };
  const first = await ask();
  const mine = lab.control(first === 'ctl1' ? 1 : 2).peer;
  mine.drains.add('*');
  lab.vips.peerChanged(mine);
  await until(async () => (await lab.vips.rows('vip_distribution')).length === 1);
  t.equal(await ask(), first);
  mine.drains.clear();
  mine.silent = true;
  lab.vips.peerChanged(mine);
  await until(async () => (await ask()) !== first);
  mine.silent = false;
  lab.vips.peerChanged(mine);
  await until(async () => (await lab.vips.rows('vip_distribution')).length === 2);
  t.not(await ask(), first, 'and stay there');
});

t.test('a port that was closed gets nothing from that moment, before nft is done', root, async (t) => {
  const lab = new VipLab(3);
  t.teardown(() => lab.stop());
  const rules = [];
  for (const number of [1, 2, 3]) {
    await lab.server(number);
    rules.push(...(await lab.serve(number, VIP4, 'tcp:80')), ...(await lab.serve(number, VIP6, 'tcp:80')));
  }
  const takesNoMore = (): string =>
    lab.fwd
      .run('nft list ruleset')
      .match(/away_\S+ \{[^}]*elements[^}]*/g)
      ?.join() ?? '';
  for (const rule of rules.slice(0, 2)) lab.vips.ruleRemoved(rule);
  const elements = takesNoMore();
  t.match(elements, /away_169\.254\.7\.1 .*10\.9\.0\.1 \. tcp \. 80/s);
  t.match(elements, /away_fdfd__7_1 .*fd09::1 \. tcp \. 80/s);
  // Until here this process has given nft no time to end; the kernel's groups still have the first member.
  t.equal(lab.fwd.run('nft list ruleset').match(/0 : jump/g)?.length, 4, 'two hashes of two groups');
  t.match(lab.fwd.run('nft list ruleset'), ': jump to_169.254.7.1');
  const connect = (vip: string): string => lab.client.run(`socat -T0.3 -u TCP:${vip}:80 STDOUT`);
  const names = Array.from(
    { length: 16 },
    (_, index) => connect(index % 2 === 0 ? VIP4 : `[${VIP6}]`).split(' ')[0] ?? '',
  );
  t.same([...new Set(names)].toSorted(), ['ctl2', 'ctl3']);
  await until(() => !lab.fwd.run('nft list ruleset').includes(': jump to_169.254.7.1'));
  for (const rule of rules.slice(0, 2)) await lab.vips.ruleAdded(rule);
  t.equal(takesNoMore(), '');
  t.ok(countOf(await lab.connect(VIP4, 40), 'ctl1') > 0, 'it takes again');
});

t.test('datagrams that the host refused before go to a rule that came since', root, async (t) => {
  const lab = new VipLab(1);
  t.teardown(() => lab.stop());
  await lab.server(1);
  for (const vip of [VIP4, VIP6]) {
    await lab.serve(1, vip, 'tcp:80');
    const udp = await lab.datagrams(vip);
    udp.child.stdin?.write('10\n');
    await udp.untilOutput((output) => output.includes('ECONNREFUSED'));
    await lab.vips.ruleAdded(lab.rule(1, vip, 'udp:80'));
    udp.child.stdin?.write('10\n');
    await udp.untilOutput((output) => output.includes('ctl1'));
  }
});

t.test('a connection that nobody answered is placed anew when its member goes', root, async (t) => {
  const lab = new VipLab(2);
  t.teardown(() => lab.stop());
  await lab.server(2);
  // The first one is mute.
  nft(
    lab.control(1).netns,
    'table inet mute { chain in { type filter hook input priority -500; tcp dport 80 drop; }; }',
  );
  const [rule1] = await lab.serve(1, VIP4, 'tcp:80');
  const connecting = lab.hold(VIP4);
  await until(async () => (await listEntries('reply', SENDER1)).length === 1);
  await lab.serve(2, VIP4, 'tcp:80');
  if (rule1 !== undefined) lab.vips.ruleRemoved(rule1);
  await connecting.untilOutput((output) => output.includes('ctl2 10.9.0.2'));
  t.same(await listEntries('reply', SENDER1), []);
});

t.test('the clients of a lost control device are reset where others serve, idle ones too', root, async (t) => {
  const lab = new VipLab(2);
  t.teardown(() => lab.stop());
  for (const number of [1, 2]) {
    await lab.server(number);
    for (const vip of [VIP4, VIP6]) await lab.serve(number, vip, 'tcp:80');
  }
  const held = [];
  for (let index = 0; index < 16; index++) {
    const program = lab.hold(index % 2 === 0 ? VIP4 : VIP6);
    await program.untilOutput((output) => output.includes('ctl'));
    held.push({ program, control: program.output.toString().split(' ')[0] ?? '' });
  }
  const { netns, peer } = lab.control(1);
  // As a machine that lost its power.
  netns.run('ip link set f0 down');
  peer.silent = true;
  lab.vips.peerChanged(peer);
  lab.vips.peerLost(peer);
  for (const { program, control } of held) {
    if (control === 'ctl1') {
      await program.untilOutput((output) => output.includes('ECONNRESET'));
      continue;
    }
    program.child.stdin?.write('still there\n');
    await program.untilOutput((output) => output.includes('still there'));
  }
  t.equal(
    held.filter(({ program }) => program.output.includes('ECONNRESET')).length,
    countOf(
      held.map(({ control }) => control),
      'ctl1',
    ),
  );
  t.ok(held.some(({ control }) => control === 'ctl1') && held.some(({ control }) => control === 'ctl2'));
  t.equal(countOf(await lab.connect(VIP4, 20), 'ctl2'), 20);
  t.same(await listEntries('reply', SENDER1), []);
});

t.test('without another member a lost control device keeps its connections until its session ends', root, async (t) => {
  const lab = new VipLab(1);
  t.teardown(() => lab.stop());
  await lab.server(1);
  await lab.serve(1, VIP4, 'tcp:80');
  const held = lab.hold(VIP4);
  await held.untilOutput((output) => output.includes('ctl1'));
  const { peer } = lab.control(1);
  peer.silent = true;
  lab.vips.peerChanged(peer);
  lab.vips.peerLost(peer);
  await until(async () => (await lab.vips.rows('vip_distribution')).length === 0);
  held.child.stdin?.write('still there\n');
  await held.untilOutput((output) => output.includes('still there'));
  t.same(await lab.connect(VIP4), ['ECONNREFUSED'], 'nobody takes a new one, so it is the host');
  await lab.vips.peerClosed(peer);
  await held.untilOutput((output) => output.includes('ECONNRESET'));
  t.same(await lab.vips.rows('vip_reception'), []);
  t.notMatch(lab.fwd.run('ip route'), '169.254.7.1');
});

t.test('who is not the control device can neither speak as a sender address nor reach it', root, async (t) => {
  const lab = new VipLab(2);
  t.teardown(() => lab.stop());
  await lab.server(1);
  for (const number of [1, 2]) await lab.serve(number, VIP4, 'tcp:80', 'udp:80');
  const { client, fwd } = lab;
  const dropped = (): number => {
    const counter = /counter spoofs \{\s+packets (\d+)/.exec(fwd.run('nft list table inet watch'));
    return Number(counter?.[1]);
  };
  // What passes the forwarder's own chain is counted behind it.
  nft(
    fwd,
    `table inet watch {
      counter spoofs { }
      chain in { type filter hook prerouting priority raw + 5; ip saddr 169.254.7.0/24 counter name spoofs; ip daddr 169.254.7.0/24 counter name spoofs; }
    }`,
  );
  client.run('ip addr add 169.254.7.1/32 dev n0');
  client.run('ip route add 169.254.7.2/32 via 10.9.0.1');
  t.throws(() => client.run(`ping -c 2 -i 0.1 -W 1 -I 169.254.7.1 ${VIP4}`));
  t.throws(() => client.run('ping -c 2 -i 0.1 -W 1 169.254.7.2'));
  // The other control device says that it is the first one, from its own link.
  const two = lab.control(2).netns;
  two.run('ip addr add 169.254.7.1/32 dev f0');
  t.throws(() => two.run('ping -c 2 -i 0.1 -W 1 -I 169.254.7.1 10.8.2.1'));
  t.equal(dropped(), 0);
  t.equal(countOf(await lab.connect(VIP4, 8), 'ctl1') > 0, true);
  t.ok(dropped() > 0, 'the real one passes');
});

t.test('a virtual IP address makes no router, and leaves forwarding as it was', root, async (t) => {
  const lab = new VipLab(1);
  t.teardown(() => lab.stop());
  const { client, fwd } = lab;
  const { netns, peer } = lab.control(1);
  await lab.server(1);
  for (const line of [
    'ip route add 10.8.1.0/24 via 10.9.0.1',
    'ip addr add fd08::9/128 dev lo',
    'ip -6 route add fd08::2/128 via fd09::1',
  ])
    client.run(line);
  netns.run('ip route add 10.9.0.0/24 via 10.8.1.1');
  netns.run('ip addr add fd08::2/128 dev lo nodad');
  netns.run('ip -6 route add fd09::/64 via fe80::1 dev f0');
  fwd.run('ip -6 route add fd08::2/128 via fe80::2 dev c1');
  const settings = (): string =>
    fwd.run(
      'sysctl -n net.ipv4.conf.eth0.forwarding net.ipv4.conf.c1.forwarding net.ipv6.conf.all.forwarding net.ipv6.conf.eth0.accept_ra',
    );
  const before = settings();
  t.equal(before, '0\n0\n0\n1\n');
  await lab.serve(1, VIP4, 'tcp:80');
  await lab.serve(1, VIP6, 'tcp:80');
  t.equal(settings(), '1\n1\n1\n2\n');
  t.same([...(await lab.connect(VIP4)), ...(await lab.connect(VIP6))], ['ctl1 10.9.0.2', 'ctl1 fd09::2']);
  for (const address of ['10.8.1.2', 'fd08::2'])
    t.throws(() => client.run(`ping -c 2 -i 0.1 -W 1 ${address}`), address);
  await lab.vips.peerClosed(peer);
  t.equal(settings(), before);

  // A router stays one.
  fwd.run('sysctl -qw net.ipv4.conf.eth0.forwarding=1 net.ipv4.conf.c1.forwarding=1 net.ipv6.conf.all.forwarding=1');
  await lab.serve(1, VIP4, 'tcp:80');
  await lab.serve(1, VIP6, 'tcp:80');
  for (const address of ['10.8.1.2', 'fd08::2'])
    t.match(client.run(`ping -c 2 -i 0.1 -W 1 ${address}`), / 0% packet loss/);
  await lab.vips.remove();
  t.equal(settings(), '1\n1\n1\n1\n');
});

t.test('what a crash left is swept: table, routes, settings, connections', root, async (t) => {
  const lab = new VipLab(1);
  t.teardown(() => lab.stop());
  await lab.server(1);
  await lab.serve(1, VIP4, 'tcp:80');
  await lab.serve(1, VIP6, 'tcp:80');
  await lab.connect(VIP4);
  const { fwd } = lab;
  fwd.run('ip route add 10.77.0.0/16 via 10.8.1.2 proto 110');
  nft(fwd, 'table inet fwdfs_other/vip { }');
  t.match(fwd.run('ip route'), '169.254.7.1 via 10.8.1.2 dev c1 proto 110');
  t.match(fwd.run('ip -6 route'), /fdfd::7:1 via fe80::2 dev c1 proto 110/);

  await lab.conversion().sweep();
  t.notMatch(fwd.run('ip route'), '169.254.7.1');
  t.match(fwd.run('ip route'), '10.77.0.0/16', 'other routes of ours are left alone');
  t.notMatch(fwd.run('ip -6 route'), 'fdfd::7:1');
  t.match(fwd.run('nft list tables'), 'table inet fwdfs_other/vip\n');
  t.notMatch(fwd.run('nft list table inet fwdfs_vf1/vip'), /169\.254\.7\.1|fdfd::7:1/);
  t.equal(fwd.run('sysctl -n net.ipv4.conf.eth0.forwarding net.ipv6.conf.all.forwarding'), '0\n0\n');
});

t.test('connections outlive a crash when their control device registers as before', root, async (t) => {
  const lab = new VipLab(1);
  t.teardown(() => lab.stop());
  await lab.server(1);
  for (const vip of [VIP4, VIP6]) await lab.serve(1, vip, 'tcp:80');
  const held = [VIP4, VIP6].map((vip) => lab.hold(vip));
  for (const program of held) await program.untilOutput((output) => output.includes('ctl1'));
  await lab.restart();
  t.equal((await listEntries('reply', SENDER1)).length, 1);
  for (const vip of [VIP4, VIP6]) await lab.serve(1, vip, 'tcp:80');
  for (const { child } of held) child.stdin?.write('still there\n');
  for (const program of held) await program.untilOutput((output) => output.includes('still there'));
  t.equal(countOf(await lab.connect(VIP4, 4), 'ctl1'), 4);
});

t.test('connections that a crash left are given up when nobody comes for them', root, async (t) => {
  const lab = new VipLab(1);
  t.teardown(() => lab.stop());
  await lab.server(1);
  await lab.serve(1, VIP4, 'tcp:80');
  const held = lab.hold(VIP4);
  await held.untilOutput((output) => output.includes('ctl1'));
  lab.times = { resumeTime: 300 };
  await lab.restart();
  await held.untilOutput((output) => output.includes('ECONNRESET'));
  t.same(await listEntries('reply', SENDER1), []);
});

t.test(
  'connections that a crash left do not go to another control device with their sender address',
  root,
  async (t) => {
    const lab = new VipLab(2);
    t.teardown(() => lab.stop());
    await lab.server(1);
    await lab.serve(1, VIP4, 'tcp:80');
    const held = lab.hold(VIP4);
    await held.untilOutput((output) => output.includes('ctl1'));
    await lab.restart();
    const { mac: link, peer } = lab.control(2);
    await lab.vips.register(peer, { vip: VIP4, sender: '169.254.7.1', nextHop: '10.8.2.2', link });
    await held.untilOutput((output) => output.includes('ECONNRESET'));
    t.same(await listEntries('reply', SENDER1), []);
  },
);

t.test('a table that somebody flushed is made anew with the next change', root, async (t) => {
  const lab = new VipLab(1);
  t.teardown(() => lab.stop());
  await lab.server(1);
  await lab.serve(1, VIP4, 'tcp:80');
  lab.fwd.run('nft flush ruleset');
  await lab.serve(1, VIP4, 'udp:80');
  t.same(await lab.connect(VIP4), ['ctl1 10.9.0.2']);
});

t.test('path MTU and ICMP errors pass through the conversion', root, async (t) => {
  const lab = new VipLab(1);
  t.teardown(() => lab.stop());
  await lab.server(1, 80, 500_000);
  for (const vip of [VIP4, VIP6]) await lab.serve(1, vip, 'tcp:80', 'udp:81');
  // The client offers segments that the forwarder's interface can't carry.
  lab.fwd.run('ip link set eth0 mtu 1300');
  for (const vip of [VIP4, VIP6]) {
    const program = lab.hold(vip);
    // The bytes are zeros; each of them is there.
    await program.untilOutput((output) => output.length > 500_000);
    t.pass(vip);
  }
  t.match(lab.control(1).netns.run('ip route get 10.9.0.2 from 10.9.0.1'), 'mtu 1300');
  // Nobody has the port there.
  for (const vip of [VIP4, VIP6]) {
    const udp = await lab.datagrams(vip, 81);
    udp.child.stdin?.write('10\n');
    await until(() => {
      udp.child.stdin?.write('10\n');
      return udp.output.includes('ECONNREFUSED');
    });
  }
});

t.test('a segment of a connection that the kernel does not know is not converted', root, async (t) => {
  const lab = new VipLab(1);
  t.teardown(() => lab.stop());
  await lab.server(1);
  const held = lab.hold(VIP4, 80);
  await held.untilOutput((output) => output.includes('ECONNREFUSED'));
  const [rule] = await lab.serve(1, VIP4, 'tcp:80');
  const open = lab.hold(VIP4, 80);
  await open.untilOutput((output) => output.includes('ctl1'));
  const packets = async (): Promise<number> =>
    (rule === undefined ? undefined : (await lab.vips.converted())(rule))?.packets ?? -1;
  // As with a flow by encapsulation, or after a restart.
  lab.fwd.run('sysctl -qw net.netfilter.nf_conntrack_tcp_loose=1');
  nft(
    lab.fwd,
    'table inet watch { counter seen { }; chain in { type filter hook input priority 0; tcp dport 80 counter name seen; }; }',
  );
  await deleteEntries(await listEntries('reply', SENDER1));
  const before = await packets();
  open.child.stdin?.write('hello\n');
  await open.untilOutput((output) => output.includes('ECONNRESET'));
  t.equal(await packets(), before);
  t.match(lab.fwd.run('nft list counters table inet watch'), /packets [1-9]/);
});

t.test('what begins at the control device leaves with the virtual IP address, within its right', root, async (t) => {
  const lab = new VipLab(1);
  t.teardown(() => lab.stop());
  const { client } = lab;
  const { netns, peer } = lab.control(1);
  lab.protocols = ['tcp:5000-5009'];
  for (const vip of [VIP4, VIP6]) await lab.serve(1, vip, 'tcp:5000');
  const echo = lab.program(client, [
    'socat',
    '-u',
    'TCP6-LISTEN:7000,ipv6only=0,fork,reuseaddr',
    'SYSTEM:echo $SOCAT_PEERADDR >&2',
  ]);
  const call = (vip: string, port: number): void => {
    const [source, to] = vip === VIP4 ? [VIP4, '10.9.0.2'] : [`[${VIP6}]`, '[fd09::2]'];
    netns.run(`socat -u OPEN:/dev/null TCP:${to}:7000,bind=${source}:${port},connect-timeout=1`);
  };
  await until(() => {
    try {
      call(VIP4, 5001);
      return true;
    } catch {
      return false;
    }
  });
  await echo.untilStderr(/10\.9\.0\.1|ffff:0a09:0001/);
  call(VIP6, 5002);
  await echo.untilStderr(/fd09:[0:]*1\]/);
  t.throws(() => call(VIP4, 6000), 'a port that is not granted');
  lab.protocols = ['*'];
  lab.vips.review(peer, 'other rights');
  await until(() => {
    try {
      call(VIP4, 6001);
      return true;
    } catch {
      return false;
    }
  });
  peer.silent = true;
  lab.vips.peerChanged(peer);
  await until(() => {
    try {
      call(VIP4, 0);
      return false;
    } catch {
      return true;
    }
  });
  t.pass('nothing new from one that is away');
});

t.test('an address that the interface or the right lost is withdrawn', root, async (t) => {
  const lab = new VipLab(1);
  t.teardown(() => lab.stop());
  for (const vip of [VIP4, VIP6]) await lab.serve(1, vip, 'tcp:80');
  lab.vips.interfacesChanged();
  t.same(lab.withdrawn, []);
  lab.addresses = [VIP6];
  lab.vips.interfacesChanged();
  t.same(lab.withdrawn, [`ctl1 ${VIP4} interface-gone`]);
  await until(async () => (await lab.vips.rows('vip_reception')).length === 1);
  t.notMatch(lab.fwd.run('ip route'), '169.254.7.1');
  lab.rights = [];
  lab.vips.review(lab.control(1).peer, 'other rights');
  t.same(lab.withdrawn.slice(1), [`ctl1 ${VIP6} not-permitted`]);
  await until(async () => (await lab.vips.rows('vip_reception')).length === 0);
});

t.test(
  'a control device that comes back on another link loses its address, on the same one its route is there again',
  root,
  async (t) => {
    const lab = new VipLab(2);
    t.teardown(() => lab.stop());
    await lab.serve(1, VIP4, 'tcp:80');
    const { peer } = lab.control(1);
    peer.active = false;
    lab.vips.peerChanged(peer);
    lab.fwd.run('ip link set c1 down');
    t.notMatch(lab.fwd.run('ip route'), '169.254.7.1');
    lab.fwd.run('ip link set c1 up');
    peer.active = true;
    lab.vips.peerChanged(peer);
    t.match(lab.fwd.run('ip route'), '169.254.7.1 via 10.8.1.2 dev c1');
    peer.address = '10.8.2.2';
    lab.vips.peerChanged(peer);
    t.same(lab.withdrawn, [`ctl1 ${VIP4} not-on-link`]);
    t.same(lab.reasons, ['the next hop of the control device is on another link than its session'], 'no advice in it');
  },
);

t.test('an IPv6 address whose link comes back is tried until the link has its own address again', root, async (t) => {
  const lab = new VipLab(1);
  t.teardown(() => lab.stop());
  lab.times = {};
  await lab.restart();
  await lab.serve(1, VIP6, 'tcp:80');
  const { peer } = lab.control(1);
  peer.active = false;
  lab.vips.peerChanged(peer);
  lab.fwd.run('ip link set c1 down');
  lab.fwd.run('ip link set c1 up');
  // As while duplicates are looked for.
  lab.fwd.run('ip -6 addr flush dev c1');
  peer.active = true;
  lab.vips.peerChanged(peer);
  t.notMatch(lab.fwd.run('ip -6 route'), 'fdfd::7:1');
  lab.fwd.run('ip addr add fe80::1/64 dev c1 nodad');
  await until(() => lab.fwd.run('ip -6 route').includes('fdfd::7:1'));
  t.same(lab.withdrawn, []);
});

t.test('requests that can not be are refused, each with its code', root, async (t) => {
  const lab = new VipLab(2);
  t.teardown(() => lab.stop());
  const { mac: link, peer } = lab.control(1);
  const other = lab.control(2);
  const right = { vip: VIP4, sender: '169.254.7.1', nextHop: '10.8.1.2', link };
  const register = (change: Partial<typeof right>, who = peer): Promise<unknown> =>
    lab.vips.register(who, { ...right, ...change });
  await t.rejects(register({ vip: '10.9.0.7' }), { code: 'no-such-interface' });
  await t.rejects(register({ vip: 'ten' }), { code: 'bad-message' });
  await t.rejects(register({ sender: 'fdfd::1' }), { code: 'bad-message' });
  await t.rejects(register({ link: '' }), { code: 'bad-message' });
  await t.rejects(register({ nextHop: '10.8.2.2' }), { code: 'not-on-link' }, 'the next hop is elsewhere');
  await t.rejects(register({ sender: '10.8.1.2' }), { code: 'address-in-use' });
  await t.rejects(register({ sender: VIP4 }), { code: 'address-in-use' });
  const at = async (address: string): Promise<void> => {
    peer.address = address;
    await t.rejects(register({}), { code: 'not-on-link' }, address);
  };
  lab.fwd.run('ip route add 10.66.0.0/16 via 10.8.1.2');
  for (const address of ['', '127.0.0.1', '10.8.1.1', '10.66.0.1', '192.0.2.1']) await at(address);
  peer.address = '10.8.1.2';
  lab.rights = [];
  await t.rejects(register({}), { code: 'not-permitted' });
  lab.rights = ['vip'];

  await t.rejects(lab.vips.ruleAdded(lab.rule(1, VIP4, 'tcp:80')), { code: 'no-such-vip' });
  const response = await register({});
  t.match(response, { vip: VIP4, interface: 'eth0', nextHop: '10.8.1.1' });
  t.same(await register({}), response, 'again');
  await t.rejects(register({ sender: '169.254.7.9' }), { code: 'already-there' });
  await t.rejects(register({ nextHop: other.nextHop(VIP4), link: other.mac }, other.peer), { code: 'address-in-use' });
  t.match(
    lab.log.lines.filter(({ level }) => level === 'error'),
    [],
  );
  await lab.vips.unregister(peer, parseIpv4(VIP4)!);
  await lab.vips.unregister(peer, parseIpv4(VIP4)!);
  t.same(await lab.vips.rows('vip_reception'), []);
});
