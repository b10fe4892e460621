/**
 * The states of a flow: bits, how long each lets it be quiet, and their names. What changes them is in flow-table.ts.
 *
 *     sent --> new --received--> answered --FIN of either--> closing --FIN of the other--> closed
 *               |                    |                          |                            ^
 *               +--------------------+--------- RST of either --+----------> reset       SYN | sent: new again
 *                                                                                received: no longer this flow
 *
 *     socket rule deleted   TCP: LEFT, with BRIEF where others serve the port    UDP: HOMELESS
 *     control device lost   TCP: LOST                                            UDP: HOMELESS
 */
import {
  FLOW_CLOSED_MS,
  FLOW_ECHO_MS,
  FLOW_LEFT_MS,
  FLOW_OTHER_MS,
  FLOW_TCP_MS,
  FLOW_TCP_NEW_MS,
  FLOW_TCP_RESET_MS,
  FLOW_UDP_ANSWERED_MS,
  FLOW_UDP_MS,
} from '../base/limits.js';
import type { FrameView } from '../packet/headers.js';
import { IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE } from '../packet/protocol-address.js';
import { TCP_FLAG } from '../packet/tcp-segment.js';

export const STATE = {
  /** A packet was sent: the next one that is received answers it. */
  SENT: 1,
  ANSWERED: 2,
  LOCAL_FIN: 4,
  REMOTE_FIN: 8,
  RESET: 16,
  /** The socket rule that it came through is deleted. */
  LEFT: 32,
  /** And others serve its port: it is not to stay for days. */
  BRIEF: 64,
  HOMELESS: 128,
  LOST: 256,
  /** The remote end has acknowledged something. */
  HAS_ACK: 512,
  /** The listener knows of it. */
  TOLD: 1024,
} as const;

const BOTH_FIN = STATE.LOCAL_FIN | STATE.REMOTE_FIN;

const TCP_FLAGS_OFFSET = 13;
const TCP_ACK_OFFSET = 8;

/** 0: no TCP header is there. */
export function tcpFlags(view: FrameView, frame: Buffer): number {
  const at = view.l4Offset + TCP_FLAGS_OFFSET;
  return view.protocol === IPPROTO_TCP && view.l4Offset > 0 && at < view.l3End ? frame[at]! : 0;
}

/** The acknowledgment number, where tcpFlags has ACK. */
export function tcpAck(view: FrameView, frame: Buffer): number {
  const at = view.l4Offset + TCP_ACK_OFFSET;
  return (frame[at]! << 24) | (frame[at + 1]! << 16) | (frame[at + 2]! << 8) | frame[at + 3]!;
}

export const isOpening = (flags: number): boolean => (flags & (TCP_FLAG.SYN | TCP_FLAG.ACK)) === TCP_FLAG.SYN;

/** Protocols whose datagrams stand alone: a socket without a flow's history can take the next one. */
export const isDatagram = (protocol: number): boolean => protocol === IPPROTO_UDP || protocol === IPPROTO_UDPLITE;

export function isEnded(state: number): boolean {
  return (state & (STATE.RESET | STATE.LOST)) !== 0 || (state & BOTH_FIN) === BOTH_FIN;
}

/** Whether a SYN begins another connection: also of one whose listener closed during the handshake, for it never comes to be. */
export function isOver(state: number): boolean {
  return isEnded(state) || ((state & STATE.LEFT) !== 0 && (state & STATE.ANSWERED) === 0);
}

/** How long the flow may be quiet, in ms. */
export function patience(protocol: number, state: number): number {
  const ms = patienceOf(protocol, state);
  return (state & STATE.BRIEF) !== 0 && ms > FLOW_LEFT_MS ? FLOW_LEFT_MS : ms;
}

function patienceOf(protocol: number, state: number): number {
  switch (protocol) {
    case IPPROTO_TCP:
      if ((state & (STATE.RESET | STATE.LOST)) !== 0) return FLOW_TCP_RESET_MS;
      if ((state & BOTH_FIN) !== 0) return FLOW_CLOSED_MS;
      return (state & STATE.ANSWERED) !== 0 ? FLOW_TCP_MS : FLOW_TCP_NEW_MS;
    case IPPROTO_UDP:
    case IPPROTO_UDPLITE:
      return (state & STATE.ANSWERED) !== 0 ? FLOW_UDP_ANSWERED_MS : FLOW_UDP_MS;
    case IPPROTO_ICMP:
    case IPPROTO_ICMPV6:
      return FLOW_ECHO_MS;
    default:
      return FLOW_OTHER_MS;
  }
}

export function stateText(protocol: number, state: number): string {
  if ((state & STATE.LOST) !== 0) return 'lost';
  if ((state & STATE.HOMELESS) !== 0) return 'homeless';
  if ((state & STATE.RESET) !== 0) return 'reset';
  if ((state & BOTH_FIN) === BOTH_FIN) return 'closed';
  if ((state & BOTH_FIN) !== 0) return 'closing';
  if ((state & STATE.BRIEF) !== 0) return 'leaving';
  if ((state & STATE.ANSWERED) !== 0) return protocol === IPPROTO_TCP ? 'established' : 'answered';
  return 'new';
}
