/** src/base/errors.ts: codes, and what becomes of anything that is thrown. */
import t from 'tap';
import { constants } from 'node:os';
import { readFileSync } from 'node:fs';
import {
  describe,
  type ErrorCode,
  errnoName,
  errnoOf,
  ERRORS,
  FwdfsError,
  isErrorCode,
  SystemError,
} from '../../src/base/errors.js';

const { EACCES, EAGAIN, EIO, ENOENT } = constants.errno;

t.test('an error of ours has its code, what happened, and one line that says what to do', async (t) => {
  const cause = new Error('why');
  const error = new FwdfsError('not-permitted', 'fwd1/eth0:udp:53', { cause });
  t.equal(error.code, 'not-permitted');
  t.equal(error.what, 'fwd1/eth0:udp:53');
  t.equal(error.message, `fwd1/eth0:udp:53: ${ERRORS['not-permitted'].advice}`);
  t.equal(error.errno, EACCES);
  t.equal(error.cause, cause);
  t.equal(error.name, 'FwdfsError');
  t.ok(error instanceof Error);
});

t.test('every code has a positive errno that Linux knows, and advice of one line', async (t) => {
  for (const [code, { errno, advice }] of Object.entries(ERRORS)) {
    t.match(code, /^[a-z]+(?:-[a-z]+)*$/);
    t.match(errnoName(errno), /^E[A-Z]+$/, code);
    t.match(advice, /^[^\n]{10,}[^\n.]$/, code);
  }
});

t.test('errno of an error of ours is that of the table', async (t) => {
  for (const code of Object.keys(ERRORS) as ErrorCode[])
    t.equal(errnoOf(new FwdfsError(code, 'x')), ERRORS[code].errno);
});

t.test('a code is one of the table, and nothing that every object has', async (t) => {
  t.ok(isErrorCode('not-sent'));
  for (const text of ['', 'not sent', 'toString', '__proto__', 'constructor']) t.notOk(isErrorCode(text), text);
});

t.test('a failed system call keeps its errno and says what it was about', async (t) => {
  const error = new SystemError('open', ENOENT, '/dev/fuse');
  t.match(error, { errno: ENOENT, syscall: 'open', code: 'ENOENT', name: 'SystemError' });
  t.equal(error.message, 'open /dev/fuse: ENOENT');
  t.equal(new SystemError('read', EAGAIN).message, 'read: EAGAIN');
  t.equal(errnoOf(error), ENOENT);
});

t.test("Node's own errors keep their errno, as a positive number", async (t) => {
  try {
    readFileSync('/does/not/exist');
    t.fail('there is such a file');
  } catch (error) {
    t.equal(errnoOf(error), ENOENT);
  }
  t.equal(errnoOf(Object.assign(new Error('x'), { errno: EACCES })), EACCES);
});

t.test('what is no error of anybody is EIO', async (t) => {
  const thrown = [new Error('x'), new TypeError('x'), Object.assign(new Error('x'), { errno: 'EACCES' }), { errno: 2 }];
  for (const one of [...thrown, 'text', 42, null, undefined]) t.equal(errnoOf(one), EIO);
});

t.test('an errno without a name is shown as its number', async (t) => {
  t.equal(errnoName(ENOENT), 'ENOENT');
  t.equal(errnoName(99_999), 'errno 99999');
  t.equal(new SystemError('ioctl', 99_999).message, 'ioctl: errno 99999');
});

t.test('whatever was thrown can be described', async (t) => {
  t.equal(describe(new Error('it broke')), 'it broke');
  t.equal(describe('text'), 'text');
  t.equal(describe(undefined), 'undefined');
  t.equal(describe(null), 'null');
});
