/** src/packet/symbol-name.ts: what a name of a symbol says. */
import t from 'tap';
import { parseSymbolName, splitSymbolName } from '../../src/packet/symbol-name.js';

t.test('a bare interface is everything that it receives, as pcap', async (t) => {
  const name = parseSymbolName('eth0');
  t.match(name, {
    interface: 'eth0',
    scope: 'in',
    framing: 'pcap',
    gso: false,
    paced: false,
    claim: false,
    text: 'eth0',
  });
  t.equal(name.protocol.text, '*');
  t.same(splitSymbolName('eth0'), { interface: 'eth0', protocolText: '*', words: [], pcapSuffix: false });
});

t.test('a name comes apart into interface, protocol address and words', async (t) => {
  t.same(splitSymbolName('eth0:udp:520:raw'), {
    interface: 'eth0',
    protocolText: 'udp:520',
    words: ['raw'],
    pcapSuffix: false,
  });
  t.same(splitSymbolName('eth0.100:tcp:[2001:DB8::1]:80:hex:OUT:claim.pcap'), {
    interface: 'eth0.100',
    protocolText: 'tcp:[2001:DB8::1]:80',
    words: ['hex', 'out', 'claim'],
    pcapSuffix: true,
  });
  t.match(splitSymbolName('eth0:*:raw'), { protocolText: '*', words: ['raw'] });
  t.match(splitSymbolName('eth0:ip:89'), { protocolText: 'ip:89', words: [] });
  t.match(splitSymbolName('eth0:ip:17:10.0.0.1:53:gso'), { protocolText: 'ip:17:10.0.0.1:53', words: ['gso'] });
  t.match(splitSymbolName('eth0:ether:0x88cc:raw'), { protocolText: 'ether:0x88cc', words: ['raw'] });
  t.match(splitSymbolName('eth0:icmp:both'), { protocolText: 'icmp', words: ['both'] });
});

t.test('.pcap at the end is taken away once, dots elsewhere stay', async (t) => {
  t.match(splitSymbolName('eth0.pcap'), { interface: 'eth0', pcapSuffix: true });
  t.match(splitSymbolName('eth0.100.pcap'), { interface: 'eth0.100', pcapSuffix: true });
  t.match(splitSymbolName('eth0.pcap.pcap'), { interface: 'eth0.pcap', pcapSuffix: true });
  t.match(splitSymbolName('eth0.pcap:raw'), { interface: 'eth0.pcap', pcapSuffix: false });
  t.equal(parseSymbolName('eth0:udp:520.pcap').text, 'eth0:udp:520');
});

t.test('names of one symbol have one text', async (t) => {
  const same: [string, string][] = [
    ['eth0:*', 'eth0'],
    ['eth0:pcap', 'eth0'],
    ['eth0:*:pcap.pcap', 'eth0'],
    ['eth0:UDP:520:RAW', 'eth0:udp:520:raw'],
    ['eth0:ip:17:520:raw:out', 'eth0:udp:520:out:raw'],
    ['eth0:claim:paced:gso:hex:both', 'eth0:both:hex:gso:paced:claim'],
    ['eth0:tcp:[::ffff:10.0.0.1]:80', 'eth0:tcp:10.0.0.1:80'],
    ['Eth0:arp', 'Eth0:arp'],
  ];
  for (const [written, text] of same) {
    t.equal(parseSymbolName(written).text, text, written);
    t.same(parseSymbolName(text), parseSymbolName(written), `${text} means the same`);
  }
});

t.test('every word sets its own field', async (t) => {
  t.equal(parseSymbolName('eth0:out').scope, 'out');
  t.equal(parseSymbolName('eth0:both').scope, 'both');
  t.equal(parseSymbolName('eth0:promisc').scope, 'promisc');
  t.equal(parseSymbolName('eth0:raw').framing, 'raw');
  t.equal(parseSymbolName('eth0:hex').framing, 'hex');
  t.match(parseSymbolName('eth0:gso:paced:claim'), { gso: true, paced: true, claim: true });
});

t.test('a name that says nothing or contradicts itself is refused', async (t) => {
  const refused = [
    ['', ':', ':udp:520', '.pcap', '.', '..', 'eth0:', 'eth0::raw', 'eth0:udp:520:', 'eth 0', 'a/b', '\0:raw\n'],
    ['eth0:foo', 'eth0:in', 'eth0:raw:raw', 'eth0:raw:hex', 'eth0:pcap:raw', 'eth0:out:both', 'eth0:both:promisc'],
    ['eth0:out:claim', 'eth0:udp:53:claim:out', 'eth0:claim:claim'],
    ['eth0:raw:udp:520', 'eth0:udp:http', 'eth0:udp:520:tcp:80', 'eth0:0x88cc', `e:${'raw:'.repeat(64)}`],
  ].flat();
  for (const name of refused) {
    t.throws(() => parseSymbolName(name), { code: 'bad-symbol-name' }, JSON.stringify(name));
  }
});

t.test('a name with a bad protocol address says that', async (t) => {
  for (const name of ['eth0:udp:0', 'eth0:ether:raw', 'eth0:ip', 'eth0:ip:256', 'eth0:tcp:[::1:80', 'eth0:udp:1-2']) {
    t.throws(() => parseSymbolName(name), { code: 'bad-protocol-address' }, name);
  }
});

t.test('a name may have as many bytes as a directory entry', async (t) => {
  t.equal(parseSymbolName('e'.repeat(255)).text.length, 255);
  t.throws(() => parseSymbolName('e'.repeat(256)), { code: 'bad-symbol-name' });
  t.throws(() => parseSymbolName('é'.repeat(128)), { code: 'bad-symbol-name' });
});

t.test('a name that an interface has keeps its suffix', async (t) => {
  const isInterface = (name: string): boolean => name === 'x.pcap';
  const cases: [name: string, interfaceName: string][] = [
    ['x.pcap', 'x.pcap'],
    ['x.pcap.pcap', 'x.pcap'],
    ['x.pcap:raw.pcap', 'x.pcap'],
    ['y.pcap', 'y'],
    ['x', 'x'],
  ];
  for (const [name, interfaceName] of cases) {
    t.equal(parseSymbolName(name, isInterface).interface, interfaceName, name);
  }
  t.equal(parseSymbolName('x.pcap').interface, 'x', 'no such interface');
});
