/**
 * `on_disconnect=error`: files end with their connection, where by default they wait for it.
 *
 *     node n0 ======= eth0 forwarder c0 ===X=== f0 control device, mounted with on_disconnect=error
 */
import t from 'tap';
import { Lab, type Program, run, until } from '../support/lab.js';
import { withoutRoot } from '../support/netns.js';

/** Says what each read gives until the end of the file; with an argument more: what each write gives. */
const READ = `
import errno, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
print('open', flush=True)
while True:
    try: data = os.read(fd, 65536)
    except OSError as error: print(errno.errorcode[error.errno], flush=True); continue
    print(len(data), flush=True)
    if data == b'': break
`;
const WRITE = `
import errno, os, select, sys
fd = os.open(sys.argv[1], os.O_WRONLY)
print('open', flush=True)
poll = select.poll()
poll.register(fd, 0)
print([events & (select.POLLERR | select.POLLHUP) != 0 for _, events in poll.poll()], flush=True)
for _ in range(2):
    try: print(os.write(fd, bytes(60)), flush=True)
    except OSError as error: print(errno.errorcode[error.errno], flush=True)
try: os.close(fd)
except OSError as error: print('close', errno.errorcode[error.errno], flush=True)
else: print('close', flush=True)
`;

t.test('on_disconnect=error', { skip: withoutRoot, timeout: 60_000 }, async (t) => {
  const lab = await Lab.start({ mountOptions: 'on_disconnect=error' });
  t.teardown(() => lab.stop());
  const start = async (script: string, name: string): Promise<Program> => {
    const program = lab.program(['python3', '-c', script, lab.file(name)]);
    await program.untilOutput((output) => output.includes('open'));
    return program;
  };

  await t.test('an open file gives ENETDOWN once, then its end; another open waits for nothing', async (t) => {
    const reader = await start(READ, 'eth0:udp:9:raw');
    const writer = await start(WRITE, 'eth0:raw');
    await lab.forwarder?.end('SIGKILL');
    t.equal((await reader.ended).stdout.toString(), 'open\nENETDOWN\n0\n');
    t.equal((await writer.ended).stdout.toString(), 'open\n[True]\nENETDOWN\nENETDOWN\nclose\n');
    t.match((await run(['cat', lab.file('eth0')])).stderr, /Network is down/);
  });

  await t.test('after a reconnect the same names can be opened again, and the ended files left nothing', async (t) => {
    await lab.startForwarder();
    await until(async () => (await lab.state()).get('state') === 'connected');
    t.same(await lab.table('distribution'), []);
    const cat = await lab.reader('eth0:udp:9:hex');
    await run([...lab.node.prefix, 'bash', '-c', 'echo hello > /dev/udp/10.9.0.1/9']);
    await cat.untilOutput((output) => output.includes('68656c6c6f0a'));
    const written = await run(['bash', '-c', `echo ${'00'.repeat(60)} > ${lab.file('eth0:hex')}`]);
    t.equal(written.status, 0, written.stderr);
    await cat.kill();
    await until(async () => (await lab.table('distribution')).length === 0);
  });

  await t.test('also when the forwarder says goodbye, and frames that nobody confirmed are told', async (t) => {
    const reader = await start(READ, 'eth0:udp:9');
    await lab.forwarder?.end();
    t.equal((await reader.ended).stdout.toString(), 'open\n24\nENETDOWN\n0\n', 'what waits is read first');
  });
});
