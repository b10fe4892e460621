/** src/forwarder/fragments.ts: later fragments get what only their first one tells. */
import t from 'tap';
import { FRAGMENT_TABLE_SIZE, FRAGMENT_TIME_MS } from '../../src/base/limits.js';
import { InterfaceRules, type Rule, SEEN, SIDE } from '../../src/forwarder/distribution-table.js';
import { FragmentTable } from '../../src/forwarder/fragments.js';
import { FrameView } from '../../src/packet/headers.js';
import { makePeer, makeRule } from '../support/fake-peer.js';
import { ethernet, fragmentHeader, ipv4, ipv6, udp } from '../vectors/packet-frames.js';

const { peer } = makePeer();
const MORE = 0x2000;
const FIRST = 1;
const datagram = udp(5353, 520, Buffer.alloc(64));

interface Fragment {
  id?: number;
  protocol?: number;
  source?: string;
  destination?: string;
}

const first4 = (more: Fragment = {}): Buffer =>
  ethernet(0x0800, ipv4({ protocol: 17, id: 7, fragment: MORE, ...more }, datagram.subarray(0, 32)));
const later4 = (more: Fragment = {}): Buffer =>
  ethernet(0x0800, ipv4({ protocol: 17, id: 7, fragment: 4, ...more }, datagram.subarray(32)));
const first6 = (id: number, extensions: (readonly [number, Buffer])[] = []): Buffer =>
  ethernet(0x86dd, ipv6(17, datagram.subarray(0, 32), [fragmentHeader(0, true, id), ...extensions]));
const later6 = (id: number, next = 17): Buffer =>
  ethernet(0x86dd, ipv6(next, datagram.subarray(32), [fragmentHeader(4, false, id)]));

/** What an interface does with every frame: `ports` where they are known, `?` for a fragment of nobody. */
class Follower {
  readonly table = new FragmentTable();
  readonly view = new FrameView();

  see(frame: Buffer, seconds = 1): string {
    const { view, table } = this;
    view.parse(frame, 0, frame.length);
    if (view.fragment === FIRST) table.remember(view, frame, seconds);
    else if (view.fragment !== 0 && !table.recall(view, frame, seconds)) return '?';
    return `${view.protocol} ${view.sourcePort} ${view.destinationPort}`;
  }
}

t.test('a later fragment has the ports of its first one', async (t) => {
  const follower = new Follower();
  t.equal(follower.see(later4()), '?', 'unknown before the first came');
  t.equal(follower.see(first4()), '17 5353 520');
  t.equal(follower.see(later4()), '17 5353 520');
  t.equal(follower.see(later4()), '17 5353 520', 'and every other one');
  t.equal(follower.see(first6(9)), '17 5353 520');
  t.equal(follower.see(later6(9)), '17 5353 520');
});

t.test('a fragment of another datagram is of nobody', async (t) => {
  const others: Fragment[] = [{ id: 8 }, { protocol: 6 }, { source: '10.0.0.9' }, { destination: '10.0.0.9' }];
  for (const other of others) {
    const follower = new Follower();
    follower.see(first4());
    t.equal(follower.see(later4(other)), '?', JSON.stringify(other));
  }
  const swapped = new Follower();
  swapped.see(first4({ source: '10.0.0.1', destination: '10.0.0.2' }));
  t.equal(swapped.see(later4({ source: '10.0.0.2', destination: '10.0.0.1' })), '?', 'the other direction');
  const follower = new Follower();
  follower.see(first6(9));
  t.equal(follower.see(later6(10)), '?');
});

t.test('in IPv6 extension headers may stand in the first fragment only', async (t) => {
  const follower = new Follower();
  const destinationOptions = [60, Buffer.alloc(8)] as const;
  t.equal(follower.see(first6(3, [destinationOptions])), '17 5353 520');
  // Its fragment header says what the first one's says: destination options follow.
  t.equal(follower.see(later6(3, 60)), '17 5353 520');
});

t.test('a datagram is followed for its time', async (t) => {
  const seconds = FRAGMENT_TIME_MS / 1000;
  const follower = new Follower();
  follower.see(first4(), 100);
  t.equal(follower.see(later4(), 100 + seconds), '17 5353 520');
  t.equal(follower.see(later4(), 101 + seconds), '?');
  follower.see(first4(), 102 + seconds);
  t.equal(follower.see(later4(), 102 + seconds), '17 5353 520', 'an identification comes again');
});

t.test('as many datagrams as there are places are mostly followed, more take the places of older ones', async (t) => {
  const follower = new Follower();
  const known = (ids: number[]): number => ids.filter((id) => follower.see(later4({ id })) !== '?').length;
  const half = Array.from({ length: FRAGMENT_TABLE_SIZE / 2 }, (_, index) => 1000 + index);
  for (const id of half) follower.see(first4({ id }));
  t.ok(known(half) > half.length / 2, `${known(half)} of ${half.length}`);
  const many = Array.from({ length: 20 * FRAGMENT_TABLE_SIZE }, (_, index) => 10_000 + index);
  for (const id of many) follower.see(first4({ id }));
  t.ok(known(many.slice(-50)) > 40, 'the newest are there');
  t.ok(known(many) <= FRAGMENT_TABLE_SIZE);
});

t.test('a rule with port and address gets the later fragments too, one of another address none', async (t) => {
  const rules = new InterfaceRules();
  const wanted = ['udp:10.9.0.1:520', 'udp:520', 'udp:10.9.0.1', '*'].map((text) => makeRule(peer, text));
  const unwanted = ['udp:10.9.0.2:520', 'udp:10.9.0.1:521', 'tcp:10.9.0.1:520'].map((text) => makeRule(peer, text));
  for (const rule of [...unwanted, ...wanted]) rules.add(rule);
  const follower = new Follower();
  follower.see(first4({ destination: '10.9.0.1' }));
  const frame = later4({ destination: '10.9.0.1' });
  follower.see(frame);
  const matched: Rule[] = [];
  const count = rules.match(follower.view, frame, SIDE.RECEIVED, SEEN.RECEIVED, matched);
  t.same(new Set(matched.slice(0, count)), new Set(wanted));
});

t.test('sixteen datagrams under way at a time do not get in each other’s way', async (t) => {
  let lost = 0;
  for (let round = 0; round < 200; round++) {
    const follower = new Follower();
    const ids = Array.from({ length: 16 }, (_, index) => (round * 977 + index * 31) & 0xffff);
    for (const id of ids) follower.see(first4({ id }));
    for (const id of ids) if (follower.see(later4({ id })) === '?') lost += 1;
  }
  t.equal(lost, 0, 'of 3,200');
});
