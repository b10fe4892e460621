/** fwdfs doctor, on this host and on one that lacks something: a PATH with links to what is there, and an apt-get of ours. */
import { execFileSync } from 'node:child_process';
import { chmodSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { CHECKS, examine, mendOf } from '../../src/cli/doctor-checks.js';
import { FWDFS, shell } from '../support/lab.js';
import { withoutRoot } from '../support/netns.js';

const TOOLS =
  'sh nft ip nsenter setpriv tcpdump ping tshark ethtool iperf3 socat lsof xxd ps python3 fusermount3 unshare dirname nginx haproxy wrk dnsmasq bird lldpd curl nc dig udhcpc traceroute arping ndisc6'.split(
    ' ',
  );

interface Line {
  readonly check: string;
  readonly ok: boolean;
  readonly need: string;
  readonly problem: string | null;
  readonly package: string | null;
  readonly command: string;
}

t.test('the table of checks says what each is for and what mends it', async (t) => {
  const names = CHECKS.map(({ name }) => name);
  t.equal(new Set(names).size, names.length, 'names are unique');
  for (const check of CHECKS) {
    t.match(check.why, /^(to|for) /, check.name);
    t.ok(mendOf({ check, problem: 'not there' }) !== '', check.name);
    t.ok(check.package !== undefined || check.command !== undefined, `${check.name}: a package or a command`);
    if (check.automatic === true) t.match(check.command, /^(modprobe|mknod) /, check.name);
  }
});

t.test('a check that throws has failed', async (t) => {
  const [finding] = await examine([
    { name: 'x', need: 'run', why: 'for x', probe: () => Promise.reject(new Error('first line\nsecond line')) },
  ]);
  t.equal(finding?.problem, 'first line');
});

t.test('this host has everything', { skip: withoutRoot }, async (t) => {
  const { status, stdout, stderr } = await shell(`${process.execPath} ${FWDFS} doctor --tests`);
  t.same([status, stderr], [0, '']);
  t.match(stdout.toString(), /^check\tresult\twhat to do\nnode\tok\t-\n/);
  const json = await shell(`${process.execPath} ${FWDFS} doctor --tests --json`);
  t.equal(json.status, 0);
  const lines = JSON.parse(json.stdout.toString()) as Line[];
  t.same(lines.map(({ check }) => check).sort(), CHECKS.map(({ name }) => name).sort());
  t.ok(lines.every(({ ok }) => ok));
  const without = JSON.parse((await shell(`${process.execPath} ${FWDFS} doctor --json`)).stdout.toString()) as Line[];
  t.ok(without.every(({ need }) => need !== 'tests'));
});

/** A folder for PATH with every tool but those that are `missing`, as the system's packages have them. */
function pathWithout(folder: string, missing: readonly string[]): string {
  const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' };
  for (const tool of TOOLS.filter((name) => !missing.includes(name))) {
    const file = execFileSync('/bin/sh', ['-c', `command -v ${tool}`], { encoding: 'utf8', env });
    symlinkSync(file.trim(), join(folder, tool));
  }
  return folder;
}

function script(folder: string, name: string, lines: string): void {
  writeFileSync(join(folder, name), `#!/bin/sh\n${lines}\n`);
  chmodSync(join(folder, name), 0o755);
}

t.test('what is missing is named with the command that mends it', { skip: withoutRoot }, async (t) => {
  const path = pathWithout(t.testdir({}), ['tcpdump', 'socat']);
  const { status, stdout, stderr } = await shell(`PATH=${path} ${process.execPath} ${FWDFS} doctor --tests`);
  t.equal(status, 1);
  t.match(stdout.toString(), /^tcpdump\tnot found\tapt-get install -y tcpdump {3}\(for the demo\)$/m);
  t.match(stdout.toString(), /^socat\tnot found\tapt-get install -y socat {3}\(for the tests\)$/m);
  t.equal(stderr, 'fwdfs: tcpdump, socat missing: fwdfs doctor --fix mends what it can\n');
  const run = await shell(`PATH=${path} ${process.execPath} ${FWDFS} doctor --json`);
  t.equal(run.status, 1);
  const failed = (JSON.parse(run.stdout.toString()) as Line[]).filter(({ ok }) => !ok);
  t.match(failed, [{ check: 'tcpdump', problem: 'not found', package: 'tcpdump' }]);
});

t.test(
  'where nft and ip are missing, what they would find out is not blamed on the kernel',
  {
    skip: withoutRoot,
  },
  async (t) => {
    const path = pathWithout(t.testdir({}), ['nft', 'ip']);
    const { stdout } = await shell(`PATH=${path} ${process.execPath} ${FWDFS} doctor`);
    for (const [check, debianPackage] of [
      ['kernel: nf_tables', 'nftables'],
      ['kernel: veth', 'iproute2'],
      ['nft', 'nftables'],
      ['ip', 'iproute2'],
    ] as const) {
      t.match(stdout.toString(), new RegExp(`^${check}\t[^\t]+\tapt-get install -y ${debianPackage} `, 'm'), check);
    }
  },
);

t.test('--fix installs all that is missing in one go, and checks again', { skip: withoutRoot }, async (t) => {
  const folder = t.testdir({});
  const path = pathWithout(folder, ['tcpdump', 'socat']);
  const log = join(folder, 'log');
  const install = ['tcpdump', 'socat'].map(
    (tool) => `/bin/ln -s $(command -v true || echo /bin/true) ${folder}/${tool}`,
  );
  script(folder, 'true', 'exit 0');
  script(
    folder,
    'apt-get',
    `echo "$DEBIAN_FRONTEND $*" >> ${log}\n[ "$1" = install ] || exit 0\n${install.join('\n')}`,
  );
  const { status, stdout } = await shell(`PATH=${path} ${process.execPath} ${FWDFS} doctor --fix --tests`);
  t.equal(status, 0);
  t.match(stdout.toString(), /^socat\tok\t-$/m);
  t.equal(
    readFileSync(log, 'utf8').replace(/^noninteractive --version\n/gm, ''),
    'noninteractive update -qq\nnoninteractive install -y -qq --no-install-recommends tcpdump socat\n',
  );
});

t.test('--fix that can not mend says so', { skip: withoutRoot }, async (t) => {
  const folder = t.testdir({});
  const path = pathWithout(folder, ['socat']);
  const line = `PATH=${path} ${process.execPath} ${FWDFS} doctor --fix --tests`;
  const none = await shell(line);
  t.equal(none.status, 1);
  t.match(none.stderr, /^fwdfs: there is no apt-get here: install socat with this system's own tool\n$/);
  script(folder, 'apt-get', 'exit 100');
  const failing = await shell(line);
  t.equal(failing.status, 1);
  t.match(failing.stderr, /^fwdfs: socat could not be mended: see "what to do"$/m);
});

t.test('a process without rights is told which it lacks', { skip: withoutRoot }, async (t) => {
  const { status, stdout } = await shell(
    `setpriv --bounding-set -net_raw --inh-caps -net_raw ${process.execPath} ${FWDFS} doctor`,
  );
  t.equal(status, 1);
  t.match(stdout.toString(), /^CAP_NET_RAW\tthis process does not have it\trun it as root: sudo fwdfs …/m);
  t.match(stdout.toString(), /^kernel: packet sockets\tsocket: EPERM\trun it as root: sudo fwdfs …/m);
});

t.test('without root --fix and the demo say so', { skip: withoutRoot }, async (t) => {
  // Without the runner's own modules, which write files that only root may write.
  const prefix = 'setpriv --reuid 65534 --clear-groups env -u NODE_OPTIONS';
  const fix = await shell(`${prefix} ${process.execPath} ${FWDFS} doctor --fix`);
  t.equal(fix.status, 1);
  t.equal(fix.stderr, 'fwdfs: --fix needs root: sudo fwdfs doctor --fix\n');
  const doctor = await shell(`${prefix} ${process.execPath} ${FWDFS} doctor`);
  t.equal(doctor.status, 1);
  t.match(
    doctor.stderr,
    /^fwdfs: to mount without virtual interfaces, this user needs fusermount3 and \/dev\/fuse alone$/m,
  );
  const demo = await shell(`${prefix} ${process.execPath} ${FWDFS} demo`);
  t.equal(demo.status, 1);
  t.equal(demo.stderr, 'fwdfs: the demo needs root: sudo fwdfs demo\n');
});
