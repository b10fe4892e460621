/**
 * `npm run bench -- flows`: the flow table with a million flows, without the kernel: memory, processor time of a lookup, and
 * how long each call keeps the packets waiting. A lookup in an order that no cache foresees waits for the memory twice, once
 * for the chain and once for the row; beside it stands one such look into as much memory, and a Map with a string for a key.
 * And what it takes to place a new flow.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { FLOW_SWEEP_STEPS, FLOW_TCP_RESET_MS, MAX_FLOWS_PER_INTERFACE } from '../src/base/limits.js';
import type { Rule, VifEnd } from '../src/forwarder/distribution-table.js';
import { FlowKey } from '../src/forwarder/flow-key.js';
import { FlowTable } from '../src/forwarder/flow-table.js';
import { flowHash, maglevTable } from '../src/forwarder/maglev.js';
import { SIDE } from '../src/forwarder/rule.js';
import { Balancing, SocketGroups } from '../src/forwarder/socket-groups.js';
import { FrameView } from '../src/packet/headers.js';
import { makePeer, makeRule } from '../test/support/fake-peer.js';
import { ipv4, ipv6, tcp } from '../test/vectors/packet-frames.js';
import { row } from './support/report.js';

const LOOKUPS = 2_000_000;
const SERVICE = 80;
const SYN_ACK = 0x12;
const ACK = 0x10;

interface Family {
  readonly name: string;
  /** From the service to a client, and back; the client is written into both. */
  readonly sent: Buffer;
  readonly received: Buffer;
  readonly source: number;
  readonly destination: number;
  readonly bytes: number;
}

const segment = (flags: number): Buffer =>
  tcp({ sourcePort: SERVICE, destinationPort: SERVICE, flags }, Buffer.alloc(0));

const FAMILIES: readonly Family[] = [
  {
    name: 'IPv4',
    sent: ipv4({ protocol: 6 }, segment(SYN_ACK)),
    received: ipv4({ protocol: 6, source: '10.0.0.2', destination: '10.0.0.1' }, segment(ACK)),
    source: 12,
    destination: 16,
    bytes: 4,
  },
  {
    name: 'IPv6',
    sent: ipv6(6, segment(SYN_ACK)),
    received: ipv6(6, segment(ACK)),
    source: 8,
    destination: 24,
    bytes: 16,
  },
];

/** A number's client, each another one: spread over addresses of 11.0.0.0/8 and ports. */
function writeClient(frame: Buffer, address: number, port: number, number: number): void {
  frame.writeUInt32BE(0x0b000000 | (Math.imul(number, 0x9e3779b1) & 0xffffff), address);
  frame.writeUInt16BE(10_000 + (number & 0x3ff), port);
}

const ms = (value: number): string => `${value.toFixed(value < 10 ? 2 : 0)} ms`;
const mib = (bytes: number): string => `${(bytes / (1 << 20)).toFixed(0)} MiB`;

/** What the process holds in typed arrays and objects, when the collector has done what it can. */
async function held(): Promise<number> {
  for (let i = 0; i < 3; i++) {
    collect();
    await new Promise((resolve) => void setImmediate(resolve));
  }
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

/** The collector, without an option of the command line. */
function collect(): void {
  setFlagsFromString('--expose-gc');
  runInNewContext('gc()');
}

class Scene {
  now = 0;
  readonly vif: VifEnd = { id: 1, kind: 'tap', stamp: 0, wayBack: null };
  readonly wayBack: Rule;
  readonly through: Rule;
  readonly table: FlowTable;
  private readonly sentView = new FrameView();
  private readonly receivedView = new FrameView();
  private readonly family: Family;
  private readonly client: { sent: number; received: number; sentPort: number; receivedPort: number };

  constructor(family: Family) {
    this.family = family;
    const { peer } = makePeer();
    this.wayBack = makeRule(peer, '*', { mode: 'flow', vif: this.vif });
    this.through = makeRule(peer, `tcp:${SERVICE}`, { mode: 'socket', vif: this.vif });
    this.table = new FlowTable(
      () => this.now,
      () => undefined,
      { throughOf: () => this.through },
    );
    const { sent, received, source, destination, bytes } = family;
    // The answer goes from where the other one came from.
    sent.copy(received, destination, source, source + bytes);
    this.sentView.parse(sent, 0, sent.length, 'raw');
    this.receivedView.parse(received, 0, received.length, 'raw');
    this.client = {
      sent: destination + bytes - 4,
      received: source + bytes - 4,
      sentPort: this.sentView.l4Offset + 2,
      receivedPort: this.receivedView.l4Offset,
    };
    sent.copy(received, source, destination, destination + bytes);
  }

  open(number: number): void {
    writeClient(this.family.sent, this.client.sent, this.client.sentPort, number);
    this.table.sent(this.sentView, this.family.sent, this.wayBack);
  }

  find(number: number): number {
    writeClient(this.family.received, this.client.received, this.client.receivedPort, number);
    return this.table.received(this.receivedView, this.family.received);
  }

  /** A lookup in ns, without what the loop itself takes. */
  lookup(among: number, flows: number): number {
    let missed = 0;
    const writing = perCall((random) => {
      writeClient(this.family.received, this.client.received, this.client.receivedPort, random(among));
      return 0;
    });
    const all = perCall((random) => {
      missed += this.find(random(among)) < 0 ? 1 : 0;
      return 0;
    });
    if (missed > 0) throw new Error(`${missed} lookups of ${flows} flows missed`);
    return all - writing;
  }
}

/** Mean processor time of one call in ns, after as many to warm up. @param look gets whole numbers below a bound, returns any */
function perCall(look: (random: (bound: number) => number) => number): number {
  let state = 12_345;
  const random = (bound: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 0x1_0000_0000) * bound);
  };
  let sum = 0;
  for (let i = 0; i < LOOKUPS; i++) sum += look(random);
  const before = process.cpuUsage();
  for (let i = 0; i < LOOKUPS; i++) sum += look(random);
  const { user, system } = process.cpuUsage(before);
  if (Number.isNaN(sum)) throw new Error('no number');
  return ((user + system) * 1000) / LOOKUPS;
}

