/** A control device that has virtual IFs without devices: a test plays their kernel, frame by frame. */
import { TunnelClient } from '../../src/tunnel/client.js';
import * as f from '../../src/tunnel/frames.js';
import type { AnswerOf, Message, RequestType, VifKind } from '../../src/tunnel/messages.js';
import * as messages from './fake-messages.js';
import { type Lab, until } from './lab.js';
import { keepLog } from './log.js';

export interface Arrived {
  readonly tunnel: number;
  readonly offload: Buffer;
  readonly frame: Buffer;
}

const CREDIT = 1 << 20;

export class VifPuppet {
  /** What came up and was not taken. */
  arrived: Arrived[] = [];
  /** Errors of frames that were not sent: `sequence=N errno=N`. */
  readonly refused: string[] = [];
  readonly withdrawn: number[] = [];
  /** Virtual IP addresses: `VIP CODE`. */
  readonly withdrawnVips: string[] = [];
  private readonly client: TunnelClient;
  private lastUp = 0;
  private readonly sequences = new Map<number, number>();

  private constructor(lab: Lab, name: string, connected: () => void) {
    this.client = new TunnelClient({
      url: 'ws://10.8.0.1:7440',
      name,
      token: lab.token,
      log: keepLog(),
      handler: {
        connected,
        message: (...[type, fields]) => {
          if (type === 'transfer-withdrawal') this.withdrawn.push(fields.upTunnel);
          if (type === 'address-conversion-withdrawal') this.withdrawnVips.push(`${fields.vip} ${fields.code}`);
        },
        frames: (message, end) => this.take(message, end),
        disconnected: () => undefined,
      },
    });
  }

  /** Connected to the forwarder of the lab, which knows the name. */
  static async connect(lab: Lab, name: string): Promise<VifPuppet> {
    return lab.ctl.within(async () => {
      let isConnected = false;
      const puppet = new VifPuppet(lab, name, () => {
        isConnected = true;
      });
      await until(() => isConnected);
      return puppet;
    });
  }

  close(): void {
    this.client.close();
  }

  ask<T extends RequestType>(type: T, fields: Message<T>): Promise<Message<AnswerOf<T>>> {
    return this.client.request(type, fields);
  }

  /** @returns the down tunnel and the way back */
  async vif(kind: VifKind = 'tap', on = 'eth0'): Promise<{ down: number; up: number }> {
    this.lastUp += 1;
    const up = this.lastUp;
    const { downTunnel } = await this.ask('tunnel-generation-request', {
      control: '',
      symbol: `fwd1-${on}`,
      interface: on,
      protocol: '*',
      vif: { kind, upTunnel: up, credit: CREDIT },
    });
    return { down: downTunnel, up };
  }

  /** The rule of a socket. @returns its up tunnel */
  async rule(vif: number, protocol: string, more: { filter?: string; interface?: string } = {}): Promise<number> {
    this.lastUp += 1;
    const { upTunnel } = await this.ask('transfer-request', {
      upTunnel: this.lastUp,
      control: '',
      protocol,
      symbol: 'fwd1-eth0',
      interface: 'eth0',
      scope: 'in',
      claim: false,
      credit: CREDIT,
      vif,
      ...more,
    });
    return upTunnel;
  }

  /** The rule of a socket on a virtual IP address. @returns its up tunnel */
  async vipRule(vip: string, protocol: string, more: { interface?: string } = {}): Promise<number> {
    this.lastUp += 1;
    const { upTunnel } = await this.ask('transfer-request', {
      upTunnel: this.lastUp,
      control: '',
      protocol,
      symbol: `vip:${vip}`,
      interface: 'eth0',
      scope: 'in',
      claim: false,
      credit: 0,
      vip,
      ...more,
    });
    return upTunnel;
  }

  send(down: number, ...frames: readonly Buffer[]): void {
    const parts = frames.map((frame) => {
      const sequence = (this.sequences.get(down) ?? 0) + 1;
      this.sequences.set(down, sequence);
      return messages.data(down, sequence, frame);
    });
    const message = Buffer.concat(parts);
    this.client.sendFrames(message, message.length, () => undefined);
  }

  private take(message: Buffer, end: number): void {
    for (let at = 0; at < end; at = f.nextFrame(message, at, end)) {
      const kind = f.getKind(message, at);
      if (kind === f.KIND_CONFIRM && f.getFlags(message, at) === f.CONFIRM_ERROR) {
        this.refused.push(`sequence=${f.getCounter(message, at)} errno=${f.getErrno(message, at)}`);
      }
      if (kind !== f.KIND_DATA) continue;
      const payload = at + f.FRAME_HEADER_BYTES;
      this.arrived.push({
        tunnel: f.getTunnel(message, at),
        offload: Buffer.from(message.subarray(at + f.OFFLOAD_OFFSET, at + f.OFFLOAD_OFFSET + f.OFFLOAD_BYTES)),
        frame: Buffer.from(message.subarray(payload, payload + f.getLength(message, at))),
      });
    }
  }

  /** Takes the first frame that arrived, or will, of which this is true. */
  async next(wanted: (arrived: Arrived) => boolean = () => true): Promise<Arrived> {
    let found: Arrived | undefined;
    await until(() => {
      found = this.arrived.find(wanted);
      return found !== undefined;
    });
    this.arrived = this.arrived.filter((one) => one !== found);
    return found as Arrived;
  }
}
