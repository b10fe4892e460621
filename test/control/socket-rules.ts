import t from 'tap';
import { rulesOf, rulesOfVip } from '../../src/control/socket-rules.js';
import type { VifView } from '../../src/control/socket-rules.js';
import type { WatchedSocket } from '../../src/control/watched-socket.js';
import { parseIpv4, parseIpv6 } from '../../src/packet/ip-address.js';

const DEVICE = 7;
const VLAN_ON_DEVICE = 9;
const OTHER = 2;

function ip(text: string): Buffer {
  const address = text.includes(':') ? parseIpv6(text) : parseIpv4(text);
  if (address === null) throw new Error(text);
  return address;
}

const TAP: VifView = {
  ifindexes: new Set([DEVICE, VLAN_ON_DEVICE]),
  addresses: [ip('10.9.0.1'), ip('10.9.0.2'), ip('2001:db8::1'), ip('fe80::1')],
  kind: 'tap',
};
const TUN: VifView = { ...TAP, kind: 'tun' };

const SOCKET: WatchedSocket = {
  id: 'x:1',
  kind: 'stream',
  protocol: 6,
  family: 4,
  v6only: false,
  address: null,
  port: 0,
  connected: false,
  listening: false,
  ifindex: 0,
  inode: 1,
  filter: '',
};

type Case = readonly [title: string, socket: Partial<WatchedSocket>, rules: readonly string[]];

function table(title: string, common: Partial<WatchedSocket>, cases: readonly Case[], vif = TAP): void {
  t.test(title, async (t) => {
    for (const [name, socket, rules] of cases) {
      t.same(
        rulesOf({ ...SOCKET, ...common, ...socket }, vif).map(({ text }) => text),
        rules,
        name,
      );
    }
  });
}

const listening = { kind: 'stream', protocol: 6, port: 80, listening: true } as const;
table('TCP: who listens wants its port', listening, [
  ['at any address', {}, ['tcp:80']],
  ['at any IPv6 address', { family: 6 }, ['tcp:80']],
  ['at any IPv6 address only: a rule has no family', { family: 6, v6only: true }, ['tcp:80']],
  ['at an address of the vif', { address: ip('10.9.0.1') }, ['tcp:10.9.0.1:80']],
  ['at another one', { address: ip('10.9.0.2') }, ['tcp:10.9.0.2:80']],
  ['at an IPv6 address of the vif', { family: 6, address: ip('2001:db8::1') }, ['tcp:[2001:db8::1]:80']],
  ['of the link', { family: 6, address: ip('fe80::1') }, ['tcp:[fe80::1]:80']],
  ['an IPv6 socket at an IPv4 address', { family: 6, address: ip('10.9.0.1') }, ['tcp:10.9.0.1:80']],
  ['at an address of somebody else', { address: ip('10.8.0.1') }, []],
  ['at loopback', { address: ip('127.0.0.1') }, []],
  ['at IPv6 loopback', { family: 6, address: ip('::1') }, []],
  ['at a group, which no stream can', { address: ip('224.0.0.5') }, []],
  ['only bound', { listening: false }, []],
  ['connected', { listening: false, connected: true, address: ip('10.9.0.1') }, []],
  ['bound to the vif', { ifindex: DEVICE }, ['tcp:80']],
  ['bound to a VLAN on the vif', { ifindex: VLAN_ON_DEVICE }, ['tcp:80']],
  ['bound to another interface', { ifindex: OTHER }, []],
  ['bound to another interface, at an address of the vif', { ifindex: OTHER, address: ip('10.9.0.1') }, []],
  ['the highest port', { port: 65535 }, ['tcp:65535']],
  ['SCTP', { protocol: 132 }, ['sctp:80']],
  ['a stream protocol without ports here', { protocol: 4 }, []],
]);

const datagram = { kind: 'datagram', protocol: 17, port: 53 } as const;
table('UDP: who is bound wants its port', datagram, [
  ['at any address', {}, ['udp:53']],
  ['at any address of both families', { family: 6 }, ['udp:53']],
  ['at an address of the vif', { address: ip('10.9.0.1') }, ['udp:10.9.0.1:53']],
  ['at an IPv6 address of the vif', { family: 6, address: ip('2001:db8::1') }, ['udp:[2001:db8::1]:53']],
  ['an IPv6 socket at an IPv4 address', { family: 6, address: ip('10.9.0.2') }, ['udp:10.9.0.2:53']],
  ['at an address of somebody else', { address: ip('10.8.0.1') }, []],
  ['at loopback', { address: ip('127.0.0.53') }, []],
  ['at a group', { address: ip('224.0.0.251') }, ['udp:224.0.0.251:53']],
  ['at an IPv6 group', { family: 6, address: ip('ff02::fb') }, ['udp:[ff02::fb]:53']],
  ['at the broadcast address', { address: ip('255.255.255.255') }, ['udp:255.255.255.255:53']],
  ['connected from an address of the vif', { connected: true, address: ip('10.9.0.1') }, ['udp:10.9.0.1:53']],
  ['connected from another address', { connected: true, address: ip('10.8.0.1') }, []],
  ['without a port', { port: 0 }, []],
  ['bound to the vif, as DHCP servers are', { ifindex: DEVICE, port: 67 }, ['udp:67']],
  ['bound to another interface', { ifindex: OTHER }, []],
  ['at a group, bound to another interface', { address: ip('224.0.0.251'), ifindex: OTHER }, []],
  ['UDP-Lite', { protocol: 136 }, ['udplite:53']],
  ['UDP-Lite at an address', { protocol: 136, address: ip('10.9.0.1') }, ['udplite:10.9.0.1:53']],
]);

