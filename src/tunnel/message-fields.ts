/** The kinds of fields that messages are made of: each takes its doc, and a unit where it has one. */
import * as z from 'zod';

/** Which side sends a message. */
export type Side = 'control' | 'forwarder';

/** What the table has of a message. */
export interface MessageEntry {
  readonly from: Side | 'both';
  /** The message that answers it; null: none does. */
  readonly answer: string | null;
  /** Figure or step of the source text; 'ours' where it has none. */
  readonly source: string;
  readonly doc: string;
  readonly fields: z.ZodObject;
}

const U32_MAX = 0xffff_ffff;
export const text = (description: string, unit = '') => z.string().meta({ description, unit });
export const texts = (description: string, unit = '') => z.array(z.string()).meta({ description, unit });
export const flag = (description: string) => z.boolean().meta({ description });
export const u16 = (description: string, unit = '') => z.int().min(0).max(0xffff).meta({ description, unit });
export const u32 = (description: string, unit = '') => z.int().min(0).max(U32_MAX).meta({ description, unit });
export const i32 = (description: string, unit = '') =>
  z.int().min(-0x8000_0000).max(0x7fff_ffff).meta({ description, unit });
export const u53 = (description: string, unit = '') => z.int().min(0).meta({ description, unit });

/**
 * What a control device may do with an interface: `read` frames, `write` frames with the forwarder's own source
 * addresses, `inject` any frame (it does not include `write`), have a `vif`, have a `vip`, set a `route`.
 */
export const RIGHTS = ['read', 'write', 'inject', 'vif', 'vip', 'route'] as const;
/** A virtual IF carries Ethernet frames or IP packets. */
export const VIF_KINDS = ['tap', 'tun'] as const;
export const SCOPES = ['in', 'out', 'both', 'promisc'] as const;

/** A word that tables show: neither empty nor long, and nothing that could look like another column or row. */
export const word = (description: string, most: number) =>
  z
    .string()
    .min(1)
    .max(most)
    .regex(/^[^\s\p{Cc}]*$/u)
    .meta({ description, unit: '' });
const MAX_WORD = 255;
export const MAX_NAME = 64;
export const MAX_TOKEN = 4096;

export const interfaceName = () => word("the interface's name at the forwarder", MAX_WORD);
export const symbolName = () =>
  word('what the application touches: the name of a file, a virtual IF or a virtual IP', MAX_WORD);
export const downTunnel = () =>
  u32('id of the down tunnel, allocated by the forwarder, never used twice within a session');
export const upTunnel = () =>
  u32('id of the up tunnel, allocated by the control device, never used twice within a session');

/** The id of a virtual IF at both ends is that of its down tunnel. */
export const vifTunnel = () => u32('down tunnel of the virtual IF');

export const expectedLinkType = () =>
  u16(
    'what the frames are taken for: another interface is refused; absent: for what it is',
    'pcap link type',
  ).optional();

export const attributes = () =>
  z
    .object({
      index: u32('number of the interface'),
      linkType: u16('link type of its frames', 'pcap link type'),
      address: text('link layer address, empty where there is none'),
      mtu: u32('largest packet without its link layer header', 'bytes'),
      operstate: text('up, down, unknown … as in /sys/class/net'),
      flags: u32('interface flags', 'IFF_ bits'),
      speed: i32('-1 where it is unknown', 'Mbit/s'),
      inet: texts('IPv4 addresses with prefix length, "10.0.0.1/24"'),
      inet6: texts('IPv6 addresses with prefix length'),
      routes: texts(
        'routes through the interface: "default via 10.0.0.254", "10.2.0.0/16 via 10.0.0.7", without a gateway "10.3.0.0/16"',
      ).optional(),
    })
    .meta({ description: 'attributes of the interface, named as in /sys/class/net' });
export const rights = () =>
  z.array(z.enum(RIGHTS)).meta({ description: 'what the permission table lets this control device do with it' });
export const protocols = () => texts('the protocol addresses that the rights cover', 'protocol addresses');
export const interfaceFields = () => ({
  interface: interfaceName(),
  attributes: attributes(),
  rights: rights(),
  protocols: protocols(),
});
