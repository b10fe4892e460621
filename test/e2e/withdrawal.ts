/**
 * Permissions that change while they are used (SIGHUP at the forwarder), and what fsync() and close() say of frames that
 * were not sent.
 *
 *     node n0 ===== eth0 forwarder c0 ===== f0 ctl1: readers, writers, a claim
 *                   forwarder.yaml, kill -HUP
 */
import { writeFileSync } from 'node:fs';
import t from 'tap';
import { Lab, type Program, run, shell, until } from '../support/lab.js';
import { withoutRoot } from '../support/netns.js';
import { Capture, hexOf, macOf, numbered, python, pythonWords, send, shown } from '../support/traffic.js';

const line = (rights: string, protocols = '"*"'): string =>
  `  - { control: ctl1, interface: eth0, rights: [${rights}], protocols: [${protocols}] }`;
const EVERYTHING = line('read, write, inject');
const NOTHING = '  []';

/** A script on the mount that waits, where it calls step(), for the test to go on. */
class Steps {
  private readonly program: Program;

  constructor(lab: Lab, script: string) {
    const step = 'def step(x):\n    show(x)\n    sys.stdin.readline()\n';
    this.program = lab.program(pythonWords(lab, step + script), null);
  }

  /** Waits until the script stands at this step. */
  at(name: string): Promise<void> {
    return this.program.untilOutput((output) => output.toString().split('\n').at(-2) === JSON.stringify(name));
  }

  next(): void {
    this.program.child.stdin?.write('\n');
  }

  async end(): Promise<unknown[]> {
    this.program.child.stdin?.end('\n');
    return shown(await this.program.ended);
  }
}

