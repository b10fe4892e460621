/*
 *      namespace "host"                       namespace "peer"
 *   +--------------------+   veth pair     +--------------------+
 *   | eth0 10.0.0.1/24   |-----------------| eth0 10.0.0.2/24   |
 *   +--------------------+   Quiet on      +--------------------+
 *                            host's eth0
 */
import t from 'tap';
import { Discard } from '../../src/forwarder/discard.js';
import { type Claim, claimRules, Quiet } from '../../src/forwarder/quiet.js';
import { parseProtocolAddress } from '../../src/packet/protocol-address.js';
import { applyRuleset, listTables, type NftTable } from '../../src/sys/nftables.js';
import { connectVeth, Netns, withoutRoot } from '../support/netns.js';

const claim = (protocol: string, name = 'eth0'): Claim => ({
  interface: name,
  protocol: parseProtocolAddress(protocol),
});
const INET: NftTable = { family: 'inet', name: 'fwdfs_fwd1/claims' };
const ARP: NftTable = { family: 'arp', name: 'fwdfs_fwd1/claims' };

interface Bench {
  readonly host: Netns;
  readonly peer: Netns;
  readonly claims: Claim[];
  readonly quiet: Quiet;
  /** Sets what is claimed. */
  readonly set: (...claims: Claim[]) => Promise<void>;
}

function setUp(t: { teardown: (undo: () => void) => void }): Bench {
  const host = new Netns('qh');
  const peer = new Netns('qp');
  t.teardown(() => peer.remove());
  t.teardown(() => host.remove());
  connectVeth(
    { netns: host, name: 'eth0', addresses: ['10.0.0.1/24'] },
    { netns: peer, name: 'eth0', addresses: ['10.0.0.2/24'] },
  );
  t.teardown(host.enter());
  const claims: Claim[] = [];
  const quiet = new Quiet('fwd1', [parseProtocolAddress('tcp:7440')], () => claims);
  const set = (...wanted: Claim[]): Promise<void> => {
    claims.splice(0, claims.length, ...wanted);
    return quiet.update();
  };
  return { host, peer, claims, quiet, set };
}

function pings(from: Netns): boolean {
  try {
    from.run('ping -c 1 -W 0.3 10.0.0.1');
    return true;
  } catch {
    return false;
  }
}

t.test('each claim becomes the rules that drop what it takes', async (t) => {
  const cases: [protocol: string, inet: string[], arp: string[]][] = [
    ['*', ['iifname "eth0" drop'], []],
    ['arp', [], ['iifname "eth0" drop']],
    ['ether:0x88cc', [], []],
    ['ether:0x86dd', ['iifname "eth0" meta nfproto ipv6 drop'], []],
    ['icmp', ['iifname "eth0" meta l4proto { 1, 58 } drop'], []],
    ['udp:10.0.0.1:53', ['iifname "eth0" ip daddr 10.0.0.1 meta l4proto { 17 } th dport 53 drop'], []],
  ];
  for (const [protocol, inet, arp] of cases) {
    t.same(claimRules('inet', claim(protocol)), inet, protocol);
    t.same(claimRules('arp', claim(protocol)), arp, protocol);
  }
  t.throws(() => claimRules('inet', claim('*', 'eth*')), { code: 'bad-config' });
});

t.test('each table is there only while a claim needs it', { skip: withoutRoot }, async (t) => {
  const { set, quiet, peer } = setUp(t);
  const steps: [claims: Claim[], tables: NftTable[]][] = [
    [[], []],
    [[claim('ether:0x88cc')], []],
    [[claim('udp:53')], [INET]],
    [
      [claim('udp:53'), claim('arp')],
      [INET, ARP],
    ],
    [[claim('arp', 'eth9')], [ARP]],
    [[], []],
    [[claim('icmp')], [INET]],
  ];
  for (const [claims, tables] of steps) {
    await set(...claims);
    t.same(await listTables(), tables);
  }
  t.equal(pings(peer), false);
  await quiet.remove();
  t.same(await listTables(), []);
  t.equal(pings(peer), true);
});

t.test(
  'changes that come together share one run of nft, and each is done when it returns',
  { skip: withoutRoot },
  async (t) => {
    const { host, claims, quiet } = setUp(t);
    claims.push(claim('udp:1'));
    const first = quiet.update();
    const others = [2, 3, 4].map((port) => {
      claims.push(claim(`udp:${port}`));
      return quiet.update();
    });
    t.equal(new Set([first, ...others]).size, 1);
    await first;
    for (const port of [1, 2, 3, 4]) t.match(host.run('nft list ruleset'), `udp dport ${port} drop`);
    const next = quiet.update();
    t.not(next, first);
    await next;
  },
);

t.test('a change that fails leaves the kernel as it was, and the next one works', { skip: withoutRoot }, async (t) => {
  const { host, set } = setUp(t);
  await set(claim('udp:53'));
  const before = host.run('nft list ruleset');
  await t.rejects(set(claim('udp:54'), claim('udp:55', 'a"b')), { code: 'bad-config' });
  t.equal(host.run('nft list ruleset'), before);
  await set(claim('udp:54'));
  t.match(host.run('nft list ruleset'), /udp dport 54 drop/);
});

t.test('counts of what is discarded go on, and its table stays', { skip: withoutRoot }, async (t) => {
  const { host, peer, set, quiet } = setUp(t);
  const discard = new Discard('fwd1', []);
  await discard.apply([{ name: 'eth0', unmatched: 'discard', host: [] }]);
  t.equal(pings(peer), false);
  t.equal((await discard.counts()).get('eth0'), 1);
  await set(claim('udp:53'));
  t.equal(pings(peer), false);
  t.equal((await discard.counts()).get('eth0'), 2);
  await set(claim('icmp'));
  t.equal(pings(peer), false);
  t.equal((await discard.counts()).get('eth0'), 2, 'what is claimed is not discarded');
  await quiet.remove();
  t.same(await listTables(), [{ family: 'inet', name: 'fwdfs_fwd1' }]);
  t.match(host.run('nft list ruleset'), /packets 2 /);
});

t.test('what a crash left is swept by the next start; tables of others stay', { skip: withoutRoot }, async (t) => {
  const { set } = setUp(t);
  await set(claim('udp:53'), claim('arp'));
  await applyRuleset('add table inet mine\nadd table inet fwdfs_fwd2/claims\n');
  await new Quiet('fwd1', [], () => []).sweep();
  t.same(await listTables(), [
    { family: 'inet', name: 'mine' },
    { family: 'inet', name: 'fwdfs_fwd2/claims' },
  ]);
});

t.test('one that made no table removes none', { skip: withoutRoot }, async (t) => {
  const { set } = setUp(t);
  await set(claim('udp:53'));
  await new Quiet('fwd1', [], () => []).remove();
  t.same(await listTables(), [INET]);
});
