/**
 * What ethtool knows of an interface and rtnetlink does not: its speed.
 *
 *     struct ifreq { char name[16]; void *data; … }                                       40 bytes
 *     struct ethtool_link_settings { u32 cmd; u32 speed; u8 …[7]; s8 words; … }           48 bytes, then 3 masks of `words`
 */
import { addressOf, putPointer, sys } from './libc.js';

const SIOCETHTOOL = 0x8946;
const ETHTOOL_GLINKSETTINGS = 0x4c;
const IFREQ_BYTES = 40;
const IFREQ_DATA = 16;
const SPEED = 4;
const MASK_WORDS = 15;
/** 48 bytes, and three masks of at most 127 words. */
const SETTINGS_BYTES = 48 + 3 * 127 * 4;

/**
 * Speed of an interface in Mbit/s; -1 where the driver does not say, or there is no such interface.
 *
 * @param fd a socket of the interface's network namespace, of any family
 */
export function linkSpeed(fd: number, name: string): number {
  const settings = Buffer.alloc(SETTINGS_BYTES);
  const request = Buffer.alloc(IFREQ_BYTES);
  request.write(name, 0, IFREQ_DATA - 1);
  putPointer(request, IFREQ_DATA, addressOf(settings));
  settings.writeUInt32LE(ETHTOOL_GLINKSETTINGS, 0);
  // The first call tells, as a negative number, how long the kernel's masks are; only the second one answers.
  if (sys.ioctl(fd, SIOCETHTOOL, request) < 0) return -1;
  const words = -settings.readInt8(MASK_WORDS);
  if (words <= 0) return -1;
  settings.fill(0);
  settings.writeUInt32LE(ETHTOOL_GLINKSETTINGS, 0);
  settings.writeInt8(words, MASK_WORDS);
  if (sys.ioctl(fd, SIOCETHTOOL, request) < 0) return -1;
  return settings.readInt32LE(SPEED);
}
