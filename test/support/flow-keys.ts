/** Keys of flows, from frames. */
import { SIDE } from '../../src/forwarder/distribution-table.js';
import { FlowKey } from '../../src/forwarder/flow-key.js';
import { FrameView } from '../../src/packet/headers.js';
import { ipv4, ipv6, udp } from '../vectors/packet-frames.js';

/** The key of a number, another one for each: its last four bits choose IP version and ports, the others the address. */
export class FlowKeys {
  readonly key = new FlowKey();
  private readonly view = new FrameView();

  of(number: number): FlowKey {
    const payload = udp(number & 6, number & 8, Buffer.alloc(0));
    const six = (number & 1) === 1;
    const packet = six ? ipv6(17, payload) : ipv4({ protocol: 17 }, payload);
    packet.writeUInt32BE(number >>> 4, six ? 16 : 12);
    this.view.parse(packet, 0, packet.length, 'raw');
    this.key.read(this.view, packet, SIDE.RECEIVED);
    return this.key;
  }
}
