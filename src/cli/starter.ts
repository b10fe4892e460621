/**
 * The way from a control device in the background to the command that started it and waits.
 *
 *     tell() lines --> release(): `ready` --> serves on, on its own
 *              \____ the starter ends, by Ctrl-C for instance: `gone` rejects
 */
import { writeSync } from 'node:fs';
import { Socket } from 'node:net';

export const STARTER_FD = 3;
export const READY = 'ready\n';

export class Starter {
  /** Rejects when the one who waits is gone. */
  readonly gone: Promise<never>;
  private readonly socket = new Socket({ fd: STARTER_FD, readable: true, writable: true });
  private isWaiting = true;

  constructor() {
    this.gone = new Promise((_, reject) => {
      // It never writes: all that can come is the end.
      this.socket.once('close', () => reject(new Error('nobody waits for this mount any more: it was not made')));
    });
    this.gone.catch(() => undefined);
    this.socket.on('error', () => undefined);
    this.socket.resume();
  }

  /** @returns whether somebody was there to be told */
  tell(text: string): boolean {
    if (!this.isWaiting) return false;
    try {
      // Not by the socket: a process that ends now would take the text along.
      writeSync(STARTER_FD, text);
      return true;
    } catch {
      return false;
    }
  }

  /** The mount is ready. If nobody waited for it, it is ended as a signal would. */
  release(): void {
    const wasTold = this.tell(READY);
    this.isWaiting = false;
    this.socket.destroy();
    if (!wasTold) process.kill(process.pid, 'SIGTERM');
  }
}
