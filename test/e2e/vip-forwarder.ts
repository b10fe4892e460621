/**
 * Virtual IP addresses at a forwarder that runs, by messages; the kernel of the control device is set up by hand.
 *
 *     node 10.9.0.2 ----- eth0 10.9.0.1 | forwarder | c0 10.8.0.1 ----- f0 10.8.0.2, 10.9.0.1 on lo: ctl2
 */
import t from 'tap';
import { Lab, shell, until } from '../support/lab.js';
import { withoutRoot } from '../support/netns.js';
import { macOf, nft } from '../support/vip-lab.js';
import { VifPuppet } from '../support/vif-puppet.js';

const VIP = '10.9.0.1';
const SENDER = '169.254.7.2';
const permissions = (rights: string, protocols = '"*"'): string =>
  `  - { control: ctl1, interface: eth0, rights: [read, vif], protocols: ["*"] }
  - { control: ctl2, interface: eth0, rights: [${rights}], protocols: [${protocols}] }`;
const EVERYTHING = 'read, write, inject, vif, vip';

interface Scene {
  readonly lab: Lab;
  readonly puppet: VifPuppet;
  /** @param by default: the puppet */
  register(by?: VifPuppet): Promise<{ interface: string; nextHop: string; link: string }>;
  /** What a client gets; '' when it does not get through. */
  greeting(): Promise<string>;
}

async function setUp(t: { teardown: (undo: () => unknown) => void }): Promise<Scene> {
  const lab = await Lab.start({
    controls: ['ctl1', 'ctl2'],
    permissions: permissions(EVERYTHING),
    eth0: '{ unmatched: discard, host: [icmp] }',
  });
  t.teardown(() => lab.stop());
  const { ctl } = lab;
  ctl.run(`ip addr add ${VIP}/32 dev lo`);
  ctl.run(`ip rule add from ${VIP} lookup 100`);
  ctl.run('ip route add default via 10.8.0.1 dev f0 table 100');
  nft(
    ctl,
    `table inet hand {
      chain in { type nat hook prerouting priority dstnat; ip daddr ${SENDER} dnat ip to ${VIP}; }
      chain out { type nat hook postrouting priority srcnat; oifname "f0" ip saddr ${VIP} snat ip to ${SENDER}; }
    }`,
  );
  lab.program(
    [...ctl.prefix, 'socat', `TCP-LISTEN:80,bind=${VIP},fork,reuseaddr`, 'SYSTEM:echo from $SOCAT_PEERADDR'],
    null,
  );
  const puppet = await VifPuppet.connect(lab, 'ctl2');
  t.teardown(() => puppet.close());
  return {
    lab,
    puppet,
    register: (by = puppet) =>
      by.ask('address-conversion-request', {
        vip: VIP,
        sender: SENDER,
        nextHop: '10.8.0.2',
        link: macOf(ctl, 'f0'),
      }),
    greeting: async () => {
      const words = [...lab.node.prefix, 'socat', '-T2', '-u', `TCP:${VIP}:80,connect-timeout=1`, 'STDOUT'];
      return (await shell(words.join(' '))).stdout.toString().trim();
    },
  };
}

async function rowsOf(puppet: VifPuppet, table: string): Promise<string[][]> {
  return (await puppet.ask('table-request', { table })).rows;
}

/** What of it the kernel of the forwarder has. */
const left = (lab: Lab): string =>
  [lab.fwd.run('ip route'), lab.fwd.run('nft list tables'), lab.fwd.run('sysctl -n net.ipv4.conf.eth0.forwarding')]
    .join('')
    .split('\n')
    .filter((line) => /169\.254|\/vip|^1$/.test(line))
    .join(', ');

t.test(
  'an address and the rules of its sockets come by messages, are shown, and go',
  { skip: withoutRoot },
  async (t) => {
    const { lab, puppet, register, greeting } = await setUp(t);
    await t.rejects(puppet.vipRule(VIP, `tcp:${VIP}:80`), { code: 'no-such-vip' });
    t.match(await register(), { interface: 'eth0', nextHop: '10.8.0.1', link: macOf(lab.fwd, 'c0') });
    t.equal(await greeting(), '', 'discarded without a rule');
    const up = await puppet.vipRule(VIP, `tcp:${VIP}:80`);
    t.equal(await greeting(), 'from 10.9.0.2');

    await t.rejects(puppet.vipRule(VIP, 'tcp:80'), { code: 'bad-message' });
    await t.rejects(puppet.vipRule(VIP, `icmp:${VIP}`), { code: 'bad-message' });
    await t.rejects(puppet.vipRule('10.9.0.7', 'tcp:10.9.0.7:80'), { code: 'no-such-vip' });
    await t.rejects(puppet.vipRule(VIP, `tcp:${VIP}:7440`), { code: 'claimed' }, 'the port of the forwarder itself');

    const rows = await lab.table('distribution');
    t.match(
      rows.find((row) => row[10] === 'vip'),
      [
        'eth0',
        `tcp:${VIP}:80`,
        'in',
        String(up),
        'ctl2',
        '10.8.0.2',
        'active',
        /^[1-9]/,
        /^[1-9]/,
        '0',
        'vip',
        '1',
        '100.0%',
        '1',
      ],
    );
    t.match(await rowsOf(puppet, 'vip_distribution'), [['eth0', VIP, 'tcp', '80', SENDER, 'ctl2', '1/1']]);
    t.same(await rowsOf(puppet, 'vip_reception'), [[SENDER, VIP, 'ctl2', 'c0', macOf(lab.ctl, 'f0')]]);

    await puppet.ask('transfer-deletion-request', { upTunnel: up });
    await until(async () => (await rowsOf(puppet, 'vip_distribution')).length === 0);
    t.equal(await greeting(), '');
    await puppet.vipRule(VIP, `tcp:${VIP}:80`);
    await puppet.ask('address-conversion-deletion-request', { vip: VIP });
    t.same(await rowsOf(puppet, 'vip_reception'), []);
    t.notOk(
      (await lab.table('distribution')).some((row) => row[10] === 'vip'),
      'its rules go with it',
    );
    await t.rejects(puppet.vipRule(VIP, `tcp:${VIP}:80`), { code: 'no-such-vip' });
  },
);

