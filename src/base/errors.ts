/**
 * The one table of error codes: what went wrong, the errno a program sees, and what its user can do about it.
 *
 * A code is stable: it is what messages between the devices carry, what `.state` shows and what the README lists. Errno
 * numbers are Linux's. `errnoOf` is the only translation from a thrown value to an errno.
 */
import { constants } from 'node:os';

const E = constants.errno;

export interface ErrorEntry {
  /** Positive Linux errno that system calls answer with. */
  readonly errno: number;
  /** One line that says what the user can do. */
  readonly advice: string;
}

export const ERRORS = {
  'no-such-forwarder': { errno: E.ENOENT, advice: 'name a forwarder that the mount lists (fwdfs ls)' },
  'no-such-interface': { errno: E.ENOENT, advice: 'name an interface that the forwarder has (fwdfs ls)' },
  'no-such-name': { errno: E.ENOENT, advice: 'look at what the directory lists' },
  'bad-protocol-address': {
    errno: E.EINVAL,
    advice: 'write it as udp:520, tcp:10.0.0.1:80, tcp:[2001:db8::1]:80, ip:89, icmp, arp, ether:0x88cc or *',
  },
  'bad-symbol-name': {
    errno: E.EINVAL,
    advice: 'write it as INTERFACE[:PROTOCOL-ADDRESS][:SCOPE][:FRAMING][:claim][.pcap]',
  },
  'not-permitted': { errno: E.EACCES, advice: "add a line to the forwarder's permissions" },
  claimed: { errno: E.EBUSY, advice: 'ask its holder to close it, or open it without :claim for a copy' },
  'not-claimable': {
    errno: E.EOPNOTSUPP,
    advice: 'claim at the bridge, bond or VRF whose port it is, or open it without :claim for a copy',
  },
  'mirrors-link': {
    errno: E.EADDRINUSE,
    advice: 'use --netns, or another address: here the forwarder could not be reached any more',
  },
  'no-such-vip': { errno: E.ENOENT, advice: 'look at fwdfs vip list' },
  'not-on-link': {
    errno: E.EHOSTUNREACH,
    advice: 'a virtual IP address needs both devices on one link; use a virtual IF (fwdfs vif add) instead',
  },
  'address-in-use': { errno: E.EADDRINUSE, advice: 'another control device has this address; give another one' },
  'no-such-vif': { errno: E.ENOENT, advice: 'look at fwdfs vif list' },
  'not-connected': { errno: E.ENETDOWN, advice: "look at the forwarder's .state for the reason" },
  'interface-gone': {
    errno: E.ENETDOWN,
    advice: 'the interface was removed at the forwarder; open it again when it is back',
  },
  'bad-capture': {
    errno: E.EINVAL,
    advice: "write a pcap or pcapng stream of the interface's link type with whole frames",
  },
  'bad-hex': { errno: E.EINVAL, advice: 'write one frame a line, as pairs of hex digits' },
  'frame-mismatch': { errno: E.EINVAL, advice: "write only frames of the name's protocol address" },
  'frame-too-short': { errno: E.EINVAL, advice: 'write a whole frame with its link layer header' },
  'frame-too-long': { errno: E.EMSGSIZE, advice: "keep frames within the interface's MTU" },
  'not-sent': { errno: E.EIO, advice: "look at the forwarder's .state: a written frame was not put on the interface" },
  'not-authenticated': {
    errno: E.EACCES,
    advice: 'give the token (token_file=) or the certificate (cert=, key=) that the forwarder knows for this name',
  },
  'bad-message': { errno: E.EPROTO, advice: 'run the same version on both devices' },
  'unknown-message': { errno: E.EOPNOTSUPP, advice: 'the other device is older; update it' },
  'version-mismatch': { errno: E.EPROTO, advice: 'versions may differ by one; update the older device' },
  'bad-config': { errno: E.EINVAL, advice: 'correct the configuration file at the line named' },
  'bad-command': {
    errno: E.EINVAL,
    advice: 'write one command a line: rule add|remove NAME, vif …, vip …, drain [IF] [off]',
  },
  'bad-option': { errno: E.EINVAL, advice: 'see fwdfs mount --help for the options' },
  'already-there': { errno: E.EEXIST, advice: 'it is there already' },
  'too-many': { errno: E.ENOSPC, advice: 'a limit is reached; see LIMITS.md' },
  'timed-out': { errno: E.ETIMEDOUT, advice: 'the other device did not answer; look at its log' },
  'read-only': { errno: E.EROFS, advice: 'the mount is read-only' },
  'cannot-listen': {
    errno: E.EADDRINUSE,
    advice: 'free the address, make its folder, or change listen: in the configuration',
  },
  'already-running': { errno: E.EADDRINUSE, advice: 'stop the other one, or give this one another name' },
  'no-token': { errno: E.EACCES, advice: 'make a file that holds the token, and name it by token_file' },
  'bad-source': {
    errno: E.EINVAL,
    advice: 'write it as NAME=ws://HOST:PORT[,NAME=URL…], or name a configuration file',
  },
  'host-lacks': { errno: E.ENODEV, advice: 'run fwdfs doctor to see what this host lacks' },
  internal: { errno: E.EIO, advice: 'this is a defect of fwdfs; please report it with the log' },
} as const satisfies Record<string, ErrorEntry>;

export type ErrorCode = keyof typeof ERRORS;

export function isErrorCode(text: string): text is ErrorCode {
  return Object.hasOwn(ERRORS, text);
}

/** An error with a code of the table. `message` is one line: what happened and what to do. */
export class FwdfsError extends Error {
  readonly code: ErrorCode;
  /** What happened, without the advice. */
  readonly what: string;

  constructor(code: ErrorCode, what: string, options?: ErrorOptions) {
    super(`${what}: ${ERRORS[code].advice}`, options);
    this.name = 'FwdfsError';
    this.code = code;
    this.what = what;
  }

  get errno(): number {
    return ERRORS[this.code].errno;
  }
}

/** Second names of the same numbers on Linux. */
const ALIASES: readonly string[] = ['EWOULDBLOCK', 'ENOTSUP', 'EDEADLOCK'];
const NAMES = new Map<number, string>(
  Object.entries(E)
    .filter(([name]) => !ALIASES.includes(name))
    .map(([name, value]) => [value, name]),
);

/** The symbolic name of a positive errno, `errno N` for one that Node does not know. */
export function errnoName(errno: number): string {
  return NAMES.get(errno) ?? `errno ${errno}`;
}

/** A failed system call. `errno` is positive. */
export class SystemError extends Error {
  readonly errno: number;
  readonly syscall: string;
  readonly code: string;

  constructor(syscall: string, errno: number, about = '') {
    const code = errnoName(errno);
    super(`${syscall}${about ? ` ${about}` : ''}: ${code}`);
    this.name = 'SystemError';
    this.errno = errno;
    this.syscall = syscall;
    this.code = code;
  }
}

/** The errno a program sees for whatever was thrown; EIO for what is none of ours. */
export function errnoOf(error: unknown): number {
  if (error instanceof FwdfsError || error instanceof SystemError) return error.errno;
  if (error instanceof Error && 'errno' in error && typeof error.errno === 'number') return Math.abs(error.errno);
  return E.EIO;
}

/** Whether it is an error of ours with one of these codes. */
export function hasCode(error: unknown, ...codes: ErrorCode[]): boolean {
  return error instanceof FwdfsError && codes.includes(error.code);
}

/** One line for a log or a person, whatever was thrown. */
export function describe(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
