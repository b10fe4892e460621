/** src/control/vip-commands.ts: the `vip` lines of `.ctl`. */
import t from 'tap';
import { FwdfsError } from '../../src/base/errors.js';
import type { ForwarderLink } from '../../src/control/forwarder-link.js';
import { parseVipRequest, VipCommands } from '../../src/control/vip-commands.js';
import type { Vips } from '../../src/control/vips.js';
import { keepLog } from '../support/log.js';

const words = (line: string): string[] => line.split(' ');

t.test('an address and its options, in one spelling', async (t) => {
  t.same(parseVipRequest(words('10.9.0.1')), { address: '10.9.0.1', sender: null, expose: null });
  const { expose, ...rest } = parseVipRequest(words('FD09:0::1 address=fd00:0::2 expose=tcp:80,UDP:5-9'));
  t.same(rest, { address: 'fd09::1', sender: 'fd00::2' });
  t.same(
    expose?.map(({ text }) => text),
    ['tcp:80', 'udp:5-9'],
  );
});

t.test('what is no such command is refused', async (t) => {
  for (const line of [
    'eth0',
    '10.9.0.256',
    '10.9.0.1 address=x',
    '10.9.0.1 address=fd00::1',
    '10.9.0.1 name=x',
    '10.9.0.1 fast',
  ]) {
    t.throws(() => parseVipRequest(words(line)), { code: 'bad-command' }, line);
  }
  t.throws(() => parseVipRequest([]), { code: 'bad-command' });
  t.throws(() => parseVipRequest(words('10.9.0.1 expose=tcp:99999')), { code: 'bad-protocol-address' });
});

t.test('one that is held goes when its opener does; one that is not stays', async (t) => {
  const diary: string[] = [];
  const vips: Pick<Vips, 'add' | 'remove'> = {
    add: (_link, { address }) => Promise.resolve(void diary.push(`add ${address}`)),
    remove: (_link, address) => {
      diary.push(`remove ${address}`);
      return address === '10.9.0.9' ? Promise.reject(new FwdfsError('no-such-vip', address)) : Promise.resolve();
    },
  };
  const commands = new VipCommands({} as ForwarderLink, vips as Vips, keepLog());
  const steps: (() => void)[] = [];
  const opener = { onRelease: (step: () => void): void => void steps.push(step) };
  await commands.run(words('add 10.9.0.1'), opener);
  t.equal(steps.length, 0);
  await commands.run(words('add fd09:0::1 hold'), opener);
  for (const step of steps) step();
  await commands.run(words('remove 10.9.0.1'), opener);
  t.same(diary, ['add 10.9.0.1', 'add fd09::1', 'remove fd09::1', 'remove 10.9.0.1']);
  await t.rejects(commands.run(words('remove 10.9.0.9'), opener), { code: 'no-such-vip' });
  for (const line of ['remove', 'remove 10.9.0.1 10.9.0.2', 'remove eth0', 'change 10.9.0.1', '']) {
    await t.rejects(commands.run(words(line), opener), { code: 'bad-command' }, line);
  }
});
