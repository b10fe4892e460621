/**
 * The link between a control device and a forwarder: where packets of a virtual IP address cross, converted and not
 * encapsulated. Both devices must be on it, so that the forwarder's kernel can send by the one's own address, and this one
 * can tell the forwarder by its link layer address.
 */
import { isIP } from 'node:net';
import { FwdfsError, SystemError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { parseIpv4, parseIpv6 } from '../packet/ip-address.js';
import { ARPHRD, type Link, LinkMonitor } from '../sys/links.js';
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
  log: Logger,
): VipLink {
  const { remoteAddress } = state;
  const { ifindex, gateway, isLocal } = routeTo(requests, remoteAddress);
  if (isLocal) throw new FwdfsError('not-on-link', 'the forwarder is on this host');
  if (gateway !== null) throw new FwdfsError('not-on-link', `the forwarder at ${remoteAddress} is behind a gateway`);
  const link = linkOf(ifindex, log);
  if (link?.type !== ARPHRD.ETHER) throw new FwdfsError('not-on-link', `${remoteAddress} is not on an Ethernet link`);
  const address = ownAddress(link, state, family);
  if (address === undefined) throw new FwdfsError('not-on-link', `${link.name} has no IPv${family} address`);
  return { ifindex, device: link.name, address, mac: link.address };
}

function routeTo(requests: RouteRequests, remoteAddress: string): RouteAnswer {
  const zone = remoteAddress.indexOf('%');
  const bytes = parseIpv4(remoteAddress) ?? parseIpv6(zone < 0 ? remoteAddress : remoteAddress.slice(0, zone));
  if (bytes === null) throw new FwdfsError('not-on-link', 'the forwarder is reached by no IP address');
  try {
    return requests.routeTo(bytes, 0);
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    throw new FwdfsError('not-on-link', `there is no route to ${remoteAddress}`, { cause: error });
  }
}

function linkOf(ifindex: number, log: Logger): Link | undefined {
  const monitor = new LinkMonitor(log);
  try {
    monitor.start();
    return monitor.links().get(ifindex);
  } finally {
    monitor.close();
  }
}

/** That of the connection if it is of the family; else an IPv4 address of the link, or its link-local IPv6 address. */
function ownAddress(
  link: Link,
  { localAddress }: Pick<ClientState, 'localAddress'>,
  family: 4 | 6,
): string | undefined {
  if (isIP(localAddress) === family && !localAddress.includes('%')) return localAddress;
  const prefixes = family === 4 ? link.inet : link.inet6.filter((prefix) => prefix.startsWith('fe80:'));
  return prefixes[0]?.split('/')[0];
}
