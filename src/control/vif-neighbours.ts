/**
 * Neighbours of a virtual IF: what the mirror's kernel asks on the link is answered here, with what the forwarder's kernel
 * knows. Nothing of it crosses, so that the forwarder alone speaks ARP and neighbour discovery on the wire.
 *
 *     kernel --ARP request, NS--> TAP --handle--> resolve: neighbour-request to the forwarder --link--> reply --> TAP
 *                                                                                         '' --> nothing: the kernel
 *                                                                                               asks again, or gives up
 *
 * One question per neighbour is under way; who asks again meanwhile waits for the same answer.
 */
import { MAX_NEIGHBOUR_QUESTIONS } from '../base/limits.js';
import { ARP_FRAME_BYTES, ARP_REQUEST, readArp, writeArpReply } from '../packet/arp.js';
import type { FrameView } from '../packet/headers.js';
import { addressText } from '../packet/ip-address.js';
import { MAC_BYTES, parseMac } from '../packet/mac-address.js';
import {
  ICMPV6_NEIGHBOR_SOLICITATION,
  isIcmpv6,
  ND_FRAME_BYTES,
  readNeighbor,
  writeAdvertisement,
} from '../packet/neighbour-discovery.js';
import { ETHERTYPE_ARP } from '../packet/protocol-address.js';
import { VNET_HEADER_BYTES } from '../packet/virtio.js';
import type { TunDevice } from '../sys/tun.js';

/** Writes the answer into `out`, behind its virtio_net_hdr. @returns its length */
type Write = (out: Buffer, mac: Buffer) => number;

export class VifNeighbours {
  /** While a packet socket on the device covers ARP, requests go to the wire and are answered from there. */
  arpCrosses = false;
  private readonly device: Pick<TunDevice, 'write'>;
  private readonly resolve: (address: string) => Promise<string>;
  /** By the address that is asked for: how the last asker wants to be answered. */
  private readonly questions = new Map<string, Write>();

  /** @param resolve the link layer address of a neighbour, '' where it does not answer */
  constructor(device: Pick<TunDevice, 'write'>, resolve: (address: string) => Promise<string>) {
    this.device = device;
    this.resolve = resolve;
  }

  /**
   * Takes a frame that left the TAP; `view` was filled from it.
   *
   * @returns true: it was an ARP request or a neighbor solicitation of the mirror, and is dealt with
   */
  handle(buf: Buffer, offset: number, length: number, view: FrameView): boolean {
    if (view.outerEtherType === ETHERTYPE_ARP) return this.handleArp(buf, offset, length, view);
    if (!isIcmpv6(buf, view, ICMPV6_NEIGHBOR_SOLICITATION)) return false;
    const question = readNeighbor(buf, view);
    if (question === null) return true;
    const asker = Buffer.from(buf.subarray(offset + MAC_BYTES, offset + 2 * MAC_BYTES));
    this.ask(question.target, (out, mac) => writeAdvertisement(out, VNET_HEADER_BYTES, asker, question, mac));
    return true;
  }

  private handleArp(buf: Buffer, offset: number, length: number, view: FrameView): boolean {
    if (this.arpCrosses) return false;
    const question = readArp(buf, view.l3Offset, offset + length - view.l3Offset);
    if (question === null || question.operation !== ARP_REQUEST) return false;
    // An announcement asks for nothing, and is not for the wire: the address is the forwarder's.
    if (!question.targetIp.equals(question.senderIp)) {
      this.ask(question.targetIp, (out, mac) => {
        writeArpReply(out, VNET_HEADER_BYTES, question, mac);
        return ARP_FRAME_BYTES;
      });
    }
    return true;
  }

  private ask(target: Buffer, write: Write): void {
    const address = addressText(target);
    const isUnderWay = this.questions.has(address);
    // The kernel asks again by itself.
    if (!isUnderWay && this.questions.size >= MAX_NEIGHBOUR_QUESTIONS) return;
    this.questions.set(address, write);
    if (!isUnderWay) void this.answer(address);
  }

  private async answer(address: string): Promise<void> {
    // A session that is lost leaves the question unanswered, as a wire would.
    const link = await this.resolve(address).catch(() => '');
    const write = this.questions.get(address);
    this.questions.delete(address);
    const mac = parseMac(link);
    if (mac === null || write === undefined) return;
    // Since the question a packet socket began to see what the wire answers to the forwarder.
    if (this.arpCrosses && !address.includes(':')) return;
    const out = Buffer.alloc(VNET_HEADER_BYTES + Math.max(ARP_FRAME_BYTES, ND_FRAME_BYTES));
    const length = write(out, mac);
    // A device that is down or gone needs no answer.
    this.device.write(out, 0, VNET_HEADER_BYTES, length);
  }
}
