/**
 * A virtual IF: virtual IF 222 (Fig. 1), virtual IF 43 with its management section 42 (Fig. 24). A TUN or TAP device that
 * mirrors an interface of a forwarder, and the two ways between its sockets and that interface.
 *
 *     socket --> kernel --> TunDevice --frame()--> its own ARP, NS --> VifNeighbours (answered here)
 *                                             \--> IGMP, MLD -------> VifGroups     (joined at the forwarder)
 *                                              \-> the rest --------> DownTunnel    (S701 to S704, S1201 to S1204)
 *     socket <-- kernel <-- TunDevice <--deliver()-- UpTunnels: the way back of its flows, and the rules of its sockets
 *
 * Owns the device, its down tunnel and the way back; VifRules owns what its sockets want. A lost connection changes nothing
 * on the device until the session is lost too: then it has no carrier. While there is no credit the device is not read.
 */
import { C, type Counters } from '../base/counters.js';
import { MAX_FRAME_BYTES, UP_CREDIT_BYTES } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { FrameView, type LinkType } from '../packet/headers.js';
import { membershipOf } from '../packet/membership.js';
import { IPPROTO_UDP } from '../packet/protocol-address.js';
import { VNET_HEADER_BYTES } from '../packet/virtio.js';
import type { TunSink } from '../sys/tun.js';
import type { Attributes, VifKind } from '../tunnel/messages.js';
import type { DownTunnel, VifEnd } from './down-tunnel.js';
import type { ForwarderLink } from './forwarder-link.js';
import type { ReceptionTable } from './tables.js';
import { FLOWS, type FrameReader, type OwnerFields, type RuleOwner, UpTunnel } from './up-tunnel.js';
import { VifGroups } from './vif-groups.js';
import type { VifMirror } from './vif-mirror.js';
import { VifNeighbours } from './vif-neighbours.js';

/** How long a frame waits for the rule of its port: longer than a rule takes to be set, as a rule. */
const EARLY_FRAME_MS = 30;
const MAX_UNSERVED_PORTS = 1024;

/** A frame that waits for the rule of the port that it comes from. */
interface EarlyFrame {
  /** Its virtio_net_hdr, then the frame. */
  readonly bytes: Buffer;
  readonly port: number;
  readonly timer: NodeJS.Timeout;
}

/** UDP to a group or to all: 224.0.0.0/4, 255.255.255.255, ff00::/8. */
function isQuestionToMany(view: FrameView, buf: Buffer): boolean {
  if (view.protocol !== IPPROTO_UDP || view.sourcePort < 1) return false;
  const first = buf[view.destinationOffset] ?? 0;
  return view.ipVersion === 4 ? first >= 224 : first === 0xff;
}

export interface VifOptions {
  readonly link: ForwarderLink;
  readonly interface: string;
  readonly kind: VifKind;
  readonly mirror: VifMirror;
  readonly reception: ReceptionTable;
  /** Those of the remote interface. */
  readonly counters: Counters;
  readonly log: Logger;
}

export class Vif implements TunSink, FrameReader, VifEnd, RuleOwner {
  readonly mode = 'socket';
  readonly options: VifOptions;
  /** Name of the device. */
  readonly symbol: string;
  readonly groups: VifGroups;
  readonly neighbours: VifNeighbours;
  /** The forwarder has its tunnel, or has it anew: its rules can be set. */
  onEstablished: () => void = () => undefined;
  /** The device is gone: someone else took it away. */
  onFailed: () => void = () => undefined;
  /** The forwarder withdrew it: it has no right, or the interface is of another kind. */
  isWithdrawn = false;
  /** Whether a rule brings what comes to this UDP port. */
  isServed: (port: number) => boolean = () => true;
  framesIn = 0;
  framesOut = 0;
  private readonly view = new FrameView();
  private readonly linkType: LinkType;
  private wayBack: UpTunnel;
  private down: DownTunnel | null = null;
  private early: EarlyFrame | null = null;
  /** A port that is served: what sends there often is not looked up each time. */
  private servedPort = -1;
  /** Ports that no rule came for in time. */
  private readonly unserved = new Set<number>();

  constructor(options: VifOptions) {
    const { kind, link, mirror } = options;
    this.options = options;
    this.symbol = mirror.device.name;
    this.linkType = kind === 'tap' ? 'ethernet' : 'raw';
    this.neighbours = new VifNeighbours(mirror.device, (address) => link.neighbour(options.interface, address));
    this.groups = new VifGroups((verb, group) => link.group(verb, this.id, group), options.log);
    this.wayBack = this.makeWayBack();
  }

  private makeWayBack(): UpTunnel {
    const { counters, interface: name, link } = this.options;
    const key = { interface: name, protocol: FLOWS, scope: 'in', claim: false, owner: this } as const;
    const wayBack = new UpTunnel(key, link.name, counters);
    wayBack.addReader(this);
    return wayBack;
  }

  /** Resolves when the forwarder has its tunnel and packets go both ways. */
  async start(): Promise<void> {
    const { device } = this.options.mirror;
    await this.connect();
    device.sink = this;
    device.start();
  }

  private async connect(): Promise<void> {
    const { interface: name, link } = this.options;
    const down = await link.acquireVif(name, this.symbol, this);
    this.down = down;
    down.wake = this.wake;
    this.established();
  }

  /** After it was withdrawn: asks for it anew. */
  async renew(): Promise<void> {
    const { link } = this.options;
    if (this.down !== null) link.releaseDown(this.down);
    this.down = null;
    this.wayBack = this.makeWayBack();
    await this.connect();
    this.isWithdrawn = false;
    this.established();
    this.wake();
  }

