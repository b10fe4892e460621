/**
 * Counters of the packet path: a drop always has a reason, and every reason is named here.
 *
 * Counting is one addition in a Float64Array (exact up to 2^53); names are looked at only when somebody reads them.
 */

/** Every counter, with what it means. The names are those shown in `.if/IF/statistics`. */
export const COUNTERS = {
  // at the forwarder
  forwarder_rx_frames: 'frames that the packet socket gave to the forwarder',
  forwarder_rx_bytes: 'bytes of those frames',
  forwarder_up_frames: 'frames sent to control devices, a copy each',
  forwarder_up_bytes: 'bytes of those frames',
  forwarder_tx_frames: 'frames put on the interface for control devices',
  forwarder_tx_bytes: 'bytes of those frames',
  forwarder_resets: 'TCP connections of lost control devices that were reset, and their segments that were answered so',
  drop_reset: 'resets of them that could not be sent',
  drop_no_rule: 'received frames that passed the coarse filter and matched no rule',
  drop_discarded: 'inbound packets that no rule took and the host was not named for, dropped by the kernel',
  drop_socket_full: 'received frames that the kernel dropped because the packet socket was full',
  drop_truncated: 'received frames larger than MAX_FRAME_BYTES',
  drop_malformed: 'received frames too short for their own headers',
  drop_fragment_unknown: 'later fragments whose first fragment was not seen',
  drop_no_credit: 'matching frames that the up tunnel had no credit for',
  drop_suspended: 'matching frames whose control device was not connected',
  drop_no_member: 'packets of new flows to a port whose control devices are all suspended, silent or draining',
  drop_tx_unknown_tunnel: 'frames from control devices with a down tunnel that is not there, of all interfaces',
  drop_tx_not_permitted: 'frames from a control device that its rights do not cover',
  drop_tx_mismatch: "frames from a control device outside their tunnel's protocol address",
  drop_tx_flow_refused: 'frames of virtual IFs whose flow is that of another one, or could not be opened',
  drop_tx_no_neighbour: 'packets of tuns with no route, or to a next hop that did not answer or had too many waiting',
  drop_tx_error: 'frames from a control device that the interface refused',
  drop_tx_duplicate: 'frames that came again after a resume and were there already',
  // at the control device
  control_rx_frames: 'frames that came through up tunnels',
  control_rx_bytes: 'bytes of those frames',
  control_tx_frames: 'frames given to down tunnels',
  control_tx_bytes: 'bytes of those frames',
  drop_connection_lost: 'frames that were under way when the connection was cut',
  drop_unknown_tunnel: 'frames of all interfaces with an up tunnel that is not there (closed meanwhile)',
  drop_no_reader: 'frames of a rule that was set by hand while nobody reads',
  drop_reader_slow: "frames for which a reader's queue had no room",
  drop_vif_malformed: 'frames that left a virtual IF and are too short for their own headers',
  drop_vif_no_credit: 'frames that left a virtual IF while its tunnel took none',
  drop_vif_refused: 'frames that the device of a virtual IF did not take',
  drop_bad_gso: 'super-frames that could not be cut into wire frames',
} as const satisfies Record<string, string>;

export type CounterName = keyof typeof COUNTERS;

export function isCounterName(text: string): text is CounterName {
  return Object.hasOwn(COUNTERS, text);
}

const ORDER = Object.keys(COUNTERS) as CounterName[];

/** Index of each counter, for the packet path: `counters.values[C.drop_no_rule] += 1`. */
export const C = Object.fromEntries(ORDER.map((name, index) => [name, index])) as Readonly<Record<CounterName, number>>;

export class Counters {
  private readonly values = new Float64Array(ORDER.length);

  add(index: number, amount: number): void {
    this.values[index] = (this.values[index] ?? 0) + amount;
  }

  get(name: CounterName): number {
    return this.values[C[name]] ?? 0;
  }

  /** Name and value of each counter that the prefix test admits, in the order of the table. */
  snapshot(): Map<CounterName, number> {
    return new Map(ORDER.map((name, index) => [name, this.values[index] ?? 0]));
  }
}
