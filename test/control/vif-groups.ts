/** src/control/vif-groups.ts: what is told to the forwarder of the groups that a kernel reports. */
import t from 'tap';
import { FwdfsError } from '../../src/base/errors.js';
import { MAX_GROUPS_PER_VIF } from '../../src/base/limits.js';
import { VifGroups } from '../../src/control/vif-groups.js';
import { parseIpv4, parseIpv6 } from '../../src/packet/ip-address.js';
import { keepLog } from '../support/log.js';

const address = (text: string): Buffer => {
  const bytes = parseIpv4(text) ?? parseIpv6(text);
  if (bytes === null) throw new Error(text);
  return bytes;
};

function make(answer: () => Promise<void> = () => Promise.resolve()) {
  const told: string[] = [];
  const log = keepLog();
  const groups = new VifGroups((verb, group) => {
    told.push(`${verb} ${group}`);
    return answer();
  }, log);
  return { groups, told, log };
}

t.test('a group is joined once, however often it is reported, and left once', async (t) => {
  const { groups, told } = make();
  for (const joined of [true, true, true, false, false, true]) groups.report(joined, address('224.0.0.9'));
  groups.report(true, address('ff02::9'));
  t.same(told, ['join 224.0.0.9', 'leave 224.0.0.9', 'join 224.0.0.9', 'join ff02::9']);
  t.same([...groups.joined], ['224.0.0.9', 'ff02::9']);
});

t.test('groups of every host and those of neighbour discovery are not told', async (t) => {
  const { groups, told } = make();
  for (const group of ['224.0.0.1', 'ff02::1', 'ff01::1', 'ff02::1:ff00:1']) groups.report(true, address(group));
  t.same(told, []);
  groups.report(true, address('ff02::1:2'));
  t.same(told, ['join ff02::1:2'], 'DHCPv6 has another group');
});

t.test('all are joined again at a forwarder that knows of none', async (t) => {
  const { groups, told } = make();
  groups.report(true, address('224.0.0.5'));
  groups.report(true, address('224.0.0.6'));
  groups.report(false, address('224.0.0.5'));
  told.length = 0;
  groups.joinAll();
  t.same(told, ['join 224.0.0.6']);
});

t.test('a forwarder that refuses is in the log; one that is not connected is not', async (t) => {
  const codes = ['not-permitted', 'not-connected'] as const;
  for (const code of codes) {
    const { groups, log } = make(() => Promise.reject(new FwdfsError(code, 'no')));
    groups.report(true, address('224.0.0.5'));
    await new Promise((resolve) => setImmediate(resolve));
    t.equal(log.lines.filter(({ level }) => level === 'warn').length, code === 'not-permitted' ? 1 : 0, code);
  }
});

t.test('there is a limit, beyond which no group is joined until one is left', async (t) => {
  const { groups, told } = make();
  const group = (index: number): Buffer => Buffer.from([239, 0, index >> 8, index & 0xff]);
  for (let index = 0; index <= MAX_GROUPS_PER_VIF; index++) groups.report(true, group(index));
  t.equal(told.length, MAX_GROUPS_PER_VIF);
  groups.report(false, group(0));
  groups.report(true, group(MAX_GROUPS_PER_VIF));
  t.same(told.slice(MAX_GROUPS_PER_VIF), ['leave 239.0.0.0', `join 239.0.${MAX_GROUPS_PER_VIF >> 8}.0`]);
});
