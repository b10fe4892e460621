/** A process that has sockets: python3 in a network namespace, which runs a line at a time and says what it evaluates to. */
import type { ChildProcessWithoutNullStreams } from 'node:child_process';
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Netns } from './netns.js';

const PROGRAM = `
import sys, os, struct, ctypes
from socket import *
def bound(family, kind, address, protocol=0, *options):
    s = socket(family, kind, protocol)
    for option in options: s.setsockopt(*option)
    s.bind(address)
    return s
def listening(family, address, *options):
    s = bound(family, SOCK_STREAM, address, 0, (SOL_SOCKET, SO_REUSEADDR, 1), *options)
    s.listen(16)
    return s
def inode(s): return os.fstat(s.fileno()).st_ino
def filtered(s, hexadecimal):
    program = ctypes.create_string_buffer(bytes.fromhex(hexadecimal))
    s.setsockopt(SOL_SOCKET, 26, struct.pack('HxxxxxxP', len(program) // 8, ctypes.addressof(program)))
    return s
names = globals()
print('ready', flush=True)
for line in sys.stdin:
    try:
        try: result = eval(line, names)
        except SyntaxError:
            result = None
            exec(line, names)
        print('=', result, flush=True)
    except Exception as error: print('!', repr(error), flush=True)
`;

/** Lines that wait for their answer, in order. */
interface Waiting {
  resolve(answer: string): void;
  reject(error: Error): void;
}

export class SocketProcess {
  private readonly child: ChildProcessWithoutNullStreams;
  private readonly waiting: Waiting[] = [];
  private readonly ended: Promise<void>;

  private constructor(netns: Netns) {
    const words = [...netns.prefix.slice(1), '/usr/bin/python3', '-u', '-c', PROGRAM];
    this.child = spawn('nsenter', words, { stdio: 'pipe' });
    this.child.stderr.on('data', (text: Buffer) => process.stderr.write(text));
    createInterface({ input: this.child.stdout }).on('line', (line) => {
      const next = this.waiting.shift();
      if (line.startsWith('!')) next?.reject(new Error(line));
      else next?.resolve(line.slice(2));
    });
    this.ended = new Promise((resolve) => this.child.once('exit', () => resolve()));
    void this.ended.then(() => {
      for (const { reject } of this.waiting.splice(0)) reject(new Error('the process ended'));
    });
  }

  static async start(netns: Netns): Promise<SocketProcess> {
    const started = new SocketProcess(netns);
    await started.answer();
    return started;
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  /** Runs a line of Python. @returns what it evaluates to, as text */
  run(line: string): Promise<string> {
    const answer = this.answer();
    this.child.stdin.write(`${line}\n`);
    return answer;
  }

  /** kill -9; resolves when the process is gone. */
  kill(): Promise<void> {
    this.child.kill('SIGKILL');
    return this.ended;
  }

  private answer(): Promise<string> {
    return new Promise((resolve, reject) => void this.waiting.push({ resolve, reject }));
  }
}
