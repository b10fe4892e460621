/**
 * Virtual IP addresses over both halves: an unmodified nginx on two control devices at an address of the forwarder, by the
 * kernels' address conversion (support/balance.ts). Second embodiment: Fig. 13, tables of Fig. 14 to 17, registration (Fig. 18, 19:
 * S1801 to S1805), rules (Fig. 20, 21: S2001 to S2006), reception (Fig. 22: S2207 to S2209), transmission (Fig. 23: S2301 to
 * S2304).
 *
 *     node ns                 forwarder ns                                    control ns, one for each
 *     n0 10.9.0.2/24 ------ eth0 10.9.0.1/24 | c0 10.8.0.1 ---------- f0 10.8.0.2   ctl1: 10.9.0.1, fd09::1 on lo, nginx
 *        fd09::2/64              fd09::1/64  | c1 10.8.1.1 ---------- f0 10.8.1.2   ctl2: the same
 */
import t from 'tap';
import { BalanceLab, type Device } from '../support/balance.js';
import { FWDFS, type Result, run, until } from '../support/lab.js';
import { everything } from '../support/mirror.js';
import { type Netns, withoutRoot } from '../support/netns.js';

t.setTimeout(300_000);

interface Answer {
  readonly server: string;
  readonly body: string;
}

/** One request of curl in the node's namespace, and whose answer it was. */
async function get(lab: BalanceLab, url: string): Promise<Answer> {
  const { node } = lab.lab;
  const said = await lab.interop.says(node, 'curl', '-sS', '-i', '--max-time', '10', '--noproxy', '*', url);
  const [head = '', ...body] = said.split('\r\n\r\n');
  return { server: /x-server: (\S+)/i.exec(head)?.[1] ?? '', body: body.join('\r\n\r\n') };
}

/** What the kernel of the forwarder has of ours, but for the table by which late clients are reset: it stays for a minute. */
function atForwarder({ fwd }: { fwd: Netns }): string {
  const sysctls = ['ipv4.conf.eth0.forwarding', 'ipv4.conf.c0.forwarding', 'ipv6.conf.all.forwarding'];
  return [
    ...['ip route show table all', 'ip -6 route show table all', 'ip rule', 'nft list tables'].map((line) =>
      fwd.run(line),
    ),
    ...sysctls.map((name) => fwd.run(`sysctl -n net.${name}`)),
  ]
    .join('\n')
    .replace('table inet fwdfs_fwd1/vip\n', '');
}

const fwdfs = ({ netns, mountPoint }: Device, ...words: string[]): Promise<Result> => {
  const [object = '', verb = '', ...rest] = words;
  return run([...netns.prefix, process.execPath, FWDFS, object, verb, '-m', mountPoint, ...rest]);
};

const rowsOf = async (device: Device, table: string): Promise<string[]> => {
  const { stdout } = await run(['cat', `${device.mountPoint}/.tables/${table}`]);
  return stdout.toString().trimEnd().split('\n').slice(1);
};

