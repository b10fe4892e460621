/** src/forwarder/interface-transmitter.ts on an outlet that is free, full or refuses. */
import { constants } from 'node:os';
import t from 'tap';
import { Counters } from '../../src/base/counters.js';
import { InterfaceTransmitter, type TransmitResult } from '../../src/forwarder/interface-transmitter.js';
import { type DownTunnel, ReceptionTable } from '../../src/forwarder/reception-table.js';
import { ANY_PROTOCOL } from '../../src/packet/protocol-address.js';
import { data } from '../support/fake-messages.js';
import { FakeOutlet } from '../support/fake-outlet.js';
import { makePeer } from '../support/fake-peer.js';

const { EINVAL, EMSGSIZE, ENETDOWN } = constants.errno;

/** Writes down what became of each frame. */
class Results implements TransmitResult {
  readonly lines: string[] = [];
  private moved: (() => void)[] = [];

  sent(tunnel: DownTunnel, sequence: number): void {
    this.lines.push(`${tunnel.id}: ${sequence}`);
  }

  failed(tunnel: DownTunnel, sequence: number, errno: number): void {
    this.lines.push(`${tunnel.id}: ${sequence} ${errno}`);
  }

  backlogMoved(): void {
    this.lines.push('moved');
    for (const resolve of this.moved.splice(0)) resolve();
  }

  untilMoved(): Promise<void> {
    return new Promise((resolve) => this.moved.push(resolve));
  }
}

function setUp(): {
  outlet: FakeOutlet;
  results: Results;
  counters: Counters;
  transmitter: InterfaceTransmitter;
  tunnel: DownTunnel;
  other: DownTunnel;
} {
  const outlet = new FakeOutlet();
  const results = new Results();
  const counters = new Counters();
  const table = new ReceptionTable();
  const { peer } = makePeer();
  const [tunnel, other] = [1, 2].map(() => table.add(peer, 'eth0', 'eth0', ANY_PROTOCOL, 'inject', 'ethernet'));
  const transmitter = new InterfaceTransmitter(outlet, counters, results);
  return { outlet, results, counters, transmitter, tunnel: tunnel!, other: other! };
}

const frame = (number: number, length = 60): Buffer => Buffer.alloc(length, number);

t.test('frames leave in order, in batches, from where they stand in their messages', async (t) => {
  const { outlet, results, counters, transmitter, tunnel, other } = setUp();
  const first = Buffer.concat([1, 2, 3, 4, 5].map((number) => data(1, number, frame(number))));
  const second = data(2, 1, frame(9, 14));
  for (let i = 0; i < 5; i += 1) transmitter.queue(first, i * 96, tunnel, 0);
  transmitter.queue(second, 0, other, 0);
  t.same(outlet.frames, []);
  transmitter.flush();
  t.same(outlet.frames, [...[1, 2, 3, 4, 5].map((number) => frame(number)), frame(9, 14)]);
  t.same(results.lines, ['1: 1', '1: 2', '1: 3', '1: 4', '1: 5', '2: 1']);
  t.equal(outlet.flushes, 2, 'a batch of four and the rest');
  t.equal(tunnel.bytes, 300);
  t.same([counters.get('forwarder_tx_frames'), counters.get('forwarder_tx_bytes')], [6, 314]);
});

t.test('the virtio_net_hdr of a frame leaves with it', async (t) => {
  const { outlet, transmitter, tunnel } = setUp();
  const message = data(1, 1, frame(1));
  message.write('0102030405060708090a', 2, 'hex');
  transmitter.queue(message, 0, tunnel, 0);
  transmitter.flush();
  t.equal(outlet.offloads[0]?.toString('hex'), '0102030405060708090a');
});

