/** Messages of a control device, frame by frame. */
import * as f from '../../src/tunnel/frames.js';

/** A data frame on its way down. */
export function data(tunnel: number, sequence: number, payload: Buffer): Buffer {
  const buf = Buffer.alloc(f.frameBytes(payload.length));
  payload.copy(buf, f.FRAME_HEADER_BYTES);
  f.putDataDown(buf, 0, 0, tunnel, payload.length, sequence);
  return buf;
}

/** A data frame on its way up. @param offload its virtio_net_hdr */
export function dataUp(
  tunnel: number,
  payload: Buffer,
  time: readonly [seconds: number, nanoseconds: number] = [1, 2],
  offload = Buffer.alloc(f.OFFLOAD_BYTES),
): Buffer {
  const buf = Buffer.alloc(f.frameBytes(payload.length));
  payload.copy(buf, f.FRAME_HEADER_BYTES);
  offload.copy(buf, f.OFFLOAD_OFFSET);
  f.putDataUp(buf, 0, 0, tunnel, payload.length, ...time);
  return buf;
}

const empty = (put: (buf: Buffer) => number): Buffer => {
  const buf = Buffer.alloc(f.frameBytes(0));
  put(buf);
  return buf;
};

export const credit = (tunnel: number, granted: number): Buffer => empty((buf) => f.putCredit(buf, 0, tunnel, granted));

export const close = (tunnel: number, sequence: number): Buffer => empty((buf) => f.putClose(buf, 0, tunnel, sequence));

export const confirm = (tunnel: number, sequence: number): Buffer =>
  empty((buf) => f.putConfirm(buf, 0, tunnel, sequence));

export function confirmError(tunnel: number, sequence: number, errno: number): Buffer {
  const buf = Buffer.alloc(f.frameBytes(4));
  f.putConfirmError(buf, 0, tunnel, sequence, errno);
  return buf;
}
