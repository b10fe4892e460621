import { resolve } from 'node:path';
import t from 'tap';
import {
  backendOption,
  fileOptions,
  idOption,
  MOUNT_OPTIONS,
  mountOptionsHelp,
  parseMountOptions,
} from '../../src/cli/mount-options.js';

t.test('options are parsed, and files become absolute paths', async (t) => {
  t.same(parseMountOptions('name=ctl1,,ro,token_file=a/b,uid=7'), {
    name: 'ctl1',
    ro: '',
    token_file: resolve('a/b'),
    uid: '7',
  });
  t.same(fileOptions(parseMountOptions('name=x,ca=/ca.pem,log_file=log')), [
    ['ca', '/ca.pem'],
    ['log_file', resolve('log')],
  ]);
});

t.test('what mount(8) and fstab pass on is ignored', async (t) => {
  t.same(parseMountOptions('rw,_netdev,noauto,nofail,user,nosuid,x-systemd.automount'), {});
});

t.test('what is unknown, or without its value, is refused', async (t) => {
  for (const text of ['bogus', 'bogus=1', 'name', 'name=', 'ro=yes', 'ro=', '=x', 'toString']) {
    t.throws(() => parseMountOptions(text), { code: 'bad-option' }, text);
  }
});

t.test('users and groups are numbers', async (t) => {
  t.equal(idOption({}, 'uid'), 0);
  t.equal(idOption({ gid: '100' }, 'gid'), 100);
  t.throws(() => idOption({ uid: 'root' }, 'uid'), { code: 'bad-option' });
});

t.test('the FUSE backend is one of those there are, our own by default', async (t) => {
  t.equal(backendOption({}), 'own');
  t.equal(backendOption(parseMountOptions('fuse_backend=fuse-native')), 'fuse-native');
  t.throws(() => backendOption({ fuse_backend: 'libfuse' }), {
    code: 'bad-option',
    message: /^mount option fuse_backend=libfuse is not own or fuse-native: /,
  });
});

t.test('the help names every option', async (t) => {
  const help = mountOptionsHelp();
  for (const name of Object.keys(MOUNT_OPTIONS)) t.match(help, new RegExp(`^  ${name}\\b`, 'm'));
});
