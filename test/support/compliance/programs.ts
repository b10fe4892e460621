/**
 * What others wrote, run against the mount while a ping goes through the interface. PROGRAMS.md tells the same to users:
 * its tables and the ones here have the same rows.
 */
import { signalProcess, until } from '../lab.js';
import { hexOf, pcap, untilTestFrames } from '../traffic.js';
import type { Case, Topic } from './case.js';
import { isReading, processState } from './process.js';

const REQUEST = /(.*ICMP.*(echo|Echo \(ping\)) request.*\n){2}/;
const HEADER = /4d ?3c ?b2 ?a1 ?02 ?00 ?04 ?00/;
const HEX = /^[0-9a-f]{196}\n$/;

const SCAPY = `/usr/bin/python3 -c 'import sys; from scapy.all import *; file = sys.argv[1] if len(sys.argv) > 1 else sys.stdin.buffer`;

/** Programs that read: a line, and what it prints. */
export const READERS: readonly (readonly [line: string, printed: RegExp])[] = [
  ['cat $F/eth0:icmp | tcpdump -c 2 -nr -', REQUEST],
  ['tcpdump -c 2 -nr $F/eth0:icmp.pcap', REQUEST],
  ['cat $F/eth0:icmp | tshark -c 2 -r -', REQUEST],
  ['cat $F/eth0:icmp | tshark -c 2 -i -', REQUEST],
  ['tshark -c 2 -r $F/eth0:icmp', REQUEST],
  ['cat $F/eth0:icmp | dumpcap -q -c 2 -w $T/dumped -i - && tcpdump -nr $T/dumped', REQUEST],
  [`${SCAPY}; print(len(sniff(offline=file, count=2)))' $F/eth0:icmp`, /^2\n$/],
  [`cat $F/eth0:icmp | ${SCAPY}; print(len(sniff(offline=file, count=2)))'`, /^2\n$/],
  [`${SCAPY}; print(next(iter(PcapReader(file))).summary())' $F/eth0:icmp`, /ICMP .* echo-request/],
  ['socat -u OPEN:$F/eth0,rdonly - | tcpdump -c 2 -nr - icmp', REQUEST],
  [
    'socat -u OPEN:$F/eth0,rdonly PTY,raw,link=$T/pty & until head -c 24 $T/pty; do :; done 2> /dev/null | xxd -p; kill $!',
    HEADER,
  ],
  ['dd if=$F/eth0:icmp:raw bs=64K count=2 2> /dev/null | wc -c', /^196\n$/],
  ['dd if=$F/eth0:icmp bs=24 count=1 iflag=fullblock status=none | xxd -p', HEADER],
  ['head -c 24 $F/eth0:icmp | xxd -p', HEADER],
  ['xxd -p -l 24 $F/eth0:icmp', HEADER],
  ['od -A n -t x1 -N 24 $F/eth0:icmp', HEADER],
  ['timeout -s INT 1 cp $F/eth0:icmp $T/copy; tcpdump -c 2 -nr $T/copy', REQUEST],
  ['timeout -s INT 1 tee $T/copy < $F/eth0:icmp > /dev/null; tcpdump -c 2 -nr $T/copy', REQUEST],
  ['cat $F/eth0:icmp:hex | head -n 1', HEX],
  ['grep -m 1 . $F/eth0:icmp:hex', HEX],
  ['sed 1q $F/eth0:icmp:hex', HEX],
  ['mawk -W interactive "{ print; exit }" $F/eth0:icmp:hex', HEX],
  ['perl -ne "print; exit" $F/eth0:icmp:hex', HEX],
  ['read -r line < $F/eth0:icmp:hex; echo $line', HEX],
  ['exec 3<> $F/eth0:icmp:hex; read -ru 3 line; echo $line', HEX],
  ['mapfile -n 1 lines < $F/eth0:icmp:hex; echo -n "${lines[0]}"', HEX],
  ['/usr/bin/python3 -c "import sys; print(open(sys.argv[1]).readline(), end=str())" $F/eth0:icmp:hex', HEX],
  ['cat $F/eth0:icmp > /dev/null & until lsof -t $F/eth0:icmp; do :; done | grep -x $!; kill $!', /^\d+\n$/],
];

