/**
 * How fast the rule of a socket comes and goes, as a process of its own beside the virtual IF:
 * `node sockets-rules.js KIND END FOLDER COUNT`. KIND: tcp, udp, raw or packet; END: close or kill9 (of a child that has it).
 * Times are from the return of the last system call until the forwarder's table, told by poll(2), has or has not the rule.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { must, sys } from '../../src/sys/libc.js';
import { summary } from './frames.js';
import { TableWatch } from './table-watch.js';

const [kind = '', end = '', folder = '', countText = '0'] = process.argv.slice(2);
const table = new TableWatch(folder);

function until(rule: string, there: boolean): number {
  const start = performance.now();
  while (table.has(rule) !== there) table.changed();
  return performance.now() - start;
}

const AF_INET = 2;
const AF_PACKET = 17;
const TYPES: Readonly<Record<string, readonly [family: number, type: number]>> = {
  tcp: [AF_INET, 1],
  udp: [AF_INET, 2],
  raw: [AF_INET, 3],
  packet: [AF_PACKET, 3],
};

/** Opens a socket, as a program does. @param number port, IP protocol or ether type @returns descriptor */
function open(number: number): number {
  const [family = 0, type = 0] = TYPES[kind] ?? [];
  const own = kind === 'raw' ? number : kind === 'packet' ? ((number & 0xff) << 8) | (number >> 8) : 0;
  const fd = must('socket', sys.socket(family, type, own));
  if (kind === 'tcp' || kind === 'udp') {
    const address = Buffer.alloc(16);
    address.writeUInt16LE(AF_INET, 0);
    address.writeUInt16BE(number, 2);
    must('bind', sys.bind(fd, address));
  }
  if (kind === 'tcp') must('listen', sys.listen(fd, 16));
  return fd;
}

const ruleOf = (number: number): string =>
  kind === 'raw' ? `ip:${number}` : kind === 'packet' ? `ether:0x${number.toString(16)}` : `${kind}:${number}`;
const numberOf = (index: number): number =>
  kind === 'raw' ? 143 + (index % 100) : kind === 'packet' ? 0x9100 + index : 20_000 + index;

if (end === 'hold') {
  open(Number(countText));
  process.stdout.write('open\n');
  setInterval(() => undefined, 1000);
} else {
  const comes: number[] = [];
  const goes: number[] = [];
  for (let i = 0; i < Number(countText); i++) {
    // One after another at a person's pace: looks for sockets that follow each other closely are held back on purpose.
    await new Promise((resolve) => setTimeout(resolve, 30 + 50 * Math.random()));
    const number = numberOf(i);
    const rule = ruleOf(number);
    if (end === 'close') {
      const fd = open(number);
      comes.push(until(rule, true));
      await new Promise((resolve) => setTimeout(resolve, 30 + 50 * Math.random()));
      sys.close(fd);
      goes.push(until(rule, false));
    } else {
      const holder: ChildProcess = spawn(process.execPath, [
        process.argv[1] ?? '',
        kind,
        'hold',
        folder,
        String(number),
      ]);
      await new Promise((resolve) => holder.stdout?.once('data', resolve));
      until(rule, true);
      const gone = new Promise((resolve) => holder.once('exit', resolve));
      holder.kill('SIGKILL');
      goes.push(until(rule, false));
      await gone;
    }
  }
  if (comes.length > 0) process.stdout.write(`comes ${summary(comes)}; `);
  process.stdout.write(`goes ${summary(goes)}\n`);
}
