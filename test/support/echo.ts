/**
 * UDP echo, a process for each end.
 *
 *     echo.js server ADDRESS PORT NAME             answers each datagram with `NAME ` and what it says
 *     echo.js client ADDRESS PORT EVERY-MS BYTES   sends numbered ones from one socket until its stdin ends, then prints, as
 *                                                  JSON, [time sent, latency, server] of each; not answered: [time, -1, null];
 *                                                  with the first answer it says `answered NAME`
 *
 * Times are of `now` (load.ts), in ms.
 */
import { createSocket } from 'node:dgram';
import { now } from './load.js';

const LAST_ANSWERS_MS = 500;

/** A datagram: when it was sent, by the clock of all processes, how long its answer took, whose it was. */
export type Echoed = [sent: number, latency: number, server: string | null];

const [role, address = '', port = '', third = '', fourth = ''] = process.argv.slice(2);
const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');

function serve(name: string): void {
  const head = Buffer.from(`${name} `);
  socket.on('message', (message, from) => socket.send([head, message], from.port, from.address));
  socket.bind(Number(port), address, () => process.stdout.write('bound\n'));
}

function ask(everyMs: number, bytes: number): void {
  const rows: Echoed[] = [];
  socket.on('message', (message) => {
    const [server = '', number = ''] = message.toString('latin1').split(' ', 2);
    const row = rows[Number(number)];
    if (row === undefined || row[2] !== null || message.length !== bytes + server.length + 1) return;
    if (rows.every(([, , one]) => one === null)) process.stdout.write(`answered ${server}\n`);
    row[1] = now() - row[0];
    row[2] = server;
  });
  // What ICMP says of a port that nobody has.
  socket.on('error', () => undefined);
  const send = (): void => {
    const message = Buffer.alloc(bytes, 'x');
    message.write(`${rows.length} `, 'latin1');
    rows.push([now(), -1, null]);
    socket.send(message, Number(port), address, () => undefined);
  };
  const clock = setInterval(send, everyMs);
  process.stdin.resume();
  process.stdin.on('end', () => {
    clearInterval(clock);
    setTimeout(() => {
      socket.close();
      process.stdout.write(`${JSON.stringify(rows)}\n`);
    }, LAST_ANSWERS_MS);
  });
}

if (role === 'server') serve(third);
else ask(Number(third), Number(fourth));
