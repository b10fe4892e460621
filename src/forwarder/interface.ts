/**
 * One offered interface of the forwarder: network IFs 390 and 392, or logical network IF 76 with its physical network IF
 * 73, and what IF information acquisition section 72 knows of it.
 *
 * Owns both packet sockets while the link exists and is offered. Rules and down tunnels name the interface, not the
 * sockets, so they outlive a link that goes and comes back, unless it comes back with another link type.
 */
import { constants } from 'node:os';
import { Counters } from '../base/counters.js';
import { describe } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import type { LinkType } from '../packet/headers.js';
import { parseIpAddress } from '../packet/ip-address.js';
import { type Link, pcapLinkType } from '../sys/links.js';
import { PacketReceiver, PacketTransmitter } from '../sys/packet-socket.js';
import { RawSender } from '../sys/raw-sender.js';
import type { InterfaceRules, Rule } from './distribution-table.js';
import type { Outlet } from './down-path.js';
import type { FlowListener } from './flow-store.js';
import { FlowTable } from './flow-table.js';
import { InterfaceReceiver } from './interface-receiver.js';
import { InterfaceTransmitter, type TransmitResult } from './interface-transmitter.js';
import { Resets } from './resets.js';
import type { OwnAddresses } from './source-check.js';
import { TunSender, type TunSenderOptions } from './tun-sender.js';

const PCAP_ETHERNET = 1;
const { ENETDOWN } = constants.errno;

/** The kind of frames that a pcap link type of ours stands for. */
export function linkTypeOf(pcap: number): LinkType {
  return pcap === PCAP_ETHERNET ? 'ethernet' : 'raw';
}

/** Attribute information on the interface (S213), as messages carry it. */
export interface InterfaceAttributes {
  readonly index: number;
  readonly linkType: number;
  readonly address: string;
  readonly mtu: number;
  readonly operstate: string;
  readonly flags: number;
  readonly speed: number;
  readonly inet: string[];
  readonly inet6: string[];
  /** Routes through it that have a gateway, `default via 10.0.0.254`. */
  readonly routes: string[];
}

function ownAddresses(link: Link): OwnAddresses {
  const ip: Buffer[] = [];
  for (const prefix of [...link.inet, ...link.inet6]) {
    const text = prefix.split('/')[0] ?? '';
    const address = parseIpAddress(text);
    if (address !== null) ip.push(address);
  }
  return { mac: Buffer.from(link.address.replaceAll(':', ''), 'hex'), ip };
}

/** What virtual IFs need of the kernel. */
export interface VifKernel extends Pick<TunSenderOptions, 'neighbours' | 'nextHop'> {
  /** A flow needs the kernel's quiet, or no longer does. */
  readonly flowChanged: FlowListener;
}

export class ForwarderInterface implements Outlet {
  readonly name: string;
  readonly counters = new Counters();
  /** The link has this link type from now on; no frame of it was received yet. */
  onLinkType: (linkType: LinkType) => void = () => undefined;
  linkType: LinkType = 'ethernet';
  own: OwnAddresses = { mac: Buffer.alloc(0), ip: [] };
  transmitter: InterfaceTransmitter | null = null;
  tun: TunSender | null = null;
  readonly flows: FlowTable;
  /** What tells the other ends of flows that were given up. */
  readonly resets: Resets;
  private readonly raw: RawSender;
  private receiver: InterfaceReceiver | null = null;
  private link: Link | null = null;
  private readonly rules: InterfaceRules;
  private readonly result: TransmitResult;
  private readonly kernel: VifKernel;
  private readonly log: Logger;
  /** See InterfaceAttributes. */
  routes: readonly string[] = [];

  constructor(name: string, rules: InterfaceRules, result: TransmitResult, kernel: VifKernel, log: Logger) {
    this.name = name;
    this.kernel = kernel;
    this.flows = new FlowTable(() => performance.now(), kernel.flowChanged, rules);
    this.raw = new RawSender(name);
    this.resets = new Resets((packet) => this.raw.send(packet), this.counters);
    this.flows.onTold = (any) => this.receiver?.flowsChanged(any);
    this.rules = rules;
    this.result = result;
    this.log = log;
  }

  /** The link as it is now; null while it is not there, or is of a kind that has no capture link type. */
  get present(): Link | null {
    return this.link;
  }

  get attributes(): InterfaceAttributes | null {
    const link = this.link;
    if (link === null) return null;
    return {
      index: link.index,
      linkType: pcapLinkType(link) ?? PCAP_ETHERNET,
      address: link.address,
      mtu: link.mtu,
      operstate: link.operstate,
      flags: link.flags,
      speed: link.speed,
      inet: [...link.inet],
      inet6: [...link.inet6],
      routes: [...this.routes],
    };
  }

  /** The link appeared or changed. */
  update(link: Link): void {
    const pcap = pcapLinkType(link);
    if (pcap === null) {
      this.gone();
      return;
    }
    this.own = ownAddresses(link);
    const linkType = linkTypeOf(pcap);
    if (this.link?.index === link.index && this.linkType === linkType) {
      this.link = link;
      this.receiver?.setOwn(this.own);
      return;
    }
    this.gone();
    this.linkType = linkType;
    this.link = link;
    this.onLinkType(linkType);
    this.open(link);
  }

  private open(link: Link): void {
    const { counters, log } = this;
    try {
      this.transmitter = new InterfaceTransmitter(new PacketTransmitter(link.index), counters, this.result);
      if (this.linkType === 'ethernet') {
        const { neighbours, nextHop } = this.kernel;
        const { transmitter } = this;
        const now = (): number => performance.now();
        this.tun = new TunSender({ ifindex: link.index, transmitter, counters, neighbours, nextHop, now, log });
      }
      this.receiver = new InterfaceReceiver({
        open: (sink) => new PacketReceiver(link.index, sink),
        linkType: this.linkType,
        rules: this.rules,
        flows: this.flows,
        resets: this.resets,
        own: this.own,
        counters: this.counters,
        onFailed: (errno) => this.log.debug({ interface: this.name, errno }, 'packet socket reports an error'),
      });
    } catch (error) {
      // Mostly the link went away between the netlink message and here; else its next change tries again.
      this.log.warn({ interface: this.name, error: describe(error) }, 'cannot open the interface');
      this.gone();
    }
  }

  gone(): void {
    this.resets.close();
    this.raw.close();
    this.receiver?.close();
    this.receiver = null;
    this.tun?.close();
    this.tun = null;
    this.transmitter?.close(ENETDOWN);
    this.transmitter = null;
    this.link = null;
  }

  ruleAdded(rule: Rule): void {
    this.receiver?.ruleAdded(rule);
  }

  ruleRemoved(rule: Rule): void {
    this.receiver?.ruleRemoved(rule);
  }

  collectDrops(): void {
    this.receiver?.collectDrops();
  }
}
