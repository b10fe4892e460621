/**
 * The device of a virtual IF: a TAP or TUN that looks like the forwarder's interface, in the network namespace of choice.
 *
 *     create: TUN/TAP (down), alias ──► sysctls ──► nft table: nothing comes in ──► rules `oif`
 *     apply:  attributes ──mirrorState──► difference to what is there ──► link, addresses, routes, rules
 *     remove: rules, nft table; the device takes its addresses and routes along, as it does in a crash
 *
 * Only differences go to the kernel. A request that it refuses is logged, and tried again with the next change: an address
 * that can't be had must not take the others along. When someone else takes the device down and up, what the kernel forgot
 * comes back.
 */
import { constants } from 'node:os';
import { describe, FwdfsError, SystemError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import type { ProtocolAddress } from '../packet/protocol-address.js';
import { inNetns } from '../sys/netns.js';
import { LinkWatch } from '../sys/link-watch.js';
import { RouteRequests } from '../sys/route-requests.js';
import { TunDevice } from '../sys/tun.js';
import type { Attributes, VifKind } from '../tunnel/messages.js';
import { VifAdmission } from './vif-admission.js';
import { broadcastOf, deviceRules, emptyState, IPV6_MIN_MTU, type MirrorState, mirrorState } from './vif-state.js';
import { vifAlias } from './vif-alias.js';
import { dropRulesOf, sweepVifs } from './vif-sweep.js';
import { setSysctls } from './vif-sysctls.js';

export { sweepVifs } from './vif-sweep.js';

export interface VifMirrorOptions {
  /** Name of the control device. */
  readonly control: string;
  /** fwd1/eth0 */
  readonly symbol: string;
  /** Of the device. */
  readonly name: string;
  readonly kind: VifKind;
  /** Name or path of a network namespace; '' is the process's own. */
  readonly netns: string;
  /** Everything that leaves the namespace may go through it: it is not the control device's own. */
  readonly apart: boolean;
  readonly log: Logger;
}

/** As dev_valid_name of the kernel, and without `%`, which would have it choose a number. */
const DEVICE_NAME = /^(?!\.{1,2}$)[^\s/:%"\p{Cc}]{1,15}$/u;
/** Frames that wait in the device while the tunnel has no credit; the kernel drops what is beyond it. */
const QUEUE_FRAMES = 4096;

const { EBUSY, ENOENT, ENXIO } = constants.errno;

export class VifMirror {
  readonly device: TunDevice;
  private readonly options: VifMirrorOptions;
  private readonly requests: RouteRequests;
  private readonly admission: VifAdmission;
  private readonly watch: LinkWatch;
  /** What is on the device now. */
  private readonly state = emptyState();
  private wanted: Attributes | null = null;

  private constructor(options: VifMirrorOptions, device: TunDevice, requests: RouteRequests, admission: VifAdmission) {
    this.options = options;
    this.device = device;
    this.requests = requests;
    this.admission = admission;
    this.watch = inNetns(options.netns, () => new LinkWatch(device.ifindex, (up) => this.linkChanged(up)));
  }

  /**
   * Makes the device, down and without addresses, and lets nothing in through it.
   *
   * @throws FwdfsError already-there, bad-command for what is no name, host-lacks; SystemError. Nothing is left then
   */
  static async create(options: VifMirrorOptions): Promise<VifMirror> {
    const { control, symbol, name, kind, netns } = options;
    if (!DEVICE_NAME.test(name)) {
      throw new FwdfsError('bad-command', `${JSON.stringify(name)} is no name of a device (1 to 15 characters)`);
    }
    let device: TunDevice | undefined;
    let requests: RouteRequests | undefined;
    try {
      if (netns !== '') await sweepVifs(options.log, netns);
      [device, requests] = inNetns(netns, () => {
        const made = (device = makeDevice(name, kind));
        const asking = (requests = new RouteRequests());
        asking.setLink(made.ifindex, { alias: vifAlias(control, symbol), queueLength: QUEUE_FRAMES });
        // The forwarder's interface is not known yet; operstate is `up` only after a carrier that came.
        made.setCarrier(false);
        setSysctls(name);
        dropRulesOf(asking, made.ifindex);
        return [made, asking];
      });
      const admission = await VifAdmission.create(control, name, netns);
      for (const rule of deviceRules({ name, ifindex: device.ifindex }).values()) requests.addRule(rule);
      return new VifMirror(options, device, requests, admission);
    } catch (error) {
      if (device !== undefined && requests !== undefined) dropRulesOf(requests, device.ifindex);
      requests?.close();
      device?.close();
      await device?.gone;
      throw error;
    }
  }

  /** As applied last, 4 or 16 bytes each. */
  get addresses(): readonly Buffer[] {
    return Array.from(this.state.addresses.values(), ({ address }) => address);
  }

  /** At what its sockets receive: its addresses, and the broadcast addresses of their IPv4 prefixes. */
  get receiving(): readonly Buffer[] {
    const broadcasts = Array.from(this.state.addresses.values(), broadcastOf).filter((address) => address !== null);
    return [...this.addresses, ...broadcasts];
  }

  /** Makes the device what the forwarder's interface is; null: it is not there now (carrier off, nothing else changes). */
  apply(attributes: Attributes | null): void {
    this.wanted = attributes;
    if (attributes === null) {
      this.setCarrier(false);
      return;
    }
    const { requests, state } = this;
    const { apart, name, kind } = this.options;
    const { ifindex } = this.device;
    const next = mirrorState(attributes, { name, ifindex, kind, apart });
    this.drop(state.routes, next.routes, (route) => requests.removeRoute(route));
    this.drop(state.rules, next.rules, (rule) => requests.removeRule(rule));
    this.drop(state.addresses, next.addresses, (address) => requests.removeAddress(ifindex, address));
    this.setLink(next);
    this.add(state.addresses, next.addresses, (address) => requests.addAddress(ifindex, address));
    // Everything that keeps the kernel quiet is in place before it is up; routes need a device that is.
    if (next.up !== state.up && this.attempt('up', () => requests.setLink(ifindex, { up: next.up })))
      state.up = next.up;
    this.setCarrier(next.carrier);
    this.add(state.routes, next.routes, (route) => requests.addRoute(route));
    this.add(state.rules, next.rules, (rule) => requests.addRule(rule));
  }

  /** Lets in what is for this protocol address, until it was refused as often. Kind `ip` only: packet sockets see all. */
  admit(protocol: ProtocolAddress): void {
    this.attempt(protocol.text, () => this.admission.admit(protocol));
  }

  refuse(protocol: ProtocolAddress): void {
    this.attempt(protocol.text, () => this.admission.refuse(protocol));
  }

  /** Takes the device away with all that belongs to it. */
  async remove(): Promise<void> {
    this.watch.close();
    this.device.close();
    await this.device.gone;
    this.attempt('rules', () => dropRulesOf(this.requests, this.device.ifindex));
    this.requests.close();
    await this.admission.remove();
  }

  private setLink({ mac, mtu }: MirrorState): void {
    const { state } = this;
    const { ifindex } = this.device;
    if (mac !== null && state.mac?.equals(mac) !== true) {
      if (this.attempt('address', () => this.requests.setLink(ifindex, { address: mac }))) state.mac = mac;
    }
    if (mtu === state.mtu) return;
    const hasIpv6Again = state.mtu < IPV6_MIN_MTU && mtu >= IPV6_MIN_MTU;
    // IPv6 begins anew on the device, with the settings that every new device has; it must not be up before it has ours.
    if (hasIpv6Again && this.attempt('down', () => this.requests.setLink(ifindex, { up: false }))) this.forget();
    if (this.attempt('mtu', () => this.requests.setLink(ifindex, { mtu }))) state.mtu = mtu;
    if (hasIpv6Again) this.attempt('sysctls', () => inNetns(this.options.netns, () => setSysctls(this.options.name)));
  }

  private setCarrier(on: boolean): void {
    if (on === this.state.carrier) return;
    if (this.attempt('carrier', () => this.device.setCarrier(on))) this.state.carrier = on;
  }

  /** Takes away what is not wanted any more, and what is wanted with another source. */
  private drop<T>(there: Map<string, T>, wanted: ReadonlyMap<string, T>, remove: (item: T) => void): void {
    for (const [text, item] of there) {
      if (!wanted.has(text) && this.attempt(text, () => remove(item))) there.delete(text);
    }
  }

  private add<T>(there: Map<string, T>, wanted: ReadonlyMap<string, T>, add: (item: T) => void): void {
    for (const [text, item] of wanted) {
      if (!there.has(text) && this.attempt(text, () => add(item))) there.set(text, item);
    }
  }

  /** @returns whether the kernel did it */
  private attempt(what: string, request: () => void): boolean {
    try {
      request();
      return true;
    } catch (error) {
      this.options.log.warn({ vif: this.options.name, what, error: describe(error) }, 'the kernel refused a setting');
      return false;
    }
  }

  /** Someone else took the device down or up: what it lost comes back with it, as on a real interface. */
  private linkChanged(up: boolean): void {
    if (up === this.state.up) return;
    if (!up) {
      this.forget();
      return;
    }
    this.state.up = true;
    if (this.wanted !== null) this.apply(this.wanted);
  }

  /** The device is down, and the kernel has forgotten its routes and IPv6 addresses. */
  private forget(): void {
    const { state } = this;
    state.up = false;
    state.routes.clear();
    for (const [text, { address }] of state.addresses) if (address.length === 16) state.addresses.delete(text);
  }
}

/** @throws FwdfsError already-there, host-lacks; SystemError */
function makeDevice(name: string, kind: VifKind): TunDevice {
  try {
    return new TunDevice(name, kind);
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    if (error.errno === EBUSY) throw new FwdfsError('already-there', `a device ${name}`, { cause: error });
    if (error.errno !== ENOENT && error.errno !== ENXIO) throw error;
    throw new FwdfsError('host-lacks', 'there is no /dev/net/tun', { cause: error });
  }
}
