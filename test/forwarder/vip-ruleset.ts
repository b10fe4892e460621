/** Distribution table 343 and reception table 345 as nft has them: slots, scripts, and rows read back. */
import t from 'tap';
import { MAX_VIP_SLOTS } from '../../src/base/limits.js';
import { parseIpv4, parseIpv6 } from '../../src/packet/ip-address.js';
import { parseProtocolAddress } from '../../src/packet/protocol-address.js';
import { applyRuleset, listTable } from '../../src/sys/nftables.js';
import { readListing } from '../../src/forwarder/vip-rows.js';
import {
  replaceScript,
  slotsOf,
  type VipMember,
  type VipModel,
  vipRuleset,
  type VipSender,
} from '../../src/forwarder/vip-ruleset.js';
import { Netns, withoutRoot } from '../support/netns.js';

const address = (text: string): Buffer => parseIpv4(text) ?? parseIpv6(text) ?? Buffer.alloc(0);
const TABLE = 'fwdfs_t/vip';

function member(number: number, weight: number, more: Partial<VipMember> = {}): VipMember {
  const common = { interface: 'eth0', vip: address('10.9.0.1'), protocol: 6, port: 80 };
  return { ...common, sender: address(`169.254.7.${number}`), control: `ctl${number}`, weight, id: number, ...more };
}

function sender(number: number, more: Partial<VipSender> = {}): VipSender {
  const mac = Buffer.from([2, 0, 0, 0, 0, number]);
  const common = { vip: address('10.9.0.1'), link: 'c0', mac, outgoing: [parseProtocolAddress('*')] };
  return { ...common, sender: address(`169.254.7.${number}`), control: `ctl${number}`, ...more };
}

const model = (more: Partial<VipModel>): VipModel => ({
  senders: [],
  members: [],
  closed4: [],
  closed6: false,
  seed: 7,
  ...more,
});

/** `1 1 2`: the last byte of each slot's address. */
const slots = (...members: VipMember[]): string =>
  slotsOf(members)
    .map((slot) => slot[3])
    .join(' ');

t.test('slots are the weights in their lowest terms, the same for the same members in any order', (t) => {
  t.equal(slots(member(1, 1)), '1');
  t.equal(slots(member(1, 256)), '1');
  t.equal(slots(member(1, 10), member(2, 20)), '1 2 2');
  t.equal(slots(member(2, 20), member(1, 10)), '1 2 2');
  t.equal(slots(member(1, 3), member(2, 2), member(3, 1)), '1 1 1 2 2 3');
  t.end();
});

t.test('many slots are scaled down, and everybody keeps one', (t) => {
  const members = Array.from({ length: 200 }, (_, index) => member(index, index % 2 === 0 ? 255 : 1));
  const of = slotsOf(members);
  t.ok(of.length <= MAX_VIP_SLOTS + 100, `${of.length} slots`);
  for (const { sender: who } of members) t.ok(of.includes(who));
  const heavy = of.filter((slot) => (slot[3] ?? 0) % 2 === 0).length / 100;
  t.ok(heavy >= 10, 'a heavy one has its share');
  t.end();
});

t.test('a member without weight is counted and takes nothing; a port without a member is not converted', (t) => {
  const { body } = vipRuleset(TABLE, model({ senders: [sender(1), sender(2)], members: [member(1, 1), member(2, 0)] }));
  t.match(body, /mod 1 seed 7 vmap \{ 0 : jump to_169\.254\.7\.1 \}/);
  t.match(body, '169.254.7.2 . 6 . 80 : "rule_2"');
  t.notMatch(vipRuleset(TABLE, model({ senders: [sender(1)], members: [member(1, 0)] })).body, /jhash/);
  t.end();
});

t.test('names that nft has no word for are refused, or made harmless', (t) => {
  t.throws(() => vipRuleset(TABLE, model({ senders: [sender(1, { link: 'c"0' })] })), { code: 'bad-config' });
  t.throws(() => vipRuleset(TABLE, model({ senders: [sender(1)], members: [member(1, 1, { interface: 'e*' })] })), {
    code: 'bad-config',
  });
  t.match(vipRuleset(TABLE, model({ senders: [sender(1, { control: 'a"b' })] })).body, 'comment "a?b"');
  t.end();
});

