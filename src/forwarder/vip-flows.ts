/**
 * Connections of virtual IP addresses that the kernel knows (connection tracking), when the control device that has them
 * takes no more, or is lost.
 *
 *     forget     the port was closed, or its control device is away: what nobody answered yet, and what has no connection
 *                (UDP), is placed anew with its next packet. TCP that goes on goes on. Also what the host itself had
 *                of a port that is converted from now on
 *     giveUp     the control device is lost: nothing of it goes on. Each TCP end learns that: what it still sends is
 *                answered with an RST (set lost4, lost6 of vip-ruleset.ts), and so that an idle one sends something it
 *                gets a SYN, to which its answer is an acknowledgment (RFC 5961, 4.2) that says where it stands
 */
import { describe } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { IPV4_ADDRESS_BYTES } from '../packet/ip-address.js';
import { IPPROTO_SCTP, IPPROTO_TCP } from '../packet/protocol-address.js';
import { TCP_FLAG, tcpSegment } from '../packet/tcp-segment.js';
import { CT_SCTP, CT_TCP, type ConntrackEntry, deleteEntries, listEntries } from '../sys/conntrack.js';
import { ELEMENTS_PER_CHANGE, NftSets, portPart, setKey } from '../sys/nft-sets.js';
import { RawSender } from '../sys/raw-sender.js';

/** One end of a connection that is given up, and ours: the virtual IP address. */
interface LostConnection {
  readonly remote: Buffer;
  readonly remotePort: number;
  readonly vip: Buffer;
  readonly port: number;
  /** Whether its end may wait for what never comes. */
  readonly isIdle: boolean;
}

/** What is placed anew: it has no connection, or none yet. */
export function isUnsettled({ protocol, state }: ConntrackEntry): boolean {
  if (protocol === IPPROTO_TCP) return state <= CT_TCP.SYN_RECV || state > CT_TCP.CLOSE;
  return protocol !== IPPROTO_SCTP || state < CT_SCTP.ESTABLISHED;
}

/** The TCP connection of an entry with this sender address; null: none, or one that is over. */
export function lostConnection(
  { protocol, original, reply, state }: ConntrackEntry,
  sender: Buffer,
): LostConnection | null {
  if (protocol !== IPPROTO_TCP || state === CT_TCP.TIME_WAIT || state === CT_TCP.CLOSE) return null;
  if (state <= CT_TCP.SYN_SENT) return null;
  // A SYN would be a simultaneous open for an end that has not had its SYN-ACK yet.
  const isIdle = state !== CT_TCP.SYN_RECV;
  if (reply.source.equals(sender)) {
    const { source, sourcePort, destination, destinationPort } = original;
    return { remote: source, remotePort: sourcePort, vip: destination, port: destinationPort, isIdle };
  }
  const { source, sourcePort, destination, destinationPort } = reply;
  return { remote: source, remotePort: sourcePort, vip: destination, port: destinationPort, isIdle };
}

interface GivingUp {
  /** Only what came to these; default: everything, also what began at the control device. */
  readonly ports?: readonly { readonly protocol: number; readonly port: number }[];
  /** Whether the ends are told: the table is there. Default true. */
  readonly tells?: boolean;
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export class VipFlows {
  private readonly log: Logger;
  private readonly table: string;

  /** @param table of nft that has the sets lost4 and lost6 */
  constructor(table: string, log: Logger) {
    this.table = table;
    this.log = log;
  }

  /** See above. What fails is logged: clients then wait for their own timeouts. */
  async forget(sender: Buffer, protocol: number, port: number): Promise<void> {
    await this.logged(async () => {
      const entries = await listEntries('reply', sender);
      await deleteEntries(
        entries.filter((entry) => entry.protocol === protocol && entry.reply.sourcePort === port && isUnsettled(entry)),
      );
    });
  }

  /** See above. */
  async giveUp(sender: Buffer, { ports, tells = true }: GivingUp = {}): Promise<void> {
    await this.logged(async () => {
      const inbound = (await listEntries('reply', sender)).filter(
        ({ protocol, reply }) =>
          ports?.some((one) => one.protocol === protocol && one.port === reply.sourcePort) ?? true,
      );
      const entries = ports === undefined ? [...inbound, ...(await listEntries('original', sender))] : inbound;
      const lost = entries.flatMap((entry) => lostConnection(entry, sender) ?? []);
      // Before the entries go: what comes in between is to be answered.
      if (tells) await this.addLost(lost);
      await deleteEntries(entries);
      if (tells) await this.speak(lost.filter(({ isIdle }) => isIdle));
      if (entries.length > 0) this.log.info({ entries: entries.length, reset: lost.length }, 'connections given up');
    });
  }

  /** How many connections of a port the kernel knows, of all that answers come from this address for. @throws SystemError */
  async counts(sender: Buffer): Promise<(protocol: number, port: number) => number> {
    const counts = new Map<number, number>();
    for (const { protocol, reply } of await listEntries('reply', sender)) {
      const key = (protocol << 16) | reply.sourcePort;
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    return (protocol, port) => counts.get((protocol << 16) | port) ?? 0;
  }

  private async addLost(lost: readonly LostConnection[]): Promise<void> {
    if (lost.length === 0) return;
    const sets = new NftSets('inet', this.table);
    try {
      for (let at = 0; at < lost.length; at += ELEMENTS_PER_CHANGE) {
        const some = lost.slice(at, at + ELEMENTS_PER_CHANGE);
        for (const digit of ['4', '6'] as const) {
          const keys = some
            .filter(({ vip }) => (vip.length === IPV4_ADDRESS_BYTES) === (digit === '4'))
            .map(({ remote, remotePort, vip, port }) => setKey(remote, portPart(remotePort), vip, portPart(port)));
          if (keys.length > 0) sets.addAll(`lost${digit}`, keys);
        }
        await turn();
      }
    } finally {
      sets.close();
    }
  }

  private async speak(lost: readonly LostConnection[]): Promise<void> {
    if (lost.length === 0) return;
    const sender = new RawSender();
    try {
      for (const [index, { remote, remotePort, vip, port }] of lost.entries()) {
        sender.send(
          tcpSegment({
            source: vip,
            destination: remote,
            sourcePort: port,
            destinationPort: remotePort,
            sequence: 0,
            acknowledgment: 0,
            flags: TCP_FLAG.SYN,
          }),
        );
        if (index % ELEMENTS_PER_CHANGE === ELEMENTS_PER_CHANGE - 1) await turn();
      }
    } finally {
      sender.close();
    }
  }

  private async logged(step: () => Promise<void>): Promise<void> {
    try {
      await step();
    } catch (error) {
      this.log.warn({ error: describe(error) }, 'connections of a virtual IP address could not be given up');
    }
  }
}
