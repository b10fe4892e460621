/** fwdfs demo leaves nothing behind, however it ends. */
import { type ChildProcess, spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import t from 'tap';
import { FWDFS, signalProcess, until } from '../support/lab.js';
import { withoutRoot } from '../support/netns.js';

const LIMIT_MS = 40_000;

class Demo {
  readonly child: ChildProcess;
  stdout = '';
  stderr = '';
  readonly ended: Promise<void>;

  constructor(...args: string[]) {
    this.child = spawn(process.execPath, [FWDFS, 'demo', ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    this.child.stdout?.on('data', (data: Buffer) => (this.stdout += data.toString()));
    this.child.stderr?.on('data', (data: Buffer) => (this.stderr += data.toString()));
    const late = setTimeout(() => this.child.kill('SIGKILL'), LIMIT_MS);
    this.ended = new Promise((resolve) => {
      this.child.once('close', () => {
        clearTimeout(late);
        resolve();
      });
    });
  }

  /** Waits for something that it prints. */
  async until(text: string): Promise<void> {
    await until(() => {
      if (this.child.exitCode !== null) throw new Error(`ended early: ${this.stderr}`);
      return this.stdout.includes(text);
    }, LIMIT_MS);
  }

  /** Everything on this host that carries its process id: namespaces, mounts, folders, processes. */
  left(): string[] {
    const isMine = (text: string): boolean => new RegExp(`fwdfs-demo-(\\w+-)?${this.child.pid}\\b`).test(text);
    const processes = readdirSync('/proc').filter((name) => /^\d+$/.test(name) && Number(name) !== this.child.pid);
    return [
      ...readdirSync('/run/netns').filter(isMine),
      ...readFileSync('/proc/self/mountinfo', 'utf8').split('\n').filter(isMine),
      ...readdirSync(tmpdir()).filter(isMine),
      ...processes.filter((pid) => {
        try {
          return isMine(readFileSync(`/proc/${pid}/cmdline`, 'utf8'));
        } catch {
          return false;
        }
      }),
    ];
  }
}

const skip = withoutRoot;

t.test('demo --exit shows three things that happened, and leaves nothing behind', { skip }, async (t) => {
  const demo = new Demo('--exit');
  await demo.ended;
  t.equal(demo.child.exitCode, 0, demo.stderr);
  t.equal(demo.stderr, '');
  t.match(
    demo.stdout,
    /cat fwd\/fwd1\/eth0 \| tcpdump[^]*eth0 +\* +in[^]*10\.9\.0\.2 > 10\.9\.0\.1: ICMP echo request/,
  );
  t.match(demo.stdout, /cat trace\.pcap > fwd\/fwd1\/eth0\n[^]*10\.9\.0\.1 > 10\.9\.0\.2: ICMP echo reply/);
  t.match(demo.stdout, /eth0:icmp:hex \| head -2[^]*\n {2}[0-9a-f]{40,}\n {2}[0-9a-f]{40,}\n/);
  t.same(demo.left(), []);
});

t.test('demo waits, and Ctrl-C takes everything down', { skip }, async (t) => {
  const demo = new Demo();
  await demo.until('Ctrl-C here takes everything down.');
  t.ok(demo.left().length > 5, 'it is there');
  demo.child.kill('SIGINT');
  await demo.ended;
  t.equal(demo.child.exitCode, 0, demo.stderr);
  t.same(demo.left(), []);
});

t.test(
  'demo with two control devices runs a command that finds both, and leaves nothing behind',
  { skip },
  async (t) => {
    const line =
      'cat $FWD2/fwd1/.tables/permission; echo $FWD $FWD2; ip netns exec $CONTROL2_NETNS ip -br address show f0';
    const demo = new Demo('--controls', '2', '--', 'sh', '-c', line);
    await demo.ended;
    t.equal(demo.child.exitCode, 0, demo.stderr);
    t.match(demo.stdout, /vip[^]*\/fwd \S+\/fwd2\nf0\S* +UP +10\.8\.1\.2\/24/);
    t.same(demo.left(), []);
    const wrong = new Demo('--controls', '5');
    await wrong.ended;
    t.equal(wrong.child.exitCode, 2);
    t.match(wrong.stderr, /expected 1 to 4/);
  },
);

for (const [signal, moment, status] of [
  ['SIGINT', 'Building', 130],
  ['SIGTERM', 'folder:', 143],
  ['SIGINT', '2. Write', 130],
] as const) {
  t.test(`demo interrupted by ${signal} after "${moment}" leaves nothing behind`, { skip }, async (t) => {
    const demo = new Demo('--exit');
    await demo.until(moment);
    demo.child.kill(signal);
    await demo.ended;
    t.equal(demo.child.exitCode, status, demo.stderr);
    t.same(demo.left(), []);
  });
}

t.test('demo whose output nobody reads any more takes everything down', { skip }, async (t) => {
  const demo = new Demo('--exit');
  await demo.until('folder:');
  demo.child.stdout?.destroy();
  await demo.ended;
  t.same(demo.left(), []);
});

t.test('a daemon that ends takes the demo with it, which says why', { skip }, async (t) => {
  const demo = new Demo();
  await demo.until('Ctrl-C here');
  const isForwarder = (pid: string): boolean => {
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
      return words.includes('forwarder') && words.some((word) => word.includes(`fwdfs-demo-${demo.child.pid}-`));
    } catch {
      return false;
    }
  };
  const forwarder = readdirSync('/proc').find((name) => /^\d+$/.test(name) && isForwarder(name));
  signalProcess(Number(forwarder), 'SIGKILL');
  await demo.ended;
  t.equal(demo.child.exitCode, 1);
  t.match(demo.stderr, /^fwdfs: fwdfs forwarder ended: [^\n]*\n$/);
  t.same(demo.left(), []);
});

t.test('what a killed demo left behind goes with the next one', { skip }, async (t) => {
  const killed = new Demo();
  await killed.until('Ctrl-C here');
  killed.child.kill('SIGKILL');
  await killed.ended;
  t.ok(killed.left().length > 0, 'its namespaces stay');
  const next = new Demo('--exit');
  await next.ended;
  t.equal(next.child.exitCode, 0, next.stderr);
  t.same(killed.left(), []);
  t.same(next.left(), []);
});
