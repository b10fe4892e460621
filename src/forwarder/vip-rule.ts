/**
 * The rule of a socket on a virtual IP address, as a transfer request asks for it (Fig. 21): an IP protocol with the address
 * and a port. It stands in the distribution table like any other and matches no frame, since the kernels convert.
 */
import { FwdfsError } from '../base/errors.js';
import type { LinkType } from '../packet/headers.js';
import { parseIpAddress } from '../packet/ip-address.js';
import { parseProtocolAddress } from '../packet/protocol-address.js';
import type { Message } from '../tunnel/messages.js';
import { newRule, type Rule } from './rule.js';
import type { Peer } from './peer.js';

/** @throws FwdfsError bad-message, bad-protocol-address */
export function vipRule(peer: Peer, fields: Message<'transfer-request'>, linkType: LinkType): Rule {
  const vipText = fields.vip ?? '';
  const vip = parseIpAddress(vipText);
  const protocol = parseProtocolAddress(fields.protocol);
  if (vip === null || protocol.portLow < 0 || protocol.address?.equals(vip) !== true) {
    throw new FwdfsError('bad-message', `${protocol.text} is no port of a virtual IP address ${vipText}`);
  }
  return newRule({
    peer,
    interface: fields.interface,
    protocol,
    linkType,
    scope: 'in',
    mode: 'vip',
    vif: null,
    vip,
    filter: null,
    upTunnel: fields.upTunnel,
    symbol: fields.symbol,
    credit: 0,
  });
}
