/**
 * What the tree says: attributes, tables, state and commands, against what the kernels say.
 *
 *     node n0 ===== eth0 forwarder c0 ===== f0 control device
 *                   ip -j                      .if  .tables  .state  .ctl  .version
 */
import t from 'tap';
import { DISTRIBUTION_COLUMNS } from '../../src/forwarder/distribution-rows.js';
import { Lab, run, shell, until } from '../support/lab.js';
import { withoutRoot } from '../support/netns.js';
import { macOf, numbered, python, send, untilTestFrames } from '../support/traffic.js';

interface Address {
  family: string;
  local: string;
  prefixlen: number;
}

interface Link {
  ifindex: number;
  mtu: number;
  operstate: string;
  address: string;
  addr_info: Address[];
}

t.test('the tree', { skip: withoutRoot, timeout: 60_000 }, async (t) => {
  const lab = await Lab.start();
  t.teardown(() => lab.stop());
  const read = async (name: string): Promise<string> => {
    const { stdout, stderr, status } = await run(['cat', lab.file(name)]);
    if (status !== 0) throw new Error(stderr);
    return stdout.toString();
  };
  const kernel = (): Link => (JSON.parse(lab.fwd.run('ip -j addr show eth0')) as Link[])[0] as Link;
  const expected = (link: Link): Record<string, string> => {
    const prefixes = (family: string): string =>
      link.addr_info
        .filter((one) => one.family === family)
        .map((one) => `${one.local}/${one.prefixlen}`)
        .sort()
        .join();
    return {
      address: `${link.address}\n`,
      mtu: `${link.mtu}\n`,
      ifindex: `${link.ifindex}\n`,
      operstate: `${link.operstate.toLowerCase()}\n`,
      inet: prefixes('inet'),
      inet6: prefixes('inet6'),
    };
  };
  const shown = async (): Promise<Record<string, string>> => {
    const names = ['address', 'mtu', 'ifindex', 'operstate', 'inet', 'inet6'];
    const values = await Promise.all(names.map((name) => read(`.if/eth0/${name}`)));
    return Object.fromEntries(
      values.map((value, index) => {
        const name = names[index] ?? '';
        return [name, name.startsWith('inet') ? value.trimEnd().split('\n').sort().join() : value];
      }),
    );
  };
  /** How many ms until the attributes are the kernel's. */
  const follow = async (): Promise<number> => {
    const start = performance.now();
    const want = JSON.stringify(expected(kernel()));
    await until(
      async () => JSON.stringify(await shown()) === want,
      5000,
      () => `never ${want}`,
    );
    return performance.now() - start;
  };

  await t.test('attributes of an interface are those that the kernel of the forwarder has', async (t) => {
    await follow();
    t.same(await shown(), expected(kernel()));
    const namespace = `mount -t sysfs sysfs /sys; cat /sys/class/net/eth0/flags /sys/class/net/eth0/speed`;
    const sysfs = await run([...lab.fwd.prefix, 'unshare', '-m', 'sh', '-c', namespace]);
    const [flags = '', speed = ''] = sysfs.stdout.toString().split('\n');
    t.equal(await read('.if/eth0/speed'), `${speed}\n`);
    t.equal(Number(await read('.if/eth0/flags')) & Number(flags), Number(flags), 'and those that netlink adds');
    t.equal(await read('.if/eth0/linktype'), '1\n');
    const listed = await run(['ls', lab.file('.if'), lab.file('.if/eth0')]);
    t.match(
      listed.stdout.toString(),
      /eth0\n[^]*address\nflags\nifindex\ninet\ninet6\nlinktype\nmtu\noperstate\nspeed\nstatistics\n/,
    );
  });

  await t.test('attributes follow every change within a second', async (t) => {
    for (const change of [
      'ip link set eth0 mtu 1400',
      'ip addr add 10.9.7.1/25 dev eth0',
      'ip addr add fd09:7::1/64 dev eth0 nodad',
      'ip addr del 10.9.7.1/25 dev eth0',
      'ip addr del fd09:7::1/64 dev eth0',
      'ip link set eth0 address 02:00:00:00:00:77',
      'ip link set eth0 mtu 1500',
      'ip link set eth0 down',
      'ip link set eth0 up',
      'ip addr add fd09::1/64 dev eth0 nodad',
    ]) {
      lab.fwd.run(change);
      const ms = await follow();
      t.comment(`${change}: shown after ${Math.round(ms)} ms`);
    }
  });

  await t.test('statistics are those of the kernel', async (t) => {
    await send(lab.node, 'n0', numbered(100, 1000));
    const stats = (
      JSON.parse(lab.fwd.run('ip -j -s link show eth0')) as { stats64: Record<string, Record<string, number>> }[]
    )[0];
    for (const [name, value] of [
      ['rx_packets', stats?.stats64['rx']?.['packets']],
      ['rx_bytes', stats?.stats64['rx']?.['bytes']],
      ['tx_bytes', stats?.stats64['tx']?.['bytes']],
    ] as const) {
      const found = Number(await read(`.if/eth0/statistics/${name}`));
      t.ok(found >= (value ?? Infinity) && found < (value ?? 0) + 2000, `${name}: ${found}, the kernel has ${value}`);
    }
  });

  await t.test('.state and .version say how it is connected', async (t) => {
    const state = await lab.state();
    t.same(
      [...state.keys()],
      ['state', 'since', 'forwarder', 'address', 'round_trip_ms', 'version', 'resumed', 'draining', 'last_error'],
    );
    t.equal(state.get('state'), 'connected');
    t.equal(state.get('forwarder'), 'fwd1');
    t.equal(state.get('address'), '10.8.0.1');
    t.equal(state.get('resumed'), '0');
    t.equal(state.get('last_error'), '-');
    t.ok(Date.now() - Date.parse(state.get('since') ?? '') < 60_000);
    t.match(
      (await run(['cat', `${lab.mountPoint}/.version`])).stdout.toString(),
      /^fwdfs \d+\.\d+\.\d+\nprotocol \d+\n$/,
    );
  });

  await t.test('text files are read-only, and read byte by byte they are of one moment', async (t) => {
    const script = `
show([tried(name, flags) for name in ('.state', '.tables/distribution', '.if/eth0/mtu') for flags in (os.O_WRONLY, os.O_RDWR)])
fd = os.open(p('.tables/distribution'), os.O_RDONLY)
first = os.read(fd, 1)
other = os.open(p('eth0'), os.O_RDONLY)
rest = b''
while True:
    byte = os.read(fd, 1)
    if not byte: break
    rest += byte
show((first + rest).decode())
show(open(p('.tables/distribution')).read().count('\\n'))
show([os.pread(fd, 9, 0).decode(), os.stat(p('.state')).st_size])
`;
    const header = `${DISTRIBUTION_COLUMNS.join('\t')}\n`;
    t.same(await python(lab, script), [Array(6).fill('EACCES'), header, 2, ['interface', 0]]);
    await until(async () => (await lab.table('distribution')).length === 0);
  });

  const command = async (line: string, where = lab.file('.ctl')): Promise<string> => {
    const result = await shell(`echo '${line}' > ${where}`);
    return result.status === 0 ? 'ok' : (/: ([^:]+)\n$/.exec(result.stderr)?.[1] ?? result.stderr);
  };

  await t.test('.ctl sets and removes a rule by hand', async (t) => {
    t.equal(await command('rule add eth0:udp:520'), 'ok');
    const rows = await lab.table('distribution');
    t.same(
      rows.map((row) => row.slice(0, 3)),
      [['eth0', 'udp:520', 'in']],
    );
    t.equal(await command('rule add eth0:UDP:0.0.0.0:520'), 'File exists', 'the same rule');
    const reader = await lab.reader('eth0:udp:520');
    t.equal((await lab.table('distribution')).length, 1, 'an open file shares it');
    t.equal(await command('rule remove eth0:udp:520'), 'ok');
    t.equal((await lab.table('distribution')).length, 1, 'it stays for the open file');
    await reader.kill();
    await until(async () => (await lab.table('distribution')).length === 0);
    t.equal(await command('rule remove eth0:udp:520'), 'No such file or directory');
    for (const [line, error] of [
      ['rule add eth9', 'No such file or directory'],
      ['rule add eth0:udp:0', 'Invalid argument'],
      ['rule add', 'Invalid argument'],
      ['rule', 'Invalid argument'],
      ['rule add eth0 eth0', 'Invalid argument'],
      ['no such command', 'Invalid argument'],
      ['', 'ok'],
    ] as const) {
      t.equal(await command(line), error, line);
    }
    t.same(await lab.table('distribution'), []);
  });

  await t.test('several commands in one write are carried out up to the first that fails', async (t) => {
    const script = `
fd = os.open(p('.ctl'), os.O_WRONLY)
show(err(os.write, fd, b'rule add eth0:arp\\nrule add eth0:icmp\\nnonsense\\nrule add eth0:tcp\\n'))
show([os.write(fd, b'rule re'), os.write(fd, b'move eth0:ic'), len(rules()), os.write(fd, b'mp\\nrule remo'), len(rules())])
show([os.write(fd, b've eth0:arp'), len(rules()), err(os.close, fd), len(rules())])
show(err(os.close, os.open(p('.ctl'), os.O_WRONLY)))
`;
    const [error, cut, last, nothing] = await python(lab, script);
    t.equal(error, 'EINVAL');
    t.same(cut, [7, 12, 2, 12, 1], 'a command may be cut over several writes');
    t.same(last, [11, 1, null, 0], 'the last one needs no end of line');
    t.equal(nothing, null);
  });

  await t.test('packets of a rule that nobody reads are counted', async (t) => {
    t.equal(await command('rule add eth0:ether:0x88b5'), 'ok');
    const before = await lab.counter('drop_no_reader');
    await send(lab.node, 'n0', numbered(7, 100, macOf(lab.fwd, 'eth0')));
    await until(async () => (await lab.counter('drop_no_reader')) === before + 7);
    const reader = await lab.reader('eth0:ether:0x88b5');
    await send(lab.node, 'n0', numbered(1, 100, macOf(lab.fwd, 'eth0')));
    await untilTestFrames(reader, 1);
    await reader.kill();
    t.equal(await command('rule remove eth0:ether:0x88b5'), 'ok');
    await until(async () => (await lab.table('distribution')).length === 0);
  });

  await t.test(
    'forwarders come and go by the .ctl of the root; one that is not reached answers ENETDOWN',
    async (t) => {
      const root = `${lab.mountPoint}/.ctl`;
      const add = 'forwarder add dead=ws://10.8.0.1:7499';
      t.equal(await command(add, root), 'ok');
      t.equal(await command(add, root), 'File exists');
      const script = `
dead = base + '/dead'
show(sorted(os.listdir(base)))
show(sorted(os.listdir(dead)))
show([err(os.open, dead + '/' + name, flags) for name in ('eth0', 'eth0:udp:520', 'anything') for flags in (os.O_RDONLY, os.O_WRONLY)])
show([err(os.open, dead + '/.tables/distribution', os.O_RDONLY), err(os.open, dead + '/eth0:nonsense', os.O_RDONLY)])
deadline = time.monotonic() + 5
while True:
    state = open(dead + '/.state').read()
    if 'ECONNREFUSED' in state or time.monotonic() > deadline: break
show(state)
`;
      const [forwarders, listed, opened, others, state] = await python(lab, script);
      t.same(forwarders, ['.ctl', '.tables', '.version', 'dead', 'fwd1']);
      t.same(listed, ['.ctl', '.if', '.state', '.tables']);
      t.same(opened, Array(6).fill('ENETDOWN'));
      t.same(others, ['ENETDOWN', 'EINVAL']);
      t.match(state, /^state\tnot connected\n[^]*last_error\t.*ECONNREFUSED/);
      t.equal(await command('rule add eth0', `${lab.mountPoint}/dead/.ctl`), 'Network is down');
      t.equal(await command('forwarder remove dead', root), 'ok');
      t.equal(await command('forwarder remove dead', root), 'No such file or directory');
      t.equal((await run(['ls', lab.mountPoint])).stdout.toString(), 'fwd1\n');
      for (const line of [
        'forwarder',
        'forwarder add',
        'forwarder add x',
        'forwarder add a=http://b',
        'rule add eth0',
      ]) {
        t.equal(await command(line, root), 'Invalid argument', line);
      }
    },
  );

  await t.test('readers of a forwarder that is removed get the end of the file', async (t) => {
    const root = `${lab.mountPoint}/.ctl`;
    t.equal(await command(`forwarder add again=ws://10.8.0.1:7440`, root), 'ok');
    const file = `${lab.mountPoint}/again/eth0`;
    await until(async () => (await run(['stat', '-c', '%a', file])).stdout.toString() === '600\n');
    const reader = lab.program(['/bin/bash', '-c', 'exec 3<"$1" && echo open >&2 && exec cat <&3 3<&-', '-', file]);
    await reader.untilStderr(/open\n/);
    t.equal(await command('forwarder remove again', root), 'ok');
    const { status, stderr } = await reader.ended;
    t.equal(status, 0, stderr);
    await until(async () => (await lab.table('distribution')).length === 0);
  });
});
