import t from 'tap';
import { silent } from '../../src/base/log.js';
import { BACKENDS } from '../../src/fusefs/backend.js';
import { makeBackend } from '../../src/fusefs/backends.js';
import { staticDirectory } from '../../src/fusefs/tree.js';
import { fuseNativeOnly } from '../support/fuse-mount.js';

const request = {
  root: staticDirectory('/', new Map()),
  mountPoint: '/nowhere',
  source: 'demo',
  options: { allowOther: false, readOnly: false, uid: 0, gid: 0 },
  log: silent,
};

for (const name of BACKENDS) {
  t.test(
    `${name} is made by its name, and is idle before it mounts`,
    name === 'own' ? {} : fuseNativeOnly,
    async (t) => {
      const backend = await makeBackend(name, request);
      t.same([backend.openFiles, backend.waiting], [0, 0]);
      await backend.unmount();
      await t.rejects(backend.mount(), { code: 'ENOENT' });
    },
  );
}
