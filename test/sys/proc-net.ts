import t from 'tap';
import { inNetns } from '../../src/sys/netns.js';
import { ProcNetFile, procSockets } from '../../src/sys/proc-net.js';
import { Netns, withoutRoot } from '../support/netns.js';
import { SocketProcess } from '../support/sockets.js';

const HEAD =
  '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n';

t.test('lines of both families are read as the kernel writes them', async (t) => {
  const rest = '07 00000000:00000000 00:00000000 00000000     0        0';
  t.same(procSockets(`${HEAD}   89: 00000000:0059 00000000:0000 ${rest} 21542 2 00000000ab 0\n`), [
    { family: 4, port: 89, address: null, hasPeer: false, inode: 21542 },
  ]);
  t.same(procSockets(`${HEAD}   89: 0100090A:0059 0200090A:0000 ${rest} 7 2 ab 0\n`), [
    { family: 4, port: 89, address: Buffer.from([10, 9, 0, 1]), hasPeer: true, inode: 7 },
  ]);
  const v6 = `B80D0120000000000000000001000000:003A 00000000000000000000000000000000:0000`;
  t.same(procSockets(`${HEAD}   58: ${v6} ${rest} 8 2 ab 0\n`), [
    { family: 6, port: 58, address: Buffer.from('20010db8000000000000000000000001', 'hex'), hasPeer: false, inode: 8 },
  ]);
});

t.test('what is no line of a socket is left out', async (t) => {
  for (const text of ['', HEAD, `${HEAD}\n`, `${HEAD} 1: 0000:0059 00000000:0000 07`, `${HEAD} 1: ZZ00090A:0059 x`]) {
    t.same(procSockets(text), [], JSON.stringify(text));
  }
});

t.test('a file is read again and again, of the namespace where it was opened', { skip: withoutRoot }, async (t) => {
  const netns = new Netns('pn');
  t.teardown(() => netns.remove());
  const file = inNetns(netns.name, () => new ProcNetFile('raw'));
  t.teardown(() => file.close());
  t.same(procSockets(file.read()), []);
  const process = await SocketProcess.start(netns);
  t.teardown(() => process.kill());
  await process.run('many = [socket(AF_INET, SOCK_RAW, 89) for _ in range(1000)]');
  const sockets = procSockets(file.read());
  t.equal(new Set(sockets.map(({ inode }) => inode)).size, 1000, 'longer than one read');
  t.ok(sockets.every(({ port }) => port === 89));
  await process.run('for s in many: s.close()');
  t.same(procSockets(file.read()), []);
});

t.test('a file that is not there throws', async (t) => {
  t.throws(() => new ProcNetFile('no-such-file'), { code: 'ENOENT' });
});
