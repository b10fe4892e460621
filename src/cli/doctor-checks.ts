/**
 * The one table of what fwdfs needs of a host: name, why, how it is found out, and what mends it. `fwdfs doctor`, the demo
 * and the docs read it.
 *
 * A check is tried, not guessed, where a try is cheap. Whatever may be missing is imported or run only by its own check.
 */
import { execFile } from 'node:child_process';
import { accessSync, constants, existsSync, readFileSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe } from '../base/errors.js';
import { type Capability, hasCapability } from '../sys/capabilities.js';

/** `run`: to run fwdfs and its demo; `tests`: to run its tests; `advice`: fine without, for some uses. */
export type Need = 'run' | 'tests' | 'advice';

export interface Check {
  readonly name: string;
  readonly need: Need;
  /** What it is for, to finish the sentence "it is needed …". */
  readonly why: string;
  /** Resolves to what is wrong, or to null; what it throws is wrong, too. */
  readonly probe: () => Promise<string | null>;
  /** Debian package that has it, or, beside a command, the program that finds it out. */
  readonly package?: string;
  /** What mends it where a package alone does not. */
  readonly command?: string;
  /** Whether --fix may run `command`. */
  readonly automatic?: boolean;
}

const AS_ROOT = 'run it as root: sudo fwdfs …';
const COMMAND_TIMEOUT_MS = 10_000;
const NODE_MINIMUM = [20, 11] as const;
const AF_PACKET = 17;
const SOCK_RAW = 3;
/** ETH_P_ALL in network byte order. */
const ETH_P_ALL = 0x0300;

/** Tries a command. @returns what is wrong, or null */
function attempt(command: string, ...args: string[]): Promise<string | null> {
  return new Promise((settle) => {
    execFile(
      command,
      args,
      { timeout: COMMAND_TIMEOUT_MS, env: { ...process.env, LC_ALL: 'C' } },
      (error, _, stderr) => {
        if (error === null) settle(null);
        else if (error.code === 'ENOENT') settle('not found');
        else settle(stderr.trim().split('\n', 1)[0] || error.message.split('\n', 1)[0] || 'failed');
      },
    );
  });
}

/** As a check's probe. */
const runs =
  (command: string, ...args: string[]) =>
  (): Promise<string | null> =>
    attempt(command, ...args);

const immediate = (probe: () => string | null) => (): Promise<string | null> =>
  new Promise((settle) => settle(probe()));

function textOf(file: string): string {
  return readFileSync(file, 'utf8').trim();
}

/** A device file of the kernel that can be opened for reading and writing. */
const device = (path: string): (() => Promise<string | null>) =>
  immediate(() => {
    if (!existsSync(path)) return 'not there';
    accessSync(path, constants.R_OK | constants.W_OK);
    return null;
  });

function capability(name: Capability, why: string): Check {
  return {
    name,
    need: 'run',
    why,
    command: AS_ROOT,
    probe: immediate(() => (hasCapability(name) ? null : 'this process does not have it')),
  };
}

function tool(name: string, need: Need, why: string, debianPackage: string, ...args: string[]): Check {
  return { name, need, why, package: debianPackage, probe: runs(name, ...args) };
}

/** The link by which mount(8) finds our helper. Making it is left to the user: it is outside of what is ours. */
function mountHelper(name: string, why: string): Check {
  const helper = fileURLToPath(new URL('../../../bin/mount.fwdfs', import.meta.url));
  return {
    name: `/sbin/${name}`,
    need: 'advice',
    why,
    command: `ln -sf ${helper} /sbin/${name}`,
    probe: immediate(() => (existsSync(`/sbin/${name}`) ? null : 'not there')),
  };
}

/** A packet socket in a network namespace of its own, made by this process and left again. */
async function packetSocket(): Promise<string | null> {
  const { CLONE_NEWNET, must, O, sys } = await import('../sys/libc.js');
  const home = must('open', sys.open('/proc/thread-self/ns/net', O.RDONLY | O.CLOEXEC));
  try {
    must('unshare', sys.unshare(CLONE_NEWNET));
    const socket = sys.socket(AF_PACKET, SOCK_RAW, ETH_P_ALL);
    must('setns', sys.setns(home, CLONE_NEWNET));
    sys.close(must('socket', socket));
    return null;
  } finally {
    sys.close(home);
  }
}

