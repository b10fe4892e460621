/** One connection to a forwarder: a URL and a path become a MessageSocket, or a FwdfsError. */
import { readFileSync } from 'node:fs';
import { type Socket, connect } from 'node:net';
import { type ClientOptions, WebSocket } from 'ws';
import { FwdfsError, describe } from '../base/errors.js';
import { type MessageSocket, WebSocketTransport, noMask } from './socket.js';
import { parseListenUrl } from './urls.js';

/** Paths of PEM files, read at every connect so that renewed ones count. */
export interface ClientTls {
  /** The client's own certificate and key, which name it. */
  readonly cert?: string;
  readonly key?: string;
  /** The CA that signed the forwarder's certificate; the system's own CAs if it is left out. */
  readonly ca?: string;
  /** Name that the forwarder's certificate must have, where it is not the host of the URL. */
  readonly servername?: string;
}

export interface DialOptions {
  readonly tls?: ClientTls;
  /** Largest message that is received. */
  readonly maxPayload: number;
}

export interface DialResult {
  /** Called within the event: listen to the socket at once. */
  opened(socket: MessageSocket, stream: Socket): void;
  /** 'not-connected' with the reason; not after `opened`, nor after `abort`. */
  failed(error: FwdfsError): void;
}

/** Starts to connect. @returns abort, harmless once it is open @throws FwdfsError 'bad-config' */
export function dial(url: string, path: string, options: DialOptions, result: DialResult): () => void {
  const at = parseListenUrl(url);
  const wsOptions: ClientOptions = {
    perMessageDeflate: false,
    generateMask: noMask,
    maxPayload: options.maxPayload,
    ...(at.kind === 'unix' ? { createConnection: () => connect(at.path) } : {}),
    ...(at.kind === 'tls' ? tlsOptions(options.tls) : {}),
  };
  const base = at.kind === 'unix' ? 'ws://localhost' : url.replace(/\/$/, '');
  const ws = new WebSocket(base + path, wsOptions);
  let settled = false;
  let stream: Socket | undefined;
  ws.on('upgrade', (response) => {
    stream = response.socket;
  });
  // Stays for good: a socket that was aborted still reports it.
  ws.on('error', (error: Error & { code?: string }) => {
    if (settled) return;
    settled = true;
    const why = error.message || error.code || 'failed';
    result.failed(new FwdfsError('not-connected', `cannot reach ${url}: ${why}`, { cause: error }));
  });
  ws.once('open', () => {
    if (settled || stream === undefined) return;
    settled = true;
    result.opened(new WebSocketTransport(ws, stream), stream);
  });
  return () => {
    if (settled) return;
    settled = true;
    ws.terminate();
  };
}

function tlsOptions(tls: ClientTls = {}): ClientOptions & { servername?: string } {
  const { cert, key, ca, servername } = tls;
  try {
    return {
      ...(cert === undefined ? {} : { cert: readFileSync(cert) }),
      ...(key === undefined ? {} : { key: readFileSync(key) }),
      ...(ca === undefined ? {} : { ca: readFileSync(ca) }),
      ...(servername === undefined ? {} : { servername }),
    };
  } catch (error) {
    throw new FwdfsError('bad-config', `tls: ${describe(error)}`, { cause: error });
  }
}
