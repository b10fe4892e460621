import { resolve } from 'node:path';
import t from 'tap';
import {
  backendOption,
  disconnectOption,
  fileOptions,
  idOption,
  MOUNT_OPTIONS,
  mountOptionsHelp,
  parseMountOptions,
  umaskOption,
  weightOption,
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
  const passed =
    'rw,_netdev,noauto,nofail,user,users,owner,group,nosuid,nodev,noexec,exec,x-systemd.automount,X-mount.mkdir,' +
    'comment=a=b,user=me,noatime,relatime,lazytime,sync,async,dirsync,defaults';
  t.same(parseMountOptions(passed), {});
});

t.test('of ro and rw the last one counts', async (t) => {
  t.same(parseMountOptions('rw,ro'), { ro: '' });
  t.same(parseMountOptions('ro,rw,name=x'), { name: 'x' });
});

t.test('sloppily, what is unknown is ignored, and what is known is still checked', async (t) => {
  t.same(parseMountOptions('bogus,other=1,ro', true), { ro: '' });
  t.throws(() => parseMountOptions('ro=1', true), { code: 'bad-option' });
});

t.test('what is unknown, or without its value, is refused', async (t) => {
  for (const text of ['bogus', 'bogus=1', 'name', 'name=', 'ro=yes', 'ro=', '=x', 'toString']) {
    t.throws(() => parseMountOptions(text), { code: 'bad-option' }, text);
  }
});

t.test('users and groups are numbers, by default those of this process', async (t) => {
  t.equal(idOption({}, 'uid'), process.getuid?.());
  t.equal(idOption({}, 'gid'), process.getgid?.());
  t.equal(idOption({ gid: '100' }, 'gid'), 100);
  t.equal(idOption({ uid: '4294967294' }, 'uid'), 4_294_967_294);
  for (const uid of ['root', '-1', '4294967295', '4294967296', '9999999999']) {
    t.throws(() => idOption({ uid }, 'uid'), { code: 'bad-option', message: /is no number from 0 to 4294967294/ }, uid);
  }
});

t.test('the FUSE backend is one of those there are, our own by default', async (t) => {
  t.equal(backendOption({}), 'own');
  t.equal(backendOption(parseMountOptions('fuse_backend=fuse-native')), 'fuse-native');
  t.throws(() => backendOption({ fuse_backend: 'libfuse' }), {
    code: 'bad-option',
    message: /^mount option fuse_backend=libfuse is not own or fuse-native: /,
  });
});

t.test('open files wait for a lost connection, or end with it', async (t) => {
  t.equal(disconnectOption({}), 'wait');
  t.equal(disconnectOption(parseMountOptions('on_disconnect=error')), 'error');
  t.throws(() => disconnectOption({ on_disconnect: 'retry' }), {
    code: 'bad-option',
    message: /^mount option on_disconnect=retry is not wait or error: /,
  });
});

t.test('a umask is octal', async (t) => {
  t.equal(umaskOption({}), undefined);
  for (const [text, bits] of [
    ['022', 0o022],
    ['0022', 0o022],
    ['0', 0],
    ['77', 0o077],
  ] as const) {
    t.equal(umaskOption({ umask: text }), bits, text);
  }
  for (const text of ['8', '0o22', '7777', 'u=rw', '-1']) {
    t.throws(() => umaskOption({ umask: text }), { code: 'bad-option' }, text);
  }
});

t.test('the help names every option', async (t) => {
  const help = mountOptionsHelp();
  for (const name of Object.keys(MOUNT_OPTIONS)) t.match(help, new RegExp(`^  ${name}\\b`, 'm'));
});

t.test('a weight is a number from 1 to 256', async (t) => {
  t.equal(weightOption({}), undefined);
  t.equal(weightOption(parseMountOptions('weight=256')), 256);
  for (const weight of ['0', '257', '-1', '1.5', '01', 'heavy']) {
    t.throws(() => weightOption({ weight }), { code: 'bad-option', message: /is no number from 1 to 256/ }, weight);
  }
});
