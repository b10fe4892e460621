import t from 'tap';
import type { Link } from '../../src/sys/link.js';
import { ARPHRD, linkAfter, pcapLinkType, removedIndex, statisticsOf } from '../../src/sys/link.js';
import type { NetlinkMessage } from '../../src/sys/rtnetlink.js';
import { attribute, encode, IFA, IFADDRMSG, IFINFOMSG, IFLA, RTM } from '../../src/sys/rtnetlink.js';

const AF_BRIDGE = 7;

function message(type: number, fixed: Buffer, values: Record<number, Buffer> = {}): NetlinkMessage {
  const list = Object.entries(values).map(([key, value]) => attribute(Number(key), value));
  return { type, flags: 0, sequence: 0, body: Buffer.concat([fixed, ...list]) };
}

const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value, 0);
  return bytes;
};

const ETH0: Link = {
  index: 3,
  name: 'eth0',
  type: 1,
  address: '02:00:00:00:00:0a',
  mtu: 1500,
  flags: 1,
  operstate: 'up',
  master: 0,
  speed: 1000,
  inet: [],
  inet6: [],
};

const known = (link: Partial<Link> = {}): Map<number, Link> => new Map([[3, { ...ETH0, ...link }]]);

const speedOf = (name: string): number => (name === 'eth0' ? 1000 : -1);

const mac = Buffer.from('02000000000a', 'hex');

t.test('a NEWLINK makes a link', async (t) => {
  const values = {
    [IFLA.IFNAME]: Buffer.from('eth0\0'),
    [IFLA.ADDRESS]: mac,
    [IFLA.MTU]: u32(1500),
    [IFLA.OPERSTATE]: Buffer.from([6]),
  };
  const newLink = message(RTM.NEWLINK, encode(IFINFOMSG, { type: 1, index: 3, flags: 1 }), values);
  t.same(linkAfter(newLink, new Map(), speedOf), ETH0);
  const addressed = known({ inet: ['10.0.0.1/24'] });
  t.same(linkAfter(newLink, addressed, speedOf), addressed.get(3), 'its addresses stay');
});

t.test('what a NEWLINK does not carry stays as it was', async (t) => {
  const sparse = message(RTM.NEWLINK, encode(IFINFOMSG, { type: 1, index: 3, flags: 0x1003 }));
  t.same(linkAfter(sparse, known(), speedOf), { ...ETH0, flags: 0x1003 });
  const unknown = { index: 3, name: '', address: '', mtu: 0, operstate: 'unknown', speed: -1, inet: [], inet6: [] };
  t.match(linkAfter(sparse, new Map(), speedOf), unknown);
});

t.test('a port names its bridge, until it is a port no more', async (t) => {
  const fixed = encode(IFINFOMSG, { type: 1, index: 3, flags: 1 });
  const port = linkAfter(message(RTM.NEWLINK, fixed, { [IFLA.MASTER]: u32(7) }), known(), speedOf);
  t.equal(port?.master, 7);
  const sparse = message(RTM.NEWLINK, fixed);
  t.equal(linkAfter(sparse, known({ master: 7 }), speedOf)?.master, 7);
  const whole = message(RTM.NEWLINK, fixed, { [IFLA.MTU]: u32(1500) });
  t.equal(linkAfter(whole, known({ master: 7 }), speedOf)?.master, 0);
});

t.test('operational states have the names of sysfs', async (t) => {
  const states = ['unknown', 'notpresent', 'down', 'lowerlayerdown', 'testing', 'dormant', 'up', 'unknown'];
  for (const [number, state] of states.entries()) {
    const values = { [IFLA.OPERSTATE]: Buffer.from([number]) };
    t.equal(
      linkAfter(message(RTM.NEWLINK, encode(IFINFOMSG, { index: 3 }), values), known(), speedOf)?.operstate,
      state,
    );
  }
});

