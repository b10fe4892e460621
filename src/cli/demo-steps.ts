/**
 * What `fwdfs demo` shows: a drawing and three things to try. Every line that is printed below a prompt was printed by that
 * command just now; a command that shows something else than it should fails the demo.
 */
import type { DemoLab, Job, Place } from './demo-lab.js';
import { tableLines } from './output.js';

const WAIT_MS = 5000;
const POLL_MS = 20;
const PROMPTS: Readonly<Partial<Record<Place, string>>> = { node: 'node', fwd: 'forwarder', ctl: 'control' };
const DISTRIBUTION = 'cat fwd/fwd1/.tables/distribution';
/** A pcap file header, and two records with an Ethernet frame of a ping each. */
const TWO_PINGS_BYTES = 24 + 2 * (16 + 98);

export class DemoSteps {
  private readonly lab: DemoLab;
  private readonly print: (line: string) => void;

  constructor(lab: DemoLab, print: (line: string) => void) {
    this.lab = lab;
    this.print = print;
  }

  drawing(): void {
    const { lab } = this;
    this.print(`
   node                       forwarder fwd1                        control device ctl1
  +--------------+           +----------------------+              +----------------------+
  |  n0 10.9.0.2 |-----------| eth0 10.9.0.1        |    tunnel    |                      |
  |              |           |         c0 10.8.0.1  |==============| f0 10.8.0.2          |
  +--------------+           +----------------------+              |  fwd/fwd1/eth0       |
   ping, tcpdump              fwdfs forwarder                      +----------------------+
                                                                    fwdfs mount
  network namespaces: ${lab.netns('node')}, ${lab.netns('fwd')}, ${lab.netns('ctl')}
  folder:             ${lab.folder}`);
  }

  async all(): Promise<void> {
    await this.reading();
    await this.writing();
    await this.hex();
  }

  private async reading(): Promise<void> {
    this.print('\n1. Read: open() sets a rule at the forwarder, close() takes it back.\n');
    await this.run('ctl', 'ls fwd/fwd1', /^eth0$/m);
    const reader = this.start('ctl', 'cat fwd/fwd1/eth0 | tcpdump -c 4 -nr -', '&');
    await this.rule(/^eth0\t/m);
    await this.run('ctl', DISTRIBUTION, /^eth0\t/m);
    await this.run('node', 'ping -q -c 6 -i 0.2 10.9.0.1', / 0% packet loss/, false);
    await this.ended(reader, /10\.9\.0\.2 > 10\.9\.0\.1: ICMP echo request/);
    await this.rule(/^(?!eth0\t)/, /^eth0\t/m);
    await this.run('ctl', DISTRIBUTION, /^interface\t/);
  }

  private async writing(): Promise<void> {
    this.print(
      '\n2. Write: frames leave through the remote interface. Here the replies of the forwarder, once more.\n',
    );
    const writer = this.start('ctl', 'cat fwd/fwd1/eth0:icmp:out > trace.pcap', '      # then Ctrl-C');
    await this.rule(/^eth0\ticmp\tout\t/m);
    await this.run('node', 'ping -q -c 2 -i 0.2 10.9.0.1', / 0% packet loss/, false);
    await this.until('two pings in trace.pcap', async () => {
      return Number(await this.output('ctl', 'wc -c < trace.pcap')) >= TWO_PINGS_BYTES;
    });
    writer.kill('SIGINT');
    await writer.ended;
    const capture = this.start('node', 'tcpdump -c 2 -n --immediate-mode -i n0 icmp', '&');
    await this.until('tcpdump on the node', () => Promise.resolve(capture.stderr.includes('listening on')));
    await this.run('ctl', 'cat trace.pcap > fwd/fwd1/eth0', /^$/);
    await this.ended(capture, /10\.9\.0\.1 > 10\.9\.0\.2: ICMP echo reply/);
  }

  private async hex(): Promise<void> {
    this.print('\n3. A name says what is wanted: only ICMP, a frame a line in hex. The shell is enough for that.\n');
    const reader = this.start('ctl', 'cat fwd/fwd1/eth0:icmp:hex | head -2 | cut -c -84', '&');
    await this.rule(/^eth0\ticmp\tin\t/m);
    await this.run('node', 'ping -q -c 4 -i 0.2 10.9.0.1', / 0% packet loss/, false);
    await this.ended(reader, /^([0-9a-f]{2} ?){20,}\n([0-9a-f]{2} ?){20,}/);
  }

  private start(place: Place, line: string, mark: string): Job {
    this.print(`${PROMPTS[place]}$ ${line}${mark === '' ? '' : ` ${mark}`}`);
    return this.lab.job(place, line);
  }

  /** Runs a line to its end and shows what it prints, which must match. */
  private async run(place: Place, line: string, expected: RegExp, show = true): Promise<void> {
    await this.ended(this.start(place, line, ''), expected, show);
  }

  private async ended(job: Job, expected: RegExp, show = true): Promise<void> {
    const late = setTimeout(() => job.kill('SIGKILL'), WAIT_MS);
    await job.ended;
    clearTimeout(late);
    if (!expected.test(job.stdout)) {
      throw new Error(`the demo shows not what it should: ${(job.stderr || job.stdout).trim() || 'nothing'}`);
    }
    if (!show) return;
    const lines = job.stdout.trimEnd().split('\n');
    const [header = '', ...rows] = lines.map((line) => line.split('\t'));
    const isTable = Array.isArray(header) && header.length > 1;
    for (const line of isTable ? tableLines({ columns: header, rows }, true) : lines) {
      if (line !== '') this.print(`  ${line}`);
    }
  }

  private async output(place: Place, line: string): Promise<string> {
    const job = this.lab.job(place, line);
    await job.ended;
    return job.stdout;
  }

  /** Waits until the distribution table matches, and does not match `not`. */
  private rule(expected: RegExp, not?: RegExp): Promise<void> {
    return this.until(`the rule ${String(not ?? expected)}`, async () => {
      const table = await this.output('ctl', DISTRIBUTION);
      return expected.test(table) && !(not?.test(table) ?? false);
    });
  }

  private async until(what: string, condition: () => Promise<boolean>): Promise<void> {
    for (const end = performance.now() + WAIT_MS; !(await condition());) {
      if (performance.now() > end) throw new Error(`the demo waited in vain for ${what}`);
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }
}
