/** A flow as a row of `.tables/flow`. */
import { addressText, IPV4_ADDRESS_BYTES } from '../packet/ip-address.js';
import { parseProtocolAddress } from '../packet/protocol-address.js';
import type { Rule } from './distribution-table.js';
import { stateText } from './flow-state.js';

export const FLOW_COLUMNS = [
  'interface',
  'protocol',
  'local',
  'remote',
  'control',
  'vif',
  'through',
  'state',
  'seconds_left',
];

export interface FlowRow {
  readonly wayBack: Rule;
  readonly through: Rule | null;
  readonly protocol: number;
  readonly local: Buffer;
  readonly localPort: number;
  readonly remote: Buffer;
  readonly remotePort: number;
  readonly state: number;
  readonly msLeft: number;
}

function end(address: Buffer, port: number): string {
  const text = addressText(address);
  if (port === 0) return text;
  return address.length === IPV4_ADDRESS_BYTES ? `${text}:${port}` : `[${text}]:${port}`;
}

/** As FLOW_COLUMNS says. */
export function flowRow(flow: FlowRow): string[] {
  return [
    flow.wayBack.interface,
    parseProtocolAddress(`ip:${flow.protocol}`).text,
    end(flow.local, flow.localPort),
    end(flow.remote, flow.remotePort),
    flow.wayBack.peer.identity,
    flow.wayBack.symbol,
    flow.through?.protocol.text ?? '-',
    stateText(flow.protocol, flow.state),
    String(Math.max(0, Math.ceil(flow.msLeft / 1000))),
  ];
}
