import { createHash } from 'node:crypto';
import t from 'tap';
import { FwdfsError } from '../../src/base/errors.js';
import { authenticate, type PeerAddress } from '../../src/forwarder/authenticate.js';

const digest = (token: string): string => createHash('sha256').update(token).digest('hex');
const config = (insecure = false): { tokens: Map<string, string>; insecure: boolean } => ({
  tokens: new Map([['ctl1', digest('secret')]]),
  insecure,
});

const remote: PeerAddress = { address: '192.0.2.1', loopback: false, unix: false, certificateName: null };
const loopback: PeerAddress = { ...remote, address: '127.0.0.1', loopback: true };
const unix: PeerAddress = { ...remote, address: '', unix: true };
const certified = (certificateName: string): PeerAddress => ({ ...remote, certificateName });

/** The identity, or the code of the error. */
function identify(name: string, token: string | undefined, peer: PeerAddress, insecure = false): string {
  try {
    return authenticate(config(insecure), { name, token }, peer);
  } catch (error) {
    if (error instanceof FwdfsError) return error.code;
    throw error;
  }
}

t.test('who a control device is, by certificate, token or place', async (t) => {
  const no = 'not-authenticated';
  const cases: [what: string, name: string, token: string | undefined, peer: PeerAddress, expected: string][] = [
    ['the right token', 'ctl1', 'secret', remote, 'ctl1'],
    ['a wrong token', 'ctl1', 'secreu', remote, no],
    ['no token', 'ctl1', undefined, remote, no],
    ['an empty token', 'ctl1', '', remote, no],
    ['the digest is not the token', 'ctl1', digest('secret'), remote, no],
    ['a name with a token needs it on loopback too', 'ctl1', undefined, loopback, no],
    ['… and on a Unix socket', 'ctl1', undefined, unix, no],
    ['a name without one is taken on loopback', 'ctl2', undefined, loopback, 'ctl2'],
    ['… and on a Unix socket', 'ctl2', undefined, unix, 'ctl2'],
    ['… and nowhere else', 'ctl2', undefined, remote, no],
    ["… also with another's token", 'ctl2', 'secret', remote, no],
    ['a certificate needs no token', 'ctl1', undefined, certified('ctl1'), 'ctl1'],
    ['a certificate is good for its own name only', 'ctl1', 'secret', certified('ctl2'), no],
    ['a name of the prototype is no token', 'constructor', 'x', remote, no],
  ];
  for (const [what, name, token, peer, expected] of cases) t.equal(identify(name, token, peer), expected, what);
});

t.test('insecure: true takes everybody whose name has no token', async (t) => {
  t.equal(identify('ctl2', undefined, remote, true), 'ctl2');
  t.equal(identify('ctl1', undefined, remote, true), 'not-authenticated');
  t.equal(identify('ctl1', 'secret', remote, true), 'ctl1');
});

t.test('a digest that is none fits no token', async (t) => {
  const tokens = new Map([['ctl1', 'abc']]);
  t.throws(() => authenticate({ tokens, insecure: true }, { name: 'ctl1', token: '' }, loopback), {
    code: 'not-authenticated',
  });
});
