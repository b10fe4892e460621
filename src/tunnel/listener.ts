/**
 * Where a forwarder listens: TCP, TLS and Unix sockets, HTTP on each, and the two paths that become WebSockets.
 *
 *   connection -> HTTP upgrade -> /control or /tunnel?key=… -> WebSocketTransport -> `opened`
 *                              -> anything else: 404
 *
 * A connection has HELLO_TIMEOUT_MS until its owner calls `accepted`; there is never more than MAX_SESSIONS of those that
 * wait, so that strangers cannot pile up.
 */
import { chmodSync, readFileSync, rmSync, statSync } from 'node:fs';
import { type IncomingMessage, type Server, createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { type AddressInfo, type Socket, connect } from 'node:net';
import { TLSSocket } from 'node:tls';
import { WebSocketServer } from 'ws';
import { FwdfsError, describe } from '../base/errors.js';
import { HELLO_TIMEOUT_MS, MAX_CONTROL_MESSAGE_BYTES, MAX_SESSIONS, MAX_TUNNEL_MESSAGE_BYTES } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { type MessageSocket, WebSocketTransport } from './socket.js';
import type { Cancel, Timers } from './timers.js';
import { type ListenUrl, parseListenUrl } from './urls.js';

/** Paths of PEM files. With `ca`, clients may show a certificate of that CA, and its common name is their identity. */
export interface ServerTls {
  readonly cert: string;
  readonly key: string;
  readonly ca?: string;
}

export interface ListenOptions {
  /** For the wss:// URLs. */
  readonly tls?: ServerTls;
  /** Mode of Unix sockets; 0o600 unless something else is said. */
  readonly unixMode?: number;
}

/** Who connected, as far as the transport knows. */
export interface Peer {
  /** IP address without an IPv4-mapped prefix; empty on a Unix socket. */
  readonly address: string;
  readonly loopback: boolean;
  readonly unix: boolean;
  /** Common name of a client certificate that the CA signed. */
  readonly certificateName: string | null;
}

export interface Opened {
  readonly path: '/control' | '/tunnel';
  /** `key` of the query, empty where there is none. */
  readonly key: string;
  readonly peer: Peer;
  readonly socket: MessageSocket;
  /** Stops the clock of HELLO_TIMEOUT_MS. */
  readonly accepted: () => void;
}

/** What the paths of requests are relative to. */
const HERE = 'ws://here';
const websocketOptions = { noServer: true, clientTracking: false, perMessageDeflate: false } as const;

export class Listener {
  private readonly server: Server;
  private readonly at: ListenUrl;
  private readonly timers: Timers;
  private readonly opened: (opened: Opened) => void;
  private readonly waiting = new Map<Socket, Cancel>();
  private readonly upgraders = {
    '/control': new WebSocketServer({ ...websocketOptions, maxPayload: MAX_CONTROL_MESSAGE_BYTES }),
    '/tunnel': new WebSocketServer({ ...websocketOptions, maxPayload: MAX_TUNNEL_MESSAGE_BYTES }),
  };

  private constructor(at: ListenUrl, options: ListenOptions, timers: Timers, opened: (opened: Opened) => void) {
    this.at = at;
    this.timers = timers;
    this.opened = opened;
    this.server = makeServer(at, options);
    this.server.on(at.kind === 'tls' ? 'secureConnection' : 'connection', (stream: Socket) => this.watch(stream));
    this.server.on('request', (_request, response) => response.writeHead(404, { connection: 'close' }).end());
    this.server.on('upgrade', (request, stream, head) => this.upgrade(request, stream as Socket, head));
  }

  /** @throws FwdfsError 'cannot-listen'; 'bad-config' for what is no URL to listen at */
  static async start(
    url: string,
    options: ListenOptions,
    tools: { readonly log: Logger; readonly timers: Timers },
    opened: (opened: Opened) => void,
  ): Promise<Listener> {
    const at = parseListenUrl(url);
    const { log, timers } = tools;
    try {
      if (at.kind === 'unix') await removeStale(at.path);
      const listener = new Listener(at, options, timers, opened);
      await listener.listen();
      if (at.kind === 'unix') chmodSync(at.path, options.unixMode ?? 0o600);
      listener.server.on('error', (error) => log.error({ url, err: error }, 'accepting connections failed'));
      return listener;
    } catch (error) {
      if (error instanceof FwdfsError) throw error;
      throw new FwdfsError('cannot-listen', `${url}: ${describe(error)}`, { cause: error });
    }
  }

  /** The URL with the port that the kernel chose for port 0. */
  get url(): string {
    if (this.at.kind === 'unix') return `ws+unix:${this.at.path}`;
    const { address, port, family } = this.server.address() as AddressInfo;
    return `${this.at.kind === 'tls' ? 'wss' : 'ws'}://${family === 'IPv6' ? `[${address}]` : address}:${port}`;
  }

  /** Stops listening and drops whoever has not been accepted; what was accepted goes on. */
  close(): Promise<void> {
    for (const stream of this.waiting.keys()) stream.destroy();
    return new Promise((resolve) => {
      this.server.close(() => resolve());
      this.server.closeAllConnections();
    });
  }

  private listen(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.server.once('error', reject);
      this.server.once('listening', () => {
        this.server.off('error', reject);
        resolve();
      });
      if (this.at.kind === 'unix') {
        // The socket file is made inside listen(): it must never be there with a wider mode, not even for a moment.
        const umask = process.umask(0o777);
        try {
          this.server.listen(this.at.path);
        } finally {
          process.umask(umask);
        }
      } else {
        this.server.listen(this.at.port, this.at.host);
      }
    });
  }

  private watch(stream: Socket): void {
    // Whoever means it says hello at once: those that waited longest make room, so that they can keep nobody out.
    if (this.waiting.size >= MAX_SESSIONS) this.waiting.keys().next().value?.destroy();
    this.waiting.set(
      stream,
      this.timers.after(HELLO_TIMEOUT_MS, () => stream.destroy()),
    );
    stream.once('close', () => this.forget(stream));
  }

  private forget(stream: Socket): void {
    this.waiting.get(stream)?.();
    this.waiting.delete(stream);
  }

  private upgrade(request: IncomingMessage, stream: Socket, head: Buffer): void {
    stream.on('error', () => stream.destroy());
    const text = request.url ?? '/';
    const url = URL.canParse(text, HERE) ? new URL(text, HERE) : null;
    const path = url?.pathname;
    if (url === null || (path !== '/control' && path !== '/tunnel')) {
      stream.end('HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
      return;
    }
    this.upgraders[path].handleUpgrade(request, stream, head, (ws) => {
      this.opened({
        path,
        key: url.searchParams.get('key') ?? '',
        peer: peerOf(stream, this.at.kind === 'unix'),
        socket: new WebSocketTransport(ws, stream),
        accepted: () => this.forget(stream),
      });
    });
  }
}