  /** Of its down tunnel: how the forwarder knows it; 0: it does not now. */
  get id(): number {
    return this.isWithdrawn ? 0 : (this.down?.id ?? 0);
  }

  get isKnown(): boolean {
    return this.id !== 0;
  }

  ruleFields(): OwnerFields {
    return { vif: this.id };
  }

  /** The interface may be another than before. @param attributes null: it is not there, or nobody knows */
  interfaceIs(attributes: Attributes | null): void {
    this.options.mirror.apply(this.id === 0 ? null : attributes);
  }

  // --- VifEnd ---

  request(): ReturnType<VifEnd['request']> {
    const { kind, reception } = this.options;
    reception.remove(this.wayBack.id);
    this.wayBack.id = reception.allocate();
    reception.add(this.wayBack);
    this.wayBack.asked();
    return { kind, upTunnel: this.wayBack.id, credit: UP_CREDIT_BYTES };
  }

  established(): void {
    // The first time it comes before `start` knows the tunnel.
    if (this.id === 0) return;
    this.wayBack.state = 'set';
    this.setActive(true);
    this.groups.joinAll();
    this.options.link.ownerFound(this);
    this.onEstablished();
  }

  resumed(sent: ReadonlyMap<number, number>): void {
    this.wayBack.resumed(sent.get(this.wayBack.id) ?? 0);
    this.setActive(true);
  }

  disconnected(): void {
    this.setActive(false);
  }

  private setActive(active: boolean): void {
    this.wayBack.active = active;
    this.options.reception.changes.tell();
  }

  /** Credit came back, or the tunnel was lost with its session. */
  private readonly wake = (): void => {
    if (this.hasRoom) this.options.mirror.device.resume();
    else if (this.id === 0) this.options.mirror.apply(null);
  };

  // --- TunSink: what leaves ---

  get hasRoom(): boolean {
    return this.early === null && this.down?.hasCredit(MAX_FRAME_BYTES) === true;
  }

  frame(buf: Buffer, vnet: number, offset: number, length: number): void {
    const { counters } = this.options;
    const { view } = this;
    if (!view.parse(buf, offset, length, this.linkType)) {
      counters.add(C.drop_vif_malformed, 1);
      return;
    }
    if (this.linkType === 'ethernet' && this.neighbours.handle(buf, offset, length, view)) return;
    if (membershipOf(buf, view, this.groups.report)) return;
    if (isQuestionToMany(view, buf) && !this.hasRule(view.sourcePort)) this.hold(buf, vnet, offset, length);
    else this.send(buf, vnet, offset, length);
  }

  private send(buf: Buffer, vnet: number, offset: number, length: number): void {
    const { counters } = this.options;
    this.framesOut += 1;
    counters.add(C.control_tx_frames, 1);
    counters.add(C.control_tx_bytes, length);
    if (this.down?.send(buf, offset, length, vnet) !== true) counters.add(C.drop_vif_no_credit, 1);
  }

  private hasRule(port: number): boolean {
    if (port === this.servedPort || this.unserved.has(port)) return true;
    if (!this.isServed(port)) return false;
    this.servedPort = port;
    return true;
  }

  /**
   * Who asks many (RIP, DHCP, mDNS) opens no flow: the answers come to its port, and its rule is about to be set. The
   * device is not read meanwhile, so everything keeps its order.
   */
  private hold(buf: Buffer, vnet: number, offset: number, length: number): void {
    const bytes = Buffer.alloc(VNET_HEADER_BYTES + length);
    buf.copy(bytes, 0, vnet, vnet + VNET_HEADER_BYTES);
    buf.copy(bytes, VNET_HEADER_BYTES, offset, offset + length);
    const port = this.view.sourcePort;
    const timer = setTimeout(() => {
      if (this.unserved.size >= MAX_UNSERVED_PORTS) this.unserved.clear();
      this.unserved.add(port);
      this.letGo();
    }, EARLY_FRAME_MS);
    this.early = { bytes, port, timer };
  }

  private letGo(): void {
    if (this.early === null) return;
    const { bytes, timer } = this.early;
    clearTimeout(timer);
    this.early = null;
    this.send(bytes, 0, VNET_HEADER_BYTES, bytes.length - VNET_HEADER_BYTES);
    this.down?.flush();
    this.wake();
  }

  /** Rules of its sockets came or went. */
  rulesChanged(): void {
    this.servedPort = -1;
    if (this.early !== null && this.isServed(this.early.port)) this.letGo();
  }

  batchEnd(): void {
    this.down?.flush();
  }

  failed(errno: number): void {
    this.options.log.warn({ vif: this.symbol, errno }, 'the device of a virtual IF is gone');
    this.onFailed();
  }

  // --- FrameReader: what arrives ---

  deliver(buf: Buffer, offset: number, length: number, vnet: number): void {
    this.framesIn += 1;
    if (this.options.mirror.device.write(buf, vnet, offset, length) < 0) {
      this.options.counters.add(C.drop_vif_refused, 1);
    }
  }

  /** It was withdrawn: no carrier. */
  end(): void {
    if (this.wayBack.failure === null) return;
    this.isWithdrawn = true;
    this.options.mirror.apply(null);
  }

  /** Nothing of it is left, here and at the forwarder. */
  async remove(): Promise<void> {
    const { link, mirror, reception } = this.options;
    clearTimeout(this.early?.timer);
    this.early = null;
    this.wayBack.removeReader(this);
    reception.remove(this.wayBack.id);
    if (this.down !== null) link.releaseDown(this.down);
    await mirror.remove();
  }
}
