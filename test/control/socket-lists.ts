import t from 'tap';
import type { EachSocket } from '../../src/control/socket-lists.js';
import { SocketList } from '../../src/control/socket-lists.js';
import type { SocketChanges } from '../../src/control/socket-lists.js';
import type { WatchedSocket } from '../../src/control/watched-socket.js';

const OWN_INODE = 99;

/** A source that lists what it is told to: key and state. */
class FakeSource {
  rows: [key: number, state: string][] = [];
  decoded = 0;

  read(each: EachSocket): void {
    for (const [key, state] of this.rows) {
      const bytes = Buffer.from(`${state}|junk ${this.decoded}`);
      each(key, bytes, state.length, () => {
        this.decoded += 1;
        return socket(key, state);
      });
    }
  }
}

function socket(key: number, state: string): WatchedSocket {
  return {
    id: `${key}${state}`,
    kind: 'datagram',
    protocol: 17,
    family: 4,
    v6only: false,
    address: null,
    port: key,
    connected: false,
    listening: false,
    ifindex: 0,
    inode: key,
    filter: '',
  };
}

function look(list: SocketList): { opened: string[]; closed: string[]; isMissing: boolean } {
  const changes: SocketChanges = { opened: [], closed: [] };
  const isMissing = list.look((inode) => inode === OWN_INODE, changes);
  const ids = (sockets: readonly WatchedSocket[]): string[] => sockets.map(({ id }) => id);
  return { opened: ids(changes.opened), closed: ids(changes.closed), isMissing };
}

const NOTHING = { opened: [], closed: [], isMissing: false };

t.test('what is new is told of once, and decoded once', async (t) => {
  const source = new FakeSource();
  const list = new SocketList(source);
  t.same(look(list), NOTHING);
  t.ok(list.isEmpty);
  source.rows = [
    [1, 'a'],
    [2, 'b'],
  ];
  t.same(look(list), { ...NOTHING, opened: ['1a', '2b'] });
  t.same(look(list), NOTHING);
  t.equal(source.decoded, 2);
  t.equal(list.size, 2);
  t.notOk(list.isEmpty);
});

t.test('another state closes what was and opens what is', async (t) => {
  const source = new FakeSource();
  const list = new SocketList(source);
  source.rows = [[1, 'a']];
  look(list);
  source.rows = [[1, 'b']];
  t.same(look(list), { ...NOTHING, opened: ['1b'], closed: ['1a'] });
  source.rows = [[1, 'bb']];
  t.same(look(list), { ...NOTHING, opened: ['1bb'], closed: ['1b'] });
});

t.test('what is missing once is closed when it is missing twice in a row', async (t) => {
  const source = new FakeSource();
  const list = new SocketList(source);
  source.rows = [[1, 'a']];
  look(list);
  source.rows = [];
  t.same(look(list), { ...NOTHING, isMissing: true });
  source.rows = [[1, 'a']];
  t.same(look(list), NOTHING, 'it was only hidden');
  source.rows = [];
  t.same(look(list), { ...NOTHING, isMissing: true });
  t.same(look(list), { ...NOTHING, closed: ['1a'] });
  t.same(look(list), NOTHING);
  t.equal(list.size, 0);
});

t.test('what is forgotten is not closed a second time, and opens anew', async (t) => {
  const source = new FakeSource();
  const list = new SocketList(source);
  source.rows = [[1, 'a']];
  look(list);
  t.equal(list.forget(1)?.id, '1a');
  t.equal(list.forget(1), null);
  source.rows = [];
  t.same(look(list), NOTHING);
  source.rows = [[1, 'a']];
  t.same(look(list), { ...NOTHING, opened: ['1a'] });
});

t.test('sockets of this process are known and never told of', async (t) => {
  const source = new FakeSource();
  const list = new SocketList(source);
  source.rows = [[OWN_INODE, 'a']];
  t.same(look(list), NOTHING);
  t.ok(list.isEmpty);
  t.equal(list.size, 1);
  source.rows = [[OWN_INODE, 'b']];
  t.same(look(list), NOTHING);
  source.rows = [];
  look(list);
  t.same(look(list), NOTHING);
  t.equal(list.size, 0);
});
