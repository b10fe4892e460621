/** What lives below and beside sockets with ports: DHCP, LLDP, ping, traceroute, ARP, path MTU discovery. */
import t from 'tap';
import { DEVICE, InteropLab, nginx, type Kind } from '../support/interop.js';
import { until } from '../support/lab.js';
import { connectVeth, Netns, withoutRoot } from '../support/netns.js';

const KINDS: readonly Kind[] = ['tap', 'tun'];

t.test('tap: dnsmasq hands out a lease through the interface', { skip: withoutRoot }, async (t) => {
  const lab = await InteropLab.start();
  t.teardown(() => lab.stop());
  const { node, ctl, folder } = lab.lab;
  await lab.addVif('tap');
  const daemon = lab.daemon(ctl, [
    ...['dnsmasq', '--keep-in-foreground', '--conf-file=/dev/null', '--user=root', '--pid-file=', '--port=0'],
    ...['--log-facility=-', '--log-dhcp', `--dhcp-leasefile=${folder}/leases`, `--interface=${DEVICE}`],
    ...['--dhcp-range=10.9.0.100,10.9.0.110,1h', '--dhcp-option=option:router,10.9.0.1'],
  ]);
  await lab.untilRule('udp:67');
  await lab.says(node, 'ip', 'address', 'flush', 'dev', 'n0');
  const script = lab.file(
    'lease.sh',
    '#!/bin/sh\n[ "$1" = bound ] && ip address add "$ip/24" dev "$interface"\nexit 0\n',
  );
  await lab.says(node, 'chmod', '+x', script);
  const client = await lab.on(node, ['udhcpc', '-f', '-q', '-n', '-t', '5', '-T', '2', '-i', 'n0', '-s', script]);
  t.match(client.stderr + client.stdout.toString(), /lease of 10\.9\.0\.1\d\d obtained/);
  t.match(await lab.says(node, 'ip', 'address', 'show', 'dev', 'n0'), /inet 10\.9\.0\.1[01]\d\/24/);
  t.match(daemon.log, /DHCPACK\(fwd1-eth0\)/);
  await daemon.end();
  await lab.untilRule('udp:67', false);
});

t.test('tap: two lldpds see each other', { skip: withoutRoot }, async (t) => {
  const lab = await InteropLab.start();
  t.teardown(() => lab.stop());
  const { node, ctl, folder } = lab.lab;
  await lab.addVif('tap');
  const words = (name: string, device: string): string[] => [
    ...['lldpd', '-d', '-u', `${folder}/${name}.lldp`, '-I', device, '-C', device, '-S', name],
  ];
  const here = lab.daemon(ctl, words('control', DEVICE));
  lab.daemon(node, words('node', 'n0'));
  const seen = async (name: string): Promise<string> => {
    const result = await lab.on(node, [
      'lldpcli',
      '-u',
      `${folder}/${name}.lldp`,
      '-f',
      'keyvalue',
      'show',
      'neighbors',
    ]);
    return result.stdout.toString();
  };
  await until(
    async () => /SysDescr:|descr=node/.test(await seen('control')),
    60_000,
    () => here.log,
  );
  await until(async () => /descr=control/.test(await seen('node')), 60_000);
});

for (const kind of KINDS) {
  t.test(`${kind}: ping, both ways`, { skip: withoutRoot }, async (t) => {
    const lab = await InteropLab.start();
    t.teardown(() => lab.stop());
    const { node, ctl } = lab.lab;
    await lab.addVif(kind);
    const ping = ['ping', '-c', '3', '-i', '0.2', '-W', '2'];
    for (const [netns, address] of [
      [ctl, '10.9.0.2'],
      [ctl, 'fd09::2'],
      [node, '10.9.0.1'],
      [node, 'fd09::1'],
    ] as const) {
      const said = await lab.says(netns, ...ping, address);
      t.match(said, /3 packets transmitted, 3 received, 0% packet loss/, address);
      t.notMatch(said, /DUP!/, 'answered exactly once');
    }
  });

  t.test(`${kind}: traceroute out, and in where the host is named for it`, { skip: withoutRoot }, async (t) => {
    const lab = await InteropLab.start({ eth0: '{ unmatched: discard, host: [icmp, "udp:33434-33534"] }' });
    t.teardown(() => lab.stop());
    const { node, ctl } = lab.lab;
    await lab.addVif(kind);
    t.match(
      await lab.says(ctl, 'traceroute', '-n', '-w', '2', '-q', '1', '-m', '3', '10.9.0.2'),
      /1 {2}10\.9\.0\.2 .* ms/,
    );
    t.match(
      await lab.says(node, 'traceroute', '-n', '-w', '2', '-q', '1', '-m', '3', '10.9.0.1'),
      /1 {2}10\.9\.0\.1 .* ms/,
    );
  });

  t.test(
    `${kind}: path MTU discovery: a server learns of a narrow link behind a router`,
    { skip: withoutRoot },
    async (t) => {
      const lab = await InteropLab.start();
      const far = new Netns('far');
      t.teardown(async () => {
        await lab.stop();
        far.remove();
      });
      const { node, ctl, fwd } = lab.lab;
      connectVeth(
        { netns: node, name: 'm0', addresses: ['10.11.0.1/24'] },
        { netns: far, name: 'm1', addresses: ['10.11.0.2/24'] },
      );
      for (const [netns, device] of [
        [node, 'm0'],
        [far, 'm1'],
      ] as const) {
        await lab.says(netns, 'ip', 'link', 'set', device, 'mtu', '1300');
      }
      await lab.says(node, 'sysctl', '-qw', 'net.ipv4.ip_forward=1');
      await lab.says(far, 'ip', 'route', 'add', 'default', 'via', '10.11.0.1');
      // The route of the forwarder is mirrored into the table of the virtual IF.
      await lab.says(fwd, 'ip', 'route', 'add', '10.11.0.0/24', 'via', '10.9.0.2');
      await lab.addVif(kind);
      lab.daemon(ctl, nginx(lab, { large: Buffer.alloc(1 << 20, 'x') }));
      await lab.untilRule('tcp:80');
      const result = await lab.on(far, ['curl', '-sS', '--max-time', '15', 'http://10.9.0.1/large']);
      t.equal(result.stdout.length, 1 << 20, result.stderr);
      t.match(await lab.says(ctl, 'ip', 'route', 'get', '10.11.0.2', 'from', '10.9.0.1'), /mtu 1300/);
    },
  );
}
