/**
 * The forwarder's end: listeners, hello, and the life of sessions (drawn in session.ts).
 *
 *   /control opened -> hello -> negotiate, authenticate -> session made or resumed -> hello-response
 *   /tunnel?key=… opened -> the session with that key -> active
 *
 * When either channel goes, both go, and the session waits RESUME_TIME_MS for a hello with its id from the same identity.
 * A resume of a session that still has channels replaces them: they are half-dead, or their owner would not ask.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto';
import { FwdfsError, describe } from '../base/errors.js';
import { HELLO_TIMEOUT_MS, MAX_SESSIONS, MAX_WEIGHT, RESUME_TIME_MS } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { ControlChannel } from './control-channel.js';
import { type ListenOptions, Listener, type Opened, type Peer } from './listener.js';
import { type Answer, type Message, type MessageArgs, negotiate } from './messages.js';
import { ServerSession, type Session, type SessionHandler, type SessionOwner } from './session.js';
import { CLOSE_NORMAL } from './socket.js';
import { type Timers, realTimers } from './timers.js';
import { TunnelChannel } from './tunnel-channel.js';

export interface TunnelServerOptions {
  /** Name of the forwarder. */
  readonly name: string;
  readonly log: Logger;
  readonly handler: SessionHandler;
  /** Who this is, or FwdfsError 'not-authenticated'. A session is resumed only by the identity that began it. */
  authenticate(hello: Message<'hello'>, peer: Peer): string;
  readonly timers?: Timers;
  /** How long a suspended session is kept, in ms. Default RESUME_TIME_MS. */
  readonly resumeTime?: number;
}

const nothing = (): void => undefined;

export class TunnelServer implements SessionOwner {
  /** New at every start: a control device that sees another one knows that the forwarder has forgotten its rules. */
  readonly epoch = secret(8);
  private readonly options: TunnelServerOptions;
  readonly log: Logger;
  readonly timers: Timers;
  private readonly handler: SessionHandler;
  private readonly sessions = new Map<string, ServerSession>();
  private readonly listeners: Listener[] = [];
  private readonly resumeTime: number;
  private closing = false;

  constructor(options: TunnelServerOptions) {
    this.options = options;
    this.log = options.log;
    this.handler = options.handler;
    this.timers = options.timers ?? realTimers;
    this.resumeTime = options.resumeTime ?? RESUME_TIME_MS;
  }

  /** Listens at each URL, or at none. @throws FwdfsError 'cannot-listen', 'bad-config' */
  async listen(urls: readonly string[], options: ListenOptions = {}): Promise<void> {
    try {
      for (const url of urls) {
        this.listeners.push(await Listener.start(url, options, this, (opened) => this.opened(opened)));
      }
    } catch (error) {
      await Promise.all(this.listeners.splice(0).map((listener) => listener.close()));
      throw error;
    }
  }

  /** Where it listens, with the ports that the kernel chose. */
  get urls(): string[] {
    return this.listeners.map((listener) => listener.url);
  }

  /** The sessions that are active or suspended. */
  list(): Session[] {
    return [...this.sessions.values()].filter((session) => session.wasActive);
  }

  /** Says goodbye to everybody, ends every session and removes the socket files. */
  async close(reason = 'the forwarder stops'): Promise<void> {
    this.closing = true;
    for (const session of [...this.sessions.values()]) this.end(session, reason);
    await Promise.all(this.listeners.splice(0).map((listener) => listener.close()));
  }

  // --- opening ---

  private opened(opened: Opened): void {
    if (opened.path === '/control') this.controlOpened(opened);
    else this.tunnelOpened(opened);
  }

  private controlOpened({ peer, socket, accepted }: Opened): void {
    const control = new ControlChannel(socket, { side: 'forwarder', log: this.log, timers: this.timers });
    let session: ServerSession | null = null;
    control.onMessage((...message) => {
      if (session !== null) return this.message(session, control, message);
      try {
        if (message[0] !== 'hello') throw new FwdfsError('bad-message', `${message[0]} came before hello`);
        session = this.hello(message[1], peer, control);
        accepted();
        return this.response(session, session.wasActive);
      } catch (error) {
        this.log.warn({ address: peer.address, reason: describe(error) }, 'a control device was refused');
        queueMicrotask(() => control.close(error instanceof FwdfsError ? error.what : 'refused'));
        throw error;
      }
    });
  }

  /** @throws FwdfsError 'version-mismatch', 'not-authenticated', 'too-many', 'not-connected' */
  private hello(hello: Message<'hello'>, peer: Peer, control: ControlChannel): ServerSession {
    if (this.closing) throw new FwdfsError('not-connected', 'the forwarder stops');
    const version = negotiate(hello.versions);
    const identity = this.options.authenticate(hello, peer);
    const session = this.resumable(hello, identity) ?? this.newSession(hello, identity);
    session.version = version;
    session.weight = Math.min(Math.max(hello.weight ?? 1, 1), MAX_WEIGHT);
    session.state = 'connecting';
    session.tunnelKey = secret(32);
    session.bindControl(control, peer);
    session.cancelWait();
    session.cancelWait = this.timers.after(HELLO_TIMEOUT_MS, () => {
      this.channelLost(session, 'the control device opened no tunnel');
    });
    return session;
  }

