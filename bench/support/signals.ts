/**
 * How fast processes that are blocked in read(2) end, as a process of its own: `node signals.js MODE FOLDER COUNT`.
 *   sigint  from kill(2) with SIGINT until the process is gone
 *   kill9   from kill(2) with SIGKILL until the forwarder's table has no such rule, told by poll(2)
 */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { summary } from './frames.js';
import { TableWatch } from './table-watch.js';

const [mode = '', folder = '', countText = '0'] = process.argv.slice(2);
const times: number[] = [];
const table = new TableWatch(folder);

async function round(port: number): Promise<number> {
  const cat = spawn('cat', [`${folder}/eth0:udp:${port}`], { stdio: ['ignore', 'ignore', 'inherit'] });
  const pid = cat.pid ?? 0;
  const gone = new Promise<void>((resolve) => cat.once('exit', () => resolve()));
  // The first read gives the header of the file, the second one waits.
  const blocked = (): boolean =>
    readFileSync(`/proc/${pid}/wchan`, 'latin1') === 'request_wait_answer' &&
    readFileSync(`/proc/${pid}/io`, 'latin1').includes('rchar: 0') === false &&
    readFileSync(`/proc/${pid}/syscall`, 'latin1').startsWith('0 ');
  while (!blocked() || !table.has(`udp:${port}`)) await new Promise((resolve) => setTimeout(resolve, 1));
  const start = performance.now();
  process.kill(pid, mode === 'sigint' ? 'SIGINT' : 'SIGKILL');
  if (mode === 'sigint') {
    await gone;
    return performance.now() - start;
  }
  do table.changed();
  while (table.has(`udp:${port}`));
  const time = performance.now() - start;
  await gone;
  return time;
}

for (let i = 0; i < Number(countText); i++) times.push(await round(20_000 + i));
process.stdout.write(`${summary(times)}\n`);
