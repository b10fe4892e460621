/** Interfaces that come, go and change at the forwarder, seen by who has files open and by who lists names. */
import { until } from '../lab.js';
import { connectVeth, Netns } from '../netns.js';
import { hexOf, macOf, numbered, pcap, untilTestFrames } from '../traffic.js';
import type { Case, Topic } from './case.js';
import type { Scene } from './scene.js';

const TRANSFER_BYTES = 2_000_000;
const SERVER = `
import socket
s = socket.create_server(('10.9.0.3', 5098)); print('listening', flush=True)
c = s.accept()[0]
n = 0
while data := c.recv(1 << 20): n += len(data)
print(n)`;
const CLIENT = `import socket; socket.create_connection(("10.9.0.3", 5098)).sendall(bytes(${TRANSFER_BYTES}))`;

/** Changes something at the forwarder and waits until a line, run again and again, prints what is expected. */
async function follows(scene: Scene, change: string, line: string, expected: string): Promise<void> {
  scene.lab.fwd.run(change);
  let out = '';
  await until(
    async () => (out = (await scene.sh(line)).out) === expected,
    10_000,
    () => `after ${change}: ${out}`,
  );
}

const SYMBOLS = 'ls $F $F/.if';
const listing = (...names: string[]): string => `$F:\n${names.join('\n')}\n\n$F/.if:\n${names.join('\n')}\n`;

