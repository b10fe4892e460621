import t from 'tap';
import * as abi from '../../src/fusefs/abi.js';
import { decode, encode, getU64, putU64, struct } from '../../src/fusefs/struct.js';
import { LAYOUTS, REPLIES, REQUESTS } from '../support/fuse-vectors.js';

const NUMBERS =
  'LOOKUP 1 FORGET 2 GETATTR 3 SETATTR 4 READLINK 5 SYMLINK 6 MKNOD 8 MKDIR 9 UNLINK 10 RMDIR 11 RENAME 12 LINK 13 OPEN 14 READ 15 ' +
  'WRITE 16 STATFS 17 RELEASE 18 FSYNC 20 SETXATTR 21 GETXATTR 22 LISTXATTR 23 REMOVEXATTR 24 FLUSH 25 INIT 26 OPENDIR 27 READDIR 28 ' +
  'RELEASEDIR 29 FSYNCDIR 30 GETLK 31 SETLK 32 SETLKW 33 ACCESS 34 CREATE 35 INTERRUPT 36 BMAP 37 DESTROY 38 IOCTL 39 POLL 40 ' +
  'NOTIFY_REPLY 41 BATCH_FORGET 42 FALLOCATE 43 READDIRPLUS 44 RENAME2 45 LSEEK 46 COPY_FILE_RANGE 47 SETUPMAPPING 48 ' +
  'REMOVEMAPPING 49 SYNCFS 50 TMPFILE 51 STATX 52';

const junk = (bytes: number): Buffer => Buffer.alloc(bytes, 0xa5);

t.test('every structure has the length and the offsets of <linux/fuse.h>', async (t) => {
  for (const [name, [layout, bytes, at]] of Object.entries(LAYOUTS)) {
    t.equal(layout.bytes, bytes, `${name} has ${bytes} bytes`);
    for (const [field, offset] of Object.entries(at)) t.equal(layout.at[field], offset, `${name}.${field}`);
  }
});

t.test('every structure comes back as it was written, and nothing beside it changes', async (t) => {
  for (const [name, [layout]] of Object.entries(LAYOUTS)) {
    const values: Record<string, number> = {};
    for (const [index, [field, width]] of layout.fields.entries()) {
      values[field] = { u16: 0xfe00, u32: 0xfedc_ba00, i32: -0x7edc_ba00, u64: 0x1e_dcba_9876_5400 }[width] + index;
    }
    const end = layout.start + layout.bytes;
    const buffer = junk(end + 8);
    t.equal(encode(layout, buffer, values), end, `${name} ends at ${end}`);
    t.same(decode(layout, buffer), values, name);
    t.same(buffer.subarray(0, layout.start), junk(layout.start), `${name} leaves what is before it`);
    t.same(buffer.subarray(end), junk(8), `${name} leaves what is behind it`);
  }
});

t.test('a field that is not aligned is refused', async (t) => {
  t.throws(() => struct(0, { a: 'u32', b: 'u64' }), /b at 4 is not aligned/);
});

t.test('opcodes have the numbers of <linux/fuse.h>', async (t) => {
  const shown = Object.entries(abi.OPCODES).map(([name, { number }]) => `${name} ${number}`);
  t.equal(shown.join(' '), NUMBERS);
  t.equal(abi.BY_NUMBER.size, shown.length, 'no number is there twice');
});

t.test('a request of the kernel is read and traced field by field', async (t) => {
  for (const [name, [hex, line]] of Object.entries(REQUESTS)) {
    const message = Buffer.from(hex, 'hex');
    const opcode = abi.BY_NUMBER.get(message.readUInt32LE(4));
    t.equal(opcode?.name, name);
    t.equal(message.readUInt32LE(0), message.length, `${name} says its length`);
    t.ok(opcode !== undefined && abi.minimalLength(opcode) <= message.length, `${name} is long enough`);
    t.equal(abi.printRequest(Buffer.concat([message, junk(16)]), message.length), line);
  }
});

t.test('an unknown opcode is traced by its number', async (t) => {
  const message = Buffer.alloc(48);
  encode(abi.IN_HEADER, message, { len: 48, opcode: 99, unique: 4, nodeid: 3, uid: 1, gid: 2, pid: 5 });
  t.equal(abi.printRequest(message, 48), 'rx 4 opcode-99 nodeid=3 uid=1 gid=2 pid=5 len=48');
});

t.test('a request that is cut short is traced as far as it goes', async (t) => {
  for (const [name, [hex]] of Object.entries(REQUESTS)) {
    const message = Buffer.from(hex, 'hex');
    for (let length = 40; length < message.length; length++) {
      t.match(abi.printRequest(message, length), new RegExp(`^rx \\d+ ${name} nodeid=\\d+`));
    }
  }
});

