/** An interface of a forwarder as the control device knows it: what its symbols are made from. Owned by the ForwarderLink. */
import type { Counters } from '../base/counters.js';
import type { Attributes, Right } from '../tunnel/messages.js';
import type { DownTunnel } from './down-tunnel.js';

export interface RemoteInterface {
  readonly name: string;
  /** null while it may not be used. */
  attributes: Attributes | null;
  rights: ReadonlySet<Right>;
  readonly counters: Counters;
  /** The symbol's own down tunnel, made at registration; null while a writer has it. */
  spare: DownTunnel | null;
}

const WRITE_RIGHTS: readonly Right[] = ['write', 'inject'];

export function mayWrite(rights: ReadonlySet<Right>): boolean {
  return WRITE_RIGHTS.some((right) => rights.has(right));
}
