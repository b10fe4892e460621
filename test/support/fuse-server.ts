/**
 * Serves the demo tree: `node fuse-server.js MOUNTPOINT [fuse-native] [ro] [trace]`. Prints `ready` when it is mounted and `ended` when
 * somebody else unmounted it; unmounts on SIGTERM and when its standard input ends, so that no mount outlives its test.
 */
import { silent } from '../../src/base/log.js';
import { makeBackend } from '../../src/fusefs/backends.js';
import { demo } from './fuse-demo.js';

const [mountPoint = '', ...words] = process.argv.slice(2);
const { root } = demo();
const server = await makeBackend(words.includes('fuse-native') ? 'fuse-native' : 'own', {
  root,
  mountPoint,
  source: 'demo',
  options: { allowOther: true, readOnly: words.includes('ro'), uid: 0, gid: 0 },
  log: { ...silent, error: (fields, message) => console.error(message, fields) },
  ...(words.includes('trace') && { trace: (line: string) => console.log(line) }),
});
server.onEnd = () => {
  console.log('ended');
  process.exit(0);
};
const leave = (): void => {
  void server.unmount().then(() => {
    console.log('unmounted');
    process.exit(0);
  });
};
process.on('SIGTERM', leave);
process.stdin.on('end', leave).resume();
await server.mount();
console.log('ready');
