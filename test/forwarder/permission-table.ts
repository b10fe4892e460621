import t from 'tap';
import type { Identity, Permission } from '../../src/forwarder/permission-table.js';
import { RIGHTS, type Right } from '../../src/tunnel/messages.js';
import { allows, kindOfControl, PERMISSION_COLUMNS, PermissionTable } from '../../src/forwarder/permission-table.js';
import { parseProtocolAddress } from '../../src/packet/protocol-address.js';
import type { ProtocolAddress } from '../../src/packet/protocol-address.js';

const protocol = (text: string): ProtocolAddress => parseProtocolAddress(text, { ranges: true });

/** A line as `CONTROL INTERFACE RIGHTS [PROTOCOLS]`, lists with commas. */
function line(text: string): Permission {
  const [control = '', name = '', rights = '', protocols = '*'] = text.split(' ');
  return {
    control,
    interface: name,
    rights: RIGHTS.filter((right) => rights.split(',').includes(right)),
    protocols: protocols.split(',').map(protocol),
  };
}

const table = (...lines: string[]): PermissionTable => new PermissionTable(lines.map(line));

const identity = (name: string, address = '', uid: number | null = null): Identity => ({ name, address, uid });

/** The rights in the order of the table, joined. */
function rights(of: PermissionTable, who: Identity, name: string): string {
  const granted: ReadonlySet<Right> = of.rightsOf(who, name).rights;
  return RIGHTS.filter((right) => granted.has(right)).join(',');
}

t.test('nobody may do anything by default', async (t) => {
  const empty = table();
  t.equal(rights(empty, identity('ctl1', '127.0.0.1', 0), 'eth0'), '');
  t.same(empty.rightsOf(identity('ctl1'), 'eth0').protocols, []);
  t.equal(allows(empty.rightsOf(identity('ctl1'), 'eth0'), 'read', protocol('*')), false);
  t.same(empty.rows(), []);
});

t.test('a control device is named by name, address, prefix, user or asterisk', async (t) => {
  const cases: [control: string, who: Identity, matches: boolean][] = [
    ['ctl1', identity('ctl1'), true],
    ['ctl1', identity('ctl2'), false],
    ['ctl1', identity('CTL1'), false],
    ['*', identity(''), true],
    ['10.0.0.1', identity('x', '10.0.0.1'), true],
    ['10.0.0.1', identity('x', '10.0.0.2'), false],
    ['10.0.0.1', identity('10.0.0.1', '10.0.0.2'), false], // a name can't pass for an address
    ['10.0.0.0/24', identity('x', '10.0.0.255'), true],
    ['10.0.0.7/24', identity('x', '10.0.0.255'), true],
    ['10.0.0.0/24', identity('x', '10.0.1.0'), false],
    ['10.0.0.0/24', identity('x', '::ffff:10.0.0.9'), true],
    ['10.0.0.0/24', identity('x', ''), false],
    ['10.0.0.0/24', identity('x', 'no address'), false],
    ['0.0.0.0/0', identity('x', '203.0.113.9'), true],
    ['0.0.0.0/0', identity('x', '2001:db8::1'), false],
    ['0.0.0.0/0', identity('x', ''), false],
    ['::/0', identity('x', '2001:db8::1'), true],
    ['::/0', identity('x', '10.0.0.1'), false],
    ['::/0', identity('x', '::ffff:10.0.0.1'), false],
    ['2001:db8::/32', identity('x', '2001:db8:ffff::1'), true],
    ['2001:db8::/32', identity('x', '2001:db9::1'), false],
    ['2001:DB8:0::1', identity('x', '2001:db8::1'), true],
    ['fe80::/10', identity('x', 'fe80::1%eth0'), true],
    ['::1', identity('x', '::1'), true],
    ['uid:0', identity('x', '', 0), true],
    ['uid:0', identity('x', '', 1000), false],
    ['uid:0', identity('x', '127.0.0.1', null), false],
    ['uid:1000', identity('uid:1000', '', null), false],
    ['uid:x', identity('uid:x', '', 0), false], // malformed lines match nobody
    ['10.0.0.0/33', identity('10.0.0.0/33', '10.0.0.0'), false],
  ];
  for (const [control, who, matches] of cases) {
    const granted = rights(table(`${control} eth0 read`), who, 'eth0');
    t.equal(granted, matches ? 'read' : '', `${control} ${JSON.stringify(who)}`);
  }
});

