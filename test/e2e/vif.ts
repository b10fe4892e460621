/**
 * Virtual IFs end to end: the device, whose sockets are published, and what is left when it goes. The lab's topology
 * (test/support/lab.ts), with fwd1-eth0 beside f0 in the namespace of the control device.
 *
 * Source text: Fig. 1, 9, 10, 24 to 27, 31 and 32; S209 to S217, S223 to S226, S801, S802, S1002, S901 to S903.
 */
import t from 'tap';
import { DEVICE, InteropLab, VIF_PERMISSIONS } from '../support/interop.js';
import { FWDFS, signalProcess, until } from '../support/lab.js';
import { Netns, withoutRoot } from '../support/netns.js';

/** What a virtual IF could leave in a namespace. */
async function traces(lab: InteropLab, netns: Netns): Promise<string> {
  const said = await Promise.all(
    [
      ['ip', '-br', 'link'],
      ['ip', 'rule'],
      ['ip', '-6', 'rule'],
      ['ip', 'route', 'show', 'table', 'all'],
      ['ip', '-6', 'route', 'show', 'table', 'all'],
      ['nft', 'list', 'ruleset'],
    ].map((words) => lab.says(netns, ...words)),
  );
  return said.join('---\n').replaceAll(/packets \d+ bytes \d+/g, '');
}

const links = (lab: InteropLab): Promise<string> => lab.says(lab.lab.ctl, 'ip', '-o', 'address', 'show', 'dev', DEVICE);

/** A listener of nc that stays. */
function listen(lab: InteropLab, netns: Netns, port: number): void {
  lab.lab.program([...netns.prefix, 'nc', '-l', '-k', '-p', String(port)], null);
}

const answers = async (lab: InteropLab, port: number, address = '10.9.0.1'): Promise<boolean> =>
  (await lab.on(lab.lab.node, ['nc', '-z', '-w', '1', address, String(port)])).status === 0;

t.test(
  'a virtual IF is what the interface is, while that changes, and leaves nothing behind',
  { skip: withoutRoot },
  async (t) => {
    const lab = await InteropLab.start();
    t.teardown(() => lab.stop());
    const { ctl, fwd, node } = lab.lab;
    await lab.says(fwd, 'ip', 'route', 'add', 'default', 'via', '10.9.0.2');
    const [before, forwarderBefore] = [await traces(lab, ctl), await traces(lab, fwd)];
    await lab.addVif();
    const mac = /link\/ether (\S+)/.exec(await lab.says(fwd, 'ip', 'link', 'show', 'eth0'))?.[1];
    t.match(
      await lab.says(ctl, 'ip', 'link', 'show', DEVICE),
      new RegExp(`mtu 1500 .*state (UP|UNKNOWN)[^]*link/ether ${mac}`),
    );
    t.match(await links(lab), /inet 10\.9\.0\.1\/24/);
    t.match(await links(lab), /inet6 fd09::1\/64/);
    t.match(await lab.says(ctl, 'ip', 'route'), /10\.9\.0\.0\/24 dev fwd1-eth0 .*metric 4096/);
    t.notMatch(await lab.says(ctl, 'ip', 'route'), /^default/m, 'the default route is not for everybody');
    t.match(
      await lab.says(ctl, 'ip', 'route', 'get', '192.0.2.1', 'from', '10.9.0.1'),
      /via 10\.9\.0\.2 dev fwd1-eth0/,
    );
    t.match(await lab.says(ctl, 'ip', 'route', 'get', '192.0.2.1', 'oif', DEVICE), /via 10\.9\.0\.2 dev fwd1-eth0/);
    await lab.says(ctl, 'ip', 'route', 'add', '10.55.0.0/16', 'via', '10.9.0.2', 'dev', DEVICE);
    await lab.says(ctl, 'ip', 'route', 'del', '10.55.0.0/16');

    await lab.says(fwd, 'ip', 'address', 'add', '10.9.1.1/24', 'dev', 'eth0');
    await until(async () => /inet 10\.9\.1\.1\/24/.test(await links(lab)));
    await lab.says(fwd, 'ip', 'address', 'del', '10.9.1.1/24', 'dev', 'eth0');
    await until(async () => !/10\.9\.1\.1/.test(await links(lab)));
    t.notMatch(await lab.says(ctl, 'ip', 'route', 'show', 'table', 'all'), /10\.9\.1\./);
    await lab.says(fwd, 'ip', 'link', 'set', 'eth0', 'mtu', '1400');
    await until(async () => /mtu 1400/.test(await lab.says(ctl, 'ip', 'link', 'show', DEVICE)));
    await lab.says(fwd, 'ip', 'link', 'set', 'eth0', 'address', '02:00:00:00:09:01');
    await until(async () => /02:00:00:00:09:01/.test(await lab.says(ctl, 'ip', 'link', 'show', DEVICE)));
    await lab.says(fwd, 'ip', 'link', 'set', 'eth0', 'down');
    await until(async () => !/[<,]UP[,>].*LOWER_UP/.test(await lab.says(ctl, 'ip', 'link', 'show', DEVICE)));
    await lab.says(fwd, 'ip', 'link', 'set', 'eth0', 'up');
    await until(async () => /[<,]UP[,>]?.*LOWER_UP/.test(await lab.says(ctl, 'ip', 'link', 'show', DEVICE)));
    listen(lab, ctl, 80);
    await lab.untilRule('tcp:80');
    await lab.says(node, 'ip', 'neigh', 'flush', 'all');
    await until(() => answers(lab, 80));

    await lab.fwdfs('vif', 'remove', 'fwd1/eth0');
    t.equal(await traces(lab, ctl), before);
    await lab.says(fwd, 'ip', 'link', 'set', 'eth0', 'mtu', '1500');
    await until(async () => (await lab.lab.table('distribution')).length === 0);
    t.notOk(await answers(lab, 80));
    t.equal(
      (await traces(lab, fwd)).replaceAll(/^.*eth0.*$/gm, '').replaceAll(/\s+/g, ' '),
      forwarderBefore.replaceAll(/^.*eth0.*$/gm, '').replaceAll(/\s+/g, ' '),
    );
  },
);

