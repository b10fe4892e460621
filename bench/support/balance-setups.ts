/**
 * Ways to share one address between the web servers of two control devices, for `npm run bench -- balance`: ours, and what
 * is there without us. Each is set up for a round and taken back after it; servers and the lab are the same.
 */
import { type BalanceLab, type Mode, VIP } from '../../test/support/balance.js';
import type { Daemon } from '../../test/support/lab.js';
import { until } from '../../test/support/lab.js';

export interface Setup {
  /** On the command line. */
  readonly key: string;
  readonly name: string;
  /** Answers at VIP, port 80, when it resolves. @throws where this version of fwdfs lacks it */
  begin(lab: BalanceLab): Promise<Running>;
}

export interface Running {
  /** Processes between client and server, by name. */
  readonly pids: ReadonlyMap<string, number>;
  end(): Promise<void>;
}

/** Virtual IFs or virtual IP addresses of ours. The servers are there already, hence --expose. */
function ours(key: string, name: string, mode: Mode): Setup {
  return {
    key,
    name,
    async begin(lab) {
      const pids = new Map([['forwarder', lab.lab.forwarder?.pid ?? 0]]);
      for (const device of lab.devices) pids.set(device.name, lab.lab.daemonOf(device.name).pid);
      const end = async (): Promise<void> => {
        await lab.withdraw(mode);
        await lab.untilRules(0);
      };
      try {
        await lab.offer(mode, '--expose', 'tcp:80');
        await lab.untilRules(lab.devices.length);
      } catch (error) {
        await lab.withdraw(mode).catch(() => undefined);
        throw error;
      }
      return { pids, end };
    },
  };
}

/** The way back for what the forwarder's kernel converts without us: its network by way of the forwarder. */
async function throughForwarder(lab: BalanceLab): Promise<() => Promise<void>> {
  const { fwd } = lab.lab;
  fwd.run('sysctl -qw net.ipv4.ip_forward=1');
  for (const { netns, forwarder } of lab.devices) netns.run(`ip route add 10.9.0.0/24 via ${forwarder}`);
  return async () => {
    for (const { netns, forwarder } of lab.devices) netns.run(`ip route del 10.9.0.0/24 via ${forwarder}`);
    fwd.run('sysctl -qw net.ipv4.ip_forward=0');
  };
}

const nftables: Setup = {
  key: 'nftables',
  name: 'nftables DNAT, jhash',
  async begin(lab) {
    const { fwd } = lab.lab;
    const routes = await throughForwarder(lab);
    const members = lab.devices.map(({ address }, index) => `${index} : ${address}`).join(' , ');
    fwd.run('nft add table ip plain');
    fwd.run('nft add chain ip plain prerouting { type nat hook prerouting priority -100 ; }');
    fwd.run(
      `nft add rule ip plain prerouting iifname eth0 ip daddr ${VIP} tcp dport 80 dnat to jhash ip saddr . tcp sport mod ${lab.devices.length} map { ${members} }`,
    );
    const end = async (): Promise<void> => {
      fwd.run('nft delete table ip plain');
      await routes();
    };
    return { pids: new Map(), end };
  },
};

function haproxy(mode: 'tcp' | 'http'): Setup {
  return {
    key: `haproxy-${mode}`,
    name: `HAProxy, mode ${mode}`,
    async begin(lab) {
      const servers = lab.devices.map(({ name, address }) => `  server ${name} ${address}:80`).join('\n');
      // Splicing is what moves bulk fastest here; the rest is as Debian has it.
      const config = lab.interop.file(
        'haproxy.cfg',
        `defaults
  mode ${mode}
  option splice-auto
  timeout connect 5s
  timeout client 50s
  timeout server 50s
listen web
  bind ${VIP}:80
  balance roundrobin
${servers}
`,
      );
      const daemon: Daemon = lab.interop.daemon(lab.lab.fwd, ['haproxy', '-db', '-f', config]);
      await until(async () => {
        if (daemon.ended) throw new Error(daemon.log);
        return lab.lab.fwd.run('ss -Hltn sport = :80') !== '';
      });
      return { pids: new Map([['haproxy', daemon.pid]]), end: () => daemon.end() };
    },
  };
}

/** Encapsulation comes last in a round: while closed flows are remembered, the forwarder still looks at what comes. */
export const SETUPS: readonly Setup[] = [
  ours('vip', 'fwdfs virtual IP', 'vip'),
  nftables,
  haproxy('tcp'),
  haproxy('http'),
  ours('encapsulation', 'fwdfs encapsulation', 'socket'),
];
