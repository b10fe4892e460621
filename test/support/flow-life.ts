/** One life of a flow table and its slow twin: both are told what happens, at random, and asked what they make of it. */
import type { Rule } from '../../src/forwarder/distribution-table.js';
import { SENT } from '../../src/forwarder/flow-table.js';
import { ipv4, tcp, udp } from '../vectors/packet-frames.js';
import { FlowBench } from './flow-bench.js';
import { FlowTwin, type TwinPacket } from './flow-twin.js';
import { ACK, FIN, RST, SYN } from './hand-tcp.js';

const OURS = '10.0.0.1';
const THEIRS = '10.0.0.2';
const none = Buffer.alloc(0);

const LOCAL_PORTS = [53, 80, 5000];
const REMOTE_PORTS = [1, 2, 3, 4];
const PROTOCOLS = ['tcp', 'tcp', 'udp', 'icmp'] as const;
const FLAG_SETS = [
  ['SYN'],
  ['SYN', 'ACK'],
  ['ACK'],
  ['ACK'],
  ['ACK'],
  ['FIN', 'ACK'],
  ['RST'],
  ['RST', 'ACK'],
] as const;
const BITS = { SYN, ACK, FIN, RST } as const;
const RULES = ['tcp:80', 'tcp:10.0.0.1:80', 'udp:53', 'udp:5000', 'tcp:53'];

/** Small, so that it is full now and then. */
const MAX = 16;

function bytesOf(packet: TwinPacket, received: boolean): Buffer {
  const [localPort = 0, remotePort = 0] = [packet.local, packet.remote].map((end) => Number(end.split(':')[1]));
  const [sourcePort, destinationPort] = received ? [remotePort, localPort] : [localPort, remotePort];
  const ends = received ? { source: THEIRS, destination: OURS } : { source: OURS, destination: THEIRS };
  const wrap = (protocol: number, payload: Buffer): Buffer => ipv4({ protocol, ...ends }, payload);
  if (packet.protocol === 'icmp')
    return wrap(1, Buffer.from([received ? 0 : 8, 0, 0, 0, localPort >> 8, localPort & 255, 0, 1]));
  if (packet.protocol === 'udp') return wrap(17, udp(sourcePort, destinationPort, none));
  const flags = [...packet.flags].reduce((bits, flag) => bits | BITS[flag], 0);
  const segment = tcp({ sourcePort, destinationPort, flags }, none);
  segment.writeUInt32BE(packet.acknowledged, 8);
  return wrap(6, segment);
}

/** One life of a table and its twin, told what happens in the same order. */
export class FlowLife {
  readonly bench = new FlowBench(MAX);
  readonly twin: FlowTwin;
  /** Rules of sockets that are there, and of those that were closed. */
  private readonly there: Rule[] = [];
  private readonly closed = new Set<Rule>();
  private state: number;

  constructor(seed: number) {
    this.state = seed;
    this.twin = new FlowTwin((packet, wayBack) => this.cover(packet, wayBack), MAX);
    this.twin.now = this.bench.now;
  }

