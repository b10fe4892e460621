/**
 * An interface that goes and comes back, and a second forwarder of the same name.
 *
 *     node n0 ===X=== eth0 forwarder c0 ======= f0 control device
 *     UDP              unmatched: discard            cat eth0:udp:9
 *                      a socket that must get nothing
 */
import t from 'tap';
import { Daemon, FWDFS, Lab, shell, until } from '../support/lab.js';
import { connectVeth, withoutRoot } from '../support/netns.js';

t.test('interfaces and names', { skip: withoutRoot }, async (t) => {
  const lab = await Lab.start({ eth0: '{ unmatched: discard, host: [icmp] }' });
  t.teardown(() => lab.stop());
  const tables = (): string => lab.fwd.run('nft list tables');
  const state = async (): Promise<string> => (await lab.table('distribution')).map((row) => row[6]).join();
  const reconnect = (): void => {
    lab.fwd.run('ip link del eth0');
    connectVeth(
      { netns: lab.node, name: 'n0', addresses: ['10.9.0.2/24'] },
      { netns: lab.fwd, name: 'eth0', addresses: ['10.9.0.1/24'] },
    );
  };

  await t.test('a second forwarder of the same name ends, and takes nothing from the first', async (t) => {
    t.match(tables(), /table inet fwdfs_fwd1/);
    const second = new Daemon([...lab.fwd.prefix, process.execPath, FWDFS, 'forwarder', '--config', lab.config]);
    await until(() => second.ended);
    t.equal(second.child.exitCode, 1);
    t.match(second.log, /a forwarder fwd1 runs here already: stop the other one/);
    t.match(tables(), /table inet fwdfs_fwd1/);
  });

  await t.test('a reader outlives its interface; its rule is shown as absent until it is back', async (t) => {
    const out = `${lab.folder}/out.hex`;
    const reader = shell(`timeout -s INT 15 head -n 1 ${lab.file('eth0:udp:9:hex')} > ${out}; cat ${out}`);
    await until(async () => (await state()) === 'active');
    lab.fwd.run('ip link del eth0');
    await until(async () => (await state()) === 'absent');
    const gone = await shell(`cat ${lab.file('eth0')}`);
    t.match(gone.stderr, /No such file or directory/);
    connectVeth(
      { netns: lab.node, name: 'n0', addresses: ['10.9.0.2/24'] },
      { netns: lab.fwd, name: 'eth0', addresses: ['10.9.0.1/24'] },
    );
    await until(async () => (await state()) === 'active');
    await shell(
      `${lab.node.prefix.join(' ')} bash -c 'for i in 1 2 3 4 5; do echo hello > /dev/udp/10.9.0.1/9; sleep 0.1; done'`,
    );
    t.match((await reader).stdout.toString(), /68656c6c6f0a\n$/, 'hello');
  });

  await t.test('an interface that comes back is discarded for from its first packet', async (t) => {
    const counter = `
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', 9)); s.settimeout(3)
print('ready', flush=True)
try: print('leaked', s.recv(100))
except TimeoutError: print('nothing')`;
    const socket = new Daemon([...lab.fwd.prefix, 'python3', '-c', counter]);
    await socket.until(/ready/);
    const flood = new Daemon([
      ...lab.node.prefix,
      'bash',
      '-c',
      'for i in {1..2000}; do echo x > /dev/udp/10.9.0.1/9; sleep 0.001; done 2> /dev/null',
    ]);
    for (let i = 0; i < 3; i++) reconnect();
    await until(() => socket.ended);
    await flood.end();
    t.match(socket.log, /nothing/);
  });
});
