/**
 * The receiving end of an up tunnel: one packet transfer rule, shared by all readers of the same (interface, protocol
 * address, scope) on this control device; a claim has one reader. One copy of each packet crosses the wire; the fan-out to several processes
 * (Fig. 28), the way up of distribution section 250, is here.
 *
 *     data frame -> deliver() -> each reader's queue            credit: what was delivered, in bytes, cumulative
 */
import { createHash } from 'node:crypto';
import { C, type Counters } from '../base/counters.js';
import type { FwdfsError } from '../base/errors.js';
import { UP_CREDIT_BYTES } from '../base/limits.js';
import { ANY_PROTOCOL, type ProtocolAddress } from '../packet/protocol-address.js';
import type { Scope } from '../packet/symbol-name.js';
import type { Message } from '../tunnel/messages.js';

/** Whose packets they are: an open file, or a virtual IF. Neither function may throw. */
export interface FrameReader {
  /** One frame, valid during the call: `length` bytes at `offset`, its virtio_net_hdr at `vnet`, its receive time. */
  deliver(buf: Buffer, offset: number, length: number, vnet: number, seconds: number, nanoseconds: number): void;
  /** There will be no more. @param errno 0: it is over, else why */
  end(errno?: number): void;
}

/** What a transfer request says of its owner. */
export type OwnerFields = Pick<Message<'transfer-request'>, 'vif'> &
  Partial<Pick<Message<'transfer-request'>, 'vip' | 'control' | 'credit'>>;

/** The virtual IF, or the virtual IP address, to whose sockets a rule belongs. */
export interface RuleOwner {
  /** What the application touches: the name of the device, or `vip:ADDRESS`. */
  readonly symbol: string;
  /** How such rules share their packets. */
  readonly mode: 'socket' | 'vip';
  /** False: the forwarder does not know it now, and can have no rule for it. */
  readonly isKnown: boolean;
  ruleFields(): OwnerFields;
}

export interface RuleKey {
  readonly interface: string;
  readonly protocol: ProtocolAddress;
  readonly scope: Scope;
  readonly claim: boolean;
  /** Absent: the rule of a file, or one set by hand. */
  readonly owner?: RuleOwner;
  /** A packet socket's own filter, classic BPF as hex; absent: none. */
  readonly filter?: string;
}

/** Stands for the answers of a virtual IF's flows: what its tunnel asks for, and no rule. */
export const FLOWS: ProtocolAddress = { ...ANY_PROTOCOL, text: 'flows' };

/** The name of a rule: two spellings of one protocol address give one text. */
export function ruleName(key: RuleKey): string {
  const { filter = '', owner } = key;
  if (owner !== undefined) {
    const digest = filter === '' ? '' : `#${createHash('sha256').update(filter).digest('hex').slice(0, 8)}`;
    return `${owner.symbol}:${key.protocol.text}${digest}`;
  }
  const protocol = key.protocol.kind === 'any' ? '' : `:${key.protocol.text}`;
  return `${key.interface}${protocol}${key.scope === 'in' ? '' : `:${key.scope}`}${key.claim ? ':claim' : ''}`;
}

export class UpTunnel {
  readonly key: RuleKey;
  readonly name: string;
  readonly forwarder: string;
  private readonly counters: Counters;
  private readonly readers: FrameReader[] = [];
  /** Allocated by the control device, another one for every request; 0: none yet. */
  id = 0;
  /** pcap link type that its readers take its frames for, asked for with the rule; 0: not known yet. */
  linkType = 0;
  /** Open files and `rule add` that keep the rule. */
  holders = 0;
  /** What the forwarder answered to the latest request; `unset` also when the connection went before it did. */
  state: 'asked' | 'set' | 'unset' = 'unset';
  /** Resolves when the forwarder has the rule. */
  ready: Promise<void> = Promise.resolve();
  /** Why the forwarder does not do it; the tunnel is of no use then. */
  failure: FwdfsError | null = null;
  /** The rule is set and its control device connected. */
  active = false;
  private received = 0;
  private granted = UP_CREDIT_BYTES;
  /** On the list of those that may be due for credit when the message is over. */
  touched = false;
  frames = 0;
  /** `frames` when the forwarder began to count those of this id, less those that it sent and that were lost. */
  private accounted = 0;
  bytes = 0;

  constructor(key: RuleKey, forwarder: string, counters: Counters) {
    this.key = key;
    this.name = ruleName(key);
    this.forwarder = forwarder;
    this.counters = counters;
  }

  /** What the application touches, in tables. */
  get symbol(): string {
    return this.key.owner?.symbol ?? `${this.forwarder}/${this.name}`;
  }

  /** How the rule shares its packets: see the forwarder's distribution table. */
  get mode(): string {
    if (this.key.claim) return 'claim';
    if (this.key.protocol === FLOWS) return 'flow';
    return this.key.owner === undefined || this.key.protocol.kind !== 'ip' ? 'copy' : this.key.owner.mode;
  }

  get readerCount(): number {
    return this.readers.length;
  }

  addReader(reader: FrameReader): void {
    this.readers.push(reader);
    if (this.failure !== null) reader.end(this.failure.errno);
  }

  removeReader(reader: FrameReader): void {
    const index = this.readers.indexOf(reader);
    if (index >= 0) this.readers.splice(index, 1);
  }

  deliver(buf: Buffer, offset: number, length: number, vnet: number, seconds: number, nanoseconds: number): void {
    this.received += length;
    this.frames += 1;
    this.bytes += length;
    this.counters.add(C.control_rx_frames, 1);
    this.counters.add(C.control_rx_bytes, length);
    const readers = this.readers;
    if (readers.length === 0) this.counters.add(C.drop_no_reader, 1);
    for (let i = 0; i < readers.length; i++) {
      (readers[i] as FrameReader).deliver(buf, offset, length, vnet, seconds, nanoseconds);
    }
  }

  /** New cumulative credit, when half of it is used up; 0: none is due. */
  takeCredit(): number {
    if (this.granted - this.received > UP_CREDIT_BYTES / 2) return 0;
    this.granted = this.received + UP_CREDIT_BYTES;
    return this.granted;
  }

  /** Both sides begin to count anew with every new pair of channels. */
  private resetCredit(): void {
    this.received = 0;
    this.granted = UP_CREDIT_BYTES;
  }

  /** The rule is asked for under a new id: the forwarder counts from 0. */
  asked(): void {
    this.state = 'asked';
    this.resetCredit();
    this.accounted = this.frames;
  }

  /** The session goes on. @param sent frames that the forwarder has sent so far: those that never came are counted */
  resumed(sent: number): void {
    this.resetCredit();
    const lost = Math.max(0, this.accounted + sent - this.frames);
    this.accounted -= lost;
    this.counters.add(C.drop_connection_lost, lost);
  }

  /** There is no such rule, and there will not be: readers get the reason. @returns whether it has readers */
  fail(failure: FwdfsError): boolean {
    this.failure = failure;
    this.state = 'unset';
    this.active = false;
    return this.endReaders(failure.errno) > 0;
  }

  /** @returns how many there were */
  endReaders(errno = 0): number {
    const ended = this.readers.splice(0);
    for (const reader of ended) reader.end(errno);
    return ended.length;
  }
}
