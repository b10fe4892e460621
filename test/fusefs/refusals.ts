import { constants } from 'node:os';
import fc from 'fast-check';
import t from 'tap';
import { FUSE_DRAIN_COUNT } from '../../src/base/limits.js';
import { BY_NUMBER, minimalLength, OPCODES, type OpcodeName } from '../../src/fusefs/abi.js';
import { O } from '../../src/sys/libc.js';
import { demo } from '../support/fuse-demo.js';
import { Bench, request, turn } from '../support/fuse-device.js';

const E = constants.errno;

function bench(options: ConstructorParameters<typeof Bench>[1] = {}): Bench {
  const { root, close } = demo();
  t.teardown(close);
  return new Bench(root, options);
}

t.test('everything else is refused as the table says', async (t) => {
  const refused: Partial<Record<OpcodeName, number>> = {
    IOCTL: E.ENOTTY,
    READLINK: E.EINVAL,
    FSYNCDIR: E.ENOSYS,
    ACCESS: E.ENOSYS,
    SETXATTR: E.ENOSYS,
    GETXATTR: E.ENOSYS,
    LISTXATTR: E.ENOSYS,
    REMOVEXATTR: E.ENOSYS,
    GETLK: E.ENOSYS,
    SETLK: E.ENOSYS,
    SETLKW: E.ENOSYS,
    BMAP: E.ENOSYS,
    NOTIFY_REPLY: E.ENOSYS,
    FALLOCATE: E.ENOSYS,
    READDIRPLUS: E.ENOSYS,
    LSEEK: E.ENOSYS,
    COPY_FILE_RANGE: E.ENOSYS,
    SETUPMAPPING: E.ENOSYS,
    REMOVEMAPPING: E.ENOSYS,
    SYNCFS: E.ENOSYS,
    TMPFILE: E.ENOSYS,
    STATX: E.ENOSYS,
    SYMLINK: E.EPERM,
    MKNOD: E.EPERM,
    MKDIR: E.EPERM,
    UNLINK: E.EPERM,
    RMDIR: E.EPERM,
    RENAME: E.EPERM,
    RENAME2: E.EPERM,
    LINK: E.EPERM,
    CREATE: E.ENOENT,
    DESTROY: 0,
  };
  const names = ['a', 'b'];
  for (const [name, errno] of Object.entries(refused) as [OpcodeName, number][]) {
    const content = { names: names.slice(0, OPCODES[name].names) };
    t.equal(bench().ask(name, content).error, errno === 0 ? 0 : -errno, name);
    const readOnly = bench({ readOnly: true }).ask(name, content);
    t.equal(
      readOnly.error,
      errno === 0 ? 0 : -(errno === E.EPERM || name === 'CREATE' ? E.EROFS : errno),
      `${name}, read-only`,
    );
  }
  const handled = 'LOOKUP FORGET GETATTR SETATTR OPEN READ WRITE STATFS RELEASE FSYNC FLUSH INIT OPENDIR READDIR';
  const others = `${handled} RELEASEDIR INTERRUPT POLL BATCH_FORGET`.split(' ');
  t.same([...Object.keys(refused), ...others].sort(), Object.keys(OPCODES).sort(), 'every opcode has a test');
});

t.test('a read-only mount opens nothing for writing', async (t) => {
  const server = bench({ readOnly: true });
  const open = (flags: number): number =>
    server.ask('OPEN', { nodeid: server.lookup('echo'), values: { flags } }).error;
  t.equal(open(O.RDONLY), 0);
  t.equal(open(O.WRONLY), -E.EROFS);
  t.equal(open(O.RDWR), -E.EROFS);
});

t.test('an opcode that nobody knows is ENOSYS', async (t) => {
  const { device, session } = bench();
  const message = request('STATFS', { unique: 8 });
  message.writeUInt32LE(4242, 4);
  device.requests.push(message);
  session.drain();
  t.equal(device.replies[0]?.error, -E.ENOSYS);
});

t.test('a request shorter than its opcode needs is EIO, at every length', async (t) => {
  for (const [number, opcode] of BY_NUMBER) {
    const quiet = ['FORGET', 'BATCH_FORGET', 'INTERRUPT'].includes(opcode.name);
    for (let length = 0; length < minimalLength(opcode); length++) {
      const { device, session } = bench();
      const message = request(opcode.name, { names: ['a', 'b'].slice(0, opcode.names) }).subarray(0, length);
      if (length >= 4) message.writeUInt32LE(length, 0);
      device.requests.push(message);
      session.drain();
      const errors = device.replies.map(({ error }) => error);
      const wanted = length < 40 || quiet ? [] : [-E.EIO];
      if (errors.join() !== wanted.join()) t.same(errors, wanted, `opcode ${number} of ${length} bytes`);
    }
  }
});

