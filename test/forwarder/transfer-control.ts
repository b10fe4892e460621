/** src/forwarder/transfer-control.ts: claims, and what another permission table takes away. */
import { constants } from 'node:os';
import t from 'tap';
import { FwdfsError, SystemError } from '../../src/base/errors.js';
import { MAX_CLAIMS } from '../../src/base/limits.js';
import { DistributionTable } from '../../src/forwarder/distribution-table.js';
import { ForwarderInterface } from '../../src/forwarder/interface.js';
import type { Peer } from '../../src/forwarder/peer.js';
import { type Permission, PermissionTable } from '../../src/forwarder/permission-table.js';
import { QuietSets } from '../../src/forwarder/quiet-sets.js';
import { ReceptionTable } from '../../src/forwarder/reception-table.js';
import { TransferControl } from '../../src/forwarder/transfer-control.js';
import type { LinkType } from '../../src/packet/headers.js';
import { parseProtocolAddress } from '../../src/packet/protocol-address.js';
import type { Right } from '../../src/tunnel/messages.js';
import { makePeer } from '../support/fake-peer.js';
import { keepLog } from '../support/log.js';
import { Netns, withoutRoot } from '../support/netns.js';

const line = (control: string, rights: readonly Right[], protocols = ['*'], on = '*'): Permission => ({
  control,
  interface: on,
  rights,
  protocols: protocols.map((text) => parseProtocolAddress(text)),
});
const EVERYTHING = [line('*', ['read', 'inject'])];

class Bench {
  readonly permissions: PermissionTable;
  readonly distribution = new DistributionTable();
  readonly reception = new ReceptionTable();
  readonly vifs = new QuietSets('fwd1', [], keepLog());
  readonly log = keepLog();
  readonly control: TransferControl;
  readonly one = makePeer('ctl1').peer;
  readonly two = makePeer('ctl2').peer;
  /** What the interfaces are. */
  linkType: LinkType = 'ethernet';
  master = 0;
  /** What the kernel was told each time: the claims. */
  readonly told: string[][] = [];
  /** What telling the kernel comes to. */
  quieten: () => Promise<void> = () => Promise.resolve();
  /** Rules of virtual IP addresses that came and went. */
  readonly converted: string[] = [];
  /** What converting comes to. */
  convert: () => Promise<void> = () => Promise.resolve();
  private lastUp = 0;

  constructor(permissions = EVERYTHING) {
    this.permissions = new PermissionTable(permissions);
    const result = { sent: () => undefined, failed: () => undefined, backlogMoved: () => undefined };
    const kernel = {
      flowChanged: () => undefined,
      neighbours: { listen: () => () => undefined, use: () => null },
      nextHop: (_ifindex: number, destination: Buffer) => destination,
    };
    const entry = (name: string): ForwarderInterface =>
      Object.defineProperties(new ForwarderInterface(name, this.distribution.of(name), result, kernel, this.log), {
        linkType: { value: this.linkType },
        present: { value: { master: this.master } },
      });
    this.control = new TransferControl({
      name: 'fwd1',
      permissions: this.permissions,
      distribution: this.distribution,
      reception: this.reception,
      interfaces: {
        listen: [parseProtocolAddress('tcp:7440')],
        vifs: this.vifs,
        find: entry,
        get: entry,
        quieten: () => {
          this.told.push(this.distribution.claims().map((rule) => `${rule.interface}:${rule.protocol.text}`));
          return this.quieten();
        },
      },
      vips: {
        ruleAdded: async (rule) => {
          await this.convert();
          this.converted.push(`+ ${rule.protocol.text}`);
        },
        ruleRemoved: (rule) => this.converted.push(`- ${rule.protocol.text}`),
      },
      log: this.log,
    });
  }

  /** The kernel takes its time, once. @returns what ends that */
  hold(): () => void {
    let done = (): void => undefined;
    const held = new Promise<void>((resolve) => (done = resolve));
    this.quieten = () => {
      this.quieten = () => Promise.resolve();
      return held;
    };
    return done;
  }

  /** Asks for a rule. @returns its up tunnel, or the code of what was thrown */
  async add(protocol: string, { peer = this.one, claim = false, on = 'eth0' } = {}): Promise<number | string> {
    this.lastUp += 1;
    const fields = { upTunnel: this.lastUp, control: '', protocol, symbol: 's', interface: on, claim, credit: 1 };
    try {
      return (await this.control.addRule(peer, { ...fields, scope: 'in' })).upTunnel;
    } catch (error) {
      return error instanceof FwdfsError ? error.code : String(error);
    }
  }

  claim(protocol: string, peer: Peer = this.one, on = 'eth0'): Promise<number | string> {
    return this.add(protocol, { peer, claim: true, on });
  }

