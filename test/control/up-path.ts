/** src/control/up-path.ts: messages of a forwarder to symbols, and credit back. */
import t from 'tap';
import { ChunkPool } from '../../src/base/chunks.js';
import { Counters } from '../../src/base/counters.js';
import { UP_CREDIT_BYTES } from '../../src/base/limits.js';
import { DownTunnel } from '../../src/control/down-tunnel.js';
import { PacketReader } from '../../src/control/packet-reader.js';
import { ReaderQueue } from '../../src/control/reader-queue.js';
import { ReceptionTable } from '../../src/control/tables.js';
import { UpPath } from '../../src/control/up-path.js';
import { UpTunnel } from '../../src/control/up-tunnel.js';
import { parseSymbolName } from '../../src/packet/symbol-name.js';
import { FakeChannel } from '../support/fake-channel.js';
import { confirm, confirmError, dataUp } from '../support/fake-messages.js';

class Bench {
  readonly counters = new Counters();
  readonly reception = new ReceptionTable();
  readonly downs = new Map<number, DownTunnel>();
  readonly channel = new FakeChannel('down');
  readonly path = new UpPath('fwd1', this.reception, this.downs, (buffer, length) => {
    this.channel.sendFrames(buffer, length, () => undefined);
  });

  /** A rule with a reader, as of an open file. */
  open(name: string, forwarder = 'fwd1'): { tunnel: UpTunnel; read: () => string } {
    const tunnel = new UpTunnel(parseSymbolName(name), forwarder, this.counters);
    tunnel.id = this.reception.allocate();
    this.reception.add(tunnel);
    const queue = new ReaderQueue(new ChunkPool({ bytes: 8 << 20, keep: 0 }), 1e9);
    const reader = new PacketReader({
      framing: 'raw',
      gso: false,
      linkType: 1,
      queue,
      counters: this.counters,
      wake: () => undefined,
    });
    tunnel.addReader(reader);
    const out = Buffer.alloc(70_000);
    return {
      tunnel,
      read: () => {
        const count = reader.read(out, 0, out.length);
        return count < 0 ? '-' : out.toString('latin1', 0, count);
      },
    };
  }

  give(...frames: Buffer[]): void {
    const message = Buffer.concat(frames);
    this.path.frames(message, message.length);
  }
}

const text = (tunnel: UpTunnel, what: string): Buffer => dataUp(tunnel.id, Buffer.from(what));

t.test('each frame goes to the symbol of its up tunnel', async (t) => {
  const bench = new Bench();
  const [one, two] = [bench.open('eth0'), bench.open('eth0:udp:520')];
  bench.give(text(one.tunnel, 'a'), text(two.tunnel, 'b'), text(one.tunnel, 'c'), text(one.tunnel, 'd'));
  t.same([one.read(), one.read(), one.read(), one.read()], ['a', 'c', 'd', '-']);
  t.same([two.read(), two.read()], ['b', '-']);
  t.equal(bench.counters.get('control_rx_frames'), 4);
});

t.test(
  "a frame of no tunnel, of a closed one, or of another forwarder's, is counted and delivered nowhere",
  async (t) => {
    const bench = new Bench();
    const mine = bench.open('eth0');
    const theirs = bench.open('eth0', 'fwd2');
    const closed = bench.open('eth1');
    bench.reception.remove(closed.tunnel.id);
    bench.give(
      text(theirs.tunnel, 'stolen'),
      text(mine.tunnel, 'good'),
      text(theirs.tunnel, 'stolen'),
      text(closed.tunnel, 'late'),
      dataUp(9999, Buffer.from('never')),
      text(mine.tunnel, 'also'),
    );
    t.same([mine.read(), mine.read(), mine.read()], ['good', 'also', '-']);
    t.same([theirs.read(), closed.read()], ['-', '-']);
    t.equal(bench.path.lost.get('drop_unknown_tunnel'), 4);
    t.same(bench.channel.messages, [], 'nor is anything granted for it');
  },
);

t.test('a message that uses up half of the credit of some tunnels grants to each of them once', async (t) => {
  const bench = new Bench();
  const [one, two, three] = [bench.open('eth0'), bench.open('eth1'), bench.open('eth2')];
  const part = UP_CREDIT_BYTES / 128;
  const frame = Buffer.alloc(part);
  for (let i = 0; i < 63; i += 1) bench.give(dataUp(one.tunnel.id, frame), dataUp(two.tunnel.id, frame));
  t.same(bench.channel.messages, []);
  bench.give(...[one, two, one, three, one].map(({ tunnel }) => dataUp(tunnel.id, frame)));
  t.same(bench.channel.takeLines(), [
    `down credit tunnel=${one.tunnel.id} granted=${66 * part + UP_CREDIT_BYTES}`,
    `down credit tunnel=${two.tunnel.id} granted=${64 * part + UP_CREDIT_BYTES}`,
  ]);
});

t.test('confirmations reach their down tunnel, with the errno', async (t) => {
  const bench = new Bench();
  const errors: string[] = [];
  const channel = new FakeChannel('down');
  const down = new DownTunnel(channel, 'fwd1', 'eth0', 'eth0', '*', (what) => errors.push(what));
  down.established(5, 1000);
  bench.downs.set(5, down);
  for (let i = 0; i < 3; i += 1) down.send(Buffer.alloc(60), 0, 60);
  bench.give(confirm(6, 3), confirm(5, 1));
  t.notOk(down.isDrained);
  bench.give(confirmError(5, 2, 100), confirm(5, 3));
  t.ok(down.isDrained);
  t.match(errors, [/ENETDOWN/]);
});
