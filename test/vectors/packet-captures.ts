/** Capture streams for the tests, made byte by byte from the drafts by code that shares nothing with src/packet. */

export interface Frame {
  data: Buffer;
  seconds: number;
  nanoseconds: number;
}

export interface PcapShape {
  big?: boolean;
  nano?: boolean;
  linkType?: number;
}

const u32 = (value: number, big: boolean): Buffer => {
  const bytes = Buffer.alloc(4);
  if (big) bytes.writeUInt32BE(value >>> 0);
  else bytes.writeUInt32LE(value >>> 0);
  return bytes;
};

const u16 = (value: number, big: boolean): Buffer => {
  const bytes = Buffer.alloc(2);
  if (big) bytes.writeUInt16BE(value);
  else bytes.writeUInt16LE(value);
  return bytes;
};

export function pcapHeader(shape: PcapShape = {}): Buffer {
  const big = shape.big === true;
  const magic = shape.nano === true ? 0xa1b23c4d : 0xa1b2c3d4;
  const words = [0, 0, 65535, shape.linkType ?? 1].map((word) => u32(word, big));
  return Buffer.concat([u32(magic, big), u16(2, big), u16(4, big), ...words]);
}

export function pcapRecord(frame: Frame, shape: PcapShape = {}, original = frame.data.length): Buffer {
  const big = shape.big === true;
  const fraction = shape.nano === true ? frame.nanoseconds : Math.floor(frame.nanoseconds / 1000);
  const words = [frame.seconds, fraction, frame.data.length, original].map((word) => u32(word, big));
  return Buffer.concat([...words, frame.data]);
}

/** A block of any type around its body, padded. */
export function block(type: number, body: Buffer, big = false): Buffer {
  const padding = Buffer.alloc((4 - (body.length % 4)) % 4, 0xee);
  const total = u32(12 + body.length + padding.length, big);
  return Buffer.concat([u32(type, big), total, body, padding, total]);
}

export function section(big = false, options = Buffer.alloc(0)): Buffer {
  const length = Buffer.alloc(8, 0xff);
  return block(0x0a0d0d0a, Buffer.concat([u32(0x1a2b3c4d, big), u16(1, big), u16(0, big), length, options]), big);
}

/** An interface block; `resolution` becomes an if_tsresol option behind a name. */
export function interfaceBlock(big = false, resolution?: number, linkType = 1): Buffer {
  const fixed = [u16(linkType, big), u16(0, big), u32(0, big)];
  if (resolution === undefined) return block(1, Buffer.concat(fixed), big);
  const name = Buffer.concat([u16(2, big), u16(5, big), Buffer.from('eth10\0\0\0')]);
  const option = Buffer.concat([u16(9, big), u16(1, big), Buffer.from([resolution, 0, 0, 0])]);
  return block(1, Buffer.concat([...fixed, name, option, u32(0, big)]), big);
}

/** Units of the resolution since 1970. */
export function units(frame: Frame, resolution: number): bigint {
  const perSecond = (resolution & 0x80) !== 0 ? 2n ** BigInt(resolution & 0x7f) : 10n ** BigInt(resolution);
  return BigInt(frame.seconds) * perSecond + (BigInt(frame.nanoseconds) * perSecond) / 1_000_000_000n;
}

export interface PacketShape {
  big?: boolean;
  resolution?: number;
  interface?: number;
  original?: number;
  options?: Buffer;
  obsolete?: boolean;
}

export function packetBlock(frame: Frame, shape: PacketShape = {}): Buffer {
  const big = shape.big === true;
  const time = units(frame, shape.resolution ?? 6);
  const id = shape.interface ?? 0;
  const body = Buffer.concat([
    shape.obsolete === true ? Buffer.concat([u16(id, big), u16(0xffff, big)]) : u32(id, big),
    u32(Number(time >> 32n), big),
    u32(Number(time & 0xffffffffn), big),
    u32(frame.data.length, big),
    u32(shape.original ?? frame.data.length, big),
    frame.data,
    Buffer.alloc((4 - (frame.data.length % 4)) % 4),
    shape.options ?? Buffer.alloc(0),
  ]);
  return block(shape.obsolete === true ? 2 : 6, body, big);
}

export function simpleBlock(data: Buffer, big = false, original = data.length): Buffer {
  return block(3, Buffer.concat([u32(original, big), data]), big);
}
