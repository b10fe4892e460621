import { constants } from 'node:os';
import t from 'tap';
import { ChunkPool } from '../../src/base/chunks.js';
import { Counters } from '../../src/base/counters.js';
import { FwdfsError } from '../../src/base/errors.js';
import { UP_CREDIT_BYTES } from '../../src/base/limits.js';
import { PacketReader } from '../../src/control/packet-reader.js';
import { ReaderQueue } from '../../src/control/reader-queue.js';
import { ruleName, UpTunnel } from '../../src/control/up-tunnel.js';
import { parseSymbolName } from '../../src/packet/symbol-name.js';

const counters = new Counters();
const pool = new ChunkPool({ bytes: 4096, keep: 1 });

function makeReader(limit = 4096): PacketReader {
  const queue = new ReaderQueue(pool, limit);
  return new PacketReader({ framing: 'raw', gso: false, linkType: 1, queue, counters, wake: () => undefined });
}

function read(reader: PacketReader): string {
  const out = Buffer.alloc(100);
  const count = reader.read(out, 0, 100);
  return count < 0 ? 'nothing' : out.toString('latin1', 0, count);
}

const tunnelOf = (name: string, own = counters): UpTunnel => new UpTunnel(parseSymbolName(name), 'fwd1', own);

function deliver(tunnel: UpTunnel, text: string): void {
  const buf = Buffer.alloc(10 + text.length);
  buf.write(text, 10);
  tunnel.deliver(buf, 10, text.length, 0, 1, 2);
}

t.test('two spellings of one rule have one name, whatever the framing', async (t) => {
  const cases: [name: string, rule: string][] = [
    ['eth0', 'eth0'],
    ['eth0:raw', 'eth0'],
    ['eth0:*:hex', 'eth0'],
    ['eth0:UDP:520.pcap', 'eth0:udp:520'],
    ['eth0:ip:17', 'eth0:udp'],
    ['eth0:udp:[2001:DB8:0::1]:520:out:gso', 'eth0:udp:[2001:db8::1]:520:out'],
    ['eth0:promisc', 'eth0:promisc'],
    ['eth0:UDP:53:claim:raw', 'eth0:udp:53:claim'],
  ];
  for (const [name, rule] of cases) t.equal(ruleName(parseSymbolName(name)), rule, name);
});

t.test('a rule that failed tells every reader, those that come late too', async (t) => {
  const tunnel = tunnelOf('eth0');
  const [one, late] = [makeReader(), makeReader()];
  t.equal(tunnel.fail(new FwdfsError('not-permitted', 'gone')), false, 'nobody reads yet');
  tunnel.addReader(one);
  t.equal(tunnel.fail(new FwdfsError('not-permitted', 'gone')), true);
  tunnel.addReader(late);
  for (const reader of [one, late]) t.equal(reader.read(Buffer.alloc(10), 0, 10), -constants.errno.EACCES);
  t.match(tunnel, { state: 'unset', active: false });
});

t.test('every reader gets every packet; one that is slow or gone takes nothing from another', async (t) => {
  const tunnel = tunnelOf('eth0');
  const [one, two, slow] = [makeReader(), makeReader(), makeReader(8)];
  for (const reader of [one, two, slow]) tunnel.addReader(reader);
  deliver(tunnel, 'first');
  deliver(tunnel, 'second');
  t.same([one, two, slow].map(read), ['first', 'first', 'first']);
  t.same([one, two, slow].map(read), ['second', 'second', 'nothing']);
  t.equal(slow.dropped, 1);
  tunnel.removeReader(one);
  tunnel.removeReader(one);
  deliver(tunnel, 'third');
  t.same([one, two].map(read), ['nothing', 'third']);
  t.equal(tunnel.readerCount, 2);
  t.same([tunnel.frames, tunnel.bytes], [3, 16]);
});

t.test('without readers packets are counted', async (t) => {
  const before = counters.get('drop_no_reader');
  deliver(tunnelOf('eth0'), 'lost');
  t.equal(counters.get('drop_no_reader'), before + 1);
});

t.test(
  'credit is due when half of it is used up, readers or not, and counts from the begin of the channels',
  async (t) => {
    const tunnel = tunnelOf('eth0');
    const half = UP_CREDIT_BYTES / 2;
    const big = Buffer.alloc(10 + half);
    t.equal(tunnel.takeCredit(), 0);
    tunnel.deliver(big, 10, half - 1, 0, 1, 2);
    t.equal(tunnel.takeCredit(), 0);
    tunnel.deliver(big, 10, 1, 0, 1, 2);
    t.equal(tunnel.takeCredit(), half + UP_CREDIT_BYTES);
    t.equal(tunnel.takeCredit(), 0, 'once');
    tunnel.deliver(big, 10, half, 0, 1, 2);
    t.equal(tunnel.takeCredit(), 2 * half + UP_CREDIT_BYTES);
    tunnel.asked();
    t.equal(tunnel.takeCredit(), 0);
    tunnel.deliver(big, 10, half, 0, 1, 2);
    t.equal(tunnel.takeCredit(), half + UP_CREDIT_BYTES);
  },
);

t.test('at its end every reader gets the end of its file', async (t) => {
  const tunnel = tunnelOf('eth0');
  const reader = makeReader();
  tunnel.addReader(reader);
  deliver(tunnel, 'last');
  tunnel.endReaders();
  t.same([read(reader), read(reader)], ['last', '']);
});

t.test('frames that were under way when a connection was cut are counted, each once', async (t) => {
  const own = new Counters();
  const tunnel = tunnelOf('eth0', own);
  const lost = (): number => own.get('drop_connection_lost');
  deliver(tunnel, 'before the rule was asked for again');
  tunnel.asked();
  for (const text of ['one', 'two']) deliver(tunnel, text);
  tunnel.resumed(5);
  t.equal(lost(), 3, '5 were sent, 2 came');
  deliver(tunnel, 'three');
  tunnel.resumed(6);
  t.equal(lost(), 3, 'nothing was lost at the second cut');
  tunnel.resumed(8);
  t.equal(lost(), 5);
  tunnel.asked();
  tunnel.resumed(0);
  t.equal(lost(), 5);
});
