import t from 'tap';
import { interfacePart, NftSets, portPart, setKey } from '../../src/sys/nft-sets.js';
import { applyRuleset } from '../../src/sys/nftables.js';
import { Netns, withoutRoot } from '../support/netns.js';

const TABLE = 'fwdfs_test/sets';
const SETS = `table inet ${TABLE} {
  set ports { type ifname . inet_proto . inet_service; }
  set addresses4 { type ipv4_addr . inet_proto . inet_service; }
  set addresses6 { type ipv6_addr . inet_proto . inet_service; }
  set protocols { type inet_proto; }
}
`;

interface Scene {
  readonly netns: Netns;
  readonly sets: NftSets;
  readonly list: (set: string) => string;
}

async function setUp(t: { teardown: (undo: () => void) => void }, script = SETS): Promise<Scene> {
  const netns = new Netns('sets');
  t.teardown(() => netns.remove());
  const sets = await netns.within(async () => {
    await applyRuleset(script);
    return new NftSets('inet', TABLE);
  });
  t.teardown(() => sets.close());
  return { netns, sets, list: (set) => netns.run(`nft list set inet ${TABLE} ${set}`) };
}

const http = setKey(interfacePart('eth0'), Buffer.from([6]), portPart(80));

t.test('the parts of a key are padded to four bytes', (t) => {
  t.equal(http.toString('hex'), `65746830${'00'.repeat(12)}0600000000500000`);
  t.equal(setKey(Buffer.from([10, 0, 0, 1])).toString('hex'), '0a000001');
  t.end();
});

t.test('an element is there after add and gone after remove', { skip: withoutRoot }, async (t) => {
  const { sets, list } = await setUp(t);
  sets.add('ports', http);
  t.match(list('ports'), /elements = \{ "eth0" \. tcp \. 80 \}/);
  sets.remove('ports', http);
  t.notMatch(list('ports'), /elements/);
});

t.test('addresses of both families and plain protocols are keys', { skip: withoutRoot }, async (t) => {
  const { sets, list } = await setUp(t);
  const end = [Buffer.from([17]), portPart(0x1234)];
  sets.add('addresses4', setKey(Buffer.from([10, 9, 0, 1]), ...end));
  sets.add('addresses6', setKey(Buffer.from('20010db8000000000000000000000001', 'hex'), ...end));
  sets.add('protocols', Buffer.from([89]));
  t.match(list('addresses4'), /10\.9\.0\.1 \. udp \. 4660/);
  t.match(list('addresses6'), /2001:db8::1 \. udp \. 4660/);
  t.match(list('protocols'), /elements = \{ (89|ospf\w*) \}/);
});

t.test('adding twice and removing twice are no errors, and count once', { skip: withoutRoot }, async (t) => {
  const { sets, list } = await setUp(t);
  sets.add('ports', http);
  sets.add('ports', http);
  sets.remove('ports', http);
  t.notMatch(list('ports'), /elements/);
  sets.remove('ports', http);
});

t.test('adding to a set that is not there fails, removing from it does not', { skip: withoutRoot }, async (t) => {
  const { sets } = await setUp(t);
  t.throws(() => sets.add('absent', http), { name: 'SystemError', code: 'ENOENT' });
  sets.remove('absent', http);
});

t.test('after a failure the next element goes in', { skip: withoutRoot }, async (t) => {
  const { sets, list } = await setUp(t);
  t.throws(() => sets.add('ports', Buffer.from([1])), { name: 'SystemError', code: 'EINVAL' });
  sets.add('ports', http);
  t.match(list('ports'), /"eth0" \. tcp \. 80/);
});

t.test('the kernel drops by the set at once, in the namespace of its socket', { skip: withoutRoot }, async (t) => {
  const script = `table inet ${TABLE} {
  set ports { type ifname . inet_proto . inet_service; }
  chain input { type filter hook input priority 0; iifname . meta l4proto . th dport @ports counter drop; }
}
`;
  const { netns, sets } = await setUp(t, script);
  netns.run('ip link set lo up');
  const lo = setKey(interfacePart('lo'), Buffer.from([17]), portPart(4000));
  sets.add('ports', lo);
  netns.run('bash -c echo>/dev/udp/127.0.0.1/4000');
  t.match(netns.run(`nft list table inet ${TABLE}`), /counter packets 1 /);
});

t.test('many elements come at once, whatever fits into one change', { skip: withoutRoot }, async (t) => {
  const { sets, list } = await setUp(t);
  const keys = Array.from({ length: 1000 }, (_, index) =>
    setKey(Buffer.alloc(16, index % 250), Buffer.from([6]), portPart(1 + index)),
  );
  sets.addAll('addresses6', keys);
  sets.addAll('addresses6', []);
  const first = keys[0];
  if (first !== undefined) sets.remove('addresses6', first);
  const count = (): number => list('addresses6').match(/ \. tcp \. /g)?.length ?? 0;
  t.equal(count(), 999);
  sets.removeAll('addresses6', keys.slice(0, 900));
  t.equal(count(), 100, 'also where one was gone already');
  sets.removeAll('addresses6', keys.slice(900));
  t.equal(count(), 0);
});

t.test('elements of maps have data', { skip: withoutRoot }, async (t) => {
  const script = `table inet ${TABLE} { map to { type ipv4_addr . inet_proto . inet_service : ipv4_addr; }\n}`;
  const { netns, sets } = await setUp(t, script);
  const list = (): string => netns.run(`nft list map inet ${TABLE} to`);
  const key = setKey(Buffer.from([169, 254, 7, 7]), Buffer.from([6]), portPart(80));
  sets.add('to', key, Buffer.from([10, 9, 0, 1]));
  t.match(list(), /169\.254\.7\.7 \. tcp \. 80 : 10\.9\.0\.1/);
  sets.remove('to', key);
  t.notMatch(list(), /elements/);
});
