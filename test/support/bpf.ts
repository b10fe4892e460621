/** Runs a program of ours as the kernel would, which holds a tag that was taken out beside the frame's bytes. */
import { BpfContext, compileBpf, runBpf as run } from '../../src/packet/bpf-run.js';

export interface Ancillary {
  /** Of the socket buffer: the ether type behind a tag that was taken out. */
  protocol: number;
  vlanTagPresent: number;
  /** Where the network header begins. */
  networkOffset: number;
}

/** @returns bytes of the frame to keep, 0: rejected */
export function runBpf(program: Buffer, packet: Buffer, ancillary: Ancillary): number {
  const compiled = compileBpf(program);
  if (compiled === null) throw new Error('the kernel would refuse the program');
  const tag = Buffer.alloc(ancillary.vlanTagPresent === 0 ? 0 : 4);
  const frame = Buffer.concat([packet.subarray(0, 12), tag, packet.subarray(12)]);
  return run(compiled, frame, 0, frame.length, Object.assign(new BpfContext(), ancillary));
}
