/** The contract of MessageSocket, for the real one and for the fake. */
import t from 'tap';
import type { MessageSocket, SocketEvents } from '../../src/tunnel/socket.js';
import { FakeSocket } from '../support/fake-socket.js';
import { openWsPair } from '../support/ws-pair.js';

/** Two joined sockets; `end` lets go of what is beneath them. */
type Open = () => Promise<{ one: MessageSocket; two: MessageSocket; end: () => void }>;

const implementations: Record<string, Open> = {
  fake: async () => {
    const [one, two] = FakeSocket.pair();
    return { one, two, end: () => undefined };
  },
  'ws, client to server': async () => {
    const { client, server, end } = await openWsPair();
    return { one: client, two: server, end };
  },
  'ws, server to client': async () => {
    const { client, server, end } = await openWsPair();
    return { one: server, two: client, end };
  },
};

const ignore: SocketEvents = { message: () => undefined, pong: () => undefined, closed: () => undefined };
const nothing = (): void => undefined;

/** Resolves at the first event of that name. */
function event<K extends keyof SocketEvents>(socket: MessageSocket, name: K): Promise<Parameters<SocketEvents[K]>> {
  return new Promise((resolve) => {
    socket.listen({ ...ignore, [name]: (...args: Parameters<SocketEvents[K]>) => resolve(args) });
  });
}

for (const [name, open] of Object.entries(implementations)) {
  t.test(
    `${name}: messages keep their order, borders and bytes, and done comes in the order of the sends`,
    async (t) => {
      const { one, two, end } = await open();
      t.teardown(end);
      const sizes = [0, 1, 125, 126, 65_535, 65_536, 200_000, 3];
      const sent = sizes.map((size, index) => Buffer.alloc(size, index + 1));
      const dones: number[] = [];
      const got: Buffer[] = [];
      one.listen(ignore);
      await new Promise<void>((resolve) => {
        two.listen({
          ...ignore,
          message: (data, binary) => {
            t.ok(binary);
            got.push(data);
            if (got.length === sizes.length) resolve();
          },
        });
        sent.forEach((data, index) => one.send(data, () => dones.push(index)));
        t.equal(dones.length, 0, 'never from inside send');
      });
      t.same(
        got.map((data) => [data.length, data[0] ?? 0]),
        sent.map((data) => [data.length, data[0] ?? 0]),
      );
      t.ok(two.bytesReceived > 0, 'signs of life were counted');
      await new Promise((resolve) => setImmediate(resolve));
      t.same(dones, [...sizes.keys()]);
    },
  );

  t.test(`${name}: a ping is answered by itself`, async (t) => {
    const { one, two, end } = await open();
    t.teardown(end);
    two.listen(ignore);
    const pong = event(one, 'pong');
    one.ping();
    await pong;
  });

  t.test(`${name}: close delivers what was sent before, then its reason`, async (t) => {
    const { one, two, end } = await open();
    t.teardown(end);
    const events: string[] = [];
    const oneClosed = event(one, 'closed');
    const twoClosed = new Promise<void>((resolve) => {
      two.listen({
        ...ignore,
        message: (data) => events.push(`message ${data.length}`),
        closed: (why) => {
          events.push(`closed ${why}`);
          resolve();
        },
      });
    });
    one.send(Buffer.alloc(100_000), nothing);
    one.close(1000, 'done here');
    await Promise.all([oneClosed, twoClosed]);
    t.same(events, ['message 100000', 'closed done here']);
    t.notOk(one.isOpen || two.isOpen);
    one.close(1000, 'again');
    one.terminate();
  });

  t.test(`${name}: terminate closes both ends, and closing twice is harmless`, async (t) => {
    const { one, two, end } = await open();
    t.teardown(end);
    const closed = Promise.all([event(one, 'closed'), event(two, 'closed')]);
    one.terminate();
    one.terminate();
    const [[mine], [theirs]] = await closed;
    t.ok(mine.length > 0 && theirs.length > 0, 'each has a reason');
    t.notOk(one.isOpen || two.isOpen);
  });
}

t.test('ws: a reason too long for a close frame is cut between two characters', async (t) => {
  const { client, server, end } = await openWsPair();
  t.teardown(end);
  client.listen(ignore);
  const closed = event(server, 'closed');
  client.close(1000, `x${'ä'.repeat(100)}`);
  t.same(await closed, [`x${'ä'.repeat(61)}`]);
});

t.test('ws: a peer that does not answer a close is cut off', async (t) => {
  const { client, server, stream, end } = await openWsPair();
  t.teardown(end);
  server.listen(ignore);
  const closed = event(server, 'closed');
  client.listen(ignore);
  stream.pause();
  server.close(1000, 'is anybody there');
  await closed;
});

t.test('ws: a message beyond the largest admitted closes the socket', async (t) => {
  const { client, server, end } = await openWsPair(1000);
  t.teardown(end);
  client.listen(ignore);
  const closed = event(server, 'closed');
  client.send(Buffer.alloc(1001), nothing);
  t.match(await closed, [/Max payload size exceeded/]);
});

t.test('ws: no payload is masked, nor copied to be sent', async (t) => {
  const { client, server, end } = await openWsPair();
  t.teardown(end);
  client.listen(ignore);
  const got = event(server, 'message');
  const payload = Buffer.from('0123456789abcdef');
  client.send(payload, nothing);
  t.equal(payload.toString(), '0123456789abcdef', 'masking would have changed it in place');
  t.equal((await got)[0].toString(), '0123456789abcdef');
});