const PYTHON = `/usr/bin/python3 -c 'import sys; data = open(sys.argv[1], "rb").read()`;
const ARGUMENTS = `' $T/long $F/eth0`;

/** Programs that write `$T/long`, a capture with a frame that is too long, and whether their exit status says that close() failed. */
export const CLOSERS: readonly (readonly [program: string, line: string, says: boolean])[] = [
  ['cat', 'cat $T/long > $F/eth0', true],
  ['cp', 'cp $T/long $F/eth0', true],
  ['dd', 'dd if=$T/long of=$F/eth0 status=none', true],
  ['tee', 'tee $F/eth0 < $T/long > /dev/null', true],
  ['head', 'head -c 1M $T/long > $F/eth0', true],
  ['sed w', 'sed -n w$F/eth0 $T/long', true],
  ['/bin/echo, /usr/bin/printf', '/usr/bin/printf %s $(cat $T/long.hex) > $F/eth0:hex', true],
  ['echo and printf of bash', 'printf %s $(cat $T/long.hex) > $F/eth0:hex', false],
  ['echo and printf of dash', "dash -c 'printf %s $(cat $T/long.hex) > $F/eth0:hex'", false],
  ['exec 3>&- of a shell', 'exec 3> $F/eth0; cat $T/long - <&- >&3 2> /dev/null; exec 3>&-', false],
  ['Python: close()', `${PYTHON}; f = open(sys.argv[2], "wb"); f.write(data); f.close()${ARGUMENTS}`, true],
  ['Python: with', `${PYTHON}\nwith open(sys.argv[2], "wb") as f: f.write(data)${ARGUMENTS}`, true],
  ['Python: a file that is never closed', `${PYTHON}; open(sys.argv[2], "wb").write(data)${ARGUMENTS}`, false],
  ['Python: shutil.copyfile', `${PYTHON}; import shutil; shutil.copyfile(*sys.argv[1:])${ARGUMENTS}`, true],
  ['Perl: close or die', `perl -e 'open F, ">", shift; print F <>; close F or die $!' $F/eth0 $T/long`, true],
  ['Perl: a file that is never closed', `perl -e 'open F, ">", shift; print F <>' $F/eth0 $T/long`, false],
  [
    'Node: writeFileSync',
    `node -e 'fs.writeFileSync(process.argv[2], fs.readFileSync(process.argv[1]))' $T/long $F/eth0`,
    true,
  ],
  ['tcpdump -w', 'tcpdump -r $T/long -w $F/eth0 2> /dev/null', false],
  ['tcpdump -w - with cat', 'tcpdump -r $T/long -w - 2> /dev/null | cat > $F/eth0', true],
  ['tshark -w', 'tshark -r $T/long -w $F/eth0', true],
  ['editcap, mergecap', 'editcap $T/long $F/eth0', true],
  ['scapy: wrpcap, PcapWriter.close()', `${SCAPY}; wrpcap(sys.argv[2], rdpcap(file))' $T/long $F/eth0`, true],
  ['socat', 'socat -u OPEN:$T/long OPEN:$F/eth0', false],
  ['socat with dsync', 'socat -u OPEN:$T/long OPEN:$F/eth0,dsync', true],
];

