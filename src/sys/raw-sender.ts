/**
 * Sends whole IP packets of any source address: raw sockets with IP_HDRINCL and IPV6_HDRINCL. The kernel finds the way and
 * the neighbour. One socket for each family, made when it is first used.
 */
import { must, O, sys } from './libc.js';

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_RAW = 3;
const SOCK_NONBLOCK = 0x800;
const IPPROTO_RAW = 255;
const SOL_SOCKET = 1;
const SO_BINDTODEVICE = 25;
const IPV4_VERSION = 4;

export class RawSender {
  private readonly device: string;
  private readonly sockets = new Map<number, number>();

  /** @param device the interface through which all leaves; '': as routes say */
  constructor(device = '') {
    this.device = device;
  }

  /** @returns 0 or an errno: what can't be sent now is lost, as on any link */
  send(packet: Buffer): number {
    const isIpv4 = packet[0]! >> 4 === IPV4_VERSION;
    const family = isIpv4 ? AF_INET : AF_INET6;
    const address = Buffer.alloc(isIpv4 ? 16 : 28);
    address.writeUInt16LE(family, 0);
    packet.copy(address, isIpv4 ? 4 : 8, isIpv4 ? 16 : 24, isIpv4 ? 20 : 40);
    const fd = this.socketOf(family);
    const sent = sys.sendto(fd, packet, packet.length, 0, address);
    return sent < 0 ? -sent : 0;
  }

  /** @throws SystemError */
  private socketOf(family: number): number {
    const known = this.sockets.get(family);
    if (known !== undefined) return known;
    // IPPROTO_RAW says that headers are ours, in both families.
    const fd = must('socket', sys.socket(family, SOCK_RAW | SOCK_NONBLOCK | O.CLOEXEC, IPPROTO_RAW));
    this.sockets.set(family, fd);
    if (this.device !== '') {
      const set = sys.setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, Buffer.from(`${this.device}\0`));
      must('setsockopt(SO_BINDTODEVICE)', set);
    }
    return fd;
  }

  close(): void {
    for (const fd of this.sockets.values()) sys.close(fd);
    this.sockets.clear();
  }
}
