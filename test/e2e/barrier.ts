/**
 * What fsync and close say when signals, children and lost connections come between.
 *
 *     node n0 ======= eth0 forwarder c0 ======= f0 control device
 *                     stopped by SIGSTOP            python: a frame that is too long, fsync, close
 */
import t from 'tap';
import { Lab, type Program, run, signalProcess } from '../support/lab.js';
import { withoutRoot } from '../support/netns.js';

const PRELUDE = `
import errno, os, signal, subprocess, sys, time
GOOD = b'\\xff' * 6 + b'\\2\\0\\0\\0\\0\\1' + b'\\x88\\xb5' + bytes(46)
LONG = GOOD + bytes(2000)
def said(function, *args):
    try: return str(function(*args))
    except OSError as error: return errno.errorcode[error.errno]
def interrupted(function, *args):
    def alarm(*_): raise TimeoutError
    signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try: return str(function(*args))
    except TimeoutError: return 'interrupted'
def say(*words): print(*words, flush=True)
def wait_for_go(): sys.stdin.readline()
name = sys.argv[1]
`;

t.test('barriers', { skip: withoutRoot, timeout: 90_000 }, async (t) => {
  const lab = await Lab.start();
  t.teardown(() => lab.stop());
  const words = (script: string, name: string): string[] => [
    '/usr/bin/python3',
    '-c',
    PRELUDE + script,
    lab.file(name),
  ];
  const answer = async (script: string, name = 'eth0:raw'): Promise<string> => {
    const { status, stdout, stderr } = await run(words(script, name));
    t.equal(status, 0, stderr);
    return stdout.toString().trim();
  };
  /** Runs a script that says `stop` before what has to wait, and goes on with the forwarder after it said `go`. */
  const whileStopped = async (script: string, name = 'eth0:raw'): Promise<string> => {
    const program: Program = lab.program(words(script, name), null);
    await program.untilOutput((output) => output.includes('stop'));
    signalProcess(lab.forwarder?.pid, 'SIGSTOP');
    program.child.stdin?.write('\n');
    try {
      await program.untilOutput((output) => output.includes('go'));
    } finally {
      signalProcess(lab.forwarder?.pid, 'SIGCONT');
    }
    program.child.stdin?.end('\n');
    return (await program.ended).stdout.toString().trim().split('\n').slice(2).join(' ');
  };

  for (const [what, child] of [
    ['runs another program', "subprocess.run(['true'])"],
    ['forks a child that exits', 'os.fork() == 0 and os._exit(0); os.wait()'],
  ] as const) {
    await t.test(`a writer that ${what} is told at its own close`, async (t) => {
      const script = `
fd = os.open(name, os.O_WRONLY)
os.write(fd, LONG)
${child}
say(said(os.close, fd))`;
      t.equal(await answer(script), 'EIO');
    });
  }

  await t.test('a child that has only inherited the file waits for nothing at its end', async (t) => {
    const script = `
fd = os.open(name, os.O_WRONLY)
say('stop'); wait_for_go()
os.write(fd, GOOD)
subprocess.run(['true'])
say('go'); wait_for_go()
say(said(os.fsync, fd), said(os.close, fd))`;
    t.equal(await whileStopped(script), 'None None');
  });

  await t.test('a child that writes is told at its own close', async (t) => {
    const script = `
fd = os.open(name, os.O_WRONLY)
child = subprocess.run(['/usr/bin/python3', '-c', 'import os, sys; os.write(3, bytes(2014)); os.close(3)'], pass_fds=[fd], preexec_fn=lambda: os.dup2(fd, 3), close_fds=False, stderr=subprocess.PIPE)
say('Input/output error' in child.stderr.decode(), said(os.close, fd))`;
    t.equal(await answer(script), 'True None');
  });

  await t.test('a line of hex that a shell writes in pieces is whole, whatever it starts in between', async (t) => {
    const file = lab.file('eth0:hex');
    const reader = await lab.reader('eth0:out:hex');
    const line = `{ printf ffffffffffff02000000000188b5; /bin/true; printf 22222222; x=$(date); echo; } > ${file}`;
    const { status, stderr } = await run(['/bin/bash', '-c', line]);
    t.equal(status, 0, stderr);
    await reader.untilOutput((output) => output.includes('\n'));
    t.match(reader.output.toString(), /^ffffffffffff02000000000188b522222222\n/);
    await reader.kill();
  });

  await t.test('so is a command, of which no half is carried out', async (t) => {
    const line = `{ printf 'rule add eth0:udp:5'; /bin/true; printf '20\\n'; } > ${lab.file('.ctl')}`;
    t.equal((await run(['/bin/bash', '-c', line])).status, 0);
    t.same(
      (await lab.table('distribution')).map((row) => row[1]),
      ['udp:520'],
    );
    await run(['/bin/bash', '-c', `echo rule remove eth0:udp:520 > ${lab.file('.ctl')}`]);
  });

  for (const [what, call, name, flags] of [
    ['fsync', 'interrupted(os.fsync, fd)', 'eth0:raw', 'os.O_WRONLY'],
    ['close of a copy', 'interrupted(os.close, os.dup(fd))', 'eth0:raw', 'os.O_WRONLY'],
    ['synchronous write', 'interrupted(os.write, fd, LONG)', 'eth0:raw', 'os.O_WRONLY | os.O_SYNC'],
  ] as const) {
    await t.test(`a ${what} that a signal ends takes no error away`, async (t) => {
      const script = `
fd = os.open(name, ${flags})
say('stop'); wait_for_go()
${what === 'synchronous write' ? '' : 'os.write(fd, LONG)'}
word = ${call}
say('go'); wait_for_go()
say(word, said(os.fsync, fd), said(os.fsync, fd), said(os.close, fd))`;
      t.equal(await whileStopped(script, name), 'interrupted EIO None None');
    });
  }
});
