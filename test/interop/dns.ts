/** DNS and other UDP on a virtual IF: dnsmasq and nc, unmodified; their clients are on a plain host, and the other way round. */
import t from 'tap';
import { InteropLab, type Kind } from '../support/interop.js';
import { until } from '../support/lab.js';
import { withoutRoot } from '../support/netns.js';

const KINDS: readonly Kind[] = ['tap', 'tun'];

/** Words of a DNS server in the foreground that logs each query with its client. */
const server = (...more: string[]): string[] => [
  'dnsmasq',
  '--keep-in-foreground',
  '--conf-file=/dev/null',
  '--user=root',
  '--pid-file=',
  '--no-resolv',
  '--no-hosts',
  '--log-facility=-',
  '--log-queries=extra',
  '--address=/host.test/192.0.2.7',
  '--address=/host.test/2001:db8::7',
  ...more,
];

for (const kind of KINDS) {
  t.test(
    `${kind}: dnsmasq answers queries at the forwarder's addresses, and knows who asks`,
    { skip: withoutRoot },
    async (t) => {
      const lab = await InteropLab.start();
      t.teardown(() => lab.stop());
      const { node, ctl } = lab.lab;
      await lab.addVif(kind);
      const daemon = lab.daemon(ctl, server());
      await lab.untilRule('udp:53');
      const ask = (at: string, ...more: string[]): Promise<string> =>
        lab.says(node, 'dig', '+short', '+time=2', '+tries=1', `@${at}`, 'host.test', ...more);
      t.equal(await ask('10.9.0.1', 'A'), '192.0.2.7\n');
      t.equal(await ask('fd09::1', 'AAAA'), '2001:db8::7\n');
      t.equal(await ask('10.9.0.1', 'A', '+tcp'), '192.0.2.7\n', 'over TCP too');
      await daemon.until(/10\.9\.0\.2.*query\[A\] host\.test/);
      await daemon.until(/fd09::2.*query\[AAAA\] host\.test/);
      await daemon.end();
      await lab.untilRule('udp:53', false);
    },
  );

  t.test(`${kind}: the answer to a first query is never lost`, { skip: withoutRoot }, async (t) => {
    const lab = await InteropLab.start();
    t.teardown(() => lab.stop());
    const { node, ctl } = lab.lab;
    const daemon = lab.daemon(node, server());
    await daemon.until(/started/);
    await lab.addVif(kind);
    for (let i = 0; i < 30; i++) {
      const asked = await lab.says(ctl, 'dig', '+short', '+time=2', '+tries=1', '@10.9.0.2', 'host.test', 'A');
      t.equal(asked, '192.0.2.7\n');
    }
    t.ok((await lab.lab.table('flow')).length > 0, 'its flows are shown');
    await daemon.end();
  });

  t.test(`${kind}: nc -u talks both ways`, { skip: withoutRoot }, async (t) => {
    const lab = await InteropLab.start();
    t.teardown(() => lab.stop());
    const { node, ctl } = lab.lab;
    await lab.addVif(kind);
    const listener = lab.lab.program([...ctl.prefix, 'nc', '-u', '-l', '-p', '9000'], null);
    await lab.untilRule('udp:9000');
    const client = lab.lab.program([...node.prefix, 'nc', '-u', '10.9.0.1', '9000'], null);
    client.child.stdin?.write('there\n');
    await listener.untilOutput((output) => output.toString() === 'there\n');
    listener.child.stdin?.write('and back\n');
    await client.untilOutput((output) => output.toString() === 'and back\n');
    await until(async () => (await lab.lab.ownTable('vif_rules')).length > 0);
  });
}

t.test(
  'the answer to a question to many is not lost, though its rule is younger than the question',
  { skip: withoutRoot },
  async (t) => {
    const lab = await InteropLab.start();
    t.teardown(() => lab.stop());
    const { node, ctl } = lab.lab;
    const python = (lines: string): string[] => ['/usr/bin/python3', '-uc', lines];
    const responder = lab.lab.program(
      [
        ...node.prefix,
        ...python(`import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 5353))
s.setsockopt(0, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("239.1.2.3") + socket.inet_aton("10.9.0.2"))
print("ready")
while True: data, who = s.recvfrom(100); s.sendto(data, who)`),
      ],
      null,
    );
    await responder.untilOutput((output) => output.toString() === 'ready\n');
    await lab.addVif();
    const asker = await lab.on(
      ctl,
      python(`import socket
for port in range(6000, 6020):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("10.9.0.1", port)); s.settimeout(2)
    s.setsockopt(0, socket.IP_MULTICAST_IF, socket.inet_aton("10.9.0.1"))
    s.sendto(b"who?", ("239.1.2.3", 5353))
    assert s.recv(100) == b"who?"; s.close()
print("all answered")`),
      '',
      60_000,
    );
    t.equal(asker.stdout.toString(), 'all answered\n', asker.stderr);
  },
);
