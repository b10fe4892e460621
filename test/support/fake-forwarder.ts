/**
 * A forwarder that control devices connect to: a real TunnelServer behind a relay that can be cut, with no interface behind
 * it. It grants everything, remembers rules and tunnels as a real one does, and writes down what it is asked.
 */
import type { Test } from 'tap';
import { type ErrorCode, FwdfsError } from '../../src/base/errors.js';
import { ForwarderLink } from '../../src/control/forwarder-link.js';
import { ReceptionTable, TransmissionTable } from '../../src/control/tables.js';
import * as f from '../../src/tunnel/frames.js';
import type { Answer, Attributes, Message, MessageArgs, MessageType, Right } from '../../src/tunnel/messages.js';
import { TunnelServer } from '../../src/tunnel/server.js';
import type { Session } from '../../src/tunnel/session.js';
import * as messages from './fake-messages.js';
import { keepLog, type KeptLine } from './log.js';
import { startTcpProxy, type TcpProxy } from './tcp-proxy.js';
import { Diary } from './tunnel-ends.js';

export const ATTRIBUTES: Attributes = {
  index: 2,
  linkType: 1,
  address: '02:00:00:00:00:01',
  mtu: 1500,
  operstate: 'up',
  flags: 0x1043,
  speed: 1000,
  inet: ['10.0.0.1/24', '10.0.1.1/24'],
  inet6: [],
};

interface FakeTunnel {
  readonly symbol: string;
  received: number;
}

export class FakeForwarder {
  /** One line a message: type, then what it is about. */
  readonly diary = new Diary();
  interfaces = ['eth0'];
  rights: Right[] = ['read', 'inject'];
  attributes = ATTRIBUTES;
  /** Rules by up tunnel, and tunnels by id, of the one session. */
  readonly rules = new Map<number, string>();
  readonly tunnels = new Map<number, FakeTunnel>();
  /** Link types of the transfer requests. */
  readonly linkTypes: (number | undefined)[] = [];
  /** Payloads in the order in which they would be put out. */
  readonly frames: string[] = [];
  /** Whether frames are confirmed as they come. */
  confirms = true;
  /** Answers a request of this type with an error. */
  readonly refusals = new Map<MessageType, ErrorCode>();
  /** Requests of this type are carried out and answered when the promise is kept. */
  readonly holds = new Map<MessageType, Promise<void>>();
  readonly server: TunnelServer;
  private proxy!: TcpProxy;
  /** By virtual IP address. */
  readonly conversions = new Map<string, Message<'address-conversion-request'>>();
  /** Converts, as a forwarder does; may throw what refuses it. */
  onConversion: (fields: Message<'address-conversion-request'>) => void = () => undefined;
  onTransfer: (fields: Message<'transfer-request'>) => void = () => undefined;
  /** Its end of the link. */
  place: (vip: string) => { nextHop: string; link: string } = () => ({
    nextHop: '10.8.0.1',
    link: '02:00:00:00:00:01',
  });
  /** Of the last hello. */
  weight: number | undefined;
  private current: Session | null = null;
  private lastDown = 0;

  private readonly host: string;

  private constructor(host: string, resumeTime?: number) {
    this.host = host;
    this.server = new TunnelServer({
      ...(resumeTime === undefined ? {} : { resumeTime }),
      name: 'fwd1',
      log: keepLog(),
      authenticate: (hello) => {
        this.weight = hello.weight;
        return hello.name;
      },
      handler: {
        active: (session, resumed) => this.active(session, resumed),
        message: (_session, ...message) => this.message(...message),
        frames: (session, message, end) => this.take(session, message, end),
        suspended: () => this.diary.add('suspended'),
        closed: () => this.closed(),
        sent: () => [...this.rules.keys()].map((tunnel) => ({ tunnel, frames: 0 })),
        received: () => [...this.tunnels].map(([tunnel, { received }]) => ({ tunnel, sequence: received })),
      },
    });
  }

