/**
 * Network namespaces for tests. Names carry a prefix and the process id, so that two runs can be side by side; they go with
 * the process at the latest.
 *
 * `enter` moves the main thread, and with it the sockets and child processes that are made from then on. Its way out leads to
 * an empty namespace and never back to the machine's: a test that timed out may go on after its teardown, and what it still
 * does to a kernel is not to be done to this one's.
 */
import { execFileSync } from 'node:child_process';
import { CLONE_NEWNET, must, O, sys } from '../../src/sys/libc.js';

/** For t.test options: false where network namespaces can be made. */
export const withoutRoot: string | false = process.getuid?.() === 0 ? false : 'needs root';

const COMMAND_TIMEOUT_MS = 20_000;
let made = 0;

function execute(words: readonly string[]): string {
  const [command = '', ...args] = words;
  return execFileSync(command, args, { stdio: 'pipe', timeout: COMMAND_TIMEOUT_MS }).toString();
}

export class Netns {
  readonly name: string;
  private readonly onExit = (): void => this.remove();
  private removed = false;

  constructor(label: string) {
    made += 1;
    this.name = `fwdfs${label}-${process.pid}-${made}`;
    execute(['ip', 'netns', 'add', this.name]);
    process.once('exit', this.onExit);
  }

  /** Words that run a command inside, in the mount namespace of the caller. */
  get prefix(): string[] {
    return ['nsenter', `--net=/run/netns/${this.name}`];
  }

  /** Runs a command line (split at blanks) inside. @returns its stdout; throws when it fails */
  run(line: string): string {
    return execute([...this.prefix, ...line.split(' ')]);
  }

  /** Moves the main thread in, for good as far as the machine's own namespace is concerned. @returns the way out */
  enter(): () => void {
    const back = this.moveIn();
    return () => {
      must('unshare', sys.unshare(CLONE_NEWNET));
      back.forget();
    };
  }

  private moveIn(): { readonly go: () => void; readonly forget: () => void } {
    const home = must('open', sys.open('/proc/thread-self/ns/net', O.RDONLY | O.CLOEXEC));
    const fd = must('open', sys.open(`/run/netns/${this.name}`, O.RDONLY | O.CLOEXEC));
    must('setns', sys.setns(fd, CLONE_NEWNET));
    sys.close(fd);
    const forget = (): void => void sys.close(home);
    const go = (): void => {
      must('setns', sys.setns(home, CLONE_NEWNET));
      forget();
    };
    return { go, forget };
  }

  /** Runs `work` with the main thread inside, then back where it was. Everything else of the process is inside too meanwhile. */
  async within<T>(work: () => T | Promise<T>): Promise<T> {
    const { go } = this.moveIn();
    try {
      return await work();
    } finally {
      go();
    }
  }

  remove(): void {
    if (this.removed) return;
    this.removed = true;
    process.off('exit', this.onExit);
    execute(['ip', 'netns', 'del', this.name]);
  }
}

/** One end of a veth pair. */
export interface End {
  readonly netns: Netns;
  readonly name: string;
  readonly addresses?: readonly string[];
}

/** A veth pair between two namespaces, both ends up. No address of its own making: the link is quiet. */
export function connectVeth(a: End, b: End): void {
  const peer = ['peer', 'name', b.name, 'netns', b.netns.name];
  execute(['ip', 'link', 'add', a.name, 'netns', a.netns.name, 'type', 'veth', ...peer]);
  for (const { netns, name, addresses = [] } of [a, b]) {
    netns.run('ip link set lo up');
    netns.run(`ip link set ${name} addrgenmode none`);
    for (const address of addresses) {
      netns.run(`ip addr add ${address} dev ${name}${address.includes(':') ? ' nodad' : ''}`);
    }
    netns.run(`ip link set ${name} up`);
  }
}
