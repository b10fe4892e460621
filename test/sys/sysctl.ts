import t from 'tap';
import { listSysctls, readSysctl, writeSysctl } from '../../src/sys/sysctl.js';
import { inNetns } from '../../src/sys/netns.js';
import { Netns, withoutRoot } from '../support/netns.js';

t.test('a setting is written and read in the namespace of the thread', { skip: withoutRoot }, async (t) => {
  const netns = new Netns('sc');
  t.teardown(() => netns.remove());
  const path = 'net/ipv4/conf/lo/arp_ignore';
  const home = readSysctl(path);
  t.equal(
    inNetns(netns.name, () => writeSysctl(path, 8)),
    true,
  );
  t.equal(
    inNetns(netns.name, () => readSysctl(path)),
    '8',
  );
  t.equal(netns.run('sysctl -n net.ipv4.conf.lo.arp_ignore').trim(), '8');
  t.equal(readSysctl(path), home);
});

t.test('a setting that this kernel has not is null, and not written', async (t) => {
  t.equal(readSysctl('net/ipv4/conf/lo/fwdfs'), null);
  t.equal(writeSysctl('net/ipv4/conf/lo/fwdfs', 1), false);
});

t.test('a value that is refused throws with the errno', { skip: withoutRoot }, async (t) => {
  const netns = new Netns('sc');
  t.teardown(() => netns.remove());
  t.throws(() => inNetns(netns.name, () => writeSysctl('net/ipv4/conf/lo/arp_ignore', 'x')), {
    message: /arp_ignore: EINVAL/,
  });
});

t.test('names are those of the namespace of the thread', { skip: withoutRoot }, async (t) => {
  const netns = new Netns('sc');
  t.teardown(() => netns.remove());
  netns.run('ip link add v0 type veth peer name v1');
  t.same(inNetns(netns.name, () => listSysctls('net/ipv6/conf')).toSorted(), ['all', 'default', 'lo', 'v0', 'v1']);
  t.same(listSysctls('net/fwdfs'), []);
});
