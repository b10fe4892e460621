/**
 * The permission table decides at open() what each control device may do.
 *
 *     node n0 ===== eth0 forwarder c0 ===== f0   all        read, inject, any protocol address
 *                   permissions                  reader     read
 *                                                writer     write: only with the forwarder's own source addresses
 *                                                injector   inject
 *                                                limited    read, inject, for udp:520 and arp alone
 *                                                nobody     no line
 */
import { join } from 'node:path';
import t from 'tap';
import { Lab, run, until } from '../support/lab.js';
import { withoutRoot } from '../support/netns.js';
import { addressed, Capture, filler, hexOf, macOf, numbered, pcap, pythonWords, shown } from '../support/traffic.js';
import { ethernet, ipv4, udp } from '../vectors/packet-frames.js';

const PERMISSIONS = `
  - { control: all, interface: eth0, rights: [read, inject] }
  - { control: reader, interface: eth0, rights: [read] }
  - { control: writer, interface: "*", rights: [write] }
  - { control: injector, interface: eth0, rights: [inject] }
  - { control: limited, interface: eth0, rights: [read, inject], protocols: ["udp:520", arp] }
`;
const CONTROLS = ['all', 'reader', 'writer', 'injector', 'limited', 'nobody'];

t.test('permissions', { skip: withoutRoot, timeout: 60_000 }, async (t) => {
  const lab = await Lab.start({ controls: CONTROLS, permissions: PERMISSIONS });
  t.teardown(() => lab.stop());
  const mounts = new Map([['all', lab.mountPoint]]);
  for (const name of CONTROLS.slice(1)) mounts.set(name, await lab.addControl(name));
  const on = async (control: string, script: string): Promise<unknown[]> =>
    shown(await run(pythonWords(lab, script, mounts.get(control))));
  const write = (control: string, name: string, frames: readonly Buffer[]) =>
    run(['/bin/bash', '-c', 'cat > "$1"', '-', join(mounts.get(control) ?? '', 'fwd1', name)], pcap(frames));
  const modes = (name: string): string =>
    `show([tried('${name}', flags) for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR)])
show(oct(os.stat(p('${name}')).st_mode & 0o777))`;
  const own = macOf(lab.fwd, 'eth0');
  const node = macOf(lab.node, 'n0');
  const datagram = (source: string, port: number, mac = own): Buffer =>
    addressed(
      ethernet(0x0800, ipv4({ protocol: 17, source, destination: '10.9.0.2' }, udp(port, 9, filler(40, port)))),
      node,
      mac,
    );

  for (const [control, name, expected, mode] of [
    ['all', 'eth0', ['ok', 'ok', 'ok'], '0o600'],
    ['reader', 'eth0', ['ok', 'EACCES', 'EACCES'], '0o400'],
    ['reader', 'eth0:udp:520', ['ok', 'EACCES', 'EACCES'], '0o400'],
    ['writer', 'eth0', ['EACCES', 'ok', 'EACCES'], '0o200'],
    ['injector', 'eth0', ['EACCES', 'ok', 'EACCES'], '0o200'],
    ['limited', 'eth0:udp:520', ['ok', 'ok', 'ok'], '0o600'],
    ['limited', 'eth0:udp:10.9.0.1:520', ['ok', 'ok', 'ok'], '0o600'],
    ['limited', 'eth0:arp', ['ok', 'ok', 'ok'], '0o600'],
    ['limited', 'eth0', ['EACCES', 'EACCES', 'EACCES'], '0o600'],
    ['limited', 'eth0:udp', ['EACCES', 'EACCES', 'EACCES'], '0o600'],
    ['limited', 'eth0:udp:521', ['EACCES', 'EACCES', 'EACCES'], '0o600'],
    ['nobody', 'eth0', ['EACCES', 'EACCES', 'EACCES'], '0o0'],
  ] as const) {
    await t.test(`${control} opens ${name} to read, to write, for both: ${expected.join(', ')}`, async (t) => {
      t.same(await on(control, modes(name)), [expected, mode]);
    });
  }

  await t.test('what a refused open asked for is not left behind', async (t) => {
    await until(async () => (await lab.table('distribution')).length === 0);
    const rows = await lab.table('reception');
    t.same(rows.map((row) => row[4]).sort(), ['all', 'injector', 'writer'], "the symbols' own tunnels");
  });

  await t.test('the permission table is shown, and attributes only to those who have a right', async (t) => {
    t.same(await lab.table('permission'), [
      ['all', 'eth0', 'read,inject', '*'],
      ['reader', 'eth0', 'read', '*'],
      ['writer', '*', 'write', '*'],
      ['injector', 'eth0', 'inject', '*'],
      ['limited', 'eth0', 'read,inject', 'udp:520,arp'],
    ]);
    const look = `show([err(lambda f: open(f).read(), p('.if/eth0/' + f)) for f in ('mtu', 'statistics/rx_packets')])`;
    t.same(await on('nobody', look), [['EACCES', 'EACCES']]);
    t.match(await on('limited', look), [['1500\n', /^\d+\n$/]]);
  });

  await t.test('the right write sends frames with the own source addresses', async (t) => {
    const frames = [datagram('10.9.0.1', 1), datagram('0.0.0.0', 2)];
    const capture = await Capture.start(lab, lab.node, 'n0', 'in', `ether src ${own} and udp`);
    const written = await write('writer', 'eth0', frames);
    t.equal(written.status, 0, written.stderr);
    t.same(hexOf(await capture.untilCount(2)), hexOf(frames));
    await capture.stop();
  });

  for (const [what, frame] of [
    ['another MAC address', datagram('10.9.0.1', 3, '02:00:00:00:00:09')],
    ['another IP address', datagram('10.9.0.7', 4)],
  ] as const) {
    await t.test(`without inject, close() says that a frame from ${what} was not sent`, async (t) => {
      const before = await lab.counter('drop_tx_not_permitted');
      const capture = await Capture.start(lab, lab.node, 'n0', 'in', 'udp');
      const good = datagram('10.9.0.1', 5);
      const script = `
fd = os.open(p('eth0'), os.O_WRONLY)
os.write(fd, bytes.fromhex('${pcap([good, frame, good]).toString('hex')}'))
show(err(os.fsync, fd))
show(err(os.fsync, fd))
os.write(fd, bytes.fromhex('${pcap([frame]).toString('hex')}'))
show(err(os.close, fd))
show([row for row in open(p('.state')).read().splitlines() if row.startswith('last_error')])
`;
      const [fsync, again, close, state] = await on('writer', script);
      t.same([fsync, again, close], ['EIO', null, 'EIO'], 'each failure is told once');
      t.match(state, [/last_error\teth0: frame not sent \(EACCES\)/]);
      t.same(hexOf(await capture.untilCount(2)), hexOf([good, good]), 'what may be sent is sent');
      await capture.stop();
      t.equal((await lab.counter('drop_tx_not_permitted')) - before, 2);
    });
  }

  await t.test('the right inject sends any frame', async (t) => {
    const frames = [...numbered(3, 100, node), datagram('192.0.2.1', 6, '02:00:00:00:00:01')];
    const capture = await Capture.start(lab, lab.node, 'n0', 'in');
    const written = await write('injector', 'eth0', frames);
    t.equal(written.status, 0, written.stderr);
    t.same(hexOf(await capture.untilCount(frames.length)), hexOf(frames));
    await capture.stop();
  });

  await t.test('a frame outside the protocol address that was opened is refused before it is sent', async (t) => {
    const capture = await Capture.start(lab, lab.node, 'n0', 'in', 'udp');
    const good = datagram('192.0.2.1', 520);
    const refused = await write('limited', 'eth0:udp:520', [datagram('192.0.2.1', 521)]);
    t.match(refused.stderr, /Invalid argument/);
    t.equal((await write('limited', 'eth0:udp:520', [good])).status, 0);
    t.same(hexOf(await capture.untilCount(1)), hexOf([good]));
    await capture.stop();
  });
});