t.test('an unmodified server at a virtual IP address', { skip: withoutRoot }, async (t) => {
  const lab = await BalanceLab.start(2);
  t.teardown(() => lab.stop());
  const [one, two] = lab.devices;
  if (one === undefined || two === undefined) throw new Error('two control devices');
  const was = { one: everything(one.netns), fwd: atForwarder(lab.lab) };

  await t.test('is reached by IPv4 and IPv6, and sees the client', async (t) => {
    for (const vip of ['10.9.0.1', 'fd09:0::1']) {
      const { status, stderr } = await fwdfs(one, 'vip', 'add', `fwd1/${vip}`);
      t.same([status, stderr], [0, '']);
    }
    lab.web(one, { big: Buffer.alloc(1 << 20, 'b') });
    await until(async () => (await rowsOf(one, 'vip_rules')).filter((row) => row.includes('\tactive\t')).length === 2);
    t.same(await get(lab, 'http://10.9.0.1/'), { server: 'ctl1', body: 'hello\n' });
    t.same(await get(lab, 'http://[fd09::1]/'), { server: 'ctl1', body: 'hello\n' });
    const { stdout } = await run(['cat', `${lab.lab.folder}/ctl1-web/access.log`]);
    t.match(stdout.toString(), /^10\.9\.0\.2 .*\nfd09::2 /);
  });

  await t.test('the tables of both sides are what the kernels say', async (t) => {
    t.same((await rowsOf(one, 'vip_rules')).sort(), [
      '10.9.0.1\ttcp:10.9.0.1:80\tactive\t1\t-',
      'fd09::1\ttcp:[fd09::1]:80\tactive\t1\t-',
    ]);
    const vips = await rowsOf(one, 'vip');
    t.match(vips[0], /^10\.9\.0\.1\tfwd1\/eth0\t169\.254\.\d+\.\d+\tf0\tactive\t1\t-$/);
    const [four = '', six = ''] = vips.map((row) => row.split('\t')[2] ?? '');
    t.same((await rowsOf(one, 'vip_reception')).sort(), [`${four}\ttcp\t80\t10.9.0.1`, `${six}\ttcp\t80\tfd09::1`]);
    t.same((await rowsOf(one, 'vip_transmission')).sort(), [`10.9.0.1\t${four}`, `fd09::1\t${six}`]);
    for (const table of ['vip_distribution', 'vip_reception']) {
      const there = await lab.lab.table(table);
      t.ok(there.some((row) => row.includes(four)) && there.some((row) => row.includes(six)), table);
    }
  });

  await t.test('fwdfs vip list shows it', async (t) => {
    const { stdout } = await fwdfs(one, 'vip', 'list');
    t.match(stdout.toString(), /^vip\tinterface\tsender\tlink\tstate\trules\treason\n10\.9\.0\.1\tfwd1\/eth0\t/);
    const listed: unknown = JSON.parse((await fwdfs(one, 'vip', 'list', '--json')).stdout.toString());
    t.match(listed, [
      { vip: '10.9.0.1', state: 'active', rules: [{ protocol: 'tcp:10.9.0.1:80', state: 'active', sockets: 1 }] },
      { vip: 'fd09::1', state: 'active' },
    ]);
  });

  await t.test('a path with a smaller MTU is found', async (t) => {
    const { fwd } = lab.lab;
    fwd.run('ip link set eth0 mtu 1300');
    t.equal((await get(lab, 'http://10.9.0.1/big')).body.length, 1 << 20);
    t.equal((await get(lab, 'http://[fd09::1]/big')).body.length, 1 << 20);
    fwd.run('ip link set eth0 mtu 1500');
  });

  await t.test('two control devices share it; one that drains gets no new connection', async (t) => {
    await lab.fwdfs(two, 'vip', 'add', 'fwd1/10.9.0.1');
    lab.web(two);
    await until(async () => (await rowsOf(two, 'vip_rules')).join().includes('\tactive\t'));
    const servers = async (count: number): Promise<string[]> => {
      const seen = new Set<string>();
      for (let i = 0; i < count; i++) seen.add((await get(lab, 'http://10.9.0.1/')).server);
      return [...seen].sort();
    };
    await until(async () => (await servers(10)).length === 2, 30_000);
    const { status, stderr } = await run([
      ...one.netns.prefix,
      process.execPath,
      FWDFS,
      'drain',
      'fwd1',
      '-m',
      one.mountPoint,
    ]);
    t.same([status, stderr], [0, '']);
    t.equal((await lab.lab.state()).get('draining'), 'all');
    await until(async () => (await servers(12)).join() === 'ctl2', 30_000);
    t.equal(
      (await run([...one.netns.prefix, process.execPath, FWDFS, 'drain', 'fwd1', '--off', '-m', one.mountPoint]))
        .status,
      0,
    );
    t.equal((await lab.lab.state()).get('draining'), '-');
    await until(async () => (await servers(10)).length === 2, 30_000);
    await lab.fwdfs(two, 'vip', 'remove', 'fwd1/10.9.0.1');
  });

  await t.test('after a restart of the forwarder it is there again', async () => {
    await lab.lab.forwarder?.end('SIGKILL');
    await lab.lab.startForwarder();
    await until(
      async () => (await rowsOf(one, 'vip_rules')).filter((row) => row.includes('\tactive\t')).length === 2,
      20_000,
    );
    await until(async () => (await get(lab, 'http://10.9.0.1/')).body === 'hello\n');
    await until(async () => (await get(lab, 'http://[fd09::1]/')).body === 'hello\n');
  });

  await t.test('without the right it is withdrawn, and comes back with it', async (t) => {
    const line = (rights: string): string =>
      `  - { control: ctl1, interface: eth0, rights: [${rights}], protocols: ["*"] }`;
    await lab.lab.permit(line('read, write, vif'));
    await until(async () => (await rowsOf(one, 'vip')).every((row) => row.includes('\twithdrawn\t')));
    t.match((await rowsOf(one, 'vip_rules'))[0], /\trefused\t/);
    await lab.lab.permit(line('read, write, vif, vip'));
    await until(async () => (await rowsOf(one, 'vip_rules')).filter((row) => row.includes('\tactive\t')).length === 2);
    t.equal((await get(lab, 'http://10.9.0.1/')).body, 'hello\n');
  });

  await t.test('what can not be is refused in one line that says what to do', async (t) => {
    const cases: [words: string[], said: RegExp][] = [
      [['add', 'fwd1/10.9.0.1'], /10\.9\.0\.1 is an address of this host already/],
      [['add', 'fwd1/10.9.0.77'], /no interface of fwd1 has the address 10\.9\.0\.77/],
      [['add', 'fwd1/10.8.0.1'], /a forwarder is reached at 10\.8\.0\.1/],
      [['add', 'fwd9/10.9.0.1'], /has no forwarder fwd9/],
      [['remove', 'fwd1/10.9.0.77'], /there is no virtual IP address fwd1\/10\.9\.0\.77/],
    ];
    for (const [words, said] of cases) {
      const { status, stderr } = await fwdfs(one, 'vip', ...words);
      t.equal(status, 1, words.join(' '));
      t.match(stderr, said);
      t.match(stderr, /^fwdfs: [^\n]+\n$/);
    }
  });

  await t.test('removing it leaves nothing, here and at the forwarder', async (t) => {
    for (const vip of ['10.9.0.1', 'fd09::1']) {
      const { status, stderr } = await fwdfs(one, 'vip', 'remove', `fwd1/${vip}`);
      t.same([status, stderr], [0, '']);
    }
    t.equal(everything(one.netns), was.one);
    t.equal(atForwarder(lab.lab), was.fwd);
    const refused = await lab.interop.on(lab.lab.node, ['curl', '-s', '--max-time', '2', 'http://10.9.0.1/']);
    t.not(refused.status, 0);
  });

  await t.test('a control device that dies leaves what its next start sweeps', async (t) => {
    t.equal((await fwdfs(one, 'vip', 'add', 'fwd1/10.9.0.1')).status, 0);
    lab.killDevice(one);
    await until(() => lab.lab.control?.ended === true);
    t.not(everything(one.netns), was.one);
    await run(['umount', '-l', one.mountPoint]);
    await lab.lab.startControl();
    t.equal(everything(one.netns), was.one);
  });
});

