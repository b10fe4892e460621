/** BIRD for tests: one protocol on one interface, and a route of its own to tell of. */
import { join } from 'node:path';
import type { InteropLab } from './interop.js';
import type { Daemon } from './lab.js';
import type { Netns } from './netns.js';

export type RoutingProtocol = 'ospf' | 'rip';

/** Hello 1 s, or RIP updates every 3 s. @param route what it tells the other of */
export function birdConfig(protocol: RoutingProtocol, routerId: string, device: string, route: string): string {
  const of = {
    ospf: `protocol ospf v2 { ipv4 { import all; export where source = RTS_STATIC; };
  area 0 { interface "${device}" { type broadcast; hello 1; dead 4; wait 4; }; }; }`,
    rip: `protocol rip { ipv4 { import all; export where source = RTS_STATIC; };
  interface "${device}" { mode multicast; version 2; update time 3; timeout time 30; }; }`,
  };
  return `log stderr all;
router id ${routerId};
protocol device { scan time 1; }
protocol kernel { ipv4 { export where source != RTS_STATIC; }; }
protocol static { ipv4; route ${route} blackhole; }
${of[protocol]}
`;
}

export class BirdEnd {
  readonly daemon: Daemon;
  private readonly socket: string;
  private readonly lab: InteropLab;

  constructor(lab: InteropLab, netns: Netns, name: string, config: string) {
    this.lab = lab;
    const file = lab.file(`${name}.bird`, config);
    this.socket = join(lab.lab.folder, `${name}.s`);
    const pid = join(lab.lab.folder, `${name}.pid`);
    this.daemon = lab.daemon(netns, ['bird', '-f', '-c', file, '-s', this.socket, '-P', pid]);
  }

  /** What birdc says; empty while it can't be asked. */
  async ask(command: string): Promise<string> {
    const result = await this.lab.on(this.lab.lab.ctl, ['birdc', '-s', this.socket, ...command.split(' ')]);
    return result.status === 0 ? result.stdout.toString() : '';
  }
}
