/**
 * Writing a symbol: which streams are taken, what leaves the interface, and what a program is told when something doesn't.
 *
 *     tcpdump                                        pcap, pcapng, hex, raw
 *     node n0 <============== eth0 forwarder c0 <============== f0 control device
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Lab, run, shell } from '../support/lab.js';
import { withoutRoot } from '../support/netns.js';
import {
  Capture,
  filler,
  hexOf,
  macOf,
  numbered,
  pcap,
  pcapHeader,
  pcapng,
  pcapRecord,
  python,
  pythonWords,
  send,
  shown,
} from '../support/traffic.js';
import { ethernet, ipv4, udp } from '../vectors/packet-frames.js';

t.test('writing a symbol', { skip: withoutRoot, timeout: 60_000 }, async (t) => {
  const lab = await Lab.start();
  t.teardown(() => lab.stop());
  const eth0 = lab.file('eth0');
  const node = macOf(lab.node, 'n0');
  let made = 0;
  /** Frames that no other test sends. */
  const fresh = (count: number, length = 100): Buffer[] => {
    made += count;
    return numbered(count, length, node, made - count);
  };
  const path = (name: string, bytes: Buffer | string): string => {
    writeFileSync(join(lab.folder, name), bytes);
    return join(lab.folder, name);
  };
  /** Frames that left while `work` ran; a mark behind them shows that no more come. */
  const left = async (work: () => Promise<void>): Promise<string[]> => {
    const capture = await Capture.start(lab, lab.node, 'n0', 'in');
    await work();
    const [mark = Buffer.alloc(0)] = fresh(1);
    const marked = await run(['/bin/bash', '-c', 'cat > "$1"', '-', eth0], pcap([mark]));
    if (marked.status !== 0) throw new Error(marked.stderr);
    for (let count = 1; ; count++) {
      const frames = hexOf(await capture.untilCount(count));
      if (frames.at(-1) !== mark.toString('hex')) continue;
      await capture.stop();
      return frames.slice(0, -1);
    }
  };
  const lastError = async (): Promise<string> => (await lab.state()).get('last_error') ?? '';

  for (const [what, stream] of [
    ['pcap, little endian, microseconds', pcap],
    ['pcap, little endian, nanoseconds', (frames: Buffer[]) => pcap(frames, { nanoseconds: true })],
    ['pcap, big endian, microseconds', (frames: Buffer[]) => pcap(frames, { bigEndian: true })],
    ['pcap, big endian, nanoseconds', (frames: Buffer[]) => pcap(frames, { bigEndian: true, nanoseconds: true })],
    ['pcapng, little endian', pcapng],
    ['pcapng, big endian', (frames: Buffer[]) => pcapng(frames, true)],
  ] as const) {
    await t.test(`${what}: is taken however it is cut`, async (t) => {
      const frames = [60, 61, 62, 63, 1514].flatMap((length) => fresh(1, length));
      const file = path('stream', stream(frames));
      const sent = await left(async () => {
        for (const size of [1, 7, 4096]) {
          const result = await run(['dd', `if=${file}`, `of=${eth0}`, `bs=${size}`, 'status=none']);
          t.equal(result.status, 0, result.stderr);
        }
      });
      t.same(sent, hexOf([...frames, ...frames, ...frames]));
    });
  }

  await t.test('captures of tcpdump and of editcap are taken', async (t) => {
    const frames = fresh(5);
    const capture = await Capture.start(lab, lab.fwd, 'eth0', 'in');
    await send(lab.node, 'n0', frames);
    await capture.untilCount(frames.length);
    await capture.stop();
    const file = path('tcpdump.pcap', capture.stream);
    const converted = await shell(`editcap -F pcapng ${file} ${lab.folder}/editcap.pcapng`);
    t.equal(converted.status, 0, converted.stderr);
    const sent = await left(async () => {
      const result = await shell(`cat ${file} > ${eth0} && cat ${lab.folder}/editcap.pcapng > ${eth0}`);
      t.equal(result.status, 0, result.stderr);
    });
    t.same(sent, hexOf([...frames, ...frames]));
  });

  await t.test('several captures of different kinds may follow each other in one stream', async (t) => {
    const frames = fresh(12);
    const streams = [
      pcap(frames.slice(0, 3)),
      pcap(frames.slice(3, 6), { bigEndian: true, nanoseconds: true }),
      pcapng(frames.slice(6, 9)),
      pcap(frames.slice(9)),
    ];
    const files = streams.map((stream, index) => path(`part${index}`, stream));
    const sent = await left(async () => {
      const result = await shell(`cat ${files.join(' ')} > ${eth0}`);
      t.equal(result.status, 0, result.stderr);
    });
    t.same(sent, hexOf(frames));
  });

  await t.test('a bad record after good ones: a short count, then EINVAL, and only the good ones leave', async (t) => {
    const [first, second, third] = fresh(3) as [Buffer, Buffer, Buffer];
    const good = Buffer.concat([pcapHeader(), pcapRecord(first), pcapRecord(second)]);
    const bad: [string, Buffer][] = [
      ['longer than any frame', Buffer.from('000000000000000000000010' + '00000010', 'hex')],
      ['cut by a snap length', pcapRecord(third, {}, 0, 1000)],
      ['shorter than a header', pcapRecord(third.subarray(0, 13))],
    ];
    for (const [what, record] of bad) {
      const stream = Buffer.concat([good, record, pcapRecord(third)]);
      const script = `
fd = os.open(p('eth0'), os.O_WRONLY)
data = bytes.fromhex('${stream.toString('hex')}')
n = os.write(fd, data)
show([n, err(os.write, fd, data[n:]), err(os.write, fd, data[n:])])
show(err(os.close, fd))
`;
      const sent = await left(async () => {
        t.same((await python(lab, script))[0], [good.length, 'EINVAL', 'EINVAL'], `a record ${what}`);
      });
      t.same(sent, hexOf([first, second]));
    }
  });

  await t.test('what is no capture of this link type is refused with EINVAL and sends nothing', async (t) => {
    const [frame] = fresh(1) as [Buffer];
    const streams = [
      Buffer.from('this is no capture at all, not even a little'),
      pcap([frame], { linkType: 101 }),
      Buffer.concat([Buffer.alloc(24), pcapRecord(frame)]),
      pcapng([frame]).fill(0xff, 4, 8),
    ];
    const sent = await left(async () => {
      for (const stream of streams) {
        const result = await run(['/bin/bash', '-c', 'cat > "$1"', '-', eth0], stream);
        t.equal(result.status, 1);
        t.match(result.stderr, /Invalid argument/);
      }
    });
    t.same(sent, []);
  });

  await t.test('a cut off tail makes close() fail with EINVAL after the records before it left', async (t) => {
    const frames = fresh(2);
    const stream = pcap([...frames, ...fresh(1)]);
    for (const cut of [1, 50, 101, 110]) {
      const script = `
fd = os.open(p('eth0'), os.O_WRONLY)
show(os.write(fd, bytes.fromhex('${stream.subarray(0, -cut).toString('hex')}')))
show(err(os.close, fd))
`;
      const sent = await left(async () => {
        t.same(await python(lab, script), [stream.length - cut, 'EINVAL'], `${cut} bytes before the end`);
      });
      t.same(sent, hexOf(frames));
    }
  });

  await t.test('hex takes a frame a line from a shell, with blanks and colons', async (t) => {
    const [one, two, three] = fresh(3, 60) as [Buffer, Buffer, Buffer];
    const colons = (frame: Buffer): string => (frame.toString('hex').match(/../g) ?? []).join(':');
    const blanks = (frame: Buffer): string => (frame.toString('hex').toUpperCase().match(/.{4}/g) ?? []).join(' ');
    const sent = await left(async () => {
      const lines = [`echo ${colons(one)}`, `echo '${blanks(two)}'`, `printf '\\n${three.toString('hex')}\\r\\n\\n'`];
      for (const line of lines) t.equal((await shell(`${line} > ${eth0}:hex`)).status, 0, line);
      t.equal((await shell(`printf ${one.toString('hex')} > ${eth0}:hex`)).status, 0, 'without an end of line');
    });
    t.same(sent, hexOf([one, two, three, one]));
  });

  await t.test("bad hex fails the shell's own echo, and nothing of the line is sent", async (t) => {
    const [frame] = fresh(1, 60) as [Buffer];
    const hex = frame.toString('hex');
    const sent = await left(async () => {
      for (const line of [`${hex}x`, `${hex}0`, `0${hex.slice(0, 40)} 0`, '0x88', 'hello', '0011']) {
        const result = await shell(`echo ${line} > ${eth0}:hex`);
        t.equal(result.status, 1, line.slice(-20));
        t.match(result.stderr, /Invalid argument/);
      }
      const two = await shell(`printf '${hex}\\nnonsense\\n' > ${eth0}:hex`);
      t.match(two.stderr, /Invalid argument/);
    });
    t.same(sent, [hex], 'the good line before the bad one');
  });

  await t.test('raw takes one packet a write and gives one packet a read', async (t) => {
    const frames = fresh(20, 300);
    const script = `
fd = os.open(p('eth0:raw'), os.O_RDWR)
for line in sys.stdin: assert os.write(fd, bytes.fromhex(line)) == 300
show(err(os.write, fd, b'x' * 13))
show(err(os.fsync, fd))
show('sent')
def test_frame(size):
    while True:
        frame = os.read(fd, size)
        if frame[6:12] == b'\\2\\0\\0\\0\\0\\1': return frame
show([test_frame(2000).hex(), test_frame(300).hex()])
show([err(os.read, fd, 299), err(os.read, fd, 1), len(os.read(fd, 300))])
`;
    const sent = await left(async () => {
      const program = lab.program(pythonWords(lab, script), hexOf(frames).join('\n'));
      await program.untilOutput((output) => output.includes('sent'));
      const received = numbered(3, 300, macOf(lab.fwd, 'eth0'), 900_000);
      await send(lab.node, 'n0', received);
      const [short, fsync, , read, small] = shown(await program.ended);
      t.equal(short, 'EINVAL');
      t.equal(fsync, null);
      t.same(read, hexOf(received.slice(0, 2)));
      t.same(small, ['EMSGSIZE', 'EMSGSIZE', 300], 'a small buffer loses nothing');
    });
    t.same(sent, hexOf(frames));
  });

  await t.test('a frame that the interface refuses makes close() fail with EIO, and .state says why', async (t) => {
    const [before, long, after] = [...fresh(1), ...fresh(1, 1600), ...fresh(1)] as [Buffer, Buffer, Buffer];
    const drops = await lab.counter('drop_tx_error');
    const sent = await left(async () => {
      const result = await run(['/bin/bash', '-c', 'cat > "$1"', '-', eth0], pcap([before, long, after]));
      t.equal(result.status, 1);
      t.match(result.stderr, /Input\/output error/);
      t.match(await lastError(), /eth0: frame not sent \(EMSGSIZE\)/);
    });
    t.same(sent, hexOf([before, after]));
    t.equal((await lab.counter('drop_tx_error')) - drops, 1);
  });

  await t.test(
    'with O_SYNC each write waits for the interface, and says itself that a frame was not sent',
    async (t) => {
      const [good, long] = [...fresh(1), ...fresh(1, 1600)] as [Buffer, Buffer];
      const script = `
fd = os.open(p('eth0:raw'), os.O_WRONLY | os.O_SYNC)
show([err(os.write, fd, bytes.fromhex(line)) for line in sys.stdin])
show(err(os.close, fd))
`;
      const sent = await left(async () => {
        t.same(await python(lab, script, hexOf([good, long, good]).join('\n')), [[100, 'EIO', 100], null]);
      });
      t.same(sent, hexOf([good, good]));
    },
  );

  await t.test('while the interface is down frames are not sent: EIO; afterwards they are', async (t) => {
    lab.fwd.run('ip link set eth0 down');
    const result = await run(['/bin/bash', '-c', 'cat > "$1"', '-', eth0], pcap(fresh(2)));
    t.match(result.stderr, /Input\/output error/);
    t.match(await lastError(), /frame not sent \(ENETDOWN\)/);
    const hex = await shell(`echo ${fresh(1)[0]?.toString('hex')} > ${eth0}:hex`);
    t.match(hex.stderr, /Input\/output error/, "hex tells the shell's own echo");
    lab.fwd.run('ip link set eth0 up');
    lab.fwd.run('ip -6 addr replace fd09::1/64 dev eth0 nodad');
    const frames = fresh(2);
    t.same(
      await left(async () => {
        t.equal((await run(['/bin/bash', '-c', 'cat > "$1"', '-', eth0], pcap(frames))).status, 0);
      }),
      hexOf(frames),
    );
  });

  await t.test('frames that do not match the protocol address of the name are refused with EINVAL', async (t) => {
    const frame = (port: number): Buffer => {
      const copy = ethernet(0x0800, ipv4({ protocol: 17 }, udp(port, 9, filler(40, 1))));
      Buffer.from(node.replaceAll(':', ''), 'hex').copy(copy, 0);
      return copy;
    };
    const [good, bad] = [frame(520), frame(521)];
    const script = `
fd = os.open(p('eth0:udp:520:raw'), os.O_WRONLY)
show([err(os.write, fd, bytes.fromhex('${bad.toString('hex')}')), err(os.write, fd, bytes.fromhex('${good.toString('hex')}'))])
show(err(os.close, fd))
`;
    const sent = await left(async () => {
      t.same(await python(lab, script), [['EINVAL', good.length], null]);
    });
    t.same(sent, hexOf([good]));
  });

  await t.test(':paced leaves the time between the records, otherwise it means nothing', async (t) => {
    const frames = fresh(5);
    const totals: number[] = [];
    for (const name of ['eth0', 'eth0:paced']) {
      const capture = await Capture.start(lab, lab.node, 'n0', 'in');
      const result = await run(
        ['/bin/bash', '-c', 'cat > "$1"', '-', lab.file(name)],
        pcap(frames, { spacingMs: 100 }),
      );
      t.equal(result.status, 0, result.stderr);
      await capture.untilCount(frames.length);
      const times = capture.records.map((record) => record.seconds * 1000 + record.nanoseconds / 1e6);
      t.same(hexOf(await capture.stop()), hexOf(frames));
      totals.push((times.at(-1) ?? 0) - (times[0] ?? 0));
    }
    const [asFastAsItGoes = 0, paced = 0] = totals;
    t.ok(paced >= 390, `${paced} ms from the first to the last`);
    t.ok(asFastAsItGoes < paced, `${asFastAsItGoes} ms without`);
  });

  await t.test('O_NONBLOCK, select and epoll work as on a socket', async (t) => {
    const script = `
fd = os.open(p('eth0:udp:9:raw'), os.O_RDWR | os.O_NONBLOCK)
show([err(os.read, fd, 2000), len(select.select([fd], [], [], 0.05)[0]), len(select.select([], [fd], [], 0)[1])])
e = select.epoll()
e.register(fd, select.EPOLLIN)
show('waiting')
show([events == select.EPOLLIN for _, events in e.poll(5)])
show([len(os.read(fd, 2000)), err(os.read, fd, 2000), e.poll(0.05)])
`;
    const program = lab.program(pythonWords(lab, script));
    await program.untilOutput((output) => output.includes('waiting'));
    const datagram = ethernet(0x0800, ipv4({ protocol: 17 }, udp(1, 9, filler(40, 1))));
    Buffer.from(macOf(lab.fwd, 'eth0').replaceAll(':', ''), 'hex').copy(datagram, 0);
    await send(lab.node, 'n0', [datagram]);
    const result = await program.ended;
    t.same(shown(result), [['EAGAIN', 0, 1], 'waiting', [true], [datagram.length, 'EAGAIN', []]]);
  });

  await t.test('without credit a write waits, for its own opener alone, and a signal ends it', async (t) => {
    const frames = fresh(3000, 1000);
    const script = `
fd = os.open(p('eth0:raw'), os.O_WRONLY | os.O_NONBLOCK)
other = os.open(p('eth0:raw'), os.O_WRONLY)
frames = [bytes.fromhex(line) for line in sys.stdin]
os.kill(FORWARDER, signal.SIGSTOP)
sent = 0
while not isinstance(err(os.write, fd, frames[sent]), str): sent += 1
show([err(os.write, fd, frames[sent]), len(select.select([], [fd], [], 0)[1])])
os.set_blocking(fd, True)
signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(InterruptedError()))
signal.setitimer(signal.ITIMER_REAL, 0.2)
start = time.monotonic()
try: os.write(fd, frames[sent])
except InterruptedError: show(time.monotonic() - start < 0.5)
show(os.write(other, frames[sent]))
show(len(open(p('.state')).read()) > 0)
os.kill(FORWARDER, signal.SIGCONT)
for frame in frames[sent + 1:]: os.write(fd, frame)
show([sent > 1000, err(os.close, fd), err(os.close, other)])
`.replaceAll('FORWARDER', String(lab.forwarder?.pid));
    const sent = await left(async () => {
      const result = await run(pythonWords(lab, script), hexOf(frames).join('\n'));
      t.same(shown(result), [['EAGAIN', 0], true, 1000, true, [true, null, null]]);
    });
    t.same([...sent].sort(), hexOf(frames).sort(), 'each frame left once');
  });
});
