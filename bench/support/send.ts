/**
 * A paced sender, as a process of its own: `node send.js NETNS IF MAC RATE BYTES SECONDS`. Sends what is due every quarter of
 * a millisecond with sendmmsg; prints how many frames it sent and in how many seconds.
 */
import { openSync } from 'node:fs';
import { addressOf, CLONE_NEWNET, ifNameToIndex, must, sys } from '../../src/sys/libc.js';
import { PacketTransmitter } from '../../src/sys/packet-socket.js';
import { benchFrame, pause, SEQUENCE_OFFSET } from './frames.js';

const [netns = '', name = '', mac = '', rateText = '0', bytesText = '0', secondsText = '0'] = process.argv.slice(2);
const rate = Number(rateText);
const bytes = Number(bytesText);
const seconds = Number(secondsText);

must('setns', sys.setns(openSync(netns, 'r'), CLONE_NEWNET));
const transmitter = new PacketTransmitter(ifNameToIndex(name));
const frame = benchFrame(bytes, Buffer.from(mac.replaceAll(':', ''), 'hex'));
const BURST = 64;
const slots = Buffer.alloc((bytes + 16) * BURST);
for (let i = 0; i < BURST; i++) frame.copy(slots, i * (bytes + 16) + 16);
const base = addressOf(slots);

let sent = 0;
const start = performance.now();
for (;;) {
  const elapsed = (performance.now() - start) / 1000;
  if (elapsed >= seconds) break;
  let due = Math.min(Math.floor(elapsed * rate), seconds * rate) - sent;
  if (due < 1) {
    pause(0.25);
    continue;
  }
  while (due > 0) {
    const count = Math.min(due, BURST);
    for (let i = 0; i < count; i++) {
      const at = i * (bytes + 16);
      slots.writeUInt32BE(sent + i, at + 16 + SEQUENCE_OFFSET);
      transmitter.add(base + at, base + at + 16, bytes);
    }
    const taken = transmitter.flush();
    if (taken > 0) {
      sent += taken;
      due -= taken;
    } else if (taken < 0) {
      pause(0.25);
      break;
    }
  }
}
process.stdout.write(`${JSON.stringify({ sent, seconds: (performance.now() - start) / 1000 })}\n`);
