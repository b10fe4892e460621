/**
 * Latencies, as a process of its own: `node latency.js MODE FOLDER NETNS MAC COUNT`.
 *   open  open(2) of a fresh symbol, which returns when the rule is active
 *   gone  from close(2) until the forwarder's table has no such rule (a round trip of the table is part of it)
 *   lone  from sendmsg(2) of a lone packet until read(2) returns it
 */
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { addressOf, CLONE_NEWNET, ifNameToIndex, must, sys } from '../../src/sys/libc.js';
import { PacketTransmitter } from '../../src/sys/packet-socket.js';
import { benchFrame, pause, summary } from './frames.js';

const [mode = '', folder = '', netns = '', mac = '', countText = '0'] = process.argv.slice(2);
const count = Number(countText);
const times: number[] = [];
/** Rounds that are not counted: this process is as cold as its compiler. */
const WARM_UP = 200;

if (mode === 'lone') {
  const fd = openSync(`${folder}/eth0:udp`, 'r');
  must('setns', sys.setns(openSync(netns, 'r'), CLONE_NEWNET));
  const transmitter = new PacketTransmitter(ifNameToIndex('n0'));
  const frame = Buffer.concat([Buffer.alloc(16), benchFrame(128, Buffer.from(mac.replaceAll(':', ''), 'hex'))]);
  const base = addressOf(frame);
  const buffer = Buffer.alloc(1 << 17);
  readSync(fd, buffer);
  for (let i = 0; i < WARM_UP + count; i++) {
    pause(2);
    const start = performance.now();
    transmitter.add(base, base + 16, frame.length - 16);
    must('sendmmsg', transmitter.flush());
    readSync(fd, buffer);
    times.push(performance.now() - start);
  }
} else {
  for (let i = 0; i < WARM_UP + count; i++) {
    const port = 10_000 + i;
    const start = performance.now();
    const fd = openSync(`${folder}/eth0:udp:${port}`, 'r');
    if (mode === 'open') times.push(performance.now() - start);
    const closing = performance.now();
    closeSync(fd);
    if (mode === 'gone') {
      while (readFileSync(`${folder}/.tables/distribution`, 'utf8').includes(`udp:${port}\t`));
      times.push(performance.now() - closing);
    }
  }
}
times.splice(0, WARM_UP);
process.stdout.write(`${summary(times)}\n`);
