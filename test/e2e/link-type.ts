/**
 * An interface that comes back with another link type: a tap x0 is deleted, a tun x0 made.
 *
 *     forwarder x0 (tap, then tun) ======= control device: cat x0, a writer of x0, a writer whose frames are under way
 */
import t from 'tap';
import { Lab, type Program, run, until } from '../support/lab.js';
import { withoutRoot } from '../support/netns.js';
import { filler, pcap } from '../support/traffic.js';

const PERMISSIONS = '  - { control: ctl1, interface: "*", rights: [read, write, inject], protocols: ["*"] }';

/** Holds a name open, and does with each line of its input what `io` says, telling how it went. */
const held = (lab: Lab, flags: string, io: string): Program =>
  lab.program(
    [
      'python3',
      '-uc',
      `
import os, sys
fd = os.open(sys.argv[1], os.${flags})
print('open')
for line in sys.stdin:
    try: print(${io})
    except OSError as error: print(os.strerror(error.errno))
try: os.close(fd); print('closed')
except OSError as error: print('close:', os.strerror(error.errno))`,
      lab.file('x0:raw'),
    ],
    null,
  );

/** The link type of a pcap stream. */
const linkTypeOf = (stream: Buffer): number => stream.readUInt32LE(20);

t.test('another link type', { skip: withoutRoot, timeout: 60_000 }, async (t) => {
  const lab = await Lab.start({ permissions: PERMISSIONS, interfaces: '  x0: { unmatched: host }' });
  t.teardown(() => lab.stop());
  const make = (kind: 'tap' | 'tun'): void => {
    lab.fwd.run(`ip tuntap add x0 mode ${kind}`);
    lab.fwd.run('ip link set x0 up');
  };
  const listed = async (text: string): Promise<void> => {
    await until(async () => (await run(['cat', `${lab.file('.if')}/x0/linktype`])).stdout.toString() === text);
  };
  const said = (program: Program): string => program.output.toString();
  make('tap');
  await listed('1\n');

  for (const pause of [true, false]) {
    const how = pause ? 'after a while' : 'at once';
    await t.test(`readers and writers of the tap end when it comes back ${how} as a tun`, async (t) => {
      const reader = await lab.reader('x0');
      await reader.untilOutput((output) => output.length === 24);
      const polled = held(lab, 'O_RDONLY', 'os.read(fd, 9000)');
      const writer = held(lab, 'O_WRONLY', `os.write(fd, bytes(60))`);
      for (const program of [polled, writer]) await program.untilOutput((output) => output.includes('open'));
      lab.fwd.run('ip link del x0');
      if (pause) await until(async () => (await lab.table('distribution')).every((row) => row[6] === 'absent'));
      make('tun');
      await listed('101\n');
      const { status, stdout, stderr } = await reader.ended;
      t.match(stderr, /Network is down/);
      t.equal(status, 1);
      t.equal(linkTypeOf(stdout), 1);
      for (const program of [polled, writer]) program.child.stdin?.write('\n\n');
      await until(() => said(polled).split('\n').length === 4);
      t.equal(said(polled), "open\nNetwork is down\nb''\n", 'once, then the end of the file');
      await until(() => said(writer).split('\n').length === 4);
      t.equal(said(writer), 'open\nNetwork is down\nNetwork is down\n', 'every time');
      for (const program of [polled, writer]) {
        program.child.stdin?.end();
        await program.ended;
        t.match(said(program), /closed\n$/, 'nothing was under way');
      }
      t.same(await lab.table('distribution'), []);
      t.equal(await lab.counter('tx_packets', 'x0'), 0);

      const next = await lab.reader('x0');
      await next.untilOutput((output) => output.length === 24);
      t.equal(linkTypeOf(next.output), 101, 'who opens it now gets the tun');
      await next.kill();
      lab.fwd.run('ip link del x0');
      make('tap');
      await listed('1\n');
    });
  }

  await t.test('a reader that waits through a lost connection ends when both are back', async (t) => {
    const reader = await lab.reader('x0');
    lab.ctl.run('ip link set f0 down');
    lab.fwd.run('ip link del x0');
    make('tun');
    lab.ctl.run('ip link set f0 up');
    const { stdout, stderr } = await reader.ended;
    t.match(stderr, /Network is down/);
    t.equal(linkTypeOf(stdout), 1);
    const ether = pcap([filler(60, 1)]);
    t.not((await run(['/bin/bash', '-c', `cat > ${lab.file('x0')}`], ether)).status, 0, 'nor is its pcap taken');
  });
});
