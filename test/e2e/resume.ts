/**
 * Lost connections, restarts and deaths: what open files get, and what is left behind.
 *
 *     node n0 ===== eth0 forwarder c0 ==X== f0 ctl1, ctl2, ctl3
 *                   kill -9                 ss -K: the connections are gone; nft: and stay away
 */
import t from 'tap';
import { Lab, until } from '../support/lab.js';
import { connectVeth, withoutRoot } from '../support/netns.js';
import {
  Capture,
  hexOf,
  macOf,
  numbered,
  pythonWords,
  send,
  shown,
  testFrames,
  untilTestFrames,
} from '../support/traffic.js';

const RESUME_S = 30;

t.test('lost connections', { skip: withoutRoot, timeout: 90_000 }, async (t) => {
  const lab = await Lab.start({ controls: ['ctl1', 'ctl2', 'ctl3'] });
  t.teardown(() => lab.stop());
  const mac = macOf(lab.fwd, 'eth0');
  const node = macOf(lab.node, 'n0');
  const resumed = async (): Promise<number> => Number((await lab.state()).get('resumed'));
  const connected = async (): Promise<boolean> => (await lab.state()).get('state') === 'connected';
  /** Ends the TCP connections of ctl1, which connects again by itself. */
  const cut = (): string => lab.ctl.run('ss -K -t dport = 7440 sport > 0');
  /** Ends them and keeps it away until `heal`. */
  const sever = async (): Promise<void> => {
    lab.fwd.run('nft add table inet cut');
    lab.fwd.run('nft add chain inet cut in { type filter hook input priority 0 ; }');
    lab.fwd.run('nft add rule inet cut in tcp dport 7440 tcp flags & syn == syn reject with tcp reset');
    cut();
    await until(async () => !(await connected()));
  };
  const heal = async (): Promise<void> => {
    lab.fwd.run('nft delete table inet cut');
    await until(connected);
  };
  const rules = async (control?: string): Promise<string[]> =>
    (await lab.table('distribution'))
      .filter((row) => (row[4] === 'ctl2') === (control === 'ctl2'))
      .map((row) => [row[1], row[4], row[6]].join(' '))
      .sort();
  const tunnels = async (): Promise<number> => (await lab.table('reception')).filter((row) => row[4] === 'ctl1').length;

  // Its rules are looked for again at the end.
  const second = await lab.addControl('ctl2');
  await lab.reader('eth0:arp', second);
  t.same(await rules('ctl2'), ['arp ctl2 active']);
  await lab.endControl('ctl2', 'SIGKILL');
  const died = performance.now();
  await until(async () => (await rules('ctl2')).join() === 'arp ctl2 suspended', 2000);

  await t.test('an open reader goes on after the connection was lost', async (t) => {
    const reader = await lab.reader('eth0:ether:0x88b5');
    await send(lab.node, 'n0', numbered(3, 100, mac));
    await untilTestFrames(reader, 3);
    const before = await resumed();
    cut();
    await until(async () => (await resumed()) === before + 1);
    t.same(await rules(), ['ether:0x88b5 ctl1 active']);
    await send(lab.node, 'n0', numbered(3, 100, mac, 3));
    t.same(hexOf(await untilTestFrames(reader, 6)), hexOf(numbered(6, 100, mac)));
    await reader.kill();
    await until(async () => (await rules()).length === 0);
  });

  await t.test('while the connection is away rules are suspended, and what they miss is counted', async (t) => {
    const reader = await lab.reader('eth0:ether:0x88b5');
    const before = await lab.counter('drop_suspended');
    await sever();
    const [own] = await lab.ownTable('reception');
    t.equal(own?.[4], 'suspended');
    const script = `show([tried('eth0', os.O_RDONLY), tried('eth0', os.O_WRONLY), tried('.tables/distribution', os.O_RDONLY)])`;
    const refused = lab.program(pythonWords(lab, script));
    t.same(shown(await refused.ended), [['ENETDOWN', 'ENETDOWN', 'ENETDOWN']]);
    t.match((await lab.state()).get('last_error'), /cut|ECONNREFUSED|ECONNRESET/);
    await send(lab.node, 'n0', numbered(5, 100, mac));
    await heal();
    t.equal((await lab.counter('drop_suspended')) - before, 5);
    await send(lab.node, 'n0', numbered(1, 100, mac, 9));
    t.same(hexOf(await untilTestFrames(reader, 1)), hexOf(numbered(1, 100, mac, 9)));
    await reader.kill();
    await until(async () => (await rules()).length === 0);
  });

  await t.test('files that were closed while the connection was away leave nothing behind', async (t) => {
    const reader = await lab.reader('eth0:arp');
    const kept = await lab.reader('eth0:icmp');
    const writer = lab.program(pythonWords(lab, `fd = os.open(p('eth0:arp'), os.O_WRONLY)\nshow(1)\ntime.sleep(100)`));
    await writer.untilOutput((output) => output.length > 0);
    t.equal(await tunnels(), 2);
    await sever();
    await reader.kill();
    await writer.kill('SIGKILL');
    await until(async () => (await lab.ownTable('reception')).length === 1);
    await heal();
    await until(
      async () => (await rules()).length === 1,
      2000,
      () => 'a rule is left',
    );
    t.same(await rules(), ['icmp ctl1 active']);
    await until(
      async () => (await tunnels()) === 1,
      2000,
      () => 'a down tunnel is left',
    );
    await kept.kill();
    await until(async () => (await rules()).length === 0);
  });

  await t.test('frames that were not confirmed are sent again and arrive exactly once', async (t) => {
    const frames = numbered(20_000, 200, node, 100_000);
    const capture = await Capture.start(lab, lab.node, 'n0', 'in');
    const script = `
fd = os.open(p('eth0:raw'), os.O_WRONLY)
frames = [bytes.fromhex(line) for line in sys.stdin]
for i, frame in enumerate(frames):
    os.write(fd, frame)
    if i % 100 == 0: time.sleep(0.005)
    if i == 1000: show('go')
show(err(os.close, fd))
`;
    const before = await resumed();
    const writer = lab.program(pythonWords(lab, script), hexOf(frames).join('\n'));
    await writer.untilOutput((output) => output.includes('go'));
    for (let times = 1; times <= 3; times++) {
      cut();
      await until(async () => (await resumed()) >= before + times && (await connected()));
    }
    t.same(shown(await writer.ended), ['go', null]);
    await capture.untilCount(frames.length);
    const captured = hexOf(await capture.stop());
    t.equal(captured.length, frames.length);
    t.ok(captured.join() === hexOf(frames).join(), 'all of them, in order, once');
    t.equal((await lab.state()).get('state'), 'connected');
  });

  await t.test('a link that is down for a second costs no connection', async (t) => {
    const reader = await lab.reader('eth0:ether:0x88b5');
    const before = await resumed();
    lab.fwd.run('ip link set c0 down');
    await send(lab.node, 'n0', numbered(3, 100, mac));
    await new Promise((resolve) => setTimeout(resolve, 1000));
    lab.fwd.run('ip link set c0 up');
    t.same(hexOf(await untilTestFrames(reader, 3)), hexOf(numbered(3, 100, mac)));
    t.equal(await resumed(), before);
    await reader.kill();
    await until(async () => (await rules()).length === 0);
  });

  await t.test('a control device that says goodbye takes its rules along at once', async (t) => {
    const mountPoint = await lab.addControl('ctl3');
    const reader = await lab.reader('eth0:arp', mountPoint);
    t.same(await rules(), ['arp ctl3 active']);
    await lab.endControl('ctl3');
    const { status, stderr } = await reader.ended;
    t.equal(status, 0, `the reader gets the end of the file ${stderr}`);
    t.same(await rules(), []);
  });

  await t.test(`the rules of a control device that died are gone after ${RESUME_S} s`, async (t) => {
    t.same(await rules('ctl2'), ['arp ctl2 suspended']);
    await until(async () => (await rules('ctl2')).length === 0, (RESUME_S + 5) * 1000);
    const seconds = (performance.now() - died) / 1000;
    t.ok(seconds > RESUME_S - 1, `after ${seconds} s`);
    t.equal((await lab.table('reception')).length, 1, 'and its down tunnels');
  });
});

