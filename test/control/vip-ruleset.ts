/** src/control/vip-ruleset.ts: names of tables. What the rules do is shown by test/control/vips.ts. */
import t from 'tap';
import { vipOfTable, vipRuleset, vipTable } from '../../src/control/vip-ruleset.js';

t.test('a table tells its virtual IP address, and no other table does', async (t) => {
  t.equal(vipTable('ctl 1', '10.9.0.1'), 'fwdfs_ctl_1/vip/10.9.0.1');
  for (const vip of ['10.9.0.1', 'fd09::1', '2001:db8::', '::1']) {
    t.equal(vipOfTable('inet', vipTable('ctl1', vip)), vip);
    t.equal(vipOfTable('arp', vipTable('ctl1', vip)), vip);
    t.equal(vipOfTable('ip', vipTable('ctl1', vip)), null);
  }
  for (const name of [
    'fwdfs_ctl1',
    'fwdfs_ctl1/vif/eth0',
    'fwdfs_a/vip/',
    'fwdfs_a/vip/none',
    'fwdfs_a/vip/1/2',
    'vip/1.2.3.4',
  ]) {
    t.equal(vipOfTable('inet', name), null, name);
  }
});

t.test('an IPv6 address has no table of ARP', async (t) => {
  const link = { device: 'f0', forwarderMac: '02:00:00:00:00:01' };
  const four = vipRuleset('x', { ...link, vip: '10.9.0.1', sender: '169.254.7.7', ownAddress: '10.8.0.2' }, []);
  t.match(four, /^table arp x \{$/m);
  const six = vipRuleset('x', { ...link, vip: 'fd09::1', sender: 'fdfd::7', ownAddress: 'fe80::2' }, ['e']);
  t.notMatch(six, /arp/);
  t.match(six, /^elements = \{ e \};$/m);
});
