/**
 * nftables, through the nft command: rule sets go in as scripts, each of which the kernel takes as a whole or not at all.
 *
 *     script --stdin--> nft -f - --one netlink transaction--> kernel of this thread's network namespace
 */
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { FwdfsError, SystemError } from '../base/errors.js';

const E = constants.errno;

/**
 * A flood of packets while the main loop is busy fills the pipe by which Node learns of signals, and the end of a child is
 * lost with those of SIGIO; it is looked for again after this time.
 */
const LOST_SIGNAL_MS = 1000;

export interface NftTable {
  /** `ip`, `ip6`, `inet`, `arp`, `bridge` or `netdev`. */
  readonly family: string;
  readonly name: string;
}

/** What nft says where it passes on an errno of the kernel; EINVAL for its own complaints about a script. */
const ERRNO_OF_WORDS: readonly (readonly [string, number])[] = [
  ['Operation not permitted', E.EPERM],
  ['No such file or directory', E.ENOENT],
  ['File exists', E.EEXIST],
  ['Device or resource busy', E.EBUSY],
  ['Operation not supported', E.EOPNOTSUPP],
];

/**
 * Runs a script, as one transaction.
 *
 * @throws FwdfsError host-lacks without nft; SystemError with the first line that nft said
 */
export async function applyRuleset(script: string): Promise<void> {
  await nft(['-f', '-'], script);
}

/** Deletes a table with all that is in it; no error where there is none. @throws as applyRuleset */
export async function deleteTable(family: string, name: string): Promise<void> {
  await applyRuleset(dropTable(family, name));
}

/** The lines that leave no such table behind, for scripts that build it anew in the same transaction. */
export function dropTable(family: string, name: string): string {
  return `add table ${family} ${name}\ndelete table ${family} ${name}\n`;
}

/** @throws as applyRuleset */
export async function listTables(): Promise<NftTable[]> {
  const listing = JSON.parse(await nft(['-j', 'list', 'tables'], '')) as { nftables: { table?: NftTable }[] };
  return listing.nftables.flatMap(({ table }) =>
    table === undefined ? [] : [{ family: table.family, name: table.name }],
  );
}

/** A table with all that is in it, as JSON of libnftables-json(5); null where there is none. @throws as applyRuleset */
export async function listTable(family: string, table: string): Promise<string | null> {
  try {
    return await nft(['-j', 'list', 'table', family, table], '');
  } catch (error) {
    if (error instanceof SystemError && error.errno === E.ENOENT) return null;
    throw error;
  }
}

/** Packets that each named counter of a table has counted; none where there is no such table. @throws as applyRuleset */
export async function readCounters(family: string, table: string): Promise<Map<string, number>> {
  try {
    const said = JSON.parse(await nft(['-j', 'list', 'counters', 'table', family, table], '')) as {
      nftables: { counter?: { name: string; packets: number } }[];
    };
    return new Map(
      said.nftables.flatMap(({ counter }) => (counter === undefined ? [] : [[counter.name, counter.packets]])),
    );
  } catch (error) {
    if (error instanceof SystemError && error.errno === E.ENOENT) return new Map();
    throw error;
  }
}

/** What `nft -j` says of a map. An element of one part is a value, of several a concatenation. */
interface MapListing {
  readonly name: string;
  readonly elem?: readonly (readonly [key: ElementValue | { concat: readonly ElementValue[] }, value: ElementValue])[];
}
type ElementValue = string | number;

/** One element of a map as nft spells it: the parts of its key, and its value. */
export interface MapElement {
  readonly key: readonly string[];
  readonly value: string;
}

/** The maps of a table with their elements, as the kernel has them; none where there is no such table. @throws as applyRuleset */
export async function listMaps(family: string, table: string): Promise<Map<string, MapElement[]>> {
  const said = JSON.parse((await listTable(family, table)) ?? '{"nftables":[]}') as {
    nftables: { map?: MapListing }[];
  };
  return new Map(said.nftables.flatMap(({ map }) => (map === undefined ? [] : [[map.name, elementsOf(map)]])));
}

function elementsOf({ elem = [] }: MapListing): MapElement[] {
  return elem.map(([key, value]) => {
    const parts = typeof key === 'object' ? key.concat : [key];
    return { key: parts.map(String), value: String(value) };
  });
}

/** @returns what it wrote to stdout */
function nft(args: readonly string[], input: string): Promise<string> {
  return new Promise((resolve, reject) => {
    // Users' paths lack the directories of system commands on Debian; messages are matched, so they are not translated.
    const env = { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`, LC_ALL: 'C' };
    const child = spawn('nft', args, { env, stdio: ['pipe', 'pipe', 'pipe'] });
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    child.stdout.on('data', (bytes: Buffer) => stdout.push(bytes));
    child.stderr.on('data', (bytes: Buffer) => stderr.push(bytes));
    // An nft that ends before it read the script is judged by its exit status.
    child.stdin.on('error', () => undefined);
    child.on('error', (cause) => {
      clearInterval(nudge);
      const absent = 'code' in cause && cause.code === 'ENOENT';
      reject(absent ? new FwdfsError('host-lacks', 'the nft command is not installed', { cause }) : cause);
    });
    const nudge = setInterval(() => process.kill(process.pid, 'SIGCHLD'), LOST_SIGNAL_MS);
    child.on('close', (status) => {
      clearInterval(nudge);
      if (status === 0) resolve(Buffer.concat(stdout).toString());
      else reject(failure(Buffer.concat(stderr).toString()));
    });
    child.stdin.end(input);
  });
}

function failure(said: string): SystemError {
  const line = said.split('\n', 1)[0] ?? '';
  const errno = ERRNO_OF_WORDS.find(([words]) => line.includes(words))?.[1] ?? E.EINVAL;
  return new SystemError('nft', errno, `said "${line}"`);
}