t.test('a forwarder that starts again', { skip: withoutRoot, timeout: 60_000 }, async (t) => {
  const lab = await Lab.start();
  t.teardown(() => lab.stop());
  const mac = macOf(lab.fwd, 'eth0');
  const node = macOf(lab.node, 'n0');
  const connected = async (): Promise<boolean> => (await lab.state()).get('state') === 'connected';
  const rules = async (): Promise<string[]> =>
    (await lab.table('distribution')).map((row) => [row[1], row[6]].join(' ')).sort();

  await t.test('the rules of open files come back, those of closed ones do not', async (t) => {
    const reader = await lab.reader('eth0:ether:0x88b5');
    const closed = await lab.reader('eth0:arp');
    const again = lab.program(['/bin/bash', '-c', `echo 'rule add eth0:icmp' > ${lab.file('.ctl')}`]);
    t.equal((await again.ended).status, 0);
    await lab.forwarder?.end('SIGKILL');
    await closed.kill();
    await until(async () => !(await connected()));
    await lab.startForwarder();
    await until(connected);
    await until(async () => (await rules()).length === 2, 2000);
    t.same(await rules(), ['ether:0x88b5 active', 'icmp active']);
    t.equal((await lab.state()).get('resumed'), '0');
    await until(
      async () => (await lab.table('reception')).length === 1,
      2000,
      () => "the symbol's tunnel is not there",
    );
    await send(lab.node, 'n0', numbered(2, 100, mac));
    t.same(hexOf(await untilTestFrames(reader, 2)), hexOf(numbered(2, 100, mac)));
    t.equal(testFrames(reader.output).length, 2);
    await reader.kill();
    const removed = lab.program(['/bin/bash', '-c', `echo 'rule remove eth0:icmp' > ${lab.file('.ctl')}`]);
    t.equal((await removed.ended).status, 0);
    await until(async () => (await rules()).length === 0);
  });

  await t.test(
    'frames that were not confirmed are not sent again: close() says EIO; later ones are sent',
    async (t) => {
      const pid = lab.forwarder?.pid ?? 0;
      const frames = numbered(12, 100, node, 500);
      const script = `
fds = [os.open(p(name), os.O_WRONLY) for name in ('eth0:raw', 'eth0:ether:0x88b5:raw', 'eth0:ether:0x88b5:raw')]
frames = [bytes.fromhex(line) for line in sys.stdin]
for fd in fds: os.write(fd, frames.pop(0)), os.fsync(fd)
os.kill(${pid}, signal.SIGSTOP)
for fd in fds[:2]: os.write(fd, frames.pop(0))
os.kill(${pid}, signal.SIGKILL)
show('killed')
frames = frames[1:]
def again(fd):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        result = err(os.fsync, fd)
        if result is not None: return result
        if open(p('.state')).read().startswith('state\\tconnected'): return result
show([again(fds[0]), again(fds[1])])
while not open(p('.state')).read().startswith('state\\tconnected'): time.sleep(0.01)
for fd in fds: os.write(fd, frames.pop(0))
show([err(os.close, fd) for fd in fds])
show(open(p('.state')).read())
`;
      const capture = await Capture.start(lab, lab.node, 'n0', 'in');
      const writer = lab.program(pythonWords(lab, script), hexOf(frames).join('\n'));
      await writer.untilOutput((output) => output.includes('killed'));
      await until(() => lab.forwarder?.ended ?? true);
      await lab.startForwarder();
      const [, fsync, close, state] = shown(await writer.ended);
      t.same(fsync, ['EIO', 'EIO'], 'the frames under way are reported');
      t.same(close, [null, null, null], 'once, and the files go on');
      t.match(state, /last_error\t.*restarted/);
      const expected = hexOf([...frames.slice(0, 3), ...frames.slice(6, 9)]);
      t.same(hexOf(await capture.untilCount(6)), expected);
      await capture.stop();
      await until(
        async () => (await lab.table('reception')).length === 1,
        2000,
        () => 'a down tunnel is left',
      );
    },
  );

  await t.test(
    'a forwarder that stops in order takes its tables along, and open files wait for the next',
    async (t) => {
      const reader = await lab.reader('eth0:ether:0x88b5');
      await lab.forwarder?.end('SIGTERM');
      await until(async () => !(await connected()));
      t.match((await lab.state()).get('last_error'), /goodbye|ECONNREFUSED/);
      t.equal(lab.fwd.run('nft list tables'), '');
      await lab.startForwarder();
      await until(connected);
      await until(async () => (await rules()).length === 1, 2000);
      await send(lab.node, 'n0', numbered(1, 100, mac));
      t.same(hexOf(await untilTestFrames(reader, 1)), hexOf(numbered(1, 100, mac)));
      await reader.kill();
      await until(async () => (await rules()).length === 0);
    },
  );
});

