/**
 * Whether a sender address is nobody's. What is on the way to or from it is dropped or converted from the registration on, so
 * that of a host would be cut off.
 *
 *     no host has it      loopback, multicast, reserved, IPv6 link-local             -> bad-message
 *     of this host        its addresses, the networks and broadcasts of its links    -> address-in-use
 *     of a session        where a control device comes from                          -> address-in-use
 *     on a link           the kernel asks there (ARP, ND), and somebody answers      -> address-in-use
 *
 * Behind a gateway nobody can be asked.
 */
import { FwdfsError, SystemError } from '../base/errors.js';
import { addressText, IPV4_ADDRESS_BYTES, isLinkLocalIpv6, parseIpAddress } from '../packet/ip-address.js';
import { isByDefaultRoute } from '../sys/default-route.js';
import type { RouteAnswer, RouteRequests } from '../sys/route-requests.js';
import type { NeighbourTable } from './neighbours.js';
import type { Peer } from './peer.js';
import type { Registration } from './vip-registrations.js';

/** For whom an address is looked at. */
type Asked = Pick<Registration, 'peer' | 'vip' | 'sender'>;

/** 0/8, 127/8, 224/4 and 240/4; ::/80 with loopback, link-local and multicast addresses. */
export function isNoHost(address: Buffer): boolean {
  const [first = 0] = address;
  if (address.length === IPV4_ADDRESS_BYTES) return first === 0 || first === 127 || first >= 224;
  const isEmbedded = address.subarray(0, 10).every((byte) => byte === 0);
  return isEmbedded || first === 0xff || isLinkLocalIpv6(address);
}

/** Whether it is the first or the last address of a network of IPv4. */
function isEndOf(address: Buffer, own: Buffer, prefixLength: number): boolean {
  if (address.length !== IPV4_ADDRESS_BYTES || own.length !== IPV4_ADDRESS_BYTES || prefixLength > 30) return false;
  const hosts = 2 ** (32 - prefixLength);
  const [one, other] = [address.readUInt32BE(0), own.readUInt32BE(0)];
  return Math.floor(one / hosts) === Math.floor(other / hosts) && (one % hosts === 0 || one % hosts === hosts - 1);
}

export class SenderSearch {
  private readonly neighbours: Pick<NeighbourTable, 'resolve'>;
  private readonly peers: () => Iterable<Peer>;
  private readonly asked = new Set<Asked>();

  /** @param peers all that have a session */
  constructor(neighbours: Pick<NeighbourTable, 'resolve'>, peers: () => Iterable<Peer>) {
    this.neighbours = neighbours;
    this.peers = peers;
  }

  /**
   * Takes up to NEIGHBOUR_TIMEOUT_MS.
   * @throws FwdfsError bad-message, address-in-use, no-such-vip when it was ended meanwhile; SystemError
   */
  async requireNobodys(asked: Asked, routes: RouteRequests): Promise<void> {
    this.asked.add(asked);
    try {
      await this.look(asked.sender, routes);
      if (!this.asked.has(asked)) throw new FwdfsError('no-such-vip', `${addressText(asked.vip)} was taken back`);
    } finally {
      this.asked.delete(asked);
    }
  }

  /** Nobody wants these any more. */
  end(peer: Peer, vip?: Buffer): void {
    for (const one of this.asked) {
      if (peer === one.peer && (vip ?? one.vip).equals(one.vip)) this.asked.delete(one);
    }
  }

  close(): void {
    this.asked.clear();
  }

  private async look(sender: Buffer, routes: RouteRequests): Promise<void> {
    const text = addressText(sender);
    const inUse = (what: string): FwdfsError => new FwdfsError('address-in-use', `${text} ${what}`);
    if (isNoHost(sender)) throw new FwdfsError('bad-message', `${text} can't stand for a control device`);
    const isOwn = routes
      .addresses(0)
      .some(({ address, prefixLength }) => address.equals(sender) || isEndOf(sender, address, prefixLength));
    if (isOwn) throw inUse('is an address of the forwarder, or of a network there');
    for (const { address, identity } of this.peers()) {
      if (bytesOf(address)?.equals(sender) === true) throw inUse(`is where ${identity} connects from`);
    }
    const way = wayTo(routes, sender);
    if (way === null) return;
    if (!way.isUnicast) throw inUse("is no single host's");
    if (way.gateway !== null || isByDefaultRoute(sender)) return;
    if ((await this.neighbours.resolve(way.ifindex, sender)) !== null)
      throw inUse('answers on a link of the forwarder');
  }
}

function bytesOf(text: string): Buffer | null {
  const [bare = ''] = text.split('%');
  return parseIpAddress(bare);
}

/** null: none, or one that leads nowhere. */
function wayTo(routes: RouteRequests, address: Buffer): RouteAnswer | null {
  try {
    return routes.routeTo(address, 0);
  } catch (error) {
    if (error instanceof SystemError) return null;
    throw error;
  }
}
