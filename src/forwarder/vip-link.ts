/**
 * The link between the forwarder and a control device that has a virtual IP address: both are on it, without a gateway in
 * between, since what is converted goes from one kernel to the other as it is.
 *
 *     the session's remote address --route--> LINK         the control device's next hop --route--> on LINK too
 *                                                              its source: the forwarder's own address there
 *
 *     SENDER/32 or /128 via the control device's next hop dev LINK, in main, with our protocol: SENDER is on no interface,
 *     so nobody is asked for it
 */
import { FwdfsError, SystemError } from '../base/errors.js';
import { IPV4_ADDRESS_BYTES, isLinkLocalIpv6, parseIpAddress } from '../packet/ip-address.js';
import { ifNameToIndex } from '../sys/libc.js';
import { MAIN_TABLE, type RouteAnswer, type RouteRequests, type RouteSpec } from '../sys/route-requests.js';

export interface VipLink {
  readonly ifindex: number;
  readonly name: string;
  /** The forwarder's on it. */
  readonly mac: Buffer;
  /** The forwarder's address on it, of the virtual IP address' family. */
  readonly address: Buffer;
}

/**
 * @param remote where the control device's session comes from, a zone included
 * @param nextHop the control device's address on the link, of the virtual IP address' family
 * @throws FwdfsError not-on-link
 */
export function findLink(requests: RouteRequests, remote: string, nextHop: Buffer): VipLink {
  const [text = '', zone = ''] = remote.split('%');
  const address = parseIpAddress(text);
  if (address === null) throw new FwdfsError('not-on-link', 'the control device is not reached by IP');
  const way = onLinkWay(requests, address, () => (zone === '' ? 0 : ifNameToIndex(zone)));
  const hop = onLinkWay(requests, nextHop, () => (isLinkLocalIpv6(nextHop) ? way.ifindex : 0));
  const device = requests.device(way.ifindex);
  if (hop.ifindex !== way.ifindex || device === null) {
    throw new FwdfsError('not-on-link', 'the next hop of the control device is on another link than its session');
  }
  if (device.mac === null || hop.source === null) {
    throw new FwdfsError('not-on-link', `${device.name} has no link layer, or no address of this family`);
  }
  return { ifindex: way.ifindex, name: device.name, mac: device.mac, address: hop.source };
}

/** @param through the index of the interface that it has to leave by */
function onLinkWay(requests: RouteRequests, address: Buffer, through: () => number): RouteAnswer {
  let way: RouteAnswer;
  try {
    way = requests.routeTo(address, 0, through());
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    throw new FwdfsError('not-on-link', 'there is no route to the control device', { cause: error });
  }
  if (way.gateway === null && way.ifindex !== 0) return way;
  throw new FwdfsError('not-on-link', 'the control device is behind a gateway');
}

/** The route by which converted packets leave. */
export function senderRoute(sender: Buffer, nextHop: Buffer, { ifindex }: Pick<VipLink, 'ifindex'>): RouteSpec {
  return {
    family: sender.length === IPV4_ADDRESS_BYTES ? 4 : 6,
    destination: sender,
    prefixLength: 8 * sender.length,
    gateway: nextHop,
    onlink: true,
    ifindex,
    table: MAIN_TABLE,
    metric: 0,
    source: null,
  };
}

/** Takes away what leads to a sender address, whoever of us set it. @throws SystemError */
export function dropSenderRoutes(requests: RouteRequests, sender: Buffer): void {
  requests.flushTable(MAIN_TABLE, sender);
}