t.test('addresses come and go', async (t) => {
  const v4 = Buffer.from([10, 0, 0, 1]);
  const v6 = Buffer.from('20010db8000000000000000000000001', 'hex');
  const inet = encode(IFADDRMSG, { family: 2, prefixLength: 24, index: 3 });
  const inet6 = encode(IFADDRMSG, { family: 10, prefixLength: 64, index: 3 });
  const elsewhere = encode(IFADDRMSG, { family: 2, prefixLength: 24, index: 4 });
  const decnet = encode(IFADDRMSG, { family: 12, prefixLength: 16, index: 3 });
  const peer = { [IFA.ADDRESS]: Buffer.from([10, 9, 9, 9]), [IFA.LOCAL]: v4 };
  const cases: [name: string, message: NetlinkMessage, before: Partial<Link>, after: Partial<Link> | null][] = [
    ['IPv4', message(RTM.NEWADDR, inet, { [IFA.LOCAL]: v4 }), {}, { inet: ['10.0.0.1/24'] }],
    ['a peer is not the address', message(RTM.NEWADDR, inet, peer), {}, { inet: ['10.0.0.1/24'] }],
    ['IPv6', message(RTM.NEWADDR, inet6, { [IFA.ADDRESS]: v6 }), {}, { inet6: ['2001:db8::1/64'] }],
    [
      'a second',
      message(RTM.NEWADDR, inet, { 2: v4 }),
      { inet: ['1.1.1.1/8'] },
      { inet: ['1.1.1.1/8', '10.0.0.1/24'] },
    ],
    ['the same again', message(RTM.NEWADDR, inet, { 2: v4 }), { inet: ['10.0.0.1/24'] }, { inet: ['10.0.0.1/24'] }],
    ['removal', message(RTM.DELADDR, inet, { 2: v4 }), { inet: ['10.0.0.1/24', '1.1.1.1/8'] }, { inet: ['1.1.1.1/8'] }],
    [
      'removal of another prefix',
      message(RTM.DELADDR, inet, { 2: v4 }),
      { inet: ['10.0.0.1/8'] },
      { inet: ['10.0.0.1/8'] },
    ],
    ['another link', message(RTM.NEWADDR, elsewhere, { 2: v4 }), {}, null],
    ['another family', message(RTM.NEWADDR, decnet, { 2: v4 }), {}, null],
    ['no address', message(RTM.NEWADDR, inet), {}, null],
    ['cut short', message(RTM.NEWADDR, Buffer.alloc(5)), {}, null],
  ];
  for (const [name, one, before, after] of cases) {
    t.same(linkAfter(one, known(before), speedOf), after === null ? null : { ...ETH0, ...after }, name);
  }
});

t.test('a DELLINK removes, unless it is a bridge that loses a port', async (t) => {
  const cases: [message: NetlinkMessage, index: number | null][] = [
    [message(RTM.DELLINK, encode(IFINFOMSG, { index: 3 })), 3],
    [message(RTM.DELLINK, encode(IFINFOMSG, { index: 3, family: AF_BRIDGE })), null],
    [message(RTM.NEWLINK, encode(IFINFOMSG, { index: 3 })), null],
    [message(RTM.DELLINK, Buffer.alloc(15)), null],
  ];
  for (const [one, index] of cases) t.equal(removedIndex(one), index);
});

t.test('a bridge port is not a link of its own, nor is any other kind of message', async (t) => {
  for (const one of [
    message(RTM.NEWLINK, encode(IFINFOMSG, { index: 3, family: AF_BRIDGE })),
    message(RTM.NEWLINK, Buffer.alloc(15)),
    message(RTM.DELLINK, encode(IFINFOMSG, { index: 3 })),
    message(RTM.NEWROUTE, Buffer.alloc(12)),
  ]) {
    t.equal(linkAfter(one, known(), speedOf), null);
  }
});

t.test('statistics are named in the order of the structure, as many as there are', async (t) => {
  const values = Buffer.alloc(25 * 8);
  for (let index = 0; index < 25; index++) values.writeBigUInt64LE(BigInt(index) << 32n, 8 * index);
  const all = statisticsOf(message(RTM.NEWLINK, encode(IFINFOMSG, {}), { [IFLA.STATS64]: values }));
  t.equal(all.size, 24);
  t.equal(all.get('rx_packets'), 0);
  t.equal(all.get('tx_bytes'), 3 * 2 ** 32);
  t.equal(all.get('rx_nohandler'), 23 * 2 ** 32);
  const older = message(RTM.NEWLINK, encode(IFINFOMSG, {}), { [IFLA.STATS64]: values.subarray(0, 23 * 8 + 4) });
  t.equal(statisticsOf(older).has('rx_nohandler'), false);
  t.equal(statisticsOf(message(RTM.NEWLINK, encode(IFINFOMSG, {}))).size, 0);
});

t.test('a link type is offered for Ethernet-like and layer-3 interfaces only', async (t) => {
  const types: [type: number, linkType: number | null][] = [
    [ARPHRD.ETHER, 1],
    [ARPHRD.LOOPBACK, 1],
    [ARPHRD.NONE, 101],
    [ARPHRD.PPP, 101],
    [ARPHRD.RAWIP, 101],
    [768, null], // ipip tunnel
    [803, null], // 802.11 monitor
    [280, null], // CAN
  ];
  for (const [type, linkType] of types) t.equal(pcapLinkType({ type }), linkType, `ARPHRD ${type}`);
});
