/** Tells the service manager that this service is ready: sd_notify(3), one datagram to the socket that $NOTIFY_SOCKET names. */
import { must, O, sys } from './libc.js';

const AF_UNIX = 1;
const SOCK_DGRAM = 2;

/**
 * Does nothing where nobody asked for it; child processes do not inherit the question. A service manager that is not there
 * any more is not told.
 */
export function notifyReady(environment: NodeJS.ProcessEnv = process.env): void {
  const path = environment['NOTIFY_SOCKET'];
  if (path === undefined) return;
  delete environment['NOTIFY_SOCKET'];
  // A name that begins with @ is one without a file.
  const name = Buffer.from(path.startsWith('@') ? `\0${path.slice(1)}` : path);
  const message = Buffer.from('READY=1');
  const fd = must('socket', sys.socket(AF_UNIX, SOCK_DGRAM | O.CLOEXEC, 0));
  sys.sendto(fd, message, message.length, 0, Buffer.concat([Buffer.from([AF_UNIX, 0]), name]));
  sys.close(fd);
}
