/** A TunnelServer and TunnelClients that write down what happens to them, with a real connection between. */
import { FwdfsError } from '../../src/base/errors.js';
import type { Peer } from '../../src/tunnel/listener.js';
import type { ListenOptions } from '../../src/tunnel/listener.js';
import type { Answer, Message, MessageArgs } from '../../src/tunnel/messages.js';
import { TunnelClient, type TunnelClientOptions, type Connected } from '../../src/tunnel/client.js';
import { TunnelServer, type TunnelServerOptions } from '../../src/tunnel/server.js';
import type { Session } from '../../src/tunnel/session.js';
import { type KeptLine, keepLog } from './log.js';

/** Events as lines, and promises for those to come. */
export class Diary {
  readonly lines: string[] = [];
  private waiting: (() => void)[] = [];

  add(line: string): void {
    this.lines.push(line);
    for (const wake of this.waiting.splice(0)) wake();
  }

  /** Resolves when the last line, or any line after the first `from`, is this one or begins with it. */
  async until(start: string, from = 0): Promise<string> {
    for (;;) {
      const line = this.lines.slice(from).find((candidate) => candidate.startsWith(start));
      if (line !== undefined) return line;
      await new Promise<void>((resolve) => this.waiting.push(resolve));
    }
  }

  /** Resolves when that many lines begin so. */
  async count(start: string, count: number): Promise<void> {
    while (this.lines.filter((line) => line.startsWith(start)).length < count) {
      await new Promise<void>((resolve) => this.waiting.push(resolve));
    }
  }
}

export interface ServerEnd {
  readonly server: TunnelServer;
  readonly diary: Diary;
  readonly log: { lines: KeptLine[] };
  readonly url: string;
  readonly port: number;
  /** The session that was active last. */
  latest(): Session;
  /** Frames' bytes received. */
  bytes(): number;
  readonly peers: Peer[];
}

export interface ServerEndOptions extends Partial<TunnelServerOptions> {
  url?: string;
  listen?: ListenOptions;
  answer?: (session: Session, ...message: MessageArgs) => Answer | Promise<Answer>;
  /** Down tunnels that a resume tells. */
  received?: { tunnel: number; sequence: number }[];
}

/** Listens on 127.0.0.1 and takes the token 'good' of anybody for his name, unless told otherwise. */
export async function startServer(options: ServerEndOptions = {}): Promise<ServerEnd> {
  const diary = new Diary();
  const log = keepLog();
  const peers: Peer[] = [];
  let latest: Session | undefined;
  let bytes = 0;
  const server = new TunnelServer({
    name: 'fwd1',
    log,
    authenticate(hello: Message<'hello'>, peer: Peer): string {
      peers.push(peer);
      if (hello.token !== 'good') throw new FwdfsError('not-authenticated', `${hello.name} has no good token`);
      return hello.name;
    },
    handler: {
      active(session, resumed) {
        latest = session;
        diary.add(`active ${session.name} resumed=${resumed}`);
      },
      message(session, ...message) {
        diary.add(`message ${message[0]}`);
        return options.answer?.(session, ...message);
      },
      frames(_session, _message, end) {
        bytes += end;
        diary.add(`frames ${end}`);
      },
      suspended: (session) => diary.add(`suspended ${session.name}`),
      closed: (session, reason) => diary.add(`closed ${session.name}: ${reason}`),
      received: () => options.received ?? [],
      sent: () => [],
    },
    ...options,
  });
  await server.listen([options.url ?? 'ws://127.0.0.1:0'], options.listen);
  const url = server.urls[0] ?? '';
  return {
    server,
    diary,
    log,
    url,
    port: Number(new URL(url.startsWith('ws+unix') ? 'ws://x:1' : url).port),
    latest() {
      if (latest === undefined) throw new Error('no session was active yet');
      return latest;
    },
    bytes: () => bytes,
    peers,
  };
}

export interface ClientEnd {
  readonly client: TunnelClient;
  readonly diary: Diary;
  readonly log: { lines: KeptLine[] };
  readonly connections: Connected[];
}

export interface ClientEndOptions extends Partial<TunnelClientOptions> {
  answer?: (...message: MessageArgs) => Answer | Promise<Answer>;
  onConnected?: (connected: Connected) => Promise<void> | void;
}

/** Connects as ctl1 with the token 'good', and again at once when it was cut, unless told otherwise. */
export function startClient(url: string, options: ClientEndOptions = {}): ClientEnd {
  const diary = new Diary();
  const log = keepLog();
  const connections: Connected[] = [];
  const client = new TunnelClient({
    url,
    name: 'ctl1',
    token: 'good',
    log,
    random: () => 0,
    handler: {
      connected(connected) {
        connections.push(connected);
        diary.add(`connected resumed=${connected.resumed} sameEpoch=${connected.sameEpoch}`);
        return options.onConnected?.(connected);
      },
      message(...message) {
        diary.add(`message ${message[0]}`);
        return options.answer?.(...message);
      },
      frames: (_message, end) => diary.add(`frames ${end}`),
      disconnected: (error, orderly) => diary.add(`disconnected ${error.code} orderly=${orderly}: ${error.what}`),
      failed: (error) => diary.add(`failed ${error.code}: ${error.what}`),
    },
    ...options,
  });
  return { client, diary, log, connections };
}
