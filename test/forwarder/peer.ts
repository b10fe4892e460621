/** src/forwarder/peer.ts: batches of up frames, bounded, each buffer back in its pool exactly once. */
import fc from 'fast-check';
import t from 'tap';
import { MAX_FRAME_BYTES, MAX_TUNNEL_MESSAGE_BYTES, UP_BATCH_BYTES } from '../../src/base/limits.js';
import * as f from '../../src/tunnel/frames.js';
import { makePeer } from '../support/fake-peer.js';
import { watchPools } from '../support/fake-pool.js';

const vnet = Buffer.from('0102030405060708090a', 'hex');

/** The virtio_net_hdr, then the frame, with junk around. */
function slot(frame: Buffer): Buffer {
  return Buffer.concat([vnet, Buffer.alloc(8, 0xee), frame, Buffer.alloc(3, 0xee)]);
}

t.test('a frame goes up with its header, its time and its virtio_net_hdr', async (t) => {
  const { peer, channel } = makePeer();
  const frame = Buffer.from('a frame of 19 bytes');
  const slots = slot(frame);
  peer.appendData(9, f.DATA_OUTGOING, slots, 18, frame.length, 0, 1_700_000_000, 123_456_789);
  t.same(channel.messages, [], 'not before it is flushed');
  peer.flush();
  const [message] = channel.messages;
  t.same(channel.takeLines(), [
    'up data tunnel=9 flags=1 offload=0102030405060708090a length=19 time=1700000000.123456789',
  ]);
  t.equal(message?.toString('latin1', f.FRAME_HEADER_BYTES, f.FRAME_HEADER_BYTES + 19), 'a frame of 19 bytes');
  t.equal(message?.length, f.frameBytes(19));
});

t.test('data and confirmations travel in one batch, in order', async (t) => {
  const { peer, channel } = makePeer();
  peer.appendConfirm(3, 17);
  peer.appendData(9, 0, slot(Buffer.alloc(20)), 18, 20, 0, 1, 0);
  peer.appendConfirmError(3, 18, 100);
  peer.flush();
  peer.flush();
  t.equal(channel.messages.length, 1, 'nothing is sent twice, nor empty');
  t.same(channel.takeLines(), [
    'up confirm tunnel=3 sequence=17',
    'up data tunnel=9 flags=0 offload=0102030405060708090a length=20 time=1.000000000',
    'up confirm tunnel=3 sequence=18 errno=100',
  ]);
});

t.test('a batch is sent by itself when it is full, and never longer than a message may be', async (t) => {
  const watch = watchPools();
  t.teardown(() => watch.end());
  fc.assert(
    fc.property(
      fc.array(fc.oneof(fc.constantFrom(0, 14, 60, 1514, MAX_FRAME_BYTES), fc.nat(MAX_FRAME_BYTES)), { maxLength: 60 }),
      fc.boolean(),
      fc.boolean(),
      (lengths, slow, connected) => {
        const { peer, channel } = makePeer();
        channel.slow = slow;
        channel.connected = connected;
        for (const length of lengths) peer.appendData(1, 0, slot(Buffer.alloc(length, 7)), 18, length, 0, 1, 0);
        peer.flush();
        const sizes = channel.messages.map((message) => message.length);
        const total = lengths.reduce((sum, length) => sum + f.frameBytes(length), 0);
        if (connected && sizes.reduce((sum, size) => sum + size, 0) !== total) throw new Error('bytes are missing');
        if (sizes.some((size) => size > MAX_TUNNEL_MESSAGE_BYTES)) throw new Error('too long');
        if (sizes.slice(0, -1).some((size) => size < UP_BATCH_BYTES)) throw new Error('sent before it was full');
        if (connected && channel.takeLines().length !== lengths.length) throw new Error('frames are missing');
        channel.giveBack();
        if (watch.inUse !== 0) throw new Error(`${watch.inUse} buffers did not come back`);
      },
    ),
    { numRuns: 50 },
  );
});

t.test('a buffer that a slow channel has is not written to', async (t) => {
  const watch = watchPools();
  t.teardown(() => watch.end());
  const { peer, channel } = makePeer();
  channel.slow = true;
  for (let i = 0; i < 3; i += 1) {
    peer.appendConfirm(i, i);
    peer.flush();
    t.equal(watch.inUse, i + 1);
  }
  channel.giveBack();
  t.equal(watch.inUse, 0);
});
