/**
 * What the compliance cases share: a lab, shells and Python as its users, frames that come and frames that left.
 *
 *     node n0 ===== eth0 forwarder c0 ===== f0 control device: MNT, used by children only
 *     put() --> received                    sh(), py(), reader()
 *     left() <-- sent
 *
 * Shell lines find the forwarder's directory as $F, the mount as $M, a folder for files as $T, and the words that run
 * a command at the node and at the forwarder as $NODE and $FWD.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Lab, type LabOptions, Program, run, until } from '../lab.js';
import { Capture, hexOf, macOf, numbered, pcap, pythonWords, shown } from '../traffic.js';

/** The system's own: another one that stands first in PATH may lack scapy. */
const PYTHON = '/usr/bin/python3';

/** Sends each line of hex it gets, and says so. */
const SENDER = `
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind((sys.argv[1], 0))
for line in sys.stdin:
    s.send(bytes.fromhex(line))
    print(flush=True)
`;

export interface Said {
  readonly status: number | null;
  readonly out: string;
  readonly err: string;
}

export class Scene {
  readonly lab: Lab;
  /** MAC addresses of both ends of the link. */
  readonly node: string;
  readonly eth0: string;
  readonly folder: string;
  private readonly wire: Capture;
  private readonly sender: Program;
  private readonly programs: Program[] = [];
  private sent = 0;
  private made = 0;

  private constructor(lab: Lab, wire: Capture) {
    this.lab = lab;
    this.wire = wire;
    this.node = macOf(lab.node, 'n0');
    this.eth0 = macOf(lab.fwd, 'eth0');
    this.folder = join(lab.folder, 'files');
    mkdirSync(this.folder);
    this.sender = new Program([...lab.node.prefix, PYTHON, '-c', SENDER, 'n0'], null);
  }

  static async start(options: LabOptions): Promise<Scene> {
    const lab = await Lab.start(options);
    try {
      // The interface's own tunnel comes with the registration, which a mount does not wait for.
      await until(async () => (await lab.ownTable('transmission')).length === 1);
      return new Scene(lab, await Capture.start(lab, lab.node, 'n0', 'in'));
    } catch (error) {
      await lab.stop();
      throw error;
    }
  }

  async stop(): Promise<void> {
    this.sender.child.kill('SIGKILL');
    await this.lab.stop();
  }

  private get environment(): string[] {
    const { lab } = this;
    return [
      `F=${lab.file('')}`.replace(/\/$/, ''),
      `M=${lab.mountPoint}`,
      `T=${this.folder}`,
      `NODE=${lab.node.prefix.join(' ')}`,
      `FWD=${lab.fwd.prefix.join(' ')}`,
      'LC_ALL=C',
    ];
  }

  /** Words that run a line in bash; `$1`, `$2`, … are `args`. */
  words(line: string, ...args: string[]): string[] {
    return ['env', '-u', 'NODE_OPTIONS', ...this.environment, '/bin/bash', '-c', line, 'bash', ...args];
  }

  /** Runs a line in bash to its end. */
  async sh(line: string, ...args: string[]): Promise<Said> {
    const { status, stdout, stderr } = await run(this.words(line, ...args));
    return { status, out: stdout.toString(), err: stderr };
  }

  /** Starts a line in bash that goes on; it ends with the case at the latest. */
  start(line: string, ...args: string[]): Program {
    return this.program(this.words(line, ...args));
  }

  private program(words: readonly string[]): Program {
    const program = this.lab.program(words);
    this.programs.push(program);
    return program;
  }

  /** Ends what a case started and did not end. */
  async endPrograms(): Promise<void> {
    const programs = this.programs.splice(0);
    for (const program of programs) program.child.kill('SIGKILL');
    await Promise.all(programs.map((program) => program.ended));
  }

  /** A Python script with `p(NAME)`, `err(CALL, …)`, `rules()`, `show(VALUE)`, as in test/support/traffic.ts. */
  async py(script: string, input: Buffer | string = ''): Promise<unknown[]> {
    return shown(await run(this.pyWords(script), input));
  }

  /** Starts such a script, as `start` does. */
  startPy(script: string): Program {
    return this.program(this.pyWords(script));
  }

  private pyWords(script: string): string[] {
    return [PYTHON, ...pythonWords(this.lab, script).slice(1)];
  }

  /** A `cat` of a name, after its open() returned. */
  async reader(name: string): Promise<Program> {
    const reader = await this.lab.reader(name);
    this.programs.push(reader);
    return reader;
  }

  /** A file in $T. @returns its path */
  file(name: string, bytes: Buffer | string): string {
    const path = join(this.folder, name);
    writeFileSync(path, bytes);
    return path;
  }

  /** Frames that no other case has, for what stands behind the interface. */
  fresh(count: number, length = 100): Buffer[] {
    this.made += count;
    return numbered(count, length, this.node, this.made - count);
  }

  /** The same for the interface itself. */
  incoming(count: number, length = 100): Buffer[] {
    this.made += count;
    return numbered(count, length, this.eth0, this.made - count);
  }

  /** Lets frames arrive at the interface. */
  async put(frames: readonly Buffer[]): Promise<void> {
    this.sent += frames.length;
    this.sender.child.stdin?.write(`${hexOf(frames).join('\n')}\n`);
    await this.sender.untilOutput((output) => output.length === this.sent);
  }

  /** Test frames that left the interface while `work` ran, as hex. A mark behind them shows that no more come. */
  async left(work: () => Promise<void>): Promise<string[]> {
    const before = this.wire.frames.length;
    await work();
    const [mark = Buffer.alloc(0)] = this.fresh(1);
    const marked = await run(this.words('cat > $F/eth0'), pcap([mark]));
    if (marked.status !== 0) throw new Error(marked.stderr);
    const end = mark.toString('hex');
    for (let count = before + 1; ; count++) {
      const frames = hexOf((await this.wire.untilCount(count)).slice(before));
      const at = frames.indexOf(end);
      if (at >= 0) return frames.slice(0, at);
      count = before + frames.length;
    }
  }

  /** Everything that openings leave in directories and tables: the names that are listed, the lines of each table. */
  async traces(): Promise<string> {
    const tables = '$F/.tables/distribution $F/.tables/reception $M/.tables/reception $M/.tables/transmission';
    return (await this.sh(`ls -A $F; cd $M; grep -c . ${tables}`)).out;
  }

  async listed(): Promise<string> {
    return (await this.sh('ls -A $F')).out;
  }

  /** The protocol addresses of the rules at the forwarder. */
  async rules(): Promise<string[]> {
    return (await this.lab.table('distribution')).map((row) => row[1] ?? '');
  }

  /** Waits until no rule is left: who closes does not wait for the release. */
  untilRules(count: number): Promise<void> {
    return until(async () => (await this.rules()).length === count);
  }

  /** What .state says about one thing. */
  async state(key: string): Promise<string> {
    return (await this.lab.state()).get(key) ?? '';
  }
}
