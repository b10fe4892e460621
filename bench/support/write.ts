/** A writer, as a process of its own: `node write.js FILE FRAMES BYTES`. Times a pcap stream from the first write to close. */
import { closeSync, openSync, writeSync } from 'node:fs';
import { writeFileHeader, writeRecordHeader } from '../../src/packet/pcap.js';
import { benchFrame } from './frames.js';

const [file = '', framesText = '0', bytesText = '0'] = process.argv.slice(2);
const frames = Number(framesText);
const bytes = Number(bytesText);
const frame = benchFrame(bytes, Buffer.from([2, 0, 0, 0, 0, 2]));
const perWrite = Math.floor((128 << 10) / (16 + bytes));
const block = Buffer.alloc(perWrite * (16 + bytes));
for (let i = 0; i < perWrite; i++) {
  writeRecordHeader(block, i * (16 + bytes), 0, 0, bytes, bytes);
  frame.copy(block, i * (16 + bytes) + 16);
}
const header = Buffer.alloc(24);
writeFileHeader(header, 0, 1);
const fd = openSync(file, 'w');
const start = performance.now();
writeSync(fd, header);
for (let left = frames; left > 0;) {
  const count = Math.min(left, perWrite);
  const end = count * (16 + bytes);
  for (let at = 0; at < end;) at += writeSync(fd, block, at, end - at);
  left -= count;
}
closeSync(fd);
process.stdout.write(`${JSON.stringify({ seconds: (performance.now() - start) / 1000 })}\n`);
