import t from 'tap';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { inNetns } from '../../src/sys/netns.js';
import { readSysctl, writeSysctl } from '../../src/sys/sysctl.js';
import { SysctlHold } from '../../src/sys/sysctl-hold.js';
import { keepLog } from '../support/log.js';
import { Netns, withoutRoot } from '../support/netns.js';

const FORWARDING = 'net/ipv4/conf/lo/forwarding';
const REDIRECTS = 'net/ipv4/conf/lo/send_redirects';
const root = { skip: withoutRoot };

interface Scene {
  readonly folder: string;
  readonly log: ReturnType<typeof keepLog>;
  hold(owner?: string): SysctlHold;
  in<T>(step: () => T): T;
}

function setUp(t: { teardown: (undo: () => void) => void; testdir: () => string }): Scene {
  const netns = new Netns('-vf-sh');
  t.teardown(() => netns.remove());
  const folder = join(t.testdir(), 'run');
  const log = keepLog();
  return {
    folder,
    log,
    hold: (owner = 'fwd1') => new SysctlHold(owner, log, folder),
    in: (step) => inNetns(netns.name, step),
  };
}

t.test('what is held is set, and put back to what it was, the record with it', root, async (t) => {
  const { folder, hold, in: within } = setUp(t);
  within(() => {
    const one = hold();
    writeSysctl(FORWARDING, '0');
    writeSysctl(REDIRECTS, '1');
    const wanted = new Map([
      [FORWARDING, '1'],
      [REDIRECTS, '0'],
      ['net/ipv4/conf/lo/fwdfs', '1'],
    ]);
    one.apply(wanted);
    one.apply(wanted);
    t.same([readSysctl(FORWARDING), readSysctl(REDIRECTS)], ['1', '0']);
    t.equal(one.before(FORWARDING), '0');
    t.equal(one.before('net/ipv4/conf/lo/fwdfs'), null);
    one.retain(new Set([FORWARDING]));
    t.same([readSysctl(FORWARDING), readSysctl(REDIRECTS)], ['1', '1']);
    one.retain(new Set());
    t.equal(readSysctl(FORWARDING), '0');
  });
  t.same(readdirSync(folder), []);
});

t.test('what was so before, and what somebody changed meanwhile, is left alone', root, async (t) => {
  const { folder, hold, in: within } = setUp(t);
  within(() => {
    const one = hold();
    writeSysctl(FORWARDING, '1');
    one.apply(new Map([[FORWARDING, '1']]));
    t.notOk(existsSync(folder), 'nothing is held');
    one.retain(new Set());
    t.equal(readSysctl(FORWARDING), '1');

    writeSysctl('net/ipv4/conf/lo/arp_ignore', '1');
    one.apply(new Map([['net/ipv4/conf/lo/arp_ignore', '8']]));
    writeSysctl('net/ipv4/conf/lo/arp_ignore', '2');
    one.retain(new Set());
    t.equal(readSysctl('net/ipv4/conf/lo/arp_ignore'), '2');
  });
});

t.test('after a crash the next start puts back', root, async (t) => {
  const { folder, hold, in: within } = setUp(t);
  within(() => {
    writeSysctl(FORWARDING, '0');
    hold().apply(new Map([[FORWARDING, '1']]));
    hold('another').sweep();
    t.equal(readSysctl(FORWARDING), '1', 'not that of another');
    hold().sweep();
    t.equal(readSysctl(FORWARDING), '0');
  });
  t.same(readdirSync(folder), []);
});

t.test('of two that hold the same, the last one puts back', root, async (t) => {
  const { hold, in: within } = setUp(t);
  within(() => {
    writeSysctl(FORWARDING, '0');
    const [one, two] = [hold('one'), hold('two')];
    one.apply(new Map([[FORWARDING, '1']]));
    two.apply(new Map([[FORWARDING, '1']]));
    t.equal(two.before(FORWARDING), '0');
    one.retain(new Set());
    t.equal(readSysctl(FORWARDING), '1');
    two.retain(new Set());
    t.equal(readSysctl(FORWARDING), '0');
  });
});

t.test('a record that is none is nothing to put back', root, async (t) => {
  const { folder, hold, in: within, log } = setUp(t);
  within(() => {
    hold().apply(new Map([[FORWARDING, readSysctl(FORWARDING) === '1' ? '0' : '1']]));
  });
  const [name = ''] = readdirSync(folder);
  mkdirSync(join(folder, 'more'));
  for (const text of ['', '[1', 'null', '{"net/ipv4/conf/lo/forwarding":1}']) {
    writeFileSync(join(folder, name), text);
    within(() => hold().sweep());
  }
  t.same(log.lines, []);
});
