/**
 * The link between a control device and a forwarder: where packets of a virtual IP address cross, converted and not
 * encapsulated. Both devices must be on it, so that the forwarder's kernel can send by the one's own address, and this one
 * can tell the forwarder by its link layer address.
 */
import { isIP } from 'node:net';
import { FwdfsError, SystemError } from '../base/errors.js';
import { addressText, isLinkLocalIpv6, parseIpAddress } from '../packet/ip-address.js';
import { formatMac } from '../packet/mac-address.js';
import { ifNameToIndex } from '../sys/libc.js';
import type { RouteAnswer, RouteRequests } from '../sys/route-requests.js';
import type { ClientState } from '../tunnel/client.js';

/** The control device's end of it. */
export interface VipLink {
  readonly ifindex: number;
  readonly device: string;
  /** Its address there, of the family of the virtual IP address. */
  readonly address: string;
  readonly mac: string;
}

/**
 * The link of a connection, in the network namespace of the thread.
 *
 * @param state of the connection @param family of the virtual IP address
 * @throws FwdfsError not-on-link; SystemError
 */
export function vipLink(
  requests: RouteRequests,
  state: Pick<ClientState, 'localAddress' | 'remoteAddress'>,
  family: 4 | 6,
): VipLink {
  const { remoteAddress } = state;
  const { ifindex, gateway, isLocal } = routeTo(requests, remoteAddress);
  if (isLocal) throw new FwdfsError('not-on-link', 'the forwarder is on this host');
  if (gateway !== null) throw new FwdfsError('not-on-link', `the forwarder at ${remoteAddress} is behind a gateway`);
  const device = requests.device(ifindex);
  const mac = device?.mac ?? null;
  if (device === null || mac === null) throw new FwdfsError('not-on-link', `${remoteAddress} is on no Ethernet link`);
  const address = ownAddress(requests, ifindex, state, family);
  if (address === undefined) throw new FwdfsError('not-on-link', `${device.name} has no IPv${family} address`);
  return { ifindex, device: device.name, address, mac: formatMac(mac) };
}

function routeTo(requests: RouteRequests, remoteAddress: string): RouteAnswer {
  const [text = '', zone = ''] = remoteAddress.split('%');
  const bytes = parseIpAddress(text);
  if (bytes === null) throw new FwdfsError('not-on-link', 'the forwarder is reached by no IP address');
  try {
    return requests.routeTo(bytes, 0, zone === '' ? 0 : ifNameToIndex(zone));
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    throw new FwdfsError('not-on-link', `there is no route to ${remoteAddress}`, { cause: error });
  }
}

/** That of the connection if it is of the family; else an IPv4 address of the device, or its link-local IPv6 address. */
function ownAddress(
  requests: RouteRequests,
  ifindex: number,
  { localAddress }: Pick<ClientState, 'localAddress'>,
  family: 4 | 6,
): string | undefined {
  if (isIP(localAddress) === family && !localAddress.includes('%')) return localAddress;
  const addresses = requests.addresses(ifindex).map(({ address }) => address);
  const found = addresses.find((one) => (family === 4 ? one.length === 4 : isLinkLocalIpv6(one)));
  return found === undefined ? undefined : addressText(found);
}
