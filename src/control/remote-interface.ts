/** An interface of a forwarder as the control device knows it: what its symbols are made from. Owned by the ForwarderLink. */
import { Counters } from '../base/counters.js';
import type { Attributes, Right } from '../tunnel/messages.js';
import type { DownTunnel } from './down-tunnel.js';

export interface RemoteInterface {
  readonly name: string;
  /** Its use was asked for over the connection that is there now. */
  asked: boolean;
  /** null while it may not be used. */
  attributes: Attributes | null;
  rights: ReadonlySet<Right>;
  /** Rights and what they are for, as they were told. */
  grant: string;
  readonly counters: Counters;
  /** The symbol's own down tunnel, made at registration; null while a writer has it. */
  spare: DownTunnel | null;
}

const WRITE_RIGHTS: readonly Right[] = ['write', 'inject'];

export function mayWrite(rights: ReadonlySet<Right>): boolean {
  return WRITE_RIGHTS.some((right) => rights.has(right));
}

/** Its pcap link type; 0: not known now. */
export function linkTypeOf(remote: RemoteInterface | undefined): number {
  return remote?.attributes?.linkType ?? 0;
}

/** One that was just listed: nothing is known of it yet. */
export function newInterface(name: string): RemoteInterface {
  return { name, asked: false, attributes: null, rights: new Set(), grant: '', counters: new Counters(), spare: null };
}

/** What an interface use response says; null and nothing else where it was refused. @returns whether the grant changed */
export function setUse(
  remote: RemoteInterface,
  attributes: Attributes | null,
  rights: readonly Right[],
  protocols: readonly string[],
): boolean {
  const grant = [...rights, ...protocols].join(' ');
  const changed = grant !== remote.grant;
  remote.attributes = attributes;
  remote.rights = new Set(rights);
  remote.grant = grant;
  return changed;
}
