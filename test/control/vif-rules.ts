/** src/control/vif-rules.ts: which sockets become rules, and what becomes of them. */
import t from 'tap';
import { type ErrorCode, FwdfsError } from '../../src/base/errors.js';
import type { ForwarderLink } from '../../src/control/forwarder-link.js';
import { rulesOf } from '../../src/control/socket-rules.js';
import type { WatchedSocket } from '../../src/control/socket-watcher.js';
import { type RuleKey, UpTunnel } from '../../src/control/up-tunnel.js';
import { VifRules } from '../../src/control/vif-rules.js';
import { Counters } from '../../src/base/counters.js';
import { parseExpose } from '../../src/control/vif-commands.js';
import { keepLog } from '../support/log.js';

const ADDRESS = Buffer.from([10, 9, 0, 1]);

const tcp = (id: string, port: number, more: Partial<WatchedSocket> = {}): WatchedSocket => ({
  id,
  kind: 'stream',
  protocol: 6,
  family: 4,
  v6only: false,
  address: null,
  port,
  connected: false,
  listening: true,
  ifindex: 0,
  inode: 1,
  filter: '',
  ...more,
});
const packet = (id: string, filter: string, protocol = 0x88cc): WatchedSocket =>
  tcp(id, 0, { kind: 'packet', protocol, family: 0, listening: false, filter });

interface Scene {
  readonly rules: VifRules;
  readonly diary: string[];
  readonly log: ReturnType<typeof keepLog>;
  readonly vif: { isKnown: boolean };
  readonly view: { ifindexes: Set<number>; addresses: Buffer[]; kind: 'tap' | 'tun' };
  /** What the next requests are answered with. */
  refusal: ErrorCode | null;
  /** The tunnels that were given out and are held. */
  readonly tunnels: UpTunnel[];
}

function make(old: WatchedSocket[] = [], expose: string | null = null): Scene {
  const diary: string[] = [];
  const log = keepLog();
  const view = { ifindexes: new Set([7]), addresses: [ADDRESS], kind: 'tap' as 'tap' | 'tun' };
  const vif = { symbol: 'fwd1-eth0', mode: 'socket' as const, isKnown: true, ruleFields: () => ({ vif: 3 }) };
  const tunnels: UpTunnel[] = [];
  const link: Pick<ForwarderLink, 'acquireUp' | 'releaseUp'> = {
    async acquireUp(key: RuleKey) {
      diary.push(`ask ${key.protocol.text}`);
      await new Promise((resolve) => setImmediate(resolve));
      if (scene.refusal !== null) throw new FwdfsError(scene.refusal, key.protocol.text);
      const tunnel = new UpTunnel(key, 'fwd1', new Counters());
      tunnel.active = true;
      tunnels.push(tunnel);
      return tunnel;
    },
    releaseUp(tunnel: UpTunnel) {
      diary.push(`delete ${tunnel.key.protocol.text}`);
      tunnels.splice(tunnels.indexOf(tunnel), 1);
    },
  };
  const rules = new VifRules(
    {
      link,
      interface: () => 'eth0',
      owner: vif,
      gate: {
        admit: (protocol) => void diary.push(`admit ${protocol.text}`),
        refuse: (protocol) => void diary.push(`refuse ${protocol.text}`),
      },
      wants: () => (socket) => rulesOf(socket, view),
      expose: expose === null ? null : parseExpose(expose),
      reader: { deliver: () => void diary.push('frame') },
      onChange: () => undefined,
      log,
    },
    old,
  );
  const scene: Scene = { rules, diary, log, vif, view, refusal: null, tunnels };
  return scene;
}

const states = ({ rules }: Scene): string[] => rules.rows().map(({ protocol, state }) => `${protocol} ${state}`);

t.test('the first socket sets the rule, admitted before it is asked for; the last close takes it back', async (t) => {
  const scene = make();
  const { diary, rules } = scene;
  rules.changed([tcp('a', 80)], []);
  rules.changed([tcp('b', 80)], []);
  await rules.settled();
  t.same(diary, ['admit tcp:80', 'ask tcp:80']);
  t.same(states(scene), ['tcp:80 active']);
  rules.changed([], [tcp('a', 80)]);
  t.same(diary.slice(2), []);
  rules.changed([], [tcp('b', 80)]);
  t.same(diary.slice(2), ['delete tcp:80', 'refuse tcp:80']);
  t.same(states(scene), []);
});

t.test('frames of a rule go to the device', async (t) => {
  const scene = make();
  scene.rules.changed([tcp('a', 80)], []);
  await scene.rules.settled();
  scene.tunnels[0]?.deliver(Buffer.alloc(60), 0, 60, 0, 0, 0);
  t.equal(scene.diary.at(-1), 'frame');
});

t.test('a socket that closes while its rule is asked for leaves none', async (t) => {
  const scene = make();
  const { diary, rules } = scene;
  rules.changed([tcp('a', 80)], []);
  rules.changed([], [tcp('a', 80)]);
  await new Promise((resolve) => setTimeout(resolve, 5));
  t.same(diary, ['admit tcp:80', 'ask tcp:80', 'refuse tcp:80', 'delete tcp:80']);
  t.same(scene.tunnels, []);
});

