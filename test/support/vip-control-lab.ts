/**
 * A control device with virtual IP addresses, beside a forwarder that is made by hand: messages are answered by the fake
 * forwarder, addresses are converted by nft and ip.
 *
 *     client ns                     forwarder ns                        control ns: the thread, Vips
 *     n0 10.9.0.2/24 ------ eth0 10.9.0.1/24 | c0 10.8.0.1/24 ------ f0 10.8.0.2/24
 *        fd09::2/64              fd09::1/64  |    fe80::1               fe80::2
 *                                10.9.0.7/24 |
 */
import type { Test } from 'tap';
import { silent } from '../../src/base/log.js';
import { LinkAddresses } from '../../src/control/link-addresses.js';
import { NamespaceSockets } from '../../src/control/namespace-sockets.js';
import { canonicalAddress, vipRequest } from '../../src/control/vip-commands.js';
import { parseExpose } from '../../src/control/vif-commands.js';
import { Vips } from '../../src/control/vips.js';
import { parseProtocolAddress } from '../../src/packet/protocol-address.js';
import { FakeForwarder, type LinkEnd, startLink } from './fake-forwarder.js';
import { keepLog } from './log.js';
import { connectVeth, Netns } from './netns.js';
import { SocketProcess } from './sockets.js';

export class VipControlLab {
  readonly client = new Netns('-vc-cli');
  readonly fwd = new Netns('-vc-fwd');
  readonly ctl = new Netns('-vc-ctl');
  forwarder!: FakeForwarder;
  end!: LinkEnd;
  vips!: Vips;
  readonly log = keepLog();
  /** In the control device's namespace. */
  server!: SocketProcess;
  /** In the client's. */
  user!: SocketProcess;

  /** The thread stays in the control device's namespace until the test is over. */
  static async start(t: Test): Promise<VipControlLab> {
    const lab = new VipControlLab();
    t.teardown(() => {
      for (const netns of [lab.client, lab.fwd, lab.ctl]) netns.remove();
    });
    lab.connect();
    const { fwd } = lab;
    lab.forwarder = await fwd.within(() => FakeForwarder.start(t, undefined, '10.8.0.1'));
    const mac = /link\/ether (\S+)/.exec(fwd.run('ip -o link show c0'))?.[1] ?? '';
    lab.forwarder.place = (vip) => ({ nextHop: vip.includes(':') ? 'fe80::1' : '10.8.0.1', link: mac });
    lab.forwarder.onConversion = ({ vip, sender, nextHop }) => lab.convert(vip, sender, nextHop);
    lab.forwarder.onTransfer = ({ vip, control, protocol }) => {
      if (vip !== undefined) lab.distribute(vip, control, protocol);
    };
    t.teardown(lab.ctl.enter());
    lab.end = startLink(t, lab.forwarder.url);
    await lab.end.link.settled;
    lab.vips = lab.makeVips('ctl1');
    t.teardown(() => lab.vips.close());
    lab.server = await SocketProcess.start(lab.ctl);
    lab.user = await SocketProcess.start(lab.client);
    t.teardown(async () => {
      await lab.server.kill();
      await lab.user.kill();
    });
    return lab;
  }

  private connect(): void {
    connectVeth(
      { netns: this.client, name: 'n0', addresses: ['10.9.0.2/24', 'fd09::2/64'] },
      { netns: this.fwd, name: 'eth0', addresses: ['10.9.0.1/24', '10.9.0.7/24', 'fd09::1/64'] },
    );
    connectVeth(
      { netns: this.fwd, name: 'c0', addresses: ['10.8.0.1/24', 'fe80::1/64'] },
      { netns: this.ctl, name: 'f0', addresses: ['10.8.0.2/24', 'fe80::2/64'] },
    );
    this.fwd.run('sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1');
    for (const line of [
      'add table inet hand',
      'add chain inet hand to { type nat hook prerouting priority dstnat ; }',
      'add chain inet hand from { type nat hook postrouting priority srcnat ; }',
    ]) {
      this.fwd.run(`nft ${line}`);
    }
  }

  /** One more control device of the same namespace. */
  makeVips(control: string): Vips {
    const addresses = new LinkAddresses(silent);
    addresses.follow(this.end.link, this.forwarder.url);
    return new Vips({ control, sockets: new NamespaceSockets(silent), addresses, log: this.log });
  }

  private convert(vip: string, sender: string, nextHop: string): void {
    const ip = vip.includes(':') ? 'ip6' : 'ip';
    this.fwd.run(`ip route replace ${sender} via ${nextHop} dev c0`);
    this.fwd.run(`nft add rule inet hand from ${ip} saddr ${sender} snat ${ip} to ${vip}`);
  }

  private distribute(vip: string, sender: string, protocol: string): void {
    const ip = vip.includes(':') ? 'ip6' : 'ip';
    const { protocols, portLow } = parseProtocolAddress(protocol);
    for (const number of protocols) {
      this.fwd.run(
        `nft add rule inet hand to ${ip} daddr ${vip} meta l4proto ${number} th dport ${portLow} dnat ${ip} to ${sender}`,
      );
    }
  }

  add(address: string, { sender, expose }: { sender?: string; expose?: string } = {}): Promise<void> {
    const exposed = expose === undefined ? null : parseExpose(expose);
    return this.vips.add(this.end.link, vipRequest(address, sender ?? null, exposed));
  }

  remove(address: string): Promise<void> {
    return this.vips.remove(this.end.link, canonicalAddress(address));
  }

  /** `protocol state` of each rule. */
  get rules(): string[] {
    return this.vips.ruleRows().map(([, protocol, state]) => `${protocol} ${state}`);
  }
}