const SIX = { vip: address('fd09::1'), sender: address('fdfd::1') };

t.test('the kernel takes what changes to what, and tells it as rows', { skip: withoutRoot }, async (t) => {
  const netns = new Netns('-vf-nft');
  t.teardown(() => netns.remove());
  const full = model({
    senders: [
      sender(1),
      sender(2, { outgoing: null }),
      sender(3, {
        ...SIX,
        outgoing: [
          parseProtocolAddress('tcp:80-90', { ranges: true }),
          parseProtocolAddress('icmp'),
          parseProtocolAddress('arp'),
        ],
      }),
    ],
    members: [
      member(1, 1),
      member(2, 2),
      member(3, 1, { protocol: 132, port: 5000, ...SIX }),
      member(4, 1, { protocol: 136, port: 9, interface: 'eth0.5', sender: address('169.254.7.1') }),
    ],
    closed4: ['eth0', 'c0'],
    closed6: true,
  });
  const less = model({ senders: [sender(2)], members: [member(2, 2)], closed4: ['eth0'] });
  const nothing = model({});
  await netns.within(async () => {
    const listing = async (): Promise<ReturnType<typeof readListing>> =>
      readListing((await listTable('inet', TABLE)) ?? '');
    let before = null;
    for (const next of [nothing, full, less, full, nothing, less]) {
      const after = vipRuleset(TABLE, next);
      await applyRuleset(replaceScript(TABLE, before, after));
      before = after;
      const { distribution, reception, senders } = await listing();
      t.equal(distribution.length, next.members.length);
      t.same(
        senders.toSorted(),
        next.senders.map((one) => (one.sender.length === 4 ? [...one.sender].join('.') : 'fdfd::1')).toSorted(),
      );
      t.equal(reception.length, next.senders.length);
      if (next !== full) continue;
      t.same(
        distribution.map((row) => row.join(' ')),
        [
          'eth0 10.9.0.1 tcp 80 169.254.7.1 ctl1 1/3 0 0',
          'eth0 10.9.0.1 tcp 80 169.254.7.2 ctl2 2/3 0 0',
          'eth0 fd09::1 sctp 5000 fdfd::1 ctl3 1/1 0 0',
          'eth0.5 10.9.0.1 udplite 9 169.254.7.1 ctl1 1/1 0 0',
        ].toSorted(),
      );
      t.same(reception[2], ['fdfd::1', 'fd09::1', 'ctl3', 'c0', '02:00:00:00:00:03']);
    }
    const names = netns.run(`nft list table inet ${TABLE}`);
    t.notMatch(names, /rule_1|from_169\.254\.7\.1/, 'what a later one has not is gone');
  });
});

t.test('a listing of something else, or of nothing, has no rows', (t) => {
  for (const text of [
    '{}',
    'null',
    '{"nftables":[{"metainfo":{}},{"rule":{"chain":"prerouting","expr":[{"vmap":{}}]}},{"set":{"name":"links4","elem":[1]}}]}',
  ]) {
    const { distribution, reception } = readListing(text);
    t.same([distribution, reception], [[], []]);
  }
  t.end();
});

t.test('numbers of protocols are names in rows, whatever nft knows', (t) => {
  const vmap = (protocol: unknown) => ({
    vmap: { data: { set: [[{ concat: ['eth0', '10.9.0.1', protocol, 80] }, { goto: { target: 'g' } }]] } },
  });
  const one = { vmap: { data: { set: [[0, { jump: { target: 'to' } }]] } } };
  const dnat = { dnat: { addr: '169.254.7.1' } };
  const text = (protocol: unknown): string =>
    JSON.stringify({
      nftables: [
        { rule: { chain: 'prerouting', expr: [vmap(protocol)] } },
        { rule: { chain: 'to', expr: [dnat] } },
        { rule: { chain: 'g', expr: [one] } },
      ],
    });
  for (const [said, name] of [
    [6, 'tcp'],
    ['udp', 'udp'],
    [132, 'sctp'],
  ] as const)
    t.equal(readListing(text(said)).distribution[0]?.[2], name);
  t.end();
});
