import { constants } from 'node:os';
import t from 'tap';
import { FwdfsError } from '../../src/base/errors.js';
import { FUSE_MAX_IO_BYTES, NAME_VALID_MS } from '../../src/base/limits.js';
import {
  ATTR_OUT,
  ENTRY_OUT,
  INIT_OUT,
  OPEN_OUT,
  POLL_OUT,
  STATFS_OUT,
  WRITE_OUT,
  WRITE_LOCKOWNER,
} from '../../src/fusefs/abi.js';
import { decode } from '../../src/fusefs/struct.js';
import { inoOf, type Node, staticDirectory } from '../../src/fusefs/tree.js';
import { O, POLL } from '../../src/sys/libc.js';
import { demo, Fifo, streamFile, TEXT } from '../support/fuse-demo.js';
import { Bench, type Reply, request, turn } from '../support/fuse-device.js';

const E = constants.errno;

function bench(options: ConstructorParameters<typeof Bench>[1] = {}): Bench {
  const { root, close } = demo();
  t.teardown(close);
  return new Bench(root, options);
}

const KERNEL = { major: 7, minor: 45, max_readahead: 131072, flags: 0x73fffffb, flags2: 0x5fd };

t.test('INIT', async (t) => {
  await t.test('asks for what is needed and nothing else', async (t) => {
    const reply = bench().ask('INIT', { values: KERNEL });
    t.equal(reply.message.length, 80);
    const out = decode(INIT_OUT, reply.message);
    t.match(out, { major: 7, minor: 31, max_readahead: 131072, max_write: 1 << 20, max_pages: 256, time_gran: 1 });
    t.equal(out.flags, (1 << 3) | (1 << 5) | (1 << 18) | (1 << 21) | (1 << 22) | (1 << 30));
    t.equal(out.flags2, 0, 'no time-out of requests');
    t.equal(out.request_timeout, 0);
  });

  await t.test('asks for the longest time-out where the kernel has one', async (t) => {
    const options = { requestTimeout: { askS: 65_535, patienceMs: 0 } };
    const out = decode(INIT_OUT, bench(options).ask('INIT', { values: KERNEL }).message);
    t.match(out, { flags2: 1 << 10, request_timeout: 65_535 });
    const older = decode(INIT_OUT, bench(options).ask('INIT', { values: { ...KERNEL, flags2: 0 } }).message);
    t.match(older, { flags2: 0, request_timeout: 0 });
  });

  await t.test('takes nothing that the kernel does not offer', async (t) => {
    const few = bench().ask('INIT', { values: { ...KERNEL, flags: 1 << 22, flags2: 0xffffffff } });
    t.match(decode(INIT_OUT, few.message), { flags: 1 << 22, flags2: 0, request_timeout: 0 });
  });

  await t.test('understands a kernel of 7.31, whose INIT is shorter', async (t) => {
    const { device, session } = bench();
    const short = request('INIT', { values: { ...KERNEL, minor: 31 } }).subarray(0, 56);
    short.writeUInt32LE(56, 0);
    device.requests.push(short);
    session.drain();
    t.equal(device.replies[0]?.error, 0);
    t.match(decode(INIT_OUT, device.replies[0]?.message ?? Buffer.alloc(80)), { minor: 31, flags2: 0 });
  });

  await t.test('refuses an older protocol, and answers a later major version with its own', async (t) => {
    t.equal(bench().ask('INIT', { values: { ...KERNEL, minor: 30 } }).error, -E.EPROTO);
    const later = bench().ask('INIT', { values: { ...KERNEL, major: 8, minor: 0 } });
    t.match(decode(INIT_OUT, later.message), { major: 7, minor: 31, flags: 0 });
  });
});

