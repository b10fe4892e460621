/**
 * The order of registration and use, Fig. 9 and Fig. 10, as the forwarder sees it.
 *
 *     a forwarder that records            fwdfs mount
 *     every message, in this process <=== ws+unix:/… ===> control device, a child
 *
 *     registration  interface use request (S211), tunnel generation request (S803, S804) -> response (S806, S807)
 *     open()        transfer request (S1003 to S1006) -> response (S1007) -> open() returns
 *     close()       transfer deletion request (S902 to S905)
 *
 * Source text: Fig. 1, 6, 8 to 10, 24 to 27; S201 to S226, S801 to S807, S1003 to S1007.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { type ErrorCode, ERRORS, errnoName, FwdfsError } from '../../src/base/errors.js';
import { silent } from '../../src/base/log.js';
import type { Answer, MessageArgs } from '../../src/tunnel/messages.js';
import { TunnelServer } from '../../src/tunnel/server.js';
import type { Session, SessionHandler } from '../../src/tunnel/session.js';
import { Daemon, FWDFS, Lab, Program, run, until } from '../support/lab.js';
import { withoutRoot } from '../support/netns.js';

const ATTRIBUTES = {
  index: 2,
  linkType: 1,
  address: '02:00:00:00:00:02',
  mtu: 1500,
  operstate: 'up',
  flags: 0x1003,
  speed: 1000,
  inet: [],
  inet6: [],
};

/** A forwarder that answers as one would, and writes down what it was asked. */
class Recorder implements SessionHandler {
  readonly asked: MessageArgs[] = [];
  /** Resolves what an answer to a transfer request waits for. */
  gate: Promise<void> = Promise.resolve();
  refusal: ErrorCode | null = null;
  private tunnels = 0;

  /** Names of the messages since the last call. */
  take(): string[] {
    return this.asked.splice(0).map(([type]) => type);
  }

  active(session: Session): void {
    session.send('interface-list', { interfaces: ['eth0'] });
  }

  suspended(): void {
    // Nothing is kept for it.
  }

  closed(): void {
    // Nothing is kept for it.
  }

  frames(): void {
    // No test of this file writes.
  }

  sent(): [] {
    return [];
  }

  received(): [] {
    return [];
  }

  async message(_session: Session, ...message: MessageArgs): Promise<Answer> {
    this.asked.push(message);
    const [type, fields] = message;
    switch (type) {
      case 'interface-use-request':
        return {
          interface: fields.interface,
          attributes: ATTRIBUTES,
          rights: ['read', 'inject'],
          protocols: ['*'],
        };
      case 'tunnel-generation-request':
        if (this.refusal !== null) throw new FwdfsError(this.refusal, 'refused by the test');
        this.tunnels += 1;
        return {
          downTunnel: this.tunnels,
          forwarder: 'recorder',
          symbol: fields.symbol,
          interface: fields.interface,
          window: 1 << 20,
        };
      case 'transfer-request':
        await this.gate;
        if (this.refusal !== null) throw new FwdfsError(this.refusal, 'refused by the test');
        return { upTunnel: fields.upTunnel };
      case 'transfer-deletion-request':
        return { upTunnel: fields.upTunnel };
      default:
        return undefined;
    }
  }
}

