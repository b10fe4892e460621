/** Two message sockets joined in memory: what one sends, the other gets in a later turn. See MessageSocket. */
import type { MessageSocket, SocketEvents } from '../../src/tunnel/socket.js';

export class FakeSocket implements MessageSocket {
  isOpen = true;
  bytesReceived = 0;
  /** Neither sends nor answers pings any more, as a machine that lost its power. */
  frozen = false;
  pings = 0;
  closedWith: { code: number; reason: string } | undefined;
  private peer: FakeSocket | undefined;
  private events: SocketEvents | undefined;

  static pair(): [FakeSocket, FakeSocket] {
    const one = new FakeSocket();
    const two = new FakeSocket();
    one.peer = two;
    two.peer = one;
    return [one, two];
  }

  listen(events: SocketEvents): void {
    this.events = events;
  }

  send(data: Buffer, done: () => void): void {
    setImmediate(() => {
      if (!this.frozen) {
        this.peer?.arrive(Buffer.from(data));
        done();
      }
    });
  }

  ping(): void {
    this.pings += 1;
    setImmediate(() => {
      if (this.frozen || this.peer?.frozen) return;
      this.bytesReceived += 2;
      this.events?.pong();
    });
  }

  /** Delivers a message as if the other side had sent it. */
  arrive(data: Buffer, binary = true): void {
    if (!this.isOpen) return;
    this.bytesReceived += data.length;
    this.events?.message(data, binary);
  }

  close(code: number, reason: string): void {
    if (this.closedWith !== undefined || !this.isOpen) return;
    this.closedWith = { code, reason };
    setImmediate(() => {
      this.peer?.end(reason);
      this.end(reason);
    });
  }

  terminate(): void {
    setImmediate(() => {
      this.peer?.end('the connection was cut');
      this.end('the connection was cut');
    });
  }

  private end(why: string): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.events?.closed(why);
  }
}