t.test(
  'sockets from before are rules only if they are exposed; what is opened later is bound by that too',
  async (t) => {
    const sshd = tcp('ssh', 22);
    const web = tcp('web', 80);
    const all = make([sshd, web]);
    all.rules.changed([sshd, web, tcp('new', 8080)], []);
    await all.rules.settled();
    t.same(states(all), ['tcp:8080 active']);
    const some = make([sshd, web], 'tcp:80,udp:1-9');
    some.rules.changed([sshd, web, tcp('new', 8080)], []);
    await some.rules.settled();
    t.same(states(some), ['tcp:80 active', 'tcp:8080 refused']);
    t.match(some.rules.rows()[1]?.reason, /--expose does not name tcp:8080/);
  },
);

t.test('a socket that takes the place of an old one is not old', async (t) => {
  const sshd = tcp('ssh', 22);
  const scene = make([sshd]);
  scene.rules.changed([sshd], []);
  scene.rules.changed([], [sshd]);
  scene.rules.changed([tcp('ssh2', 22)], []);
  await scene.rules.settled();
  t.same(states(scene), ['tcp:22 active']);
});

t.test(
  'what the forwarder refuses is told once and shown, and asked for again when the rights are others',
  async (t) => {
    const scene = make();
    const { diary, log, rules } = scene;
    scene.refusal = 'not-permitted';
    rules.changed([tcp('a', 80)], []);
    await rules.settled();
    rules.retry();
    await rules.settled();
    t.same(states(scene), ['tcp:80 refused']);
    t.equal(log.lines.filter(({ level }) => level === 'warn').length, 1);
    t.same(diary, ['admit tcp:80', 'ask tcp:80', 'refuse tcp:80', 'admit tcp:80', 'ask tcp:80', 'refuse tcp:80']);
    scene.refusal = null;
    rules.retry();
    await rules.settled();
    t.same(states(scene), ['tcp:80 active']);
    t.equal(rules.rows()[0]?.reason, '-');
  },
);

t.test('a rule that the forwarder withdraws is refused from then on, and is not admitted any more', async (t) => {
  const scene = make();
  scene.rules.changed([tcp('a', 80)], []);
  await scene.rules.settled();
  scene.tunnels[0]?.fail(new FwdfsError('not-permitted', 'the permissions were changed'));
  t.same(states(scene), ['tcp:80 refused']);
  t.match(scene.rules.rows()[0]?.reason, /the permissions were changed/);
  t.same(scene.diary.slice(2), ['refuse tcp:80', 'delete tcp:80']);
});

t.test('without a connection rules wait for the virtual IF to be known again', async (t) => {
  const scene = make();
  const { diary, rules, vif } = scene;
  vif.isKnown = false;
  rules.changed([tcp('a', 80)], []);
  t.same(states(scene), ['tcp:80 waiting']);
  t.same(diary, []);
  vif.isKnown = true;
  scene.refusal = 'not-connected';
  rules.retry();
  await rules.settled();
  t.same(states(scene), ['tcp:80 waiting']);
  scene.refusal = null;
  rules.retry();
  await rules.settled();
  t.same(states(scene), ['tcp:80 active']);
});

t.test('an address that comes or goes brings and takes the rules of sockets that are bound to it', async (t) => {
  const scene = make();
  const { rules, view } = scene;
  const other = Buffer.from([10, 9, 0, 7]);
  rules.changed([tcp('a', 80, { address: other }), tcp('b', 81)], []);
  await rules.settled();
  t.same(states(scene), ['tcp:81 active']);
  view.addresses = [ADDRESS, other];
  rules.review();
  await rules.settled();
  t.same(states(scene).sort(), ['tcp:10.9.0.7:80 active', 'tcp:81 active']);
  view.addresses = [ADDRESS];
  rules.review();
  t.same(states(scene), ['tcp:81 active']);
});

t.test('packet sockets with other filters have rules of their own, and are seen by their ether types', async (t) => {
  const scene = make();
  const { rules } = scene;
  const filter = '0600000000000400';
  rules.changed([packet('a', ''), packet('b', filter), packet('c', filter)], []);
  await rules.settled();
  t.same(
    rules.rows().map(({ protocol, sockets, hasFilter }) => [protocol, sockets, hasFilter]),
    [
      ['ether:0x88cc', 1, false],
      ['ether:0x88cc', 2, true],
    ],
  );
  t.same([rules.seesEther(0x88cc), rules.seesEther(0x0806)], [true, false]);
  rules.changed([packet('d', '', 3)], []);
  await rules.settled();
  t.ok(rules.seesEther(0x0806), 'a socket for everything sees ARP');
});

t.test('when it is closed nothing is left, and nothing is asked for any more', async (t) => {
  const scene = make();
  const { diary, rules } = scene;
  rules.changed([tcp('a', 80), tcp('b', 81)], []);
  await rules.settled();
  rules.close();
  t.same(scene.tunnels, []);
  t.same(rules.rows(), []);
  const length = diary.length;
  rules.changed([tcp('c', 82)], []);
  rules.review();
  t.equal(diary.length, length);
});
