/** The frame that the benchmarks send: UDP over IPv4, to an address that nobody has, with a sequence number in front. */

export const SEQUENCE_OFFSET = 42;

/** @param bytes of the whole frame @param destination MAC address of the forwarder's interface */
export function benchFrame(bytes: number, destination: Buffer): Buffer {
  const frame = Buffer.alloc(bytes);
  destination.copy(frame, 0);
  Buffer.from([2, 0, 0, 0, 0, 1]).copy(frame, 6);
  frame.writeUInt16BE(0x0800, 12);
  frame.writeUInt8(0x45, 14);
  frame.writeUInt16BE(bytes - 14, 16);
  frame.writeUInt8(64, 22);
  frame.writeUInt8(17, 23);
  Buffer.from([10, 9, 0, 2, 10, 9, 0, 77]).copy(frame, 26);
  let sum = 0;
  for (let at = 14; at < 34; at += 2) sum += frame.readUInt16BE(at);
  sum = (sum & 0xffff) + (sum >>> 16);
  frame.writeUInt16BE(~(sum + (sum >>> 16)) & 0xffff, 24);
  frame.writeUInt16BE(4000, 34);
  frame.writeUInt16BE(9, 36);
  frame.writeUInt16BE(bytes - 34, 38);
  return frame;
}

/** Sleeps without giving the loop a turn: for processes that do one thing. */
export function pause(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

/** The value below which the share `p` of the sorted values lies. */
export function percentile(values: readonly number[], p: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))] ?? Number.NaN;
}

/** Percentiles of times, in ms. */
export function summary(times: readonly number[]): string {
  const [p50, p99] = [percentile(times, 0.5), percentile(times, 0.99)];
  return `p50 ${p50.toFixed(2)} p99 ${p99.toFixed(2)} max ${Math.max(...times).toFixed(2)} ms`;
}
