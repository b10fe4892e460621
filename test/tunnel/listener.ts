/** Where a forwarder can listen: TCP, Unix sockets and TLS, and who the peer is found to be. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { FwdfsError } from '../../src/base/errors.js';
import type { Peer } from '../../src/tunnel/listener.js';
import type { Message } from '../../src/tunnel/messages.js';
import { startClient, startServer } from '../support/tunnel-ends.js';

const tlsFile = (name: string): string =>
  fileURLToPath(new URL(`../../../test/vectors/tunnel-tls/${name}`, import.meta.url));

/** A directory whose name leaves room in the 107 bytes of a Unix socket's path, as t.testdir() does not everywhere. */
function shortDir(t: { teardown(end: () => void): void }): string {
  const dir = mkdtempSync(join(tmpdir(), 'fwdfs-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  return dir;
}

t.test('a Unix socket works, has the mode that was asked for, and is removed at the end', async (t) => {
  const path = `${shortDir(t)}/a b:c%20.sock`;
  const end = await startServer({ url: `ws+unix:${path}`, listen: { unixMode: 0o660 } });
  t.equal(statSync(path).mode & 0o777, 0o660);
  t.equal(end.url, `ws+unix:${path}`);
  const { client, diary } = startClient(end.url);
  await diary.until('connected');
  t.same(end.peers, [{ address: '', loopback: true, unix: true, certificateName: null }]);
  t.match(client.state, { localAddress: '', remoteAddress: '' });
  client.close();
  await end.server.close();
  t.notOk(existsSync(path));
});

t.test('a Unix socket that is listened at stays; one that was left behind is replaced', async (t) => {
  const url = `ws+unix:${shortDir(t)}/s`;
  const first = await startServer({ url });
  t.teardown(() => first.server.close());
  await t.rejects(startServer({ url }), { code: 'cannot-listen', what: /somebody listens there/ });
  const { client, diary } = startClient(url);
  t.teardown(() => client.close());
  await diary.until('connected');

  const left = `${shortDir(t)}/left`;
  const dies = `require('net').createServer().listen(${JSON.stringify(left)}, () => process.kill(process.pid, 'SIGKILL'))`;
  t.throws(() => execFileSync(process.execPath, ['-e', dies], { stdio: 'ignore' }));
  t.ok(existsSync(left));
  const second = await startServer({ url: `ws+unix:${left}` });
  t.teardown(() => second.server.close());

  const file = `ws+unix:${shortDir(t)}/plain`;
  writeFileSync(file.slice('ws+unix:'.length), 'not a socket');
  await t.rejects(startServer({ url: file }), { code: 'cannot-listen' }, 'a plain file is not removed');
});

t.test('what cannot be listened at is cannot-listen or bad-config, and leaves nothing open', async (t) => {
  const other = createServer();
  await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
  t.teardown(() => other.close());
  const { port } = other.address() as AddressInfo;
  await t.rejects(startServer({ url: `ws://127.0.0.1:${port}` }), { code: 'cannot-listen', what: /EADDRINUSE/ });
  await t.rejects(startServer({ url: 'wss://127.0.0.1:0' }), { code: 'bad-config', what: /needs tls/ });
  await t.rejects(startServer({ url: 'tcp://127.0.0.1:0' }), { code: 'bad-config' });
  await t.rejects(startServer({ url: 'ws+unix:/does/not/exist/s' }), { code: 'cannot-listen' });
  await t.rejects(startServer({ url: `ws+unix:/tmp/${'x'.repeat(103)}` }), { code: 'bad-config', what: /107 bytes/ });
});

t.test('an IPv6 address is written with brackets', async (t) => {
  const end = await startServer({ url: 'ws://[::1]:0' });
  t.teardown(() => end.server.close());
  t.match(end.url, /^ws:\/\/\[::1\]:\d+$/);
  const { client, diary } = startClient(end.url);
  t.teardown(() => client.close());
  await diary.until('connected');
  t.match(end.peers, [{ address: '::1', loopback: true, unix: false }]);
});

// --- TLS ---

const byCertificate = (hello: Message<'hello'>, peer: Peer): string => {
  if (peer.certificateName !== null) return peer.certificateName;
  if (hello.token === 'good') return `token:${hello.name}`;
  throw new FwdfsError('not-authenticated', 'neither certificate nor token');
};
const serverTls = { cert: tlsFile('fwd1.pem'), key: tlsFile('fwd1.key'), ca: tlsFile('ca.pem') };

t.test('over TLS a certificate of the CA names its owner, and a token does without one', async (t) => {
  const end = await startServer({ url: 'wss://127.0.0.1:0', listen: { tls: serverTls }, authenticate: byCertificate });
  t.teardown(() => end.server.close());
  const ca = tlsFile('ca.pem');
  const own = startClient(end.url, { tls: { ca, cert: tlsFile('ctl1.pem'), key: tlsFile('ctl1.key') }, name: 'any' });
  t.teardown(() => own.client.close());
  await own.diary.until('connected');
  t.equal(end.latest().identity, 'ctl1');
  const token = startClient(end.url, { tls: { ca } });
  t.teardown(() => token.client.close());
  await token.diary.until('connected');
  t.equal(end.latest().identity, 'token:ctl1');
});

t.test('a certificate of another CA names nobody, nor does any when no CA was configured', async (t) => {
  const end = await startServer({ url: 'wss://127.0.0.1:0', listen: { tls: serverTls }, authenticate: byCertificate });
  t.teardown(() => end.server.close());
  const ca = tlsFile('ca.pem');
  const files = { ca, cert: tlsFile('stranger.pem'), key: tlsFile('stranger.key') };
  const stranger = startClient(end.url, { tls: files, token: 'bad' });
  t.teardown(() => stranger.client.close());
  await stranger.diary.until('failed not-authenticated');

  const { cert, key } = serverTls;
  const open = await startServer({
    url: 'wss://127.0.0.1:0',
    listen: { tls: { cert, key } },
    authenticate: byCertificate,
  });
  t.teardown(() => open.server.close());
  const known = startClient(open.url, {
    tls: { ca, cert: tlsFile('ctl1.pem'), key: tlsFile('ctl1.key') },
    token: 'bad',
  });
  t.teardown(() => known.client.close());
  await known.diary.until('failed not-authenticated');
});

t.test('a forwarder whose certificate is of no known CA is not connected to', async (t) => {
  const end = await startServer({ url: 'wss://127.0.0.1:0', listen: { tls: serverTls }, authenticate: byCertificate });
  t.teardown(() => end.server.close());
  const { client, diary } = startClient(end.url, { tls: {} });
  t.teardown(() => client.close());
  t.match(await diary.until('failed'), /not-connected.*(certificate|issuer)/);
  t.equal(end.peers.length, 0, 'no token was given away');
});
