import t from 'tap';
import { vipRule } from '../../src/forwarder/vip-rule.js';
import type { Message } from '../../src/tunnel/messages.js';
import { makePeer } from '../support/fake-peer.js';

const { peer } = makePeer('ctl1');
const ask = (protocol: string, vip?: string): Message<'transfer-request'> => ({
  upTunnel: 7,
  control: '169.254.7.1',
  protocol,
  symbol: `vip:${vip}`,
  interface: 'eth0',
  scope: 'both',
  claim: true,
  credit: 100,
  ...(vip !== undefined && { vip }),
});

t.test('a rule names one port of the address, and nothing goes up its tunnel', (t) => {
  t.match(vipRule(peer, ask('TCP:10.9.0.1:80', '10.9.0.1'), 'ethernet'), {
    peer,
    interface: 'eth0',
    protocol: { text: 'tcp:10.9.0.1:80' },
    mode: 'vip',
    scope: 'in',
    vip: Buffer.from([10, 9, 0, 1]),
    vif: null,
    upTunnel: 7,
    credit: 0,
  });
  t.equal(vipRule(peer, ask('sctp:[fd09::1]:5000', 'FD09:0::1'), 'ethernet').vip?.length, 16);
  t.end();
});

t.test('what is no port of the address is refused', (t) => {
  for (const [protocol, vip] of [
    ['tcp:80', '10.9.0.1'],
    ['tcp:10.9.0.2:80', '10.9.0.1'],
    ['tcp:10.9.0.1', '10.9.0.1'],
    ['icmp:10.9.0.1', '10.9.0.1'],
    ['ip:89:10.9.0.1', '10.9.0.1'],
    ['*', '10.9.0.1'],
    ['arp', '10.9.0.1'],
    ['tcp:10.9.0.1:80', 'ten'],
    ['tcp:10.9.0.1:80', undefined],
    ['tcp:[fd09::1]:80', '10.9.0.1'],
  ] as const)
    t.throws(() => vipRule(peer, ask(protocol, vip), 'ethernet'), { code: 'bad-message' }, protocol);
  t.throws(() => vipRule(peer, ask('tcpp', '10.9.0.1'), 'ethernet'), { code: 'bad-protocol-address' });
  t.end();
});