  /** @param host where it listens, in the network namespace of the thread */
  static async start(t: Test, resumeTime?: number, host = '127.0.0.1'): Promise<FakeForwarder> {
    const forwarder = new FakeForwarder(host, resumeTime);
    const literal = host.includes(':') ? `[${host}]` : host;
    await forwarder.server.listen([`ws://${literal}:0`]);
    forwarder.proxy = await startTcpProxy(Number(new URL(forwarder.server.urls[0] ?? '').port), host);
    t.teardown(async () => {
      await forwarder.server.close();
      await forwarder.proxy.close();
    });
    return forwarder;
  }

  get url(): string {
    return `ws://${this.host.includes(':') ? `[${this.host}]` : this.host}:${this.proxy.port}`;
  }

  get session(): Session {
    if (this.current === null) throw new Error('there is no session');
    return this.current;
  }

  /** The connection is lost; the control device comes back and resumes. */
  cut(): void {
    this.proxy.cut();
  }

  /** The connection is lost, and nobody listens any more. */
  goAway(): Promise<void> {
    return this.proxy.close();
  }

  /** The connection is lost and the session is forgotten: the control device gets a new one. */
  cutAndForget(): void {
    this.cut();
    this.session.end('forgotten');
  }

  /** Holds answers of this type back. @returns what lets them go */
  hold(type: MessageType): () => void {
    let release = (): void => undefined;
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    this.holds.set(type, held);
    return () => {
      this.holds.delete(type);
      release();
    };
  }

  sendInterfaces(...names: string[]): void {
    this.interfaces = names;
    this.session.send('interface-list', { interfaces: names });
  }

  /** The permissions are others. */
  sendAgain(): void {
    this.session.send('interface-list', { interfaces: this.interfaces, again: true });
  }

  sendFrames(...frames: Buffer[]): void {
    const message = Buffer.concat(frames);
    this.session.sendFrames(message, message.length, () => undefined);
  }

  /** eth0 has another link type: told as a forwarder does, without what it says of rules. */
  sendLinkType(linkType: number): void {
    this.attributes = { ...this.attributes, linkType };
    const { attributes, rights } = this;
    this.session.send('interface-attribute-change', { interface: 'eth0', attributes, rights, protocols: ['*'] });
  }

  private active(session: Session, resumed: boolean): void {
    this.current = session;
    this.diary.add(`active resumed=${resumed}`);
    session.send('interface-list', { interfaces: this.interfaces });
  }

  private closed(): void {
    this.rules.clear();
    this.conversions.clear();
    this.tunnels.clear();
    this.diary.add('closed');
  }

  private async message(...message: MessageArgs): Promise<Answer> {
    const [type] = message;
    const code = this.refusals.get(type);
    const held = this.holds.get(type);
    let answer: Answer;
    if (code === undefined) answer = this.carryOut(...message);
    else this.diary.add(`${type} refused`);
    await held;
    if (code !== undefined) throw new FwdfsError(code, 'refused');
    return answer;
  }