  private random(bound: number): number {
    this.state = (Math.imul(this.state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((this.state / 0x1_0000_0000) * bound);
  }

  private pick<T>(from: readonly T[]): T {
    return from[this.random(from.length)]!;
  }

  private wayBack(): Rule {
    return this.pick([this.bench.one, this.bench.two]);
  }

  private cover({ protocol, local }: TwinPacket, { vif }: Rule): Rule | null {
    const texts = [`${protocol}:${local}`, `${protocol}:${local.split(':')[1]}`];
    for (const text of texts) {
      const rule = this.there.find((other) => other.vif === vif && other.protocol.text === text);
      if (rule !== undefined) return rule;
    }
    return null;
  }

  private packet(): TwinPacket {
    const protocol = this.pick(PROTOCOLS);
    const localPort = this.pick(LOCAL_PORTS);
    const remotePort = protocol === 'icmp' ? localPort : this.pick(REMOTE_PORTS);
    const flags = new Set(protocol === 'tcp' ? this.pick(FLAG_SETS) : []);
    const ends = { local: `${OURS}:${localPort}`, remote: `${THEIRS}:${remotePort}` };
    return { protocol, ...ends, flags, acknowledged: this.random(2 ** 32) };
  }

  /** @returns what both say about one event: the same, or a defect */
  step(): [event: string, table: unknown, twin: unknown] {
    const { bench, twin } = this;
    const event = this.random(100);
    if (event < 40) {
      const [packet, wayBack] = [this.packet(), this.wayBack()];
      const result = bench.send(bytesOf(packet, false), wayBack) === SENT.OK ? 'ok' : 'refused';
      return ['sent', result, twin.sent(packet, wayBack)];
    }
    if (event < 80) return this.receive(this.packet());
    if (event < 85) return ['a socket opens', this.openSocket(), undefined];
    if (event < 90) return ['a socket closes', this.closeSocket(), undefined];
    if (event < 92) return this.lose();
    if (event < 93) {
      const wayBack = this.wayBack();
      wayBack.peer.active = !wayBack.peer.active;
      return ['a control device comes or goes', undefined, undefined];
    }
    bench.now += this.pick([1, 1000, 9_999, 30_000, 60_000, 120_000]);
    twin.now = bench.now;
    if (event < 97) return ['time', undefined, undefined];
    bench.sweep();
    return ['sweep', undefined, twin.sweep()];
  }

  private receive(packet: TwinPacket): [string, unknown, unknown] {
    const { table } = this.bench;
    const bytes = bytesOf(packet, true);
    const flow = this.bench.flow(bytes);
    const twin = this.twin.received(packet);
    const through = this.there.find((rule) => rule === this.cover(packet, rule));
    const wayBack = through?.vif === this.bench.one.vif ? this.bench.one : this.bench.two;
    if (flow < 0 || twin === undefined) {
      if (flow < 0 && twin === undefined && through !== undefined && packet.protocol === 'udp') {
        const opened = this.bench.open(bytes, through, wayBack);
        return ['open', opened >= 0, this.twin.open(packet, wayBack, through) !== undefined];
      }
      return ['received', flow < 0, twin === undefined];
    }
    const said = [table.ruleOf(flow), table.throughOf(flow), table.isHomeless(flow), table.isLost(flow)];
    const expected = [twin.wayBack, twin.through, twin.homeless, twin.lost];
    if (twin.homeless && through !== undefined && this.random(2) === 0) {
      table.rehome(flow, wayBack, through);
      this.twin.rehome(packet, wayBack, through);
    } else if (twin.ack !== null) {
      said.push(table.hasAck(flow));
      return ['received', [...said, table.lastAck(flow)], [...expected, true, twin.ack]];
    }
    return ['received', said, expected];
  }

  private openSocket(): void {
    const [text, wayBack] = [this.pick(RULES), this.wayBack()];
    if (this.there.some((rule) => rule.vif === wayBack.vif && rule.protocol.text === text)) return;
    const rule = this.bench.socket(text, wayBack);
    this.there.push(rule);
    const left = [...this.closed].filter((other) => other.vif === rule.vif && other.protocol.text === text);
    for (const other of left) this.closed.delete(other);
    this.twin.join(rule, new Set(left));
  }

  private closeSocket(): void {
    const [rule] = this.there.splice(this.random(this.there.length), 1);
    if (rule === undefined) return;
    const othersServe = this.random(2) === 0;
    this.closed.add(rule);
    this.bench.close(rule, othersServe);
    this.twin.leave(rule, othersServe);
  }

  private lose(): [string, unknown, unknown] {
    const [wayBack, kind] = [this.wayBack(), this.random(3)];
    const given = (through: Rule | null): boolean => kind === 0 || (through === null) === (kind === 1);
    const reset: string[] = [];
    const { table } = this.bench;
    table.lose(wayBack, given, (flow) => {
      const ports = [table.localPort(flow), table.remotePort(flow)];
      reset.push(`tcp ${OURS}:${ports[0]} ${THEIRS}:${ports[1]}`);
    });
    return ['a control device is lost', reset.sort(), this.twin.lose(wayBack, given)];
  }

  lines(): string[] {
    return [...this.bench.table.rows()].map((row) => row.join(' ')).sort();
  }

  /** How many flows each way back and rule has: what the table counted, and what there is. */
  counts(): [counted: number[], there: number[]] {
    const { one, two, table } = this.bench;
    const flows = [...this.twin.flows.values()];
    const rules = [one, two, ...this.there, ...this.closed];
    const refers = (rule: Rule): number =>
      flows.filter(({ wayBack, through }) => wayBack === rule || through === rule).length;
    return [rules.map((rule) => table.countThrough(rule)), rules.map(refers)];
  }

  /** Flows that the kernel is quiet for, by what the listener was told. */
  told(): string[] {
    const told = new Set<string>();
    for (const change of this.bench.changes) {
      const [sign, line] = [change[0], change.slice(1)];
      if (told.has(line) === (sign === '+')) throw new Error(`told twice: ${change}`);
      if (sign === '+') told.add(line);
      else told.delete(line);
    }
    const names = new Map([
      ['6', 'tcp'],
      ['17', 'udp'],
      ['1', 'icmp'],
    ]);
    const keys = [...told].map((line) => {
      const [protocol = '', local, remote] = line.split(' ');
      return `${names.get(protocol)} ${OURS}:${local} ${THEIRS}:${remote}`;
    });
    return keys.sort();
  }
}
