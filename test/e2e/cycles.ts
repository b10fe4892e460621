/**
 * Ten thousand openings, a hundred kills: everything ends as it began, by our tables and by what the kernel says.
 *
 *     node n0 ===== eth0 forwarder c0 ===== f0 control device <--- one python3 that opens and closes
 *     a frame every ms                                        <--- readers that are killed while packets stream in
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import t, { type Test } from 'tap';
import { Lab, until } from '../support/lab.js';
import { withoutRoot } from '../support/netns.js';
import { macOf, numbered, python, pythonWords, shown, testFrames } from '../support/traffic.js';

const CYCLES = 10_000;
const KILLS = 100;
/** What a process may have grown by: the collector's slack and kept chunks, not ten thousand leaks of 8 KiB. */
const MEMORY_SLACK_MIB = 64;

const TRAFFIC = `
import socket, sys, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(('n0', 0))
frame = bytes.fromhex(sys.stdin.read())
while True:
    s.send(frame)
    time.sleep(0.001)
`;

interface Snapshot {
  readonly tables: Record<string, string[][]>;
  readonly descriptors: Record<string, number>;
  readonly packetSockets: string;
  readonly mode: string;
  readonly listed: string;
  readonly openFiles: number;
}

/** These columns of a table: without ids, which are new each time, and the counts of traffic. */
function columns(rows: string[][], ...indices: number[]): string[][] {
  return rows.map((row) => indices.map((index) => row[index] ?? '')).sort();
}

async function snapshot(lab: Lab): Promise<Snapshot> {
  const descriptors = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length;
  const [link] = JSON.parse(lab.fwd.run('ip -d -j link show eth0')) as { promiscuity: number; allmulti: number }[];
  const [listed] = await python(lab, `show(sorted(os.listdir(p(''))))`);
  return {
    tables: {
      distribution: columns(await lab.table('distribution'), 0, 1, 2, 4, 6),
      'forwarder reception': columns(await lab.table('reception'), 1, 2, 3, 4, 5, 6),
      reception: columns(await lab.ownTable('reception'), 1, 2, 3, 4, 5),
      transmission: columns(await lab.ownTable('transmission'), 0, 2, 3),
    },
    descriptors: { forwarder: descriptors(lab.forwarder?.pid ?? 0), control: descriptors(lab.control?.pid ?? 0) },
    packetSockets: lab.fwd.run('ss -0 -n -a -H').replaceAll(/\s+\d+\s+\d+\s+/g, ' '),
    mode: `promiscuity ${link?.promiscuity} allmulti ${link?.allmulti}`,
    listed: JSON.stringify(listed),
    openFiles: openFiles(lab.mountPoint),
  };
}

/** Descriptors of all processes that are below the mount, from the kernel. */
function openFiles(mountPoint: string): number {
  let count = 0;
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      for (const fd of readdirSync(`/proc/${pid}/fd`)) {
        if (readlinkSync(`/proc/${pid}/fd/${fd}`).startsWith(`${mountPoint}/`)) count += 1;
      }
    } catch {
      // It ended meanwhile.
    }
  }
  return count;
}

function memoryMiB(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;
}