/** Programs that read `$N` and are stopped and continued while they wait, as Ctrl-Z and fg do, and whether they go on. */
export const STOPPED: readonly (readonly [program: string, line: string, goesOn: boolean])[] = [
  ['cat', 'exec cat $N:hex', true],
  ['dd', 'exec dd if=$N:hex bs=64K status=none', true],
  ['head', 'exec head -n 1 $N:hex', true],
  ['tee', 'exec tee < $N:hex', true],
  ['grep', 'exec grep -m 1 . $N:hex', true],
  ['Perl', "exec perl -pe '$| = 1' $N:hex", true],
  ['Python', `exec /usr/bin/python3 -uc 'import sys; print(open(sys.argv[1]).readline())' $N:hex`, true],
  ['read of bash', 'read -r line < $N:hex; echo $line', true],
  ['tcpdump -r', 'exec tcpdump -lnr $N.pcap', false],
  ['tshark -r', 'exec tshark -lr $N', false],
  ['sed', 'exec sed -u 1q $N:hex', false],
  ['mawk', 'exec mawk 1 $N:hex', false],
];

const cases: readonly Case[] = [
  ...READERS.map(([line, printed]): Case => ({
    title: line,
    async run(scene, t) {
      const { out, err } = await scene.sh(line);
      t.match(out, printed, err);
    },
  })),
  ...CLOSERS.map(([program, line, says]): Case => ({
    title: `${program} ${says ? 'says' : 'does not say'} that a frame was not sent`,
    async run(scene, t) {
      const [frame] = scene.fresh(1, 1600) as [Buffer];
      scene.file('long', pcap([frame]));
      scene.file('long.hex', frame.toString('hex'));
      const { status, err } = await scene.sh(line);
      t.equal(status !== 0, says, err);
      if (says) t.match(err, /Input\/output error|Errno 5|EIO/);
      t.match(await scene.state('last_error'), /EMSGSIZE/);
    },
  })),
  ...STOPPED.map(([program, line, goesOn]): Case => ({
    title: `${program} ${goesOn ? 'goes on' : 'ends'} after it was stopped and continued`,
    needs: ['interrupt'],
    async run(scene, t) {
      const reader = scene.start(`N=$F/eth0:ether:0x88b5; ${line}`);
      await scene.untilRules(1);
      await until(() => isReading(reader.pid));
      signalProcess(reader.pid, 'SIGSTOP');
      await until(() => processState(reader.pid) === 'T');
      signalProcess(reader.pid, 'SIGCONT');
      if (goesOn) {
        await until(() => isReading(reader.pid));
        const [frame] = scene.incoming(1) as [Buffer];
        await scene.put([frame]);
        await reader.untilOutput((output) => /88b5/.test(output.toString()));
      } else {
        const { status, stderr } = await reader.ended;
        t.match(stderr, /Interrupted system call/);
        t.not(status, 0);
      }
    },
  })),
  {
    title: 'cat | tcpdump -r - goes on after Ctrl-Z and fg',
    needs: ['interrupt'],
    async run(scene, t) {
      const shell = scene.start(`
        set -m; cat $F/eth0:ether:0x88b5 | tcpdump -lnxr - & trap 'kill %1' TERM
        until grep -q 88b5 $F/.tables/distribution; do :; done
        kill -STOP %1; kill -CONT %1; echo ready; wait`);
      await shell.untilOutput((output) => output.includes('ready'));
      await scene.put(scene.incoming(1));
      await shell.untilOutput((output) => output.includes('0x88b5'));
      t.notMatch(shell.stderr, /Interrupted/);
      await shell.kill('SIGTERM');
    },
  },
  {
    title: 'tail -f prints nothing, since it waits for an end that never comes; cat is what to use',
    async run(scene, t) {
      const tail = scene.start('exec tail -f $F/eth0:ether:0x88b5:hex');
      await until(() => isReading(tail.pid));
      const cat = await scene.reader('eth0:ether:0x88b5');
      const frames = scene.incoming(20);
      await scene.put(frames);
      t.same(hexOf(await untilTestFrames(cat, 20)), hexOf(frames));
      t.equal(tail.output.length, 0);
    },
  },
  {
    title: 'tail -c +1 -f, which wants to seek, says that it can not',
    needs: ['stream'],
    async run(scene, t) {
      t.match((await scene.sh('tail -c +1 -f $F/eth0')).err, /Illegal seek/);
    },
  },
  {
    title: 'head -n prints its lines and then complains that it can not seek; behind cat it does not',
    needs: ['stream'],
    async run(scene, t) {
      const alone = await scene.sh('head -n 1 $F/eth0:icmp:hex');
      t.match(alone.out, HEX);
      t.match(alone.err, /Illegal seek/);
      const behind = await scene.sh('cat $F/eth0:icmp:hex | head -n 1');
      t.match(behind.out, HEX);
      t.equal(behind.err, '');
    },
  },
  {
    title: 'wc, tail -n and md5sum wait for an end; with a limit before them they have one',
    async run(scene, t) {
      const { out } = await scene.sh('head -c 100 $F/eth0 | wc -c; cat $F/eth0:icmp:hex | head -n 2 | tail -n 1');
      t.match(out, /^100\n[0-9a-f]{196}\n$/);
      const wc = scene.start('exec wc -c $F/eth0');
      await until(() => isReading(wc.pid));
      await wc.kill('SIGINT');
      t.equal(wc.output.length, 0);
    },
  },
  {
    title: 'test -s and find -size take a symbol for empty',
    async run(scene, t) {
      t.equal((await scene.sh('test -s $F/eth0; echo $?; find $F -maxdepth 1 -type f -size +0')).out, '1\n');
    },
  },
  {
    title: 'splice, copy_file_range and sendfile find nothing, and FIONREAD says 0, while packets wait',
    needs: ['poll'],
    async run(scene, t) {
      const script = `
import termios
fd = os.open(p('eth0:icmp:raw'), os.O_RDONLY)
select.select([fd], [], [])
r, w = os.pipe()
out = os.memfd_create('out')
show(struct.unpack('i', fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0])
show([os.splice(fd, w, 100), err(os.copy_file_range, fd, out, 100) in (0, 'EINVAL', 'EXDEV'), err(os.sendfile, out, fd, None, 100)])
show(len(os.read(fd, 2000)))
`;
      t.same(await scene.py(script), [0, [0, true, 'EINVAL'], 98]);
    },
  },
  {
    title: 'inotify tells of what programs of this host do with a symbol, not of packets',
    async run(scene, t) {
      const script = `
import ctypes
libc = ctypes.CDLL(None)
events = libc.inotify_init1(os.O_NONBLOCK)
libc.inotify_add_watch(events, p('eth0').encode(), 0xfff)
fd = os.open(p('eth0:icmp:raw'), os.O_RDONLY)
show(len(os.read(fd, 2000)))
show(err(os.read, events, 1000))
`;
      t.same(await scene.py(script), [98, 'EAGAIN']);
    },
  },
  {
    title: "Python's r+b needs buffering=0, as for a pipe",
    needs: ['stream'],
    async run(scene, t) {
      const script = `
import io
try: open(p('eth0:icmp:raw'), 'r+b')
except io.UnsupportedOperation as e: show(str(e))
f = open(p('eth0:icmp:raw'), 'r+b', buffering=0)
show([len(f.read(2000)), f.write(f.read(2000))])
`;
      t.same(await scene.py(script), ['File or stream is not seekable.', [98, 98]]);
    },
  },
  {
    title: 'cp -p, mv, rm and sed -i change names or rights, and say that they may not',
    async run(scene, t) {
      scene.file('empty', '');
      for (const line of ['cp -p $T/empty $F/eth0', 'mv $T/empty $F/eth0', 'rm -f $F/eth0', 'ln -f $T/empty $F/eth0']) {
        const { status, err } = await scene.sh(line);
        t.equal(status, 1, line);
        t.match(err, /Operation not permitted|Invalid cross-device link/, line);
      }
      t.match((await scene.sh('sed -i s/a/b/ $F/eth0:hex')).err, /couldn't open temporary file/);
    },
  },
];

export const programs: Topic = {
  title: 'programs',
  async prepare(scene) {
    scene.lab.program([...scene.lab.node.prefix, 'ping', '-q', '-i', '0.1', '10.9.0.1']);
    await until(async () => (await scene.lab.counter('rx_packets')) > 2);
  },
  cases,
};