t.test('withdrawn permissions', { skip: withoutRoot, timeout: 120_000 }, async (t) => {
  const lab = await Lab.start();
  t.teardown(() => lab.stop());
  const mac = macOf(lab.fwd, 'eth0');
  const lastError = async (): Promise<string> => (await lab.state()).get('last_error') ?? '';
  const noRules = (): Promise<void> => until(async () => (await lab.table('distribution')).length === 0);
  /** What opening gives, to read, to write, for both, and the mode bits. */
  const opens = (name: string): Promise<unknown[]> =>
    python(
      lab,
      `show([tried('${name}', flags) for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR)])
show(oct(os.stat(p('${name}')).st_mode & 0o777))`,
    );
  const changed = (mode: string): Promise<void> =>
    until(async () => (await shell(`stat -c %a ${lab.file('eth0')}`)).stdout.toString() === `${mode}\n`);

  await t.test(
    'open readers read what came before, then EACCES once, then the end; their rules are gone',
    async (t) => {
      const steps = new Steps(
        lab,
        `
fds = [os.open(p(name), os.O_RDONLY) for name in ('eth0:ether:0x88b5:raw', 'eth0:arp:raw')]
step('open')
show([err(os.read, fds[0], 2000).hex(), err(os.read, fds[0], 2000), len(os.read(fds[0], 2000)), len(os.read(fds[0], 2000))])
poll = select.epoll()
poll.register(fds[1], select.EPOLLIN)
show([len(poll.poll(5)), err(os.read, fds[1], 2000), len(os.read(fds[1], 2000))])
`,
      );
      await steps.at('open');
      const [frame = Buffer.alloc(0)] = numbered(1, 100, mac);
      await send(lab.node, 'n0', [frame]);
      await until(async () => (await lab.ownTable('reception')).some((row) => row[6] === '1'));
      await lab.permit(line('write, inject'));
      t.same(await lab.table('distribution'), [], 'at once');
      t.same(await steps.end(), ['open', [frame.toString('hex'), 'EACCES', 0, 0], [1, 'EACCES', 0]]);
      t.match(await lastError(), /the permissions of fwd1 were changed: add a line to the forwarder's permissions/);
      await changed('200');
      t.same(await opens('eth0'), [['EACCES', 'ok', 'EACCES'], '0o200']);
    },
  );

  await t.test('a blocked cat ends with the error', async (t) => {
    await lab.permit(EVERYTHING);
    await changed('600');
    const cat = await lab.reader('eth0:arp');
    await lab.permit(NOTHING);
    const { status, stderr } = await cat.ended;
    t.equal(status, 1);
    t.match(stderr, /Permission denied/);
    await changed('0');
    t.same(await opens('eth0'), [['EACCES', 'EACCES', 'EACCES'], '0o0']);
    t.same([await lab.table('distribution'), await lab.table('reception')], [[], []]);
  });

  await t.test(
    'a writer without its right is told by fsync and close, and sends again when it has it back',
    async (t) => {
      await lab.permit(EVERYTHING);
      await changed('600');
      const frames = numbered(5, 100, macOf(lab.node, 'n0'), 10);
      const capture = await Capture.start(lab, lab.node, 'n0', 'in');
      const steps = new Steps(
        lab,
        `
frames = [bytes.fromhex(line) for line in ${JSON.stringify(hexOf(frames))}]
fd = os.open(p('eth0:raw'), os.O_WRONLY)
show([os.write(fd, frames[0]), err(os.fsync, fd)])
step('sent')
show([os.write(fd, frames[1]), err(os.fsync, fd), err(os.fsync, fd)])
dup = os.dup(fd)
show([os.write(fd, frames[2]), err(os.close, dup)])
step('refused')
show([os.write(fd, frames[3]), err(os.fsync, fd), os.write(fd, frames[4]), err(os.close, fd)])
`,
      );
      await steps.at('sent');
      const before = await lab.counter('drop_tx_not_permitted');
      await lab.permit(line('read'));
      await changed('400');
      steps.next();
      await steps.at('refused');
      t.match(await lastError(), /^eth0: frame not sent \(EACCES\)/);
      t.equal((await lab.counter('drop_tx_not_permitted')) - before, 2);
      t.equal((await lab.table('reception'))[0]?.[3], 'none');
      t.same(await opens('eth0'), [['ok', 'EACCES', 'EACCES'], '0o400']);
      await lab.permit(EVERYTHING);
      const shows = await steps.end();
      t.same(shows.filter(Array.isArray), [
        [100, null],
        [100, 'EIO', null],
        [100, 'EIO'],
        [100, null, 100, null],
      ]);
      const [first, , , ...last] = frames;
      t.same(hexOf(await capture.untilCount(3)), hexOf([first ?? Buffer.alloc(0), ...last]));
      await capture.stop();
    },
  );

  for (const [errno, length, before, after] of [
    ['EMSGSIZE', 1600, () => undefined, () => undefined],
    ['ENETDOWN', 100, () => lab.fwd.run('ip link set eth0 down'), () => lab.fwd.run('ip link set eth0 up')],
    ['EACCES', 100, () => lab.permit(line('write')), () => lab.permit(EVERYTHING)],
  ] as const) {
    await t.test(`fsync() and close() give EIO, once each, and .state has the reason: ${errno}`, async (t) => {
      await changed('600');
      const steps = new Steps(
        lab,
        `
frame = bytes.fromhex('${numbered(1, length, macOf(lab.node, 'n0'))[0]?.toString('hex')}')
fd = os.open(p('eth0:raw'), os.O_WRONLY)
step('open')
show([os.write(fd, frame), err(os.fsync, fd), err(os.fsync, fd), os.write(fd, frame), err(os.close, fd)])
`,
      );
      await steps.at('open');
      await before();
      t.same((await steps.end())[1], [length, 'EIO', null, length, 'EIO']);
      t.match(await lastError(), new RegExp(`^eth0: frame not sent \\(${errno}\\)`));
      await after();
    });
  }

  await t.test('a claim that is withdrawn ends, and the kernel of the forwarder answers again', async (t) => {
    await changed('600');
    const ping = async (): Promise<boolean> =>
      (await run([...lab.node.prefix, 'ping', '-c', '1', '-W', '0.4', '10.9.0.1'])).status === 0;
    await until(ping);
    const claim = await lab.reader('eth0:icmp:claim');
    t.equal(await ping(), false);
    await lab.permit(line('read'));
    t.match((await claim.ended).stderr, /Permission denied/);
    await until(() => lab.fwd.run('nft list ruleset') === '');
    t.equal(await ping(), true);
    const copy = await lab.reader('eth0:icmp');
    await copy.kill();
    await noRules();
  });

  await t.test('permissions for fewer protocol addresses end what is outside of them', async (t) => {
    await lab.permit(EVERYTHING);
    await changed('600');
    const outside = await lab.reader('eth0');
    const inside = await lab.reader('eth0:udp:10.9.0.1:520');
    await lab.permit(line('read, inject', '"udp:520"'));
    t.match((await outside.ended).stderr, /Permission denied/);
    t.same(
      (await lab.table('distribution')).map((row) => row[1]),
      ['udp:10.9.0.1:520'],
    );
    await until(async () => (await lab.table('reception')).length === 0);
    t.same(await opens('eth0'), [['EACCES', 'EACCES', 'EACCES'], '0o600']);
    t.same(await opens('eth0:udp:520'), [['ok', 'ok', 'ok'], '0o600']);
    await inside.kill();
    await noRules();
  });

  await t.test('what is withdrawn while the connection is away is gone when it is back', async (t) => {
    await lab.permit(EVERYTHING);
    await changed('600');
    const cat = await lab.reader('eth0:arp');
    lab.fwd.run('nft add table inet cut');
    lab.fwd.run('nft add chain inet cut in { type filter hook input priority 0 ; }');
    lab.fwd.run('nft add rule inet cut in tcp dport 7440 tcp flags & syn == syn reject with tcp reset');
    lab.ctl.run('ss -K -t dport = 7440 sport > 0');
    await until(async () => (await lab.state()).get('state') === 'not connected');
    await lab.permit(line('write'));
    lab.fwd.run('nft delete table inet cut');
    t.match((await cat.ended).stderr, /Permission denied/);
    await changed('200');
    await noRules();
  });

  await t.test('a configuration that cannot be read is one line of the log, and changes nothing', async (t) => {
    await lab.permit(EVERYTHING);
    await changed('600');
    const cat = await lab.reader('eth0:arp');
    const before = lab.forwarder?.log.length ?? 0;
    writeFileSync(lab.config, 'name: fwd1\npermissions: [ 1 ]\n');
    await lab.reload(/was not reloaded/);
    const said = (lab.forwarder?.log ?? '').slice(before).trimEnd().split('\n');
    t.equal(said.length, 1);
    t.match(said[0], /forwarder\.yaml:\d+: expected /);
    t.equal((await lab.table('distribution')).length, 1);
    t.equal((await lab.table('permission')).length, 1);
    await cat.kill();
    await noRules();
    t.equal(lab.forwarder?.ended, false);
  });
});