  get rules(): string[] {
    return Array.from(
      this.distribution.rules(),
      ({ protocol, peer, mode }) => `${protocol.text} ${peer.identity} ${mode}`,
    ).sort();
  }
}

t.test(
  'the rule of a virtual IP address is converted by the kernel, within its right, and goes with its address',
  async (t) => {
    const bench = new Bench([
      { ...line('ctl1', ['vip']), protocols: [parseProtocolAddress('tcp')] },
      line('*', ['read', 'write']),
    ]);
    const VIP = '10.9.0.1';
    const ask = (upTunnel: number, protocol: string, peer = bench.one): Promise<unknown> =>
      bench.control.addRule(peer, {
        ...{ upTunnel, control: '', protocol, symbol: 's', interface: 'eth0', claim: false, credit: 0, scope: 'in' },
        vip: VIP,
      });
    await ask(1, `tcp:${VIP}:80`);
    await t.rejects(ask(2, `udp:${VIP}:80`), { code: 'not-permitted' });
    await t.rejects(ask(2, `tcp:${VIP}:80`, bench.two), { code: 'not-permitted' });
    await t.rejects(ask(2, `tcp:${VIP}:7440`), { code: 'claimed' }, 'control devices come there');
    await t.rejects(ask(1, `tcp:${VIP}:81`), { code: 'bad-message' });
    t.equal(await bench.claim('tcp:80', bench.two), 'claimed');
    t.type(await bench.claim('tcp:90', bench.two), 'number');
    await t.rejects(ask(2, `tcp:${VIP}:90`), { code: 'claimed' });
    bench.convert = () => Promise.reject(new FwdfsError('host-lacks', 'no nft'));
    await t.rejects(ask(3, `tcp:${VIP}:82`), { code: 'host-lacks' });
    t.same(bench.rules, ['tcp:10.9.0.1:80 ctl1 vip', 'tcp:90 ctl2 claim']);
    bench.control.removeVip(bench.one, Buffer.from([10, 9, 0, 2]));
    t.equal(bench.rules.length, 2);
    bench.control.removeVip(bench.one, Buffer.from([10, 9, 0, 1]));
    t.same(bench.rules, ['tcp:90 ctl2 claim']);
    t.same(bench.converted, ['+ tcp:10.9.0.1:80', '- tcp:10.9.0.1:82', '- tcp:10.9.0.1:80']);
  },
);

t.test('a socket of a virtual IF and a claim exclude each other, sockets share', { skip: withoutRoot }, async (t) => {
  const netns = new Netns('transfer');
  t.teardown(() => netns.remove());
  await netns.within(async () => {
    const bench = new Bench([line('*', ['read', 'write', 'vif'])]);
    const tunnel = { control: '', symbol: 'v', interface: 'eth0', protocol: '*' };
    const vif = { kind: 'tap', upTunnel: 900, credit: 1 } as const;
    const { downTunnel } = await bench.control.generateVif(bench.one, { ...tunnel, vif }, vif);
    const socket = (upTunnel: number, protocol: string, peer = bench.one): Promise<unknown> =>
      bench.control.addRule(peer, {
        ...{ upTunnel, control: '', protocol, symbol: 's', interface: 'eth0', claim: false, credit: 1, scope: 'in' },
        vif: downTunnel,
      });
    await socket(901, 'udp:53');
    await socket(902, 'udp:53');
    t.equal(await bench.claim('udp:53', bench.two), 'claimed');
    t.type(await bench.claim('udp:54', bench.two), 'number');
    await t.rejects(socket(903, 'udp:54'), { code: 'claimed' });
    for (const own of ['tcp:7440', 'tcp:10.0.0.1:7440', 'tcp']) {
      await t.rejects(socket(903, own), { code: 'claimed' }, `${own}: control devices come there`);
    }
    await t.rejects(socket(904, 'udp:55', bench.two), { code: 'no-such-vif' }, 'the vif of another control device');
    await t.rejects(socket(900, 'udp:55'), { code: 'bad-message' }, 'the way back has that up tunnel');
    bench.control.deleteRule(bench.one, { upTunnel: 900 });
    t.same(
      bench.distribution.rulesOf(bench.one).map(({ mode }) => mode),
      ['flow', 'socket', 'socket'],
      'a way back is not deleted as a rule',
    );
    bench.control.deleteTunnel(bench.one, { downTunnel });
    t.same(bench.distribution.rulesOf(bench.one), [], 'all goes with the tunnel');
    await bench.vifs.remove();
  });
});

