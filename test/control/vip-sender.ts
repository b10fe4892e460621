/** src/control/vip-sender.ts: candidates for the sender address. */
import t from 'tap';
import { MAX_SENDER_TRIES, senderCandidates } from '../../src/control/vip-sender.js';
import { parseIpv6 } from '../../src/packet/ip-address.js';

t.test(
  'the same candidates come out each time, and others for every control device, forwarder and address',
  async (t) => {
    const first = senderCandidates('ctl1', 'fwd1', '10.9.0.1');
    t.same(senderCandidates('ctl1', 'fwd1', '10.9.0.1'), first);
    t.equal(new Set(first).size, MAX_SENDER_TRIES);
    for (const other of [
      senderCandidates('ctl2', 'fwd1', '10.9.0.1'),
      senderCandidates('ctl1', 'fwd2', '10.9.0.1'),
      senderCandidates('ctl1', 'fwd1', '10.9.0.7'),
    ]) {
      t.not(other[0], first[0]);
    }
  },
);

t.test('those for IPv4 are link-local and neither reserved nor where clouds serve metadata', async (t) => {
  const wrong: string[] = [];
  for (let vip = 0; vip < 2000; vip++) {
    for (const sender of senderCandidates('ctl1', 'fwd1', `10.9.${vip >> 8}.${vip & 255}`)) {
      const [a, b, c = 0] = sender.split('.').map(Number);
      if (a === 169 && b === 254 && c >= 1 && c <= 254 && sender !== '169.254.169.254') continue;
      wrong.push(sender);
    }
  }
  t.same(wrong, []);
});

t.test('those for IPv6 are local to the site, and in their one spelling', async (t) => {
  for (const sender of senderCandidates('ctl1', 'fwd1', 'fd09::1')) {
    t.match(sender, /^fdfd:/);
    t.equal(parseIpv6(sender)?.length, 16);
  }
});