  private carryOut(...[type, fields]: MessageArgs): Answer {
    switch (type) {
      case 'interface-use-request':
        this.diary.add(`${type} ${fields.interface}`);
        return { interface: fields.interface, attributes: this.attributes, rights: this.rights, protocols: ['*'] };
      case 'transfer-request':
        this.diary.add(`${type} ${fields.symbol}${fields.vip === undefined ? '' : ` ${fields.protocol}`}`);
        this.onTransfer(fields);
        this.rules.set(fields.upTunnel, fields.symbol);
        this.linkTypes.push(fields.linkType);
        return { upTunnel: fields.upTunnel };
      case 'transfer-deletion-request':
        this.diary.add(`${type} ${this.rules.get(fields.upTunnel) ?? '-'}`);
        this.rules.delete(fields.upTunnel);
        return { upTunnel: fields.upTunnel };
      case 'tunnel-generation-request':
        this.diary.add(`${type} ${fields.symbol} ${fields.protocol}`);
        this.lastDown += 1;
        this.tunnels.set(this.lastDown, { symbol: fields.symbol, received: 0 });
        return { ...fields, downTunnel: this.lastDown, forwarder: 'fwd1', window: 1000 };
      case 'tunnel-deletion-request':
        this.diary.add(`${type} ${this.tunnels.get(fields.downTunnel)?.symbol ?? '-'}`);
        this.tunnels.delete(fields.downTunnel);
        return { downTunnel: fields.downTunnel };
      case 'address-conversion-request':
        this.diary.add(`${type} ${fields.vip} ${fields.sender}`);
        this.onConversion(fields);
        this.conversions.set(fields.vip, fields);
        return { vip: fields.vip, interface: 'eth0', ...this.place(fields.vip) };
      case 'address-conversion-deletion-request':
        this.diary.add(`${type} ${fields.vip}`);
        this.conversions.delete(fields.vip);
        return { vip: fields.vip };
      case 'drain-request':
        this.diary.add(`${type} ${fields.interface ?? '*'} ${fields.drain}`);
        return { drain: fields.drain };
      case 'table-request':
        this.diary.add(`${type} ${fields.table}`);
        return this.table(fields);
      default:
        return undefined;
    }
  }

  private table(fields: Message<'table-request'>): Message<'table-rows'> {
    const rows = fields.table === 'statistics' ? [['rx_packets', '7']] : [...this.rules].map(([id]) => [String(id)]);
    return { columns: ['one', 'two'].slice(0, fields.table === 'statistics' ? 2 : 1), rows };
  }

  private take(session: Session, message: Buffer, end: number): void {
    for (let at = 0; at < end; at = f.nextFrame(message, at, end)) {
      const id = f.getTunnel(message, at);
      const tunnel = this.tunnels.get(id);
      const sequence = f.getCounter(message, at);
      if (f.getKind(message, at) === f.KIND_CLOSE) {
        this.tunnels.delete(id);
        this.diary.add(`close ${tunnel?.symbol ?? '-'}`);
      } else if (f.getKind(message, at) === f.KIND_DATA && tunnel !== undefined && sequence > tunnel.received) {
        if (sequence !== tunnel.received + 1) throw new FwdfsError('bad-message', 'a gap');
        tunnel.received = sequence;
        const start = at + f.FRAME_HEADER_BYTES;
        this.frames.push(message.toString('latin1', start, start + f.getLength(message, at)).replace(/\0+$/, ''));
        this.diary.add(`frame ${this.frames.at(-1)}`);
        if (this.confirms) {
          const frame = messages.confirm(id, sequence);
          session.sendFrames(frame, frame.length, () => undefined);
        }
      }
    }
  }
}

export interface LinkEnd {
  readonly link: ForwarderLink;
  readonly reception: ReceptionTable;
  readonly transmission: TransmissionTable;
  readonly log: { lines: KeptLine[] };
}

/** A link of the control device ctl1 to that forwarder, called fwd1. */
export function startLink(t: Test, url: string, weight?: number): LinkEnd {
  const reception = new ReceptionTable();
  const transmission = new TransmissionTable();
  const log = keepLog();
  const link = new ForwarderLink({
    name: 'fwd1',
    url,
    control: 'ctl1',
    reception,
    transmission,
    log,
    ...(weight !== undefined && { weight }),
  });
  t.teardown(() => link.close());
  return { link, reception, transmission, log };
}

/** Both, connected, with the symbols registered. */
export async function startPair(t: Test, resumeTime?: number): Promise<LinkEnd & { forwarder: FakeForwarder }> {
  const forwarder = await FakeForwarder.start(t, resumeTime);
  const end = startLink(t, forwarder.url);
  await end.link.settled;
  return { ...end, forwarder };
}

/** Resolves when it is so; each turn of the event loop is a chance. */
export async function eventually(check: () => boolean): Promise<void> {
  while (!check()) await new Promise((resolve) => setTimeout(resolve, 1));
}
