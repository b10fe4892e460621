/**
 * A slow twin of the flow table: a Map of objects with a field for each thing that a flow can be, and the rules of
 * flow-table.ts in plain words. It sees packets as they were meant, not as bytes.
 */
import {
  FLOW_CLOSED_MS,
  FLOW_ECHO_MS,
  FLOW_LEFT_MS,
  FLOW_TCP_MS,
  FLOW_TCP_NEW_MS,
  FLOW_TCP_RESET_MS,
  FLOW_UDP_ANSWERED_MS,
  FLOW_UDP_MS,
} from '../../src/base/limits.js';
import type { Rule } from '../../src/forwarder/distribution-table.js';

export interface TwinPacket {
  readonly protocol: 'tcp' | 'udp' | 'icmp';
  readonly local: string;
  readonly remote: string;
  readonly flags: ReadonlySet<'SYN' | 'ACK' | 'FIN' | 'RST'>;
  readonly acknowledged: number;
}

interface TwinFlow {
  readonly packet: TwinPacket;
  wayBack: Rule;
  through: Rule | null;
  sent: boolean;
  answered: boolean;
  localFin: boolean;
  remoteFin: boolean;
  reset: boolean;
  left: boolean;
  brief: boolean;
  homeless: boolean;
  lost: boolean;
  told: boolean;
  ack: number | null;
  expires: number;
}

const keyOf = ({ protocol, local, remote }: TwinPacket): string => `${protocol} ${local} ${remote}`;

export class FlowTwin {
  now = 0;
  readonly flows = new Map<string, TwinFlow>();
  private readonly cover: (packet: TwinPacket, wayBack: Rule) => Rule | null;
  private readonly max: number;

  constructor(cover: (packet: TwinPacket, wayBack: Rule) => Rule | null, max: number) {
    this.cover = cover;
    this.max = max;
  }

  private find(packet: TwinPacket): TwinFlow | undefined {
    const flow = this.flows.get(keyOf(packet));
    if (flow === undefined || flow.expires > this.now) return flow;
    this.flows.delete(keyOf(packet));
    return undefined;
  }

  private begin(packet: TwinPacket, wayBack: Rule, through: Rule | null): TwinFlow {
    const flow: TwinFlow = {
      packet,
      wayBack,
      through,
      sent: false,
      answered: false,
      localFin: false,
      remoteFin: false,
      reset: false,
      left: false,
      brief: false,
      homeless: false,
      lost: false,
      told: through === null,
      ack: null,
      expires: 0,
    };
    this.flows.set(keyOf(packet), flow);
    return flow;
  }

  private hasEnded(flow: TwinFlow): boolean {
    return flow.reset || flow.lost || (flow.localFin && flow.remoteFin);
  }

  private isOver(flow: TwinFlow): boolean {
    return this.hasEnded(flow) || (flow.left && !flow.answered);
  }

  private renew(flow: TwinFlow): void {
    let ms = FLOW_ECHO_MS;
    if (flow.packet.protocol === 'udp') ms = flow.answered ? FLOW_UDP_ANSWERED_MS : FLOW_UDP_MS;
    if (flow.packet.protocol === 'tcp') {
      if (flow.reset || flow.lost) ms = FLOW_TCP_RESET_MS;
      else if (flow.localFin || flow.remoteFin) ms = FLOW_CLOSED_MS;
      else ms = flow.answered ? FLOW_TCP_MS : FLOW_TCP_NEW_MS;
    }
    flow.expires = this.now + (flow.brief ? Math.min(ms, FLOW_LEFT_MS) : ms);
  }

  sent(packet: TwinPacket, wayBack: Rule): 'ok' | 'refused' {
    let flow = this.find(packet);
    const { flags } = packet;
    if (flow === undefined) {
      if (flags.has('RST')) return 'ok';
      const through = this.cover(packet, wayBack);
      if (this.flows.size >= this.max) return through === null ? 'refused' : 'ok';
      flow = this.begin(packet, wayBack, through);
    } else if (this.isOver(flow) && flags.has('SYN')) {
      flow = this.begin(packet, wayBack, this.cover(packet, wayBack));
    } else {
      if (flow.lost || (flow.homeless && flow.wayBack === wayBack)) return 'ok';
      if (flow.wayBack !== wayBack) {
        if (!flow.homeless && !this.isOver(flow) && flow.wayBack.peer.active) return 'refused';
        flow.wayBack = wayBack;
        flow.through = this.cover(packet, wayBack);
        flow.told = flow.through === null;
        flow.left = false;
        flow.brief = false;
        flow.homeless = false;
      }
    }
    flow.sent = true;
    flow.localFin ||= flags.has('FIN');
    flow.reset ||= flags.has('RST');
    this.renew(flow);
    return 'ok';
  }

