import { spawnSync } from 'node:child_process';
import { closeSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { receiveFd, socketPair } from '../../src/sys/fd-passing.js';
import { F, sys } from '../../src/sys/libc.js';

const FD_CLOEXEC = 1;

/** Sends `what` at descriptor 3, as Python's socket module does. */
function send(socket: number, what: string): void {
  const program = `import os, socket
s = socket.socket(fileno=3)
${what}`;
  const { status, stderr } = spawnSync('python3', ['-c', program], { stdio: ['ignore', 'ignore', 'pipe', socket] });
  if (status !== 0) throw new Error(stderr.toString());
}

t.test('a descriptor of another program arrives, close-on-exec', async (t) => {
  const file = join(t.testdir({ file: 'what is in it' }), 'file');
  const [ours, theirs] = socketPair();
  t.teardown(() => [ours, theirs].map((fd) => sys.close(fd)));
  send(theirs, `socket.send_fds(s, [b"x"], [os.open(${JSON.stringify(file)}, os.O_RDONLY)])`);
  const fd = receiveFd(ours);
  t.equal(readFileSync(fd, 'utf8'), 'what is in it');
  t.equal(sys.fcntl(fd, F.GETFD, 0), FD_CLOEXEC);
  t.equal(sys.fcntl(ours, F.GETFD, 0), FD_CLOEXEC);
  closeSync(fd);
});

t.test('what is no descriptor is not taken for one, and nothing is not waited for', async (t) => {
  const [ours, theirs] = socketPair();
  t.teardown(() => [ours, theirs].map((fd) => sys.close(fd)));
  t.throws(() => receiveFd(ours), { code: 'EAGAIN' });
  send(theirs, 's.send(b"x")');
  t.throws(() => receiveFd(ours), { code: 'EPROTO' });
});
