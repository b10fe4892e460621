import t from 'tap';
import { CAPABILITIES, hasCapability } from '../../src/sys/capabilities.js';
import { shell } from '../support/lab.js';
import { withoutRoot } from '../support/netns.js';

const MODULE = new URL('../../src/sys/capabilities.js', import.meta.url).href;

t.test('the effective set of /proc is read bit by bit', async (t) => {
  const status = (mask: string): string => `Name:\tnode\nCapPrm:\tffffffffffffffff\nCapEff:\t${mask}\nCapBnd:\tff\n`;
  t.equal(hasCapability('CAP_SYS_ADMIN', status('0000000000200000')), true);
  t.equal(hasCapability('CAP_NET_ADMIN', status('0000000000200000')), false);
  t.equal(hasCapability('CAP_NET_RAW', status('0000000000002000')), true);
  t.equal(hasCapability('CAP_SYS_ADMIN', status('ffffffffffdfffff')), false);
  t.equal(hasCapability('CAP_SYS_ADMIN', ''), false);
});

t.test('a process knows what it was left', { skip: withoutRoot }, async (t) => {
  const script = `import('${MODULE}').then((m) => console.log(Object.keys(m.CAPABILITIES).filter((c) => m.hasCapability(c)).join()))`;
  const dropped = await shell(
    `setpriv --bounding-set -sys_admin --inh-caps -sys_admin ${process.execPath} -e "${script}"`,
  );
  t.equal(
    dropped.stdout.toString().trim(),
    Object.keys(CAPABILITIES)
      .filter((name) => name !== 'CAP_SYS_ADMIN')
      .join(),
  );
});
