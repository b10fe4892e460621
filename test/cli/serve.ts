/** How a control device gets its mount: one on a directory, and one that ends early is noticed. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { FWDFS, type Result, shell, signalProcess, until } from '../support/lab.js';
import { withoutRoot } from '../support/netns.js';

const skip = withoutRoot;
/** Nobody listens there. */
const NOWHERE = 'fwd1=ws://127.0.0.1:1';
const fwdfs = (line: string): Promise<Result> => shell(`${process.execPath} ${FWDFS} ${line}`, 60_000);
const mountsAt = (mountPoint: string): number =>
  readFileSync('/proc/self/mountinfo', 'utf8').split(` ${mountPoint} `).length - 1;

t.test('of two who mount on one directory at the same time one succeeds', { skip }, async (t) => {
  const folder = t.testdir({ fwd: {} });
  const mountPoint = join(folder, 'fwd');
  t.teardown(() => fwdfs(`umount -l ${mountPoint}`));
  const both = await Promise.all([1, 2].map(() => fwdfs(`mount ${NOWHERE} ${mountPoint}`)));
  t.same(both.map(({ status }) => status).sort(), [0, 1], both.map(({ stderr }) => stderr).join());
  const refused = both.find(({ status }) => status === 1);
  t.match(
    refused?.stderr,
    /^fwdfs: \S+ is (a mount of fwdfs already|being mounted by another fwdfs): use another[^\n]+\n$/,
  );
  t.equal(mountsAt(mountPoint), 1);
  t.equal((await fwdfs(`umount ${mountPoint}`)).status, 0);
});

/** A mount under way: its forwarder accepts and never answers, so that it waits a while. */
interface Mounting {
  readonly mountPoint: string;
  readonly starter: ChildProcess;
  readonly ended: Promise<{ status: number | null; stderr: string }>;
  readonly daemon: number;
}

async function startMounting(test: Pick<typeof t, 'teardown' | 'testdir'>): Promise<Mounting> {
  const server = createServer((socket) => void socket.on('error', () => undefined).resume()).listen(0, '127.0.0.1');
  test.teardown(() => server.close());
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' ? address?.port : undefined;
  const connected = once(server, 'connection');
  const mountPoint = join(test.testdir({ fwd: {} }), 'fwd');
  const words = [FWDFS, 'mount', `slow=ws://127.0.0.1:${port}`, mountPoint];
  const starter = spawn(process.execPath, words, { stdio: ['ignore', 'ignore', 'pipe'] });
  let stderr = '';
  starter.stderr.on('data', (data: Buffer) => (stderr += data.toString()));
  const ended = once(starter, 'close').then(() => ({ status: starter.exitCode, stderr }));
  await connected;
  const daemon = readdirSync('/proc').find((pid) => /^\d+$/.test(pid) && isDaemon(pid, mountPoint));
  return { mountPoint, starter, ended, daemon: Number(daemon) };
}

t.test('a control device that is killed before it is ready fails the mount', { skip }, async (t) => {
  const { mountPoint, ended, daemon } = await startMounting(t);
  signalProcess(daemon, 'SIGKILL');
  t.same(await ended, { status: 1, stderr: 'fwdfs: the control device ended before it was ready\n' });
  t.equal(existsSync(`/proc/${daemon}`), false);
  t.equal((await fwdfs(`umount ${mountPoint}`)).status, 0, 'what it leaves is a dead mount');
});

t.test('a control device that is told to end before it is ready fails the mount', { skip }, async (t) => {
  for (const end of ['SIGTERM', 'SIGINT', 'umount'] as const) {
    const { mountPoint, ended, daemon } = await startMounting(t);
    // umount(8), which is there sooner than a program of node.
    if (end === 'umount') t.equal((await shell(`umount ${mountPoint}`)).status, 0);
    else signalProcess(daemon, end);
    t.same(await ended, { status: 1, stderr: 'fwdfs: the control device ended before it was ready\n' }, end);
    t.equal(mountsAt(mountPoint), 0, end);
  }
});

t.test('who ends a mount command that waits gets no mount', { skip }, async (t) => {
  const { mountPoint, starter, ended, daemon } = await startMounting(t);
  starter.kill('SIGINT');
  await ended;
  await until(() => !existsSync(`/proc/${daemon}`));
  t.equal(mountsAt(mountPoint), 0);
});

/** The background process, which its starter marks. */
function isDaemon(pid: string, mountPoint: string): boolean {
  try {
    const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
    return words.includes(mountPoint) && readFileSync(`/proc/${pid}/environ`, 'utf8').includes('FWDFS_BACKGROUND=');
  } catch {
    return false;
  }
}
