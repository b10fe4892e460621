/**
 * The trace of a FUSE session: one line per request, one per reply, in the order in which they crossed /dev/fuse.
 *
 *   line    = request | reply
 *   request = "rx" UNIQUE OPCODE "nodeid=" N "uid=" N "gid=" N "pid=" N { FIELD "=" VALUE } { "name=" JSON-STRING }
 *   reply   = "tx" UNIQUE OPCODE ( "ok" { FIELD "=" VALUE } | ERRNO-NAME )
 *
 * UNIQUE ties a reply to its request, 0 is a notification. OPCODE is the name in <linux/fuse.h> without FUSE_,
 * `opcode-N` for one that is not known. Fields are those of abi.ts, left out where 0; data is shown by its length only.
 */
import { errnoName } from '../base/errors.js';
import { BY_NUMBER, IN_HEADER, type OpcodeName, OUT_HEADER, printReply, printRequest } from './abi.js';
import { getU64 } from './struct.js';

export class Trace {
  private readonly line: (line: string) => void;
  /** Opcodes of the requests that were not answered yet. */
  private readonly opcodes = new Map<number, OpcodeName>();

  constructor(line: (line: string) => void) {
    this.line = line;
  }

  request(buffer: Buffer, length: number): void {
    const opcode = BY_NUMBER.get(buffer.readUInt32LE(IN_HEADER.at.opcode));
    const silent = opcode?.name === 'FORGET' || opcode?.name === 'BATCH_FORGET' || opcode?.name === 'INTERRUPT';
    if (opcode !== undefined && !silent) this.opcodes.set(getU64(buffer, IN_HEADER.at.unique), opcode.name);
    this.line(printRequest(buffer, length));
  }

  reply(buffer: Buffer, length: number): void {
    const unique = getU64(buffer, OUT_HEADER.at.unique);
    const error = buffer.readInt32LE(OUT_HEADER.at.error);
    if (unique === 0) return this.line(printReply('NOTIFY_POLL', buffer, length, ''));
    const opcode = this.opcodes.get(unique);
    this.opcodes.delete(unique);
    const name = error === 0 ? '' : errnoName(-error);
    this.line(opcode === undefined ? `tx ${unique} - ${name || 'ok'}` : printReply(opcode, buffer, length, name));
  }
}