t.test('a frame that the interface refuses is told with its errno, and those behind it leave', async (t) => {
  const { outlet, results, counters, transmitter, tunnel } = setUp();
  outlet.refuse = (bytes) => (bytes[0] === 2 || bytes[0] === 3 ? EMSGSIZE : 0);
  for (const number of [1, 2, 3, 4]) transmitter.queue(data(1, number, frame(number)), 0, tunnel, 0);
  transmitter.flush();
  t.same(results.lines, ['1: 1', `1: 2 ${EMSGSIZE}`, `1: 3 ${EMSGSIZE}`, '1: 4']);
  t.same(outlet.frames, [frame(1), frame(4)]);
  t.equal(counters.get('drop_tx_error'), 2);
});

t.test('a frame that was refused before is told in its turn and never sent', async (t) => {
  const { outlet, results, counters, transmitter, tunnel } = setUp();
  for (const [number, errno] of [
    [1, EINVAL],
    [2, 0],
    [3, EINVAL],
    [4, 0],
  ] as const) {
    transmitter.queue(data(1, number, frame(number)), 0, tunnel, errno);
  }
  transmitter.flush();
  t.same(results.lines, [`1: 1 ${EINVAL}`, '1: 2', `1: 3 ${EINVAL}`, '1: 4']);
  t.same(outlet.frames, [frame(2), frame(4)]);
  t.equal(counters.get('drop_tx_error'), 0, 'who refused it has counted it');
});

t.test('a full interface keeps the rest waiting, in order, with what comes behind', async (t) => {
  const { outlet, results, transmitter, tunnel } = setUp();
  t.teardown(() => transmitter.close(ENETDOWN));
  outlet.free = 2;
  for (const number of [1, 2, 3]) transmitter.queue(data(1, number, frame(number)), 0, tunnel, 0);
  transmitter.flush();
  t.same(results.lines, ['1: 1', '1: 2']);
  const flushes = outlet.flushes;
  outlet.free = Infinity;
  transmitter.queue(data(1, 4, frame(4)), 0, tunnel, EINVAL);
  transmitter.queue(data(1, 5, frame(5)), 0, tunnel, 0);
  transmitter.flush();
  t.equal(outlet.flushes, flushes, 'nothing overtakes');
  await results.untilMoved();
  t.same(results.lines, ['1: 1', '1: 2', '1: 3', `1: 4 ${EINVAL}`, '1: 5', 'moved']);
  t.same(
    outlet.frames.map((bytes) => bytes[0]),
    [1, 2, 3, 5],
  );
});

t.test('a backlog that never ends does not grow by what is out', async (t) => {
  const { outlet, results, transmitter, tunnel } = setUp();
  const lengths = (): number =>
    Math.max(...Object.values(transmitter as object).map((value) => (Array.isArray(value) ? value.length : 0)));
  outlet.batch = 64;
  let sequence = 0;
  const next = (count: number): void => {
    for (let i = 0; i < count; i += 1) transmitter.queue(data(1, ++sequence, frame(1, 14)), 0, tunnel, 0);
  };
  next(100);
  let longest = 0;
  for (let round = 0; round < 120; round += 1) {
    outlet.free = 100;
    next(100);
    transmitter.flush();
    longest = Math.max(longest, lengths());
    if (round === 0) t.equal(results.lines.length, 100, 'a hundred are always behind');
    await results.untilMoved();
  }
  transmitter.close(ENETDOWN);
  t.ok(longest < 10_000, `${longest} places for 100 frames`);
  const numbers = results.lines.filter((line) => line !== 'moved').map((line) => Number(line.split(' ')[1]));
  t.same(
    numbers,
    Array.from({ length: sequence }, (_, index) => index + 1),
  );
});

t.test('when the interface goes, what waits fails at once, and that is told', async (t) => {
  const { outlet, results, counters, transmitter, tunnel } = setUp();
  outlet.free = 1;
  for (const number of [1, 2, 3])
    transmitter.queue(data(1, number, frame(number)), 0, tunnel, number === 3 ? EINVAL : 0);
  transmitter.flush();
  transmitter.close(ENETDOWN);
  t.same(results.lines, ['1: 1', `1: 2 ${ENETDOWN}`, `1: 3 ${EINVAL}`, 'moved']);
  t.equal(counters.get('drop_tx_error'), 1);
  t.equal(outlet.closed, 1);
});
