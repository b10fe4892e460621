/**
 * Tells when one link is taken up or down, by whomever. A link that goes is not told of: its descriptor fails by itself.
 *
 *     rtnetlink group LINK --drain--> NEWLINK of this index: is IFF_UP another than the last time? --> onChange
 */
import { constants } from 'node:os';
import { Netlink } from './netlink.js';
import { readiness, type Source } from './readiness.js';
import { decode, IFINFOMSG, RTM, RTMGRP } from './rtnetlink.js';

const IFF_UP = 1;
const { EAGAIN } = constants.errno;

export class LinkWatch implements Source {
  readonly fd: number;
  private readonly netlink: Netlink;
  private readonly ifindex: number;
  private readonly onChange: (up: boolean) => void;
  private up = false;
  private closed = false;

  /**
   * In the network namespace of the thread; the link counts as down.
   *
   * @param onChange must not throw @throws SystemError
   */
  constructor(ifindex: number, onChange: (up: boolean) => void) {
    this.ifindex = ifindex;
    this.onChange = onChange;
    this.netlink = new Netlink({ groups: RTMGRP.LINK });
    this.fd = this.netlink.fd;
    readiness.arm(this);
  }

  drain(): boolean {
    for (;;) {
      if (this.closed) return false;
      const result = this.netlink.receive(({ type, body }) => {
        const link = type === RTM.NEWLINK ? decode(IFINFOMSG, body) : null;
        if (link === null || link.index !== this.ifindex || link.family !== 0) return;
        const up = (link.flags & IFF_UP) !== 0;
        if (up === this.up) return;
        this.up = up;
        this.onChange(up);
      });
      // An event that was lost was one among very many; the next one of this link tells how it is.
      if (result === -EAGAIN) return false;
    }
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    readiness.disarm(this);
    this.netlink.close();
  }
}