t.test('rights that go take rules and addresses with them', { skip: withoutRoot }, async (t) => {
  const { lab, puppet, register, greeting } = await setUp(t);
  await register();
  const up = await puppet.vipRule(VIP, `tcp:${VIP}:80`);
  const other = await puppet.vipRule(VIP, `udp:${VIP}:53`);
  await lab.permit(permissions(EVERYTHING, '"tcp"'));
  await until(() => puppet.withdrawn.length === 1);
  t.same(puppet.withdrawn, [other]);
  t.equal(await greeting(), 'from 10.9.0.2');
  await t.rejects(puppet.vipRule(VIP, `udp:${VIP}:53`), { code: 'not-permitted' });
  await lab.permit(permissions('read, vif'));
  await until(() => puppet.withdrawnVips.length === 1);
  t.same(puppet.withdrawnVips, [`${VIP} not-permitted`]);
  t.same(puppet.withdrawn, [other, up]);
  t.equal(await greeting(), '');
  await t.rejects(register(), { code: 'not-permitted' });
});

t.test('an address that the interface loses is withdrawn', { skip: withoutRoot }, async (t) => {
  const { lab, puppet, register } = await setUp(t);
  await register();
  await puppet.vipRule(VIP, `tcp:${VIP}:80`);
  lab.fwd.run(`ip addr del ${VIP}/24 dev eth0`);
  await until(() => puppet.withdrawnVips.length === 1);
  t.same(puppet.withdrawnVips, [`${VIP} interface-gone`]);
  t.notOk((await lab.table('distribution')).some((row) => row[10] === 'vip'));
});

t.test('a claim and a virtual IP address exclude each other on a port', { skip: withoutRoot }, async (t) => {
  const { lab, puppet, register } = await setUp(t);
  await register();
  const up = await puppet.vipRule(VIP, `tcp:${VIP}:80`);
  const claim = (): Promise<unknown> =>
    puppet.ask('transfer-request', {
      upTunnel: 1000,
      control: '',
      protocol: 'tcp:80',
      symbol: 'eth0:tcp:80:claim',
      interface: 'eth0',
      scope: 'in',
      claim: true,
      credit: 1000,
    });
  await t.rejects(claim(), { code: 'claimed' });
  await puppet.ask('transfer-deletion-request', { upTunnel: up });
  await claim();
  await t.rejects(puppet.vipRule(VIP, `tcp:${VIP}:80`), { code: 'claimed' });
  t.ok(lab.forwarder);
});

t.test(
  'nothing is left when the session ends, the forwarder stops, or starts after a crash',
  { skip: withoutRoot },
  async (t) => {
    const { lab, puppet, register, greeting } = await setUp(t);
    await register();
    await puppet.vipRule(VIP, `tcp:${VIP}:80`);
    t.equal(await greeting(), 'from 10.9.0.2');
    t.match(left(lab), /169\.254\.7\.2.*\/vip.*1/);
    await lab.forwarder?.end('SIGKILL');
    puppet.close();
    t.match(left(lab), /169\.254\.7\.2.*\/vip.*1/, 'a crash leaves it');
    await lab.startForwarder();
    t.notMatch(left(lab), /169\.254|1$/, 'the table stays, empty, for connections that may go on');

    const second = await VifPuppet.connect(lab, 'ctl2');
    t.teardown(() => second.close());
    await register(second);
    await second.vipRule(VIP, `tcp:${VIP}:80`);
    t.equal(await greeting(), 'from 10.9.0.2');
    second.close();
    await until(() => !/169\.254|1$/.test(left(lab)));

    const third = await VifPuppet.connect(lab, 'ctl2');
    t.teardown(() => third.close());
    await register(third);
    await lab.forwarder?.end();
    t.equal(left(lab), '');
  },
);
