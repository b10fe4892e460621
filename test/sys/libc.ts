import { openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { SystemError } from '../../src/base/errors.js';
import {
  addressOf,
  CLONE_NEWNET,
  F,
  ifNameToIndex,
  IOVEC_BYTES,
  mmap,
  must,
  O,
  POLL,
  putIovec,
  putPointer,
  sys,
} from '../../src/sys/libc.js';
import { Netns, withoutRoot } from '../support/netns.js';

t.test('a failed call gives minus the errno, and `must` makes a typed error of it', (t) => {
  const result = sys.open('/nowhere/at/all', O.RDONLY);
  t.equal(result, -2);
  try {
    must('open', result, '/nowhere/at/all');
    t.fail('must throws');
  } catch (error) {
    t.ok(error instanceof SystemError);
    t.match(error, { code: 'ENOENT', errno: 2, syscall: 'open', message: 'open /nowhere/at/all: ENOENT' });
  }
  t.end();
});

t.test('read and write move bytes at the start of a Buffer', (t) => {
  const file = join(t.testdir({ a: '' }), 'a');
  const fd = must('open', sys.open(file, O.RDWR));
  t.equal(sys.write(fd, Buffer.from('hello there'), 5), 5);
  const again = must('open', sys.open(file, O.RDONLY));
  const buffer = Buffer.alloc(16, 0x2e);
  t.equal(sys.read(again, buffer, 16), 5);
  t.equal(buffer.toString(), 'hello...........');
  t.equal(sys.read(again, buffer, 16), 0, 'the end of the file');
  t.equal(sys.close(fd), 0);
  t.equal(sys.close(fd), -9, 'EBADF');
  sys.close(again);
  t.end();
});

t.test('readv and writev gather and scatter through iovecs', (t) => {
  const file = join(t.testdir({ a: '' }), 'a');
  const fd = must('open', sys.open(file, O.RDWR));
  const parts = [Buffer.from('one '), Buffer.from('two')];
  const iov = Buffer.alloc(2 * IOVEC_BYTES);
  for (const [i, part] of parts.entries()) putIovec(iov, i, addressOf(part), part.length);
  t.equal(sys.writev(fd, iov, 2), 7);
  const again = openSync(file, 'r');
  const first = Buffer.alloc(3);
  const second = Buffer.alloc(8);
  putIovec(iov, 0, addressOf(first), first.length);
  putIovec(iov, 1, addressOf(second), second.length);
  t.equal(sys.readv(again, iov, 2), 7);
  t.equal(first.toString() + second.toString('latin1', 0, 4), 'one two');
  t.end();
});

t.test('pointers above 4 GiB keep all their bits', (t) => {
  const bytes = Buffer.alloc(8);
  for (const value of [0, 1, 0xffff_ffff, 0x1_0000_0000, 0x7fff_1234_5678, 2 ** 47 - 1]) {
    putPointer(bytes, 0, value);
    t.equal(Number(bytes.readBigUInt64LE(0)), value);
  }
  t.end();
});

t.test('the address of a part of a Buffer is that of its first byte', (t) => {
  const buffer = Buffer.alloc(4096);
  t.equal(addressOf(buffer.subarray(100)) - addressOf(buffer), 100);
  t.end();
});

t.test('a mapping is an ArrayBuffer that shows the file, both ways', (t) => {
  const file = join(t.testdir({ a: '' }), 'a');
  writeFileSync(file, Buffer.alloc(4096, 1));
  const fd = must('open', sys.open(file, O.RDWR));
  const mapping = mmap(fd, 4096);
  t.ok(mapping.bytes instanceof ArrayBuffer);
  const view = new Uint8Array(mapping.bytes);
  t.equal(view[4095], 1);
  view[0] = 42;
  const byte = Buffer.alloc(1);
  sys.read(fd, byte, 1);
  t.equal(byte[0], 42);
  mapping.unmap();
  sys.close(fd);
  t.throws(() => mmap(fd, 4096), { code: 'EBADF', syscall: 'mmap' });
  t.end();
});

t.test('fcntl sets and tells the flags; poll tells what is ready', (t) => {
  const fd = must('socket', sys.socket(1, 2 | O.CLOEXEC, 0));
  t.equal(sys.fcntl(fd, F.GETFD, 0), 1, 'close-on-exec');
  const flags = must('fcntl', sys.fcntl(fd, F.GETFL, 0));
  must('fcntl', sys.fcntl(fd, F.SETFL, flags | O.NONBLOCK));
  t.equal(must('fcntl', sys.fcntl(fd, F.GETFL, 0)) & O.NONBLOCK, O.NONBLOCK);
  const fds = Buffer.alloc(8);
  fds.writeInt32LE(fd, 0);
  fds.writeInt16LE(POLL.IN | POLL.OUT, 4);
  t.equal(sys.poll(fds, 1, 0), 1);
  t.equal(fds.readInt16LE(6) & (POLL.IN | POLL.OUT), POLL.OUT);
  sys.close(fd);
  t.end();
});

t.test('socket options can be set and read back', (t) => {
  const fd = must('socket', sys.socket(2, 2 | O.CLOEXEC, 0));
  const one = Buffer.alloc(4);
  one.writeInt32LE(1);
  t.equal(sys.setsockopt(fd, 1, 2, one), 0, 'SO_REUSEADDR');
  const value = Buffer.alloc(4);
  const length = Buffer.alloc(4);
  length.writeInt32LE(4);
  t.equal(sys.getsockopt(fd, 1, 2, value, length), 0);
  t.equal(value.readInt32LE(), 1);
  t.equal(sys.setsockopt(fd, 9999, 1, one), -92, 'ENOPROTOOPT');
  sys.close(fd);
  t.end();
});

t.test('an ioctl fills its argument', (t) => {
  const file = openSync(join(t.testdir({ a: '12345' }), 'a'), 'r');
  const count = Buffer.alloc(4);
  t.equal(sys.ioctl(file, 0x541b, count), 0, 'FIONREAD');
  t.equal(count.readInt32LE(), 5);
  t.equal(sys.ioctl(file, 0x5401, Buffer.alloc(64)), -25, 'a file is no terminal');
  t.end();
});

t.test('interfaces have an index, unknown ones a typed error', (t) => {
  t.ok(ifNameToIndex('lo') > 0);
  t.throws(() => ifNameToIndex('nosuchif0'), { code: 'ENODEV', syscall: 'if_nametoindex' });
  t.end();
});

t.test('setns moves the thread into a network namespace and back', { skip: withoutRoot }, async (t) => {
  const netns = new Netns('libc');
  t.teardown(() => netns.remove());
  netns.run('ip link add only0 type veth peer name only1');
  t.throws(() => ifNameToIndex('only0'));
  await netns.within(() => t.ok(ifNameToIndex('only0') > 0));
  t.throws(() => ifNameToIndex('only0'));
  t.equal(sys.setns(0, CLONE_NEWNET), -22, 'a descriptor that is no namespace');
});
