import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { requestTimeout, type TimeoutSettings, timeoutSettings } from '../../src/fusefs/request-timeout.js';
import { DemoMount, fuseNativeOnly, rootOnly, type Running } from '../support/fuse-mount.js';
import { until } from '../support/lab.js';

t.test('where no time-out is set, none is asked for and nothing is given up', async (t) => {
  for (const canAsk of [true, false]) {
    t.same(requestTimeout({ defaultS: 0, maximumS: 0 }, canAsk), { askS: 0, patienceMs: 0 });
  }
});

t.test('a default gives way to the longest that can be asked for, a maximum does not', async (t) => {
  const cases: [TimeoutSettings, number][] = [
    [{ defaultS: 2, maximumS: 0 }, 65_535],
    [{ defaultS: 0, maximumS: 60 }, 60],
    [{ defaultS: 2, maximumS: 60 }, 60],
    [{ defaultS: 60, maximumS: 65_535 }, 65_535],
  ];
  for (const [settings, inForceS] of cases) {
    t.same(requestTimeout(settings, true), { askS: 65_535, patienceMs: inForceS * 500 }, JSON.stringify(settings));
  }
});

t.test('who can not ask gets what the kernel gives, and gives up before it', async (t) => {
  const cases: [TimeoutSettings, number][] = [
    [{ defaultS: 2, maximumS: 0 }, 2],
    [{ defaultS: 0, maximumS: 60 }, 60],
    [{ defaultS: 90, maximumS: 60 }, 60],
    [{ defaultS: 2, maximumS: 60 }, 2],
  ];
  for (const [settings, inForceS] of cases) {
    t.same(requestTimeout(settings, false), { askS: 0, patienceMs: inForceS * 500 }, JSON.stringify(settings));
  }
});

t.test('the settings are those of the kernel; one that has none sets none', async (t) => {
  const files: Record<string, string> = { default_request_timeout: '30\n', max_request_timeout: '600\n' };
  const read = (file: string): string => files[file.split('/').at(-1) ?? ''] ?? '';
  t.same(timeoutSettings(read), { defaultS: 30, maximumS: 600 });
  t.same(
    timeoutSettings(() => {
      throw new Error('ENOENT');
    }),
    { defaultS: 0, maximumS: 0 },
  );
});

/** Runs `work` with a sysctl of the whole machine set, and restores it. */
async function withSysctl<T>(name: string, value: string, work: () => Promise<T>): Promise<T> {
  const file = `/proc/sys/fs/fuse/${name}`;
  const before = readFileSync(file, 'latin1');
  writeFileSync(file, value);
  try {
    return await work();
  } finally {
    writeFileSync(file, before);
  }
}

function hasSysctls(): boolean {
  try {
    readFileSync('/proc/sys/fs/fuse/max_request_timeout');
    return true;
  } catch {
    return false;
  }
}

/** The kernel looks every 15 s whether a request is too old: at the second look one that began with the mount is. */
const SECOND_LOOK_MS = 31_000;
const CAT_MS = 60_000;

const cases = [
  { backend: 'own', sysctl: 'default_request_timeout', seconds: 2 },
  { backend: 'own', sysctl: 'max_request_timeout', seconds: 20 },
  { backend: 'fuse-native', sysctl: 'default_request_timeout', seconds: 20 },
];

t.test(
  'a read that blocks for longer than the time-out of the kernel ends no mount',
  hasSysctls() ? { ...rootOnly, timeout: 120_000 } : { skip: 'this kernel has no time-out of requests' },
  async (t) => {
    const readers: { name: string; mount: DemoMount; cat: Running }[] = [];
    for (const { backend, sysctl, seconds } of cases) {
      if (backend !== 'own' && 'skip' in fuseNativeOnly) continue;
      // A mount keeps the time-out of the moment in which it began.
      const mount = await withSysctl(sysctl, `${seconds}`, async () => {
        const made = await DemoMount.start(backend);
        t.teardown(() => made.close());
        await made.sh('stat $M');
        return made;
      });
      const cat = mount.start('cat', [join(mount.directory, 'quiet')], CAT_MS);
      await cat.blocked();
      readers.push({ name: `${backend}, ${sysctl}`, mount, cat });
    }
    const start = performance.now();
    const hasEnded = ({ mount, cat }: (typeof readers)[0]): boolean =>
      mount.server.exitCode !== null || cat.child.exitCode !== null;
    await until(() => performance.now() - start > SECOND_LOOK_MS || readers.some(hasEnded), 2 * SECOND_LOOK_MS);
    for (const { name, mount, cat } of readers) {
      t.equal(mount.server.exitCode, null, `${name}: its server goes on`);
      t.equal(cat.child.exitCode, null, `${name}: the reader waits`);
      t.equal((await mount.sh('stat -c %a $M/echo')).stdout, '666\n', `${name}: the mount answers`);
      cat.kill('SIGKILL');
      await cat.outcome;
    }
  },
);
