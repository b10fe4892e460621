/** Rules of the forwarder's distribution table, and peers to have them. */
import type { Rule } from '../../src/forwarder/distribution-table.js';
import { Peer } from '../../src/forwarder/peer.js';
import { parseProtocolAddress } from '../../src/packet/protocol-address.js';
import { FakeChannel } from './fake-channel.js';

export interface PeerEnd {
  readonly peer: Peer;
  readonly channel: FakeChannel;
}

/** An active peer and what reaches its control device. */
export function makePeer(identity = 'ctl1', address = '10.0.0.9'): PeerEnd {
  const channel = new FakeChannel('up');
  const peer = new Peer(identity, address, channel);
  peer.active = true;
  return { peer, channel };
}

let lastUpTunnel = 0;

/** A rule with plenty of credit under an id of its own. @param text protocol address */
export function makeRule(peer: Peer, text: string, more: Partial<Rule> = {}): Rule {
  lastUpTunnel += 1;
  return {
    peer,
    interface: 'eth0',
    protocol: parseProtocolAddress(text),
    linkType: 'ethernet',
    scope: 'in',
    mode: 'copy',
    vif: null,
    vip: null,
    filter: null,
    upTunnel: lastUpTunnel,
    symbol: 'eth0',
    credit: 1e9,
    granted: 1e9,
    sent: 0,
    frames: 0,
    bytes: 0,
    flowFrames: 0,
    flowBytes: 0,
    dropped: 0,
    droppedSuspended: 0,
    ...more,
  };
}
