/**
 * Files of /proc/net: what the kernel lists nowhere else (raw and ping sockets where INET_RAW_DIAG is absent).
 *
 *     sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 *     89: 00000000:0059 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 21542 2 …        0
 *
 * Addresses are groups of 32 bits in the host's order; the port of a raw socket is its protocol, that of a ping socket its
 * identifier. The interface that a raw socket is bound to is not there.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { localAddress } from './sock-diag.js';

const READ_BYTES = 64 << 10;
const INODE_FIELD = 9;

export interface ProcSocket {
  readonly family: 4 | 6;
  readonly port: number;
  /** 4 or 16 bytes; null: any. */
  readonly address: Buffer | null;
  readonly hasPeer: boolean;
  readonly inode: number;
}

/** A file of the network namespace in which it was opened, wherever the thread is later. */
export class ProcNetFile {
  private readonly fd: number;
  private readonly buffer = Buffer.allocUnsafeSlow(READ_BYTES);

  /** @throws an error of node:fs where this kernel has no such file */
  constructor(name: string) {
    this.fd = openSync(`/proc/thread-self/net/${name}`, 'r');
  }

  /** The whole file as of now. */
  read(): string {
    let text = '';
    for (let at = 0; ;) {
      const count = readSync(this.fd, this.buffer, 0, READ_BYTES, at);
      if (count === 0) return text;
      text += this.buffer.toString('latin1', 0, count);
      at += count;
    }
  }

  close(): void {
    closeSync(this.fd);
  }
}

/** The sockets of a file of /proc/net. Lines that are none are left out. */
export function procSockets(text: string): ProcSocket[] {
  const sockets: ProcSocket[] = [];
  for (const line of text.split('\n')) {
    const fields = line.trim().split(/\s+/);
    const [, local = '', remote = ''] = fields;
    const [digits = '', port = ''] = local.split(':');
    const inode = Number(fields[INODE_FIELD]);
    if (!/^(?:[0-9A-F]{8}){1,4}:[0-9A-F]{4}$/.test(local) || !Number.isInteger(inode)) continue;
    const bytes = Buffer.from(digits, 'hex').swap32();
    sockets.push({
      family: bytes.length === 4 ? 4 : 6,
      port: Number.parseInt(port, 16),
      address: localAddress(bytes),
      hasPeer: !/^0+:/.test(remote),
      inode,
    });
  }
  return sockets;
}
