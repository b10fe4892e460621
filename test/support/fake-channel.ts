/** The /tunnel channel of a Peer, a DownTunnel or an UpPath: keeps a copy of what is sent. */
import { nextFrame, printFrame } from '../../src/tunnel/frames.js';

type Done = (buffer: Buffer) => void;

export class FakeChannel {
  connected = true;
  /** Keeps buffers, as a slow connection does, until `giveBack`. */
  slow = false;
  /** Everything that was sent, a copy each. */
  readonly messages: Buffer[] = [];
  private readonly direction: 'up' | 'down';
  private readonly kept: [buffer: Buffer, done: Done][] = [];
  private taken = 0;

  /** @param direction in which its frames travel */
  constructor(direction: 'up' | 'down') {
    this.direction = direction;
  }

  sendFrames(buffer: Buffer, length: number, done: Done): boolean {
    if (this.connected) this.messages.push(Buffer.from(buffer.subarray(0, length)));
    if (this.connected && this.slow) this.kept.push([buffer, done]);
    else done(buffer);
    return this.connected;
  }

  giveBack(): void {
    for (const [buffer, done] of this.kept.splice(0)) done(buffer);
  }

  /** The frames of the messages since the last call, one line each. */
  takeLines(): string[] {
    const messages = this.messages.slice(this.taken);
    this.taken = this.messages.length;
    return messages.flatMap((message) => linesOf(message, this.direction));
  }
}

/** The frames of one message, printed; throws when one is malformed. */
export function linesOf(message: Buffer, direction: 'up' | 'down'): string[] {
  const lines: string[] = [];
  for (let at = 0; at < message.length;) {
    lines.push(printFrame(message, at, direction));
    at = nextFrame(message, at, message.length);
    if (at < 0) throw new Error('a malformed frame was sent');
  }
  return lines;
}
