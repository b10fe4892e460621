/**
 * ls, stat, tables, rules and rule, against a real mount with one forwarder that is there and one that is not.
 */
import t from 'tap';
import { FWDFS, Lab, type Result, shell, signalProcess, until } from '../support/lab.js';
import { withoutRoot } from '../support/netns.js';

const fwdfs = (line: string): Promise<Result> => shell(`${process.execPath} ${FWDFS} ${line}`);

function json(result: Result): unknown {
  return JSON.parse(result.stdout.toString());
}

t.test('commands that show what a mount has', { skip: withoutRoot }, async (t) => {
  const lab = await Lab.start();
  t.teardown(() => lab.stop());
  const m = `-m ${lab.mountPoint}`;
  const added = await shell(`echo forwarder add lost=ws://10.8.0.9:1 > ${lab.mountPoint}/.ctl`);
  t.equal(added.status, 0, added.stderr);
  // The kernel tells the state of a new link up to a second late.
  await until(async () => (await shell(`cat ${lab.file('.if/eth0/operstate')}`)).stdout.toString() === 'up\n');

  await t.test('ls shows forwarders, rights and addresses, and says why one is not connected', async (t) => {
    const { status, stdout, stderr } = await fwdfs(`ls ${m}`);
    t.equal(status, 0, stderr);
    const [header, ...rows] = stdout.toString().trimEnd().split('\n');
    t.equal(header, 'forwarder\tstate\tinterface\trights\toperstate\tmtu\taddress\taddresses');
    t.match(rows[0], /^fwd1\tconnected\teth0\trw\tup\t1500\t[0-9a-f:]{17}\t10\.9\.0\.1\/24,fd09::1\/64$/);
    t.match(rows[1], /^lost\tnot-connected\t-\t-\t-\t-\t-\t-$/);
    t.equal(rows.length, 2);
    t.match(stderr, /^fwdfs: lost is not connected: [^\n]+\n$/);
    t.match(json(await fwdfs(`ls --json ${m}`)), [
      {
        forwarder: 'fwd1',
        connected: true,
        address: '10.8.0.1',
        interfaces: [{ interface: 'eth0', rights: 'rw', mtu: 1500, addresses: ['10.9.0.1/24', 'fd09::1/64'] }],
      },
      { forwarder: 'lost', connected: false, interfaces: [] },
    ]);
  });

  await t.test('ls is aligned on a terminal', async (t) => {
    const { stdout } = await shell(`script -qec '${process.execPath} ${FWDFS} ls ${m}' /dev/null`);
    t.match(stdout.toString(), /^forwarder {2}state {10}interface {2}rights/);
  });

  await t.test('stat shows attributes and counters', async (t) => {
    lab.node.run('ping -q -c 1 10.9.0.1');
    const { status, stdout, stderr } = await fwdfs(`stat fwd1/eth0 ${m}`);
    t.equal(status, 0, stderr);
    t.match(stdout.toString(), /^name\tvalue\n/);
    t.match(stdout.toString(), /^mtu\t1500$/m);
    t.match(stdout.toString(), /^statistics\/rx_packets\t[1-9]\d*$/m);
    t.equal(stdout.includes('collisions'), false);
    t.match((await fwdfs(`stat --all fwd1/eth0 ${m}`)).stdout.toString(), /^statistics\/collisions\t0$/m);
    t.match(json(await fwdfs(`stat --json fwd1/eth0 ${m}`)), {
      forwarder: 'fwd1',
      interface: 'eth0',
      attributes: { mtu: 1500, linktype: 1, operstate: 'up', inet: ['10.9.0.1/24'], inet6: ['fd09::1/64'] },
      statistics: { collisions: 0 },
    });
  });

  await t.test('stat says what is wrong in one line', async (t) => {
    for (const [name, said] of [
      ['fwd1/eth9', /fwd1 has no interface eth9/],
      ['fwd9/eth0', /has no forwarder fwd9: it has fwd1, lost/],
      ['lost/eth0', /lost is not connected \(.+\)/],
    ] as const) {
      const { status, stderr } = await fwdfs(`stat ${name} ${m}`);
      t.equal(status, 1, name);
      t.match(stderr, said, name);
      t.match(stderr, /^fwdfs: [^\n]+\n$/, name);
    }
  });

  await t.test('rule add sets a rule, rules shows it, rule remove takes it back', async (t) => {
    const add = await fwdfs(`rule add fwd1/eth0:udp:520 ${m}`);
    t.same([add.status, add.stderr], [0, '']);
    const { stdout } = await fwdfs(`rules ${m}`);
    t.match(stdout.toString(), /^forwarder\tinterface\tprotocol\tscope\t/);
    t.match(stdout.toString(), /^fwd1\teth0\tudp:520\tin\t/m);
    t.match(json(await fwdfs(`rules --json ${m}`)), [
      { forwarder: 'fwd1', interface: 'eth0', protocol: 'udp:520', up_tunnel: Number, frames: 0, dropped: 0 },
    ]);
    const again = await fwdfs(`rule add fwd1/eth0:udp:520 ${m}`);
    t.equal(again.status, 1);
    t.match(again.stderr, /^fwdfs: fwd1\/eth0:udp:520 was added already: fwdfs rule remove [^\n]+\n$/);
    const remove = await fwdfs(`rule remove fwd1/eth0:udp:520 ${m}`);
    t.same([remove.status, remove.stderr], [0, '']);
    await until(async () => (await lab.table('distribution')).length === 0);
    t.same(json(await fwdfs(`rules --json ${m}`)), []);
  });

  await t.test('rule says what is wrong in one line', async (t) => {
    for (const [line, said] of [
      ['remove fwd1/eth0:udp:520', /was not added by hand/],
      ['add fwd1/eth9:udp:520', /fwd1 has no interface eth9/],
      ['add fwd1/eth0:bogus', /write it as/],
      ['add fwd1/eth0:udp:520:hex', /a rule has an interface, a protocol address and a scope, and nothing more/],
      ['add lost/eth0', /lost is not connected/],
      ['add fwd9/eth0', /has no forwarder fwd9/],
    ] as const) {
      const { status, stderr } = await fwdfs(`rule ${line} ${m}`);
      t.equal(status, 1, line);
      t.match(stderr, said, line);
      t.match(stderr, /^fwdfs: [^\n]+\n$/, line);
    }
  });

  await t.test('tables shows those of both sides, of one, or one', async (t) => {
    const all = await fwdfs(`tables ${m}`);
    t.equal(all.status, 0, all.stderr);
    for (const name of ['./.tables/reception', './.tables/transmission', 'fwd1/.tables/distribution']) {
      t.ok(all.stdout.toString().includes(`# ${name}\n`), name);
    }
    t.match(all.stderr, /^fwdfs: lost is not connected/);
    const one = await fwdfs(`tables fwd1 permission ${m}`);
    t.equal(one.stdout.toString(), 'control\tinterface\trights\tprotocols\nctl1\teth0\tread,write,inject,vif\t*\n');
    t.match(json(await fwdfs(`tables . transmission --json ${m}`)), [
      { device: '.', table: 'transmission', rows: [{ symbol: 'fwd1/eth0', frames: 0, bytes: 0 }] },
    ]);
    for (const [line, said] of [
      ['fwd9', /has no forwarder fwd9/],
      ['fwd1 bogus', /fwd1 has no table bogus: it has distribution, /],
      ['lost', /lost is not connected/],
    ] as const) {
      const { status, stderr } = await fwdfs(`tables ${line} ${m}`);
      t.equal(status, 1, line);
      t.match(stderr, said, line);
    }
  });

  await t.test('a mount point that is none is named with those that are', async (t) => {
    const { status, stderr } = await fwdfs(`ls -m ${lab.folder}`);
    t.equal(status, 1);
    t.match(stderr, /^fwdfs: [^\n]+ is no mount of fwdfs: try [^\n]+\n$/);
    t.ok(stderr.includes(lab.mountPoint));
  });

  await t.test('a control device that is stopped, or gone, is said so in bounded time', async (t) => {
    signalProcess(lab.control?.pid, 'SIGSTOP');
    const stopped = await shell(`time timeout 8 ${process.execPath} ${FWDFS} ls ${m}`);
    signalProcess(lab.control?.pid, 'SIGCONT');
    t.equal(stopped.status, 1);
    t.match(stopped.stderr, /^fwdfs: the control device of \S+ does not answer: [^\n]*fwdfs umount/);
    await lab.control?.end('SIGKILL');
    const gone = await fwdfs(`ls ${m}`);
    t.equal(gone.status, 1);
    t.match(gone.stderr, /^fwdfs: the control device of \S+ is gone: fwdfs umount [^\n]+\n$/);
  });
});
