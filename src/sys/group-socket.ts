/**
 * Membership in one multicast group on one interface, as long as the socket is open. The kernel of the socket's network
 * namespace reports it (IGMP, MLD), and the interface receives the group. One socket each: a socket may be in few groups.
 */
import { must, O, sys } from './libc.js';

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_DGRAM = 2;
const IPPROTO_IP = 0;
const IPPROTO_IPV6 = 41;
const IP_ADD_MEMBERSHIP = 35;
const IPV6_ADD_MEMBERSHIP = 20;
const IPV4_ADDRESS_BYTES = 4;

/** @param group 4 or 16 bytes @returns the descriptor, whose closing leaves the group @throws SystemError */
export function joinGroup(ifindex: number, group: Buffer): number {
  const index = Buffer.alloc(4);
  index.writeInt32LE(ifindex, 0);
  const isIpv4 = group.length === IPV4_ADDRESS_BYTES;
  const fd = must('socket', sys.socket(isIpv4 ? AF_INET : AF_INET6, SOCK_DGRAM | O.CLOEXEC, 0));
  try {
    if (isIpv4) {
      const request = Buffer.concat([group, Buffer.alloc(4), index]);
      must('setsockopt(IP_ADD_MEMBERSHIP)', sys.setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, request));
    } else {
      const request = Buffer.concat([group, index]);
      must('setsockopt(IPV6_ADD_MEMBERSHIP)', sys.setsockopt(fd, IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, request));
    }
  } catch (error) {
    sys.close(fd);
    throw error;
  }
  return fd;
}