t.test('openings and kills', { skip: withoutRoot, timeout: 90_000 }, async (t) => {
  const lab = await Lab.start();
  t.teardown(() => lab.stop());
  const [frame = Buffer.alloc(0)] = numbered(1, 128, macOf(lab.fwd, 'eth0'));
  lab.program([...lab.node.prefix, 'python3', '-c', TRAFFIC], frame.toString('hex'));
  const cycle = `
names = ('eth0', 'eth0:udp:520', 'eth0:arp:raw', 'eth0:out', 'eth0:tcp:10.9.0.1:80:hex', 'eth0:promisc', 'eth0.pcap')
modes = (os.O_RDONLY, os.O_WRONLY, os.O_RDWR)
def cycle(count):
    start = time.monotonic()
    for i in range(count): os.close(os.open(p(names[i % 7]), modes[i % 3]))
    return count / (time.monotonic() - start)
`;
  // What is allocated once is allocated now.
  await python(lab, `${cycle}cycle(1000); gone()`);
  const before = await snapshot(lab);
  const memory = (): number[] => [lab.forwarder, lab.control].map((daemon) => memoryMiB(daemon?.pid ?? 0));
  const memoryBefore = memory();
  const asItBegan = async (t: Test): Promise<void> => {
    await until(async () => (await lab.table('distribution')).length === 0);
    await until(async () => (await lab.table('reception')).length === 1);
    await until(() => openFiles(lab.mountPoint) === before.openFiles);
    t.same(await snapshot(lab), before);
    for (const [index, name] of ['forwarder', 'control device'].entries()) {
      const [first = 0, last = 0] = [memoryBefore[index], memory()[index]];
      t.ok(last - first < MEMORY_SLACK_MIB, `${name}: ${first.toFixed(1)} MiB before, ${last.toFixed(1)} MiB after`);
    }
  };

  await t.test('the kernel and the tables agree on who has what open', async (t) => {
    t.equal(before.openFiles, 0);
    t.same(before.tables['distribution'], []);
    const readers = [await lab.reader('eth0:arp'), await lab.reader('eth0:arp'), await lab.reader('eth0:icmp')];
    // Those who looked at the tables a moment ago may still be closing theirs.
    await until(() => openFiles(lab.mountPoint) === readers.length);
    const rows = await lab.ownTable('reception');
    t.equal(
      rows.reduce((sum, row) => sum + Number(row[5]), 0),
      3,
    );
    for (const reader of readers) await reader.kill('SIGKILL');
    await asItBegan(t);
  });

  await t.test(`${CYCLES} open and close cycles leave everything as it was`, async (t) => {
    const [rate] = await python(lab, `${cycle}show(cycle(${CYCLES}))\ngone()`, '', 60_000);
    t.ok(Number(rate) > 100, `${Math.round(Number(rate))} cycles a second`);
    await asItBegan(t);
  });

  await t.test(`${KILLS} readers and writers killed while packets stream in leave everything as it was`, async (t) => {
    const steady = await lab.reader('eth0:ether:0x88b5');
    const script = `
def child(name, w):
    fd = os.open(p(name), os.O_RDWR)
    os.write(w, b'x')
    while True: os.read(fd, 65536)
def start(name):
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0: child(name, w)
    os.read(r, 1)
    os.close(r)
    os.close(w)
    return pid
names = ('eth0', 'eth0:raw', 'eth0:ether:0x88b5', 'eth0:hex')
times = []
for i in range(${KILLS / 4}):
    pids = [start(name) for name in names]
    for pid in pids: os.kill(pid, signal.SIGKILL)
    for pid in pids: os.waitpid(pid, 0)
    begin = time.monotonic()
    while len(rules()) > 1:
        if time.monotonic() - begin > 2: raise Exception(repr(rules()))
    times.append(time.monotonic() - begin)
times.sort()
show([times[len(times) // 2] * 1000, times[-1] * 1000])
`;
    const [figures] = await python(lab, script, '', 60_000);
    const [median = 0, longest = 0] = figures as number[];
    t.comment(`rules gone after ${median.toFixed(1)} ms at p50, ${longest.toFixed(1)} ms at most`);
    const seen = testFrames(steady.output).length;
    await steady.untilOutput((output) => testFrames(output).length > seen + 10);
    t.ok(
      testFrames(steady.output).every((one) => one.equals(frame)),
      'the reader beside them is not disturbed',
    );
    await steady.kill();
    await asItBegan(t);
  });

  await t.test('openings while the connection is cut again and again leave everything as it was', async (t) => {
    const script = `
${cycle}
results = {}
stop = time.monotonic() + 4
i = 0
while time.monotonic() < stop:
    i += 1
    fd = err(os.open, p(names[i % 7]), modes[i % 3])
    result = fd if isinstance(fd, str) else err(os.close, fd) or 'ok'
    results[result] = results.get(result, 0) + 1
    if result != 'ok': time.sleep(0.002)
show(results)
`;
    const openings = lab.program(pythonWords(lab, script));
    for (let cuts = 0; cuts < 5; cuts++) {
      await until(async () => (await lab.state()).get('state') === 'connected');
      await new Promise((resolve) => setTimeout(resolve, 20 + 37 * cuts));
      lab.ctl.run('ss -K -t dport = 7440');
    }
    const [results] = shown(await openings.ended) as [Record<string, number>];
    t.ok((results['ok'] ?? 0) > 100, JSON.stringify(results));
    t.same(
      Object.keys(results).filter((result) => result !== 'ok' && result !== 'ENETDOWN'),
      [],
    );
    await until(async () => (await lab.state()).get('state') === 'connected');
    t.equal((await lab.state()).get('resumed'), '5');
    await asItBegan(t);
  });
});
