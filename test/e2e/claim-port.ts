/**
 * A claim at a port of a bridge is refused: for the forwarder's kernel its packets arrive at the bridge.
 *
 *     forwarder eth0 (port of br0, for a while) ======= control device: opens eth0:udp:53:claim
 */
import t from 'tap';
import { Lab, run, until } from '../support/lab.js';
import { withoutRoot } from '../support/netns.js';
import { pythonWords, shown } from '../support/traffic.js';

t.test('a port of a bridge', { skip: withoutRoot, timeout: 60_000 }, async (t) => {
  const lab = await Lab.start();
  t.teardown(() => lab.stop());
  /** What an open gives. */
  const opened = async (name: string): Promise<string> =>
    String(shown(await run(pythonWords(lab, `show(tried('${name}', os.O_RDONLY))`))));
  const becomes = (what: string): Promise<void> => until(async () => (await opened('eth0:udp:53:claim')) === what);

  await t.test('cannot be claimed while it is one, and can be before and after', async (t) => {
    t.equal(await opened('eth0:udp:53:claim'), 'ok');
    lab.fwd.run('ip link add br0 type bridge');
    lab.fwd.run('ip link set eth0 master br0');
    await becomes('ENOTSUP'); // Python's name of EOPNOTSUPP
    t.equal(lab.fwd.run('nft list tables'), '', 'the kernel was told of nothing');
    t.equal(await opened('eth0:udp:53'), 'ok', 'a copy');
    lab.fwd.run('ip link set eth0 nomaster');
    await becomes('ok');
  });
});