const raw = { kind: 'raw', protocol: 89 } as const;
table('raw sockets want their protocol', raw, [
  ['OSPF', {}, ['ip:89']],
  ['OSPF for IPv6', { family: 6 }, ['ip:89']],
  ['VRRP', { protocol: 112 }, ['ip:112']],
  ['at an address of the vif', { address: ip('10.9.0.1') }, ['ip:89:10.9.0.1']],
  ['at an IPv6 address of the vif', { family: 6, address: ip('fe80::1') }, ['ip:89:[fe80::1]']],
  ['at a group', { address: ip('224.0.0.5') }, ['ip:89:224.0.0.5']],
  ['at an address of somebody else', { address: ip('10.8.0.1') }, []],
  ['connected does not matter', { connected: true }, ['ip:89']],
  ['ICMP is that of IPv4 alone', { protocol: 1 }, ['ip:1']],
  ['ICMP at an address', { protocol: 1, address: ip('10.9.0.1') }, ['ip:1:10.9.0.1']],
  ['ICMPv6', { family: 6, protocol: 58 }, ['icmp6']],
  ['ICMPv6 at an address', { family: 6, protocol: 58, address: ip('2001:db8::1') }, ['icmp6:[2001:db8::1]']],
  ['a protocol with ports: what other sockets get', { protocol: 6 }, []],
  ['IPPROTO_RAW only sends', { protocol: 255 }, []],
  ['bound to the vif', { ifindex: DEVICE }, ['ip:89']],
  ['bound to another interface', { ifindex: OTHER }, []],
]);

const ping = { kind: 'ping', protocol: 1, port: 77 } as const;
table('ping sockets want nothing: echo replies follow their flow', ping, [
  ['ICMP', {}, []],
  ['ICMPv6', { protocol: 58, family: 6 }, []],
  ['at an address of the vif', { address: ip('10.9.0.1') }, []],
]);

const packet = { kind: 'packet', protocol: 3, family: 0 } as const;
const packets: readonly Case[] = [
  ['everything', {}, ['*']],
  ['IPv4', { protocol: 0x0800 }, ['ether:0x0800']],
  ['IPv6', { protocol: 0x86dd }, ['ether:0x86dd']],
  ['nothing', { protocol: 0 }, []],
  ['the last number that is a length', { protocol: 0x05ff }, []],
  ['bound to the vif', { ifindex: DEVICE }, ['*']],
  ['bound to another interface', { ifindex: OTHER }, []],
  ['with a filter: it goes beside the rule', { filter: '06000000ffff0000' }, ['*']],
];
table('packet sockets want their ether type', packet, [
  ...packets,
  ['802.2 frames, which have no ether type', { protocol: 4 }, ['*']],
  ['ARP', { protocol: 0x0806 }, ['arp']],
  ['LLDP', { protocol: 0x88cc, ifindex: DEVICE }, ['ether:0x88cc']],
  ['the highest', { protocol: 0xffff }, ['ether:0xffff']],
]);
table(
  'on a tun there are no ether types but those of IP',
  packet,
  [
    ...packets,
    ['802.2 frames', { protocol: 4 }, []],
    ['ARP', { protocol: 0x0806 }, []],
    ['LLDP', { protocol: 0x88cc }, []],
  ],
  TUN,
);

t.test('a vif without addresses gives rules to wildcards only', async (t) => {
  const vif = { ...TAP, addresses: [] };
  t.same(
    rulesOf({ ...SOCKET, ...listening }, vif).map(({ text }) => text),
    ['tcp:80'],
  );
  t.same(rulesOf({ ...SOCKET, ...listening, address: ip('10.9.0.1') }, vif), []);
});

t.test('a virtual IP address gets what is bound to it or to any address of its family, and no other', async (t) => {
  const four = ip('10.9.0.1');
  const six = ip('fd09::1');
  const at = (socket: Partial<WatchedSocket>, vip: Buffer): string[] =>
    rulesOfVip({ ...SOCKET, port: 80, listening: true, ...socket }, vip).map(({ text }) => text);
  const datagram = { kind: 'datagram', protocol: 17, listening: false } as const;
  t.same(at({}, four), ['tcp:10.9.0.1:80']);
  t.same(at({ address: four }, four), ['tcp:10.9.0.1:80']);
  t.same(at(datagram, four), ['udp:10.9.0.1:80']);
  t.same(at({ protocol: 132 }, four), ['sctp:10.9.0.1:80']);
  t.same(at({ family: 6 }, four), ['tcp:10.9.0.1:80']);
  t.same(at({ family: 6 }, six), ['tcp:[fd09::1]:80']);
  t.same(at({ family: 6, v6only: true }, six), ['tcp:[fd09::1]:80']);
  t.same(at({ family: 6, v6only: true }, four), []);
  t.same(at({}, six), [], 'an IPv4 socket has no IPv6');
  t.same(at({ address: ip('10.9.0.2') }, four), []);
  t.same(at({ ...datagram, address: ip('224.0.0.5') }, four), []);
  t.same(at({ ...datagram, address: ip('255.255.255.255') }, four), []);
  t.same(at({ ifindex: DEVICE }, four), [], 'bound to a device');
  t.same(at({ listening: false }, four), []);
  t.same(at({ port: 0 }, four), []);
  t.same(at({ kind: 'raw', protocol: 89, port: 0, listening: false }, four), []);
  t.same(at({ kind: 'packet', protocol: 3, port: 0 }, four), []);
});
