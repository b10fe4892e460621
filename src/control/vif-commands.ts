/**
 * The `vif` commands of a forwarder's `.ctl`, and what a configuration file says of virtual IFs: one form for both.
 *
 *     vif add INTERFACE [name=N] [kind=tap|tun] [netns=NS] [expose=LIST] [hold]
 *     vif remove NAME [netns=NS] of the device or of the interface
 *
 * `hold`: it goes when whoever wrote the command closes the file, also by dying.
 */
import { describe, FwdfsError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import type { Opener } from '../fusefs/command-file.js';
import { parseProtocolAddress, type ProtocolAddress } from '../packet/protocol-address.js';
import { parseOptions } from './command-options.js';
import type { ForwarderLink } from './forwarder-link.js';
import type { VifRequest, Vifs } from './vifs.js';

/** @param text protocol addresses with commas between them, ranges allowed @throws FwdfsError bad-protocol-address */
export function parseExpose(text: string): ProtocolAddress[] {
  return text.split(',').map((one) => parseProtocolAddress(one, { ranges: true }));
}

/** @param words after `vif add` @throws FwdfsError bad-command, bad-protocol-address */
export function parseVifRequest(words: readonly string[]): VifRequest {
  const [interfaceName, ...options] = words;
  const known = parseOptions('vif add', options, ['name', 'kind', 'netns', 'expose']);
  const kind = known.get('kind') ?? null;
  if (interfaceName === undefined || (kind !== null && kind !== 'tap' && kind !== 'tun')) {
    throw new FwdfsError('bad-command', `vif add ${words.join(' ')}`);
  }
  const expose = known.get('expose');
  return {
    interface: interfaceName,
    name: known.get('name') ?? null,
    kind,
    netns: known.get('netns') ?? '',
    expose: expose === undefined ? null : parseExpose(expose),
  };
}

const NETNS = 'netns=';
const isNetns = (words: readonly string[]): boolean =>
  words.length === 2 && (words[1] ?? '').startsWith(NETNS) && words[1] !== NETNS;

export class VifCommands {
  private readonly link: ForwarderLink;
  private readonly vifs: Vifs;
  private readonly log: Logger;

  constructor(link: ForwarderLink, vifs: Vifs, log: Logger) {
    this.link = link;
    this.vifs = vifs;
    this.log = log;
  }

  /** @param words after `vif` */
  async run(words: readonly string[], opener: Opener): Promise<void> {
    const [verb, ...rest] = words;
    if (verb === 'add') {
      const hold = rest.at(-1) === 'hold';
      const name = await this.vifs.add(this.link, parseVifRequest(hold ? rest.slice(0, -1) : rest));
      if (hold) opener.onRelease(() => void this.release(name));
    } else if (verb === 'remove' && rest[0] !== undefined && (rest.length === 1 || isNetns(rest))) {
      await this.vifs.remove(this.link, rest[0], rest[1]?.slice(NETNS.length) ?? null);
    } else throw new FwdfsError('bad-command', `vif ${words.join(' ')}`);
  }

  private async release(name: string): Promise<void> {
    try {
      await this.vifs.remove(this.link, name);
    } catch (error) {
      this.log.debug({ vif: name, reason: describe(error) }, 'a held virtual IF was gone already');
    }
  }
}