t.test('an interface that goes and comes back', { skip: withoutRoot, timeout: 60_000 }, async (t) => {
  const lab = await Lab.start();
  t.teardown(() => lab.stop());
  const reader = await lab.reader('eth0:ether:0x88b5');
  const script = `
fd = os.open(p('eth0:raw'), os.O_WRONLY)
show('open')
while os.path.exists(p('eth0')): time.sleep(0.01)
show([err(os.write, fd, b'x' * 60), err(os.fsync, fd), tried('eth0', os.O_RDONLY), tried('eth0:arp', os.O_WRONLY)])
show([err(os.listdir, p('.if')), err(os.close, fd)])
`;
  const writer = lab.program(pythonWords(lab, script));
  await writer.untilOutput((output) => output.includes('open'));
  lab.fwd.run('ip link del eth0');
  const [, gone, listed] = shown(await writer.ended);
  t.same(gone, [60, 'EIO', 'ENOENT', 'ENOENT'], 'files say that it is gone');
  t.same(listed, [[], null]);
  connectVeth({ netns: lab.node, name: 'n0' }, { netns: lab.fwd, name: 'eth0' });
  await until(async () => (await lab.ownTable('transmission')).length === 1);
  const frames = numbered(2, 100, macOf(lab.fwd, 'eth0'));
  await until(() => lab.fwd.run('ip link show eth0').includes('LOWER_UP'));
  await send(lab.node, 'n0', frames);
  t.same(hexOf(await untilTestFrames(reader, 2)), hexOf(frames), 'the open reader goes on');
  t.equal(await lab.counter('drop_tx_error'), 1);
  await reader.kill();
  await until(async () => (await lab.table('distribution')).length === 0);
});
