/** What the kernel does with a classic BPF program and a frame, as far as our programs go. */

export interface Ancillary {
  /** Of the socket buffer: the ether type behind a tag that was taken out. */
  protocol: number;
  vlanTagPresent: number;
  /** Where the network header begins. */
  networkOffset: number;
}

/**
 * Runs the program after the checks of the kernel: jumps stay inside, the last instruction returns, loads beyond the frame
 * end with 0.
 *
 * @returns bytes of the frame to keep, 0: rejected
 */
export function runBpf(program: Buffer, packet: Buffer, ancillary: Ancillary): number {
  const count = program.length / 8;
  if (!Number.isInteger(count) || count < 1 || count > 4096) throw new Error(`${count} instructions`);
  if (program.readUInt16LE(program.length - 8) !== 6) throw new Error('the last instruction does not return');
  let a = 0;
  let x = 0;
  for (let pc = 0; pc < count; pc += 1) {
    const code = program.readUInt16LE(8 * pc);
    const jt = program.readUInt8(8 * pc + 2);
    const jf = program.readUInt8(8 * pc + 3);
    const k = program.readUInt32LE(8 * pc + 4);
    if (pc + 1 + Math.max(jt, jf) >= count && code !== 6) throw new Error('a jump leaves the program');
    switch (code) {
      case 0x06:
        return k;
      case 0x05:
        pc += k;
        break;
      case 0x15:
        pc += a === k ? jt : jf;
        break;
      case 0x25:
        pc += a > k ? jt : jf;
        break;
      case 0x35:
        pc += a >= k ? jt : jf;
        break;
      case 0x45:
        pc += (a & k) !== 0 ? jt : jf;
        break;
      case 0xb1: {
        const byte = load(packet, k, 1, ancillary);
        if (byte < 0) return 0;
        x = 4 * (byte & 15);
        break;
      }
      default: {
        const bytes = { 0x20: 4, 0x28: 2, 0x30: 1, 0x48: 2 }[code];
        if (bytes === undefined) throw new Error(`code ${code}`);
        a = load(packet, code === 0x48 ? (x + k) % 2 ** 32 : k, bytes, ancillary);
        if (a < 0) return 0;
      }
    }
  }
  throw new Error('ran out of the program');
}

/** -1: beyond the frame */
function load(packet: Buffer, place: number, bytes: number, ancillary: Ancillary): number {
  if (place === 0xfffff000) return ancillary.protocol;
  if (place === 0xfffff030) return ancillary.vlanTagPresent;
  const offset = place >= 0xfff00000 ? place - 0xfff00000 + ancillary.networkOffset : place;
  return offset + bytes > packet.length ? -1 : packet.readUIntBE(offset, bytes);
}
