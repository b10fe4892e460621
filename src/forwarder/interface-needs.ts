/**
 * What the rules of an interface need of it: all-multicast, promiscuous mode, a multicast address, outgoing frames. Each is
 * asked for with the first rule that needs it and taken back with the last.
 */
import type { LinkType } from '../packet/headers.js';
import type { ProtocolAddress } from '../packet/protocol-address.js';
import { MEMBERSHIP } from '../sys/packet-socket.js';
import type { Rule } from './distribution-table.js';

/** The packet socket, as far as it can be asked. */
export interface Memberships {
  setOutgoing(wanted: boolean): void;
  /** @param kind of MEMBERSHIP @param address MAC address for MULTICAST */
  setMembership(kind: number, joined: boolean, address?: Buffer): void;
}

/** What a protocol address asks of an Ethernet interface. */
function multicastOf(protocol: ProtocolAddress): 'none' | 'all' | Buffer {
  if (protocol.address === null) return 'all';
  const first = protocol.address[0] ?? 0;
  if (protocol.address.length === 4) {
    if (first < 224 || first > 239) return 'none';
    // RFC 1112 section 6.4
    return Buffer.from([
      1,
      0,
      0x5e,
      (protocol.address[1] ?? 0) & 0x7f,
      protocol.address[2] ?? 0,
      protocol.address[3] ?? 0,
    ]);
  }
  // RFC 2464 section 7
  return first === 0xff ? Buffer.concat([Buffer.from([0x33, 0x33]), protocol.address.subarray(12, 16)]) : 'none';
}

/** Counts who needs something; tells when the first comes and the last goes. */
class Need {
  private count = 0;
  private readonly change: (needed: boolean) => void;

  constructor(change: (needed: boolean) => void) {
    this.change = change;
  }

  add(): void {
    if (this.count === 0) this.change(true);
    this.count += 1;
  }

  drop(): void {
    this.count -= 1;
    if (this.count === 0) this.change(false);
  }
}

export class InterfaceNeeds {
  private readonly socket: Memberships;
  private readonly linkType: LinkType;
  private readonly allMulticast: Need;
  private readonly promiscuous: Need;
  private readonly outgoing: Need;
  private readonly groups = new Map<string, Need>();
  private readonly held = new Map<Rule, Need[]>();

  constructor(socket: Memberships, linkType: LinkType) {
    this.socket = socket;
    this.linkType = linkType;
    this.allMulticast = new Need((needed) => this.socket.setMembership(MEMBERSHIP.ALLMULTI, needed));
    this.promiscuous = new Need((needed) => this.socket.setMembership(MEMBERSHIP.PROMISC, needed));
    this.outgoing = new Need((needed) => this.socket.setOutgoing(needed));
  }

  /** If it throws, the rule has to be dropped. */
  add(rule: Rule): void {
    const needs: Need[] = [];
    if (rule.scope === 'out' || rule.scope === 'both') needs.push(this.outgoing);
    if (rule.scope === 'promisc') needs.push(this.promiscuous);
    // Sockets of a virtual IF join their groups themselves; only its packet sockets see what nobody joined.
    const joinsItself = rule.vif !== null && rule.protocol.kind === 'ip';
    if (rule.scope !== 'out' && this.linkType === 'ethernet' && !joinsItself) {
      const multicast = multicastOf(rule.protocol);
      if (multicast === 'all') needs.push(this.allMulticast);
      else if (multicast !== 'none') needs.push(this.group(multicast));
    }
    const held: Need[] = [];
    this.held.set(rule, held);
    for (const need of needs) {
      need.add();
      held.push(need);
    }
  }

  drop(rule: Rule): void {
    for (const need of this.held.get(rule) ?? []) need.drop();
    this.held.delete(rule);
  }

  private group(address: Buffer): Need {
    const key = address.toString('hex');
    let need = this.groups.get(key);
    if (need === undefined) {
      need = new Need((needed) => {
        this.socket.setMembership(MEMBERSHIP.MULTICAST, needed, address);
        if (!needed) this.groups.delete(key);
      });
      this.groups.set(key, need);
    }
    return need;
  }
}