t.test('names and attributes', async (t) => {
  await t.test(
    'LOOKUP gives a stream a fresh nodeid each time, with one inode number, and nothing to cache',
    async (t) => {
      const server = bench({ owner: { uid: 5, gid: 6 } });
      const replies = [1, 2].map(() => server.ask('LOOKUP', { names: ['echo'] }));
      const [first, second] = replies.map(({ message }) => decode(ENTRY_OUT, message));
      t.equal(replies[0]?.message.length, 144);
      t.ok(first?.nodeid !== second?.nodeid);
      t.equal(first?.ino, inoOf('/echo'));
      t.match(first, {
        ino: second?.ino,
        entry_valid: 0,
        attr_valid: 0,
        generation: 0,
        mode: 0o100666,
        size: 0,
        nlink: 1,
      });
      t.match(first, { uid: 5, gid: 6, blksize: 131072 });
    },
  );

  await t.test('LOOKUP gives a text file and a directory the nodeid they had', async (t) => {
    const server = bench();
    t.equal(server.lookup('text'), server.lookup('text'));
    const directory = server.lookup('dir');
    t.equal(server.lookup('dir'), directory);
    const reply = server.ask('LOOKUP', { nodeid: directory, names: ['text'] });
    t.match(decode(ENTRY_OUT, reply.message), { mode: 0o100444, ino: inoOf('/text') });
  });

  await t.test('LOOKUP of what is not there, below a file, or without a whole name', async (t) => {
    const server = bench();
    t.equal(server.ask('LOOKUP', { names: ['nothing'] }).error, -E.ENOENT);
    t.equal(server.ask('LOOKUP', { nodeid: server.lookup('text'), names: ['x'] }).error, -E.ENOTDIR);
    t.equal(server.ask('LOOKUP', { nodeid: 99, names: ['x'] }).error, -E.ESTALE);
    t.equal(server.ask('LOOKUP', { data: Buffer.from('no end') }).error, -E.EINVAL);
  });

  await t.test('LOOKUP fails with what the directory throws', async (t) => {
    const root = {
      ...staticDirectory('/', new Map()),
      lookup: (name: string): Node => {
        throw name === 'bad' ? new FwdfsError('bad-symbol-name', name) : new TypeError('a defect');
      },
    };
    const server = new Bench(root);
    t.equal(server.ask('LOOKUP', { names: ['bad'] }).error, -E.EINVAL);
    t.equal(server.ask('LOOKUP', { names: ['x'] }).error, -E.EIO);
  });

  await t.test('a LOOKUP that nobody waits for any more leaves no node behind', async (t) => {
    const server = bench();
    server.device.refuse = -E.ENOENT;
    server.send('LOOKUP', { names: ['echo'] });
    t.equal(server.session.nodes.size, 1);
  });

  await t.test('FORGET and BATCH_FORGET are not answered and free the nodes', async (t) => {
    const server = bench();
    const ids = ['echo', 'echo', 'text'].map((name) => server.lookup(name));
    server.device.replies.length = 0;
    const data = Buffer.alloc(32);
    for (const [index, id] of ids.slice(1).entries()) {
      data.writeUInt32LE(id, index * 16);
      data.writeUInt32LE(1, index * 16 + 8);
    }
    server.send('FORGET', { nodeid: ids[0] ?? 0, values: { nlookup: 1 } });
    server.send('BATCH_FORGET', { nodeid: 0, values: { count: 2 }, data });
    t.equal(server.session.nodes.size, 1);
    server.send('BATCH_FORGET', { nodeid: 0, values: { count: 0xffffffff }, data });
    t.same(server.device.replies, []);
  });

  await t.test('GETATTR shows the mode of this moment', async (t) => {
    let mode = 0o444;
    const file = {
      kind: 'file' as const,
      ino: 9,
      stream: false,
      size: 1025,
      get mode() {
        return mode;
      },
      open: () => Promise.reject(new Error('never')),
    };
    const server = new Bench(staticDirectory('/', new Map([['x', file]])));
    const nodeid = server.lookup('x');
    const attributes = (): Record<string, number> => decode(ATTR_OUT, server.ask('GETATTR', { nodeid }).message);
    t.match(attributes(), { ino: 9, mode: 0o100444, size: 1025, blocks: 3, attr_valid: 0 });
    mode = 0;
    t.match(attributes(), { mode: 0o100000 });
    t.match(decode(ATTR_OUT, server.ask('GETATTR').message), { mode: 0o40755, nlink: 1 });
  });

  await t.test('SETATTR: sizes and times are accepted, rights and owners only if nothing changes', async (t) => {
    const server = bench();
    const set = (name: string, values: Record<string, number>): number =>
      server.ask('SETATTR', { nodeid: server.lookup(name), values }).error;
    t.equal(set('echo', { valid: 0x208, size: 0 }), 0);
    t.equal(set('echo', { valid: 0x1b0, atime: 1, mtime: 1 }), 0);
    t.equal(set('echo', { valid: 1, mode: 0o100600 }), -E.EPERM);
    t.equal(set('echo', { valid: 1, mode: 0o100666 }), 0);
    t.equal(set('text', { valid: 2, uid: 1 }), -E.EPERM);
    t.equal(set('text', { valid: 4, gid: 1 }), -E.EPERM);
    t.equal(set('text', { valid: 6, uid: 0, gid: 0 }), 0);
    t.equal(set('echo', { valid: 6, uid: 102, gid: 105 }), 0, 'tcpdump -w gives its file away');
  });

  await t.test('STATFS', async (t) => {
    const reply = bench().ask('STATFS');
    t.match(decode(STATFS_OUT, reply.message), { blocks: 0, bsize: 4096, frsize: 4096, namelen: 255 });
    t.equal(reply.message.length, 96);
  });
});

