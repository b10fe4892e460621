/** src/control/vif-commands.ts: the `vif` lines of `.ctl`. */
import t from 'tap';
import { FwdfsError } from '../../src/base/errors.js';
import type { ForwarderLink } from '../../src/control/forwarder-link.js';
import { parseVifRequest, VifCommands } from '../../src/control/vif-commands.js';
import type { Vifs } from '../../src/control/vifs.js';
import { keepLog } from '../support/log.js';

const words = (line: string): string[] => line.split(' ');

t.test('an interface and its options', async (t) => {
  t.same(parseVifRequest(words('eth0')), { interface: 'eth0', name: null, kind: null, netns: '', expose: null });
  const { expose, ...rest } = parseVifRequest(words('eth0 name=web kind=tun netns=/run/netns/x expose=tcp:80,UDP:5-9'));
  t.same(rest, { interface: 'eth0', name: 'web', kind: 'tun', netns: '/run/netns/x' });
  t.same(
    expose?.map(({ text }) => text),
    ['tcp:80', 'udp:5-9'],
  );
});

t.test('what is no such command is refused', async (t) => {
  for (const line of ['eth0 kind=vlan', 'eth0 name=', 'eth0 colour=red', 'eth0 name=a name=b', 'eth0 fast']) {
    t.throws(() => parseVifRequest(words(line)), { code: 'bad-command' }, line);
  }
  t.throws(() => parseVifRequest([]), { code: 'bad-command' });
  t.throws(() => parseVifRequest(words('eth0 expose=tcp:99999')), { code: 'bad-protocol-address' });
});

t.test('a virtual IF that is held goes when its opener does; one that is not stays', async (t) => {
  const diary: string[] = [];
  const vifs: Pick<Vifs, 'add' | 'remove'> = {
    add: (_link, request) => Promise.resolve(void diary.push(`add ${request.interface}`)).then(() => 'dev0'),
    remove: (_link, name) => {
      diary.push(`remove ${name}`);
      return name === 'gone' ? Promise.reject(new FwdfsError('no-such-vif', name)) : Promise.resolve();
    },
  };
  const commands = new VifCommands({} as ForwarderLink, vifs as Vifs, keepLog());
  const steps: (() => void)[] = [];
  const opener = { onRelease: (step: () => void): void => void steps.push(step) };
  await commands.run(words('add eth0'), opener);
  t.equal(steps.length, 0);
  await commands.run(words('add eth1 hold'), opener);
  for (const step of steps) step();
  await commands.run(words('remove eth0'), opener);
  t.same(diary, ['add eth0', 'add eth1', 'remove dev0', 'remove eth0']);
  await t.rejects(commands.run(words('remove gone'), opener), { code: 'no-such-vif' });
  for (const line of ['remove', 'remove a b', 'change eth0', '']) {
    await t.rejects(commands.run(words(line), opener), { code: 'bad-command' }, line);
  }
});
