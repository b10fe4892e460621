import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { must, sys } from '../../src/sys/libc.js';
import { notifyReady } from '../../src/sys/notify.js';

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const MSG_DONTWAIT = 0x40;

/** A service manager that waits at an address. */
function manager(address: string): { received: () => string; close: () => void } {
  const fd = must('socket', sys.socket(AF_UNIX, SOCK_DGRAM, 0));
  must('bind', sys.bind(fd, Buffer.concat([Buffer.from([AF_UNIX, 0]), Buffer.from(address)])));
  const buffer = Buffer.alloc(100);
  return {
    received: () => buffer.toString('utf8', 0, Math.max(sys.recv(fd, buffer, buffer.length, MSG_DONTWAIT), 0)),
    close: () => void sys.close(fd),
  };
}

t.test('a service manager is told once, at a path or at a name without a file', async (t) => {
  // Not in the folder of the tests, whose path may be longer than a socket's can be.
  const folder = mkdtempSync(join(tmpdir(), 'fwdfst-notify-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'notify');
  const name = `fwdfst-notify-${process.pid}`;
  for (const [variable, address] of [
    [path, path],
    [`@${name}`, `\0${name}`],
  ] as const) {
    const { received, close } = manager(address);
    const environment: NodeJS.ProcessEnv = { NOTIFY_SOCKET: variable, OTHER: 'x' };
    notifyReady(environment);
    t.equal(received(), 'READY=1', variable);
    t.same(environment, { OTHER: 'x' }, 'child processes are not asked');
    notifyReady(environment);
    t.equal(received(), '');
    close();
  }
});

t.test('without a service manager nothing happens', async (t) => {
  notifyReady({});
  t.doesNotThrow(() => notifyReady({ NOTIFY_SOCKET: '/no/such/socket' }));
});
