/**
 * Both roles in one process: a forwarder that is `local` to the control device, with an address and tokens of its own for
 * others; every interface under `*` is offered and discarded for.
 *
 *     node n0 ======= eth0 [ forwarder and control device, one process ] mount
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { Daemon, FWDFS, shell, until } from '../support/lab.js';
import { connectVeth, Netns, withoutRoot } from '../support/netns.js';

t.test('integrated', { skip: withoutRoot }, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), `fwdfst-${process.pid}-`));
  const mountPoint = join(folder, 'fwd');
  mkdirSync(mountPoint);
  const node = new Netns('inode');
  const both = new Netns('iboth');
  const ends = (name: string): void =>
    connectVeth(
      { netns: node, name: 'n0', addresses: ['10.9.0.2/24'] },
      { netns: both, name, addresses: ['10.9.0.1/24'] },
    );
  ends('eth0');
  writeFileSync(
    join(folder, 'forwarder.yaml'),
    `name: here
listen: ws://10.9.0.1:7440
tokens: { ctl1: "sha256:${'0'.repeat(64)}" }
interfaces: { "*": {}, lo: { unmatched: host } }
permissions: [{ control: ctl1, interface: "*", rights: [read, write, inject] }]
`,
  );
  writeFileSync(join(folder, 'control.yaml'), 'name: ctl1\nforwarders: { here: { local: forwarder.yaml } }\n');
  const words = [process.execPath, FWDFS, 'mount', '-f', join(folder, 'control.yaml'), mountPoint];
  const daemon = new Daemon([...both.prefix, ...words]);
  t.teardown(async () => {
    await daemon.end();
    for (const netns of [node, both]) netns.remove();
    rmSync(folder, { recursive: true, force: true });
  });
  await daemon.until(/"mounted"/);

  await t.test('its own control device reaches it, whatever it asks of others', async (t) => {
    const reader = shell(`timeout -s INT 15 head -n 1 ${mountPoint}/here/eth0:udp:9:hex`);
    await until(async () => (await shell(`cat ${mountPoint}/here/.tables/distribution`)).stdout.includes('udp:9'));
    await shell(
      `${node.prefix.join(' ')} bash -c 'for i in 1 2 3; do echo hello > /dev/udp/10.9.0.1/9; sleep 0.1; done'`,
    );
    t.match((await reader).stdout.toString(), /68656c6c6f0a\n$/, 'hello');
    t.match((await shell(`cat ${mountPoint}/here/.state`)).stdout.toString(), /^state\tconnected$/m);
  });

  await t.test('under * an interface that nobody named is discarded for from its first packet', async (t) => {
    const listening = `
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', 9)); s.settimeout(3)
print('ready', flush=True)
try: print('leaked', s.recv(100))
except TimeoutError: print('nothing')`;
    const socket = new Daemon([...both.prefix, 'python3', '-c', listening]);
    await socket.until(/ready/);
    const flood = 'for i in {1..2000}; do echo x > /dev/udp/10.9.0.1/9; sleep 0.001; done 2> /dev/null';
    const sender = new Daemon([...node.prefix, 'bash', '-c', flood]);
    for (const name of ['new0', 'new1', 'new2']) {
      node.run('ip link del n0');
      ends(name);
    }
    await until(() => socket.ended);
    await sender.end();
    t.match(socket.log, /nothing/);
    const rules = both.run('nft list table inet fwdfs_here').match(/iifname/g) ?? [];
    t.equal(rules.length, 2, 'lo and all others: the table does not grow');
  });

  await t.test('it leaves nothing behind', async (t) => {
    await daemon.end();
    t.equal(both.run('nft list tables'), '');
    t.equal((await shell(`ls ${mountPoint}`)).stdout.toString(), '');
  });
});
