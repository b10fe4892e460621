/** src/control/symbol-file.ts: what an open asks for, and that all of it is given back. */
import { constants } from 'node:os';
import t from 'tap';
import { SymbolFile, type SymbolUse } from '../../src/control/symbol-file.js';
import type { OpenFile } from '../../src/fusefs/tree.js';
import { parseSymbolName } from '../../src/packet/symbol-name.js';
import { O, POLL } from '../../src/sys/libc.js';
import { eventually, type LinkEnd, startPair } from '../support/fake-forwarder.js';
import { dataUp } from '../support/fake-messages.js';

const { EAGAIN, EBADF } = constants.errno;

/** Names as the directory keeps them. */
class Uses implements SymbolUse {
  readonly open: string[] = [];

  opened(name: string): void {
    this.open.push(name);
  }

  closed(name: string): void {
    this.open.splice(this.open.indexOf(name), 1);
  }
}

interface Opener {
  readonly uses: Uses;
  readonly file: (name: string) => SymbolFile;
  readonly open: (name: string, flags: number) => Promise<OpenFile>;
  readonly wakes: () => number;
}

function opener({ link }: LinkEnd): Opener {
  const uses = new Uses();
  let wakes = 0;
  const wake = (): void => {
    wakes += 1;
  };
  const file = (name: string): SymbolFile => new SymbolFile(5, link, parseSymbolName(name), name, uses);
  const open = (name: string, flags: number): Promise<OpenFile> =>
    file(name).open({ flags, pid: 1, uid: 0, gid: 0, wake });
  return { uses, file, open, wakes: () => wakes };
}

const frame = Buffer.alloc(60, 7);

t.test('the access mode decides what is asked for, and the close gives all of it back', async (t) => {
  const pair = await startPair(t);
  const { forwarder, reception } = pair;
  const { open, uses } = opener(pair);
  const cases: [mode: string, flags: number, rules: number, writers: number][] = [
    ['read', O.RDONLY, 1, 0],
    ['write', O.WRONLY, 0, 1],
    ['both', O.RDWR, 1, 1],
  ];
  for (const [mode, flags, rules, writers] of cases) {
    const file = await open('eth0:udp:520', flags);
    t.equal(forwarder.rules.size, rules, mode);
    t.equal(forwarder.tunnels.size, 1 + writers, mode);
    t.same(uses.open, ['eth0:udp:520']);
    const out = Buffer.alloc(100);
    t.equal(file.read(out, 0, 100, 0), rules > 0 ? 24 : -EBADF, 'the file header, or no way to read');
    if (writers === 0) t.equal(file.write(frame, 0, 60, 0), -EBADF);
    t.equal(file.poll() & (POLL.OUT | POLL.IN), writers > 0 ? POLL.OUT : 0);
    await file.sync('close');
    file.release();
    await eventually(() => forwarder.rules.size === 0 && forwarder.tunnels.size === 1);
    t.same([uses.open, reception.rows()], [[], []]);
  }
});

t.test('packets wake the reader, and every opener gets them in its own framing', async (t) => {
  const pair = await startPair(t);
  const { open, wakes } = opener(pair);
  const [pcap, raw] = [await open('eth0', O.RDONLY), await open('eth0:raw', O.RDONLY)];
  const [id] = [...pair.forwarder.rules.keys()];
  t.equal(pair.forwarder.rules.size, 1);
  const out = Buffer.alloc(1000);
  t.equal(raw.read(out, 0, 1000, 0), -EAGAIN);
  t.equal(pcap.read(out, 0, 1000, 0), 24);
  pair.forwarder.sendFrames(dataUp(id!, frame));
  await eventually(() => wakes() === 2);
  t.ok((raw.poll() & POLL.IN) !== 0);
  t.equal(raw.read(out, 0, 1000, 0), 60);
  t.equal(pcap.read(out, 0, 1000, 0), 76);
  t.notOk(raw.poll() & POLL.IN);
  raw.release();
  pcap.release();
});

