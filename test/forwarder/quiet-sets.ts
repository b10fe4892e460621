/** src/forwarder/quiet-sets.ts: the kernel is quiet about what sockets and flows of virtual IFs get, and about nothing else. */
import t from 'tap';
import type { Rule, VifEnd } from '../../src/forwarder/distribution-table.js';
import type { FlowEnds } from '../../src/forwarder/flow-store.js';
import { QuietSets } from '../../src/forwarder/quiet-sets.js';
import { parseProtocolAddress } from '../../src/packet/protocol-address.js';
import { makePeer, makeRule } from '../support/fake-peer.js';
import { until } from '../support/lab.js';
import { keepLog } from '../support/log.js';
import { connectVeth, Netns, withoutRoot } from '../support/netns.js';

const vif: VifEnd = { id: 1, kind: 'tap', stamp: 0, wayBack: null };
const { peer } = makePeer();
const rule = (text: string): Rule => makeRule(peer, text, { vif });
const wayBack = (): Rule => makeRule(peer, '*', { vif, mode: 'flow' });

interface Scene {
  readonly fwd: Netns;
  readonly node: Netns;
  readonly sets: QuietSets;
  /** Elements of a set, as nft lists them, without blanks. */
  readonly elements: (set: string) => string;
}

async function setUp(t: { teardown: (undo: () => unknown) => void }): Promise<Scene> {
  const [fwd, node] = [new Netns('quiet'), new Netns('quiet')];
  connectVeth(
    { netns: node, name: 'n0', addresses: ['10.9.0.2/24', 'fd09::2/64'] },
    { netns: fwd, name: 'eth0', addresses: ['10.9.0.1/24', 'fd09::1/64'] },
  );
  const leave = fwd.enter();
  const sets = new QuietSets('fwd1', [parseProtocolAddress('tcp:7440')], keepLog());
  t.teardown(async () => {
    await sets.remove();
    leave();
    fwd.remove();
    node.remove();
  });
  const elements = (set: string): string => {
    const listing = fwd.run(`nft -nn list set inet fwdfs_fwd1/vifs ${set}`);
    return (/elements = \{([^}]*)\}/.exec(listing)?.[1] ?? '').replaceAll(/\s+/g, '');
  };
  return { fwd, node, sets, elements };
}

/** What the node is told about a TCP port: `refused`, or `silence` where nothing answers. */
function probe(node: Netns, port: number): string {
  const script = `echo > /dev/tcp/10.9.0.1/${port}`;
  try {
    node.run(`timeout 0.3 bash -c ${script.replaceAll(' ', '')}`);
    return 'open';
  } catch (error) {
    return /refused/.test(String(error)) ? 'refused' : 'silence';
  }
}

t.test('the kernel is quiet about a socket while its rule is there', { skip: withoutRoot }, async (t) => {
  const { node, sets } = await setUp(t);
  const way = wayBack();
  await sets.vifAdded(way);
  t.equal(probe(node, 80), 'refused');
  const [one, two] = [rule('tcp:80'), rule('tcp:80')];
  sets.ruleAdded(one);
  sets.ruleAdded(two);
  t.equal(probe(node, 80), 'silence');
  t.equal(probe(node, 81), 'refused');
  sets.ruleRemoved(one);
  t.equal(probe(node, 80), 'silence', 'two wanted it');
  sets.ruleRemoved(two);
  t.equal(probe(node, 80), 'refused');
});

t.test('each kind of rule and flow has its set', { skip: withoutRoot }, async (t) => {
  const { sets, elements } = await setUp(t);
  const way = wayBack();
  await sets.vifAdded(way);
  for (const text of ['udp:53', 'udp:10.9.0.1:54', 'tcp:[fd09::1]:80', 'ip:89', 'ip:89:10.9.0.1', 'ip:89:[fd09::1]']) {
    sets.ruleAdded(rule(text));
  }
  t.equal(elements('ports'), '"eth0".17.53');
  t.equal(elements('ports4'), '"eth0".10.9.0.1.17.54');
  t.equal(elements('ports6'), '"eth0".fd09::1.6.80');
  t.equal(elements('protocols'), '"eth0".89');
  t.equal(elements('protocols4'), '"eth0".10.9.0.1.89');
  t.equal(elements('protocols6'), '"eth0".fd09::1.89');
  for (const text of ['icmp', 'icmp6', '*', 'arp']) sets.ruleAdded(rule(text));
  t.equal(elements('protocols'), '"eth0".89', 'ICMP and packet sockets are copies only');
  const ends = (protocol: number, local: string, remote: string): FlowEnds => ({
    ruleOf: () => way,
    protocol: () => protocol,
    localPort: () => 1000,
    remotePort: () => 2000,
    copyLocal: () => Buffer.from(local, 'hex'),
    copyRemote: () => Buffer.from(remote, 'hex'),
  });
  const six = (last: string): string => `fd09${'00'.repeat(13)}${last}`;
  const flows = [6, 89, 1].map((protocol) => ends(protocol, '0a090001', '0a090002'));
  flows.push(ends(6, six('01'), six('02')));
  for (const one of flows) sets.flowChanged(one, 0, true);
  t.equal(elements('flows4'), '10.9.0.1.10.9.0.2.6.1000.2000');
  t.equal(elements('flows6'), 'fd09::1.fd09::2.6.1000.2000');
  t.equal(elements('pairs4'), '10.9.0.1.10.9.0.2.89');
  for (const one of flows) sets.flowChanged(one, 0, false);
  t.same([elements('flows4'), elements('flows6'), elements('pairs4')], ['', '', '']);
});

t.test('the table is there while there is a vif, and one of a crash is swept', { skip: withoutRoot }, async (t) => {
  const { fwd, sets } = await setUp(t);
  const tables = (): string => fwd.run('nft list tables').trim();
  fwd.run('nft add table inet fwdfs_fwd1/vifs');
  fwd.run('nft add table inet fwdfs_fwd2/vifs');
  await sets.sweep();
  t.equal(tables(), 'table inet fwdfs_fwd2/vifs');
  const [one, two] = [wayBack(), wayBack()];
  await Promise.all([sets.vifAdded(one), sets.vifAdded(two)]);
  t.match(tables(), /fwd1\/vifs/);
  sets.vifRemoved(one);
  sets.vifRemoved(one);
  t.match(tables(), /fwd1\/vifs/, 'the other one is there');
  sets.vifRemoved(two);
  await until(() => !tables().includes('fwd1'));
  sets.ruleAdded(rule('tcp:80'));
});
