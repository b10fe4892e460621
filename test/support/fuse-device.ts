/** A fake /dev/fuse: requests are put in, replies are kept, and a session can be asked one thing at a time. */
import { constants } from 'node:os';
import { silent } from '../../src/base/log.js';
import { IN_HEADER, OPCODES, type OpcodeName, OUT_HEADER } from '../../src/fusefs/abi.js';
import type { Device } from '../../src/fusefs/device.js';
import { Session, type SessionOptions } from '../../src/fusefs/session.js';
import { encode, getU64 } from '../../src/fusefs/struct.js';
import type { DirectoryNode } from '../../src/fusefs/tree.js';

export interface Reply {
  readonly unique: number;
  /** 0 or minus the errno; the code of a notification. */
  readonly error: number;
  /** The whole message, so that offsets of abi.ts hold. */
  readonly message: Buffer;
}

export interface Request {
  readonly unique?: number;
  readonly nodeid?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly pid?: number;
  /** Fields of the opcode's structure. */
  readonly values?: Record<string, number>;
  readonly names?: readonly string[];
  readonly data?: Buffer;
}

export function request(
  name: OpcodeName,
  { unique = 2, nodeid = 1, uid = 0, gid = 0, pid = 7, ...rest }: Request,
): Buffer {
  const opcode = OPCODES[name];
  const body = [...(rest.names ?? []).map((text) => Buffer.from(`${text}\0`)), rest.data ?? Buffer.alloc(0)];
  const message = Buffer.concat([Buffer.alloc(IN_HEADER.bytes + opcode.request.bytes), ...body]);
  encode(opcode.request, message, rest.values ?? {});
  encode(IN_HEADER, message, { len: message.length, opcode: opcode.number, unique, nodeid, uid, gid, pid });
  return message;
}

export class FakeDevice implements Device {
  readonly requests: Buffer[] = [];
  readonly replies: Reply[] = [];
  /** What read() returns when nothing is there. */
  idle = -constants.errno.EAGAIN;
  /** What write() returns instead of the length, if not 0. */
  refuse = 0;

  read(buffer: Buffer): number {
    const next = this.requests.shift();
    if (next === undefined) return this.idle;
    // What an earlier, longer request left behind must not matter.
    buffer.fill(0xa5, 0, next.length + 64);
    return next.copy(buffer);
  }

  write(buffer: Buffer, length: number): number {
    if (this.refuse !== 0) return this.refuse;
    const message = Buffer.from(buffer.subarray(0, length));
    this.replies.push({
      unique: getU64(message, OUT_HEADER.at.unique),
      error: message.readInt32LE(OUT_HEADER.at.error),
      message,
    });
    return length;
  }
}

/** A session on a fake device. */
export class Bench {
  readonly device = new FakeDevice();
  readonly session: Session;
  readonly ends: number[] = [];
  private unique = 2;

  constructor(root: DirectoryNode, options: Partial<SessionOptions> = {}) {
    this.session = new Session({
      device: this.device,
      root,
      owner: { uid: 0, gid: 0 },
      readOnly: false,
      requestTimeout: { askS: 0, patienceMs: 0 },
      log: silent,
      onEnd: (errno) => this.ends.push(errno),
      ...options,
    });
  }

  /** Sends a request and returns its unique. */
  send(name: OpcodeName, content: Request = {}): number {
    const unique = (this.unique += 2);
    this.device.requests.push(request(name, { unique, ...content }));
    this.session.drain();
    return unique;
  }

  /** The reply to a request, or undefined if there is none (yet). A second reply would be a defect. */
  reply(unique: number): Reply | undefined {
    const found = this.device.replies.filter((reply) => reply.unique === unique);
    if (found.length > 1) throw new Error(`${found.length} replies to ${unique}`);
    return found[0];
  }

  /** Sends a request that is answered at once. */
  ask(name: OpcodeName, content: Request = {}): Reply {
    const unique = this.send(name, content);
    const reply = this.reply(unique);
    if (reply === undefined) throw new Error(`no reply to ${name}`);
    return reply;
  }

  /** Nodeid of a name in a directory. */
  lookup(name: string, parent = 1): number {
    const reply = this.ask('LOOKUP', { nodeid: parent, names: [name] });
    if (reply.error !== 0) throw new Error(`lookup of ${name}: ${reply.error}`);
    return getU64(reply.message, OUT_HEADER.bytes);
  }

  /** Handle of a file that opens at once. */
  open(name: string, flags = 2): number {
    const reply = this.ask('OPEN', { nodeid: this.lookup(name), values: { flags } });
    if (reply.error !== 0) throw new Error(`open of ${name}: ${reply.error}`);
    return getU64(reply.message, OUT_HEADER.bytes);
  }
}

/** Lets every promise and immediate that is due have its turn. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
}
