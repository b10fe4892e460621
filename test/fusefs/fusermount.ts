/** fusermount3 as the one who mounts by it sees it: a program of ours in its place, whose words are those of the real one. */
import { chmodSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { mountByHelper, unmountByHelper } from '../../src/fusefs/fusermount.js';
import { F, O, sys } from '../../src/sys/libc.js';

/** PATH leads to a fusermount3 that runs these lines of Python, for the time of the test. */
function withHelper(test: Pick<typeof t, 'testdir' | 'teardown'>, lines: string | null): string {
  const folder = test.testdir({});
  if (lines !== null) {
    const file = join(folder, 'fusermount3');
    writeFileSync(file, `#!/usr/bin/python3\nimport os, sys, socket\n${lines}\n`);
    chmodSync(file, 0o755);
  }
  const before = process.env['PATH'];
  process.env['PATH'] = folder;
  test.teardown(() => {
    process.env['PATH'] = before;
  });
  return folder;
}

const complain = (said: string): string => `print(${JSON.stringify(said)}, file=sys.stderr)\nsys.exit(1)`;

t.test('the descriptor is that which was handed over, and non-blocking', async (t) => {
  const folder = withHelper(
    t,
    `open(os.path.dirname(sys.argv[0]) + "/words", "w").write("\\n".join(sys.argv[1:]))
s = socket.socket(fileno=int(os.environ["_FUSE_COMMFD"]))
socket.send_fds(s, [b"\\0"], [os.open("/dev/null", os.O_RDWR)])`,
  );
  const fd = mountByHelper('a=ws://h:1,b=ws+unix:/x\\y', '/mnt', ['default_permissions', 'ro']);
  t.equal(readlinkSync(`/proc/self/fd/${fd}`), '/dev/null');
  t.equal(sys.fcntl(fd, F.GETFL, 0) & O.NONBLOCK, O.NONBLOCK);
  t.equal(sys.fcntl(fd, F.GETFD, 0), 1, 'close-on-exec');
  sys.close(fd);
  t.same(readFileSync(join(folder, 'words'), 'utf8').split('\n'), [
    '-o',
    'fsname=a=ws://h:1\\,b=ws+unix:/x\\\\y,subtype=fwdfs,default_permissions,ro',
    '--',
    '/mnt',
  ]);
});

for (const [said, error] of [
  [
    "fusermount3: option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf",
    {
      code: 'host-lacks',
      message: /^-o allow_other by others than root needs .*user_allow_other in \/etc\/fuse\.conf/,
    },
  ],
  [
    'fusermount3: failed to open /dev/fuse: Permission denied',
    { code: 'host-lacks', message: /^this user may not open \/dev\/fuse \(as root: chmod 0666 \/dev\/fuse\)/ },
  ],
  ["fusermount3: fuse device not found, try 'modprobe fuse' first", { code: 'host-lacks', message: /modprobe fuse/ }],
  ['fusermount3: mount failed: Operation not permitted', { code: 'host-lacks', message: /not permitted to mount/ }],
  [
    'fusermount3: too many FUSE filesystems mounted; mount_max=N can be set in /etc/fuse.conf',
    { code: 'host-lacks', message: /mount_max in \/etc\/fuse\.conf/ },
  ],
  [
    'fusermount3: user has no write access to mountpoint /mnt',
    { code: 'EACCES', message: 'mount /mnt (expected a directory of your own): EACCES' },
  ],
  ['fusermount3: mountpoint /mnt not owned by user', { code: 'EACCES' }],
  ['fusermount3: failed to access mountpoint /mnt: Permission denied', { code: 'EACCES' }],
  [
    'fusermount3: warning\nfusermount3: mounting over filesystem type 0x1 is forbidden',
    { message: 'fusermount3: mounting over filesystem type 0x1 is forbidden' },
  ],
] as const) {
  t.test(`it says: ${said.replace('\n', ', ')}`, async (t) => {
    withHelper(t, complain(said));
    t.throws(() => mountByHelper('x', '/mnt', []), error);
  });
}

t.test('without fusermount3 the package that has it is named', async (t) => {
  withHelper(t, null);
  const error = { code: 'host-lacks', message: /apt-get install fuse3/ };
  t.throws(() => mountByHelper('x', '/mnt', []), error);
  t.throws(() => unmountByHelper('/mnt', false), error);
});

t.test('one that hands nothing over has failed', async (t) => {
  withHelper(t, '');
  t.throws(() => mountByHelper('x', '/mnt', []), { code: 'EAGAIN' });
});

t.test('what it says of an unmount becomes an errno', async (t) => {
  for (const [lines, errno] of [
    ['sys.exit(sys.argv[1:] != ["-u", "--", "/mnt"])', 0],
    [complain('fusermount3: failed to unmount /mnt: Device or resource busy'), -16],
    [complain('fusermount3: entry for /mnt not found in /etc/mtab'), -2],
    [complain('fusermount3: failed to unmount /mnt: Operation not permitted'), -1],
  ] as const) {
    withHelper(t, lines);
    t.equal(unmountByHelper('/mnt', false), errno, lines);
  }
  withHelper(t, 'sys.exit(sys.argv[1:] != ["-u", "-z", "--", "/mnt"])');
  t.equal(unmountByHelper('/mnt', true), 0);
});