t.test('open files', async (t) => {
  await t.test('OPEN says how the kernel is to treat the file', async (t) => {
    const server = bench();
    const flags = (name: string, access: number): number =>
      decode(OPEN_OUT, server.ask('OPEN', { nodeid: server.lookup(name), values: { flags: access } }).message)
        .open_flags;
    t.equal(flags('echo', O.RDWR), 21);
    t.equal(flags('ctl', O.WRONLY), 21);
    t.equal(flags('echo', O.RDONLY), 53, 'who only reads is not asked at its close');
    t.equal(flags('text', O.RDONLY), 33);
  });

  await t.test('the kernel may go by a directory or a text for a moment, by a stream not at all', async (t) => {
    const server = bench();
    for (const [name, nanoseconds] of [
      ['echo', 0],
      ['text', NAME_VALID_MS * 1e6],
    ] as const) {
      const entry = decode(ENTRY_OUT, server.ask('LOOKUP', { names: [name] }).message);
      t.match(entry, { entry_valid: 0, entry_valid_nsec: nanoseconds, attr_valid: 0, attr_valid_nsec: nanoseconds });
      const attr = decode(ATTR_OUT, server.ask('GETATTR', { nodeid: entry.nodeid }).message);
      t.equal(attr.attr_valid_nsec, nanoseconds);
    }
    t.equal(decode(ATTR_OUT, server.ask('GETATTR').message).attr_valid_nsec, NAME_VALID_MS * 1e6);
  });

  await t.test('OPEN tells the file who opens it and how', async (t) => {
    let seen = {};
    const file = streamFile('/x', ({ flags, pid, uid, gid, wake }) => {
      seen = { flags, pid, uid, gid };
      return new Fifo({ opens: 0, releases: 0, largestRead: 0, largestWrite: 0, commands: [] }, wake);
    });
    const server = new Bench(staticDirectory('/', new Map([['x', file]])));
    const flags = O.RDWR | O.NONBLOCK | O.TRUNC;
    server.ask('OPEN', { nodeid: server.lookup('x'), uid: 1000, gid: 100, pid: 42, values: { flags } });
    t.same(seen, { flags, pid: 42, uid: 1000, gid: 100 });
  });

  await t.test('what is written can be read: one WRITE, one READ', async (t) => {
    const server = bench();
    const fh = server.open('echo');
    const written = server.ask('WRITE', { values: { fh, size: 5 }, data: Buffer.from('hello') });
    t.equal(decode(WRITE_OUT, written.message).size, 5);
    t.equal(written.message.length, 24);
    t.equal(server.ask('READ', { values: { fh, size: 100 } }).message.toString('latin1', 16), 'hello');
  });

  await t.test('READ of a text file goes by the offset and ends with 0 bytes', async (t) => {
    const server = bench();
    const fh = server.open('text', 0);
    const read = (offset: number, size: number): string =>
      server.ask('READ', { values: { fh, offset, size } }).message.toString('latin1', 16);
    t.equal(read(0, 4096), TEXT.slice(0, 4096));
    t.equal(read(5, 3), TEXT.slice(5, 8));
    t.equal(read(TEXT.length, 10), '');
  });

  await t.test('a blocked READ waits, and everybody else is served', async (t) => {
    const server = bench();
    const fh = server.open('echo');
    const blocked = server.send('READ', { values: { fh, size: 100 } });
    t.equal(server.reply(blocked), undefined);
    t.equal(server.ask('GETATTR').error, 0);
    server.ask('WRITE', { values: { fh, size: 2 }, data: Buffer.from('hi') });
    await turn();
    t.equal(server.reply(blocked)?.message.toString('latin1', 16), 'hi');
  });

  await t.test('O_NONBLOCK of the moment decides, not that of the open', async (t) => {
    const server = bench();
    const fh = server.open('echo', O.RDWR | O.NONBLOCK);
    t.equal(server.ask('READ', { values: { fh, size: 1, flags: O.RDWR | O.NONBLOCK } }).error, -E.EAGAIN);
    t.equal(server.reply(server.send('READ', { values: { fh, size: 1, flags: O.RDWR } })), undefined);
    const held = server.open('held');
    const write = { values: { fh: held, size: 1, flags: O.WRONLY | O.NONBLOCK }, data: Buffer.from('x') };
    t.equal(server.ask('WRITE', write).error, -E.EAGAIN);
  });

  await t.test('a READ larger than the limit is cut to it', async (t) => {
    const server = bench();
    const fh = server.open('bulk');
    const reply = server.ask('READ', { values: { fh, size: 0xffffffff } });
    t.equal(reply.message.length, 16 + FUSE_MAX_IO_BYTES);
  });

  await t.test('INTERRUPT ends a blocked READ, WRITE, FLUSH, FSYNC and OPEN with EINTR', async (t) => {
    const server = bench();
    const { session } = server;
    const echo = server.open('echo');
    const held = server.open('held');
    const slow = server.open('slow-close');
    const written = { fh: slow, size: 0, write_flags: WRITE_LOCKOWNER, lock_owner: 7 };
    server.ask('WRITE', { values: written, data: Buffer.alloc(0) });
    const other = server.ask('FLUSH', { values: { fh: slow, lock_owner: 8 } });
    t.equal(other.error, 0, 'who has only inherited the file waits for nothing');
    const targets = [
      server.send('READ', { values: { fh: echo, size: 1 } }),
      server.send('WRITE', { values: { fh: held, size: 1 }, data: Buffer.from('x') }),
      server.send('FLUSH', { values: { fh: slow, lock_owner: 7 } }),
      server.send('FSYNC', { values: { fh: slow } }),
      server.send('OPEN', { nodeid: server.lookup('slow-open') }),
    ];
    t.equal(session.handles.waiting, 5);
    for (const unique of targets) {
      t.equal(server.reply(unique), undefined);
      server.send('INTERRUPT', { nodeid: 0, unique: unique + 1, values: { unique } });
    }
    await turn();
    for (const unique of targets) {
      t.equal(server.reply(unique)?.error, -E.EINTR);
      t.equal(server.reply(unique + 1), undefined, 'an INTERRUPT is not answered');
    }
    t.equal(session.handles.waiting, 0);
    server.send('INTERRUPT', { nodeid: 0, unique: 3, values: { unique: 123456 } });
    t.equal(server.reply(3), undefined);
  });

  await t.test('RELEASE is answered and releases', async (t) => {
    const server = bench();
    const fh = server.open('echo');
    t.equal(server.ask('RELEASE', { values: { fh } }).error, 0);
    t.equal(server.session.handles.size, 0);
    t.equal(server.ask('READ', { values: { fh, size: 1 } }).error, -E.EBADF);
    t.equal(server.ask('WRITE', { values: { fh, size: 1 }, data: Buffer.from('x') }).error, -E.EBADF);
    t.equal(server.ask('POLL', { values: { fh } }).error, -E.EBADF);
  });

  await t.test('FLUSH and FSYNC are answered', async (t) => {
    const server = bench();
    const fh = server.open('echo');
    const uniques = [server.send('FLUSH', { values: { fh } }), server.send('FSYNC', { values: { fh } })];
    await turn();
    for (const unique of uniques) t.equal(server.reply(unique)?.error, 0);
  });

  await t.test('POLL says what is there and tells when it changes', async (t) => {
    const server = bench();
    const fh = server.open('echo');
    const poll = (flags: number): number =>
      decode(POLL_OUT, server.ask('POLL', { values: { fh, kh: 77, flags, events: POLL.IN } }).message).revents;
    t.equal(poll(1) & POLL.IN, 0);
    server.ask('WRITE', { values: { fh, size: 2 }, data: Buffer.from('hi') });
    await turn();
    const told = server.device.replies.filter(({ unique }) => unique === 0);
    t.equal(told.length, 1);
    t.equal(told[0]?.error, 1, 'FUSE_NOTIFY_POLL');
    t.equal(told[0]?.message.toString('hex', 16), '4d00000000000000');
    t.equal(poll(0) & POLL.IN, POLL.IN);
  });

  await t.test('a command that fails gives its write the errno', async (t) => {
    const server = bench();
    const fh = server.open('ctl', O.WRONLY);
    const write = async (text: string): Promise<Reply | undefined> => {
      const unique = server.send('WRITE', { values: { fh, size: text.length }, data: Buffer.from(text) });
      await turn();
      return server.reply(unique);
    };
    t.equal((await write('good\n'))?.error, 0);
    t.equal((await write('fail\n'))?.error, -E.EEXIST);
    t.equal(await write('hang\n'), undefined, 'not answered before it is carried out');
  });

  await t.test('a WRITE that says it has more data than came is refused', async (t) => {
    const server = bench();
    const fh = server.open('echo');
    t.equal(server.ask('WRITE', { values: { fh, size: 6 }, data: Buffer.from('hello') }).error, -E.EIO);
  });
});

