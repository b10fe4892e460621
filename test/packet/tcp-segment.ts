/** src/packet/tcp-segment.ts: golden packets, and checksums that the stack's own check accepts. */
import t from 'tap';
import { fold, pseudoHeaderSum, sum } from '../../src/packet/checksum.js';
import { FrameView } from '../../src/packet/headers.js';
import { parseIpv4, parseIpv6 } from '../../src/packet/ip-address.js';
import { TCP_FLAG, tcpSegment } from '../../src/packet/tcp-segment.js';

t.test('a reset over IPv4', async (t) => {
  const packet = tcpSegment({
    source: parseIpv4('10.9.0.1')!,
    destination: parseIpv4('10.9.0.2')!,
    sourcePort: 80,
    destinationPort: 40000,
    sequence: 0xfffffffe,
    acknowledgment: 0,
    flags: TCP_FLAG.RST,
  });
  t.equal(
    packet.toString('hex'),
    `4500002800004000400626bc0a0900010a090002` +
      `00509c40fffffffe0000000050040000${packet.toString('hex', 36, 38)}0000`,
  );
  t.equal(fold(sum(packet, 0, 20, 0)), 0xffff);
  t.equal(fold(sum(packet, 20, 20, pseudoHeaderSum(packet, 12, 4, 6, 20))), 0xffff);
});

t.test('a SYN over IPv6', async (t) => {
  const packet = tcpSegment({
    source: parseIpv6('fd09::1')!,
    destination: parseIpv6('fd09::2')!,
    sourcePort: 80,
    destinationPort: 40000,
    sequence: 7,
    acknowledgment: 9,
    flags: TCP_FLAG.SYN | TCP_FLAG.ACK,
  });
  t.equal(fold(sum(packet, 40, 20, pseudoHeaderSum(packet, 8, 16, 6, 20))), 0xffff);
  const view = new FrameView();
  t.ok(view.parse(packet, 0, packet.length, 'raw'));
  t.same([view.ipVersion, view.sourcePort, view.destinationPort, view.l4Offset], [6, 80, 40000, 40]);
});
