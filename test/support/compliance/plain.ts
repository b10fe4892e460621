/** Plain files: attributes, tables, state and commands, as in sysfs and /proc. */
import { run } from '../lab.js';
import type { Case, Topic } from './case.js';

const cases: readonly Case[] = [
  {
    title: 'every attribute is one value and a line end, readable with read, as in sysfs',
    async run(scene, t) {
      const { out } = await scene.sh(
        'cd $F/.if/eth0; for name in address mtu ifindex operstate flags linktype speed; do read -r value < $name && echo "$name=$value"; done; tail -qc 1 address mtu inet | xxd -p',
      );
      const value = (name: string): string => new RegExp(`^${name}=(.*)$`, 'm').exec(out)?.[1] ?? '';
      t.equal(value('address'), scene.eth0);
      t.equal(value('mtu'), '1500');
      t.equal(value('operstate'), 'up');
      t.match(value('flags'), /^0x[0-9a-f]+$/);
      t.match(out, /0a0a0a\n$/);
    },
  },
  {
    title: 'grep -r finds attributes and counters',
    async run(scene, t) {
      const { out, err } = await scene.sh('cd $F/.if; grep -r "" eth0/mtu eth0/statistics');
      t.equal(err, '');
      t.match(out, /^eth0\/mtu:1500\n/);
      t.match(out, /^eth0\/statistics\/rx_packets:\d+\n/m);
    },
  },
  {
    title: 'tables are a header line and a row a rule, separated by tabs, for cut and awk',
    async run(scene, t) {
      const line = `
        exec 3< $F/eth0:udp:520 4< $F/eth0:arp:out
        awk -F '\\t' 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next } { print $at["interface"], $at["protocol"], $at["scope"], $at["state"] }' $F/.tables/distribution | sort
        cut -f 2,3 $M/.tables/reception | sort -r | head -2`;
      const { out } = await scene.sh(line);
      t.equal(out, 'eth0 arp out active\neth0 udp:520 in active\nsymbol\tprotocol\nfwd1/eth0:udp:520\tudp:520\n');
    },
  },
  {
    title: 'a table that is read byte by byte is of one moment, whatever changes meanwhile',
    async run(scene, t) {
      const script = `
fd = os.open(p('.tables/distribution'), os.O_RDONLY)
text = os.read(fd, 1)
held = []
while True:
    if len(held) < 50: held.append(os.open(p('eth0:udp:%d' % (1000 + len(held))), os.O_RDONLY))
    byte = os.read(fd, 1)
    if not byte: break
    text += byte
show(text.count(b'\\n'))
show(len(rules()))
`;
      t.same(await scene.py(script), [1, 50]);
    },
  },
  {
    title: 'a plain file can be read again from any place with pread and lseek, and is at its end after its last byte',
    async run(scene, t) {
      const script = `
fd = os.open(p('.if/eth0/mtu'), os.O_RDONLY)
show([os.read(fd, 100).decode(), os.read(fd, 100).decode(), os.pread(fd, 2, 1).decode(), os.lseek(fd, 0, 0), os.read(fd, 4).decode()])
`;
      t.same(await scene.py(script), [['1500\n', '', '50', 0, '1500']]);
    },
  },
  {
    title: 'plain files are readable to poll, select and epoll',
    needs: ['poll'],
    async run(scene, t) {
      const script = `
for name in ('.state', '.tables/distribution', '.if/eth0/mtu'):
    fd = os.open(p(name), os.O_RDONLY)
    poll = select.poll(); poll.register(fd, select.POLLIN)
    epoll = select.epoll(); epoll.register(fd, select.EPOLLIN)
    show([len(select.select([fd], [], [], 0)[0]), len(poll.poll(0)), len(epoll.poll(0))])
`;
      t.same(await scene.py(script), [
        [1, 1, 1],
        [1, 1, 1],
        [1, 1, 1],
      ]);
    },
  },
  {
    title: '.state says a key and a value a line',
    async run(scene, t) {
      const { out } = await scene.sh('grep -c "	" $F/.state; grep -vc "	" $F/.state; grep "^state" $F/.state | cut -f 2');
      t.match(out, /^\d+\n0\nconnected\n$/);
    },
  },
  {
    title: 'nobody writes attributes, tables and state, and the shell says so',
    async run(scene, t) {
      const { err } = await scene.sh('echo 9000 > $F/.if/eth0/mtu; echo > $F/.state; echo > $M/.version');
      t.equal(err.split('Permission denied').length, 4, err);
    },
  },
  {
    title: 'a command written to .ctl is carried out when echo returns, and one that fails fails the echo',
    async run(scene, t) {
      const line = `
        echo rule add eth0:udp:520 > $F/.ctl && grep -c udp:520 $F/.tables/distribution
        echo rule add eth0:udp:520 > $F/.ctl
        echo rule add eth9 > $F/.ctl
        echo nonsense > $F/.ctl
        echo rule remove eth0:udp:520 > $F/.ctl && grep -c udp:520 $F/.tables/distribution`;
      const { out, err } = await scene.sh(line);
      t.equal(out, '1\n0\n');
      t.match(err, /File exists\n.*No such file or directory\n.*Invalid argument\n$/s);
    },
  },
  {
    title: '.ctl takes several commands, as cat and tee write them',
    async run(scene, t) {
      scene.file(
        'commands',
        'rule add eth0:udp:520\nrule add eth0:arp\n\nrule remove eth0:udp:520\nrule remove eth0:arp',
      );
      for (const line of ['cat $T/commands > $F/.ctl', 'tee $F/.ctl < $T/commands > /dev/null']) {
        t.same(await scene.sh(line), { status: 0, out: '', err: '' }, line);
      }
      await scene.untilRules(0);
    },
  },
  {
    title: '.ctl is there to be written: nobody reads it',
    async run(scene, t) {
      t.equal((await run(scene.words('cat $F/.ctl; cat $M/.ctl'))).stdout.length, 0);
    },
  },
];

export const plain: Topic = { title: 'plain files', cases };