t.test('a hex or O_SYNC file answers writes after their confirmation, others at once', async (t) => {
  const pair = await startPair(t);
  const { open } = opener(pair);
  const cases: [name: string, flags: number, synchronous: boolean][] = [
    ['eth0', O.WRONLY, false],
    ['eth0:hex', O.WRONLY, true],
    ['eth0', O.WRONLY | O.SYNC, true],
    ['eth0:raw', O.WRONLY | O.DSYNC, true],
  ];
  for (const [name, flags, synchronous] of cases) {
    const file = await open(name, flags);
    t.equal(file.synchronous, synchronous, name);
    file.release();
  }
});

t.test('if one half of an open fails, the other half is given back', async (t) => {
  const pair = await startPair(t);
  const { forwarder, reception } = pair;
  const { open, uses } = opener(pair);
  forwarder.refusals.set('tunnel-generation-request', 'not-permitted');
  await t.rejects(open('eth0:udp:520', O.RDWR), { code: 'not-permitted' });
  await eventually(() => forwarder.rules.size === 0);
  forwarder.refusals.clear();
  forwarder.refusals.set('transfer-request', 'not-permitted');
  await t.rejects(open('eth0:udp:520', O.RDWR), { code: 'not-permitted' });
  await eventually(() => forwarder.tunnels.size === 1);
  t.same([reception.rows(), uses.open], [[], []]);
});

t.test('an interface that goes while a file is being opened loses nothing', async (t) => {
  const pair = await startPair(t);
  const { link, forwarder } = pair;
  const { open, uses } = opener(pair);
  const release = forwarder.hold('transfer-request');
  const opening = open('eth0:udp:520', O.RDWR);
  await forwarder.diary.until('transfer-request');
  forwarder.sendInterfaces();
  await eventually(() => !link.interfaces.has('eth0'));
  release();
  const file = await opening;
  t.same(uses.open, ['eth0:udp:520']);
  file.release();
  await eventually(() => forwarder.rules.size === 0 && forwarder.tunnels.size === 0);
  t.same([pair.reception.rows(), pair.transmission.rows(), uses.open], [[], [], []]);
});

t.test('a connection that is lost while a file is being opened fails the open', async (t) => {
  const pair = await startPair(t);
  const { open, uses } = opener(pair);
  pair.forwarder.hold('transfer-request');
  const opening = open('eth0', O.RDONLY);
  await pair.forwarder.diary.until('transfer-request');
  pair.forwarder.holds.clear();
  pair.forwarder.cut();
  await t.rejects(opening, { code: 'not-connected' });
  t.same(uses.open, []);
});

t.test('the mode bits mirror the rights', async (t) => {
  const pair = await startPair(t);
  const { file } = opener(pair);
  t.equal(file('eth0').mode, 0o600);
  pair.link.interfaceOf('eth0').rights = new Set(['read']);
  t.equal(file('eth0').mode, 0o400);
  pair.link.interfaceOf('eth0').rights = new Set(['write']);
  t.equal(file('eth0').mode, 0o200);
  t.equal(file('eth9').mode, 0);
});

t.test("a claim is asked for by readers, is its one opener's, and goes with it; copies stay beside it", async (t) => {
  const pair = await startPair(t);
  const { forwarder } = pair;
  const { open } = opener(pair);
  const writer = await open('eth0:udp:53:claim', O.WRONLY);
  t.same([...forwarder.rules.values()], [], 'what is written needs no claim');
  const claim = await open('eth0:udp:53:claim', O.RDWR);
  const copies = [await open('eth0:udp:53', O.RDONLY), await open('eth0:udp:53', O.RDONLY)];
  t.same([...forwarder.rules.values()], ['eth0:udp:53:claim', 'eth0:udp:53']);
  await t.rejects(open('eth0:udp:53:claim', O.RDONLY), { code: 'claimed' });
  await t.rejects(open('eth0:UDP:53:raw:claim', O.RDONLY), { code: 'claimed' });
  claim.release();
  const next = await open('eth0:udp:53:hex:claim', O.RDONLY);
  t.same([...forwarder.rules.values()].sort(), ['eth0:udp:53', 'eth0:udp:53:claim']);
  for (const file of [writer, next, ...copies]) file.release();
  await eventually(() => forwarder.rules.size === 0);
});