t.test(
  'a rule can be switched from a virtual IF to a virtual IP address, and back',
  { skip: withoutRoot },
  async (t) => {
    const lab = await BalanceLab.start(1);
    t.teardown(() => lab.stop());
    const [one] = lab.devices;
    if (one === undefined) throw new Error('one control device');
    const modes = async (): Promise<string[]> =>
      (await lab.lab.table('distribution')).flatMap((row) => row.filter((cell) => cell === 'vip' || cell === 'socket'));
    const frames = async (): Promise<number> => Number((await rowsOf(one, 'vif'))[0]?.split('\t')[6]);
    const slow = (file: string): Promise<Result> =>
      lab.interop.on(
        lab.lab.node,
        [
          'curl',
          '-sS',
          '--limit-rate',
          '1M',
          '--max-time',
          '30',
          '-o',
          `${lab.lab.folder}/${file}`,
          '-w',
          '%{size_download}',
          'http://10.9.0.1/big',
        ],
        '',
        40_000,
      );

    t.equal((await fwdfs(one, 'vif', 'add', 'fwd1/eth0')).status, 0);
    lab.web(one, { big: Buffer.alloc(6 << 20, 'b') });
    await lab.untilRules(1);
    const first = slow('first');
    await until(async () => (await frames()) > 20);
    const added = await fwdfs(one, 'vip', 'add', 'fwd1/10.9.0.1', '--expose', 'tcp:80');
    t.same([added.status, added.stderr], [0, '']);
    await until(async () => (await modes()).includes('vip'));
    t.equal((await get(lab, 'http://10.9.0.1/')).server, 'ctl1');
    t.equal((await first).stdout.toString(), String(6 << 20), 'what was begun by the virtual IF goes on');
    const before = await frames();
    t.equal((await get(lab, 'http://10.9.0.1/big')).body.length, 6 << 20);
    t.ok((await frames()) - before < 20, 'new connections are converted');
    const second = slow('second');
    await until(async () => (await rowsOf(one, 'vip')).length === 1);
    t.equal((await fwdfs(one, 'vif', 'remove', 'fwd1/eth0')).status, 0);
    t.equal((await get(lab, 'http://10.9.0.1/')).server, 'ctl1', 'without the virtual IF');
    t.equal((await second).stdout.toString(), String(6 << 20));
    t.equal((await fwdfs(one, 'vif', 'add', 'fwd1/eth0', '--expose', 'tcp:80')).status, 0);
    t.equal((await fwdfs(one, 'vip', 'remove', 'fwd1/10.9.0.1')).status, 0);
    await until(async () => (await modes()).join() === 'socket');
    await until(async () => (await get(lab, 'http://10.9.0.1/').catch(() => null))?.server === 'ctl1');
  },
);