const cases: readonly Case[] = [
  {
    title: 'names appear and vanish with ip link add, set name and del',
    async run(scene, t) {
      const list = `${SYMBOLS} | sed "s,$F,\\$F,"`;
      await follows(scene, 'ip link add dyn0 type veth peer name dyn1', list, listing('dyn0', 'dyn1', 'eth0'));
      t.equal((await scene.sh('cat $F/.if/dyn0/operstate')).out, 'down\n');
      await follows(scene, 'ip link set dyn0 name dyn2', list, listing('dyn1', 'dyn2', 'eth0'));
      t.match((await scene.sh('cat $F/dyn0')).err, /No such file or directory/);
      await follows(scene, 'ip link del dyn1', list, listing('eth0'));
    },
  },
  {
    title: 'a working directory within .if of an interface that went says so, and a file that is open keeps its text',
    needs: ['open-attributes'],
    async run(scene, t) {
      scene.lab.fwd.run('ip link add dyn0 type veth peer name dyn1');
      await until(async () => (await scene.sh('cat $F/.if/dyn0/mtu')).status === 0);
      const shell = scene.start('cd $F/.if/dyn0; exec 3< mtu; echo open; read; cat mtu; cat <&3');
      await shell.untilOutput((output) => output.includes('open'));
      await shell.kill();
      const other = scene.start(
        'cd $F/.if/dyn0; exec 3< mtu; echo open; while [ -e $F/dyn0 ]; do :; done; cat mtu; cat <&3',
      );
      await other.untilOutput((output) => output.includes('open'));
      scene.lab.fwd.run('ip link del dyn0');
      const { stdout, stderr } = await other.ended;
      t.equal(stdout.toString(), 'open\n1500\n');
      t.match(stderr, /mtu: No such file or directory/);
    },
  },
  {
    title: 'attributes follow ip link and ip addr',
    async run(scene) {
      await follows(scene, 'ip link set eth0 mtu 1400', 'cat $F/.if/eth0/mtu', '1400\n');
      await follows(scene, 'ip link set eth0 mtu 1500', 'cat $F/.if/eth0/mtu', '1500\n');
      await follows(scene, 'ip addr add 10.9.7.1/25 dev eth0', 'cat $F/.if/eth0/inet', '10.9.0.1/24\n10.9.7.1/25\n');
      await follows(scene, 'ip addr del 10.9.7.1/25 dev eth0', 'cat $F/.if/eth0/inet', '10.9.0.1/24\n');
      await follows(scene, 'ip link set eth0 down', 'cat $F/.if/eth0/operstate', 'down\n');
      await follows(scene, 'ip link set eth0 up', 'cat $F/.if/eth0/operstate', 'up\n');
    },
  },
  {
    title: 'a larger MTU lets a frame out that was too long before',
    async run(scene, t) {
      const frames = scene.fresh(1, 1700);
      scene.file('long', pcap(frames));
      const left = await scene.left(async () => {
        t.match((await scene.sh('cat $T/long > $F/eth0')).err, /Input\/output error/);
        scene.lab.node.run('ip link set n0 mtu 2000');
        await follows(scene, 'ip link set eth0 mtu 2000', 'cat $F/.if/eth0/mtu', '2000\n');
        t.equal((await scene.sh('cat $T/long > $F/eth0')).err, '');
      });
      t.same(left, hexOf(frames));
      await follows(scene, 'ip link set eth0 mtu 1500', 'cat $F/.if/eth0/mtu', '1500\n');
      scene.lab.node.run('ip link set n0 mtu 1500');
    },
  },
  {
    title: 'a reader waits while the interface is down, and goes on when it is up again',
    async run(scene, t) {
      const cat = await scene.reader('eth0:ether:0x88b5');
      await follows(scene, 'ip link set eth0 down', 'cat $F/.if/eth0/operstate', 'down\n');
      await follows(scene, 'ip link set eth0 up', 'cat $F/.if/eth0/operstate', 'up\n');
      const frames = scene.incoming(2);
      await scene.put(frames);
      t.same(hexOf(await untilTestFrames(cat, 2)), hexOf(frames));
      await cat.kill();
    },
  },
  {
    title: 'a reader outlives its interface: the rule is shown as absent, and active when it is back',
    async run(scene, t) {
      const { lab } = scene;
      const state = async (): Promise<string> => (await lab.table('distribution')).map((row) => row[6]).join();
      const make = (): void => {
        lab.fwd.run('ip link add dyn0 type veth peer name dyn1');
        lab.fwd.run('ip link set dyn0 up');
        lab.fwd.run('ip link set dyn1 up');
      };
      make();
      await until(async () => (await scene.sh('test -e $F/dyn0')).status === 0);
      const cat = await scene.reader('dyn0:ether:0x88b5');
      lab.fwd.run('ip link del dyn0');
      await until(async () => (await state()) === 'absent');
      t.match(await scene.listed(), /dyn0:ether:0x88b5/, 'its name is listed while it is open');
      make();
      await until(async () => (await state()) === 'active');
      const frames = numbered(1, 100);
      scene.file('capture', pcap(frames));
      t.equal((await scene.sh('cat $T/capture > $F/dyn1')).err, '');
      t.same(hexOf(await untilTestFrames(cat, 1)), hexOf(frames));
      await cat.kill();
      lab.fwd.run('ip link del dyn0');
      await until(async () => (await scene.sh('test -e $F/dyn0')).status === 1);
    },
  },
  {
    title: 'a reader of an interface that is renamed waits for the name, and goes on when it has it again',
    async run(scene, t) {
      const { fwd } = scene.lab;
      const cat = await scene.reader('eth0:ether:0x88b5');
      const rename = (from: string, to: string): void => {
        fwd.run(`ip link set ${from} down`);
        fwd.run(`ip link set ${from} name ${to}`);
        fwd.run(`ip link set ${to} up`);
      };
      rename('eth0', 'dyn9');
      await until(async () => (await scene.sh('test -e $F/dyn9 -a ! -e $F/eth0')).status === 0);
      const other = await scene.reader('dyn9:ether:0x88b5');
      const unseen = scene.incoming(1);
      await scene.put(unseen);
      t.same(hexOf(await untilTestFrames(other, 1)), hexOf(unseen), 'the new name has its packets');
      await other.kill();
      rename('dyn9', 'eth0');
      await until(async () => (await scene.lab.table('distribution'))[0]?.[6] === 'active');
      const frames = scene.incoming(1);
      await scene.put(frames);
      t.same(hexOf(await untilTestFrames(cat, 1)), hexOf(frames), 'the old name has none of them');
      await cat.kill();
      await until(async () => macOf(fwd, 'eth0') === scene.eth0 && (await scene.sh('ls $F/.if')).out === 'eth0\n');
      fwd.run('ip -6 addr replace fd09::1/64 dev eth0 nodad');
    },
  },
  {
    title: 'a frame for an interface that went fails its close with EIO, and .state says why',
    needs: ['open-attributes'],
    async run(scene, t) {
      const { lab } = scene;
      lab.fwd.run('ip link add dyn0 type veth peer name dyn1');
      await until(async () => (await scene.sh('test -e $F/dyn0')).status === 0);
      scene.file('capture', pcap(scene.fresh(1)));
      const writer = scene.start(
        'exec 3> $F/dyn0; echo open; while [ -e $F/dyn0 ]; do :; done; exec cat $T/capture >&3',
      );
      await writer.untilOutput((output) => output.includes('open'));
      lab.fwd.run('ip link del dyn0');
      t.match((await writer.ended).stderr, /Input\/output error/);
      t.match(await scene.state('last_error'), /dyn0: frame not sent/);
    },
  },
  {
    title: 'cat A:promisc > B and back bridges two interfaces: ping and TCP go through',
    async run(scene, t) {
      const { lab } = scene;
      const far = new Netns('far');
      try {
        const ends = { netns: far, name: 'm0', addresses: ['10.9.0.3/24'] };
        connectVeth(ends, { netns: lab.fwd, name: 'dyn0' });
        await until(async () => (await scene.sh('test -e $F/dyn0')).status === 0);
        const bridges = ['exec cat $F/eth0:promisc > $F/dyn0', 'exec cat $F/dyn0:promisc > $F/eth0'].map((line) =>
          scene.start(line),
        );
        await scene.untilRules(2);
        t.match(lab.node.run('ping -c 3 -i 0.2 -W 5 10.9.0.3'), /3 received/);
        const server = lab.program([...far.prefix, '/usr/bin/python3', '-c', SERVER]);
        await server.untilOutput((output) => output.includes('listening'));
        await scene.sh(`$NODE /usr/bin/python3 -c '${CLIENT}'`);
        t.equal((await server.ended).stdout.toString(), `listening\n${TRANSFER_BYTES}\n`);
        for (const bridge of bridges) t.equal(bridge.stderr, '');
        await scene.endPrograms();
      } finally {
        far.remove();
      }
      await until(async () => (await scene.sh('test -e $F/dyn0')).status === 1);
    },
  },
];

export const interfaces: Topic = {
  title: 'interfaces',
  options: {
    interfaces: ['dyn0', 'dyn1', 'dyn2', 'dyn9'].map((name) => `  ${name}: { unmatched: host }`).join('\n'),
    permissions: '  - { control: ctl1, interface: "*", rights: [read, write, inject], protocols: ["*"] }',
  },
  cases,
};
