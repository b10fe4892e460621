/** A mirror of an interface in a network namespace of its own, for tests. */
import { execFileSync } from 'node:child_process';
import { type Logger, silent } from '../../src/base/log.js';
import { VifMirror } from '../../src/control/vif-mirror.js';
import type { TunSink } from '../../src/sys/tun.js';
import type { Attributes, VifKind } from '../../src/tunnel/messages.js';
import { Netns } from './netns.js';

const UP = 0x1043;
export const DEVICE = 'fwd1-eth0';

/** What the forwarder tells of eth0. */
export const ETH0: Attributes = {
  index: 2,
  linkType: 1,
  address: '02:00:00:00:00:09',
  mtu: 1400,
  operstate: 'up',
  flags: UP,
  speed: -1,
  inet: ['10.9.0.1/24', '10.9.0.7/24'],
  inet6: ['fd09::1/64', 'fe80::9/64'],
  routes: ['default via 10.9.0.254', '10.2.0.0/16 via 10.9.0.7', 'default via fe80::1'],
};
export const ETH0_DOWN: Attributes = { ...ETH0, operstate: 'down', flags: UP & ~1 };

/** Keeps what leaves through the device. */
export class Frames implements TunSink {
  readonly hasRoom = true;
  readonly seen: Buffer[] = [];
  readonly errors: number[] = [];
  onFrame: (frame: Buffer) => void = () => undefined;

  frame(buf: Buffer, _vnet: number, offset: number, length: number): void {
    const frame = Buffer.from(buf.subarray(offset, offset + length));
    this.seen.push(frame);
    this.onFrame(frame);
  }

  batchEnd(): void {}

  failed(errno: number): void {
    this.errors.push(errno);
  }
}

export interface MirrorLab {
  readonly netns: Netns;
  readonly mirror: VifMirror;
  readonly frames: Frames;
  /** Words of a command, run inside without a limit of blanks. @returns what it writes */
  readonly run: (...words: string[]) => string;
}

interface Teardown {
  teardown(undo: () => unknown): void;
}

/** @param before command lines that are run in the namespace first */
export async function mirrorLab(
  t: Teardown,
  options: { apart?: boolean; kind?: VifKind; log?: Logger; before?: readonly string[] } = {},
): Promise<MirrorLab> {
  const netns = new Netns('vif');
  t.teardown(() => netns.remove());
  netns.run('ip link set lo up');
  for (const line of options.before ?? []) netns.run(line);
  const mirror = await makeMirror(netns, options);
  t.teardown(() => mirror.remove());
  const frames = new Frames();
  mirror.device.sink = frames;
  mirror.device.start();
  const run = (...words: string[]): string => {
    const [command = '', ...args] = [...netns.prefix, ...words];
    return execFileSync(command, args, { stdio: 'pipe', timeout: 20_000 }).toString();
  };
  return { netns, mirror, frames, run };
}

export function makeMirror(
  netns: Netns,
  {
    apart = false,
    kind = 'tap',
    log = silent,
    name = DEVICE,
  }: { apart?: boolean; kind?: VifKind; log?: Logger; name?: string } = {},
): Promise<VifMirror> {
  return VifMirror.create({ control: 'ctl1', symbol: 'fwd1/eth0', name, kind, netns: netns.name, apart, log });
}

/** Everything in a namespace that a mirror could have put there. */
export function everything(netns: Netns): string {
  const lines = ['ip -o link', 'ip -o addr', 'ip rule', 'ip -6 rule', 'ip route show table all'];
  return [...lines, 'ip -6 route show table all', 'nft list tables'].map((line) => netns.run(line)).join('\n');
}
