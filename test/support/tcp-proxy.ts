/** A TCP relay that can be cut, or frozen: then it stays connected and passes nothing. */
import { type AddressInfo, type Socket, connect, createServer } from 'node:net';

export interface TcpProxy {
  readonly port: number;
  /** Connections made so far. */
  readonly count: number;
  /** Destroys every connection; new ones work. */
  cut(): void;
  /** The connections of now pass nothing any more, without being closed; new ones work. */
  freeze(): void;
  close(): Promise<void>;
}

/** @param host where it listens, and where the target does */
export async function startTcpProxy(targetPort: number, host = '127.0.0.1'): Promise<TcpProxy> {
  const sockets = new Set<Socket>();
  let count = 0;
  const server = createServer({ pauseOnConnect: false }, (near) => {
    count += 1;
    const far = connect(targetPort, host);
    near.setNoDelay();
    far.setNoDelay();
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(one);
      one.on('error', () => undefined);
      one.once('close', () => {
        sockets.delete(one);
        other.destroy();
      });
      one.pipe(other);
    }
  });
  await new Promise<void>((resolve) => server.listen(0, host, resolve));
  const cut = (): void => {
    for (const socket of [...sockets]) socket.destroy();
  };
  return {
    port: (server.address() as AddressInfo).port,
    get count() {
      return count;
    },
    cut,
    freeze() {
      for (const socket of sockets) {
        socket.unpipe();
        socket.pause();
      }
    },
    close() {
      cut();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}