t.test('a virtual IF needs the right, and a tap Ethernet', async (t) => {
  const bench = new Bench([line('ctl1', ['read', 'write']), line('ctl2', ['vif'])]);
  bench.linkType = 'raw';
  const vif = { kind: 'tap', upTunnel: 900, credit: 1 } as const;
  const fields = { control: '', symbol: 'v', interface: 'eth0', protocol: '*', vif };
  await t.rejects(bench.control.generateVif(bench.two, fields, vif), { code: 'bad-option' });
  bench.linkType = 'ethernet';
  await t.rejects(bench.control.generateVif(bench.one, fields, vif), { code: 'not-permitted' });
  t.equal(bench.reception.countOf(bench.one) + bench.distribution.countOf(bench.one), 0);
});

t.test('a claim needs the right to read and one to write, for its protocol address', async (t) => {
  const cases: [rights: Right[], protocols: string[], claimed: boolean][] = [
    [['read', 'write'], ['*'], true],
    [['read', 'inject'], ['udp:53'], true],
    [['read'], ['*'], false],
    [['write', 'inject'], ['*'], false],
    [['read', 'inject'], ['udp:54'], false],
    [['read', 'inject'], ['udp:10.0.0.1:53'], false],
  ];
  for (const [rights, protocols, claimed] of cases) {
    const bench = new Bench([line('ctl1', rights, protocols)]);
    const got = await bench.claim('udp:53');
    t.equal(got, claimed ? 1 : 'not-permitted', `${rights.join()} for ${protocols.join()}`);
    t.same(bench.rules, claimed ? ['udp:53 ctl1 claim'] : []);
    t.same(bench.told, claimed ? [['eth0:udp:53']] : []);
  }
});

t.test('a claim that meets another one is refused, to anybody; on another interface it is not', async (t) => {
  const bench = new Bench();
  t.equal(await bench.claim('udp:53'), 1);
  for (const peer of [bench.one, bench.two]) {
    for (const protocol of ['udp:53', 'udp:10.0.0.1:53', 'udp', 'ether:0x0800', '*']) {
      t.equal(await bench.claim(protocol, peer), 'claimed', protocol);
    }
  }
  await t.rejects(
    bench.control.addRule(bench.two, {
      ...{ upTunnel: 99, control: '', protocol: 'udp', symbol: 's', interface: 'eth0', scope: 'in', claim: true },
      credit: 1,
    }),
    /^eth0:udp is claimed by ctl1 \(udp:53\): /,
  );
  t.type(await bench.claim('udp:54', bench.two), 'number');
  t.type(await bench.claim('*', bench.two, 'eth1'), 'number');
  t.type(await bench.add('udp:53', { peer: bench.two }), 'number', 'a copy is no claim');
  t.same(bench.rules, ['* ctl2 claim', 'udp:53 ctl1 claim', 'udp:53 ctl2 copy', 'udp:54 ctl2 claim']);
});

t.test('of two claims at the same time the first gets it, however long the kernel takes', async (t) => {
  const bench = new Bench();
  const done = bench.hold();
  const first = bench.claim('udp:53');
  t.equal(await bench.claim('udp:53', bench.two), 'claimed');
  done();
  t.equal(await first, 1);
});

t.test('if the kernel cannot be told the claim fails and leaves nothing', async (t) => {
  for (const [error, code] of [
    [new SystemError('nft', constants.errno.EPERM, 'said "no"'), 'host-lacks'],
    [new FwdfsError('host-lacks', 'the nft command is not installed'), 'host-lacks'],
  ] as const) {
    const bench = new Bench();
    bench.quieten = () => Promise.reject(error);
    t.equal(await bench.claim('udp:53'), code);
    t.same(bench.rules, []);
    bench.quieten = () => Promise.resolve();
    t.type(await bench.claim('udp:53'), 'number');
  }
});

t.test('an interface that nft cannot name is refused before others suffer', async (t) => {
  const bench = new Bench();
  t.equal(await bench.claim('udp:53', bench.one, 'eth*'), 'bad-config');
  t.same([bench.rules, bench.told], [[], []]);
});

t.test('a port of a bridge cannot be claimed, and is copied as ever', async (t) => {
  const bench = new Bench();
  bench.master = 7;
  t.equal(await bench.claim('udp:53'), 'not-claimable');
  t.type(await bench.add('udp:53'), 'number');
  t.same([bench.rules, bench.told], [['udp:53 ctl1 copy'], []]);
  bench.master = 0;
  t.type(await bench.claim('udp:53'), 'number');
});

t.test('a claim that ends is told to the kernel, and free for the next', async (t) => {
  const bench = new Bench();
  t.equal(await bench.claim('udp:53'), 1);
  t.same(bench.control.deleteRule(bench.one, { upTunnel: 1 }), { upTunnel: 1 });
  t.same(bench.told, [['eth0:udp:53'], []]);
  t.equal(await bench.claim('udp', bench.two), 2);
  bench.control.removeAll(bench.two);
  t.same(bench.told.at(-1), []);
  t.equal(await bench.claim('*'), 3);
});

