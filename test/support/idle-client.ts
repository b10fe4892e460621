/**
 * TCP clients that only wait, as a program blocked in read(2) does: `idle-client.js ADDRESS PORT COUNT`.
 *
 * Prints `open PORT …`, their own ports, when all are connected; then `PORT WHY TIME` as each one ends: ECONNRESET or `end`,
 * and when, by the clock of `now` (load.ts), in ms.
 */
import { connect } from 'node:net';
import { now } from './load.js';

const [host = '', port = '', count = ''] = process.argv.slice(2);
const sockets = Array.from({ length: Number(count) }, () => connect({ host, port: Number(port) }));
const ports = await Promise.all(
  sockets.map(
    (socket) =>
      new Promise<number>((resolve, reject) => {
        socket.once('connect', () => resolve(socket.localPort ?? 0));
        socket.once('error', reject);
      }),
  ),
);
for (const [index, socket] of sockets.entries()) {
  const say = (why: string): void => void process.stdout.write(`${ports[index]} ${why} ${now()}\n`);
  socket.on('error', (error: NodeJS.ErrnoException) => say(error.code ?? error.message));
  socket.on('end', () => say('end'));
  socket.resume();
}
process.stdout.write(`open ${ports.join(' ')}\n`);
