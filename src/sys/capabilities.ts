/** The capabilities of this process, capabilities(7). Works where nothing else of sys can be loaded: no system call of ours. */
import { readFileSync } from 'node:fs';

/** Their numbers: bits of the sets in /proc/PID/status. */
export const CAPABILITIES = { CAP_NET_ADMIN: 12, CAP_NET_RAW: 13, CAP_SYS_ADMIN: 21 } as const;

export type Capability = keyof typeof CAPABILITIES;

/** Whether the effective set has it. */
export function hasCapability(name: Capability, status = readFileSync('/proc/self/status', 'latin1')): boolean {
  const mask = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0';
  return (BigInt(`0x${mask}`) & (1n << BigInt(CAPABILITIES[name]))) !== 0n;
}