function makeServer(at: ListenUrl, options: ListenOptions): Server {
  if (at.kind !== 'tls') return createServer();
  const { tls } = options;
  if (tls === undefined) throw new FwdfsError('bad-config', 'wss:// needs tls: { cert, key }');
  const ca = tls.ca === undefined ? {} : { ca: readPem('ca', tls.ca), requestCert: true };
  // A client without a certificate may have a token; whether its certificate counts is asked later.
  const common = { rejectUnauthorized: false, handshakeTimeout: HELLO_TIMEOUT_MS };
  return createTlsServer({ cert: readPem('cert', tls.cert), key: readPem('key', tls.key), ...ca, ...common });
}

function readPem(what: string, file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    throw new FwdfsError('bad-config', `tls.${what}: expected a PEM file, ${describe(error)}`, { cause: error });
  }
}

function peerOf(stream: Socket, unix: boolean): Peer {
  const address = (stream.remoteAddress ?? '').replace(/^::ffff:(?=\d+\.)/, '');
  const loopback = unix || address.startsWith('127.') || address === '::1';
  return { address, loopback, unix, certificateName: certificateName(stream) };
}

/** Only a certificate that was asked for and checked against the configured CA names anybody. */
function certificateName(stream: Socket): string | null {
  if (!(stream instanceof TLSSocket) || !stream.authorized) return null;
  const name: unknown = stream.getPeerCertificate().subject?.CN;
  return typeof name === 'string' && name !== '' ? name : null;
}

/** A socket file that nobody listens at any more is in the way; one that somebody does stays. */
async function removeStale(path: string): Promise<void> {
  if (!(statSync(path, { throwIfNoEntry: false })?.isSocket() ?? false)) return;
  const alive = await new Promise<boolean>((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => resolve(true));
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'ECONNREFUSED'));
    probe.once('connect', () => probe.destroy());
  });
  if (alive) throw new FwdfsError('cannot-listen', `${path}: somebody listens there`);
  rmSync(path, { force: true });
}