t.test('sockets from before are published only if they are exposed', { skip: withoutRoot }, async (t) => {
  const lab = await InteropLab.start();
  t.teardown(() => lab.stop());
  const { ctl } = lab.lab;
  listen(lab, ctl, 22);
  listen(lab, ctl, 81);
  await until(async () => /:81 /.test(await lab.says(ctl, 'ss', '-ltn')));
  await lab.addVif('tap', '--expose', 'tcp:81-90');
  listen(lab, ctl, 82);
  listen(lab, ctl, 91);
  await lab.untilRule('tcp:82');
  t.same(await lab.rules(), ['tcp:81', 'tcp:82']);
  await until(async () => /tcp:91\trefused.*--expose/.test(await lab.fwdfs('vif', 'list')));
  t.equal(lab.lab.control?.log.match(/is not published/g)?.length, 1, 'told once');
  t.same(
    [await answers(lab, 81), await answers(lab, 82), await answers(lab, 22), await answers(lab, 91)],
    [true, true, false, false],
  );
});

t.test('a capture on the virtual IF sees everything, and lets nothing in', { skip: withoutRoot }, async (t) => {
  const lab = await InteropLab.start();
  t.teardown(() => lab.stop());
  const { ctl, node, fwd } = lab.lab;
  listen(lab, ctl, 22);
  await until(async () => /:22 /.test(await lab.says(ctl, 'ss', '-ltn')));
  await lab.addVif();
  const capture = lab.lab.program([...ctl.prefix, 'tcpdump', '-nlU', '-i', DEVICE], null);
  await lab.untilRule('*');
  t.notOk(await answers(lab, 22), 'what was not published is not reachable');
  const said = await lab.says(node, 'ping', '-c', '3', '-i', '0.2', '10.9.0.1');
  t.notMatch(said, /DUP!/);
  await capture.untilOutput((output) => /> 10\.9\.0\.1: ICMP echo request/.test(output.toString()));
  await capture.untilOutput((output) => /10\.9\.0\.2\.\d+ > 10\.9\.0\.1\.22: Flags \[S\]/.test(output.toString()));
  await lab.says(node, 'ip', 'neigh', 'flush', 'all');
  const asked = await lab.says(node, 'arping', '-c', '2', '-I', 'n0', '10.9.0.1');
  t.match(asked, /Received 2 response/, 'ARP is answered exactly once');
  listen(lab, fwd, 5000);
  await capture.kill('SIGINT');
  await lab.untilRule('*', false);
});

