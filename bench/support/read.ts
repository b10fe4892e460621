/**
 * A reader, as a process of its own: `node read.js FILE`. Counts the records of the pcap stream with plain read(2) calls;
 * prints what it has when it gets a line on standard input, and ends at its end.
 */
import { openSync, readSync } from 'node:fs';
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';
import { fileURLToPath } from 'node:url';

const RECORD_HEADER = 16;
const FILE_HEADER = 24;

function count(file: string, shared: Float64Array): void {
  const fd = openSync(file, 'r');
  parentPort?.postMessage('open');
  const buffer = Buffer.alloc(1 << 20);
  let skip = FILE_HEADER;
  let header = Buffer.alloc(0);
  for (;;) {
    const bytes = readSync(fd, buffer);
    if (bytes === 0) return;
    shared[1] = (shared[1] ?? 0) + 1;
    let at = 0;
    while (at < bytes) {
      if (skip > 0) {
        const step = Math.min(skip, bytes - at);
        skip -= step;
        at += step;
        continue;
      }
      const need = RECORD_HEADER - header.length;
      if (bytes - at < need || header.length > 0) {
        header = Buffer.concat([header, buffer.subarray(at, Math.min(at + need, bytes))]);
        at = Math.min(at + need, bytes);
        if (header.length < RECORD_HEADER) break;
        skip = header.readUInt32LE(8);
        header = Buffer.alloc(0);
      } else {
        skip = buffer.readUInt32LE(at + 8);
        at += RECORD_HEADER;
      }
      shared[0] = (shared[0] ?? 0) + 1;
    }
  }
}

if (isMainThread) {
  const shared = new SharedArrayBuffer(16);
  const values = new Float64Array(shared);
  const worker = new Worker(fileURLToPath(import.meta.url), { workerData: { file: process.argv[2], shared } });
  worker.on('message', () => process.stdout.write('open\n'));
  process.stdin.on('data', () => {
    process.stdout.write(`${JSON.stringify({ frames: values[0], reads: values[1] })}\n`);
  });
  process.stdin.on('end', () => process.kill(process.pid, 'SIGKILL'));
} else {
  const { file, shared } = workerData as { file: string; shared: SharedArrayBuffer };
  count(file, new Float64Array(shared));
}