t.test('a request whose length is not what it says is EIO', async (t) => {
  const { device, session } = bench();
  const message = request('GETATTR', {});
  message.writeUInt32LE(message.length + 1, 0);
  device.requests.push(message);
  session.drain();
  t.equal(device.replies[0]?.error, -E.EIO);
});

t.test('whatever comes, drain does not throw, and no request is answered twice', async () => {
  const numbers = [...BY_NUMBER.keys(), 0, 7, 255];
  const anyRequest = fc.record({
    opcode: fc.constantFrom(...numbers),
    nodeid: fc.oneof(fc.integer({ min: 0, max: 8 }), fc.nat()),
    words: fc.array(fc.oneof(fc.integer({ min: 0, max: 6 }), fc.nat()), { maxLength: 24 }),
    tail: fc.uint8Array({ maxLength: 24 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(anyRequest, { maxLength: 40 }), async (list) => {
      const { root, close } = demo();
      const { device, session } = new Bench(root);
      for (const [index, { opcode, nodeid, words, tail }] of list.entries()) {
        const message = Buffer.concat([Buffer.alloc(40 + 4 * words.length), Buffer.from(tail)]);
        for (const [at, word] of words.entries()) message.writeUInt32LE(word, 40 + 4 * at);
        message.writeUInt32LE(message.length, 0);
        message.writeUInt32LE(opcode, 4);
        message.writeUInt32LE(2 * index + 2, 8);
        message.writeUInt32LE(nodeid, 16);
        device.requests.push(message);
      }
      session.drain();
      await turn();
      session.end(E.ENODEV);
      close();
      const uniques = device.replies.map(({ unique }) => unique).filter((unique) => unique !== 0);
      return new Set(uniques).size === uniques.length && device.requests.length === 0;
    }),
    { numRuns: 300 },
  );
});

t.test('pure noise does no harm either', async () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.boolean(), (noise, honest) => {
      const { root, close } = demo();
      const { device, session } = new Bench(root);
      const message = Buffer.from(noise);
      if (honest && message.length >= 4) message.writeUInt32LE(message.length, 0);
      device.requests.push(message);
      session.drain();
      close();
      return device.requests.length === 0;
    }),
    { numRuns: 500 },
  );
});

t.test('drain', async (t) => {
  await t.test('stops after its bound and says that more may be there', async (t) => {
    const { device, session } = bench();
    for (let count = 0; count < FUSE_DRAIN_COUNT + 1; count++) device.requests.push(request('STATFS', { unique: 2 }));
    t.equal(session.drain(), true);
    t.equal(device.requests.length, 1);
    t.equal(session.drain(), false);
  });

  await t.test('goes on after EINTR and after a request that was taken back', async (t) => {
    const { device, session } = bench();
    const errors = [-E.EINTR, -E.ENOENT];
    const read = device.read.bind(device);
    device.read = (buffer) => errors.shift() ?? read(buffer);
    device.requests.push(request('STATFS', {}));
    t.equal(session.drain(), false);
    t.equal(device.replies.length, 1);
  });

  await t.test('ends the session once when the mount is gone, and releases every file', async (t) => {
    for (const errno of [E.ENODEV, E.ECONNABORTED]) {
      const server = bench();
      server.open('echo');
      server.device.idle = -errno;
      t.equal(server.session.drain(), false);
      t.equal(server.session.drain(), false);
      t.same(server.ends, [errno]);
      t.equal(server.session.handles.size, 0);
    }
  });

  await t.test('bears a reply that the kernel does not want', async (t) => {
    const errors: string[] = [];
    const nothing = (): void => undefined;
    const log = { debug: nothing, info: nothing, warn: nothing, error: (_: object, text: string) => errors.push(text) };
    for (const [errno, logged] of [
      [E.ENOENT, 0],
      [E.ENODEV, 0],
      [E.EINVAL, 1],
    ] as const) {
      const server = bench({ log });
      server.device.refuse = -errno;
      server.send('STATFS');
      t.equal(errors.splice(0).length, logged);
    }
  });
});
