/**
 * The main job on the second FUSE backend: the same files, mounted by fuse-native.
 *
 *     ping, raw frames                                           cat eth0 | tcpdump -nr -
 *     node n0 ============== eth0 forwarder c0 ============== f0 control device, -o fuse_backend=fuse-native
 *     tcpdump: what leaves                                       cat trace.pcap > eth0
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { fuseNativeOnly } from '../support/fuse-mount.js';
import { FWDFS, Lab, run, shell, signalProcess, until } from '../support/lab.js';
import { Capture, hexOf, macOf, numbered, pcap, send, untilTestFrames } from '../support/traffic.js';

const mountOptions = 'fuse_backend=fuse-native';

const isMounted = (lab: Lab): boolean => readFileSync('/proc/self/mountinfo', 'latin1').includes(` ${lab.mountPoint} `);

t.test('a remote interface is a file, by fuse-native', { ...fuseNativeOnly, timeout: 120_000 }, async (t) => {
  const lab = await Lab.start({ mountOptions });
  t.teardown(() => lab.stop());
  const eth0 = lab.file('eth0');
  const withoutRules = (): Promise<void> => until(async () => (await lab.table('distribution')).length === 0);

  await t.test('it is libfuse that serves the mount', async (t) => {
    t.match(readFileSync(`/proc/${lab.control?.pid}/maps`, 'latin1'), /libfuse\.so\.2/);
    t.match(
      readFileSync('/proc/self/mounts', 'latin1'),
      new RegExp(`${lab.mountPoint} fuse\\.fwdfs rw,nosuid,nodev,noexec`),
    );
  });

  await t.test('ls, .state, .tables and attributes show what is there', async (t) => {
    const ls = await run(['ls', '-a', lab.mountPoint, join(lab.mountPoint, 'fwd1')]);
    t.match(ls.stdout.toString(), /\.tables[^]*fwd1[^]*\.state[^]*eth0/);
    t.match((await lab.state()).get('state'), /^connected/);
    t.same(await lab.table('distribution'), []);
    t.equal(await lab.counter('drop_reader_slow'), 0);
    const listed = await run([process.execPath, FWDFS, 'ls', '-m', lab.mountPoint]);
    t.match(listed.stdout.toString(), /eth0/);
    t.equal((await run(['cat', lab.file('nothing')])).status, 1);
  });

  await t.test('a rule is there while the file is open', async (t) => {
    const cat = await lab.reader('eth0');
    t.equal((await lab.table('distribution')).length, 1);
    await cat.kill('SIGKILL');
    await withoutRules();
    t.same(await lab.ownTable('reception'), []);
  });

  await t.test('cat | tcpdump -nr - shows the packets as they come', async (t) => {
    const line = 'exec 3<"$1"; echo open >&2; exec cat <&3 | tcpdump -lnr - icmp';
    const shown = lab.program(['/bin/bash', '-c', line, '-', eth0]);
    await shown.untilStderr(/open/);
    for (let count = 1; count <= 3; count++) {
      lab.node.run('ping -c 1 -W 2 10.9.0.1');
      await shown.untilOutput((output) => output.toString().split('echo request').length === count + 1);
    }
    t.equal(shown.stderr.includes('Interrupted'), false);
    const { stdout } = await run(['pgrep', '-P', String(shown.pid), 'cat']);
    signalProcess(Number(stdout.toString().trim()), 'SIGTERM');
    t.equal((await shown.ended).status, 0, 'tcpdump sees the end of the file');
    await withoutRules();
  });

  await t.test('what arrives is read byte for byte, also after a silence of several EINTRs', async (t) => {
    const frames = numbered(50, 200, macOf(lab.fwd, 'eth0'));
    const cat = await lab.reader('eth0');
    // Another reader that is given up twice says how much time went by.
    await run(['timeout', '-s', 'INT', '1.2', 'cat', lab.file('eth0:udp:9')]);
    await send(lab.node, 'n0', frames);
    t.same(hexOf(await untilTestFrames(cat, frames.length)), hexOf(frames));
    await cat.kill();
  });

  await t.test('what a pcap file and a line of hex hold leaves the remote interface byte for byte', async (t) => {
    const frames = numbered(300, 1000, macOf(lab.node, 'n0'), 1000);
    const [first = Buffer.alloc(0), ...rest] = frames;
    const trace = join(lab.folder, 'trace.pcap');
    writeFileSync(trace, pcap(rest));
    const capture = await Capture.start(lab, lab.node, 'n0', 'in');
    const echo = await shell(`/bin/echo ${first.toString('hex')} > ${eth0}:hex`);
    t.same([echo.status, echo.stderr], [0, '']);
    const written = await shell(`cat ${trace} > ${eth0}`);
    t.same([written.status, written.stderr], [0, '']);
    await capture.untilCount(frames.length);
    t.same(hexOf(await capture.stop()), hexOf(frames));
    const bad = await shell(`/bin/echo xyz > ${eth0}:hex`);
    t.match(bad.stderr, /Invalid argument/);
  });

  await t.test('commands succeed or fail with their own errno', async (t) => {
    t.equal((await shell(`echo rule add eth0:udp:520 > ${lab.file('.ctl')}`)).status, 0);
    t.equal((await lab.table('distribution')).length, 1);
    t.match((await shell(`/bin/echo rule bogus > ${lab.file('.ctl')}`)).stderr, /Invalid argument/);
    t.equal((await shell(`echo rule remove eth0:udp:520 > ${lab.file('.ctl')}`)).status, 0);
    await withoutRules();
  });

  await t.test('SIGINT ends a blocked cat', async (t) => {
    const cat = await lab.reader('eth0:udp:520');
    await until(() => readFileSync(`/proc/${cat.pid}/wchan`, 'latin1') === 'request_wait_answer');
    const ms = await cat.kill('SIGINT');
    t.equal((await cat.ended).signal, 'SIGINT');
    t.comment(`${ms.toFixed(0)} ms`);
    await withoutRules();
  });

  await t.test('umount is refused while it is in use, and ends the control device when it is not', async (t) => {
    const cat = await lab.reader('eth0');
    const busy = await run([process.execPath, FWDFS, 'umount', lab.mountPoint]);
    t.equal(busy.status, 1);
    t.match(busy.stderr, /busy/);
    await cat.kill('SIGKILL');
    await withoutRules();
    t.equal((await run([process.execPath, FWDFS, 'umount', lab.mountPoint])).status, 0);
    await until(() => lab.control?.ended === true);
    t.equal(lab.control?.child.exitCode, 0);
    t.equal(isMounted(lab), false);
  });
});

t.test(
  'the ends of a control device that mounts by fuse-native',
  { ...fuseNativeOnly, timeout: 120_000 },
  async (t) => {
    const lab = await Lab.start({ mountOptions });
    t.teardown(() => lab.stop());

    await t.test('SIGTERM ends blocked readers with the end of the file, and the mount is gone', async (t) => {
      const cat = await lab.reader('eth0');
      await lab.control?.end('SIGTERM');
      t.equal((await cat.ended).status, 0);
      t.equal(lab.control?.child.exitCode, 0);
      t.equal(isMounted(lab), false);
    });

    await t.test('after kill -9 readers fail, and the next mount clears the dead one away', async (t) => {
      await lab.startControl();
      const cat = await lab.reader('eth0');
      await lab.control?.end('SIGKILL');
      t.not((await cat.ended).status, 0);
      t.equal(isMounted(lab), true, 'a dead mount');
      t.equal(existsSync(lab.mountPoint), false, 'it does not answer');
      await lab.startControl();
      t.match((await lab.state()).get('state'), /^connected/);
      // The rule of the control device that died goes with its session; a reader gets one of its own.
      const next = await lab.reader('eth0');
      await next.kill('SIGKILL');
    });
  },
);