/** Each look depends on the one before, as a row does on its chain. */
function memoryLook(bytes: number): number {
  const words = new Int32Array(bytes / 4).fill(1);
  let last = 0;
  return perCall((random) => (last = words[random(words.length - 1) + (last & 1)]!));
}

function mapLook(flows: number): number {
  const map = new Map(Array.from({ length: flows }, (_, number) => [textKey(number), { number }]));
  const making = perCall((random) => textKey(random(flows)).length);
  return perCall((random) => map.get(textKey(random(flows)))!.number) - making;
}

const textKey = (number: number): string => `6 10.0.0.1 80 ${0x0b000000 + number} ${number & 0x3ff}`;

function timed(work: () => void): number {
  const begin = performance.now();
  work();
  return performance.now() - begin;
}

/** What placing a new flow takes: its table, its hash and its member. */
function benchMaglev(): void {
  process.stdout.write('\nMaglev\n');
  for (const count of [2, 10, 100]) {
    const members = Array.from({ length: count }, (_, index) => ({ name: `ctl${index} fwd1-eth0`, weight: 1 }));
    const times = Array.from({ length: 11 }, () => timed(() => maglevTable(members))).sort((a, b) => a - b);
    row(`a table of ${count} members, median of 11`, ms(times[5]!), '50 ms');
  }
  const groups = new SocketGroups(new Balancing());
  for (let index = 0; index < 4; index++) {
    groups.add(makeRule(makePeer(`ctl${index}`).peer, `tcp:${SERVICE}`, { mode: 'socket' }));
  }
  for (const { name, received } of FAMILIES) {
    const view = new FrameView();
    const key = new FlowKey();
    view.parse(received, 0, received.length, 'raw');
    const place = perCall((random) => {
      received[view.l4Offset] = random(256);
      key.read(view, received, SIDE.RECEIVED);
      groups.find(key.protocol, view.destinationPort, received, key.local, key.addressLength, true);
      return groups.found?.pick(flowHash(key, received))?.upTunnel ?? 0;
    });
    if (groups.found === null) throw new Error('nobody serves it');
    row(`the member of a new flow, of four, ${name}`, `${place.toFixed(0)} ns`, '200 ns');
  }
}

async function bench(family: Family): Promise<void> {
  process.stdout.write(`\n${family.name}\n`);
  const before = await held();
  const scene = new Scene(family);
  const { table, through } = scene;
  let slowest = 0;
  let opened = 0;
  const begin = performance.now();
  for (const flows of [1000, 100_000, MAX_FLOWS_PER_INTERFACE]) {
    while (opened < flows) {
      const time = timed(() => scene.open(opened));
      slowest = Math.max(slowest, time);
      opened += 1;
    }
    row(`lookup of one of ${flows.toLocaleString('en')}`, `${scene.lookup(flows, flows).toFixed(0)} ns`, '200 ns');
  }
  row('lookup of one of 1,000 among them all', `${scene.lookup(1000, opened).toFixed(0)} ns`, '200 ns');
  row('flows that were opened', `${table.size.toLocaleString('en')} in ${ms(performance.now() - begin)} with lookups`);
  row('the slowest opening', ms(slowest));
  const memory = (await held()) - before;
  row('memory', `${mib(memory)}, ${(memory / table.size).toFixed(0)} bytes a flow`, '200 MB');
  row(
    'one sweep of sixteen',
    ms(
      Math.max(
        ...Array.from({ length: FLOW_SWEEP_STEPS }, () =>
          timed(() => {
            table.sweep();
          }),
        ),
      ),
    ),
  );
  row(
    'the socket rule is deleted',
    ms(
      timed(() => {
        table.leave(through, true);
      }),
    ),
  );
  row(
    'and is there again',
    ms(
      timed(() => {
        table.join(through);
      }),
    ),
  );
  let resets = 0;
  row(
    'the control device is lost, without the RSTs',
    ms(
      timed(() => {
        table.lose(
          scene.wayBack,
          () => true,
          () => (resets += 1),
        );
      }),
    ),
  );
  if (resets !== table.size) throw new Error(`${resets} of ${table.size} were reset`);
  scene.now = FLOW_TCP_RESET_MS;
  row(
    'a sixteenth of them is over',
    ms(
      timed(() => {
        table.sweep();
      }),
    ),
  );
  while (table.size > 0) table.sweep();
  table.sweep();
  row('memory of the empty table', mib((await held()) - before));
}

export async function benchFlows(): Promise<void> {
  for (const family of FAMILIES) await bench(family);
  benchMaglev();
  process.stdout.write('\nfor comparison\n');
  for (const bytes of [1 << 16, 1 << 23, 1 << 26]) {
    row(`one look into ${bytes / 1024} KiB`, `${memoryLook(bytes).toFixed(0)} ns`);
  }
  for (const flows of [1000, 100_000, MAX_FLOWS_PER_INTERFACE]) {
    row(`a Map of ${flows.toLocaleString('en')} by text, without making the text`, `${mapLook(flows).toFixed(0)} ns`);
  }
}
