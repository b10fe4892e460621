import t from 'tap';
import { loadFuseNative, whyNoFuseNative } from '../../src/fusefs/fuse-native-library.js';

const failing = (message: string) => (): never => {
  throw new Error(message);
};

t.test('what is missing is one line that says what to do', async (t) => {
  const cases: Record<string, RegExp> = {
    "Cannot find module 'fuse-native'\nRequire stack:\n- x": /^the package fuse-native is not installed \(npm install/,
    'libfuse.so.2: cannot open shared object file: No such file or directory': /\(apt-get install libfuse2\)/,
    'No native build was found for platform=linux arch=arm64':
      /no binary that works here \(use -o fuse_backend=own; No/,
  };
  for (const [message, line] of Object.entries(cases)) {
    t.throws(() => loadFuseNative(failing(message)), { code: 'host-lacks', message: line }, message);
    const why = whyNoFuseNative(failing(message)) ?? '';
    t.match(why, line);
    t.notMatch(why, /\n/, 'one line');
  }
});

t.test('what is there is handed over as it is', async (t) => {
  const library = class {};
  t.equal(
    loadFuseNative(() => library),
    library as unknown,
  );
});
