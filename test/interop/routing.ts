/**
 * Routing daemons on a virtual IF: BIRD with OSPF and RIP against a BIRD on the node, and the same two over a plain veth for
 * the time that it takes them.
 *
 *     BIRD (node) n0 ------- eth0 (forwarder) ······ fwd1-eth0: BIRD (control device)
 *     BIRD (node) m0 ------- m1: BIRD, the yardstick, in a namespace of its own
 */
import t from 'tap';
import { birdConfig, BirdEnd } from '../support/bird.js';
import { DEVICE, InteropLab, type Kind } from '../support/interop.js';
import { until } from '../support/lab.js';
import { connectVeth, Netns, withoutRoot } from '../support/netns.js';

const KINDS: readonly Kind[] = ['tap', 'tun'];
const TIMEOUT_MS = 60_000;

for (const kind of KINDS) {
  t.test(
    `${kind}: two BIRDs with OSPF, hello 1 s, become fully adjacent and learn each other's routes`,
    { skip: withoutRoot },
    async (t) => {
      const lab = await InteropLab.start();
      t.teardown(() => lab.stop());
      const { node, ctl } = lab.lab;
      await lab.addVif(kind);
      const here = new BirdEnd(lab, ctl, 'ctl', birdConfig('ospf', '10.9.0.1', DEVICE, '10.77.1.0/24'));
      const there = new BirdEnd(lab, node, 'node', birdConfig('ospf', '10.9.0.2', 'n0', '10.77.2.0/24'));
      await lab.untilRule('ip:89');
      await until(
        async () => /Full/.test(await here.ask('show ospf neighbors')),
        TIMEOUT_MS,
        () => here.daemon.log,
      );
      await until(async () => /Full/.test(await there.ask('show ospf neighbors')), TIMEOUT_MS);
      // The next hop resolves without `onlink`.
      await until(
        async () => /10\.77\.2\.0\/24 via 10\.9\.0\.2 dev fwd1-eth0/.test(await lab.says(ctl, 'ip', 'route')),
        TIMEOUT_MS,
      );
      await until(
        async () => /10\.77\.1\.0\/24 via 10\.9\.0\.1 dev n0/.test(await lab.says(node, 'ip', 'route')),
        TIMEOUT_MS,
      );
      await here.daemon.end();
      await lab.untilRule('ip:89', false);
    },
  );

  t.test(`${kind}: two BIRDs with RIP learn each other's routes`, { skip: withoutRoot }, async (t) => {
    const lab = await InteropLab.start();
    t.teardown(() => lab.stop());
    const { node, ctl } = lab.lab;
    await lab.addVif(kind);
    const here = new BirdEnd(lab, ctl, 'ctl', birdConfig('rip', '10.9.0.1', DEVICE, '10.77.1.0/24'));
    const there = new BirdEnd(lab, node, 'node', birdConfig('rip', '10.9.0.2', 'n0', '10.77.2.0/24'));
    await until(
      async () => /10\.77\.2\.0\/24 via 10\.9\.0\.2/.test(await lab.says(ctl, 'ip', 'route')),
      TIMEOUT_MS,
      () => here.daemon.log,
    );
    await until(
      async () => /10\.77\.1\.0\/24 via 10\.9\.0\.1/.test(await lab.says(node, 'ip', 'route')),
      TIMEOUT_MS,
      () => there.daemon.log,
    );
    const [row] = (await lab.lab.ownTable('vif')) as [string[]];
    t.match(row?.at(-1), /224\.0\.0\.9/, 'the group of RIP is joined at the forwarder');
    t.match(await lab.says(lab.lab.fwd, 'ip', 'maddr', 'show', 'dev', 'eth0'), /inet +224\.0\.0\.9/);
    await here.daemon.end();
    await until(async () => !/224\.0\.0\.9/.test(await lab.says(lab.lab.fwd, 'ip', 'maddr', 'show', 'dev', 'eth0')));
  });
}

t.test(
  'a full adjacency comes about over a plain veth too, with the same configuration',
  { skip: withoutRoot },
  async (t) => {
    const lab = await InteropLab.start();
    const other = new Netns('peer');
    t.teardown(async () => {
      await lab.stop();
      other.remove();
    });
    const { node } = lab.lab;
    connectVeth(
      { netns: node, name: 'm0', addresses: ['10.10.0.2/24'] },
      { netns: other, name: 'm1', addresses: ['10.10.0.1/24'] },
    );
    const here = new BirdEnd(lab, other, 'peer', birdConfig('ospf', '10.10.0.1', 'm1', '10.77.1.0/24'));
    new BirdEnd(lab, node, 'node', birdConfig('ospf', '10.10.0.2', 'm0', '10.77.2.0/24'));
    await until(
      async () => /Full/.test(await here.ask('show ospf neighbors')),
      TIMEOUT_MS,
      () => here.daemon.log,
    );
  },
);