t.test('a filter of a packet socket is applied at the forwarder', { skip: withoutRoot }, async (t) => {
  const lab = await InteropLab.start();
  t.teardown(() => lab.stop());
  const { ctl, node } = lab.lab;
  await lab.addVif();
  const capture = lab.lab.program([...ctl.prefix, 'tcpdump', '-nlU', '-i', DEVICE, 'udp', 'port', '4000'], null);
  await until(async () =>
    (await lab.lab.ownTable('vif_rules')).some(
      ([, protocol, state, , filter]) => protocol === '*' && state === 'active' && filter === 'yes',
    ),
  );
  await lab.says(node, 'ping', '-c', '3', '-i', '0.2', '10.9.0.1');
  await lab.says(node, 'bash', '-c', 'echo x > /dev/udp/10.9.0.1/4000');
  await capture.untilOutput((output) => /10\.9\.0\.1\.4000: UDP/.test(output.toString()));
  const [rule] = (await lab.lab.ownTable('vif_rules')).filter(([, protocol]) => protocol === '*');
  t.equal(rule?.[5], '1', 'only what it wants crosses');
});

t.test('arping and ndisc6 on the virtual IF get one answer', { skip: withoutRoot }, async (t) => {
  const lab = await InteropLab.start();
  t.teardown(() => lab.stop());
  const { ctl } = lab.lab;
  await lab.addVif();
  const arping = await lab.says(ctl, 'arping', '-c', '3', '-I', DEVICE, '10.9.0.2');
  t.match(arping, /Received 3 response/);
  t.match(await lab.says(ctl, 'ndisc6', '-1', 'fd09::2', DEVICE), /Target link-layer address/);
  await lab.says(ctl, 'ping', '-c', '1', '10.9.0.2');
  const mac = /link\/ether (\S+)/.exec(await lab.says(lab.lab.node, 'ip', 'link', 'show', 'n0'))?.[1] ?? '-';
  t.match(await lab.says(ctl, 'ip', 'neigh', 'show', 'dev', DEVICE), new RegExp(`10\\.9\\.0\\.2 .*${mac}`));
});

t.test('what the forwarder does not permit is refused, told once and shown', { skip: withoutRoot }, async (t) => {
  const permissions = '  - { control: ctl1, interface: eth0, rights: [read, vif], protocols: ["tcp:80", "udp"] }';
  const lab = await InteropLab.start({ permissions });
  t.teardown(() => lab.stop());
  const { ctl } = lab.lab;
  await lab.addVif();
  listen(lab, ctl, 80);
  listen(lab, ctl, 81);
  await lab.untilRule('tcp:80');
  await until(async () => /tcp:81\trefused/.test(await lab.fwdfs('vif', 'list')));
  t.same([await answers(lab, 80), await answers(lab, 81)], [true, false]);
  await lab.lab.permit(VIF_PERMISSIONS);
  await lab.untilRule('tcp:81');
  t.ok(await answers(lab, 81));
  await lab.lab.permit('  - { control: ctl1, interface: eth0, rights: [vif], protocols: ["tcp:81"] }');
  await lab.untilRule('tcp:80', false);
  t.same([await answers(lab, 80), await answers(lab, 81)], [false, true]);
});

t.test(
  'the right vif is needed, and an interface at whose address the forwarder is reached is refused',
  { skip: withoutRoot },
  async (t) => {
    const lab = await InteropLab.start({
      permissions:
        '  - { control: ctl1, interface: c0, rights: [vif] }\n  - { control: ctl1, interface: "*", rights: [read, write] }',
      interfaces: '  c0: { unmatched: host }',
    });
    t.teardown(() => lab.stop());
    await t.rejects(lab.addVif(), /does not permit eth0 as a virtual IF/);
    await t.rejects(lab.fwdfs('vif', 'add', 'fwd1/c0'), /use --netns/);
    await t.rejects(lab.fwdfs('vif', 'add', 'fwd1/eth7'), /has no interface eth7/);
    t.equal(await lab.says(lab.lab.ctl, 'bash', '-c', 'ip -br link | grep -c fwd1 || true'), '0\n');
  },
);