t.test('a session that ends while its claim is being set has none', async (t) => {
  const bench = new Bench();
  const done = bench.hold();
  const claim = bench.claim('udp:53');
  bench.control.removeAll(bench.one);
  done();
  t.equal(await claim, 'not-permitted');
  t.same([bench.rules, bench.told.at(-1)], [[], []]);
});

t.test(`a forwarder has at most ${MAX_CLAIMS} claims`, async (t) => {
  const bench = new Bench();
  for (let port = 1; port <= MAX_CLAIMS; port += 1) await bench.claim(`udp:${port}`);
  t.equal(await bench.claim('tcp:1', bench.two), 'too-many');
  bench.control.deleteRule(bench.one, { upTunnel: 1 });
  t.type(await bench.claim('tcp:1', bench.two), 'number');
});

t.test('other permissions: rules without their right go, claims with them, and down tunnels follow', async (t) => {
  const bench = new Bench([line('ctl1', ['read', 'inject'])]);
  const { control, one, permissions, reception } = bench;
  const copy = await bench.add('udp:53');
  const claim = await bench.claim('udp:54');
  const arp = await bench.add('arp');
  const tunnel = control.generateTunnel(one, { control: '', symbol: 's', interface: 'eth0', protocol: '*' }).downTunnel;
  const right = (): string | undefined => reception.get(one, tunnel)?.right;
  t.same([control.review(one), right()], [[], 'inject'], 'the same permissions change nothing');

  permissions.replace([line('ctl1', ['read'])]);
  t.same([control.review(one), right()], [[claim], 'none'], 'a claim needs the right to answer');
  t.same(bench.told.at(-1), []);
  permissions.replace([line('ctl1', ['read', 'write'], ['udp:53'])]);
  t.same([control.review(one), right()], [[arp], 'none'], 'the tunnel was for everything');
  permissions.replace([line('ctl1', ['write'])]);
  t.same([control.review(one), right()], [[copy], 'write']);
  permissions.replace(EVERYTHING);
  t.same([control.review(one), right()], [[], 'inject']);
  t.same(bench.rules, [], 'what went does not come back by itself');
});

t.test('a claim that is withdrawn while it is being set fails', async (t) => {
  const bench = new Bench();
  const done = bench.hold();
  const claim = bench.claim('udp:53');
  bench.permissions.replace([]);
  t.same(bench.control.review(bench.one), [1]);
  done();
  t.equal(await claim, 'not-permitted');
});

t.test(
  'another link type: rules for the one before go, claims with them, and down tunnels stay what they are',
  async (t) => {
    const bench = new Bench();
    const { control, one, two, reception } = bench;
    await bench.add('udp:53');
    await bench.claim('udp:54', two);
    await bench.add('udp:53', { on: 'eth1' });
    const tunnel = control.generateTunnel(one, {
      control: '',
      symbol: 's',
      interface: 'eth0',
      protocol: '*',
    }).downTunnel;
    t.same(control.linkTypeIs('eth0', 'ethernet'), [], 'the same link type changes nothing');
    const ended = control.linkTypeIs('eth0', 'raw').map(({ peer, upTunnel }) => `${peer.identity} ${upTunnel}`);
    t.same(ended, ['ctl1 1', 'ctl2 2']);
    t.same([bench.rules, bench.told.at(-1)], [['udp:53 ctl1 copy'], []], 'another interface keeps its own');
    bench.linkType = 'raw';
    await bench.add('udp:55');
    t.same(control.linkTypeIs('eth0', 'raw'), [], 'a rule is for what the interface was when it was set');
    t.equal(reception.get(one, tunnel)?.linkType, 'ethernet');
  },
);

t.test('whoever takes an interface for another link type gets neither rule nor tunnel', async (t) => {
  const bench = new Bench();
  const { control, one } = bench;
  const rule = { upTunnel: 1, control: '', protocol: '*', symbol: 's', interface: 'eth0', claim: false, credit: 1 };
  const tunnel = { control: '', symbol: 's', interface: 'eth0', protocol: '*' };
  await t.rejects(control.addRule(one, { ...rule, scope: 'in', linkType: 101 }), { code: 'interface-gone' });
  t.throws(() => control.generateTunnel(one, { ...tunnel, linkType: 101 }), { code: 'interface-gone' });
  t.same([bench.rules, bench.reception.tunnelsOf(one)], [[], []]);
  await control.addRule(one, { ...rule, scope: 'in', linkType: 1 });
  t.type(control.generateTunnel(one, { ...tunnel, linkType: 1 }).downTunnel, 'number');
});
