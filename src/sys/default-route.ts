/**
 * Whether an address is reached by a default route only, asked of the kernel: it then names the route that it found, with its
 * prefix, instead of the way to the one address (RTM_F_FIB_MATCH).
 */
import { Netlink } from './netlink.js';
import { attribute, decode, encode, RTA, RTM, RTMSG } from './rtnetlink.js';

const RTM_F_FIB_MATCH = 0x2000;
const AF_INET = 2;
const AF_INET6 = 10;

/** In the network namespace of the thread. @throws SystemError also where there is no route */
export function isByDefaultRoute(address: Buffer): boolean {
  const netlink = new Netlink();
  let prefixLength = 0;
  const header = {
    family: address.length === 4 ? AF_INET : AF_INET6,
    destinationLength: 8 * address.length,
    flags: RTM_F_FIB_MATCH,
  };
  try {
    const body = Buffer.concat([encode(RTMSG, header), attribute(RTA.DST, address)]);
    netlink.query(RTM.GETROUTE, 0, body, ({ type, body: said }) => {
      if (type === RTM.NEWROUTE) prefixLength = decode(RTMSG, said)?.destinationLength ?? 0;
    });
  } finally {
    netlink.close();
  }
  return prefixLength === 0;
}
