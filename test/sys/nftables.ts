import t from 'tap';
import { execFileSync } from 'node:child_process';
import { applyRuleset, deleteTable, dropTable, listMaps, listTable, listTables } from '../../src/sys/nftables.js';
import { Netns, withoutRoot } from '../support/netns.js';

/** Runs the body with the process in a namespace of its own. */
async function inside(
  t: { teardown: (undo: () => void) => void },
  body: (netns: Netns) => Promise<void>,
): Promise<void> {
  const netns = new Netns('nft');
  t.teardown(() => netns.remove());
  await netns.within(() => body(netns));
}

t.test('a script is applied, listed and deleted', { skip: withoutRoot }, async (t) => {
  await inside(t, async () => {
    t.same(await listTables(), []);
    await applyRuleset('table inet one { chain c { counter drop; }; }\ntable ip two { }\n');
    t.same(await listTables(), [
      { family: 'inet', name: 'one' },
      { family: 'ip', name: 'two' },
    ]);
    await deleteTable('inet', 'one');
    t.same(await listTables(), [{ family: 'ip', name: 'two' }]);
  });
});

t.test('deleting a table that is not there is no error', { skip: withoutRoot }, async (t) => {
  await inside(t, async () => {
    await deleteTable('inet', 'never-there');
    t.same(await listTables(), []);
  });
});

t.test('a table is told with all that is in it', { skip: withoutRoot }, async (t) => {
  await inside(t, async () => {
    t.equal(await listTable('inet', 'one'), null);
    await applyRuleset('table inet one { counter c { }; }\n');
    t.match(await listTable('inet', 'one'), /"counter":.*"name": ?"c"/);
  });
});

t.test('a script is taken as a whole or not at all', { skip: withoutRoot }, async (t) => {
  await inside(t, async () => {
    await applyRuleset('table inet one { chain old { }; }');
    const script = `${dropTable('inet', 'one')}table inet one { chain new { }; }\nadd rule inet absent input accept\n`;
    await t.rejects(applyRuleset(script), { name: 'SystemError', code: 'ENOENT' });
    t.match(execFileSync('nft', ['list', 'ruleset']).toString(), /chain old/);
  });
});

t.test('an error has the first line that nft said', { skip: withoutRoot }, async (t) => {
  await inside(t, async () => {
    await t.rejects(applyRuleset('table inet one {\n  chain c { sneeze }\n}'), {
      syscall: 'nft',
      code: 'EINVAL',
      message: /^nft said "\/dev\/stdin:2:.*": EINVAL$/,
    });
    await t.rejects(applyRuleset('delete table inet absent'), { code: 'ENOENT' });
    await applyRuleset('table ip t { chain a { }; chain b { jump a; }; }');
    await t.rejects(applyRuleset('delete chain ip t a'), { code: 'EBUSY' });
  });
});

t.test('without the nft command the host lacks something', { skip: withoutRoot }, async (t) => {
  const module = new URL('../../src/sys/nftables.js', import.meta.url).href;
  const script = `import(${JSON.stringify(module)}).then((m) => m.listTables()).catch((e) => console.log(e.code))`;
  const hide = 'mount -t tmpfs none /usr/sbin && mount -t tmpfs none /sbin && exec "$@"';
  const env = { ...process.env, PATH: '/usr/bin:/bin' };
  const args = ['--mount', 'sh', '-c', hide, 'sh', process.execPath, '--input-type=module', '-e', script];
  t.equal(execFileSync('unshare', args, { env }).toString(), 'host-lacks\n');
});

t.test('maps are listed with their elements, and sets are not', { skip: withoutRoot }, async (t) => {
  await inside(t, async () => {
    await applyRuleset(`table inet one {
      set ports { type inet_service; elements = { 80 }; }
      map none { type ipv4_addr : ipv4_addr; }
      map plain { type ipv6_addr : ipv6_addr; elements = { fd09::1 : fdfd::7 }; }
      map parts { type ipv4_addr . inet_proto . inet_service : ipv4_addr; elements = { 169.254.7.7 . tcp . 80 : 10.9.0.1 }; }
    }`);
    t.same(
      await listMaps('inet', 'one'),
      new Map([
        ['none', []],
        ['plain', [{ key: ['fd09::1'], value: 'fdfd::7' }]],
        ['parts', [{ key: ['169.254.7.7', 'tcp', '80'], value: '10.9.0.1' }]],
      ]),
    );
    t.same(await listMaps('inet', 'absent'), new Map());
  });
});
