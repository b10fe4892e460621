/** Loaded into a daemon (`node --import`): SIGUSR2 collects its garbage and says on stderr what is left, `heap BYTES`. */
import { writeSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const collect: unknown = runInNewContext('gc');
process.on('SIGUSR2', () => {
  if (typeof collect === 'function') for (let i = 0; i < 3; i++) collect();
  const { heapUsed, external } = process.memoryUsage();
  writeSync(2, `heap ${heapUsed + external}\n`);
});