t.test('what a control is written as tells its kind', async (t) => {
  const kinds: [text: string, kind: ReturnType<typeof kindOfControl>][] = [
    ['*', 'any'],
    ['uid:0', 'uid'],
    ['uid:4294967294', 'uid'],
    ['10.0.0.1', 'address'],
    ['10.0.0.0/0', 'address'],
    ['10.0.0.0/32', 'address'],
    ['::1', 'address'],
    ['2001:db8::/128', 'address'],
    ['ctl1', 'name'],
    ['web.example.org', 'name'],
    ['10', 'name'],
    ['uid:', null],
    ['uid:01', null],
    ['uid:-1', null],
    ['10.0.0.0/33', null],
    ['10.0.0.0/', null],
    ['10.0.0.0/08', null],
    ['10.0.0.0/8/8', null],
    ['10.0.0', null],
    ['10.0.0.256', null],
    ['::/129', null],
    ['fe80::1%eth0', null],
    ['a/8', null],
    ['02:00:00:00:00:01', null],
  ];
  for (const [text, kind] of kinds) t.equal(kindOfControl(text), kind, text);
});

t.test('a line is for one interface, or for all', async (t) => {
  const rules = table('ctl1 eth0 read', 'ctl1 * vif');
  t.equal(rights(rules, identity('ctl1'), 'eth0'), 'read');
  t.equal(rights(rules, identity('ctl1'), 'eth1'), 'vif');
  t.equal(rights(table('ctl1 eth0 read'), identity('ctl1'), 'eth1'), '');
  t.equal(rights(table('ctl1 eth0 read'), identity('ctl1'), '*'), '', 'an asterisk is no name');
});

t.test('the first line that matches decides alone', async (t) => {
  const cases: [lines: string[], who: Identity, name: string, granted: string][] = [
    [['ctl1 eth0 read', 'ctl1 eth0 read,write,vif'], identity('ctl1'), 'eth0', 'read'],
    [['* * read', 'ctl1 eth0 write'], identity('ctl1'), 'eth0', 'read'],
    [['ctl1 eth0 write', '* * read'], identity('ctl1'), 'eth0', 'write'],
    [['ctl1 eth0 write', '* * read'], identity('ctl2'), 'eth0', 'read'],
    [['ctl1 eth0 none', '* * read'], identity('ctl1'), 'eth0', ''],
    [['10.0.0.66 * none', '10.0.0.0/24 * read'], identity('x', '10.0.0.66'), 'eth0', ''],
    [['10.0.0.66 * none', '10.0.0.0/24 * read'], identity('x', '10.0.0.67'), 'eth0', 'read'],
    [['ctl1 eth1 write', 'ctl1 * read'], identity('ctl1'), 'eth0', 'read'],
  ];
  for (const [lines, who, name, granted] of cases)
    t.equal(rights(table(...lines), who, name), granted, lines.join('; '));
});

t.test('lines for the same control and interface with other protocol addresses do not add up', async (t) => {
  const grant = table('ctl1 eth0 read udp:520', 'ctl1 eth0 read,write tcp').rightsOf(identity('ctl1'), 'eth0');
  t.equal(allows(grant, 'read', protocol('udp:520')), true);
  t.equal(allows(grant, 'read', protocol('tcp')), false);
  t.equal(allows(grant, 'write', protocol('tcp')), false);
});

t.test('a right is allowed for what the grant covers', async (t) => {
  const grant = table('ctl1 eth0 read,vif udp:520,tcp:1000-2000,arp').rightsOf(identity('ctl1'), 'eth0');
  const cases: [right: Right, asked: string, allowed: boolean][] = [
    ['read', 'udp:520', true],
    ['read', 'udp:10.0.0.1:520', true],
    ['read', 'tcp:1500', true],
    ['vif', 'arp', true],
    ['read', '*', false],
    ['read', 'udp', false],
    ['read', 'udp:521', false],
    ['write', 'udp:520', false],
    ['inject', 'arp', false],
  ];
  for (const [right, asked, allowed] of cases)
    t.equal(allows(grant, right, protocol(asked)), allowed, `${right} ${asked}`);
  const all = table('* * inject').rightsOf(identity('x'), 'eth0');
  t.equal(allows(all, 'inject'), true);
  t.equal(allows(all, 'write'), false, 'inject does not include write');
});

t.test('rows show the lines as they were written, in their order', async (t) => {
  const rules = table('ctl1 eth0 read,write udp:520,TCP:10.0.0.1:80', '10.0.0.0/24 * none');
  t.same(PERMISSION_COLUMNS, ['control', 'interface', 'rights', 'protocols']);
  t.same(rules.rows(), [
    ['ctl1', 'eth0', 'read,write', 'udp:520,tcp:10.0.0.1:80'],
    ['10.0.0.0/24', '*', '', '*'],
  ]);
});

t.test('an IPv4 line matches a peer in every spelling of its address, an IPv6 line too', async (t) => {
  const spellings: [control: string, peers: string[]][] = [
    ['192.0.2.1', ['192.0.2.1', '::ffff:192.0.2.1', '::FFFF:192.0.2.1']],
    ['2001:db8::1', ['2001:db8::1', '2001:DB8::1', '2001:db8:0:0:0:0:0:1', '2001:db8::0.0.0.1']],
  ];
  for (const [control, peers] of spellings) {
    for (const peer of peers) t.equal(rights(table(`${control} * read`), identity('x', peer), 'eth0'), 'read', peer);
  }
});