export const CHECKS: readonly Check[] = [
  {
    name: 'node',
    need: 'run',
    why: 'to run fwdfs',
    command: 'install Node.js 20 from https://nodejs.org',
    probe: immediate(() => {
      const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
      const isOld = major < NODE_MINIMUM[0] || (major === NODE_MINIMUM[0] && minor < NODE_MINIMUM[1]);
      return isOld ? `version ${process.versions.node}, expected ${NODE_MINIMUM.join('.')} or later` : null;
    }),
  },
  {
    name: 'koffi',
    need: 'run',
    why: 'to call the kernel',
    command: 'npm ci',
    probe: async () => {
      await import('../sys/libc.js');
      return null;
    },
  },
  capability('CAP_SYS_ADMIN', 'to mount'),
  capability('CAP_NET_ADMIN', 'to set up interfaces and nftables'),
  capability('CAP_NET_RAW', 'to receive and send frames'),
  {
    name: 'kernel: fuse',
    need: 'run',
    why: 'for the file system',
    command: 'modprobe fuse',
    automatic: true,
    probe: immediate(() => (/\tfuse$/m.test(readFileSync('/proc/filesystems', 'utf8')) ? null : 'not there')),
  },
  {
    name: '/dev/fuse',
    need: 'run',
    why: 'for the file system',
    command: 'mknod -m 0666 /dev/fuse c 10 229',
    automatic: true,
    probe: device('/dev/fuse'),
  },
  {
    name: '/dev/net/tun',
    need: 'run',
    why: 'for virtual interfaces',
    command: 'modprobe tun',
    automatic: true,
    probe: device('/dev/net/tun'),
  },
  {
    name: 'kernel: packet sockets',
    need: 'run',
    why: 'to receive and send frames, in network namespaces too',
    command: 'modprobe af_packet',
    automatic: true,
    probe: packetSocket,
  },
  {
    name: 'kernel: veth',
    need: 'run',
    why: 'for the demo',
    package: 'iproute2',
    command: 'modprobe veth',
    automatic: true,
    probe: runs('unshare', '--net', 'ip', 'link', 'add', 'fwdfs0', 'type', 'veth', 'peer', 'name', 'fwdfs1'),
  },
  {
    name: 'kernel: nf_tables',
    need: 'run',
    why: 'to discard what no rule takes',
    package: 'nftables',
    command: 'modprobe nf_tables',
    automatic: true,
    probe: runs('unshare', '--net', 'nft', 'add', 'table', 'inet', 'fwdfs'),
  },
  {
    name: 'kernel: tracepoints',
    need: 'advice',
    why: 'for the sockets of virtual IFs: one that opens is seen at once, without them it is looked for every 100 ms',
    command: 'run as root a kernel with CONFIG_FTRACE_SYSCALLS and CONFIG_PERF_EVENTS',
    probe: async () => {
      const { opening, why } = (await import('../control/socket-calls.js')).socketSources();
      return opening === 'events' ? null : why;
    },
  },
  tool('nft', 'run', 'to discard what no rule takes', 'nftables', '--version'),
  tool('ip', 'run', 'for network namespaces', 'iproute2', '-V'),
  tool('nsenter', 'run', 'for network namespaces', 'util-linux', '--version'),
  tool('setpriv', 'run', 'for the demo', 'util-linux', '--version'),
  tool('tcpdump', 'run', 'for the demo', 'tcpdump', '--version'),
  tool('ping', 'run', 'for the demo', 'iputils-ping', '-V'),
  tool('tshark', 'tests', 'for the tests', 'tshark', '--version'),
  tool('ethtool', 'tests', 'for the tests', 'ethtool', '--version'),
  tool('iperf3', 'tests', 'for the tests', 'iperf3', '--version'),
  tool('socat', 'tests', 'for the tests', 'socat', '-V'),
  tool('lsof', 'tests', 'for the tests', 'lsof', '-v'),
  tool('xxd', 'tests', 'for the tests', 'xxd', '-v'),
  tool('nginx', 'tests', 'for the tests', 'nginx-light', '-v'),
  tool('haproxy', 'tests', 'for the benches', 'haproxy', '-v'),
  // It has no option that ends with 0.
  { name: 'wrk', need: 'tests', why: 'for the benches', package: 'wrk', probe: runs('sh', '-c', 'command -v wrk') },
  tool('dnsmasq', 'tests', 'for the tests', 'dnsmasq-base', '--version'),
  tool('bird', 'tests', 'for the tests', 'bird2', '--version'),
  tool('lldpd', 'tests', 'for the tests', 'lldpd', '-v'),
  tool('curl', 'tests', 'for the tests', 'curl', '--version'),
  tool('nc', 'tests', 'for the tests', 'netcat-openbsd', '-h'),
  tool('dig', 'tests', 'for the tests', 'bind9-dnsutils', '-v'),
  tool('udhcpc', 'tests', 'for the tests', 'udhcpc', '--help'),
  tool('traceroute', 'tests', 'for the tests', 'traceroute', '--version'),
  tool('arping', 'tests', 'for the tests', 'iputils-arping', '-V'),
  tool('ndisc6', 'tests', 'for the tests', 'ndisc6', '-V'),
  tool('ps', 'tests', 'for the tests', 'procps', '--version'),
  tool('python3', 'tests', 'for the tests', 'python3', '--version'),
  {
    name: 'scapy',
    need: 'tests',
    why: 'for the tests',
    package: 'python3-scapy',
    probe: runs('/usr/bin/python3', '-c', 'import importlib.util as u, sys; sys.exit(u.find_spec("scapy") is None)'),
  },
  { name: 'fuse3', need: 'tests', why: 'for the tests', package: 'fuse3', probe: runs('fusermount3', '-V') },
  tool('fusermount3', 'advice', 'to mount as another user than root', 'fuse3', '-V'),
  {
    name: '/dev/fuse for all',
    need: 'advice',
    why: 'to mount as another user than root',
    command: 'chmod 0666 /dev/fuse',
    probe: immediate(() =>
      (statSync('/dev/fuse').mode & 0o006) === 0o006 ? null : 'not readable and writable by all',
    ),
  },
  mountHelper('mount.fwdfs', 'for mount -t fwdfs and /etc/fstab'),
  mountHelper('mount.fuse.fwdfs', 'for mount -t fuse.fwdfs'),
  {
    name: 'libfuse 2',
    need: 'tests',
    why: 'for the tests',
    package: 'libfuse2',
    probe: async () => (await import('../sys/libc.js')).whyNoLibrary('libfuse.so.2'),
  },
  {
    name: 'fuse-native',
    need: 'advice',
    why: 'for -o fuse_backend=fuse-native',
    command: 'apt-get install -y libfuse2 && npm install fuse-native',
    probe: async () => (await import('../fusefs/fuse-native-library.js')).whyNoFuseNative(),
  },
  {
    name: 'ip_forward',
    need: 'advice',
    why: 'for a forwarder that routes',
    command: 'sysctl -w net.ipv4.ip_forward=1',
    probe: immediate(() => (textOf('/proc/sys/net/ipv4/ip_forward') === '0' ? 'off' : null)),
  },
  {
    name: 'rp_filter',
    need: 'advice',
    why: 'for a host with several ways to one network',
    command: 'sysctl -w net.ipv4.conf.all.rp_filter=2',
    probe: immediate(() => (textOf('/proc/sys/net/ipv4/conf/all/rp_filter') === '1' ? 'strict' : null)),
  },
  {
    name: 'user_allow_other',
    need: 'advice',
    why: 'for -o allow_other by others than root',
    command: 'echo user_allow_other >> /etc/fuse.conf',
    probe: immediate(() => {
      const isSet = existsSync('/etc/fuse.conf') && /^\s*user_allow_other\s*$/m.test(textOf('/etc/fuse.conf'));
      return isSet ? null : 'not set in /etc/fuse.conf';
    }),
  },
];

export interface Finding {
  readonly check: Check;
  /** What is wrong, or null. */
  readonly problem: string | null;
}

async function problemOf(check: Check): Promise<string | null> {
  try {
    return await check.probe();
  } catch (error) {
    return describe(error).split('\n', 1)[0] ?? 'failed';
  }
}

/** Runs checks, all at once. */
export function examine(checks: readonly Check[]): Promise<Finding[]> {
  return Promise.all(checks.map(async (check) => ({ check, problem: await problemOf(check) })));
}

/** What unshare(1) says of a program that is not there. */
const NO_PROGRAM = /failed to execute/;

/** The command that mends what was found, as one would type it. */
export function mendOf({ check, problem }: Finding): string {
  if (problem !== null && /EPERM|EACCES|not permitted|permission denied/i.test(problem)) return AS_ROOT;
  const isProgramMissing = check.package !== undefined && NO_PROGRAM.test(problem ?? '');
  if (check.command !== undefined && !isProgramMissing) return check.command;
  return `apt-get install -y ${check.package ?? ''}`;
}