t.test('the trace has one line per request and reply', async (t) => {
  const lines: string[] = [];
  const server = bench({ trace: (line) => lines.push(line) });
  server.ask('LOOKUP', { names: ['none'] });
  const fh = server.open('echo');
  const unique = server.send('READ', { values: { fh, size: 9 } });
  server.send('INTERRUPT', { nodeid: 0, unique: unique + 1, values: { unique } });
  const shown = lines.map((line) => line.replace(/\b([a-z]*time|ino|blksize)=\d+ ?/g, '').trim());
  t.same(shown, [
    'rx 4 LOOKUP nodeid=1 uid=0 gid=0 pid=7 name="none"',
    'tx 4 LOOKUP ENOENT',
    'rx 6 LOOKUP nodeid=1 uid=0 gid=0 pid=7 name="echo"',
    'tx 6 LOOKUP ok nodeid=2 mode=0100666 nlink=1',
    'rx 8 OPEN nodeid=2 uid=0 gid=0 pid=7 flags=0x2',
    'tx 8 OPEN ok fh=1 open_flags=0x15',
    'rx 10 READ nodeid=1 uid=0 gid=0 pid=7 fh=1 size=9',
    'rx 11 INTERRUPT nodeid=0 uid=0 gid=0 pid=7 unique=10',
    'tx 10 READ EINTR',
  ]);
});
