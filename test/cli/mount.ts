/** fwdfs mount, as a new user meets it: in the background, and with everything that can be wrong. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { FWDFS, Lab, type Result, shell, signalProcess, until } from '../support/lab.js';
import { withoutRoot } from '../support/netns.js';

const skip = withoutRoot;
/** Nobody listens there. */
const NOWHERE = 'fwd1=ws://127.0.0.1:1';
const fwdfs = (line: string): Promise<Result> => shell(`${process.execPath} ${FWDFS} ${line}`);
const isMounted = (mountPoint: string): boolean =>
  readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${mountPoint} `);

/** Runs `work` with an empty folder to mount on; nothing may be removed before the mount on it is gone. */
async function withMountPoint(work: (mountPoint: string) => Promise<void>): Promise<void> {
  const mountPoint = mkdtempSync(join(tmpdir(), `fwdfst-mount-${process.pid}-`));
  try {
    await work(mountPoint);
  } finally {
    if (isMounted(mountPoint)) await fwdfs(`umount -l ${mountPoint}`);
    rmdirSync(mountPoint);
  }
}

/** Process ids of what has a word in its command line. */
function processesWith(word: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').includes(word);
      } catch {
        return false;
      }
    })
    .map(Number);
}

t.test('mount returns when the mount can be used, and serves on in the background', { skip }, async (t) => {
  const lab = await Lab.start();
  t.teardown(() => lab.stop());
  const mountPoint = join(lab.folder, 'second');
  const log = join(lab.folder, 'log');
  mkdirSync(mountPoint);
  const options = `name=ctl1,token_file=${join(lab.folder, 'token')},log_file=${log}`;
  // A caller with a terminal of its own, which is closed right after.
  const line = `${lab.ctl.prefix.join(' ')} ${process.execPath} ${FWDFS} mount -o ${options} fwd1=ws://10.8.0.1:7440 ${mountPoint}`;
  const { status, stdout } = await shell(`script -qec '${line}' /dev/null; ls ${mountPoint}/fwd1`);
  t.equal(status, 0, stdout.toString());
  t.equal(stdout.toString(), 'eth0\n');
  const [daemon] = processesWith(mountPoint);
  t.ok(daemon !== undefined, 'it survives its caller');
  t.equal((await shell(`readlink /proc/${daemon}/cwd`)).stdout.toString(), '/\n');
  t.match(readFileSync(log, 'utf8'), /"mounted"/);
  const again = await fwdfs(`mount ${NOWHERE} ${mountPoint}`);
  t.equal(again.status, 1);
  t.match(again.stderr, /^fwdfs: \S+ is a mount of fwdfs already: [^\n]*fwdfs umount [^\n]+\n$/);
  t.equal((await fwdfs(`umount ${mountPoint}`)).status, 0);
  await until(() => processesWith(mountPoint).length === 0);
});

t.test('a forwarder that can not be reached does not keep from mounting, and is named', { skip }, async (t) => {
  await withMountPoint(async (mountPoint) => {
    const { status, stdout, stderr } = await fwdfs(`mount ${NOWHERE} ${mountPoint}`);
    t.equal(status, 0);
    t.equal(stdout.toString(), '');
    t.match(
      stderr,
      /^fwdfs: fwd1 is not connected yet, it is tried again: cannot reach ws:\/\/127\.0\.0\.1:1[^\n]+\n$/,
    );
    t.match((await shell(`cat ${mountPoint}/fwd1/.state`)).stdout.toString(), /^state\tnot connected\n/);
    const opened = await shell(`cat ${mountPoint}/fwd1/eth0`);
    t.match(opened.stderr, /Network is down/);
  });
});

t.test('SIGTERM unmounts, also while a program reads', { skip }, async (t) => {
  const lab = await Lab.start();
  t.teardown(() => lab.stop());
  const reading = shell(`cat ${lab.file('eth0')}`);
  await until(async () => (await lab.table('distribution')).length === 1);
  lab.control?.child.kill('SIGTERM');
  t.equal((await reading).status, 0, 'the reader got the end of the file');
  await until(() => lab.control?.ended ?? true);
  t.equal(lab.control?.child.exitCode, 0);
  t.equal(isMounted(lab.mountPoint), false);
});

t.test('a mount that a crash left behind is cleared away', { skip }, async (t) => {
  await withMountPoint(async (mountPoint) => {
    t.equal((await fwdfs(`mount ${NOWHERE} ${mountPoint}`)).status, 0);
    const [daemon] = processesWith(mountPoint);
    signalProcess(daemon, 'SIGKILL');
    await until(async () => (await shell(`ls ${mountPoint}`)).status !== 0);
    t.equal((await fwdfs(`mount ${NOWHERE} ${mountPoint}`)).status, 0);
    t.equal((await shell(`ls ${mountPoint}`)).stdout.toString(), 'fwd1\n');
    t.equal((await fwdfs(`umount ${mountPoint}`)).status, 0);
    t.equal(isMounted(mountPoint), false, 'nothing is below');
  });
});