t.test('a reply has the bytes that the kernel takes', async (t) => {
  for (const [name, [layout, hex, values]] of Object.entries(REPLIES)) {
    const wanted = Buffer.from(hex, 'hex');
    const buffer = junk(wanted.length + 8);
    const end = encode(layout, buffer, values);
    abi.putOutHeader(buffer, end, 0, 6);
    t.equal(buffer.toString('hex', 0, end), hex, name);
    const fields = Object.fromEntries(Object.entries(decode(layout, wanted)).filter(([, value]) => value !== 0));
    t.same(fields, values, `${name} read back`);
  }
});

t.test('a reply is traced with its fields, its length, or its error', async (t) => {
  const buffer = junk(256);
  abi.putOutHeader(buffer, encode(abi.OPEN_OUT, buffer, { fh: 3, open_flags: 21 }), 0, 8);
  t.equal(abi.printReply('OPEN', buffer, 32, ''), 'tx 8 OPEN ok fh=3 open_flags=0x15');
  abi.putOutHeader(buffer, 116, 0, 10);
  t.equal(abi.printReply('READ', buffer, 116, ''), 'tx 10 READ ok len=100');
  abi.putOutHeader(buffer, 16, -4, 12);
  t.equal(abi.printReply('READ', buffer, 16, 'EINTR'), 'tx 12 READ EINTR');
  t.equal(abi.printReply('FLUSH', buffer, 16, ''), 'tx 12 FLUSH ok');
  abi.putOutHeader(buffer, encode(abi.NOTIFY_POLL_OUT, buffer, { kh: 5 }), abi.NOTIFY.POLL, 0);
  t.equal(abi.printReply('NOTIFY_POLL', buffer, 24, ''), 'tx 0 NOTIFY_POLL ok kh=5');
});

t.test('directory entries have the bytes that the kernel takes', async (t) => {
  const hex =
    '861b99f987bb090001000000000000000100000004000000' +
    '2e00000000000000' +
    '664c5056db4b110002000000000000000200000004000000' +
    '2e2e000000000000' +
    'ba464c14ac010d000300000000000000040000000800000074657874' +
    '00000000';
  const buffer = junk(256);
  let at = abi.putDirent(buffer, 16, 256, 0x09bb87f9991b86, 1, abi.S_IFDIR, '.');
  at = abi.putDirent(buffer, at, 256, 0x114bdb56504c66, 2, abi.S_IFDIR, '..');
  at = abi.putDirent(buffer, at, 256, 0x0d01ac144c46ba, 3, abi.S_IFREG, 'text');
  t.equal(buffer.toString('hex', 16, at), hex);
});

t.test('a directory entry that does not fit is not written', async (t) => {
  for (let room = 0; room < 32; room++) {
    const buffer = junk(64);
    t.equal(abi.putDirent(buffer, 16, 16 + room, 1, 1, abi.S_IFREG, 'ünd'), -1);
    t.same(buffer, junk(64));
  }
  t.equal(abi.putDirent(junk(64), 16, 48, 1, 1, abi.S_IFREG, 'ünd'), 48);
});

t.test('a name ends at its NUL, which has to lie within the message', async (t) => {
  const buffer = Buffer.from('ab\0cd\0');
  t.equal(abi.getName(buffer, 0, 6), 'ab');
  t.equal(abi.getName(buffer, 3, 6), 'cd');
  t.equal(abi.getName(buffer, 3, 5), undefined);
  t.equal(abi.getName(buffer, 0, 2), undefined);
});

t.test('a u64 up to 2^53 - 1 comes back; beyond, what is read can still be written', async (t) => {
  const buffer = Buffer.alloc(8);
  for (const value of [0, 1, 2 ** 32 - 1, 2 ** 32, 2 ** 48 + 3, Number.MAX_SAFE_INTEGER]) {
    putU64(buffer, 0, value);
    t.equal(buffer.readBigUInt64LE(), BigInt(value));
    t.equal(getU64(buffer, 0), value);
  }
  buffer.fill(0xff);
  putU64(buffer, 0, getU64(buffer, 0));
  t.equal(buffer.readBigUInt64LE(), 2n ** 53n - 1n);
});

t.test('kernels before 7.36 send an INIT without flags2, and it is long enough', async (t) => {
  t.equal(abi.minimalLength(abi.OPCODES.INIT), 56);
  t.equal(abi.minimalLength(abi.OPCODES.RENAME), 50);
});