t.test('registration and use', { skip: withoutRoot, timeout: 60_000 }, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), `fwdfst-${process.pid}-`));
  const mountPoint = join(folder, 'fwd');
  mkdirSync(mountPoint);
  const recorder = new Recorder();
  const url = `ws+unix:${join(folder, 'fwd1.sock')}`;
  const server = new TunnelServer({
    name: 'recorder',
    log: silent,
    handler: recorder,
    authenticate: (hello) => hello.name,
  });
  await server.listen([url]);
  const control = new Daemon([process.execPath, FWDFS, 'mount', '-f', '-o', 'name=ctl1', `fwd1=${url}`, mountPoint]);
  const programs: Program[] = [];
  t.teardown(async () => {
    for (const program of programs) program.child.kill('SIGKILL');
    await control.end();
    await server.close();
    await run(['umount', '-l', mountPoint]);
    rmSync(folder, { recursive: true, force: true });
  });
  const open = (name: string, mode = '<'): Program => {
    const words = ['/bin/bash', '-c', `exec 3${mode}"$1" && echo open >&2 && read -r line`, '-'];
    const program = new Program([...words, join(mountPoint, 'fwd1', name)], null);
    programs.push(program);
    return program;
  };
  await control.until(/"mounted"/);

  await t.test('a symbol is registered with a down tunnel before anything opens it, and without a rule', async (t) => {
    const [use, generation, ...rest] = recorder.asked.splice(0);
    t.same(rest, [], 'no transfer request');
    t.match(use, ['interface-use-request', { interface: 'eth0' }], 'S211');
    t.match(generation, ['tunnel-generation-request', { interface: 'eth0', symbol: 'eth0', protocol: '*' }], 'S804');
    const table = await run(['cat', join(mountPoint, '.tables/transmission')]);
    t.match(table.stdout.toString(), /\nfwd1\/eth0\t1\tfwd1\teth0\t0\t0\n$/, 'S807');
  });

  await t.test('open() asks for the rule, and returns when the forwarder has it', async (t) => {
    let opened: () => void = () => undefined;
    recorder.gate = new Promise((resolve) => {
      opened = resolve;
    });
    const reader = open('eth0:udp:520');
    await until(() => recorder.asked.length > 0);
    const [type, fields] = recorder.asked.splice(0)[0] ?? [];
    t.equal(type, 'transfer-request');
    t.match(fields, { interface: 'eth0', protocol: 'udp:520', scope: 'in', claim: false });
    const own = await run(['cat', join(mountPoint, '.tables/reception')]);
    const id = String(fields !== undefined && 'upTunnel' in fields ? fields.upTunnel : 0);
    t.match(own.stdout.toString(), new RegExp(`\\n${id}\\tfwd1/eth0:udp:520\\t`), 'S1005 comes before S1006');
    t.equal(reader.stderr, '', 'open() waits');
    opened();
    await reader.untilStderr(/open/);
    const second = open('eth0:udp:520');
    await second.untilStderr(/open/);
    t.same(recorder.take(), [], 'the second opener needs nothing of the forwarder');
    await second.kill();
    await reader.kill();
    await until(() => recorder.asked.length > 0);
    const deletion = recorder.asked.splice(0);
    t.match(deletion, [['transfer-deletion-request', { upTunnel: Number(id) }]], 'S903, once');
  });

  await t.test('a writer asks for no rule, and takes the tunnel that is there', async (t) => {
    const writer = open('eth0', '>');
    await writer.untilStderr(/open/);
    t.same(recorder.take(), []);
    const second = open('eth0', '>');
    await second.untilStderr(/open/);
    t.same(recorder.take(), ['tunnel-generation-request'], 'a second one gets its own');
    await writer.kill();
    await second.kill();
    const both = open('eth0:arp', '<>');
    await both.untilStderr(/open/);
    t.same(recorder.take().sort(), ['transfer-request', 'tunnel-generation-request']);
    await both.kill();
    await until(() => recorder.asked.length > 0);
    t.same(recorder.take(), ['transfer-deletion-request']);
  });

  await t.test('an up tunnel id is never used twice', async (t) => {
    const ids: number[] = [];
    for (let i = 0; i < 5; i++) {
      const reader = open('eth0');
      await reader.untilStderr(/open/);
      await reader.kill();
      await until(() => recorder.asked.length === 2);
      for (const [type, fields] of recorder.asked.splice(0)) if (type === 'transfer-request') ids.push(fields.upTunnel);
    }
    t.equal(new Set(ids).size, 5);
  });

  await t.test('a signal ends an open() that waits, and its rule is taken back', async (t) => {
    let opened: () => void = () => undefined;
    recorder.gate = new Promise((resolve) => {
      opened = resolve;
    });
    const reader = open('eth0:arp');
    await until(() => recorder.asked.length === 1);
    t.comment(`SIGINT: ${await reader.kill('SIGINT')} ms`);
    opened();
    await until(() => recorder.asked.length === 2);
    t.same(recorder.take(), ['transfer-request', 'transfer-deletion-request']);
  });

  for (const code of ['not-permitted', 'no-such-interface', 'bad-protocol-address', 'too-many'] as const) {
    await t.test(
      `a forwarder that refuses with ${code} makes open() fail with ${errnoName(ERRORS[code].errno)}`,
      async (t) => {
        recorder.refusal = code;
        const script = `
import os, sys, errno
for flags in (os.O_RDONLY, os.O_RDWR):
    try: os.open(sys.argv[1], flags)
    except OSError as e: print(errno.errorcode[e.errno])
`;
        const { stdout } = await run(['python3', '-c', script, join(mountPoint, 'fwd1/eth0:icmp')]);
        recorder.refusal = null;
        t.equal(stdout.toString(), `${errnoName(ERRORS[code].errno)}\n`.repeat(2));
        t.equal(recorder.take().includes('transfer-deletion-request'), false, 'there is nothing to take back');
        const own = await run(['cat', join(mountPoint, '.tables/reception')]);
        t.equal(own.stdout.toString().split('\n').length, 2, 'no row is left');
      },
    );
  }
});

t.test('registration at a forwarder of ours', { skip: withoutRoot, timeout: 60_000 }, async (t) => {
  const lab = await Lab.start();
  t.teardown(() => lab.stop());
  const [down] = await lab.table('reception');
  const [own] = await lab.ownTable('transmission');
  t.same(own?.slice(0, 4), ['fwd1/eth0', down?.[0], 'fwd1', 'eth0'], 'both ends of the down tunnel agree');
  t.same(down?.slice(1, 7), ['eth0', '*', 'inject', 'ctl1', '10.8.0.2', 'active']);
  t.same(await lab.table('distribution'), []);
  lab.fwd.run('ip link add eth1 type veth peer name eth2');
  t.same((await lab.ownTable('transmission')).length, 1, 'an interface that is not offered is not registered');
  lab.fwd.run('ip link del eth0');
  await until(async () => (await lab.ownTable('transmission')).length === 0);
  t.same(await lab.table('reception'), [], 'an interface that goes takes its tunnels along');
});
