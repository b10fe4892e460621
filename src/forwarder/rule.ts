/**
 * A packet transfer rule, as distribution table 342 and all that read it have it.
 */
import type { BpfProgram } from '../packet/bpf-run.js';
import type { LinkType } from '../packet/headers.js';
import { ANY_PROTOCOL, type ProtocolAddress } from '../packet/protocol-address.js';
import type { Scope } from '../packet/symbol-name.js';
import type { VifKind } from '../tunnel/messages.js';
import type { Peer } from './peer.js';

/** The forwarder's end of a virtual IF. */
export interface VifEnd {
  /** Its down tunnel. */
  readonly id: number;
  readonly kind: VifKind;
  /** Number of the last frame that was on its way up to it: none goes twice. */
  stamp: number;
  /** By which the packets of its flows go up; null only while it is made. */
  wayBack: Rule | null;
}

/**
 * `copy`: whatever others get; `claim`: and the forwarder's own kernel and other claims get nothing; `socket`: of a unicast
 * packet only the most specific rule gets it, and not the kernel; `flow`: what the flows of a virtual IF bring;
 * `vip`: address conversion by the kernel, and no frame is ours.
 */
export type RuleMode = 'copy' | 'claim' | 'socket' | 'flow' | 'vip';

/** What the way back of a virtual IF has for a protocol address: no packet matches it. */
export const FLOWS: ProtocolAddress = { ...ANY_PROTOCOL, kind: 'ip', text: 'flows' };

/** One packet transfer rule. Its counters and its credit are the packet path's. */
export interface Rule {
  readonly peer: Peer;
  readonly interface: string;
  readonly protocol: ProtocolAddress;
  /** What the interface was when the rule was set: its readers take every frame for one of this kind. */
  readonly linkType: LinkType;
  readonly scope: Scope;
  readonly mode: RuleMode;
  /** The virtual IF whose socket it is for; null: a file, or set by hand. */
  readonly vif: VifEnd | null;
  /** The virtual IP address, 4 or 16 bytes, of mode `vip`; null: of another mode. */
  readonly vip: Buffer | null;
  /** What the frame has to pass, of a packet socket; null: nothing. */
  readonly filter: BpfProgram | null;
  readonly upTunnel: number;
  readonly symbol: string;
  /** Payload bytes that the control device allowed at first, and again after a resume. */
  readonly credit: number;
  /** Payload bytes that the control device allows, cumulative since the channel came up. */
  granted: number;
  /** Payload bytes sent since the channel came up: never above `granted`. */
  sent: number;
  /** Over the life of the rule, for the table. */
  frames: number;
  bytes: number;
  /** What flows that came through it brought by the way back of their virtual IF: not on its up tunnel. */
  flowFrames: number;
  flowBytes: number;
  /** Of both. */
  dropped: number;
  /** Of those, because the control device was not connected; the others had no credit. */
  droppedSuspended: number;
}

const NOTHING_SENT = { sent: 0, frames: 0, bytes: 0, flowFrames: 0, flowBytes: 0, dropped: 0, droppedSuspended: 0 };

/** A rule that nothing went up for yet. */
export function newRule(of: Omit<Rule, keyof typeof NOTHING_SENT | 'granted'>): Rule {
  return { ...of, ...NOTHING_SENT, granted: of.credit };
}

/** Which end of a frame is the local one of a protocol address. */
export const SIDE = { RECEIVED: 0, SENT: 1 } as const;
export type Side = (typeof SIDE)[keyof typeof SIDE];

/** Where a frame was seen; the bit of each is in SCOPE_BITS of the scopes that show it. */
export const SEEN = { RECEIVED: 1, OTHER_HOST: 2, OUTGOING: 4 } as const;
