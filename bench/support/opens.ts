/** Holds many rules, as a process of its own: `node opens.js FOLDER`. A line with a number on standard input: so many. */
import { closeSync, openSync } from 'node:fs';

const [folder = ''] = process.argv.slice(2);
const held: number[] = [];

process.stdin.setEncoding('utf8').on('data', (text: string) => {
  const wanted = Number(text);
  while (held.length > wanted) closeSync(held.pop() ?? -1);
  while (held.length < wanted) held.push(openSync(`${folder}/eth0:udp:${1024 + held.length}`, 'r'));
  process.stdout.write(`${held.length}\n`);
});
