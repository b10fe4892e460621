/**
 * The permission table (source text: IF mount permission table 59): who may use which interface, for what.
 *
 *     identity, interface --> the first line whose control and interface both match --> rights for protocol addresses
 *                             no line: nothing is allowed
 *
 * The first line that matches decides alone: later lines for the same control device and interface add nothing, also where
 * they name other protocol addresses. So a narrow line before a wide one is an exception from it, as in a packet filter.
 * Pure data, made from the configuration, and made anew when that changes.
 */
import { BlockList, isIPv4, isIPv6 } from 'node:net';
import { covers } from '../packet/overlap.js';
import { ANY_PROTOCOL, type ProtocolAddress } from '../packet/protocol-address.js';
import type { Right } from '../tunnel/messages.js';

/** A line of the table. */
export interface Permission {
  /** `*`, the name of a control device, an IP address or CIDR prefix, or `uid:N`. */
  readonly control: string;
  /** `*`, or the name of an interface. */
  readonly interface: string;
  readonly rights: readonly Right[];
  readonly protocols: readonly ProtocolAddress[];
}

/** A control device that was accepted. */
export interface Identity {
  readonly name: string;
  /** Where its connection comes from; '' for a Unix socket. */
  readonly address: string;
  /** User id of the process at the other end of a Unix socket; null otherwise. */
  readonly uid: number | null;
}

export interface Grant {
  readonly rights: ReadonlySet<Right>;
  /** What the rights are for. */
  readonly protocols: readonly ProtocolAddress[];
}

const NOTHING: Grant = { rights: new Set(), protocols: [] };

export const PERMISSION_COLUMNS = ['control', 'interface', 'rights', 'protocols'] as const;

interface Line {
  readonly permission: Permission;
  readonly matches: (identity: Identity) => boolean;
  readonly grant: Grant;
}

export class PermissionTable {
  private lines: readonly Line[] = [];

  /** @param permissions in the order of the configuration, which has checked them */
  constructor(permissions: readonly Permission[]) {
    this.replace(permissions);
  }

  /** Forgets what was there. @param permissions as for the constructor */
  replace(permissions: readonly Permission[]): void {
    this.lines = permissions.map((permission) => ({
      permission,
      matches: identityMatcher(permission.control),
      grant: { rights: new Set(permission.rights), protocols: permission.protocols },
    }));
  }

  /** What an identity may do with an interface; a grant without rights where no line matches. */
  rightsOf(identity: Identity, interfaceName: string): Grant {
    const line = this.lines.find(
      ({ permission, matches }) =>
        (permission.interface === '*' || permission.interface === interfaceName) && matches(identity),
    );
    return line?.grant ?? NOTHING;
  }

  /** One row a line, in the order of PERMISSION_COLUMNS; lists are joined by commas. */
  rows(): string[][] {
    return this.lines.map(({ permission }) => [
      permission.control,
      permission.interface,
      permission.rights.join(','),
      permission.protocols.map(({ text }) => text).join(','),
    ]);
  }
}

/** Whether a grant has the right for everything that a protocol address matches. */
export function allows(grant: Grant, right: Right, protocol: ProtocolAddress = ANY_PROTOCOL): boolean {
  return grant.rights.has(right) && grant.protocols.some((granted) => covers(granted, protocol));
}

const UID = /^uid:(0|[1-9][0-9]{0,9})$/;

/** How a line names control devices; null for a text that is a malformed address or user. */
export function kindOfControl(text: string): 'any' | 'uid' | 'address' | 'name' | null {
  if (text === '*') return 'any';
  if (text.startsWith('uid:')) return UID.test(text) ? 'uid' : null;
  const [address = '', prefix, ...rest] = text.split('/');
  const longest = isIPv4(address) ? 32 : isIPv6(address) && !address.includes('%') ? 128 : -1;
  if (longest < 0) return /[/:]|^[0-9]+\.[0-9.]*$/.test(text) ? null : 'name';
  if (prefix === undefined) return 'address';
  return rest.length === 0 && /^(0|[1-9][0-9]{0,2})$/.test(prefix) && Number(prefix) <= longest ? 'address' : null;
}

function identityMatcher(control: string): (identity: Identity) => boolean {
  switch (kindOfControl(control)) {
    case 'any':
      return () => true;
    case 'uid': {
      const uid = Number(control.slice('uid:'.length));
      return (identity) => identity.uid === uid;
    }
    case 'address':
      return addressMatcher(control);
    case 'name':
      return (identity) => identity.name === control;
    case null:
      return () => false;
  }
}

function addressMatcher(control: string): (identity: Identity) => boolean {
  const [address = '', prefix] = control.split('/');
  const family = isIPv4(address) ? 'ipv4' : 'ipv6';
  const list = new BlockList();
  list.addSubnet(address, prefix === undefined ? (family === 'ipv4' ? 32 : 128) : Number(prefix), family);
  return (identity) => {
    // A dual-stack socket shows IPv4 peers as ::ffff:10.0.0.1, link-local ones with a zone.
    const peer = (identity.address.split('%', 1)[0] ?? '').replace(/^::ffff:(?=[0-9.]+$)/i, '');
    // By itself a BlockList finds every IPv4 address in ::/0.
    return (family === 'ipv4' ? isIPv4(peer) : isIPv6(peer)) && list.check(peer, family);
  };
}