  received(packet: TwinPacket): TwinFlow | undefined {
    const flow = this.find(packet);
    const { flags } = packet;
    if (flow === undefined || flow.homeless) return flow;
    const opening = flags.has('SYN') && !flags.has('ACK');
    if (opening && this.isOver(flow)) return undefined;
    flow.answered ||= flow.sent && !opening;
    flow.remoteFin ||= flags.has('FIN');
    flow.reset ||= flags.has('RST');
    if (flags.has('ACK')) flow.ack = packet.acknowledged;
    this.renew(flow);
    return flow;
  }

  open(packet: TwinPacket, wayBack: Rule, through: Rule): TwinFlow | undefined {
    if (packet.protocol !== 'udp' || this.flows.size >= this.max) return undefined;
    const flow = this.begin(packet, wayBack, through);
    this.renew(flow);
    return flow;
  }

  rehome(packet: TwinPacket, wayBack: Rule, through: Rule): void {
    this.renew(this.begin(packet, wayBack, through));
  }

  leave(through: Rule, othersServe: boolean): void {
    for (const flow of this.flows.values()) {
      if (flow.through !== through) continue;
      if (flow.packet.protocol === 'udp') flow.homeless = true;
      else {
        flow.left = true;
        flow.brief = othersServe;
        if (othersServe) flow.expires = Math.min(flow.expires, this.now + FLOW_LEFT_MS);
        flow.told = !this.isOver(flow) || flow.lost;
      }
    }
  }

  /** @param left the rules whose sockets are closed, which this one stands for */
  join(through: Rule, left: ReadonlySet<Rule>): void {
    for (const flow of this.flows.values()) {
      if (flow.through === null || !left.has(flow.through)) continue;
      flow.through = through;
      flow.left = false;
      flow.brief = false;
      flow.homeless = false;
      flow.told = false;
      if (!this.isOver(flow)) this.renew(flow);
    }
  }

  /** @returns the keys of those that were reset */
  lose(wayBack: Rule, given: (through: Rule | null) => boolean): string[] {
    const reset: string[] = [];
    for (const [key, flow] of this.flows) {
      if (flow.wayBack !== wayBack || !given(flow.through)) continue;
      if (flow.packet.protocol === 'udp') {
        flow.homeless = true;
        flow.told = false;
      } else if (flow.packet.protocol === 'icmp') this.flows.delete(key);
      else if (!this.hasEnded(flow)) {
        flow.lost = true;
        flow.told = true;
        this.renew(flow);
        reset.push(key);
      }
    }
    return reset.sort();
  }

  sweep(): void {
    for (const [key, flow] of this.flows) if (flow.expires <= this.now) this.flows.delete(key);
  }

  private stateOf(flow: TwinFlow): string {
    if (flow.lost) return 'lost';
    if (flow.homeless) return 'homeless';
    if (flow.reset) return 'reset';
    if (flow.localFin && flow.remoteFin) return 'closed';
    if (flow.localFin || flow.remoteFin) return 'closing';
    if (flow.brief) return 'leaving';
    if (flow.answered) return flow.packet.protocol === 'tcp' ? 'established' : 'answered';
    return 'new';
  }

  /** One line for each flow, as `.tables/flow` has it, sorted. */
  lines(): string[] {
    const lines = [...this.flows.values()].map((flow) => {
      const { packet, through, wayBack } = flow;
      const protocol = packet.protocol === 'icmp' ? 'ip:1' : packet.protocol;
      const left = Math.max(0, Math.ceil((flow.expires - this.now) / 1000));
      const ends = [packet.local, packet.remote];
      const words = [wayBack.peer.identity, wayBack.symbol, through?.protocol.text ?? '-', this.stateOf(flow), left];
      return [wayBack.interface, protocol, ...ends, ...words].join(' ');
    });
    return lines.sort();
  }

  /** Keys of the flows that the kernel has to be quiet for, sorted. */
  told(): string[] {
    return [...this.flows].flatMap(([key, { told }]) => (told ? [key] : [])).sort();
  }
}
