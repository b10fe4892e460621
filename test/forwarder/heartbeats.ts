/** src/forwarder/heartbeats.ts: who is away, who is lost, and when. */
import t from 'tap';
import { Heartbeats } from '../../src/forwarder/heartbeats.js';
import type { Peer } from '../../src/forwarder/peer.js';
import { FakeTimers } from '../support/fake-timers.js';
import { makePeer } from '../support/fake-peer.js';

class Bench {
  readonly timers = new FakeTimers();
  readonly peer: Peer = makePeer().peer;
  readonly session = { bytesReceived: 0, probes: 0, probe: (): void => void (this.session.probes += 1) };
  readonly told: string[] = [];
  readonly heartbeats = new Heartbeats({
    interval: 250,
    peers: new Map([[this.session, this.peer]]),
    onChange: ({ silent }) => this.told.push(`${this.timers.now()} ${silent ? 'away' : 'back'}`),
    onLost: () => this.told.push(`${this.timers.now()} lost`),
    timers: this.timers,
    afterReading: (step) => step(),
  });

  constructor() {
    this.peer.flowRules = 1;
  }

  /** The control device answers for so long. */
  answers(ms: number): void {
    for (let at = 0; at < ms; at += 50) {
      this.session.bytesReceived += 1;
      this.timers.advance(50);
    }
  }
}

t.test(
  'one that falls silent gets no new flows after 1 s at the latest, and is lost one heartbeat later',
  async (t) => {
    const bench = new Bench();
    bench.answers(1000);
    t.same(bench.told, []);
    t.equal(bench.session.probes, 4);
    t.ok(bench.peer.takesFlows('eth0'));
    bench.timers.advance(1000);
    t.same(bench.told, ['1750 away']);
    t.notOk(bench.peer.takesFlows('eth0'));
    bench.timers.advance(5000);
    t.equal(bench.told.length, 2, 'told once');
    bench.answers(500);
    t.equal(bench.told.at(-1), '7250 back');
    t.ok(bench.peer.takesFlows('eth0'));
  },
);

t.test('one whose channels are gone is lost after the same time, and is not asked', async (t) => {
  const bench = new Bench();
  bench.answers(250);
  const { probes } = bench.session;
  bench.peer.active = false;
  bench.timers.advance(1000);
  t.same(bench.told, ['1000 away', '1250 lost']);
  t.equal(bench.session.probes, probes);
});

t.test('a short silence is none', async (t) => {
  const bench = new Bench();
  for (let round = 0; round < 5; round++) {
    bench.answers(250);
    bench.timers.advance(500);
  }
  t.same(bench.told, []);
});

t.test('a heartbeat of ours that comes late blames nobody', async (t) => {
  const bench = new Bench();
  bench.answers(250);
  bench.timers.stall(5000);
  bench.timers.advance(500);
  t.same(bench.told, []);
});

t.test('nobody is asked who is given no flows, and nothing goes on after the stop', async (t) => {
  const bench = new Bench();
  bench.peer.flowRules = 0;
  bench.timers.advance(5000);
  t.same([bench.told, bench.session.probes], [[], 0]);
  bench.peer.flowRules = 1;
  bench.heartbeats.stop();
  bench.timers.advance(5000);
  t.same([bench.told, bench.session.probes], [[], 0]);
  t.equal(bench.timers.running, 0);
});
