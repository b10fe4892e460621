import t from 'tap';
import { holdDirectory } from '../../src/sys/directory-lock.js';

t.test('a directory is held by one at a time', async (t) => {
  const folder = t.testdir({});
  const release = holdDirectory(folder);
  t.ok(release !== undefined);
  t.equal(holdDirectory(folder), undefined);
  release?.();
  const again = holdDirectory(folder);
  t.ok(again !== undefined, 'it was given back');
  again?.();
});

t.test('what is not there can not be held', async (t) => {
  t.throws(() => holdDirectory('/no/such/directory'), { code: 'ENOENT' });
});