t.test(
  'what is wrong with a mount is said in one line, in the background and in the foreground',
  { skip },
  async (t) => {
    const folder = t.testdir({
      empty: {},
      full: { file: '' },
      'wrong.yaml': 'name: ctl1\nforwarders:\n  fwd1: { url: "http://h" }\n',
      'unknown.yaml': 'name: ctl1\nforwarder: {}\n',
      'broken.yaml': 'name: [\n',
      'local.yaml': 'forwarders:\n  here: { local: missing.yaml }\n',
    });
    const empty = join(folder, 'empty');
    symlinkSync('nothing', join(folder, 'dangling'));
    for (const [line, said] of [
      [`${NOWHERE} ${folder}/none`, /\/none is not there: mkdir \S+\/none$/],
      [`${NOWHERE} ${folder}/dangling`, /\/dangling is a link to what is not there: mkdir \S+\/nothing$/],
      [`${NOWHERE} ${folder}/full/file`, /\/file is no directory: expected an empty one$/],
      [`${NOWHERE} ${folder}/full`, /\/full is not empty: use an empty directory, or -o nonempty/],
      [`fwd1=http://h ${empty}`, /"fwd1=http:\/\/h": expected ws:\/\/HOST/],
      [`${folder}/none.yaml ${empty}`, /none\.yaml: expected a file that can be read/],
      [`${folder}/wrong.yaml ${empty}`, /wrong\.yaml:3: expected ws:\/\/HOST/],
      [`${folder}/unknown.yaml ${empty}`, /unknown\.yaml:2: expected only known keys, unknown key forwarder/],
      [`${folder}/broken.yaml ${empty}`, /broken\.yaml:\d: expected valid YAML/],
      [`${folder}/local.yaml ${empty}`, /missing\.yaml: expected a file that can be read/],
      [
        `-o token_file=${folder}/none ${NOWHERE} ${empty}`,
        /-o token_file=\S+none: expected a file that can be read \(ENOENT\)/,
      ],
      [`-o log_file=${folder}/none/log ${NOWHERE} ${empty}`, /none\/log/],
    ] as const) {
      for (const flag of ['', '-f ']) {
        const { status, stdout, stderr } = await fwdfs(`mount ${flag}${line}`);
        t.equal(status, 1, `${flag}${line}`);
        t.equal(stdout.toString(), '');
        t.match(stderr, /^fwdfs: [^\n]+\n$/, `${flag}${line}`);
        t.match(stderr.trimEnd(), said, `${flag}${line}`);
        t.equal(isMounted(empty), false);
      }
    }
  },
);

t.test('the exit status of the background process reaches the caller', { skip }, async (t) => {
  const { status, stderr } = await fwdfs(`mount -o name=a/b ${NOWHERE} ${t.testdir({})}`);
  t.equal(status, 2);
  t.match(stderr, /^fwdfs: -o name=a\/b: expected letters[^\n]+\n$/);
});

t.test('root without its rights is told what a mount needs', { skip }, async (t) => {
  const mountPoint = t.testdir({});
  const { status, stderr } = await shell(
    `setpriv --bounding-set -sys_admin --inh-caps -sys_admin ${process.execPath} ${FWDFS} mount ${NOWHERE} ${mountPoint}`,
  );
  t.equal(status, 1);
  t.match(
    stderr,
    /^fwdfs: this process may not mount, which needs CAP_SYS_ADMIN and \/dev\/fuse: run fwdfs doctor[^\n]*\n$/,
  );
});

t.test('a log file is appended to, in the foreground too', { skip }, async (t) => {
  const log = join(t.testdir({ log: 'before\n' }), 'log');
  await withMountPoint(async (mountPoint) => {
    const serving = fwdfs(`mount -f -o log_file=${log} ${NOWHERE} ${mountPoint}`);
    await until(() => readFileSync(log, 'utf8').includes('"mounted"'));
    t.match(readFileSync(log, 'utf8'), /^before\n\{/);
    t.equal((await fwdfs(`umount ${mountPoint}`)).status, 0);
    const { status, stderr } = await serving;
    t.same([status, stderr], [0, '']);
  });
});

t.test('a log that can not be written ends no daemon', { skip }, async (t) => {
  await withMountPoint(async (mountPoint) => {
    const { status, stderr } = await fwdfs(`mount -o log_file=/dev/full ${NOWHERE} ${mountPoint}`);
    t.equal(status, 0, stderr);
    t.equal((await shell(`ls ${mountPoint}`)).stdout.toString(), 'fwd1\n');
    t.equal((await fwdfs(`umount ${mountPoint}`)).status, 0);
    const serving = fwdfs(`mount -f --trace-fuse ${NOWHERE} ${mountPoint} 2> /dev/full`);
    await until(() => isMounted(mountPoint));
    t.equal((await shell(`ls ${mountPoint}`)).stdout.toString(), 'fwd1\n');
    t.equal((await fwdfs(`umount ${mountPoint}`)).status, 0);
    t.equal((await serving).status, 0);
  });
  const { status, stderr } = await fwdfs(`forwarder --config ${t.testdir({})}/none.yaml 2> /dev/full`);
  t.same([status, stderr], [1, ''], 'an error that can not be told keeps its status');
});

t.test('a forwarder with a wrong configuration says where', { skip }, async (t) => {
  const folder = t.testdir({ 'f.yaml': 'name: fwd1\nlisten: 7440\n' });
  writeFileSync(join(folder, 'empty.yaml'), '');
  for (const [file, said] of [
    ['f.yaml', /f\.yaml:2: expected [^\n]+\n$/],
    ['empty.yaml', /empty\.yaml:1: expected [^\n]+\n$/],
    ['none.yaml', /none\.yaml: expected a file that can be read[^\n]*\n$/],
  ] as const) {
    const { status, stderr } = await fwdfs(`forwarder --config ${folder}/${file}`);
    t.equal(status, 1, file);
    t.match(stderr, said, file);
    t.match(stderr, /^fwdfs: [^\n]+\n$/, file);
  }
});
