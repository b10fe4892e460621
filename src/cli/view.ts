/**
 * What a mount shows, read from its files: forwarders with their interfaces, attributes, and the tables of both sides.
 * Everything is asked for at once, so that a slow forwarder delays only what is its own.
 */
import { FileError, type MountReader } from './mount-reader.js';
import { rowObject, type Table } from './output.js';

/** Where the control device's own tables stand, as a name of a device. */
export const OWN = '.';

export interface InterfaceView {
  readonly interface: string;
  /** `r` and `w`, or a dash in their places. */
  readonly rights: string;
  readonly operstate: string;
  readonly mtu: number | null;
  /** Of the link layer. */
  readonly address: string;
  /** IPv4 and IPv6, with prefix lengths. */
  readonly addresses: readonly string[];
}

export interface ForwarderView {
  readonly forwarder: string;
  readonly connected: boolean;
  /** When it was connected, or lost. ISO 8601. */
  readonly since: string;
  /** Its address. */
  readonly address: string;
  /** Why it is not connected; empty where there is nothing to say. */
  readonly lastError: string;
  readonly interfaces: readonly InterfaceView[];
}

export interface TableView extends Table {
  /** A forwarder, or OWN. */
  readonly device: string;
  readonly table: string;
}

/** What a file says, or an empty text where it can't be read: not permitted, not connected, gone meanwhile. */
async function readOr(reader: MountReader, path: string): Promise<string> {
  try {
    return (await reader.read(path)).trimEnd();
  } catch (error) {
    if (error instanceof FileError) return '';
    throw error;
  }
}

export async function forwarderNames(reader: MountReader): Promise<string[]> {
  return (await reader.list('.')).filter((name) => !name.startsWith('.')).sort();
}

/** @throws Error where the mount has no such forwarder */
export async function requireForwarder(reader: MountReader, forwarder: string): Promise<void> {
  const names = await forwarderNames(reader);
  if (names.includes(forwarder)) return;
  throw new Error(`${reader.mountPoint} has no forwarder ${forwarder}: it has ${names.join(', ') || 'none'}`);
}

/** `.state` by its keys; a value of `-` is empty. */
async function stateOf(reader: MountReader, forwarder: string): Promise<ReadonlyMap<string, string>> {
  const text = await reader.read(`${forwarder}/.state`);
  return new Map(
    text
      .trimEnd()
      .split('\n')
      .map((line): [string, string] => {
        const [key = '', value = ''] = line.split('\t');
        return [key, value === '-' ? '' : value];
      }),
  );
}

async function interfaceView(reader: MountReader, forwarder: string, name: string): Promise<InterfaceView> {
  const attribute = (file: string): Promise<string> => readOr(reader, `${forwarder}/.if/${name}/${file}`);
  const mode = reader.mode(`${forwarder}/${name}`).catch((error: unknown) => {
    if (error instanceof FileError) return 0;
    throw error;
  });
  const [bits, operstate, mtu, address, inet, inet6] = await Promise.all([
    mode,
    ...['operstate', 'mtu', 'address', 'inet', 'inet6'].map(attribute),
  ]);
  return {
    interface: name,
    rights: `${(bits & 0o400) === 0 ? '-' : 'r'}${(bits & 0o200) === 0 ? '-' : 'w'}`,
    operstate: operstate ?? '',
    mtu: mtu === undefined || mtu === '' ? null : Number(mtu),
    address: address ?? '',
    addresses: `${inet ?? ''}\n${inet6 ?? ''}`.split('\n').filter((text) => text !== ''),
  };
}

async function forwarderView(reader: MountReader, forwarder: string): Promise<ForwarderView> {
  const [state, names] = await Promise.all([stateOf(reader, forwarder), reader.list(`${forwarder}/.if`)]);
  const interfaces = await Promise.all(names.sort().map((name) => interfaceView(reader, forwarder, name)));
  return {
    forwarder,
    connected: state.get('state') === 'connected',
    since: state.get('since') ?? '',
    address: state.get('address') ?? '',
    lastError: state.get('last_error') ?? '',
    interfaces,
  };
}

export async function allForwarders(reader: MountReader): Promise<ForwarderView[]> {
  const names = await forwarderNames(reader);
  return Promise.all(names.map((name) => forwarderView(reader, name)));
}

/** Why a forwarder is not connected, as one line; empty where it is. */
export async function whyNotConnected(reader: MountReader, forwarder: string): Promise<string> {
  const state = await stateOf(reader, forwarder);
  if (state.get('state') === 'connected') return '';
  return `${forwarder} is not connected (${state.get('last_error') || 'still trying'})`;
}

/** Names of the tables of a device. */
export async function tableNames(reader: MountReader, device: string): Promise<string[]> {
  return (await reader.list(`${device}/.tables`)).sort();
}

export async function readTable(reader: MountReader, device: string, table: string): Promise<TableView> {
  const [header = '', ...lines] = (await reader.read(`${device}/.tables/${table}`)).trimEnd().split('\n');
  return { device, table, columns: header.split('\t'), rows: lines.map((line) => line.split('\t')) };
}

export function rowsAsObjects({ columns, rows }: Table): ReturnType<typeof rowObject>[] {
  return rows.map((row) => rowObject(columns, row));
}
