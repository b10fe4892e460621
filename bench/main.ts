/** `npm run bench -- NAME [PART…]`: runs one benchmark. */
import { benchBalance } from './balance.js';
import { benchFile } from './file.js';
import { benchFlows } from './flows.js';
import { benchSoak } from './soak.js';
import { benchVif } from './vif.js';
import { benchSockets } from './sockets.js';

const BENCHES: Readonly<Record<string, (parts: readonly string[]) => Promise<void>>> = {
  file: benchFile,
  flows: benchFlows,
  soak: benchSoak,
  vif: benchVif,
  sockets: benchSockets,
  balance: benchBalance,
};

const [name = '', ...parts] = process.argv.slice(2);
const bench = Object.hasOwn(BENCHES, name) ? BENCHES[name] : undefined;
if (bench === undefined) {
  process.stderr.write(`usage: npm run bench -- ${Object.keys(BENCHES).join('|')} [PART…]\n`);
  process.exitCode = 2;
} else {
  await bench(parts);
}