t.test(
  '--netns and exec: a namespace with nothing but the virtual IF, where all sockets count',
  { skip: withoutRoot },
  async (t) => {
    const lab = await InteropLab.start();
    const web = new Netns('web');
    t.teardown(async () => {
      await lab.stop();
      web.remove();
    });
    const { ctl, fwd, node } = lab.lab;
    await lab.says(fwd, 'ip', 'route', 'add', 'default', 'via', '10.9.0.2');
    await lab.says(node, 'ip', 'address', 'add', '192.0.2.80/32', 'dev', 'lo');
    listen(lab, web, 83);
    await until(async () => /:83 /.test(await lab.says(web, 'ss', '-ltn')));
    await lab.addVif('tap', '--netns', web.name);
    await lab.untilRule('tcp:83');
    t.ok(await answers(lab, 83));
    t.match(
      await lab.says(web, 'ping', '-c', '1', '192.0.2.80'),
      /1 received/,
      'its default route is that of the forwarder',
    );
    t.equal(await lab.says(ctl, 'bash', '-c', 'ip -br link | grep -c fwd1 || true'), '0\n');
    await lab.fwdfs('vif', 'remove', 'fwd1/eth0');
    t.equal((await lab.says(web, 'ip', '-br', 'link')).trim().split('\n').length, 1);

    const said = await lab
      .fwdfs('exec', 'fwd1/eth0', '--', 'bash', '-c', 'ping -c 1 192.0.2.80; ip -br link; exit 7')
      .catch(String);
    t.match(said, /fwdfs exec/, 'its exit status is the command’s');
    const shown = await lab.fwdfs('exec', 'fwd1/eth0', '--', 'bash', '-c', 'ping -c 1 192.0.2.80; ip -br link');
    t.match(shown, /1 received/);
    t.match(shown, /^fwd1-eth0 /m);
    await until(async () => (await lab.lab.ownTable('vif')).length === 0);
    await until(async () => (await lab.lab.table('distribution')).length === 0);
  },
);

t.test(
  'a virtual IF goes with the control device, also when that is killed; the next start sweeps',
  { skip: withoutRoot },
  async (t) => {
    const lab = await InteropLab.start();
    t.teardown(() => lab.stop());
    const { ctl } = lab.lab;
    const before = await traces(lab, ctl);
    await lab.addVif();
    listen(lab, ctl, 80);
    await lab.untilRule('tcp:80');
    await lab.lab.control?.end('SIGTERM');
    t.equal(await traces(lab, ctl), before, 'after SIGTERM');
    await lab.lab.startControl();
    await lab.addVif();
    signalProcess(lab.lab.control?.pid, 'SIGKILL');
    await until(() => lab.lab.control?.ended === true);
    await lab.says(ctl, 'umount', '-l', lab.lab.mountPoint);
    await until(async () => !/fwd1-eth0/.test(await lab.says(ctl, 'ip', '-br', 'link')));
    await lab.lab.startControl();
    await until(async () => (await traces(lab, ctl)) === before);
  },
);

t.test('rules come back after the forwarder was restarted, and after a cut', { skip: withoutRoot }, async (t) => {
  const lab = await InteropLab.start();
  t.teardown(() => lab.stop());
  const { ctl } = lab.lab;
  await lab.addVif();
  listen(lab, ctl, 80);
  await lab.untilRule('tcp:80');
  await lab.lab.forwarder?.end('SIGKILL');
  await lab.lab.startForwarder();
  await lab.untilRule('tcp:80');
  await until(() => answers(lab, 80), 20_000);
  t.match(await lab.says(ctl, 'ping', '-c', '1', '10.9.0.2'), /1 received/);
});

t.test(
  'a virtual IF of a configuration file is there by itself, when its right is, and goes with the control device',
  { skip: withoutRoot },
  async (t) => {
    const lab = await InteropLab.start({ permissions: '  - { control: ctl1, interface: eth0, rights: [read] }' });
    t.teardown(() => lab.stop());
    const { ctl, folder } = lab.lab;
    await lab.lab.control?.end();
    const before = await traces(lab, ctl);
    const forwarder = `{ url: "ws://10.8.0.1:7440", token_file: ${folder}/token }`;
    const config = lab.file(
      'control.yaml',
      `name: ctl1\nforwarders: { fwd1: ${forwarder} }\nvifs: [ { interface: fwd1/eth0 } ]\n`,
    );
    lab.file('other/.keep', '');
    const mount = [process.execPath, FWDFS, 'mount', '-f', '-o', 'nonempty', config, `${folder}/other`];
    const control = lab.daemon(ctl, mount);
    await control.until(/virtual IF not added yet/);
    await lab.lab.permit(VIF_PERMISSIONS);
    await control.until(/"virtual IF added"/);
    t.match(await links(lab), /inet 10\.9\.0\.1\/24/);
    await control.end('SIGTERM');
    t.equal(await traces(lab, ctl), before);
  },
);
