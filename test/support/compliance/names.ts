/** Names: what can be opened, what is listed, and what can't be done to them. */
import type { Case, Topic } from './case.js';

/** A call in Python, and how it ends. */
const REFUSED: readonly (readonly [title: string, call: string, errno: string])[] = [
  ['unlink', `os.unlink, p('eth0')`, 'EPERM'],
  ['rmdir', `os.rmdir, p('.if')`, 'EPERM'],
  ['mkdir', `os.mkdir, p('new')`, 'EPERM'],
  ['mkdir of a forwarder', `os.mkdir, base + '/fwd2'`, 'EPERM'],
  ['mknod', `os.mkfifo, p('fifo')`, 'EPERM'],
  ['rename', `os.rename, p('eth0'), p('eth1')`, 'EPERM'],
  ['link', `os.link, p('eth0'), p('eth1')`, 'EPERM'],
  ['symlink', `os.symlink, 'eth0', p('eth1')`, 'EPERM'],
  ['chmod', `os.chmod, p('eth0'), 0o666`, 'EPERM'],
  ['setxattr', `os.setxattr, p('eth0'), 'user.a', b'1'`, 'ENOTSUP'],
  ['rename to another file system', `os.rename, p('eth0'), '/tmp/eth0'`, 'EXDEV'],
  ['opening an interface that is not there', `os.open, p('eth9'), os.O_RDONLY`, 'ENOENT'],
  ['creating a file that is no interface', `os.open, p('eth9'), os.O_WRONLY | os.O_CREAT`, 'ENOENT'],
  ['creating a file with a name that is none', `os.open, p('eth0:nonsense'), os.O_WRONLY | os.O_CREAT`, 'EINVAL'],
  ['creating a file that is there, exclusively', `os.open, p('eth0'), os.O_WRONLY | os.O_CREAT | os.O_EXCL`, 'EEXIST'],
  ['opening a directory for writing', `os.open, p('.if'), os.O_WRONLY`, 'EISDIR'],
  ['opening a file as a directory', `os.open, p('eth0'), os.O_RDONLY | os.O_DIRECTORY`, 'ENOTDIR'],
  ['a path below a file', `os.stat, p('eth0/mtu')`, 'ENOTDIR'],
  ['a slash behind a file', `os.open, p('eth0/'), os.O_RDONLY`, 'ENOTDIR'],
  ['an unnamed temporary file', `os.open, p(''), os.O_WRONLY | os.O_TMPFILE`, 'ENOTSUP'],
  ['a forwarder that is none', `os.open, base + '/fwd9/eth0', os.O_RDONLY`, 'ENOENT'],
  ['an unknown word', `os.open, p('eth0:nonsense'), os.O_RDONLY`, 'EINVAL'],
  ['a port out of range', `os.open, p('eth0:udp:65536'), os.O_RDONLY`, 'EINVAL'],
  ['two framings', `os.open, p('eth0:raw:hex'), os.O_RDONLY`, 'EINVAL'],
  ['a name that is too long', `os.open, p('eth0' + ':' * 300), os.O_RDONLY`, 'ENAMETOOLONG'],
  ['writing a table', `os.open, p('.tables/distribution'), os.O_WRONLY`, 'EACCES'],
];

/** Lines that look at names without opening a symbol. */
const LOOKS = [
  'ls -la $F',
  'find $M',
  'stat $F/eth0 $F/eth0:udp:520:raw',
  'test -e $F/eth0',
  '[ -r $F/eth0 -a -w $F/eth0 ]',
  'echo $F/eth*',
  'du -a $F',
  'lsof -w $F/eth0',
];

const cases: readonly Case[] = [
  {
    title: 'any valid name can be opened; it is listed while it is open, and only then',
    async run(scene, t) {
      const names = 'eth0:udp:520 eth0:tcp:[2001:db8::1]:80:raw eth0:arp:out:hex eth0:*:promisc.pcap eth0:ether:0x88cc';
      const line = `
        for name in ${names}; do exec {fd}< $F/$name || exit; echo $name; done | sort
        exec 3< $F/eth0:udp:520 4< $F/eth0:arp:out:hex; ls $F; exec 3<&- 4<&-`;
      const { out, err } = await scene.sh(line);
      t.equal(err, '');
      t.equal(out, `${[...names.split(' ').sort(), 'eth0', 'eth0:arp:out:hex', 'eth0:udp:520'].join('\n')}\n`);
    },
  },
  {
    title: 'two spellings of one protocol address are one rule',
    async run(scene, t) {
      const script = `
names = ('eth0:tcp:[2001:db8::1]:80', 'eth0:TCP:[2001:DB8:0:0::0:1]:80:raw', 'eth0:tcp:[2001:0db8::1]:80.pcap')
fds = [os.open(p(name), os.O_RDONLY) for name in names]
show([row[1] for row in rules()])
`;
      t.same(await scene.py(script), [['tcp:[2001:db8::1]:80']]);
    },
  },
  ...LOOKS.map((line): Case => ({
    title: `looking sets no rule: ${line}`,
    async run(scene, t) {
      const before = await scene.sh('cat $F/.if/eth0/statistics/rx_packets > /dev/null; cat $M/.tables/reception');
      const { err } = await scene.sh(`${line} > /dev/null`);
      t.equal(err, '');
      t.equal((await scene.sh('cat $M/.tables/reception')).out, before.out);
    },
  })),
  {
    title: 'O_PATH opens no symbol',
    async run(scene, t) {
      t.same(await scene.py(`fd = os.open(p('eth0'), os.O_PATH)\nshow(len(rules()))`), [0]);
    },
  },
  ...REFUSED.map(([title, call, code]): Case => ({
    title: `${title}: ${code}`,
    async run(scene, t) {
      t.same(await scene.py(`show(err(${call}))`), [code]);
    },
  })),
  {
    title: 'a symbol is a regular file of size 0, whose mode says what is permitted, with an inode number that stays',
    async run(scene, t) {
      const { out } = await scene.sh(
        'stat -c "%F %s %a %h" $F/eth0; [ $(stat -c %i $F/eth0) = $(stat -c %i $F/eth0) ] && echo same',
      );
      t.equal(out, 'regular empty file 0 600 1\nsame\n');
    },
  },
  {
    title: 'changing times and owner of a symbol is taken and means nothing: writers of captures do it',
    async run(scene, t) {
      const { out, err } = await scene.sh('touch -d 2001-01-01 $F/eth0; chown 1:1 $F/eth0; stat -c "%u %g %y" $F/eth0');
      t.equal(err, '');
      t.match(out, /^0 0 20[2-9]/);
    },
  },
  {
    title: 'a symbol can not be mapped as shared memory: ENODEV',
    async run(scene, t) {
      const script = `
import ctypes, mmap
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
fd = os.open(p('eth0'), os.O_RDWR)
libc.mmap(None, 4096, mmap.PROT_READ, mmap.MAP_SHARED, fd, ctypes.c_long(0))
show(errno.errorcode[ctypes.get_errno()])
`;
      t.same(await scene.py(script), ['ENODEV']);
    },
  },
  {
    title: 'flock works among the programs of one host',
    async run(scene, t) {
      const { out } = await scene.sh('exec 3< $F/.state; flock -n 3 && flock -n $F/.state true || echo locked');
      t.equal(out, 'locked\n');
    },
  },
];

export const names: Topic = { title: 'names', cases };
