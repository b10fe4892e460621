/**
 * Waiting for a change: text files wake poll for exceptions, as sysfs does.
 *
 *     node n0 ======= eth0 forwarder c0 ======= f0 control device
 *                     ip link set mtu                python: read, poll, seek, read
 */
import t from 'tap';
import { Lab, type Program } from '../support/lab.js';
import { withoutRoot } from '../support/netns.js';

/** Prints the text, then `changed` and the text again for each change. Ends when it is asked for one too many. */
const WATCH = `
import os, select, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
poll = select.poll()
poll.register(fd, select.POLLPRI)
def text():
    os.lseek(fd, 0, os.SEEK_SET)
    parts = []
    while True:
        # A byte at a time: it is of one moment all the same.
        part = os.read(fd, 1)
        if not part: return b''.join(parts).decode()
        parts.append(part)
def say(line):
    # In one piece, however Python is told to buffer.
    os.write(1, (line + '\\n').encode())
say(text())
while True:
    for _, events in poll.poll():
        assert events & select.POLLPRI and events & select.POLLERR, events
    try: say('changed ' + text())
    except OSError as error: say('changed ' + error.strerror)
`;

t.test('a script can wait for a change', { skip: withoutRoot, timeout: 60_000 }, async (t) => {
  const lab = await Lab.start();
  t.teardown(() => lab.stop());
  const watch = async (name: string): Promise<Program> => {
    const program = lab.program(['python3', '-c', WATCH, name]);
    await program.untilOutput((output) => output.length > 0);
    return program;
  };
  const changes = (program: Program, count: number): Promise<void> =>
    program.untilOutput((output) => output.toString().split('changed ').length > count);
  const last = (program: Program): string => program.output.toString().split('changed ').at(-1) ?? '';

  await t.test("of the forwarder's tables", async (t) => {
    const distribution = await watch(lab.file('.tables/distribution'));
    const reception = await watch(lab.file('.tables/reception'));
    const cat = await lab.reader('eth0:udp:9');
    await changes(distribution, 1);
    t.match(last(distribution), /\neth0\tudp:9\tin\t\d+\tctl1\t/);
    await cat.kill();
    await changes(distribution, 2);
    t.notMatch(last(distribution), /udp:9/);
    t.equal(reception.output.toString().includes('changed'), false, 'another table did not change');
  });

  await t.test("of the control device's own tables", async (t) => {
    const reception = await watch(`${lab.mountPoint}/.tables/reception`);
    const cat = await lab.reader('eth0:udp:10');
    await reception.untilOutput(() => /\tudp:10\tin\tactive\t/.test(last(reception)));
    await cat.kill();
    await reception.untilOutput(() => !last(reception).includes('udp:10'));
    t.pass();
  });

  await t.test('of an attribute, and only of that', async (t) => {
    const mtu = await watch(lab.file('.if/eth0/mtu'));
    const address = await watch(lab.file('.if/eth0/address'));
    lab.fwd.run('ip link set eth0 mtu 1400');
    await changes(mtu, 1);
    t.equal(last(mtu), '1400\n\n');
    lab.fwd.run('ip link set eth0 mtu 1500');
    await changes(mtu, 2);
    t.equal(last(mtu), '1500\n\n');
    t.equal(address.output.toString().includes('changed'), false);
  });

  await t.test('of the connection, and tables that can not be read meanwhile', async (t) => {
    const state = await watch(lab.file('.state'));
    const distribution = await watch(lab.file('.tables/distribution'));
    t.match(state.output.toString(), /^state\tconnected\n/);
    await lab.forwarder?.end();
    await state.untilOutput(() => last(state).startsWith('state\tnot connected\n'));
    await distribution.untilOutput(() => last(distribution) === 'Network is down\n');
    await lab.startForwarder();
    await state.untilOutput(() => last(state).startsWith('state\tconnected\n'));
    await distribution.untilOutput(() => last(distribution).startsWith('interface\t'));
    const cat = await lab.reader('eth0:udp:11');
    await distribution.untilOutput(() => last(distribution).includes('udp:11'));
    await cat.kill();
    t.pass();
  });
});

t.test('many interfaces that go at once are gone from the listing at once', { skip: withoutRoot }, async (t) => {
  const permissions = '  - { control: ctl1, interface: "*", rights: [read], protocols: ["*"] }';
  const lab = await Lab.start({ permissions, eth0: '{ unmatched: host }\n  "*": { unmatched: host }' });
  t.teardown(() => lab.stop());
  const names = async (): Promise<string[]> => {
    const ls = lab.program(['ls', lab.file('')]);
    return (await ls.ended).stdout.toString().trim().split('\n');
  };
  const before = await names();
  const count = 64;
  const add = lab.program(
    [...lab.fwd.prefix, 'ip', '-batch', '-'],
    Array.from({ length: count }, (_, i) => `link add v${i} type veth peer name w${i}\nlink set v${i} group 5\n`).join(
      '',
    ),
  );
  t.equal((await add.ended).status, 0, add.stderr);
  const listing = async (wanted: number): Promise<number> => {
    const start = performance.now();
    while ((await names()).length !== wanted) {
      if (performance.now() - start > 10_000) throw new Error(`${(await names()).length} names, not ${wanted}`);
    }
    return performance.now() - start;
  };
  t.comment(`listed ${Math.round(await listing(before.length + 2 * count))} ms after the last was made`);
  lab.fwd.run('ip link del group 5');
  t.comment(`gone ${Math.round(await listing(before.length))} ms after the kernel said so`);
  t.same(await names(), before);
});
