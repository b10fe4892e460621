/**
 * The route to a sender address, when its control device is back: the link may have gone and come back meanwhile, which takes
 * routes away, and brings addresses back one after the other (an IPv6 one is tentative first).
 *
 *     place --the same link--> route again
 *           --another one----> withdrawn
 *           --none-----------> once more after VIP_PLACE_RETRY_MS, for VIP_PLACE_MS, then withdrawn
 */
import { describe, type ErrorCode, FwdfsError, hasCode } from '../base/errors.js';
import { VIP_PLACE_RETRY_MS } from '../base/limits.js';
import type { RouteRequests } from '../sys/route-requests.js';
import { findLink, senderRoute } from './vip-link.js';
import { isAway, type Registration } from './vip-registrations.js';

export class VipPlacing {
  private readonly placeTime: number;
  private readonly isThere: (registration: Registration) => boolean;
  private readonly withdraw: (registration: Registration, reason: string, code: ErrorCode) => void;
  private readonly timers = new Map<Registration, NodeJS.Timeout>();

  constructor(placeTime: number, isThere: VipPlacing['isThere'], withdraw: VipPlacing['withdraw']) {
    this.placeTime = placeTime;
    this.isThere = isThere;
    this.withdraw = withdraw;
  }

  place(registration: Registration, routes: RouteRequests, timeLeft = this.placeTime): void {
    clearTimeout(this.timers.get(registration));
    this.timers.delete(registration);
    const { peer, sender, nextHop, link } = registration;
    if (!this.isThere(registration) || isAway(peer)) return;
    try {
      const now = findLink(routes, peer.address, nextHop);
      if (now.ifindex === link.ifindex && now.address.equals(link.address) && now.mac.equals(link.mac)) {
        routes.addRoute(senderRoute(sender, nextHop, link));
        return;
      }
      this.withdraw(registration, 'its control device is on another link now', 'not-on-link');
    } catch (error) {
      if (timeLeft > 0) {
        const again = (): void => this.place(registration, routes, timeLeft - VIP_PLACE_RETRY_MS);
        this.timers.set(registration, setTimeout(again, VIP_PLACE_RETRY_MS).unref());
        return;
      }
      const code = hasCode(error, 'not-on-link') ? 'not-on-link' : 'host-lacks';
      // Who is told makes an error of the code again, with its advice.
      this.withdraw(registration, error instanceof FwdfsError ? error.what : describe(error), code);
    }
  }

  close(): void {
    for (const timer of this.timers.values()) clearTimeout(timer);
    this.timers.clear();
  }
}
