import t from 'tap';
import { spawnSync } from 'node:child_process';
import type { Logger } from '../../src/base/log.js';
import { silent } from '../../src/base/log.js';
import { sweepVifs } from '../../src/control/vif-mirror.js';
import { ETH0, everything, makeMirror } from '../support/mirror.js';
import { Netns, withoutRoot } from '../support/netns.js';

/** A control device that makes a virtual IF and a pin in this namespace, and dies. */
function crash(netns: Netns, name: string): void {
  const at = (path: string): string => JSON.stringify(new URL(path, import.meta.url).href);
  const script = `
    import { makeMirror, ETH0 } from ${at('../support/mirror.js')};
    import { LinkPin } from ${at('../../src/control/pin.js')};
    import { silent } from ${at('../../src/base/log.js')};
    const mirror = await makeMirror({ name: '' }, { name: ${JSON.stringify(name)} });
    mirror.apply(${JSON.stringify(ETH0)});
    new LinkPin(silent).pin('192.0.2.9');
    process.kill(process.pid, 'SIGKILL');`;
  const words = [...netns.prefix, 'env', '-u', 'NODE_OPTIONS', process.execPath, '--input-type=module', '-e', script];
  const [command = '', ...args] = words;
  const { signal, stderr } = spawnSync(command, args, { timeout: 20_000 });
  if (signal !== 'SIGKILL') throw new Error(`it did not die: ${stderr.toString()}`);
}

function setUp(t: { teardown(undo: () => void): void }): Netns {
  const netns = new Netns('sweep');
  t.teardown(() => netns.remove());
  for (const line of [
    'ip link set lo up',
    'ip link add up0 type veth peer name up1',
    'ip link set up0 addrgenmode none',
    'ip link set up1 addrgenmode none',
    'ip addr add 192.0.2.1/24 dev up0',
    'ip link set up0 up',
    'ip link set up1 up',
    'ip rule add from 192.0.2.77 lookup 7440099',
    'nft add table inet fwdfs_ctl1',
    'nft add table inet fwdfs_ctl1/claims',
    'nft add table ip fwdfs_ctl1/vif/gone',
  ]) {
    netns.run(line);
  }
  return netns;
}

t.test('what a control device left that died is swept, and nothing else', { skip: withoutRoot }, async (t) => {
  const netns = setUp(t);
  const was = everything(netns);
  crash(netns, 'gone');
  const left = everything(netns);
  t.match(left, /lookup 744\d+ proto 110/);
  t.match(left, /to 192\.0\.2\.9|all to 192\.0\.2\.9/);
  t.match(left, /table inet fwdfs_ctl1\/vif\/gone/);
  t.notMatch(left, /gone:|dev gone/);
  await netns.within(() => sweepVifs(silent));
  t.equal(everything(netns), was);
});

t.test('what belongs to a control device that runs is left alone', { skip: withoutRoot }, async (t) => {
  const netns = setUp(t);
  const mirror = await makeMirror(netns);
  mirror.apply(ETH0);
  const was = everything(netns);
  crash(netns, 'gone');
  t.not(everything(netns), was);
  await sweepVifs(silent, netns.name);
  t.equal(everything(netns), was);
  await mirror.remove();
});

t.test('making a virtual IF in another namespace sweeps that', { skip: withoutRoot }, async (t) => {
  const netns = setUp(t);
  const was = everything(netns);
  crash(netns, 'gone');
  const mirror = await makeMirror(netns);
  t.notMatch(netns.run('nft list tables'), /inet fwdfs_ctl1\/vif\/gone/);
  await mirror.remove();
  t.equal(everything(netns), was);
});

t.test('a namespace that can not be swept is logged', { skip: withoutRoot }, async (t) => {
  const said: object[] = [];
  const log: Logger = { ...silent, warn: (fields) => said.push(fields) };
  await sweepVifs(log, 'fwdfs-none');
  t.equal(said.length, 1);
  t.match(JSON.stringify(said), /ENOENT/);
});
