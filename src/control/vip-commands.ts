/**
 * The `vip` commands of a forwarder's `.ctl`:
 *
 *     vip add ADDRESS [address=SENDER] [expose=LIST] [hold]
 *     vip remove ADDRESS
 *
 * `hold`: it goes when whoever wrote the command closes the file, also by dying.
 */
import { describe, FwdfsError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import type { Opener } from '../fusefs/command-file.js';
import { addressText } from '../packet/ip-address.js';
import { parseOptions } from './command-options.js';
import type { ForwarderLink } from './forwarder-link.js';
import { parseExpose } from './vif-commands.js';
import { addressBytes } from './vip-kernel.js';
import type { VipRequest, Vips } from './vips.js';

/** One spelling for each address. @throws FwdfsError bad-command */
export function canonicalAddress(text: string): string {
  return addressText(addressBytes(text));
}

/** @throws FwdfsError bad-command: no addresses, or not of one family */
export function vipRequest(address: string, sender: string | null, expose: VipRequest['expose']): VipRequest {
  const request = {
    address: canonicalAddress(address),
    sender: sender === null ? null : canonicalAddress(sender),
    expose,
  };
  if (request.sender !== null && request.sender.includes(':') !== request.address.includes(':')) {
    throw new FwdfsError('bad-command', `${address} and ${request.sender} are not of one family`);
  }
  return request;
}

/** @param words after `vip add` @throws FwdfsError bad-command, bad-protocol-address */
export function parseVipRequest(words: readonly string[]): VipRequest {
  const [address, ...options] = words;
  if (address === undefined) throw new FwdfsError('bad-command', 'vip add without an address');
  const known = parseOptions('vip add', options, ['address', 'expose']);
  const expose = known.get('expose');
  return vipRequest(address, known.get('address') ?? null, expose === undefined ? null : parseExpose(expose));
}

export class VipCommands {
  private readonly link: ForwarderLink;
  private readonly vips: Vips;
  private readonly log: Logger;

  constructor(link: ForwarderLink, vips: Vips, log: Logger) {
    this.link = link;
    this.vips = vips;
    this.log = log;
  }

  /** @param words after `vip` */
  async run(words: readonly string[], opener: Opener): Promise<void> {
    const [verb, ...rest] = words;
    if (verb === 'add') {
      const hold = rest.at(-1) === 'hold';
      const request = parseVipRequest(hold ? rest.slice(0, -1) : rest);
      await this.vips.add(this.link, request);
      if (hold) opener.onRelease(() => void this.release(request.address));
    } else if (verb === 'remove' && rest[0] !== undefined && rest.length === 1) {
      await this.vips.remove(this.link, canonicalAddress(rest[0]));
    } else throw new FwdfsError('bad-command', `vip ${words.join(' ')}`);
  }

  private async release(address: string): Promise<void> {
    try {
      await this.vips.remove(this.link, address);
    } catch (error) {
      this.log.debug({ vip: address, reason: describe(error) }, 'a held virtual IP address was gone already');
    }
  }
}
