/** src/control/vip-sweep.ts: what a control device left that died, and what another one has. */
import t from 'tap';
import { spawn, spawnSync } from 'node:child_process';
import { silent } from '../../src/base/log.js';
import { sweepVips } from '../../src/control/vip-sweep.js';
import { everything } from '../support/mirror.js';
import { Netns, withoutRoot } from '../support/netns.js';
import { until } from '../support/lab.js';

const VIPS = ['10.9.0.1', 'fd09::1'];

/** A program that makes virtual IP addresses of a control device in this namespace, then runs `end`. */
function words(netns: Netns, control: string, vips: readonly string[], end: string): string[] {
  const at = (path: string): string => JSON.stringify(new URL(path, import.meta.url).href);
  const script = `
    import { VipKernel } from ${at('../../src/control/vip-kernel.js')};
    import { parseProtocolAddress } from ${at('../../src/packet/protocol-address.js')};
    import { ifNameToIndex } from ${at('../../src/sys/libc.js')};
    import { silent } from ${at('../../src/base/log.js')};
    for (const vip of ${JSON.stringify(vips)}) {
      const six = vip.includes(':');
      const kernel = new VipKernel(${JSON.stringify(control)}, vip, silent);
      kernel.admit(parseProtocolAddress(six ? 'tcp:[' + vip + ']:80' : 'tcp:' + vip + ':80'));
      await kernel.apply({
        vip, sender: six ? 'fdfd::7' : '169.254.7.7', device: 'up0', ifindex: ifNameToIndex('up0'),
        ownAddress: six ? 'fe80::7' : '192.0.2.1', nextHop: six ? 'fe80::9' : '192.0.2.9', forwarderMac: '02:00:00:00:00:09',
      });
    }
    ${end}`;
  return [...netns.prefix, 'env', '-u', 'NODE_OPTIONS', process.execPath, '--input-type=module', '-e', script];
}

function crash(netns: Netns, control: string): void {
  const [command = '', ...args] = words(netns, control, VIPS, "process.kill(process.pid, 'SIGKILL');");
  const { signal, stderr } = spawnSync(command, args, { timeout: 20_000 });
  if (signal !== 'SIGKILL') throw new Error(`it did not die: ${stderr.toString()}`);
}

/** Runs until the test is over. */
async function live(t: { teardown(undo: () => void): void }, netns: Netns, vip: string): Promise<void> {
  const [command = '', ...args] = words(netns, 'ctl2', [vip], "console.log('ready'); setInterval(() => {}, 1000);");
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => child.kill('SIGKILL'));
  let said = '';
  child.stdout.on('data', (text: Buffer) => (said += text.toString()));
  await until(() => said.includes('ready'));
}

function setUp(t: { teardown(undo: () => void): void }): Netns {
  const netns = new Netns('-vc-sweep');
  t.teardown(() => netns.remove());
  for (const line of [
    'ip link set lo up',
    'ip link add up0 type veth peer name up1',
    'ip link set up0 addrgenmode none',
    'ip link set up1 addrgenmode none',
    'ip addr add 192.0.2.1/24 dev up0',
    'ip addr add fe80::7/64 dev up0 nodad',
    'ip link set up0 up',
    'ip link set up1 up',
    'ip addr add 198.51.100.1/32 dev lo',
    'ip rule add from 192.0.2.77 lookup 7431000',
    'nft add table inet fwdfs_ctl1',
    'nft add table inet fwdfs_ctl1/vip/none',
    'nft add table ip fwdfs_ctl1/vip/10.9.0.9',
  ]) {
    netns.run(line);
  }
  return netns;
}

t.test('what a control device left that died is swept, and nothing else', { skip: withoutRoot }, async (t) => {
  const netns = setUp(t);
  const was = everything(netns);
  crash(netns, 'ctl1');
  const left = everything(netns);
  for (const trace of [/from 10\.9\.0\.1 .*lookup 743/, /inet fwdfs_ctl1\/vip\/10\.9\.0\.1/, /inet 10\.9\.0\.1\/32/])
    t.match(left, trace);
  for (const trace of [/from fd09::1 .*lookup 743/, /fwdfs_ctl1\/vip\/fd09--1/, /inet6 fd09::1\/128/])
    t.match(left, trace);
  await netns.within(() => sweepVips(silent));
  t.equal(everything(netns), was);
});

t.test('without its tables it is found by its rule, and by its address', { skip: withoutRoot }, async (t) => {
  const netns = setUp(t);
  crash(netns, 'ctl1');
  netns.run('nft flush ruleset');
  netns.run('ip -6 rule del from fd09::1 fwmark 0/0x20000000');
  await netns.within(() => sweepVips(silent));
  const left = everything(netns);
  t.notMatch(left, /10\.9\.0\.1|fd09::1/);
});

t.test(
  'what a control device that runs has is left alone, and no other one can have it',
  { skip: withoutRoot },
  async (t) => {
    const netns = setUp(t);
    await live(t, netns, '10.9.0.5');
    const was = everything(netns);
    t.match(was, /10\.9\.0\.5/);
    crash(netns, 'ctl1');
    t.not(everything(netns), was);
    await netns.within(() => sweepVips(silent));
    t.equal(everything(netns), was);
    const [command = '', ...args] = words(netns, 'ctl3', ['10.9.0.5'], '');
    const second = spawnSync(command, args, { timeout: 20_000 });
    t.match(second.stderr.toString(), /10\.9\.0\.5 of another control device/);
    t.equal(everything(netns), was);
  },
);
