import t from 'tap';
import { constants } from 'node:os';
import { inNetns } from '../../src/sys/netns.js';
import {
  cookieAt,
  decodeInetSocket,
  decodePacketSocket,
  DESTROYED,
  DestroyedSockets,
  INET_SOCKET,
  localAddress,
  SockDiag,
  SOCKET_STATE,
} from '../../src/sys/sock-diag.js';
import { until } from '../support/lab.js';
import { Netns, withoutRoot } from '../support/netns.js';
import { SocketProcess } from '../support/sockets.js';

const TCP = 6;
const UDP = 17;
const LISTENING = 1 << SOCKET_STATE.LISTEN;
const BOUND = (1 << SOCKET_STATE.CLOSE) | (1 << SOCKET_STATE.ESTABLISHED);

/** An inet_diag_msg: [::1]:8080 that listens at interface 3, cookie 0x100000007, inode 4660, IPv6 only. */
const GOLDEN = Buffer.from(
  '0a0a0000' +
    '1f900000' +
    '00000000000000000000000000000001' +
    '00000000000000000000000000000000' +
    '03000000' +
    '0700000001000000' +
    '00000000000000000000000000000000' +
    '34120000' +
    '05000b0001000000',
  'hex',
);

t.test('an inet_diag_msg is decoded field by field', async (t) => {
  t.same(decodeInetSocket(GOLDEN), {
    family: 6,
    state: SOCKET_STATE.LISTEN,
    port: 8080,
    address: Buffer.from('00000000000000000000000000000001', 'hex'),
    hasPeer: false,
    ifindex: 3,
    inode: 0x1234,
    v6only: true,
  });
  t.equal(cookieAt(GOLDEN, INET_SOCKET.cookie), 0x1_0000_0007);
  for (let length = 0; length < INET_SOCKET.bytes; length++)
    t.equal(decodeInetSocket(GOLDEN.subarray(0, length)), null);
});

t.test('a packet_diag_msg is decoded, with and without its attributes', async (t) => {
  const fixed = `1103${'cc88'}${'34120000'}${'0900000000000000'}`;
  const info = `1c000000${'07000000'}${'00'.repeat(20)}`;
  const filter = `0c000700${'06000000ffff0000'}`;
  t.same(decodePacketSocket(Buffer.from(fixed, 'hex')), { etherType: 0x88cc, ifindex: 0, inode: 0x1234, filter: '' });
  t.same(decodePacketSocket(Buffer.from(fixed + info + filter, 'hex')), {
    etherType: 0x88cc,
    ifindex: 7,
    inode: 0x1234,
    filter: '06000000ffff0000',
  });
  t.equal(decodePacketSocket(Buffer.from(fixed, 'hex').subarray(0, 15)), null);
});

t.test('a local address is null for any, and IPv4 where it is mapped', async (t) => {
  t.equal(localAddress(Buffer.alloc(4)), null);
  t.equal(localAddress(Buffer.alloc(16)), null);
  t.equal(localAddress(Buffer.from('00000000000000000000ffff00000000', 'hex')), null);
  t.same(localAddress(Buffer.from('00000000000000000000ffff0a090001', 'hex')), Buffer.from([10, 9, 0, 1]));
  t.same(localAddress(Buffer.from([10, 9, 0, 1])), Buffer.from([10, 9, 0, 1]));
});

async function scene(t: { teardown: (undo: () => void | Promise<void>) => void }): Promise<{
  netns: Netns;
  process: SocketProcess;
  diag: SockDiag;
}> {
  const netns = new Netns('sd');
  t.teardown(() => netns.remove());
  netns.run('ip link set lo up');
  const process = await SocketProcess.start(netns);
  t.teardown(() => process.kill());
  const diag = inNetns(netns.name, () => new SockDiag());
  t.teardown(() => diag.close());
  return { netns, process, diag };
}

t.test('only what is in one of the states is listed, thousands as well', { skip: withoutRoot }, async (t) => {
  const { process, diag } = await scene(t);
  const count = (protocol: number, states: number): number => {
    const cookies = new Set<number>();
    t.ok(diag.inet(4, protocol, states, (body) => cookies.add(cookieAt(body, INET_SOCKET.cookie))));
    return cookies.size;
  };
  t.equal(count(UDP, BOUND), 0);
  await process.run("many = [bound(AF_INET, SOCK_DGRAM, ('', 0)) for _ in range(900)]");
  t.equal(count(UDP, BOUND), 900);
  await process.run("l = listening(AF_INET, ('127.0.0.1', 80)); c = create_connection(('127.0.0.1', 80))");
  t.equal(count(TCP, LISTENING), 1);
  t.ok(count(TCP, 0xfff) > 1);
});

t.test('a protocol that the kernel cannot list is said to be so', { skip: withoutRoot }, async (t) => {
  const { diag } = await scene(t);
  t.equal(
    diag.inet(4, 253, BOUND, () => undefined),
    false,
  );
});

t.test('sockets that are gone are told of by cookie; connections are not', { skip: withoutRoot }, async (t) => {
  const { process, diag, netns } = await scene(t);
  const [tcp, udp] = inNetns(netns.name, () => [
    new DestroyedSockets(DESTROYED.TCP),
    new DestroyedSockets(DESTROYED.UDP),
  ]) as [DestroyedSockets, DestroyedSockets];
  t.teardown(() => {
    tcp.close();
    udp.close();
  });
  await process.run("l = listening(AF_INET6, ('::1', 80)); u = bound(AF_INET, SOCK_DGRAM, ('', 53))");
  const cookies: number[] = [];
  diag.inet(6, TCP, LISTENING, (body) => cookies.push(cookieAt(body, INET_SOCKET.cookie)));
  diag.inet(4, UDP, BOUND, (body) => cookies.push(cookieAt(body, INET_SOCKET.cookie)));
  t.equal(cookies.length, 2);
  await process.run("c = create_connection(('::1', 80)); a = l.accept()[0]; c.close(); a.close()");
  await process.run('l.close(); u.close()');
  const gone: number[] = [];
  const take = (from: DestroyedSockets): void => {
    while (from.receive((cookie) => gone.push(cookie)) > 0);
  };
  await until(() => {
    take(tcp);
    take(udp);
    return gone.length >= 2;
  });
  t.same(gone.sort(), cookies.sort());
  t.equal(
    udp.receive(() => undefined),
    -constants.errno.EAGAIN,
  );
});
