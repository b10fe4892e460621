/** A process of its own that holds as many flows as one interface may have, and says what they take. */
import { MAX_FLOWS_PER_INTERFACE } from '../../src/base/limits.js';
import { FlowTable } from '../../src/forwarder/flow-table.js';
import { FrameView } from '../../src/packet/headers.js';
import { ipv4, tcp } from '../vectors/packet-frames.js';
import { makePeer, makeRule } from './fake-peer.js';
import { ACK, SYN } from './hand-tcp.js';

const { peer } = makePeer();
const vif = { id: 1, kind: 'tap', stamp: 0, wayBack: null } as const;
const wayBack = makeRule(peer, '*', { mode: 'flow', vif });
const through = makeRule(peer, 'tcp:80', { mode: 'socket', vif });
const table = new FlowTable(
  () => 0,
  () => undefined,
  { throughOf: () => through },
);

const ends = { sourcePort: 80, destinationPort: 80 };
const sent = ipv4({ protocol: 6 }, tcp({ ...ends, flags: SYN | ACK }, Buffer.alloc(0)));
const received = ipv4({ protocol: 6, destination: '10.0.0.1' }, tcp({ ...ends, flags: ACK }, Buffer.alloc(0)));
const view = new FrameView();
const before = process.memoryUsage().arrayBuffers;
view.parse(sent, 0, sent.length, 'raw');
for (let i = 0; i < MAX_FLOWS_PER_INTERFACE; i += 1) {
  sent.writeUInt32BE(0x0b000000 + i, 16);
  table.sent(view, sent, wayBack);
}
let found = 0;
for (let i = 0; i < MAX_FLOWS_PER_INTERFACE; i += 1) {
  received.writeUInt32BE(0x0b000000 + i, 12);
  if (table.received(view, received) >= 0) found += 1;
}
const bytes = process.memoryUsage().arrayBuffers - before;
process.stdout.write(JSON.stringify({ size: table.size, bytes, found }));
