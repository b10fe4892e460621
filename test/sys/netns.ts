import t from 'tap';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { constants } from 'node:os';
import { inNetns, netnsPath } from '../../src/sys/netns.js';
import { Netlink } from '../../src/sys/netlink.js';
import { encode, IFINFOMSG, NLM_F, RTM } from '../../src/sys/rtnetlink.js';
import { Netns, withoutRoot } from '../support/netns.js';

const E = constants.errno;
const here = (): string => readlinkSync('/proc/thread-self/ns/net');

function links(netlink: Netlink): number {
  let count = 0;
  netlink.query(RTM.GETLINK, NLM_F.DUMP, encode(IFINFOMSG, {}), () => (count += 1));
  return count;
}

t.test(
  'a step runs in the namespace of a name or a path, and the thread is back after it',
  { skip: withoutRoot },
  async (t) => {
    const netns = new Netns('nn');
    t.teardown(() => netns.remove());
    netns.run('ip link add v0 type veth peer name v1');
    const home = here();
    const named = inNetns(netns.name, here);
    t.not(named, home);
    t.equal(inNetns(netnsPath(netns.name), here), named);
    t.equal(here(), home);
  },
);

t.test('a socket that a step makes stays in its namespace', { skip: withoutRoot }, async (t) => {
  const netns = new Netns('nn');
  t.teardown(() => netns.remove());
  netns.run('ip link add v0 type veth peer name v1');
  const netlink = inNetns(netns.name, () => new Netlink());
  t.teardown(() => netlink.close());
  t.equal(links(netlink), 3);
});

t.test('sysctls that a step reads are those of its namespace', { skip: withoutRoot }, async (t) => {
  const netns = new Netns('nn');
  t.teardown(() => netns.remove());
  const path = '/proc/sys/net/ipv4/ip_default_ttl';
  const other = Number(readFileSync(path, 'utf8')) === 77 ? 78 : 77;
  netns.run(`sysctl -qw net.ipv4.ip_default_ttl=${other}`);
  t.equal(Number(inNetns(netns.name, () => readFileSync(path, 'utf8'))), other);
  t.not(Number(readFileSync(path, 'utf8')), other);
});

t.test(
  'the thread is back also after a step that throws, and no descriptor is left',
  { skip: withoutRoot },
  async (t) => {
    const netns = new Netns('nn');
    t.teardown(() => netns.remove());
    const home = here();
    const fails = (): never => {
      throw new Error('no');
    };
    t.throws(() => inNetns(netns.name, fails), { message: 'no' });
    t.equal(here(), home);
    const before = readdirSync('/proc/self/fd').length;
    for (let round = 0; round < 100; round++) inNetns(netns.name, () => undefined);
    t.equal(readdirSync('/proc/self/fd').length, before);
  },
);

t.test('a namespace that is not there is ENOENT; what is none is refused', { skip: withoutRoot }, async (t) => {
  const home = here();
  for (const [netns, errno] of [
    ['fwdfs-none', E.ENOENT],
    ['/proc/self/ns/uts', E.EINVAL],
  ] as const) {
    t.throws(() => inNetns(netns, here), { errno, message: /:/ });
    t.equal(here(), home);
  }
});

t.test('an empty name is the namespace of the process', async (t) => {
  t.equal(inNetns('', here), here());
});