  /** The session to go on with, without its old channels; null if there is none for this identity. */
  private resumable(hello: Message<'hello'>, identity: string): ServerSession | null {
    if (hello.resume === undefined || hello.resume.epoch !== this.epoch) return null;
    const session = this.sessions.get(hello.resume.session);
    if (session === undefined || !session.wasActive) return null;
    if (session.identity !== identity) {
      this.log.warn({ identity, owner: session.identity }, 'a session was not resumed: it is of another identity');
      return null;
    }
    if (session.state === 'active') this.suspend(session, 'replaced by a new connection', false);
    else session.dropChannels('replaced by a new connection', false);
    return session;
  }

  private newSession(hello: Message<'hello'>, identity: string): ServerSession {
    if (this.sessions.size >= MAX_SESSIONS) throw new FwdfsError('too-many', `${MAX_SESSIONS} sessions are there`);
    const session = new ServerSession(this, secret(16), identity, hello.name);
    this.sessions.set(session.id, session);
    return session;
  }

  private response(session: ServerSession, resumed: boolean): Message<'hello-response'> {
    return {
      version: session.version,
      epoch: this.epoch,
      forwarder: this.options.name,
      session: session.id,
      tunnelKey: session.tunnelKey,
      resumed,
      resumeTime: this.resumeTime,
      tunnels: resumed ? this.handler.received(session) : [],
      upTunnels: resumed ? this.handler.sent(session) : [],
    };
  }

  private tunnelOpened({ key, peer, socket, accepted }: Opened): void {
    const session = this.awaiting(key);
    if (session === undefined) {
      this.log.warn({ address: peer.address }, 'a tunnel was refused: its key is of no session that waits for one');
      socket.listen({ message: nothing, pong: nothing, closed: nothing });
      socket.close(CLOSE_NORMAL, 'this key is of no session');
      return;
    }
    accepted();
    session.tunnelKey = '';
    session.cancelWait();
    const tunnel = new TunnelChannel(socket, { log: this.log, timers: this.timers });
    tunnel.onFrames((message, end) => this.handler.frames(session, message, end));
    session.bindTunnel(tunnel);
    const resumed = session.wasActive;
    session.wasActive = true;
    session.state = 'active';
    this.log.info(
      { name: session.name, identity: session.identity, address: session.address, resumed },
      'session active',
    );
    this.call('active', () => this.handler.active(session, resumed));
  }

  private awaiting(key: string): ServerSession | undefined {
    return [...this.sessions.values()].find((session) => session.tunnelKey !== '' && same(session.tunnelKey, key));
  }

  private message(session: ServerSession, control: ControlChannel, message: MessageArgs): Answer | Promise<Answer> {
    switch (message[0]) {
      case 'hello':
        throw new FwdfsError('bad-message', 'a second hello on one channel');
      case 'goodbye':
        this.finish(session, `the control device left: ${message[1].reason}`, false);
        return undefined;
      case 'suspend':
        if (session.state === 'active') this.suspend(session, 'the control device suspended itself', true);
        else control.close('suspended');
        return undefined;
      default:
        if (session.state !== 'active') throw new FwdfsError('not-connected', 'the tunnel is not there yet');
        return this.handler.message(session, ...message);
    }
  }

  // --- ending ---

  /** One of its channels has closed, or its tunnel never came. */
  channelLost(session: ServerSession, reason: string): void {
    if (session.state === 'active' || (session.state === 'connecting' && session.wasActive)) {
      this.suspend(session, reason, true);
    } else if (session.state === 'connecting') {
      this.finish(session, reason, false);
    }
  }

  /** Ends a session with a goodbye. */
  end(session: ServerSession, reason: string): void {
    this.finish(session, reason, true);
  }

  private suspend(session: ServerSession, reason: string, orderly: boolean): void {
    const active = session.state === 'active';
    session.state = 'suspended';
    session.tunnelKey = '';
    session.cancelWait();
    session.cancelWait = this.timers.after(this.resumeTime, () => this.finish(session, 'it was not resumed', false));
    session.dropChannels(reason, orderly);
    this.log.info({ name: session.name, identity: session.identity, reason }, 'session suspended');
    if (active) this.call('suspended', () => this.handler.suspended(session));
  }

  private finish(session: ServerSession, reason: string, goodbye: boolean): void {
    if (session.state === 'closed') return;
    session.state = 'closed';
    session.tunnelKey = '';
    session.cancelWait();
    this.sessions.delete(session.id);
    session.dropChannels(reason, true, goodbye);
    if (!session.wasActive) return;
    this.log.info({ name: session.name, identity: session.identity, reason }, 'session closed');
    this.call('closed', () => this.handler.closed(session, reason));
  }

  /** A handler that throws must not take the server with it. */
  private call(name: keyof SessionHandler, run: () => void): void {
    try {
      run();
    } catch (error) {
      this.log.error({ err: error }, `session handler ${name} failed`);
    }
  }
}

function secret(bytes: number): string {
  return randomBytes(bytes).toString('base64url');
}

function same(ours: string, theirs: string): boolean {
  const a = Buffer.from(ours);
  const b = Buffer.from(theirs);
  return a.length === b.length && timingSafeEqual(a, b);
}
